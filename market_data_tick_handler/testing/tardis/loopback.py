"""A web server on a free port of loopback for as long as a test needs it."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from aiohttp import web

# What tardis-machine reads of HTTP headers.
MAX_HEADER_BYTES: Final = 20_000


class LoopbackServer:
    """A web application on a free port of loopback, running inside `async with`."""

    def __init__(self) -> None:
        self.port = 0
        self._runner: web.AppRunner | None = None

    def _application(self) -> web.Application:
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        from aiohttp import web

        self._runner = web.AppRunner(
            self._application(), access_log=None, shutdown_timeout=1.0, max_line_size=MAX_HEADER_BYTES
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

"""Opens WebSockets; whatever prevents that becomes `SourceUnavailable`, with the wait that the venue asked for."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from picows import WSError, WSHandshakeError, WSParsedURL, WSTransport, ws_connect

from market_data_tick_handler.errors import SourceUnavailable
from streaming_service.clock import Clock
from streaming_service.sources.connection.deadline import within
from streaming_service.sources.connection.inbox import Inbox
from streaming_service.sources.connection.options import ConnectionOptions

TOO_MANY: Final = 429
BANNED: Final = 418


class Dialer:
    """Opens sockets of one venue: few at a time, and none while the venue wants to be left alone."""

    def __init__(self, *, clock: Clock, options: ConnectionOptions) -> None:
        self._clock = clock
        self._options = options
        self._slots = asyncio.Semaphore(options.connects_in_flight)
        self._blocked_until_s = 0.0

    @property
    def blocked_s(self) -> float:
        """How long the venue still wants to be left alone."""
        return max(0.0, self._blocked_until_s - self._clock.monotonic_s())

    async def open(self, url: str, inbox: Inbox) -> WSTransport:
        """Connect `inbox` to `url`.

        Raises:
            SourceUnavailable: no connection; `retry_after` where the venue, or what is known of it, says how long.
        """
        async with self._slots:
            while (wait_s := self.blocked_s) > 0:
                await self._clock.sleep(wait_s)
            try:
                return await self._open(url, inbox)
            except SourceUnavailable as error:
                if error.retry_after is not None:
                    until_s = self._clock.monotonic_s() + error.retry_after
                    self._blocked_until_s = max(self._blocked_until_s, until_s)
                raise

    async def _open(self, url: str, inbox: Inbox) -> WSTransport:
        options = self._options
        dialled: list[socket.socket] = []

        async def dial(parsed: WSParsedURL) -> socket.socket:
            dialled.append(await _connect(parsed.host, parsed.port))
            return dialled[0]

        opening = ws_connect(
            lambda: inbox,
            url,
            enable_auto_pong=False,
            websocket_handshake_timeout=options.handshake_s,
            max_frame_size=options.max_frame_bytes,
            extra_headers={"User-Agent": options.user_agent},
            socket_factory=dial,
        )
        try:
            transport, listener = await within(self._clock, options.handshake_s, opening)
        except BaseException as error:
            # The library leaves a socket open whose handshake nobody waits for any more; shut down, it closes itself.
            for each in dialled:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            if isinstance(error, WSHandshakeError) and error.response is not None:
                raise self._refused(url, error) from error
            if isinstance(error, WSError | OSError | TimeoutError):
                raise SourceUnavailable(f"{url}: no connection: {error!r}") from error
            raise
        if listener is None:
            raise SourceUnavailable(f"{url}: the other side hung up during the handshake")
        return transport

    def _refused(self, url: str, error: WSHandshakeError) -> SourceUnavailable:
        response = error.response
        status, headers = (0, {}) if response is None else (int(response.status), response.headers)
        wait_s = retry_after_s(status, headers, too_many_s=self._options.too_many_s, banned_s=self._options.banned_s)
        return SourceUnavailable(f"{url}: handshake answered with {status}; expected 101", retry_after=wait_s)


def retry_after_s(status: int, headers: Mapping[str, str], *, too_many_s: float, banned_s: float) -> float | None:
    """Seconds to wait after an answer: Retry-After, else what 429 and 418 mean; None where there is nothing to honour.

    A date in Retry-After is not read, as no venue sends one.
    """
    asked = next((value for name, value in headers.items() if name.lower() == "retry-after"), "").strip()
    if asked.isdecimal():
        return float(asked)
    return {TOO_MANY: too_many_s, BANNED: banned_s}.get(status)


async def _connect(host: str, port: int) -> socket.socket:
    """A connected socket to the first address of `host` that answers."""
    loop = asyncio.get_running_loop()
    problem: OSError = ConnectionError(f"{host} has no address")
    for family, kind, protocol, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        connecting = socket.socket(family, kind, protocol)
        connecting.setblocking(False)
        try:
            await loop.sock_connect(connecting, address)
        except OSError as error:
            connecting.close()
            problem = error
        except BaseException:
            connecting.close()
            raise
        else:
            return connecting
    raise problem

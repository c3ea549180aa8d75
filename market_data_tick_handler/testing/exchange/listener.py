"""A port on loopback that can stop listening and start again without losing its number."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Final

_HOST: Final = "127.0.0.1"
_BACKLOG: Final = 128


class Listener:
    """A bound socket that never listens keeps the port; a second one listens while clients are welcome."""

    def __init__(self, factory: Callable[[], Any]) -> None:
        self._factory = factory
        self._keeper = _bind(0)
        self.port: int = self._keeper.getsockname()[1]
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Accept connections."""
        if self._server is None:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(self._factory, sock=_bind(self.port), backlog=_BACKLOG)

    def refuse(self) -> None:
        """Refuse connections; those that are open stay."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def close(self) -> None:
        """Give the port back."""
        self.refuse()
        self._keeper.close()


def _bind(port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "SO_REUSEPORT"):
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.bind((_HOST, port))
    return bound

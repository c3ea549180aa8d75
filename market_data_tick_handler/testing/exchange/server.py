"""Sockets and REST of a simulated exchange on loopback: two ports, so that one can be down while the other works."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

from market_data_tick_handler.errors import NotInstalled
from market_data_tick_handler.testing.exchange.dialect import Answer
from market_data_tick_handler.testing.exchange.listener import Listener
from market_data_tick_handler.testing.exchange.lobby import Lobby
from market_data_tick_handler.testing.exchange.session import Session

if TYPE_CHECKING:
    from aiohttp import web

_MOST_MESSAGE_BYTES: Final = 4 * 1024 * 1024
_SHUTDOWN_S: Final = 2.0


class Server:
    """Carries what comes in to the lobby. `sockets` and `rest` are its two ports.

    Raises:
        NotInstalled: aiohttp is not there.
    """

    def __init__(self, lobby: Lobby) -> None:
        try:
            from aiohttp import web
        except ImportError as error:
            raise NotInstalled("a simulated exchange needs aiohttp: install the extra [streaming]") from error

        self._lobby, self._web = lobby, web
        self._servers = [web.Server(self._socket, access_log=None), web.Server(self._rest, access_log=None)]
        self.sockets, self.rest = (Listener(server) for server in self._servers)

    async def open(self) -> None:
        """Listen on both ports."""
        await self.sockets.open()
        await self.rest.open()

    async def close(self) -> None:
        """Stop listening and end what is left of the connections."""
        self.sockets.close()
        self.rest.close()
        for server in self._servers:
            await server.shutdown(_SHUTDOWN_S)

    async def _rest(self, request: web.BaseRequest) -> web.Response:
        return self._response(self._lobby.serve(request.path, dict(request.query), request.headers))

    def _response(self, answer: Answer) -> web.Response:
        headers = {"Content-Type": "application/json", **answer.headers}
        return self._web.Response(body=answer.body, status=answer.status, headers=headers)

    async def _socket(self, request: web.BaseRequest) -> web.StreamResponse:
        refusal = self._lobby.refuse(request.path)
        if refusal is not None:
            return self._response(refusal)
        socket = self._web.WebSocketResponse(
            autoping=False, autoclose=False, compress=False, max_msg_size=_MOST_MESSAGE_BYTES
        )
        writer = await socket.prepare(request)
        transport: Any = request.transport
        if transport is None:
            return socket
        session = self._lobby.admit(request.path, dict(request.query), transport, writer.drain)
        try:
            await self._converse(socket, session)
        finally:
            session.release()
            self._lobby.see_off(session)
            # What the framework would write now has nobody to go to.
            transport.close()
        return socket

    async def _converse(self, socket: web.WebSocketResponse, session: Session) -> None:
        kinds = self._web.WSMsgType
        while True:
            message = await socket.receive()
            if message.type is kinds.TEXT:
                self._lobby.hear(session, message.data)
            elif message.type is kinds.BINARY:
                with contextlib.suppress(UnicodeDecodeError):
                    self._lobby.hear(session, message.data.decode())
            elif message.type is kinds.PING:
                session.pong(bytes(message.data))
            elif message.type is kinds.PONG:
                session.pinged_us = None
            else:
                break
        if message.type is kinds.CLOSE:
            session.leave(message.data or 1000)
            # A stalled connection stays until the client has closed it too.
            await session.gone.wait()

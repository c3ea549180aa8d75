"""The other side of `PlainVenue` on loopback: a real WebSocket and HTTP server that can be made to misbehave."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

from streaming_service.clock import SystemClock
from streaming_service.sources.exchanges.protocol import Endpoints

CLOCK = SystemClock()


@dataclass(eq=False)
class Peer:
    """One connection of a client. stalled: nothing is read from it, hence no ping answered."""

    socket: web.WebSocketResponse
    transport: asyncio.Transport
    symbols: frozenset[str]
    heard: list[dict[str, Any]] = field(default_factory=list)
    closed: bool = False

    def stall(self) -> None:
        self.transport.pause_reading()

    def cut(self) -> None:
        self.transport.abort()


class VenueServer:
    """trades: what each symbol traded so far; new ones go to every peer unless `mute`. book: the number of the last
    change of each symbol. Answers to the next handshakes, and to the next REST calls, can be set."""

    def __init__(self) -> None:
        self.peers: list[Peer] = []
        self.handshakes: list[tuple[int, dict[str, str]]] = []
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.trades: dict[str, list[dict[str, Any]]] = {}
        self.book: dict[str, int] = {}
        self.requests: list[str] = []
        self.mute: set[str] = set()
        self.muted_peers: set[Peer] = set()
        self.acknowledges = True
        self.rest_hangs = False
        self.opened = 0
        self.endpoints = Endpoints("", "")

    @property
    def live(self) -> list[Peer]:
        return [peer for peer in self.peers if not peer.closed]

    async def say(self, said: dict[str, Any] | bytes, *, to: Peer | None = None) -> None:
        text = said if isinstance(said, bytes) else json.dumps(said).encode()
        for peer in self.live if to is None else [to]:
            symbol = said.get("s") if isinstance(said, dict) else None
            if symbol is None or symbol in peer.symbols:
                try:
                    await peer.socket.send_str(text.decode(errors="surrogateescape"))
                except (ConnectionError, RuntimeError):
                    peer.closed = True

    async def trade(self, symbol: str = "BTCUSDT", count: int = 1, *, delivered: bool = True) -> None:
        """Trades happen; not `delivered`: only REST knows of them."""
        known = self.trades.setdefault(symbol, [])
        for _ in range(count):
            number = len(known) + 1
            known.append({"s": symbol, "t": number, "p": 100.0 + number % 7, "T": CLOCK.now_us()})
            if delivered and symbol not in self.mute:
                for peer in self.live:
                    if peer not in self.muted_peers:
                        await self.say(known[-1], to=peer) if symbol in peer.symbols else None

    async def change_book(self, symbol: str = "BTCUSDT", *, skip: int = 0) -> None:
        """One change of a book; `skip` numbers are left out before it."""
        number = self.book[symbol] = self.book.get(symbol, 0) + 1 + skip
        bid, ask = 100.0 - number % 5, 101.0 + number % 3
        await self.say({"s": symbol, "u": number, "b": [[bid, number]], "a": [[ask, 1.0]], "T": CLOCK.now_us()})

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        if self.handshakes:
            status, headers = self.handshakes.pop(0)
            return web.Response(status=status, headers=headers)
        socket = web.WebSocketResponse(autoping=True, max_msg_size=0)
        await socket.prepare(request)
        assert request.transport is not None
        symbols = frozenset(request.query["symbols"].split(","))
        peer = Peer(socket, request.transport, symbols)  # type: ignore[arg-type]
        self.opened += 1
        self.peers.append(peer)
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    await self._hear(peer, json.loads(message.data))
        finally:
            peer.closed = True
        return socket

    async def _hear(self, peer: Peer, said: dict[str, Any]) -> None:
        peer.heard.append(said)
        if "subscribe" in said and self.acknowledges:
            await self.say({"ack": 1}, to=peer)
        if "ping" in said:
            await self.say({"pong": 1}, to=peer)
        if "book" in said:
            await self.say(self._snapshot(said["book"]), to=peer)

    def _snapshot(self, symbol: str) -> dict[str, Any]:
        number = self.book.get(symbol, 0)
        sides = {"b": [[99.0 - level, 1.0] for level in range(5)], "a": [[102.0 + level, 1.0] for level in range(5)]}
        return {"s": symbol, "u": number, "snapshot": True, "T": CLOCK.now_us(), **sides}

    async def _rest(self, request: web.Request) -> web.Response:
        self.requests.append(request.path_qs)
        if self.rest_hangs:
            await asyncio.Event().wait()
        if self.answers:
            status, headers = self.answers.pop(0)
            return web.Response(status=status, headers=headers, text="not now")
        symbol = request.query["symbol"]
        known = self.trades.get(symbol, [])
        if request.path == "/depth":
            return web.json_response(self._snapshot(symbol))
        if request.path == "/oi":
            return web.json_response({"s": symbol, "oi": 7.0, "T": CLOCK.now_us()})
        if request.path == "/last":
            return web.json_response({"trades": known[-1:]})
        first = int(request.query["from"])
        found = [each for each in known if each["t"] >= first][: int(request.query["limit"])]
        return web.json_response({"trades": found})


@asynccontextmanager
async def serving(server: VenueServer | None = None) -> AsyncIterator[VenueServer]:
    """The server on a free port of loopback."""
    server = VenueServer() if server is None else server
    app = web.Application()
    app.router.add_get("/ws", server._socket)
    for path in ("/depth", "/oi", "/last", "/trades"):
        app.router.add_get(path, server._rest)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    server.endpoints = Endpoints(f"ws://127.0.0.1:{port}", f"http://127.0.0.1:{port}")
    try:
        yield server
    finally:
        for peer in server.live:
            peer.cut()
        await runner.cleanup()

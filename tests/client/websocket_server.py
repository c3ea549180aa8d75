"""A small server of the WebSocket protocol, with every fault a test asks for.

GET /ws?channels=NAME[,..]&history=N&policy=..&open=0|1, and since=NAME@NUMBER[,..] for those whose number one
has: first the snapshot, then the tail, one message of docs/reference/wire.md per frame; and {"type":"dropped"|"gap",
"channel","from","to"}.
"""

from __future__ import annotations

import asyncio
import http
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from urllib.parse import parse_qs, urlsplit

import orjson
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.wire import CandleEncoder, Encoding, channels

Kept = deque[tuple[int, bytes]]


@dataclass
class _Subscriber:
    wanted: list[str]
    frames: asyncio.Queue[str | bytes]


class CandleServer:
    """kept: messages per channel that it remembers. token: what it asks for.

    requests: query of each connection. lose: how many messages of the tail each connection is not sent from now on.
    status: refuse connections with it.
    """

    def __init__(self, *, kept: int, token: str, encoding: Encoding) -> None:
        self.requests: list[dict[str, str]] = []
        self.lose = 0
        self.status: int | None = None
        self.connections: dict[ServerConnection, _Subscriber] = {}
        self._server: Server | None = None
        self._kept: dict[str, Kept] = {}
        self._length = kept
        self._token = token
        self._encoder = CandleEncoder(columns=("all",), encoding=encoding)

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"ws://127.0.0.1:{next(iter(self._server.sockets)).getsockname()[1]}"

    def publish(self, batch: CandleBatch, numbers: Iterable[int] | None = None, *, is_final: bool = True) -> None:
        """Send to whoever wants it, and remember it."""
        final = channels.candles(batch.instrument.key, batch.timeframe)
        name = final if is_final else channels.open_candles(batch.instrument.key, batch.timeframe)
        heads = list(batch.sequences.tolist() if numbers is None and batch.sequences is not None else numbers or ())
        for number, body in zip(heads, self._encoder.messages(batch, heads, is_final=is_final), strict=True):
            if is_final:
                self._kept.setdefault(name, deque(maxlen=self._length)).append((number, body))
            if self.lose:
                self.lose -= 1
                continue
            self.send(name, self._frame(body))

    def send(self, name: str, frame: str | bytes) -> None:
        """A frame for whoever wants the channel."""
        for subscriber in self.connections.values():
            if any(fnmatchcase(name, pattern) for pattern in subscriber.wanted):
                subscriber.frames.put_nowait(frame)

    def tell(self, kind: str, name: str, start: int, to: int, **more: str) -> None:
        """`dropped` or `gap`."""
        self.send(name, orjson.dumps({"type": kind, "channel": name, "from": start, "to": to, **more}).decode())

    def cut(self) -> None:
        """Break every connection."""
        for connection in list(self.connections):
            connection.transport.abort()

    def forget(self) -> None:
        """What was kept is gone, as after a restart."""
        self._kept.clear()

    def check(self, connection: ServerConnection, request: Request) -> Response | None:
        """What is answered instead of a connection."""
        if self.status is not None:
            return connection.respond(http.HTTPStatus(self.status), "not now\n")
        path, query = urlsplit(request.path).path, parse_qs(urlsplit(request.path).query)
        told = request.headers.get("Authorization", "").removeprefix("Bearer ") or query.get("token", [""])[0]
        if self._token and told != self._token:
            return connection.respond(http.HTTPStatus.UNAUTHORIZED, "an unknown token\n")
        if path != "/ws" or "NOBODY" in request.path:
            return connection.respond(http.HTTPStatus.NOT_FOUND, "no such channel\n")
        return None

    async def serve(self, connection: ServerConnection) -> None:
        """One subscriber, until it leaves."""
        assert connection.request is not None
        query = {name: values[0] for name, values in parse_qs(urlsplit(connection.request.path).query).items()}
        self.requests.append(query)
        patterns = query["channels"].split(",")
        since = dict(position.rsplit("@", 1) for position in query["since"].split(",")) if "since" in query else {}
        frames: asyncio.Queue[str | bytes] = asyncio.Queue()
        for name, kept in self._kept.items():
            if not any(fnmatchcase(name, pattern) for pattern in patterns):
                continue
            if name not in since:
                sent = list(kept)[-int(query["history"]) :] if int(query["history"]) else []
            else:
                last = int(since[name])
                sent = [entry for entry in kept if entry[0] > last]
                first = kept[0][0]
                if first > last + 1:
                    gap = {"type": "gap", "channel": name, "from": last + 1, "to": first - 1}
                    frames.put_nowait(orjson.dumps(gap).decode())
            for _, body in sent:
                frames.put_nowait(self._frame(body))
        wanted = [*patterns, *(f"{name}:open" for name in patterns)] if query["open"] == "1" else patterns
        # From here on the tail goes behind the snapshot.
        self.connections[connection] = _Subscriber(wanted, frames)
        sending = asyncio.create_task(_send(connection, frames))
        try:
            await connection.wait_closed()
        finally:
            sending.cancel()
            del self.connections[connection]

    def _frame(self, body: bytes) -> str | bytes:
        return body.decode() if body[:1] == b"{" else body

    async def start(self) -> None:
        self._server = await serve(self.serve, "127.0.0.1", 0, process_request=self.check)

    async def stop(self) -> None:
        assert self._server is not None
        self.cut()
        self._server.close()
        await self._server.wait_closed()


async def _send(connection: ServerConnection, frames: asyncio.Queue[str | bytes]) -> None:
    with suppress(ConnectionClosed):
        while True:
            await connection.send(await frames.get())


@asynccontextmanager
async def candle_server(
    *, kept: int = 100, token: str = "", encoding: Encoding = Encoding.JSON
) -> AsyncIterator[CandleServer]:
    """A server that listens until the end of the block."""
    made = CandleServer(kept=kept, token=token, encoding=encoding)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()

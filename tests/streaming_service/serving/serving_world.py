"""A sink with its routes on a real port, and readers of its sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType

from market_data_tick_handler.core.events import Gap
from market_data_tick_handler.core.instruments import parse_instrument_key
from market_data_tick_handler.core.timeframes import Timeframe
from streaming_service.clock import Clock
from streaming_service.monitoring.http import MonitoringServer
from streaming_service.serving.application import ServingRoutes
from streaming_service.serving.options import ServingOptions
from streaming_service.serving.sink import ServingSink
from streaming_service.serving.view import ServiceView
from streaming_service.sinks.marks import MarkSource
from tests.waiting import PATIENCE_S, patience, until
from tests.wire.candles import BTC, ETH

NOW_US = 1_704_067_200_000_000 + 86_400_000_000
# Nobody is given up for being slow: all of them are as busy as the machine.
CALM = ServingOptions(stall_s=10 * PATIENCE_S, heartbeat_s=10 * PATIENCE_S, close_s=PATIENCE_S)
BTC_1M = f"candles:{BTC}:1m"
ETH_1M = f"candles:{ETH}:1m"


@dataclass
class Said:
    """What the service says of itself."""

    health: dict[str, Any] = field(default_factory=lambda: {"status": "ok", "service_time_us": NOW_US})
    gaps: list[Gap] = field(default_factory=list)
    books: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    keys: tuple[str, ...] = (BTC, ETH)
    now_s: float = 0.0


@dataclass
class World:
    """A server with its sink and a client."""

    sink: ServingSink
    said: Said
    url: str
    session: ClientSession
    routes: ServingRoutes

    async def get(self, path: str, **query: Any) -> tuple[int, Any]:
        """Status and JSON of a route."""
        async with self.session.get(f"{self.url}{path}", params=query) as response:
            return response.status, await response.json(content_type=None)

    def connect(self, *channels: str, **query: Any) -> Any:
        """A WebSocket of these channels, as a context."""
        parameters = [("channels", ",".join(channels))]
        for name, value in query.items():
            parameters += [(name, str(each)) for each in (value if isinstance(value, list) else [value])]
        return self.session.ws_connect(f"{self.url}/ws", params=parameters, max_msg_size=0)


@asynccontextmanager
async def world(
    options: ServingOptions = CALM,
    *,
    store: str | None = None,
    token: str = "",
    host: str = "127.0.0.1",
    said: Said | None = None,
    timeframes: Sequence[Timeframe] = (Timeframe.M1,),
    marks: MarkSource | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[World]:
    """`host` is what the guard believes the server is bound to; it is on loopback all the same."""
    said = Said() if said is None else said
    sink = ServingSink(options, clock=clock, marks=marks)
    view = ServiceView(
        current=lambda: ([parse_instrument_key(key) for key in said.keys], timeframes),
        health=lambda: said.health,
        now_us=lambda: NOW_US,
        gaps=lambda key: [gap for gap in said.gaps if gap.instrument == key],
        latest_book=lambda key: said.books.get(key, {}),
        store=store,
    )
    routes = ServingRoutes(sink, view, host=host, token=token)
    server = MonitoringServer(
        host="127.0.0.1",
        port=0,
        blind=list,
        health=lambda: said.health,
        metrics=lambda: b"a_metric 1\n",
        routes=routes.routes(),
    )
    await server.start()
    await sink.open()
    try:
        async with ClientSession() as session:
            yield World(sink, said, server.url, session, routes)
    finally:
        await sink.aclose()
        await server.aclose()


async def read(socket: ClientWebSocketResponse, count: int) -> list[dict[str, Any]]:
    """The next `count` messages."""
    messages: list[dict[str, Any]] = []
    async with patience(lambda: f"{count} messages, came {len(messages)}, the last ones {messages[-3:]}"):
        while len(messages) < count:
            messages.append(orjson.loads(await socket.receive_str()))
    return messages


async def read_until_closed(socket: ClientWebSocketResponse) -> tuple[list[dict[str, Any]], int | None]:
    """Everything until the server closes, and the close code."""
    messages: list[dict[str, Any]] = []
    async with patience(lambda: f"an end, came {len(messages)} messages"):
        while (message := await socket.receive()).type is WSMsgType.TEXT:
            messages.append(orjson.loads(message.data))
    return messages, socket.close_code


async def listening(served: World, count: int = 1) -> None:
    """Return once so many subscribers are there; a handshake is over before its subscriber is."""
    await until(lambda: len(served.sink.hub) == count, lambda: f"{count} subscribers, there are {len(served.sink.hub)}")


def numbers(messages: list[dict[str, Any]], channel: str | None = None) -> list[int]:
    """Numbers of the candles of a channel, or of all."""
    return [
        message["sequence"]
        for message in messages
        if message["type"] == "candle"
        and channel in (None, f"candles:{message['instrument_id']}:{message['timeframe']}")
    ]

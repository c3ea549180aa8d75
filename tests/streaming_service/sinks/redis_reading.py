"""Readers that check what the Redis sink has delivered, and short ways to make one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import redis.asyncio
from redis.exceptions import RedisError

from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.errors import SinkRejected
from market_data_tick_handler.wire import channels, decode
from market_data_tick_handler.wire.redis_urls import parse_redis_url
from streaming_service.clock import Clock, SystemClock
from streaming_service.sinks.marks import MarkSource
from streaming_service.sinks.redis import RedisOptions, RedisSink
from tests.servers.redis_server import RedisServer
from tests.waiting import PATIENCE_S, until
from tests.wire.candles import BTC

_AGAIN_S = 0.005


def options(url: str, **changes: Any) -> RedisOptions:
    """Options that are quick to try again. No round trip takes too long, and no close, unless a test wants it to: a
    machine that stands still is no fault of Redis."""
    hasty: dict[str, Any] = {
        "timeout_s": PATIENCE_S / 2,
        "backoff_base_s": 0.005,
        "backoff_cap_s": 0.05,
        "mark_interval_s": 0.05,
        "open_interval_s": 0.05,
        "close_timeout_s": PATIENCE_S,
    }
    return RedisOptions(address=parse_redis_url(url), **{**hasty, **changes})


@asynccontextmanager
async def redis_sink(
    url: str, *, marks: MarkSource | None = None, clock: Clock | None = None, **changes: Any
) -> AsyncIterator[RedisSink]:
    """An open sink, closed at the end whether Redis is there or not."""
    sink = RedisSink(options(url, **changes), clock=clock or SystemClock(), marks=marks)
    await sink.open()
    try:
        yield sink
    finally:
        with suppress(SinkRejected):
            await sink.aclose()


def stream(server: RedisServer, key: str = BTC, timeframe: Timeframe = Timeframe.M1) -> list[dict[str, Any]]:
    """The documents of a stream; the id of each entry must be its number."""
    with server.client() as client:
        entries = client.xrange(channels.candles(key, timeframe))
    documents = []
    for ident, fields in entries:
        (message,) = fields.values()
        document = decode(message)
        assert ident == f"{document['sequence']}-0".encode()
        documents.append(document)
    return documents


def numbers(documents: list[dict[str, Any]]) -> list[int]:
    """Their numbers."""
    return [document["sequence"] for document in documents]


def closes(documents: list[dict[str, Any]]) -> list[float]:
    """Their closes, which tell the candles of `tests.wire.candles` apart."""
    return [document["close"] for document in documents]


class Listener:
    """A subscriber that comes back by itself and keeps what it heard."""

    def __init__(self, url: str, *patterns: str) -> None:
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self.subscribed = asyncio.Event()
        self._url, self._patterns = url, patterns

    def documents(self, channel: str) -> list[dict[str, Any]]:
        """What came on one channel."""
        return [document for name, document in self.heard if name == channel]

    async def run(self) -> None:
        while True:
            with suppress(RedisError, OSError):
                await self._listen()
            await asyncio.sleep(_AGAIN_S)

    async def _listen(self) -> None:
        async with redis.asyncio.Redis.from_url(self._url) as client, client.pubsub() as subscriber:
            await subscriber.psubscribe(*self._patterns)
            async for message in subscriber.listen():
                if message["type"] == "psubscribe":
                    self.subscribed.set()
                elif message["type"] == "pmessage":
                    self.heard.append((message["channel"].decode(), decode(message["data"])))


@asynccontextmanager
async def listener(url: str, *patterns: str) -> AsyncIterator[Listener]:
    """A listener that has subscribed."""
    made = Listener(url, *patterns)
    task = asyncio.create_task(made.run())
    try:
        await until(made.subscribed.is_set, "the listener has subscribed")
        yield made
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def without_repetitions(documents: list[dict[str, Any]]) -> list[int]:
    """The numbers as a reader takes them: one at or below the last one is a repetition."""
    taken: list[int] = []
    for number in numbers(documents):
        if not taken or number > taken[-1]:
            taken.append(number)
    return taken

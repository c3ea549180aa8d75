"""Publishes candles to a real Redis as the service does, or as a broken one would."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import redis.asyncio

from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.wire import (
    VERSION,
    CandleEncoder,
    ChannelMark,
    Encoding,
    Watermark,
    channels,
    encode_mark,
)
from tests.servers.redis_server import RedisServer
from tests.waiting import PATIENCE_S
from tests.wire.candles import BTC


class Publisher:
    """Streams and channels as docs/reference/wire.md has them; every loss is asked for."""

    def __init__(self, client: redis.asyncio.Redis, encoding: Encoding) -> None:
        self.client = client
        self._encoder = CandleEncoder(columns=("all",), encoding=encoding)
        self._field = encoding.value

    async def publish(
        self, batch: CandleBatch, numbers: Iterable[int] | None = None, *, push: bool = True, keep: bool = True
    ) -> None:
        """Append to the stream (`keep`) and publish (`push`)."""
        name = channels.candles(batch.instrument.key, batch.timeframe)
        heads = list(batch.sequences.tolist() if numbers is None and batch.sequences is not None else numbers or ())
        pipeline = self.client.pipeline(transaction=True)
        for number, body in zip(heads, self._encoder.messages(batch, heads), strict=True):
            if keep:
                pipeline.xadd(name, {self._field: body}, id=f"{number}-0")
            if push:
                pipeline.publish(name, body)
        await pipeline.execute()

    async def publish_open(self, batch: CandleBatch, number: int = 1) -> None:
        """A candle in progress."""
        name = channels.open_candles(batch.instrument.key, batch.timeframe)
        (body,) = self._encoder.messages(batch, [number], is_final=False)
        await self.client.publish(name, body)

    async def mark(self, number: int, timestamp: int, *, key: str = BTC, timeframe: Timeframe = Timeframe.M1) -> None:
        """The watermark that comes each second."""
        mark = Watermark(
            v=VERSION,
            type="watermark",
            sequence=1,
            instrument_id=key,
            watermark=timestamp,
            time=timestamp,
            channels={timeframe.value: ChannelMark(number, timestamp)},
        )
        body = encode_mark(mark, Encoding.JSON)
        await self.client.publish(channels.watermarks(key), body)
        # Longer than a service lets it stand: it is not to be outdated because the machine is busy.
        await self.client.set(channels.watermarks(key), body, ex=10 * round(PATIENCE_S))

    async def trim(self, left: int, name: str = channels.candles(BTC, Timeframe.M1)) -> None:
        """Leave the newest entries only."""
        await self.client.xtrim(name, maxlen=left, approximate=False)

    async def listeners(self, name: str = channels.candles(BTC, Timeframe.M1)) -> int:
        """How many subscribe to a channel."""
        ((_, count),) = await self.client.pubsub_numsub(name)
        return int(count)


@asynccontextmanager
async def publisher(server: RedisServer, *, encoding: Encoding = Encoding.JSON) -> AsyncIterator[Publisher]:
    """A publisher with every right."""
    async with redis.asyncio.Redis.from_url(server.url) as client:
        yield Publisher(client, encoding)


def calls(server: RedisServer, command: str) -> int:
    """How often the server was asked this."""
    with server.client() as client:
        return int(client.info("commandstats").get(f"cmdstat_{command}", {}).get("calls", 0))

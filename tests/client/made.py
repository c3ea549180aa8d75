"""Messages and ways to make them, for tests of the client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from market_data_tick_handler.client import Candle, CandleGap, ClientTiming, LiveFeatureStream
from market_data_tick_handler.client.items import Item, Origin
from market_data_tick_handler.client.messages import Message, read_message
from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.wire import CandleEncoder, channels
from tests.waiting import PATIENCE_S, patience, until
from tests.wire.candles import BTC, candles

CHANNEL = channels.candles(BTC, Timeframe.M1)
# Who looks often, and tries again at once, but takes nobody for lost who is only slow: a busy machine breaks no
# connection and loses no candle. What gives up is what some tests are about; they say after how long.
HASTY = ClientTiming(
    poll_s=0.05,
    timeout_s=PATIENCE_S,
    verify_s=0.2,
    give_up_s=PATIENCE_S,
    unknown_after_s=PATIENCE_S,
    backoff_base_s=0.005,
    backoff_cap_s=0.05,
)
# As above, and nothing is looked at unless something happens.
CALM = replace(HASTY, poll_s=10 * PATIENCE_S)
# Notices that nobody answers. A machine that is busy for so long costs it connections, too.
ALERT = replace(HASTY, timeout_s=1.0)
_encoder = CandleEncoder(columns=("all",))


def encoded(batch: CandleBatch, numbers: Iterable[int] | None = None, *, is_final: bool = True) -> list[bytes]:
    """The messages of a batch."""
    return _encoder.messages(batch, None if numbers is None else list(numbers), is_final=is_final)


def message(index: int, *, number: int | None = -1, revision: int = 0, **columns: Any) -> Message:
    """Candle number `index` of a series as it is pushed; its number is one higher unless given."""
    batch = candles(index, revision=revision, **columns)
    made = read_message(encoded(batch)[0])
    shown = made.number if number == -1 else number
    return Message(
        made.channel, shown, made.timestamp, made.revision, made.published_us, made.body, Origin.LIVE, made.is_final
    )


async def take(stream: LiveFeatureStream, count: int) -> list[Item]:
    """The next `count` items, whatever they are."""
    taken: list[Item] = []
    async with patience(lambda: f"{count} items, came {shown(taken)[-5:]}, {stream.stats}"):
        while len(taken) < count:
            item = await stream.next_item()
            assert item is not None, f"ended after {len(taken)} items"
            taken.append(item)
    return taken


class Reader:
    """Somebody who takes whatever comes, in a task of his own."""

    def __init__(self, stream: LiveFeatureStream) -> None:
        self.items: list[Item] = []
        self.stream = stream

    @property
    def numbers(self) -> list[int | None]:
        """Of the candles so far."""
        return [item.sequence for item in self.items if isinstance(item, Candle)]

    @property
    def gaps(self) -> list[CandleGap]:
        """Of the items so far."""
        return [item for item in self.items if isinstance(item, CandleGap)]

    async def has(self, number: int) -> None:
        """Return once he has this candle."""
        await until(
            lambda: number in self.numbers,
            lambda: f"number {number}; came {shown(self.items)[-5:]}, {self.stream.stats}",
        )

    async def run(self) -> None:
        async for item in self.stream:
            self.items.append(item)


@asynccontextmanager
async def reader(stream: LiveFeatureStream) -> AsyncIterator[Reader]:
    """A reader of a stream that is entered and left with the block."""
    async with stream:
        made = Reader(stream)
        task = asyncio.create_task(made.run())
        try:
            yield made
        finally:
            await stream.aclose()
            await task


def shown(items: Iterable[Item]) -> list[Any]:
    """Candles as their numbers, gaps as the numbers they span."""
    return [
        item.sequence if isinstance(item, Candle) else (str(item.reason), item.from_sequence, item.to_sequence)
        for item in items
    ]


def closes(items: Iterable[Item]) -> list[float]:
    """Closes of the candles; they tell the candles of `tests.wire.candles` apart."""
    return [item["close"] for item in items if isinstance(item, Candle)]

"""Candles that no journal has numbered get numbers before they can be dropped, so that a reader sees every hole."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np

from market_data_tick_handler.client import CandleGap, LiveFeatureStream
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.testing import ManualClock
from streaming_service.numbering import ChannelNumbers, first_number
from streaming_service.sink import FullPolicy, Outlet
from streaming_service.sinks.bus import InProcessBus, Subscription
from tests.waiting import patience, until
from tests.wire.candles import BTC, ETH, candles


def test_each_channel_counts_for_itself_from_the_first_number_on() -> None:
    numbers = ChannelNumbers(7)
    batches = [candles(0, 2, sequences=False), candles(0, 1, key=ETH, sequences=False), candles(2, 3, sequences=False)]
    found = [numbers.number(batch).sequences for batch in batches]
    assert [list(each) for each in found if each is not None] == [[7, 8], [7], [9, 10, 11]]


def test_numbers_of_a_journal_are_kept() -> None:
    numbered = candles(4, 2)
    assert ChannelNumbers(7).number(numbered) is numbered


def test_a_later_run_begins_behind_an_earlier_one_and_never_at_nothing() -> None:
    assert first_number(0) == 1
    assert first_number(1_700_000_000_000_000) > first_number(1_699_999_999_000_000) + 900


class SmallBus(InProcessBus):
    """A bus whose subscribers have room for one batch."""

    def subscribe(self, **options: Any) -> Subscription:
        return super().subscribe(**{**options, "capacity": 1})


async def test_what_a_full_queue_dropped_is_a_gap_for_the_subscriber() -> None:
    bus = SmallBus()
    outlet = Outlet(
        "bus", bus, clock=ManualClock(), capacity=2, policy=FullPolicy.DROP_OLDEST, numbers=ChannelNumbers(100)
    )
    items: list[Any] = []
    async with LiveFeatureStream(BTC, transport=bus, timeframe="1m", buffer=1) as stream:
        writing = asyncio.create_task(outlet.run())
        for index in range(20):
            await outlet.put(candles(index, sequences=False))
            await asyncio.sleep(0)
        await until(lambda: outlet.depth == 2, "a full queue")
        outlet.close()
        async with patience("the end of the stream"):
            items = [item async for item in stream]
            await writing
    gaps = [item for item in items if isinstance(item, CandleGap)]
    numbers = [item.sequence for item in items if not isinstance(item, CandleGap)]
    missing = [number for gap in gaps for number in range(gap.from_sequence or 0, (gap.to_sequence or 0) + 1)]
    assert len(missing) == outlet.counters.dropped > 0
    assert sorted([*numbers, *missing]) == list(np.arange(100, 120))
    assert items[0]["timeframe"] == Timeframe.M1

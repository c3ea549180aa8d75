"""In one process candles come from the bus: same items, same order, same policies."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from market_data_tick_handler.client import Candle, CandleGap, GapReason, LiveFeatureStream, Origin
from market_data_tick_handler.client.bus_feed import CandleBus
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.errors import ConfigError
from market_data_tick_handler.storage.candle_files import CandleWriter
from market_data_tick_handler.testing import ManualClock, ticks
from market_data_tick_handler.wire import decode
from streaming_service.sinks.bus import InProcessBus
from tests.client.made import encoded, shown, take
from tests.waiting import until
from tests.wire.candles import BTC, ETH, candles, computed


def live(bus: CandleBus, symbol: Any = BTC, **arguments: Any) -> LiveFeatureStream:
    return LiveFeatureStream(symbol, **{"exchange": None, "transport": bus, **arguments})


async def rest(stream: LiveFeatureStream) -> list[Any]:
    return [item async for item in stream]


async def test_candles_come_as_they_are_published_and_end_with_the_bus() -> None:
    bus = InProcessBus()
    async with live(bus) as stream:
        for index in range(5):
            await bus.write(candles(index))
        await bus.write(candles(0, key=ETH))
        await bus.aclose()
        items = await rest(stream)
    assert shown(items) == [1, 2, 3, 4, 5]
    assert stream.stats.delivered == 5 and stream.stats.gaps == 0


async def test_a_candle_of_the_bus_says_what_its_message_says() -> None:
    bus = InProcessBus()
    expected = []
    first = computed()[0].instrument.key
    async with live(bus, first, timeframe=["15s", "1m"], buffer=10_000) as stream:
        numbers = {Timeframe.S15: 0, Timeframe.M1: 0}
        for batch in computed():
            own = numbers[batch.timeframe] + 1 + np.arange(len(batch))
            numbers[batch.timeframe] += len(batch)
            expected += [decode(body) for body in encoded(batch, own.tolist())]
            await bus.write(batch.numbered(own))
        await bus.aclose()
        items = await rest(stream)
    assert len(items) == len(expected) > 20
    for item, document in zip(items, expected, strict=True):
        assert dict(item) == document


async def test_without_a_journal_candles_have_no_numbers_and_come_all_the_same() -> None:
    bus = InProcessBus()
    async with live(bus) as stream:
        await bus.write(candles(0, 3, sequences=False))
        await bus.aclose()
        assert shown(await rest(stream)) == [None, None, None]


async def test_several_series_and_options_of_an_underlying() -> None:
    bus = InProcessBus()
    call, other = "DERIBIT:OPTION:BTC-USD-50000-241225-CALL", "DERIBIT:OPTION:ETH-USD-3000-241225-CALL"
    async with live(bus, [BTC, ETH], timeframe=["1m", "5m"], underlying="BTC") as stream:
        for key in (BTC, ETH, call, other):
            for timeframe in (Timeframe.M1, Timeframe.M5, Timeframe.H1):
                await bus.write(candles(0, key=key, timeframe=timeframe))
        await bus.aclose()
        items = await rest(stream)
    assert sorted({item["instrument_id"] for item in items}) == sorted([BTC, ETH, call])
    assert len(items) == 6


async def test_history_comes_from_the_store_and_is_not_given_twice(tmp_path: Path) -> None:
    writer = CandleWriter(tmp_path)
    writer.write(candles(0, 20, quality="COMPLETE"))
    writer.close()
    bus = InProcessBus()
    clock = ManualClock(ticks.START_US + 21 * Timeframe.M1.us)
    async with live(bus, store=tmp_path, history=5, clock=clock) as stream:
        await bus.write(candles(19, 2))
        await bus.aclose()
        items = await rest(stream)
    assert [item["close"] for item in items] == [index + 100.5 for index in range(15, 21)]
    assert [item.origin for item in items] == [Origin.STORE] * 5 + [Origin.LIVE]


async def test_block_holds_the_publisher_back() -> None:
    bus = InProcessBus()
    async with live(bus, buffer=2) as stream:

        async def publish() -> None:
            for index in range(2_000):
                await bus.write(candles(index))

        publishing = asyncio.create_task(publish())
        await until(lambda: stream.stats.buffered == 2 and bus.subscriptions[0].lag >= 1_000, "a full bus")
        assert not publishing.done()
        assert shown(await take(stream, 2_000)) == list(range(1, 2_001))
        await publishing
        assert stream.stats.dropped == 0


async def test_drop_oldest_does_not_and_tells_what_was_dropped() -> None:
    bus = InProcessBus()
    async with live(bus, buffer=3, policy="drop_oldest") as stream:
        for index in range(10):
            await bus.write(candles(index))
        await until(lambda: stream.stats.received == 10, "all of them")
        assert shown(await take(stream, 4)) == [("dropped", 1, 7), 8, 9, 10]


async def test_candles_without_numbers_that_were_dropped_are_told_by_their_times() -> None:
    bus = InProcessBus()
    async with live(bus, buffer=1, policy="drop_oldest") as stream:
        await bus.write(candles(0, 4, sequences=False))
        await until(lambda: stream.stats.received == 4, "all of them")
        gap, candle = await take(stream, 2)
    assert isinstance(gap, CandleGap) and isinstance(candle, Candle)
    assert (gap.reason, gap.missing, gap.from_sequence) == (GapReason.DROPPED, 3, None)
    assert (gap.from_timestamp, gap.to_timestamp) == tuple(candles(0, 3)["timestamp"][[0, 2]].tolist())


async def test_latest_gives_the_newest_of_each_series() -> None:
    bus = InProcessBus()
    async with live(bus, [BTC, ETH], policy="latest") as stream:
        for index in range(5):
            await bus.write(candles(index))
            await bus.write(candles(index, key=ETH))
        await until(lambda: stream.stats.received == 10, "all of them")
        assert shown(await take(stream, 2)) == [5, 5]


async def test_a_number_that_the_bus_left_out_is_a_gap() -> None:
    bus = InProcessBus()
    async with live(bus) as stream:
        await bus.write(candles(0, 2))
        await bus.write(candles(4, 2))
        assert shown(await take(stream, 5)) == [1, 2, ("lost", 3, 4), 5, 6]


async def test_numbers_that_begin_anew_on_the_bus_are_told() -> None:
    bus = InProcessBus()
    async with live(bus) as stream:
        await bus.write(candles(0, 3))
        await bus.write(candles(3, 2).numbered(np.array([1, 2])))
        assert shown(await take(stream, 6)) == [1, 2, 3, ("renumbered", 4, None), 1, 2]


async def test_many_subscribers_do_not_disturb_each_other() -> None:
    bus = InProcessBus()
    async with AsyncExitStack() as stack:
        streams = {
            policy: [await stack.enter_async_context(live(bus, policy=policy, buffer=5)) for _ in range(20)]
            for policy in ("drop_oldest", "latest")
        }
        for index in range(30):
            await bus.write(candles(index))
        everybody = [stream for group in streams.values() for stream in group]
        await until(lambda: all(stream.stats.received == 30 for stream in everybody), "all of them")
        for stream in streams["drop_oldest"]:
            assert shown(await take(stream, 6)) == [("dropped", 1, 25), 26, 27, 28, 29, 30]
        for stream in streams["latest"]:
            assert shown(await take(stream, 1)) == [30]
    assert bus.subscriptions == ()


async def test_leaving_lets_a_held_bus_go_on() -> None:
    bus = InProcessBus()
    async with live(bus, buffer=1) as stream:
        writing = asyncio.create_task(bus.write(candles(0, 5)))
        await until(lambda: stream.stats.buffered == 1, "a full buffer")
    await writing
    assert bus.subscriptions == ()


def test_a_bus_is_not_read_from_another_thread() -> None:
    with pytest.raises(ConfigError, match="only its own event loop"):
        live(InProcessBus()).sync()

"""Subscribers of the in-process bus get what they asked for, and a slow one costs what its policy says."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.instruments import parse_instrument_key
from market_data_tick_handler.core.timeframes import Timeframe
from streaming_service.sinks.bus import InProcessBus, SubscriberPolicy, Subscription

BTC = "BINANCE:SPOT_PAIR:BTC-USDT"
ETH = "BINANCE:SPOT_PAIR:ETH-USDT"


def candle(number: int, *, instrument: str = BTC, timeframe: Timeframe = Timeframe.M1) -> CandleBatch:
    columns = {"timestamp": np.array([number * timeframe.us]), "close": np.array([float(number)])}
    return CandleBatch(parse_instrument_key(instrument), timeframe, columns, "1.0.0")


def closes(batches: list[CandleBatch]) -> list[float]:
    return [float(batch["close"][0]) for batch in batches]


async def rest(subscription: Subscription) -> list[CandleBatch]:
    return [batch async for batch in subscription]


async def test_a_subscriber_gets_every_candle_in_order_and_ends_with_the_bus() -> None:
    bus = InProcessBus()
    subscription = bus.subscribe()
    for number in range(5):
        await bus.write(candle(number))
    await bus.aclose()
    assert closes(await rest(subscription)) == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert subscription.delivered == 5


async def test_a_subscription_is_to_one_instrument_and_timeframe_if_it_says_so() -> None:
    bus = InProcessBus()
    subscription = bus.subscribe(instrument=ETH, timeframe=Timeframe.M5)
    await bus.write(candle(1))
    await bus.write(candle(2, instrument=ETH))
    await bus.write(candle(3, instrument=ETH, timeframe=Timeframe.M5))
    await bus.aclose()
    assert closes(await rest(subscription)) == [3.0]


async def test_drop_oldest_keeps_the_newest_and_counts_the_rest() -> None:
    bus = InProcessBus()
    subscription = bus.subscribe(policy=SubscriberPolicy.DROP_OLDEST, capacity=2)
    for number in range(5):
        await bus.write(candle(number))
    assert (subscription.dropped, subscription.lag) == (3, 2)
    await bus.aclose()
    assert closes(await rest(subscription)) == [3.0, 4.0]
    assert bus.dropped == 3


async def test_latest_keeps_one_candle_per_series() -> None:
    bus = InProcessBus()
    subscription = bus.subscribe(policy=SubscriberPolicy.LATEST)
    for number in range(3):
        await bus.write(candle(number))
        await bus.write(candle(10 + number, instrument=ETH))
    await bus.aclose()
    assert closes(await rest(subscription)) == [2.0, 12.0]
    assert subscription.dropped == 4


async def test_block_holds_the_bus_until_the_subscriber_takes_one() -> None:
    bus = InProcessBus()
    subscription = bus.subscribe(policy=SubscriberPolicy.BLOCK, capacity=1)
    await bus.write(candle(0))
    writing = asyncio.create_task(bus.write(candle(1)))
    await asyncio.sleep(0)
    assert not writing.done()
    assert closes([await anext(subscription)]) == [0.0]
    await writing
    assert closes([await anext(subscription)]) == [1.0]
    assert subscription.dropped == 0


async def test_a_subscriber_that_leaves_lets_a_blocked_bus_go_on() -> None:
    bus = InProcessBus()
    async with bus.subscribe(capacity=1):
        await bus.write(candle(0))
        writing = asyncio.create_task(bus.write(candle(1)))
        await asyncio.sleep(0)
    await writing
    assert bus.subscriptions == ()


async def test_a_subscription_to_a_closed_bus_is_empty() -> None:
    bus = InProcessBus()
    await bus.aclose()
    assert await rest(bus.subscribe()) == []


async def test_a_waiting_subscriber_wakes_when_a_candle_comes() -> None:
    bus = InProcessBus()
    subscription = bus.subscribe()
    waiting = asyncio.ensure_future(anext(subscription))
    await asyncio.sleep(0)
    await bus.write(candle(7))
    assert closes([await waiting]) == [7.0]


@pytest.mark.parametrize("policy", list(SubscriberPolicy))
async def test_lag_tells_how_far_a_subscriber_is_behind(policy: SubscriberPolicy) -> None:
    bus = InProcessBus()
    subscription = bus.subscribe(policy=policy, capacity=5)
    await bus.write(candle(0))
    await bus.write(candle(0, instrument=ETH))
    assert subscription.lag == 2

"""Everything that may happen to a live feed, on loopback: noticed, repaired, accounted for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from market_data_tick_handler.core.events import GapEnding
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.core.timeframes import ceil_us
from market_data_tick_handler.testing.exchange import (
    BookBreak,
    ClockStep,
    Close,
    Cut,
    Drop,
    Duplicate,
    Garbage,
    Mute,
    RateLimit,
    Rates,
    Reorder,
    Stall,
)
from tests.e2e.live import RATES, START_US, Running, assert_whole, compared_with_batch, running
from tests.e2e.test_live_exchange import VENUES

pytestmark = pytest.mark.alone

BTC = "BINANCE:SPOT_PAIR:BTC-USDT"
S = 1_000_000


async def candle(run: Running, at_us: int, *, quality: str = "", timeframe: str = "15s") -> dict[str, Any]:
    """The first published row of a candle, of that quality if one is named."""
    return await run.seen.until(
        lambda row: row["timeframe"] == timeframe and row["timestamp"] == at_us and quality in ("", row["quality"])
    )


async def at(run: Running, seconds: float) -> None:
    """Wait until so many seconds after the start of the test's time, and until there is a feed that can fail."""
    await run.until_ready()
    await run.until_time(START_US + int(seconds * S))


def gaps(run: Running, key: str = BTC) -> list[Any]:
    return [gap for gap in run.service.pipelines[key].gaps if gap.reason not in ("service started", "service stopped")]


async def settled(run: Running, key: str = BTC) -> None:
    """Wait until every gap has come to an end."""
    await run.until(
        lambda: bool(gaps(run, key)) and all(gap.ending is not GapEnding.OPEN for gap in gaps(run, key)),
        lambda: gaps(run, key),
    )


@asynccontextmanager
async def balancing(run: Running) -> AsyncIterator[None]:
    """The accounting identity, looked at all the time."""

    async def look() -> None:
        while True:
            assert all(account.balances for account in run.service.accounts.values()), run.service.accounts
            await run.clock.sleep(0.5)

    watch = asyncio.create_task(look())
    try:
        yield
        if watch.done():
            watch.result()
    finally:
        watch.cancel()


async def stopped_and_compared(tmp_path: Path) -> None:
    found = await asyncio.to_thread(compared_with_batch, tmp_path, ["15s", "1m", "5m"])
    assert found.same, (found.kinds, found.first)


async def test_a_socket_cut_for_six_seconds_is_gapped_at_once_and_repaired(tmp_path: Path) -> None:
    async with running(tmp_path, "binance", ["BTCUSDT"], [BTC], speed=2.5) as run, balancing(run):
        # The connection is back a second before the end of a candle.
        await at(run, 17.0)
        opened = ceil_us(run.clock.now_us() - 8 * S, 15 * S)
        await run.until_time(opened + 8 * S)
        run.exchange.inject(Cut(duration_s=6.0))
        gapped = await candle(run, opened, quality="GAPPED")
        assert gapped["revision"] == 0
        lost = 1.0 - gapped["coverage"]
        # test_recovery has it to the microsecond; here the reconnect takes its time, at most to the candle's end.
        assert 0.4 <= lost < 0.5
        repaired = await candle(run, opened, quality="REPAIRED")
        assert repaired["revision"] > gapped["revision"] and repaired["coverage"] == gapped["coverage"]
        await settled(run)
        await run.until_time(opened + 35 * S)
        assert {gap.ending for gap in gaps(run)} == {GapEnding.REPAIRED}
        await assert_whole(run, "BTCUSDT", BTC)
        report = run.service.health_report()
        assert report["recovery"]["repairs"]["repaired"] >= 1
    await stopped_and_compared(tmp_path)


async def test_a_silent_half_open_socket_is_noticed_and_repaired(tmp_path: Path) -> None:
    async with running(tmp_path, "binance", ["BTCUSDT"], [BTC]) as run:
        await at(run, 30.0)
        stalled_us = run.clock.now_us()
        run.exchange.inject(Stall())
        await run.until(lambda: bool(gaps(run)) and gaps(run)[-1].from_us > stalled_us - 5 * S, lambda: gaps(run))
        gap = gaps(run)[-1]
        # Learned: a market of twenty orders a second is not believed to be silent for long.
        assert gap.from_us <= stalled_us + S
        assert gap.to_us - gap.from_us < 20 * S
        await settled(run)
        await run.until_time(stalled_us + 50 * S)
        await assert_whole(run, "BTCUSDT", BTC)
    await stopped_and_compared(tmp_path)


async def test_no_trades_for_a_minute_are_quiet_while_the_exchange_lives(tmp_path: Path) -> None:
    async with running(tmp_path, "binance", ["BTCUSDT"], [BTC], rates=Rates(0.0, 40.0, 10.0, 0.0, 0.0)) as run:
        run.exchange.trade("BTCUSDT", 42_000.0, 0.5, 1)
        await run.until(lambda: (BTC, DataType.BOOK) in run.service.accounts)
        run.exchange.trade("BTCUSDT", 42_001.0, 0.5, 1)
        await run.until(lambda: (BTC, DataType.TRADES) in run.service.accounts)
        first = ceil_us(run.clock.now_us(), 15 * S)
        quiet = [await candle(run, first + 15 * index * S) for index in range(4)]
        assert {(row["quality"], row["coverage"]) for row in quiet} == {("QUIET", 1.0)}
    await stopped_and_compared(tmp_path)


async def test_a_muted_trade_stream_on_a_living_connection_is_found_out(tmp_path: Path) -> None:
    """Books go on, trades do not, and the REST interface knows of trades that never came."""
    async with running(tmp_path, "binance", ["BTCUSDT"], [BTC]) as run:
        await at(run, 30.0)
        muted_us = run.clock.now_us()
        run.exchange.inject(Mute(kind="trades", duration_s=60.0))
        await run.until(lambda: any(gap.from_us > muted_us - 5 * S for gap in gaps(run)), lambda: gaps(run))
        await settled(run)
        await run.until_time(muted_us + 120 * S)
        await settled(run)
        await assert_whole(run, "BTCUSDT", BTC)


@pytest.mark.parametrize(
    "faults",
    [
        (Garbage(), Garbage(form="truncated")),
        (Duplicate(count=20),),
        (Reorder(count=10),),
        (Drop(count=7),),
        (Close(code=1001, reason="going away"),),
        (BookBreak(),),
        (ClockStep(step_us=1_500_000),),
        (RateLimit(duration_s=5.0), Drop(count=3)),
    ],
    ids=lambda faults: "+".join(type(fault).__name__ for fault in faults),
)
async def test_a_fault_loses_no_trade(faults: tuple[Any, ...], tmp_path: Path) -> None:
    both = [BTC, "BINANCE:SPOT_PAIR:ETH-USDT"]
    async with running(tmp_path, "binance", ["BTCUSDT", "ETHUSDT"], both) as run, balancing(run):
        await at(run, 30.0)
        struck_us = run.clock.now_us()
        for fault in faults:
            run.exchange.inject(fault)
        await run.until_time(struck_us + 30 * S)
        await run.until(
            lambda: all(gap.ending is not GapEnding.OPEN for key in run.service.pipelines for gap in gaps(run, key))
        )
        await run.until_time(struck_us + 45 * S)
        await assert_whole(run, "BTCUSDT", BTC)
        await assert_whole(run, "ETHUSDT", both[1])
    await stopped_and_compared(tmp_path)


async def test_a_hole_of_half_an_hour_is_repaired_over_rest(tmp_path: Path) -> None:
    async with running(
        tmp_path, "binance", ["BTCUSDT"], [BTC], speed=120.0, rates=Rates(2.0, 1.0, 0.5, 0.0, 0.0)
    ) as run:
        await at(run, 120.0)
        cut_us = run.clock.now_us()
        run.exchange.inject(Cut(duration_s=1_800.0))
        await run.until_time(cut_us + 1_870 * S)
        await settled(run)
        await run.until_time(cut_us + 2_130 * S)
        await assert_whole(run, "BTCUSDT", BTC)
        inside = range(ceil_us(cut_us, 60 * S), cut_us + 1_740 * S, 60 * S)
        hole = [row for row in run.seen.rows if row["timeframe"] == "1m" and row["timestamp"] in inside]
        for quality, revised in (("GAPPED", False), ("REPAIRED", True)):
            rows = [row for row in hole if row["quality"] == quality]
            assert {row["timestamp"] for row in rows} == set(inside)
            assert all((row["revision"] > 0) is revised for row in rows)
    await stopped_and_compared(tmp_path)


@pytest.mark.parametrize("exchange_id", [name for name in VENUES if name != "binance"])
async def test_every_venue_is_repaired(exchange_id: str, tmp_path: Path) -> None:
    """A cut, garbage and repeats everywhere; lost frames where the venue counts its trades."""
    symbol, key = VENUES[exchange_id]
    # Bybit's spot market tells of its last sixty trades only.
    rates = Rates(orders=1.0, book_changes=10.0, books=5.0, tickers=1.0) if exchange_id == "bybit-spot" else RATES
    async with running(tmp_path, exchange_id, [symbol], [key], rates=rates) as run, balancing(run):
        await at(run, 20.0)
        cut_us = run.clock.now_us()
        run.exchange.inject(Cut(duration_s=3.0))
        await run.until_time(cut_us + 20 * S)
        for fault in (Garbage(), Duplicate(count=5), *([] if exchange_id.startswith("bybit") else [Drop(count=4)])):
            run.exchange.inject(fault)
        await run.until_time(cut_us + 40 * S)
        await settled(run, key)
        await run.until_time(cut_us + 55 * S)
        assert {gap.ending for gap in gaps(run, key)} <= {GapEnding.REPAIRED, GapEnding.EXPLAINED}
        await assert_whole(run, symbol, key)
    await stopped_and_compared(tmp_path)

"""A whole service against a simulated exchange on loopback, with time running faster than the wall."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from market_data_tick_handler.commands.parity import StoreComparison, compare_stores
from market_data_tick_handler.config import load_settings
from market_data_tick_handler.config.settings import Settings
from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.main import main
from market_data_tick_handler.storage.paths import day_of
from market_data_tick_handler.testing.exchange import Rates, SimulatedExchange
from streaming_service.app import Service
from streaming_service.clock import ScaledClock
from streaming_service.sink import SinkItem
from tests.steady_clock import MOST_S, SteadyClock
from tests.waiting import PATIENCE_S, What, patience, until

START_US = 1_704_110_400_000_000 + 5_000_000
_AGE_S = 6.0
RATES = Rates(orders=20.0, book_changes=40.0, books=10.0, tickers=1.0, liquidations=0.2)
# What may pass between two turns of the event loop, in seconds of the market.
_MOST_S = 0.2
# Between two looks at everything that was published and traded.
_LOOK_S = 0.1


def market_clock(speed: float) -> ScaledClock:
    """Time of a market that is `speed` times as fast as the wall, where the machine is fast enough."""
    return ScaledClock(start_us=START_US, speed=speed, base=SteadyClock(most_s=min(MOST_S, _MOST_S / speed)))


class Seen:
    """A sink that keeps what is published, and lets a test wait for it."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.batches: list[CandleBatch] = []
        self._came = asyncio.Event()

    async def open(self) -> None: ...

    async def write(self, batch: SinkItem) -> None:
        if isinstance(batch, CandleBatch):
            self.batches.append(batch)
            self.rows += list(batch.rows())
            self._came.set()

    async def flush(self) -> None: ...

    async def aclose(self) -> None: ...

    async def until(
        self, wanted: Callable[[dict[str, Any]], bool], what: What = "", *, within_s: float = PATIENCE_S
    ) -> dict[str, Any]:
        """The first row, of those there or still to come, that is wanted."""
        async with patience(what or self._tail, within_s=within_s):
            at = 0
            while True:
                for row in self.rows[at:]:
                    if wanted(row):
                        return row
                at = len(self.rows)
                self._came.clear()
                await self._came.wait()

    def _tail(self) -> str:
        names = ("instrument_id", "timeframe", "timestamp", "quality", "revision")
        told = [tuple(row[name] for name in names) for row in self.rows[-20:]]
        return f"a row other than these {len(self.rows)}, which end with {told}"


@dataclass
class Running:
    """A service that runs, its exchange, and what it published."""

    service: Service
    exchange: SimulatedExchange
    seen: Seen
    clock: ScaledClock

    async def until(self, done: Callable[[], Any], what: What = "", *, within_s: float = PATIENCE_S) -> None:
        """Wait for a condition, looked at every few milliseconds of the wall."""
        await until(done, what, within_s=within_s, poll_s=0.02)

    async def until_time(self, time_us: int) -> None:
        """Wait until the market is there."""
        while (left_us := time_us - self.clock.now_us()) > 0:
            await self.clock.sleep(left_us / 1_000_000)

    async def until_ready(self) -> None:
        """Wait until every stream that is required lives."""
        await self.until(lambda: not self.service.not_ready(), self.service.not_ready)


def live_settings(tmp_path: Path, exchange: SimulatedExchange, instruments: Sequence[str], **changes: Any) -> Settings:
    """Settings of a service whose exchange is the simulated one."""
    sources = {f"data_types.{data_type}.source": "exchange" for data_type in DataType}
    overrides: dict[str, Any] = {
        "instruments": list(instruments),
        "modes": ["persist"],
        "persist.path": str(tmp_path / "store"),
        "persist.store_ticks": True,
        "recovery.path": str(tmp_path / "state"),
        "monitoring.port": 0,
        "candles.timeframes": ["15s", "1m", "5m"],
        # Of the wall: a slow machine takes long to write what there is.
        "shutdown.deadline": f"{PATIENCE_S:g}s",
        "exchange.endpoints": {exchange.exchange: {"sockets": exchange.sockets, "rest": exchange.rest}},
        **sources,
        **changes,
    }
    return load_settings(overrides=overrides, environment={}).settings


@asynccontextmanager
async def running(
    tmp_path: Path,
    exchange_id: str,
    symbols: Sequence[str],
    instruments: Sequence[str],
    *,
    speed: float = 20.0,
    rates: Rates = RATES,
    seed: int = 1,
    clock: ScaledClock | None = None,
    **changes: Any,
) -> AsyncIterator[Running]:
    """A service and its exchange, until the block ends; then the service drains."""
    clock = market_clock(speed) if clock is None else clock
    async with SimulatedExchange(exchange_id, symbols, clock=clock, seed=seed, rates=rates) as exchange:
        # A market that is older than the service, as markets are.
        await clock.sleep(_AGE_S)
        async with serving(tmp_path, exchange, instruments, clock, **changes) as run:
            yield run


@asynccontextmanager
async def serving(
    tmp_path: Path,
    exchange: SimulatedExchange,
    instruments: Sequence[str],
    clock: ScaledClock,
    *,
    publish_open_candles: bool = True,
    **changes: Any,
) -> AsyncIterator[Running]:
    """A service at an exchange that is there."""
    seen = Seen()
    settings = live_settings(tmp_path, exchange, instruments, **changes)
    service = Service(settings, wall=clock, sinks={"seen": seen}, publish_open_candles=publish_open_candles)
    stop = asyncio.Event()
    task = asyncio.create_task(service.run(stop))
    try:
        started = asyncio.create_task(service.started.wait())
        await asyncio.wait([task, started], return_when=asyncio.FIRST_COMPLETED)
        started.cancel()
        if task.done():
            task.result()
        yield Running(service, exchange, seen, clock)
    finally:
        stop.set()
        await task


async def assert_whole(
    run: Running, symbol: str, key: str, *, timeframe: str = "15s", qualities: Collection[str] = ()
) -> None:
    """The last revision of every closed candle comes to have exactly the trades that were made: of those in one of
    `qualities`; without these, of all from the second on."""
    length_us = Timeframe(timeframe).us

    def differing() -> list[tuple[float, str, int, int, int]] | str:
        # What closed a moment ago is on its way.
        until_us = run.clock.now_us() - int((3.0 + 0.5 * run.clock.speed) * 1_000_000)
        truth = run.exchange.truth(symbol)
        rows = [row for row in run.seen.rows if row["timeframe"] == timeframe and row["instrument_id"] == key]
        last = {row["timestamp"]: row for row in rows if row["timestamp"] + length_us <= until_us}
        chosen = sorted(last)[1:] if not qualities else [at for at in last if last[at]["quality"] in qualities]
        if not chosen:
            return f"no candle to compare among {len(last)}"
        found = []
        for opened in chosen:
            row = last[opened]
            inside = (truth["timestamp"] >= opened) & (truth["timestamp"] < opened + length_us)
            volume = pytest.approx(float(truth["amount"][inside].sum()))
            if row["trade_count"] != int(inside.sum()) or row["volume"] != volume:
                after_s = (opened - START_US) / 1_000_000
                found.append((after_s, row["quality"], row["revision"], row["trade_count"], int(inside.sum())))
        return found

    await until(lambda: not differing(), differing, poll_s=_LOOK_S)


def compared_with_batch(tmp_path: Path, timeframes: Sequence[str]) -> StoreComparison:
    """The live store against the candles that batch computes from its ticks and ledger."""
    live, again = tmp_path / "store", tmp_path / "again"
    again.mkdir()
    for folder in ("raw_tick_data", "gap_ledger"):
        shutil.copytree(live / folder, again / folder)
    day = day_of(START_US).isoformat()
    code = main(
        ["batch", "candle-processing", "--store", str(again), "--start-date", day, "--end-date", day,
         "--timeframes", *timeframes]
    )  # fmt: skip
    assert code == 0
    return compare_stores(live, again)

"""Batches are spooled and encoded beside the event loop, and calls are few. How fast, the benchmark `persist` says."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from market_data_tick_handler.config.outputs import BigQuerySettings
from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.testing.clock import ManualClock
from market_data_tick_handler.testing.ticks import BTC, START_US, trades
from streaming_service.clock import Clock, SystemClock
from streaming_service.sinks.bigquery import writers
from streaming_service.sinks.bigquery.connection import Clients
from streaming_service.sinks.bigquery.encoding import AppendRequest
from streaming_service.sinks.bigquery.sink import BigQuerySink
from streaming_service.sinks.tables.definitions import USAGE_TABLE
from streaming_service.sinks.tables.gathering import Gathered
from streaming_service.sinks.tables.sender import RetryPolicy
from tests.streaming_service.sinks.bigquery import world
from tests.streaming_service.sinks.bigquery.world import candles

# No batch is sent because its time is over: how many there are is to go by what they hold, not by the machine.
_KINDS = ("candles", "trades", "book_snapshot_5", "derivative_ticker", "liquidations", "options_chain")
_UNHURRIED = dict.fromkeys(_KINDS, "1h")


class Accepting:
    """An append client that takes everything at once. What the service writes of itself is not counted."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    async def create(self, table_path: str, *, pending: bool = False) -> str:
        return f"{table_path}/streams/1"

    async def append(self, request: AppendRequest) -> None:
        if USAGE_TABLE not in request.stream:
            self.sizes.append(len(request.data))

    async def aclose(self) -> None: ...


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[int]]:
    """In which threads what takes milliseconds was done."""
    seen: dict[str, set[int]] = {}

    def note(owner: Any, name: str) -> None:
        done = getattr(owner, name)
        seen[name] = set()

        def noting(*arguments: Any, **options: Any) -> Any:
            seen[name].add(threading.get_ident())
            return done(*arguments, **options)

        monkeypatch.setattr(owner, name, noting)

    note(os, "fsync")
    note(Gathered, "move")
    note(writers, "arrow_request")
    return seen


def assert_loop_is_spared(threads: dict[str, set[int]]) -> None:
    """For the thread of the loop to ask."""
    for name, seen in threads.items():
        assert seen, name
        assert threading.get_ident() not in seen, name


def make_sink(
    spool: Path, appends: Accepting, monkeypatch: pytest.MonkeyPatch, *, clock: Clock | None = None
) -> BigQuerySink:
    async def connect(settings: BigQuerySettings) -> Clients:
        rest: Any = world.client("http://127.0.0.1:1")
        return Clients("test", rest, appends)  # type: ignore[arg-type]

    monkeypatch.setattr("streaming_service.sinks.bigquery.tables.Tables.ensure", lambda *_: None)
    monkeypatch.setattr("streaming_service.sinks.bigquery.tables.Tables.ensure_table", lambda *_: None)
    batch_timeouts = _UNHURRIED if clock is None else {}
    chosen = world.settings(spool, rest="http://127.0.0.1:1", grpc="", dataset="live", batch_timeouts=batch_timeouts)
    clock = SystemClock() if clock is None else clock
    return BigQuerySink(chosen, timeframes=[Timeframe.M1], clock=clock, retry=RetryPolicy(attempts=1), connect=connect)


async def test_ticks_flow_without_holding_up_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: dict[str, set[int]]
) -> None:
    """300,000 trades in turns of 2,000: spooled, encoded, sent in as few appends as their bytes need."""
    appends = Accepting()
    sink = make_sink(tmp_path, appends, monkeypatch)
    await sink.open()
    count, turn = 300_000, 2_000
    batches = [Rows(BTC, trades(np.arange(start, start + turn), first_id=start + 1)) for start in range(0, count, turn)]
    for batch in batches:
        await sink.write(batch)
        await asyncio.sleep(0)
    await sink.aclose()
    assert sum(appends.sizes) > count * 60 and max(appends.sizes) < 20_000_000
    assert len(appends.sizes) <= -(-sum(appends.sizes) // 18_000_000)
    assert_loop_is_spared(threads)


@pytest.mark.parametrize(("count", "at_once"), [(5_000, 1), (20_000, 20)])
async def test_candles_with_every_column_flow_too(
    count: int, at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: dict[str, set[int]]
) -> None:
    """Thousands of candles with all columns, one per batch as they are published, or 20 as after a catch-up."""
    appends = Accepting()
    sink = make_sink(tmp_path, appends, monkeypatch)
    await sink.open()
    groups = ("identity", "ohlcv", "flow", "delays", "returns", "indicators", "spread", "book", "mft")
    whole = candles(count, groups=groups)
    parts = [whole.slice(index, index + at_once) for index in range(0, len(whole), at_once)]
    for index, one in enumerate(parts):
        await sink.write(one)
        if index % 100 == 0:
            await asyncio.sleep(0)
    await sink.aclose()
    assert len(appends.sizes) <= -(-sum(appends.sizes) // 18_000_000)
    assert_loop_is_spared(threads)


@pytest.mark.parametrize("rows", [1, 100, 10_000])
async def test_one_call_per_table_and_minute(rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute of 1 to 10,000 rows is one append, not one per row. The minute lasts as long as the machine needs."""
    appends = Accepting()
    sink = make_sink(tmp_path, appends, monkeypatch, clock=ManualClock(START_US))
    await sink.open()
    batch = trades(np.arange(rows))
    for start in range(0, rows, 500):
        await sink.write(Rows(BTC, batch.slice(start, min(start + 500, rows))))
        await sink.flush()
    await sink.aclose()
    assert 1 <= len(appends.sizes) <= max(1, -(-sum(appends.sizes) // 18_000_000))

"""Local tables of a sink: the rows of the pipeline, in the schema of BigQuery, across restarts and full disks."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import numpy as np
import pytest

from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.schemas import bigquery_schema, candle_schema, candles_to_arrow
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.errors import ConfigError, NotInstalled
from market_data_tick_handler.storage.local_tables import read_table, table_files
from market_data_tick_handler.testing.clock import ManualClock
from market_data_tick_handler.testing.ticks import BTC, START_US, trades
from streaming_service.clock import SystemClock
from streaming_service.sinks.tables.definitions import live_tables, ticks_schema, wire_schema
from streaming_service.sinks.tables.local import LocalTableSink
from streaming_service.sinks.tables.table_files import TableFiles
from tests.streaming_service.sinks.numbered_rows import ETH, GROUPS, candles
from tests.streaming_service.sinks.tables.world import make_sink, numbers, settings, table
from tests.waiting import until


def expected(count: int) -> list[float]:
    return [index + 0.5 for index in range(count)]


async def test_what_is_written_is_in_the_tables_once_in_their_schema(tmp_path: Path) -> None:
    """Candles of two instruments and raw ticks; types and required columns are those of BigQuery's tables."""
    sink = make_sink(tmp_path)
    await sink.open()
    await sink.write(candles(10))
    await sink.write(candles(5, first=10, instrument=ETH))
    await sink.write(Rows(BTC, trades(np.arange(20), first_id=1)))
    await sink.aclose()
    assert numbers(tmp_path) == expected(15)
    assert numbers(tmp_path, "ticks_trades", "price") == list(range(20))
    tables = {
        one.name: one for one in live_tables(timeframes=[Timeframe.M1], data_types=[DataType.TRADES], groups=GROUPS)
    }
    for name in ("candles_1m", "ticks_trades", "persist_usage"):
        stored = read_table(table(tmp_path, name)).schema
        assert stored.equals(wire_schema(tables[name].schema)), name
        assert [(each["name"], each["type"]) for each in bigquery_schema(stored)] == [
            (each["name"], each["type"]) for each in bigquery_schema(tables[name].schema)
        ]
    assert read_table(table(tmp_path)).schema.names == candle_schema(GROUPS).names
    assert read_table(table(tmp_path, "ticks_trades")).schema.names == ticks_schema(DataType.TRADES).names


async def test_values_are_those_of_the_pipeline(tmp_path: Path) -> None:
    """Bit for bit: nulls, times and numbers."""
    batch = candles(50)
    batch.columns["close"][7] = np.nan
    sink = make_sink(tmp_path)
    await sink.open()
    await sink.write(batch)
    await sink.aclose()
    stored = read_table(table(tmp_path)).sort_by("timestamp")
    wanted = candles_to_arrow(batch)
    for name in wanted.schema.names:
        assert stored[name].to_pylist() == wanted[name].cast(stored.schema.field(name).type).to_pylist(), name
    assert stored["close"][7].as_py() is None


async def test_a_batch_goes_when_its_time_is_over(tmp_path: Path) -> None:
    """Sixty seconds of the clock after the first of its rows was spooled, not before."""
    clock = ManualClock(START_US)
    sink = make_sink(tmp_path, clock=clock, timeout="60s", every_s=1e9)
    await sink.open()
    for second in range(120):
        await sink.write(candles(1, first=second))
        await sink.flush()
        await clock.advance(1.0)
        if second == 50:
            assert not table(tmp_path).exists() and sink.report()[0].waiting_rows == 51
    await until(lambda: table(tmp_path).exists() and len(numbers(tmp_path)) >= 60)
    assert len(table_files(table(tmp_path))) <= 2
    await sink.aclose()
    assert numbers(tmp_path) == expected(120)


async def test_a_restart_goes_on_with_what_was_left(tmp_path: Path) -> None:
    """A disk that fails keeps rows in the spool; the next start writes them, and leaves out what is delivered again."""
    failing = [True]

    def step(what: str) -> None:
        if failing[0]:
            raise OSError(errno.EIO, "Input/output error", str(tmp_path))

    first = make_sink(tmp_path, files=TableFiles(step))
    await first.open()
    await first.write(candles(10))
    await first.aclose()
    assert not table(tmp_path).exists()
    second = make_sink(tmp_path)
    await second.open()
    await second.write(candles(15))
    await second.aclose()
    assert numbers(tmp_path) == expected(15) and second.repeated_rows == 10


async def test_a_full_disk_is_waited_for(tmp_path: Path) -> None:
    """Tries again with the same file until there is room; the report says why it waits."""
    room = [False]

    def step(what: str) -> None:
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device", "disk")

    sink = make_sink(tmp_path, files=TableFiles(step))
    await sink.open()
    await sink.write(candles(10))
    await sink.flush()
    await until(lambda: "No space left" in sink.report()[0].last_error)
    room[0] = True
    await until(lambda: sink.report()[0].waiting_rows == 0)
    await sink.aclose()
    assert numbers(tmp_path) == expected(10) and sink.report() == []


async def test_many_batches_become_few_files_while_the_service_runs(tmp_path: Path) -> None:
    sink = make_sink(tmp_path, timeout="10ms", every_s=0.05)
    await sink.open()
    for index in range(12):
        await sink.write(candles(1, first=index))
        await sink.flush()
        await until(lambda: sink.report()[0].waiting_rows == 0)
    await until(lambda: sink.upkeep.counters.merged_rows >= 6)
    await sink.aclose()
    assert numbers(tmp_path) == expected(12) and len(table_files(table(tmp_path))) < 10


async def test_old_partitions_go_by_the_settings_of_the_live_tables(tmp_path: Path) -> None:
    """Days that ended more than ttl_days before the newest one; the count is kept."""
    sink = make_sink(tmp_path, live_partitioning={"ttl_days": 2}, timeout="10ms")
    await sink.open()
    for day in range(5):
        await sink.write(candles(2, first=day * 1_440))
        await sink.flush()
        await until(lambda: sink.report()[0].waiting_rows == 0)
    await until(lambda: sink.upkeep.counters.expired_rows == 4)
    await sink.aclose()
    assert sorted(path.name for path in table(tmp_path).glob("day=*")) == [f"day=2024-01-0{day}" for day in (3, 4, 5)]
    assert len(numbers(tmp_path)) == 6


async def test_two_services_of_one_name_do_not_share_a_store(tmp_path: Path) -> None:
    first, second = make_sink(tmp_path), make_sink(tmp_path)
    await first.open()
    await first.write(candles(1))
    with pytest.raises(ConfigError, match=r"serve\.service"):
        await second.open()
    await second.aclose()
    await first.aclose()


async def test_two_services_of_two_names_share_the_tables(tmp_path: Path) -> None:
    """Each has streams and a spool of its own."""
    sinks = [
        LocalTableSink(settings(tmp_path), groups=GROUPS, clock=SystemClock(), service=name) for name in ("one", "two")
    ]
    await asyncio.gather(*(sink.open() for sink in sinks))
    await sinks[0].write(candles(5))
    await sinks[1].write(candles(5, first=5, instrument=ETH))
    await asyncio.gather(*(sink.aclose() for sink in sinks))
    assert numbers(tmp_path) == expected(10) and len(table_files(table(tmp_path))) == 2


def test_a_store_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotInstalled, match="local disk"):
        LocalTableSink(settings(Path("x")).model_copy(update={"path": "gs://bucket/store"}), clock=SystemClock())

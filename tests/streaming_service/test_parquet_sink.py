"""What the file sinks were given is in the files when they are closed, and what a disk refuses is counted."""

from __future__ import annotations

import asyncio
import threading
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.instruments import parse_instrument_key
from market_data_tick_handler.core.options import PipelineOptions
from market_data_tick_handler.core.pipeline import Pipeline
from market_data_tick_handler.core.ticks import DataType, TickBatch, concat
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.errors import SchemaMismatch
from market_data_tick_handler.storage.candle_files import CandleWriter, read_candles
from market_data_tick_handler.storage.raw_ticks import RawTickWriter, read_raw_ticks
from market_data_tick_handler.testing import ManualClock, chunks, trades
from streaming_service.sink import Outlet
from streaming_service.sinks.parquet import ParquetSink, in_thread
from streaming_service.sinks.ticks import RawTickSink
from tests.waiting import PATIENCE_S

BTC = "BINANCE:SPOT_PAIR:BTC-USDT"
DAY = date(2024, 1, 1)
START_US = 1_704_067_200_000_000


class FullDisk:
    """A writer whose disk has no room."""

    def write(self, instrument_key: str, batch: TickBatch) -> None:
        raise OSError(28, "No space left on device", "/data/x")

    def close(self) -> None: ...


async def test_a_cancelled_flush_ends_before_the_files_are_touched_again() -> None:
    """A thread cannot be cancelled; the drain's own flush must not rewrite the files it is still writing."""
    started, release = threading.Event(), threading.Event()
    active: list[str] = []

    def slow() -> None:
        active.append("slow")
        started.set()
        release.wait(PATIENCE_S)
        active.remove("slow")

    task = asyncio.create_task(in_thread(slow))
    assert await asyncio.to_thread(started.wait, PATIENCE_S)
    task.cancel()
    release_soon = asyncio.create_task(asyncio.to_thread(release.set))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert active == []
    await release_soon


class Refusing(FullDisk):
    """A writer that does not know the columns."""

    def write(self, instrument_key: str, batch: TickBatch) -> None:
        raise SchemaMismatch("expected price, came cost")


def ticks() -> TickBatch:
    return trades(100.0 + np.arange(50.0))


async def test_stored_rows_come_back_in_arrival_order_whatever_the_turns_were(tmp_path: Path) -> None:
    sink = RawTickSink(lambda: RawTickWriter(tmp_path, existing="append"), gathered_rows=16)
    await sink.open()
    for part in chunks(ticks(), [1, 3, 7]):
        await sink.write(Rows(BTC, part))
    await sink.aclose()
    stored = concat(list(read_raw_ticks(tmp_path, DAY, DataType.TRADES, BTC)))
    for name in ("timestamp", "local_timestamp", "id", "price", "amount", "side"):
        assert stored[name].tolist() == ticks()[name].tolist()


async def test_a_second_run_of_the_day_adds_to_the_file(tmp_path: Path) -> None:
    for part in chunks(ticks(), [20, 30]):
        sink = RawTickSink(lambda: RawTickWriter(tmp_path, existing="append"))
        await sink.open()
        await sink.write(Rows(BTC, part))
        await sink.aclose()
    assert sum(map(len, read_raw_ticks(tmp_path, DAY, DataType.TRADES, BTC))) == 50


@pytest.mark.parametrize("writer", [FullDisk, Refusing])
@pytest.mark.parametrize("gathered_rows", [50, 1_000])
async def test_rows_that_the_disk_refuses_are_counted_as_failed(writer: type[FullDisk], gathered_rows: int) -> None:
    outlet = Outlet("ticks", RawTickSink(writer, gathered_rows=gathered_rows), clock=ManualClock())
    for part in chunks(ticks(), [10, 40]):
        await outlet.put(Rows(BTC, part))
    outlet.close()
    await outlet.run()
    counters = outlet.counters
    assert (counters.put, counters.written, counters.failed, counters.errors) == (50, 0, 50, 1)


def candles(first: int, count: int, *, close: float = 1.0, revision: int = 0) -> CandleBatch:
    """Minute candles that a pipeline published, with other closes and revisions."""
    pipeline = Pipeline(parse_instrument_key(BTC), PipelineOptions(timeframes=(Timeframe.M1,)))
    pipeline.feed(Rows(BTC, trades(np.full(600, 100.0), start_us=START_US)))
    pipeline.advance(START_US + 700_000_000)
    (batch,) = pipeline.outputs()
    some = batch.slice(first, first + count)
    return some.replace(close=np.full(count, close), revision=np.full(count, revision, dtype=some["revision"].dtype))


async def test_candles_are_in_their_day_file_after_a_flush_and_the_highest_revision_stays(tmp_path: Path) -> None:
    sink = ParquetSink(lambda: CandleWriter(tmp_path))
    await sink.open()
    await sink.write(candles(0, 3))
    await sink.flush()
    assert closes(tmp_path) == [1.0, 1.0, 1.0]
    await sink.write(candles(1, 1, close=2.0, revision=1))
    await sink.write(candles(3, 1, close=3.0))
    await sink.aclose()
    assert closes(tmp_path) == [1.0, 2.0, 1.0, 3.0]


async def test_a_sink_that_is_not_open_takes_nothing_and_says_so_by_no_file(tmp_path: Path) -> None:
    sink = ParquetSink(lambda: CandleWriter(tmp_path))
    await sink.flush()
    await sink.aclose()
    assert files(tmp_path) == []


def files(root: Path) -> list[Path]:
    return list(root.iterdir())


def closes(root: Path) -> list[float]:
    values: list[float] = read_candles(root, BTC, Timeframe.M1, DAY, DAY)["close"].to_pylist()
    return values

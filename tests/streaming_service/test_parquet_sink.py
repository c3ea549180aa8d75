"""What the file sinks were given is in the files when they are closed, and what a disk refuses is counted."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest

from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.ticks import DataType, TickBatch, concat
from market_data_tick_handler.errors import SchemaMismatch
from market_data_tick_handler.storage.raw_ticks import RawTickWriter, read_raw_ticks
from market_data_tick_handler.testing import ManualClock, chunks, trades
from streaming_service.sink import Outlet
from streaming_service.sinks.ticks import RawTickSink

BTC = "BINANCE:SPOT_PAIR:BTC-USDT"
DAY = date(2024, 1, 1)


class FullDisk:
    """A writer whose disk has no room."""

    def write(self, instrument_key: str, batch: TickBatch) -> None:
        raise OSError(28, "No space left on device", "/data/x")

    def close(self) -> None: ...


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
async def test_rows_that_the_disk_refuses_are_counted_as_failed(writer: type[FullDisk]) -> None:
    outlet = Outlet("ticks", RawTickSink(writer), clock=ManualClock())
    await outlet.put(Rows(BTC, ticks()))
    outlet.close()
    await outlet.run()
    counters = outlet.counters
    assert (counters.put, counters.written, counters.failed, counters.errors) == (50, 0, 50, 1)

"""Producing rows for a sink of tables until killed, and going on where it was when started again.

It does what the service does: what is published is journaled first; after a restart, what the sink has not said to be
durable is delivered again, by its numbers.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np

from market_data_tick_handler.core.events import RowNumbers, Rows
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.testing.ticks import BTC, trades
from streaming_service.sink import TickChannel
from streaming_service.sinks.tables.sink import TableSink
from tests.streaming_service.sinks.numbered_rows import candles

_TICKS = TickChannel(BTC, DataType.TRADES, "first")


class Producer:
    """turn_s: pause between two turns of a few rows each."""

    def __init__(self, directory: Path, sink: TableSink, *, turn_s: float) -> None:
        self.produced = directory / "produced"
        self.durable = directory / "durable"
        self.stop = directory / "stop"
        self.sink = sink
        self._turn_s = turn_s

    async def run(self) -> None:
        await self.sink.open()
        # The last ones are delivered again, in other pieces.
        ticks = max((await self.sink.resume_ticks({_TICKS: 0}))[_TICKS] - 3, 0)
        candle = _read(self.durable)
        turn, flushed = 0, candle
        while not self.stop.exists():
            published = max(_read(self.produced), candle)
            # Delivered again, in pieces that need not be those of before; then something new.
            count = min(7, published - candle) or 2
            _write(self.produced, max(published, candle + count))
            await self.sink.write(candles(count, first=candle))
            candle += count
            rows = trades(np.arange(ticks, ticks + 5), first_id=ticks + 1)
            await self.sink.write(Rows(BTC, rows, numbers=RowNumbers(_TICKS.birth, ticks + 1)))
            ticks += 5
            turn += 1
            if turn % 4 == 0:
                # Said later than it is so, as by a service that acknowledges once a second: part is delivered twice.
                _write(self.durable, flushed)
                await self.sink.flush()
                flushed = candle
            await asyncio.sleep(self._turn_s)
        await self.sink.aclose()
        (self.stop.parent / "ticks").write_text(str(ticks))


def _read(path: Path) -> int:
    return int(path.read_text()) if path.exists() else 0


def _write(path: Path, value: int) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(str(value))
    temporary.replace(path)

"""A process that produces rows for the sink until it is killed, and goes on where it was when started again.

It does what the service does: what is published is journaled first; after a restart, what the sink has not said to be
durable is delivered again. Candles go by their numbers, ticks by the count of rows that are durable.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import numpy as np

from market_data_tick_handler.config.outputs import BigQuerySettings
from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.testing.ticks import BTC, trades
from streaming_service.clock import SystemClock
from streaming_service.sinks.bigquery.sender import RetryPolicy
from streaming_service.sinks.bigquery.sink import BigQuerySink
from tests.streaming_service.sinks.bigquery.world import GROUPS, candles

_TURN_S = 0.05
_CHANNEL = f"{BTC}/{DataType.TRADES}"


class Producer:
    def __init__(self, directory: Path, settings: BigQuerySettings) -> None:
        self.produced = directory / "produced"
        self.durable = directory / "durable"
        self.stop = directory / "stop"
        self.sink = BigQuerySink(
            settings,
            timeframes=[Timeframe.M1],
            data_types=[DataType.TRADES],
            groups=GROUPS,
            clock=SystemClock(),
            retry=RetryPolicy(attempts=4, base_s=0.02, cap_s=0.2),
        )

    async def run(self) -> None:
        await self.sink.open()
        mark = self.sink.spooled(_CHANNEL, "ticks_trades")
        ticks = 0 if mark is None else mark.sequence
        candle = _read(self.durable)
        turn, flushed = 0, candle
        while not self.stop.exists():
            published = max(_read(self.produced), candle)
            # Delivered again, in pieces that need not be those of before; then something new.
            count = min(7, published - candle) or 2
            _write(self.produced, max(published, candle + count))
            await self.sink.write(candles(count, first=candle))
            candle += count
            await self.sink.write(Rows(BTC, trades(np.arange(ticks, ticks + 5), first_id=ticks + 1)))
            ticks += 5
            turn += 1
            if turn % 4 == 0:
                # Said later than it is so, as by a service that acknowledges once a second: part is delivered twice.
                _write(self.durable, flushed)
                await self.sink.flush()
                flushed = candle
            await asyncio.sleep(_TURN_S)
        await self.sink.aclose()
        (self.stop.parent / "ticks").write_text(str(ticks))


def _read(path: Path) -> int:
    return int(path.read_text()) if path.exists() else 0


def _write(path: Path, value: int) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(str(value))
    temporary.replace(path)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    chosen = BigQuerySettings.model_validate(json.loads((place / "settings.json").read_text()))
    asyncio.run(Producer(place, chosen).run())

"""What writing tables would take and cost, found by forming the batches and not sending them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from market_data_tick_handler.config.outputs import BigQuerySettings
from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.core.timeframes import Timeframe
from streaming_service.clock import Clock
from streaming_service.sink import SinkItem, row_count
from streaming_service.sinks.tables.candle_columns import CandleColumns
from streaming_service.sinks.tables.cost import CostMeter
from streaming_service.sinks.tables.definitions import live_tables, wire_schema
from streaming_service.sinks.tables.rows import logical_bytes, table_of, tick_rows

_MINUTE_US: Final = 60_000_000
# Turning rows into columns costs nearly the same for a minute of them as for a quarter of an hour.
_WEIGHED_TOGETHER: Final = 16


class _Batch(NamedTuple):
    """Rows that would be sent at once. at_us: when. whole: its time had come; else the service ended."""

    items: list[SinkItem]
    at_us: int
    whole: bool

    @property
    def rows(self) -> int:
        return sum(map(row_count, self.items))


@dataclass(slots=True)
class _Table:
    """One table: the rows that would wait in the spool, since when, and the batches that were not weighed yet."""

    timeout_s: float
    columns: CandleColumns
    items: list[SinkItem] = field(default_factory=list)
    since_s: float = 0.0
    batches: list[_Batch] = field(default_factory=list)
    minute: int = -1
    appends: int = 0

    def close_batch(self, at_us: int, *, whole: bool = True) -> None:
        """The rows that wait are sent."""
        self.batches.append(_Batch(self.items, at_us, whole))
        self.items = []

    def weigh(self) -> tuple[int, int]:
        """Bytes of all batches: as BigQuery counts them, and as they are sent."""
        items = [item for batch in self.batches for item in batch.items]
        ticks = [item for item in items if isinstance(item, Rows)]
        made = [part.rows for part in self.columns.rows([item for item in items if isinstance(item, CandleBatch)])]
        made += [tick_rows(ticks)] if ticks else []
        return sum(map(logical_bytes, made)), sum(rows.nbytes for rows in made)


class MeteredTables:
    """A sink of candles and ticks that keeps nothing. `meter` has rows, bytes, appends and USD of each table as if a
    service of these settings had written them, up to date after `aclose`; bytes of a batch are its share, by rows, of
    those of some batches. busiest: the most appends to one table within a minute.

    groups: of columns of candles in the tables. clock: of the service, so that a simulation is batched by its minutes.
    """

    takes_ticks: Final = True

    def __init__(self, settings: BigQuerySettings, *, groups: Sequence[str] | None = None, clock: Clock) -> None:
        self.meter = CostMeter(settings.write_method, settings.prices)
        self.busiest = 0
        self._settings = settings
        self._clock = clock
        every = live_tables(timeframes=list(Timeframe), data_types=list(DataType), chains=True, groups=groups)
        self._definitions = {definition.name: definition for definition in every}
        self._tables: dict[str, _Table] = {}

    async def open(self) -> None:
        """There is nobody to connect to."""

    async def write(self, batch: SinkItem) -> None:
        """Take rows, and count the batches whose time has come."""
        now_us, now_s = self._clock.now_us(), self._clock.monotonic_s()
        for name, table in self._tables.items():
            if table.items and now_s - table.since_s >= table.timeout_s:
                table.close_batch(now_us)
                if len(table.batches) >= _WEIGHED_TOGETHER:
                    await self._count(name, table)
        if not row_count(batch):
            return
        name = table_of(batch)
        if name not in self._tables:
            definition = self._definitions[name]
            timeout_s = self._settings.batch_timeouts.of(definition.kind).s
            self._tables[name] = _Table(timeout_s, CandleColumns(wire_schema(definition.schema)))
        table = self._tables[name]
        if not table.items:
            table.since_s = now_s
        table.items.append(batch)

    async def flush(self) -> None:
        """Nothing has to last."""

    async def aclose(self) -> None:
        """Count what waits, as the end of a service would send it."""
        now_us = self._clock.now_us()
        for name, table in self._tables.items():
            if table.items:
                table.close_batch(now_us, whole=False)
            if table.batches:
                await self._count(name, table)

    async def _count(self, name: str, table: _Table) -> None:
        """Each batch is sent in one append, or in as many as its size asks for."""
        counted, sent = await asyncio.to_thread(table.weigh)
        every = sum(batch.rows for batch in table.batches)
        limits = self._settings
        for batch in table.batches:
            rows, share = batch.rows, batch.rows / every
            appends = max(math.ceil(sent * share / limits.max_batch_bytes), math.ceil(rows / limits.max_batch_rows))
            self.meter.add(name, batch.at_us, rows=rows, data_bytes=round(counted * share), calls=appends)
            if batch.whole:
                minute = batch.at_us // _MINUTE_US
                table.appends = appends + (table.appends if minute == table.minute else 0)
                table.minute = minute
                self.busiest = max(self.busiest, table.appends)
        table.batches = []

"""Tables that are only metered: the batches, bytes and appends of a sink that writes them, and few of these."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from market_data_tick_handler.config.outputs import BatchTimeouts, BigQuerySettings, PriceSettings, WriteMethod
from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.features.registry import group_names
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.testing.clock import ManualClock
from market_data_tick_handler.testing.ticks import BTC, START_US, trades
from streaming_service.monitoring.metrics import ServiceMetrics
from streaming_service.sink import SinkItem
from streaming_service.sinks.spool_records import Assignment
from streaming_service.sinks.tables.cost import CostMeter
from streaming_service.sinks.tables.definitions import TableDefinition, live_tables
from streaming_service.sinks.tables.metering import MeteredTables
from streaming_service.sinks.tables.rows import tick_rows
from streaming_service.sinks.tables.samples import cost_report, table_samples
from streaming_service.sinks.tables.sink import SinkOptions, TableSink
from tests.streaming_service.sinks.bigquery.world import candles
from tests.waiting import until

GROUPS = tuple(name for name in group_names() if name != "options")
APPEND_BYTES = 18 << 20
PRICES = PriceSettings(write_api_free_gib=0.0)


class CountingWriter:
    """Takes every batch and counts."""

    max_rows = 500_000
    max_bytes = APPEND_BYTES

    def __init__(self) -> None:
        self.calls = 0
        self.rows = 0
        self.sizes: list[int] = []

    async def place(self, stream: str, offset: int) -> tuple[str, int]:
        return stream or "stream", offset

    async def write(self, batch: Assignment, rows: pa.Table, numbers: Sequence[int]) -> None:
        self.calls += 1
        self.rows += rows.num_rows
        self.sizes.append(rows.nbytes)

    async def find(self, batch: Assignment) -> bool | None:
        return None

    def after(self, batch: Assignment) -> tuple[str, int]:
        return batch.stream, batch.offset + batch.count


class CountingTables:
    """Tables that only count (`tables.backend.Backend`)."""

    name = "counting"
    method = "counted"
    upkeep_s = 0.0

    def __init__(self) -> None:
        every = live_tables(timeframes=list(Timeframe), data_types=[DataType.TRADES], groups=GROUPS)
        self.definitions: Mapping[str, TableDefinition] = {each.name: each for each in every}
        self.writers: dict[str, CountingWriter] = {}

    async def open(self) -> None:
        pass

    async def prepare(self) -> None:
        pass

    async def ensure(self, definition: TableDefinition) -> None:
        pass

    async def count_like(self, definition: TableDefinition, values: Mapping[str, Any]) -> int:
        return 0

    def writer(self, definition: TableDefinition) -> CountingWriter:
        return self.writers.setdefault(definition.name, CountingWriter())

    async def maintain(self) -> None:
        pass

    async def aclose(self) -> None:
        pass


@asynccontextmanager
async def counting_sink(spool: Path, clock: ManualClock, *, alert_usd: float = 0.0) -> AsyncIterator[TableSink]:
    options = SinkOptions(spool, 1 << 30, BatchTimeouts(), 500_000)
    meter = CostMeter(WriteMethod.COMMITTED, PRICES, alert_usd)
    sink = TableSink(CountingTables(), options, clock=clock, meter=meter)
    await sink.open()
    try:
        yield sink
    finally:
        await sink.aclose()


def writer_of(sink: TableSink, table: str) -> CountingWriter:
    assert isinstance(sink.backend, CountingTables)
    return sink.backend.writers[table]


def minute_of_ticks(number: int, rows: int) -> list[SinkItem]:
    """A minute of rows, in quarters."""
    quarters = np.array_split(np.arange(rows), 4)
    first = number * rows + 1
    return [Rows(BTC, trades(part + 1.0, first_id=first + int(part[0]))) for part in quarters if len(part)]


def minute_of_candles(number: int, rows: int) -> list[SinkItem]:
    quarters = np.array_split(np.arange(rows), 4)
    return [candles(len(part), first=number * rows + int(part[0]), groups=GROUPS) for part in quarters if len(part)]


async def live(sink: TableSink, clock: ManualClock, table: str, minutes: Sequence[Sequence[SinkItem]]) -> None:
    """Write minute after minute, a quarter of each every 15 seconds, each spooled at once as it is within a second."""
    for number, items in enumerate(minutes, 1):
        for item in items:
            await sink.write(item)
            await sink.flush()
            await clock.advance(60.0 / len(items))
        await sent(sink, clock, f"minute {number} of {table}")


async def sent(sink: TableSink, clock: ManualClock, why: str) -> None:
    """Return once nothing waits. Batches are made in threads, which need real time, and looked for four times a second
    of the sink's clock."""

    async def nothing_waits() -> bool:
        if not any(each.waiting_rows for each in sink.report()):
            return True
        await clock.advance(0.25)
        return False

    await until(nothing_waits, why, poll_s=0.01)


@pytest.mark.parametrize("rows", [1, 10, 100, 1_000, 10_000])
@pytest.mark.parametrize(("table", "minute_of"), [("ticks_trades", minute_of_ticks), ("candles_1m", minute_of_candles)])
async def test_calls_per_minute_are_one_per_18_megabytes(tmp_path: Path, rows: int, table: str, minute_of: Any) -> None:
    """API calls per table and minute <= max(1, ceil(bytes / 18 MB)) at 1 to 10,000 rows a minute, through the real sink
    and its spool; one call per row would be 100 times as many and more from 100 rows on."""
    clock = ManualClock(START_US)
    async with counting_sink(tmp_path, clock) as sink:
        await live(sink, clock, table, [minute_of(number, rows) for number in range(3)])
        writer = writer_of(sink, table)
    assert writer.rows == 3 * rows
    allowed = max(1, math.ceil(sum(writer.sizes) / 3 / 18e6))
    assert writer.calls <= 3 * allowed
    assert max(writer.sizes) <= APPEND_BYTES
    if rows >= 100 * allowed:
        assert writer.calls <= 0.01 * writer.rows


async def test_what_is_metered_is_what_the_sink_sends(tmp_path: Path) -> None:
    """The same rows, by the same clock: rows, bytes and USD alike, and no more appends."""
    clock = ManualClock(START_US)
    metered = MeteredTables(BigQuerySettings(prices=PRICES), groups=GROUPS, clock=clock)
    async with counting_sink(tmp_path, clock) as sink:
        for number in range(3):
            for item in [*minute_of_ticks(number, 500), *minute_of_candles(number, 40)]:
                await sink.write(item)
                await metered.write(item)
            await sink.flush()
            await clock.advance(61.0)
            await sent(sink, clock, f"minute {number}")
    await metered.aclose()
    assert set(metered.meter.totals) == {"ticks_trades", "candles_1m"}
    for table, used in metered.meter.totals.items():
        real = sink.meter.totals[table]
        assert (used.rows, used.calls) == (real.rows, real.calls)
        # Texts are longer by the time the spool gives ticks.
        assert used.data_bytes == pytest.approx(real.data_bytes, rel=0.001)
        assert used.usd == pytest.approx(real.usd, rel=0.001) and used.usd > 0
    assert metered.busiest == 1
    assert metered.meter.without_free_part() == pytest.approx(sum(used.usd for used in metered.meter.totals.values()))


async def test_metered_batches_are_cut_by_time_and_size() -> None:
    """Liquidations would wait 15 minutes and trades one; what is larger than an append is several."""
    clock = ManualClock(START_US)
    settings = BigQuerySettings(max_batch_bytes=1 << 20)
    large = Rows(BTC, trades(np.arange(20_000) + 1.0))
    metered = MeteredTables(settings, groups=GROUPS, clock=clock)
    await metered.write(large)
    await clock.advance(59.0)
    await metered.write(Rows(BTC, trades([1.0], first_id=20_001)))
    assert "ticks_trades" not in metered.meter.totals
    await clock.advance(2.0)
    await metered.write(Rows(BTC, trades([1.0], first_id=20_002)))
    await metered.aclose()
    used = metered.meter.totals["ticks_trades"]
    assert used.rows == 20_002 and used.calls == metered.busiest + 1
    assert metered.busiest == math.ceil(tick_rows([large]).nbytes / (1 << 20)) > 1


async def test_nothing_written_costs_nothing() -> None:
    metered = MeteredTables(BigQuerySettings(), clock=ManualClock(START_US))
    await metered.open()
    await metered.flush()
    await metered.aclose()
    assert metered.meter.row_by_row() == (0, 0.0) and metered.busiest == 0


async def test_metrics_say_what_became_of_rows_and_what_they_cost(tmp_path: Path) -> None:
    """Rows that wait are gauges, rows written counters; the alert is raised once the day is too dear, and ends with
    it."""
    clock = ManualClock(START_US)
    async with counting_sink(tmp_path, clock, alert_usd=1e-9) as sink:
        page = ServiceMetrics([lambda: table_samples("bigquery", sink, clock.now_us())])
        await sink.write(Rows(BTC, trades(np.arange(10) + 1.0)))
        await sink.flush()
        await clock.advance(5.0)
        waiting = samples_of(page)
        await clock.advance(56.0)
        await sent(sink, clock, "the only minute")
        written = samples_of(page)
        report = cost_report(sink, clock.now_us())
        await clock.advance(86_400.0)
        tomorrow = samples_of(page)
    name = '{sink="bigquery",table="ticks_trades"}'
    assert waiting[f"tick_handler_table_waiting_rows{name}"] == 10
    assert waiting[f"tick_handler_table_waiting_seconds{name}"] == pytest.approx(5.0, abs=0.3)
    assert waiting['tick_handler_spool_bytes{sink="bigquery"}'] > 1_000
    assert waiting['tick_handler_spool_max_bytes{sink="bigquery"}'] == 1 << 30
    assert waiting['tick_handler_cost_alert{sink="bigquery"}'] == 0
    assert written[f"tick_handler_table_waiting_rows{name}"] == 0
    assert written[f"tick_handler_table_rows_total{name}"] == 10
    assert written[f"tick_handler_table_appends_total{name}"] == 1
    assert written[f"tick_handler_table_bytes_total{name}"] > 500
    assert written[f"tick_handler_table_cost_usd_today{name}"] > 1e-9
    assert written['tick_handler_cost_alert{sink="bigquery"}'] == 1
    assert report["over"] and report["alert_usd"] == 1e-9
    assert tomorrow['tick_handler_cost_alert{sink="bigquery"}'] == 0
    assert tomorrow[f"tick_handler_table_rows_total{name}"] == 10
    assert tomorrow[f"tick_handler_table_cost_usd_today{name}"] == 0


def samples_of(metrics: ServiceMetrics) -> dict[str, float]:
    lines = [line for line in metrics.render().decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

"""Reads a sink of tables for the metrics, and for the section of `/health` about cost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from streaming_service.monitoring.metrics import Sample
from streaming_service.sinks.tables.local import LocalTableSink
from streaming_service.sinks.tables.sink import TableSink

# Metric -> the field of a table's report.
_OF_TABLES: Final = {
    "table_rows": "rows",
    "table_bytes": "data_bytes",
    "table_batches": "batches",
    "table_appends": "calls",
    "table_retries": "retries",
    "table_dead_letters": "dead_letters",
    "table_rows_lost": "lost_rows",
    "table_waiting_rows": "waiting_rows",
    "table_waiting_bytes": "waiting_bytes",
    "table_waiting_seconds": "waiting_s",
}


def table_samples(name: str, sink: TableSink, now_us: int) -> Iterator[Sample]:
    """What became of the rows of each table, what waits for it, and what the day has cost so far (UTC)."""
    today = sink.meter.day(now_us)
    for table in sink.report():
        labels = (name, table.table)
        for metric, field in _OF_TABLES.items():
            yield Sample(metric, labels, getattr(table, field))
        used = today.get(table.table)
        yield Sample("table_cost_usd_today", labels, 0.0 if used is None else used.usd)
    if isinstance(sink, LocalTableSink):
        yield Sample("table_files_merged", (name,), sink.upkeep.counters.merged_files)
        yield Sample("table_rows_expired", (name,), sink.upkeep.counters.expired_rows)
    yield Sample("spool_bytes", (name,), sink.spool.size_bytes)
    yield Sample("spool_max_bytes", (name,), sink.spool.max_bytes)
    yield Sample("cost_usd_today", (name,), sink.meter.day_usd(now_us))
    yield Sample("cost_alert", (name,), sink.meter.is_over(now_us))


def cost_report(sink: TableSink, now_us: int) -> dict[str, Any]:
    """A section of `/health`: USD of the day so far, from how many on it is too much (0: never), and whether it is."""
    meter = sink.meter
    return {
        "usd_today": round(meter.day_usd(now_us), 6),
        "alert_usd": meter.alert_usd,
        "over": meter.is_over(now_us),
    }

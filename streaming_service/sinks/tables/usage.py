"""What a service wrote into its tables, as rows of a table of its own."""

from __future__ import annotations

import pyarrow as pa

from streaming_service.clock import Clock
from streaming_service.sinks.tables.cost import CostMeter, Usage
from streaming_service.sinks.tables.definitions import USAGE_TABLE, TableDefinition, wire_schema


class UsageNotes:
    """A row per table and interval, of what `meter` counted.

    method: how rows get into the tables. service: who writes.
    """

    def __init__(self, meter: CostMeter, *, method: str, service: str, clock: Clock) -> None:
        self._meter = meter
        self._method = method
        self._service = service
        self._clock = clock
        self._begin_us = 0
        self.began_s = 0.0

    def begin(self) -> None:
        """An interval begins now."""
        self._begin_us, self.began_s = self._clock.now_us(), self._clock.monotonic_s()

    def take(self, definition: TableDefinition) -> pa.RecordBatch | None:
        """The rows of the interval that ends now, for the usage table; None where nothing was written."""
        begin_us = self._begin_us
        self.begin()
        rows = [
            self._row(name, used, begin_us)
            for name, used in self._meter.take().items()
            if name != USAGE_TABLE and used.calls
        ]
        return pa.RecordBatch.from_pylist(rows, schema=wire_schema(definition.schema)) if rows else None

    def _row(self, name: str, used: Usage, begin_us: int) -> dict[str, str | int | float]:
        return {
            "timestamp_out": self._begin_us,
            "timestamp": begin_us,
            "service": self._service,
            "table_name": name,
            "write_method": self._method,
            "rows_written": used.rows,
            "bytes_written": used.data_bytes,
            "calls": used.calls,
            "dead_letters": used.dead_letters,
            "usd": used.usd,
        }

"""One table of the sink at work: since when its rows wait, whether a batch is due, what was written."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field

from streaming_service.sinks.table_spool import TableSpool
from streaming_service.sinks.tables.cost import Usage
from streaming_service.sinks.tables.definitions import TableDefinition
from streaming_service.sinks.tables.sender import RetryPolicy, TableSender


@dataclass(frozen=True, slots=True)
class TableReport:
    """One table, for metrics. waiting_*: in the spool, not confirmed. usd: since the sink was made."""

    table: str
    waiting_rows: int
    waiting_bytes: int
    waiting_s: float
    rows: int
    data_bytes: int
    batches: int
    calls: int
    retries: int
    dead_letters: int
    lost_rows: int
    usd: float
    last_error: str


@dataclass(slots=True)
class TableWork:
    """One table at work."""

    definition: TableDefinition
    spool: TableSpool
    sender: TableSender
    timeout_s: float
    # Since when rows wait; -inf: they were left by an earlier run.
    since_s: float = math.inf
    not_before_s: float = -math.inf
    failures: int = 0
    task: asyncio.Task[None] | None = None
    noted: Usage = field(default_factory=Usage)

    @property
    def sending(self) -> bool:
        """True while a batch is on its way."""
        return self.task is not None and not self.task.done()

    def is_full(self, max_rows: int) -> bool:
        """True when a batch has no room for more."""
        writer = self.sender.writer
        rows, data_bytes = self.spool.pending_rows, self.spool.pending_bytes
        return rows >= min(max_rows, writer.max_rows) or data_bytes >= writer.max_bytes

    def is_late(self, now_s: float) -> bool:
        """True when rows have waited as long as they may."""
        return now_s - self.since_s >= self.timeout_s

    def note_spooled(self, now_s: float) -> None:
        """Rows were spooled: they wait from now on, unless earlier ones do."""
        if self.spool.pending_rows:
            self.since_s = min(self.since_s, now_s)

    def note_sent(self, began_s: float, *, whole_only: bool) -> None:
        """Batches were sent; what came meanwhile waits since they began."""
        self.failures = 0
        if not self.spool.pending_rows:
            self.since_s = math.inf
        elif not whole_only:
            self.since_s = began_s

    def note_failure(self, now_s: float, retry: RetryPolicy, asked_s: float | None) -> float:
        """Batches could not be sent; seconds until it is tried again."""
        pause_s = retry.pause_s(min(self.failures, 16), asked_s)
        self.failures += 1
        self.not_before_s = now_s + pause_s
        return pause_s

    def used(self) -> Usage:
        """What was written since this was last asked."""
        counters = self.sender.counters
        total = Usage(counters.rows, counters.data_bytes, self.sender.writer.calls, counters.dead_letters)
        new, self.noted = total.since(self.noted), total
        return new

    def report(self, now_s: float, usd: float) -> TableReport:
        """For metrics."""
        counters = self.sender.counters
        waits = self.spool.pending_rows > 0 and math.isfinite(self.since_s)
        return TableReport(
            self.definition.name,
            self.spool.pending_rows,
            self.spool.pending_bytes,
            max(0.0, now_s - self.since_s) if waits else 0.0,
            counters.rows,
            counters.data_bytes,
            counters.batches,
            self.sender.writer.calls,
            counters.retries,
            counters.dead_letters,
            counters.lost_rows + self.spool.lost_rows,
            usd,
            self.sender.last_error,
        )

"""The tables at work: which batches are due, what became of them, what they cost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from market_data_tick_handler.config.outputs import BatchTimeouts
from market_data_tick_handler.errors import SinkBusy, SinkError
from streaming_service.clock import Clock
from streaming_service.sinks.spool import Spool
from streaming_service.sinks.tables.backend import Backend
from streaming_service.sinks.tables.cost import CostMeter, Usage
from streaming_service.sinks.tables.dead_letters import DeadLetters
from streaming_service.sinks.tables.sender import RetryPolicy, TableSender
from streaming_service.sinks.tables.table_work import TableReport, TableWork

log = logging.getLogger(__name__)

_CLOSING_ATTEMPTS: Final = 2


class Sending:
    """Sends what the spool has, each table in a task of its own, when it is due.

    max_rows: rows that are sent without waiting any longer. note_bytes: told of the bytes that dead letters take.
    """

    def __init__(
        self,
        backend: Backend,
        spool: Spool,
        *,
        timeouts: BatchTimeouts,
        max_rows: int,
        dead_letters: DeadLetters,
        meter: CostMeter,
        clock: Clock,
        retry: RetryPolicy,
        note_bytes: Callable[[int], None],
    ) -> None:
        self.at_work: dict[str, TableWork] = {}
        self._backend = backend
        self._spool = spool
        self._timeouts = timeouts
        self._max_rows = max_rows
        self._dead_letters = dead_letters
        self._meter = meter
        self._clock = clock
        self._retry = retry
        self._note_bytes = note_bytes

    async def table(self, name: str) -> TableWork:
        """A table, its spool opened where it was not."""
        if name not in self.at_work:
            spool = await asyncio.to_thread(self._spool.table, name)
            definition = self._backend.definitions[name]
            sender = TableSender(
                definition,
                spool,
                self._backend.writer(definition),
                dead_letters=self._dead_letters,
                clock=self._clock,
                retry=self._retry,
                probe=self._backend.count_like,
                ensure=self._backend.ensure,
                note_bytes=self._note_bytes,
            )
            timeout_s = self._timeouts.of(definition.kind).s
            self.at_work.setdefault(name, TableWork(definition, spool, sender, timeout_s))
        return self.at_work[name]

    def start_due(self) -> None:
        """Begin to send the tables whose time has come, or that have a full batch."""
        now_s = self._clock.monotonic_s()
        for table in list(self.at_work.values()):
            if table.sending or not table.spool.pending_rows or now_s < table.not_before_s:
                continue
            full, late = table.is_full(self._max_rows), table.is_late(now_s)
            if full or late:
                name = f"{self._backend.name}: {table.definition.name}"
                table.task = asyncio.create_task(self._send(table, whole_only=not late), name=name)

    async def send_all(self) -> None:
        """Send what the spool has, all tables at once, with little patience."""
        running = [table.task for table in self.at_work.values() if table.sending and table.task is not None]
        if running:
            await asyncio.wait(running)
        waiting = [table for table in self.at_work.values() if table.spool.pending_rows]
        if waiting:
            await asyncio.gather(*(self._send(table, attempts=_CLOSING_ATTEMPTS) for table in waiting))

    async def stop(self) -> None:
        """End what is on its way; it will be sent again."""
        for table in self.at_work.values():
            if table.sending and table.task is not None:
                table.task.cancel()
                await asyncio.wait([table.task])
        self.at_work.clear()

    def report(self) -> list[TableReport]:
        """The tables at work, for metrics."""
        now_s, totals = self._clock.monotonic_s(), self._meter.totals
        return [work.report(now_s, totals.get(name, Usage()).usd) for name, work in sorted(self.at_work.items())]

    async def _send(self, table: TableWork, *, whole_only: bool = False, attempts: int | None = None) -> None:
        began_s = self._clock.monotonic_s()
        try:
            await table.sender.send(whole_only=whole_only, attempts=attempts)
            table.note_sent(began_s, whole_only=whole_only)
        except SinkError as error:
            asked_s = error.retry_after if isinstance(error, SinkBusy) else None
            pause_s = table.note_failure(self._clock.monotonic_s(), self._retry, asked_s)
            log.error(
                "batch not written", extra={"table": table.definition.name, "error": str(error), "again_in_s": pause_s}
            )
        finally:
            self._count(table)

    def _count(self, table: TableWork) -> None:
        new, now_us = table.used(), self._clock.now_us()
        self._meter.add(
            table.definition.name,
            now_us,
            rows=new.rows,
            data_bytes=new.data_bytes,
            calls=new.calls,
            dead_letters=new.dead_letters,
        )
        if alert := self._meter.alert(now_us):
            log.warning("cost", extra={"alert": alert})

"""Carries the rows of one table from the spool into the table, one batch at a time, each exactly once.

Theory of operation. A batch is given a place (a stream and an offset in it), and both are durable before the first byte
is sent. Then it is sent until the answer is clear:
  written, or written already   the batch is confirmed and its rows leave the spool;
  try again                     after a pause, the same rows to the same place;
  the stream is gone            the stream is asked how many rows it got, or the table whether it has the first row of
                                the batch; only if they are not there does the batch get another place;
  some rows do not fit          they go to the dead letters, the others to the same place, where nothing is yet;
  the batch does not fit        it is halved until the row is found.
A crash at any point leaves either no place, so that nothing was sent, or the place to ask about.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import pyarrow as pa

from market_data_tick_handler.errors import SchemaMismatch, SinkBusy, SinkError
from streaming_service.clock import Clock
from streaming_service.sinks.spool_records import Assignment
from streaming_service.sinks.spool_rows import SpooledRows
from streaming_service.sinks.table_spool import TableSpool
from streaming_service.sinks.tables.answers import AlreadyWritten, BatchRefused, RowsRefused, StreamGone, TableGone
from streaming_service.sinks.tables.backend import RowWriter
from streaming_service.sinks.tables.dead_letters import DeadLetters, summary
from streaming_service.sinks.tables.definitions import TableDefinition, wire_schema
from streaming_service.sinks.tables.rows import logical_bytes

log = logging.getLogger(__name__)

# As many rows refused one after the other, none accepted in between, are no bad rows but a bad table.
_SINGLES: Final = 32
_RENEWALS: Final = 4


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """attempts: tries per batch and turn. Pauses have full jitter below base_s * 2^n, at most cap_s; a longer one where
    the other side asks for it."""

    attempts: int = 8
    base_s: float = 0.5
    cap_s: float = 30.0

    def pause_s(self, attempt: int, asked_s: float | None) -> float:
        """Seconds before the try after this one (from 0 on)."""
        return max(random.uniform(0.0, min(self.cap_s, self.base_s * 2**attempt)), asked_s or 0.0)


@dataclass(slots=True)
class SendCounters:
    """What became of the rows of one table: sent = confirmed - dead letters."""

    rows: int = 0
    data_bytes: int = 0
    batches: int = 0
    retries: int = 0
    dead_letters: int = 0
    renewals: int = 0
    lost_rows: int = 0


@dataclass(slots=True)
class _Sizes:
    """How many rows a batch may have: less while a bad row is searched for."""

    rows: int
    singles: int = 0

    def halve(self, sent: int) -> None:
        self.rows = max(1, sent // 2)

    def grow(self, limit: int) -> None:
        self.rows, self.singles = min(limit, self.rows * 2), 0


Probe = Callable[[TableDefinition, Mapping[str, Any]], Awaitable[int]]
EnsureTable = Callable[[TableDefinition], Awaitable[None]]


class TableSender:
    """Sends what the spool of a table has. One `send` at a time.

    probe: how many rows of the table have the identity of a given row. ensure: make the table be as defined.
    note_bytes: told of the bytes that dead letters take.
    """

    def __init__(
        self,
        definition: TableDefinition,
        spool: TableSpool,
        writer: RowWriter,
        *,
        dead_letters: DeadLetters,
        clock: Clock,
        retry: RetryPolicy,
        probe: Probe,
        ensure: EnsureTable,
        note_bytes: Callable[[int], None] = lambda taken: None,
    ) -> None:
        self.definition = definition
        self.spool = spool
        self.writer = writer
        self.counters = SendCounters()
        self.last_error = ""
        self._schema = wire_schema(definition.schema)
        self._dead_letters = dead_letters
        self._clock = clock
        self._retry = retry
        self._probe = probe
        self._ensure = ensure
        self._note_bytes = note_bytes
        self._ensured = False
        self._sizes = _Sizes(writer.max_rows)
        self._renewals = 0

    async def send(self, *, whole_only: bool = False, attempts: int | None = None) -> None:
        """Send what is in the spool now; whole_only: no batch that has room for more.

        Raises:
            SinkBusy: it was tried as often as allowed. SinkError: it makes no sense to try. The rows stay in the spool.
        """
        end = self.spool.rows
        while self.spool.confirmed < end:
            if whole_only and self.spool.assignment is None and not self._is_full():
                return
            await self._send_patiently(self._retry.attempts if attempts is None else attempts)

    def _is_full(self) -> bool:
        return self.spool.pending_rows >= self.writer.max_rows or self.spool.pending_bytes >= self.writer.max_bytes

    async def _send_patiently(self, attempts: int) -> None:
        for attempt in range(attempts):
            try:
                if not self._ensured:
                    await self._ensure(self.definition)
                    self._ensured = True
                await self._send_batch()
                self.last_error = ""
                return
            except TableGone as error:
                self._ensured = False
                busy = SinkBusy(f"{self.definition.name}: {error}")
            except SinkBusy as error:
                busy = error
            except SchemaMismatch as error:
                self.last_error = str(error)
                raise SinkError(str(error)) from error
            self.last_error = str(busy)
            if attempt + 1 < attempts:
                self.counters.retries += 1
                await self._clock.sleep(self._retry.pause_s(attempt, busy.retry_after))
        raise SinkBusy(
            f"{self.definition.name}: still not written after {attempts} tries: {self.last_error}; "
            f"{self.spool.pending_rows} rows wait in the spool"
        )

    # A batch

    async def _send_batch(self) -> None:
        """Bring one batch to its end, or raise what is in the way."""
        batch = self.spool.assignment or await self._next_batch()
        done = False
        while not done:
            rows = await asyncio.to_thread(self._load, batch)
            batch, done = await self._write(batch, rows)
        await self._confirm(batch, rows)

    async def _next_batch(self) -> Assignment:
        begin = self.spool.confirmed
        end = self.spool.batch_end(max_rows=self.writer.max_rows, max_bytes=self.writer.max_bytes)
        end = min(end, begin + self._sizes.rows)
        return await self._place(Assignment(begin, end, "", 0))

    async def _place(self, batch: Assignment) -> Assignment:
        stream, offset = await self.writer.place(self.spool.stream, self.spool.offset)
        return await self._assign(replace(batch, stream=stream, offset=offset))

    async def _assign(self, batch: Assignment) -> Assignment:
        await asyncio.to_thread(self.spool.assign, batch, now_us=self._clock.now_us())
        return batch

    def _load(self, batch: Assignment) -> SpooledRows:
        """The rows of a batch that were not refused."""
        rows = self.spool.read(batch.begin, batch.end, self._schema)
        if not batch.refused:
            return rows
        kept = [index for index, number in enumerate(rows.numbers) if number not in batch.refused]
        return SpooledRows(rows.table.take(pa.array(kept, pa.int64())), [rows.numbers[index] for index in kept])

    async def _write(self, batch: Assignment, rows: SpooledRows) -> tuple[Assignment, bool]:
        """The batch and whether it is in the table; if not, it is what to try instead.

        Raises:
            TableGone, SinkBusy, SinkError: nothing is known about it yet.
        """
        if not rows.numbers:
            return batch, True
        try:
            await self.writer.write(batch, rows.table, rows.numbers)
        except AlreadyWritten:
            return batch, True
        except StreamGone as error:
            return await self._elsewhere(batch, rows, error)
        except RowsRefused as error:
            reasons = {rows.numbers[index]: reason for index, reason in error.reasons.items()}
            return await self._assign(replace(batch, refused={**batch.refused, **reasons})), False
        except BatchRefused as error:
            return await self._narrowed(batch, rows, error), False
        return batch, True

    async def _elsewhere(self, batch: Assignment, rows: SpooledRows, gone: StreamGone) -> tuple[Assignment, bool]:
        """The stream is gone: another place for the batch, unless it is in the table."""
        if self._renewals >= _RENEWALS:
            self._renewals = 0
            raise SinkBusy(f"{self.definition.name}: {_RENEWALS} streams in a row refused a batch: {gone}")
        there = await self.writer.find(batch)
        if there is None:
            there = await self._ask_table(batch, rows)
        self.counters.renewals += 1
        self._renewals += 1
        log.warning(
            "stream left",
            extra={"table": self.definition.name, "stream": batch.stream, "written": there, "error": str(gone)},
        )
        if there:
            return replace(batch, stream=""), True
        await asyncio.to_thread(self.spool.leave_stream, now_us=self._clock.now_us())
        return await self._place(batch), False

    async def _ask_table(self, batch: Assignment, rows: SpooledRows) -> bool:
        """Whether the first row of a batch is in the table: an append is whole or nothing, so one row is enough."""
        names = self.definition.identity
        first = rows.table.slice(0, 1).select(names).to_pylist()[0]
        start = self.spool.chunk_start(rows.numbers[0])
        before = self.spool.read(start, rows.numbers[0], self._schema).table.select(names).to_pylist()
        # Rows of one chunk may share their identity, and those of the batch before are in the table.
        return await self._probe(self.definition, first) > int(before.count(first))

    async def _narrowed(self, batch: Assignment, rows: SpooledRows, error: BatchRefused) -> Assignment:
        """The batch was refused as a whole: a smaller one, or without its only row."""
        if len(rows.numbers) > 1:
            self._sizes.halve(len(rows.numbers))
            end = rows.numbers[self._sizes.rows - 1] + 1
            known = {number: reason for number, reason in batch.refused.items() if number < end}
            return await self._assign(replace(batch, end=end, refused=known))
        self._sizes.singles += 1
        if self._sizes.singles > _SINGLES:
            self._sizes.singles = 0
            raise SinkError(
                f"{self.definition.name}: {_SINGLES} rows in a row were refused one by one, which is no bad row but a "
                f"table that does not fit; compare its columns. Last: {error}"
            )
        return await self._assign(replace(batch, refused={**batch.refused, rows.numbers[0]: str(error)}))

    async def _confirm(self, batch: Assignment, rows: SpooledRows) -> None:
        if batch.refused:
            await asyncio.to_thread(self._bury, batch)
        lost = batch.count - len(rows.numbers)
        # Rows that a damaged spool lost may be in the stream or not, so where it ends is not known.
        stream, offset = ("", 0) if lost or not batch.stream else self.writer.after(batch)
        data_bytes = await asyncio.to_thread(logical_bytes, rows.table)
        await asyncio.to_thread(
            self.spool.confirm, batch.end, stream=stream, offset=offset, now_us=self._clock.now_us()
        )
        counters = self.counters
        counters.rows += len(rows.numbers)
        counters.data_bytes += data_bytes
        counters.batches += 1
        counters.lost_rows += lost
        if rows.numbers:
            self._renewals = 0
            self._sizes.grow(self.writer.max_rows)

    def _bury(self, batch: Assignment) -> None:
        """Keep the refused rows of a batch where people find them."""
        rows = self.spool.read(batch.begin, batch.end, self._schema)
        found = [(index, number) for index, number in enumerate(rows.numbers) if number in batch.refused]
        values = rows.table.take(pa.array([index for index, _ in found], pa.int64())).to_pylist()
        letters = [(number, batch.refused[number], row) for (_, number), row in zip(found, values, strict=True)]
        taken = self._dead_letters.write(self.definition.name, f"{batch.begin:012d}", letters)
        self._note_bytes(taken)
        self.counters.dead_letters += len(letters)
        log.error(
            "rows refused",
            extra={
                "table": self.definition.name,
                "rows": len(letters),
                "reason": summary(batch.refused.values()),
                "kept_in": str(self._dead_letters.root / self.definition.name),
            },
        )

"""The rows of one table in the spool: appended, assigned to a place in a stream, confirmed, forgotten.

Theory of operation. Each table has a log of segments (storage/recovery: records with checksums, torn tails cut) that
holds rows, the batch that was assigned to a place in a stream, and what was confirmed. Rows are durable after `sync`.
A batch is written down, durably, before it is sent, and stays the same until it is confirmed or its stream is left: who
dies in between sends the same rows to the same place again. Every segment begins with the whole state, so that those
before the first unconfirmed row can go.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from threading import RLock
from typing import Any, Final

import pyarrow as pa

from market_data_tick_handler.errors import CorruptObject, SinkError
from market_data_tick_handler.storage.recovery.framing import HEAD, Finding
from market_data_tick_handler.storage.recovery.segment_files import Entry, Position
from market_data_tick_handler.storage.recovery.segments import SegmentLog
from streaming_service.sinks.spool_chunks import WaitingChunks
from streaming_service.sinks.spool_disk import SpoolHome, is_full, telling
from streaming_service.sinks.spool_records import (
    Assignment,
    Begun,
    Chunk,
    Confirmed,
    Mark,
    Record,
    SpoolState,
    StreamLeft,
    decode,
    encode,
)
from streaming_service.sinks.spool_rows import SpooledRows, fitted, schema_of, schema_text
from streaming_service.sinks.turns import computing

log = logging.getLogger(__name__)

# A segment whose rows are all confirmed is left behind once it is as large: small ones are not worth a new file.
_WORTH_LEAVING: Final = 1 << 20
_NO_AGE: Final = 1 << 62


class TableSpool:
    """The rows of one table that are not confirmed yet. For threads: every method may touch the disk."""

    def __init__(self, home: SpoolHome, name: str, *, segment_bytes: int) -> None:
        self.name = name
        self.lost_rows = 0
        self._home = home
        self._lock = RLock()
        self._schema = pa.schema([])
        self._state = SpoolState()
        self._chunks = WaitingChunks()
        self._schemas: dict[int, pa.Schema] = {}
        self._last_us = 0
        self._log = SegmentLog(
            home.root,
            name,
            self._describe,
            identity={"spool": 1},
            segment_bytes=segment_bytes,
            segment_age_us=_NO_AGE,
        )
        try:
            self._read()
        except BaseException:
            self._log.close()
            raise

    # Opening

    def _describe(self) -> dict[str, Any]:
        return {
            "schema": schema_text(self._schema),
            "state": self._state.tree(),
        }

    def _read(self) -> None:
        number = -1
        for entry in self._log.read(salvage=True):
            if entry.segment.number != number:
                number = entry.segment.number
                # The header holds all that came before, whatever became of it.
                self._state = SpoolState.of_tree(entry.segment.header["state"])
            record, _ = decode(entry.record.payload)
            self._state.apply(record)
            if isinstance(record, Chunk):
                self._chunks.add(record, entry.start)
        if self._log.segments and self._log.segments[-1].header:
            self._schema = schema_of(self._log.segments[-1].header["schema"])
        self._chunks.confirm(self._state.confirmed)
        self._last_us = max((segment.first_us for segment in self._log.segments), default=0)
        self._tell_losses()

    def _tell_losses(self) -> None:
        for finding in self._log.findings:
            log.log(
                logging.ERROR if finding.damaged else logging.WARNING, "spool repaired", extra={"finding": str(finding)}
            )
        self.lost_rows = self.pending_rows - self._chunks.rows
        if self.lost_rows:
            log.error("rows lost in damaged spool", extra={"table": self.name, "rows": self.lost_rows})

    # What is there

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Torn tails that were cut, and damage, as found on opening."""
        return tuple(self._log.findings)

    @property
    def size_bytes(self) -> int:
        return self._log.size_bytes

    @property
    def assignment(self) -> Assignment | None:
        """The batch that was or is being sent and is not confirmed."""
        return self._state.assignment

    @property
    def stream(self) -> str:
        """Where the next batch goes; empty: a new stream is needed."""
        return self._state.stream

    @property
    def offset(self) -> int:
        """Rows in `stream` before the next batch."""
        return self._state.offset

    @property
    def rows(self) -> int:
        """Rows ever appended: the number of the next one."""
        return self._state.rows

    @property
    def confirmed(self) -> int:
        """Rows before this number are done with."""
        return self._state.confirmed

    @property
    def pending_rows(self) -> int:
        """Rows that are not confirmed."""
        return self._state.rows - self._state.confirmed

    @property
    def pending_bytes(self) -> int:
        """Bytes of the columns of unconfirmed rows, a chunk that is partly confirmed counted whole."""
        return self._chunks.data_bytes

    @property
    def marks(self) -> dict[str, Mark]:
        """How far each channel is in the spool or the table."""
        return dict(self._state.marks)

    def mark(self, channel: str) -> Mark | None:
        """How far a channel is in the spool or the table."""
        return self._state.marks.get(channel)

    def stamp(self, now_us: int) -> int:
        """A time for rows that are appended now, which no rows before them have."""
        return self._state.stamp(now_us)

    # Writing

    def append(self, batch: pa.RecordBatch, *, now_us: int, marks: Mapping[str, Mark]) -> None:
        """Add rows. They outlive this process on return, and the machine after `sync`.

        marks: how far the channels are with these rows.

        Raises:
            SinkBusy: the spool or the disk is full; nothing was added. SinkError: the disk fails.
        """
        body = batch.serialize()
        # What the rows take in an append; asking the batch would go through all its buffers.
        data_bytes = pa.ipc.read_message(body).body.size
        self._home.admit(data_bytes)
        with self._lock, telling(self._home.root):
            if batch.schema != self._schema:
                self._schema = batch.schema
                # The header of a segment has the schema of its rows.
                self._log.rotate()
            self._append(Chunk(self._state.rows, batch.num_rows, data_bytes, marks), now_us, memoryview(body))

    def assign(self, assignment: Assignment, *, now_us: int) -> None:
        """Write down, durably, where a batch is sent before it is.

        Raises:
            SinkBusy: the disk is full. SinkError: it fails.
        """
        self._note(assignment, now_us)
        self.sync()

    def confirm(self, end: int, *, stream: str, offset: int, now_us: int) -> None:
        """Rows before `end` are done with; the next batch goes to `offset` of `stream` (empty: to a new one). Frees
        what is no longer needed.

        Raises:
            SinkBusy: the disk is full. SinkError: it fails.
        """
        with self._lock:
            if end == self._state.rows and self._log.size_bytes >= _WORTH_LEAVING:
                self._log.rotate()
            self._note(Confirmed(end, stream, offset), now_us)
            self._chunks.confirm(end)
            oldest = self._chunks.first_segment
            keep_from = self._log.position.segment if oldest is None else oldest
            self._log.forget(keep_from)
            self._schemas = {number: schema for number, schema in self._schemas.items() if number >= keep_from}
        self._home.restore_reserve()

    def leave_stream(self, *, now_us: int) -> None:
        """The stream takes no more rows, and nothing of what was assigned to it since the last `confirm` is in it.

        Raises:
            SinkBusy: the disk is full. SinkError: it fails.
        """
        self._note(StreamLeft(), now_us)

    def begin(self, marks: Mapping[str, Mark], *, now_us: int) -> None:
        """Durably: channels begin behind these marks, and others of their names before the last `@` are over.

        Raises:
            SinkBusy: the disk is full. SinkError: it fails.
        """
        self._note(Begun(marks), now_us)
        self.sync()

    def _note(self, record: Record, now_us: int) -> None:
        with self._lock, telling(self._home.root):
            try:
                self._append(record, now_us)
            except OSError as error:
                if not is_full(error) or not self._home.release_reserve():
                    raise
                self._append(record, now_us)

    def _append(self, record: Record, now_us: int, body: bytes | memoryview = b"") -> None:
        # The log goes by its stamps, so a clock that goes back must not show.
        self._last_us = max(self._last_us, now_us)
        payload = encode(record, body)
        position = self._log.append(self._last_us, payload)
        self._state.apply(record)
        if isinstance(record, Chunk):
            self._chunks.add(record, Position(position.segment, position.offset - len(payload) - HEAD.size))

    def sync(self) -> None:
        """Make what was appended outlive the machine.

        Raises:
            SinkBusy: the disk is full. SinkError: it fails.
        """
        with telling(self._home.root):
            self._log.sync()

    def close(self) -> None:
        """Sync and release the files."""
        with self._lock, telling(self._home.root):
            self._log.close()

    # Reading

    def batch_end(self, *, max_rows: int, max_bytes: int) -> int:
        """Number behind the last row of the next batch: whole chunks within the limits, at least one."""
        return self._chunks.batch_end(max_rows=max_rows, max_bytes=max_bytes)

    def read(self, begin: int, end: int, schema: pa.Schema) -> SpooledRows:
        """Rows [begin, end) as columns of `schema`, null where a row has no such column. Rows of damaged records are
        absent.

        Raises:
            SinkError: the files cannot be read any more.
        """
        batches: list[pa.RecordBatch] = []
        numbers: list[int] = []
        for chunk, position in self._chunks.between(begin, end):
            first, stop = max(begin, chunk.first_row), min(end, chunk.end_row)
            entry = self._entry(position)
            with computing:
                rows = fitted(self._rows_of(entry), schema)
                batches.append(rows.slice(first - chunk.first_row, stop - first))
                numbers += range(first, stop)
        return SpooledRows(pa.Table.from_batches(batches, schema=schema), numbers)

    def chunk_start(self, row: int) -> int:
        """Number of the first row that was appended together with this one."""
        return next((chunk.first_row for chunk, _ in self._chunks.between(row, row + 1)), row)

    def _entry(self, position: Position) -> Entry:
        try:
            return self._log.read_at(position)
        except (CorruptObject, OSError) as error:
            raise SinkError(f"{self.name}: expected the rows that were spooled, got: {error}") from error

    def _rows_of(self, entry: Entry) -> pa.RecordBatch:
        number = entry.segment.number
        try:
            schema = self._schemas.get(number)
            if schema is None:
                schema = self._schemas[number] = schema_of(entry.segment.header["schema"])
            _, body = decode(entry.record.payload)
            return pa.ipc.read_record_batch(pa.py_buffer(entry.record.payload)[body:], schema)
        except (CorruptObject, pa.ArrowInvalid) as error:
            raise SinkError(f"{self.name}: expected the rows that were spooled, got: {error}") from error

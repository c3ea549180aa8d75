"""The rows of one table in the spool: appended, assigned to a place in a stream, confirmed, forgotten.

Theory of operation. Each table has a log of segments (storage/recovery: records with checksums, torn tails cut) that
holds rows, the batch that was assigned to a place in a stream, and what was confirmed. Rows are durable after `sync`.
A batch is written down, durably, before it is sent, and stays the same until it is confirmed or its stream is left: who
dies in between sends the same rows to the same place again. Every segment begins with the whole state, so that those
before the first unconfirmed row can go.
"""

from __future__ import annotations

import base64
import errno
import logging
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Any, Final, NamedTuple, Protocol

import pyarrow as pa

from market_data_tick_handler.errors import CorruptObject, SinkBusy, SinkError
from market_data_tick_handler.storage.recovery.framing import HEAD, Finding
from market_data_tick_handler.storage.recovery.segment_files import Position
from market_data_tick_handler.storage.recovery.segments import SegmentLog
from streaming_service.sinks.spool_records import (
    Assignment,
    Chunk,
    Confirmed,
    Mark,
    Record,
    SpoolState,
    StreamLeft,
    decode,
    encode,
)

log = logging.getLogger(__name__)

FULL_RETRY_S: Final = 5.0
# A segment whose rows are all confirmed is left behind once it is as large: small ones are not worth a new file.
_WORTH_LEAVING: Final = 1 << 20
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_AGE: Final = 1 << 62


class SpoolHome(Protocol):
    """What the spools of all tables share: a directory, a budget, and room for the records that free room."""

    root: Path

    def admit(self, data_bytes: int) -> None: ...

    def release_reserve(self) -> bool: ...

    def restore_reserve(self) -> None: ...


class _Placed(NamedTuple):
    """A chunk and where it is."""

    chunk: Chunk
    position: Position


class SpooledRows(NamedTuple):
    """Rows of a batch, in the schema asked for, and their numbers."""

    table: pa.Table
    numbers: list[int]


class TableSpool:
    """The rows of one table that are not confirmed yet. For threads: every method may touch the disk."""

    def __init__(self, home: SpoolHome, name: str, *, segment_bytes: int) -> None:
        self.name = name
        self.lost_rows = 0
        self._home = home
        self._lock = RLock()
        self._schema = pa.schema([])
        self._state = SpoolState()
        self._chunks: deque[_Placed] = deque()
        self._chunk_bytes = 0
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
            "schema": base64.b64encode(self._schema.serialize().to_pybytes()).decode(),
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
                self._place(record, entry.start)
        if self._log.segments and self._log.segments[-1].header:
            self._schema = self._schema_of(self._log.segments[-1].header)
        self._drop_confirmed()
        self._last_us = max((segment.first_us for segment in self._log.segments), default=0)
        self._tell_losses()

    def _tell_losses(self) -> None:
        for finding in self._log.findings:
            log.log(
                logging.ERROR if finding.damaged else logging.WARNING, "spool repaired", extra={"finding": str(finding)}
            )
        here = sum(placed.chunk.end_row - max(placed.chunk.first_row, self._state.confirmed) for placed in self._chunks)
        self.lost_rows = self.pending_rows - here
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
        return self._chunk_bytes

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
        self._home.admit(batch.nbytes)
        with self._lock, telling(self._home.root):
            if batch.schema != self._schema:
                self._schema = batch.schema
                # The header of a segment has the schema of its rows.
                self._log.rotate()
            chunk = Chunk(self._state.rows, batch.num_rows, batch.nbytes, marks)
            self._append(chunk, now_us, batch.serialize().to_pybytes())

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
            self._drop_confirmed()
            keep_from = self._chunks[0].position.segment if self._chunks else self._log.position.segment
            self._log.forget(keep_from)
            self._schemas = {number: schema for number, schema in self._schemas.items() if number >= keep_from}
        self._home.restore_reserve()

    def leave_stream(self, *, now_us: int) -> None:
        """The stream takes no more rows, and nothing of what was assigned to it since the last `confirm` is in it.

        Raises:
            SinkBusy: the disk is full. SinkError: it fails.
        """
        self._note(StreamLeft(), now_us)

    def _note(self, record: Record, now_us: int) -> None:
        with self._lock, telling(self._home.root):
            try:
                self._append(record, now_us)
            except OSError as error:
                if error.errno not in _FULL or not self._home.release_reserve():
                    raise
                self._append(record, now_us)

    def _append(self, record: Record, now_us: int, body: bytes = b"") -> None:
        # The log goes by its stamps, so a clock that goes back must not show.
        self._last_us = max(self._last_us, now_us)
        payload = encode(record, body)
        position = self._log.append(self._last_us, payload)
        self._state.apply(record)
        if isinstance(record, Chunk):
            start = Position(position.segment, position.offset - len(payload) - HEAD.size)
            self._place(record, start)

    def _place(self, chunk: Chunk, start: Position) -> None:
        self._chunks.append(_Placed(chunk, start))
        self._chunk_bytes += chunk.data_bytes

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

    def _drop_confirmed(self) -> None:
        while self._chunks and self._chunks[0].chunk.end_row <= self._state.confirmed:
            self._chunk_bytes -= self._chunks.popleft().chunk.data_bytes

    # Reading

    def batch_end(self, *, max_rows: int, max_bytes: int) -> int:
        """Number behind the last row of the next batch: whole chunks within the limits, at least one."""
        with self._lock:
            rows = data_bytes = 0
            end = self._state.confirmed
            for chunk, _ in self._chunks:
                rows += chunk.end_row - max(chunk.first_row, self._state.confirmed)
                data_bytes += chunk.data_bytes
                if end > self._state.confirmed and (rows > max_rows or data_bytes > max_bytes):
                    break
                end = chunk.end_row
            return end

    def read(self, begin: int, end: int, schema: pa.Schema) -> SpooledRows:
        """Rows [begin, end) as columns of `schema`, null where a row has no such column. Rows of damaged records are
        absent.

        Raises:
            SinkError: the files cannot be read any more.
        """
        tables: list[pa.Table] = [schema.empty_table()]
        numbers: list[int] = []
        for first, batch in self._batches(begin, end):
            numbers += range(first, first + batch.num_rows)
            tables.append(_fitted(batch, schema))
        return SpooledRows(pa.concat_tables(tables), numbers)

    def chunk_start(self, row: int) -> int:
        """Number of the first row that was appended together with this one."""
        with self._lock:
            return next((p.chunk.first_row for p in self._chunks if p.chunk.first_row <= row < p.chunk.end_row), row)

    def _batches(self, begin: int, end: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        with self._lock:
            wanted = [p for p in self._chunks if p.chunk.first_row < end and p.chunk.end_row > begin]
            for chunk, position in wanted:
                batch = self._load(position)
                first, stop = max(begin, chunk.first_row), min(end, chunk.end_row)
                yield first, batch.slice(first - chunk.first_row, stop - first)

    def _load(self, position: Position) -> pa.RecordBatch:
        try:
            entry = self._log.read_at(position)
            schema = self._schemas.get(position.segment)
            if schema is None:
                schema = self._schemas[position.segment] = self._schema_of(entry.segment.header)
            _, body = decode(entry.record.payload)
            return pa.ipc.read_record_batch(pa.py_buffer(entry.record.payload)[body:], schema)
        except (CorruptObject, OSError, pa.ArrowInvalid) as error:
            raise SinkError(f"{self.name}: expected the rows that were spooled, got: {error}") from error

    @staticmethod
    def _schema_of(header: Mapping[str, Any]) -> pa.Schema:
        return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(header["schema"])))


def _fitted(batch: pa.RecordBatch, schema: pa.Schema) -> pa.Table:
    present = set(batch.schema.names)
    columns = [
        batch.column(field.name).cast(field.type) if field.name in present else pa.nulls(batch.num_rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


@contextmanager
def telling(root: Path) -> Iterator[None]:
    """Failures of the disk in the sinks' terms."""
    try:
        yield
    except OSError as error:
        what = f"{error.filename or root}: {error.strerror or error}"
        if error.errno in _FULL:
            raise SinkBusy(f"the disk is full: cannot write {what}; free space", retry_after=FULL_RETRY_S) from error
        raise SinkError(f"cannot write {what}; fix access, or point persist.bigquery.spool.path elsewhere") from error

"""A log that only grows, in files of bounded size: append, read from a position, forget whole files.

Theory of operation. A series is `{series}-{number}.log` files. Each begins with a header record (JSON: what it takes to
read the file alone, and the size of the file before it, so that a loss between two files is noticed) and is created by
its first append, so that none is without records. Opening cuts the torn tail of the last file. If whole records lie
behind a bad one, nothing is cut: the log goes on in a new file, and whoever reads across the bad place is told.

`append` belongs to one thread; `sync` may run in another at the same time; reading needs no handle of the writer's.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import Any, Final

from market_data_tick_handler.errors import CorruptObject, NotFound
from market_data_tick_handler.storage.recovery.framing import (
    READ_BYTES,
    Finding,
    Record,
    Survey,
    frame,
    read_record,
    read_records,
)
from market_data_tick_handler.storage.recovery.segment_files import (
    Entry,
    Position,
    Segment,
    find_segments,
    lock_file,
    sync_directory,
    write_all,
)

FORMAT: Final = 1
SEGMENT_BYTES: Final = 64 << 20
SEGMENT_AGE_US: Final = 3_600_000_000
_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC


class SegmentLog:
    """One series of segments in `directory`, open for appending by this process alone.

    describe: what the header of a segment created now must hold. segment_bytes, segment_age_us: a record that comes
    when the last segment is as large, or its first record as old, begins a new one.

    Raises:
        ConfigError: another process has the log open. SchemaMismatch: it is of another kind, format or instrument.
    """

    def __init__(
        self,
        directory: Path,
        series: str,
        describe: Callable[[], Mapping[str, Any]],
        *,
        identity: Mapping[str, Any],
        segment_bytes: int = SEGMENT_BYTES,
        segment_age_us: int = SEGMENT_AGE_US,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self.series = directory, series
        self.segments: list[Segment] = []
        self.findings: list[Finding] = []
        self.last: Record | None = None
        self._describe = describe
        self._identity = {"format": FORMAT, "series": series, **identity}
        self._segment_bytes, self._segment_age_us = segment_bytes, segment_age_us
        self._fd, self._offset, self._number, self._torn = -1, 0, 1, False
        self._retired: deque[int] = deque()
        self._created = False
        self._sync_lock = Lock()
        self._lock_fd = lock_file(directory / f"{series}.lock")
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    # Opening

    def _open(self) -> None:
        self.segments, found = find_segments(self.directory, self.series, self._identity, self.findings)
        if found is not None:
            self._number = self.segments[-1].number + 1
            self._open_last(self.segments[-1], found)

    def _open_last(self, segment: Segment, found: Survey) -> None:
        self.last = found.last if found.count > 1 else None
        if found.damaged:
            *_, self.last = read_records(segment.path, segment.begin, segment.end, skipped=[])
            if segment.header:
                self._report(
                    segment, found, "a record is damaged and whole ones lie behind; the log goes on in a new file"
                )
            return
        self._fd = os.open(segment.path, _FLAGS)
        if found.torn:
            self._report(segment, found, "the last record is torn; it was cut off")
            os.ftruncate(self._fd, found.end)
        segment.end = self._offset = found.end

    def _report(self, segment: Segment, found: Survey, text: str) -> None:
        self.findings.append(Finding(segment.path, found.end, found.size - found.end, found.damaged, text))

    # Writing

    @property
    def position(self) -> Position:
        """Behind the last record."""
        return Position(self._number if self._fd < 0 else self.segments[-1].number, self._offset)

    @property
    def oldest(self) -> Position:
        """Before the first record that is kept."""
        return Position(self.segments[0].number if self.segments else self._number, 0)

    @property
    def size_bytes(self) -> int:
        """Bytes of all segments."""
        return sum(segment.end for segment in self.segments)

    def append(self, stamp: int, payload: bytes, *, may_begin: bool = True) -> Position:
        """Add a record in one write; the position behind it. The record outlives this process as soon as this returns,
        and the machine after the next `sync`. If the write fails, the log is as it was before.

        may_begin: whether a segment that is full may end before this record.

        Raises:
            OSError: the disk is full or broken. OutOfRange: the payload is too large.
        """
        data = frame(stamp, payload)
        if self._fd < 0 or (may_begin and self._full(stamp)):
            return self._begin(stamp, data)
        if self._torn:
            self._cut()
        self._write(self._fd, data)
        self._offset += len(data)
        self.segments[-1].end = self._offset
        return Position(self.segments[-1].number, self._offset)

    def _full(self, stamp: int) -> bool:
        return self._offset >= self._segment_bytes or stamp - self.segments[-1].first_us >= self._segment_age_us

    def _begin(self, stamp: int, data: bytes) -> Position:
        number = self._number
        path = self.directory / f"{self.series}-{number:010d}.log"
        previous = self.segments[-1].end if self.segments else 0
        header = json.loads(json.dumps({**self._identity, "previous_bytes": previous, **self._describe()}))
        head = frame(stamp, json.dumps(header, separators=(",", ":")).encode())
        fd = os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            write_all(fd, head + data)
        except BaseException:
            os.close(fd)
            path.unlink()
            raise
        self.rotate()
        self._fd, self._offset, self._number, self._created = fd, len(head) + len(data), number + 1, True
        self.segments.append(Segment(number, path, header, stamp, len(head), self._offset))
        return Position(number, self._offset)

    def rotate(self) -> None:
        """The next append begins a new segment."""
        if self._fd >= 0:
            self._retired.append(self._fd)
            self._fd, self._offset, self._torn = -1, 0, False

    def _write(self, fd: int, data: bytes) -> None:
        try:
            write_all(fd, data)
        except BaseException:
            self._torn = True
            self._cut()
            raise

    def _cut(self) -> None:
        """Take back what a failed write left behind the last whole record."""
        os.ftruncate(self._fd, self._offset)
        self._torn = False

    def sync(self) -> None:
        """Make every append so far outlive the machine. May run in another thread than `append`.

        Raises:
            OSError: the disk did not take it.
        """
        with self._sync_lock:
            created, self._created = self._created, False
            current = self._fd
            # A descriptor of its own: the writer may retire this one meanwhile.
            open_now = [os.dup(current)] if current >= 0 else []
            while self._retired:
                open_now.append(self._retired.popleft())
            try:
                for fd in open_now:
                    os.fsync(fd)
                if created:
                    sync_directory(self.directory)
            finally:
                for fd in open_now:
                    os.close(fd)

    def close(self) -> None:
        """Sync and release the files and the lock."""
        self.rotate()
        try:
            self.sync()
        finally:
            if self._lock_fd >= 0:
                os.close(self._lock_fd)
                self._lock_fd = -1

    # Reading

    def read(
        self, start: Position | None = None, stop: Position | None = None, *, salvage: bool = False
    ) -> Iterator[Entry]:
        """Records from `start` (default: the oldest) to `stop` (default: what is there now), in order.

        salvage: pass over damaged records, which become findings, where nothing follows from them.

        Raises:
            NotFound: `start` was forgotten, or lies behind the end. CorruptObject: a record is not whole.
        """
        segments, stop = list(self.segments), self.position if stop is None else stop
        if start is not None:
            self.check(start)
            start = max(start, self.oldest)
            segments = [segment for segment in segments if segment.number >= start.segment]
        expected = start.segment if start is not None else segments[0].number if segments else 0
        for segment in segments:
            if segment.number > stop.segment:
                return
            begin = max(segment.begin, start.offset) if start and start.segment == segment.number else segment.begin
            end = min(stop.offset, segment.end) if stop.segment == segment.number else segment.end
            readable = segment.number == expected and (segment.header or begin >= end)
            if not readable and not salvage:
                raise CorruptObject(
                    f"{self.directory}: expected {self.series} segment {expected}, which is gone or has no readable "
                    f"header; restore it, or go on from a state saved behind it"
                )
            expected = segment.number + 1
            if segment.header:
                yield from self._read_segment(segment, begin, end, salvage)

    def _read_segment(self, segment: Segment, begin: int, end: int, salvage: bool) -> Iterator[Entry]:
        skipped: list[Finding] | None = [] if salvage else None
        try:
            for record in read_records(segment.path, begin, end, skipped=skipped):
                yield Entry(record, segment)
        except FileNotFoundError:
            raise NotFound(f"{segment.path}: forgotten while it was read; start from a newer state") from None
        self.findings += [finding for finding in skipped or () if finding not in self.findings]

    def check(self, position: Position) -> None:
        """Raises:
        NotFound: the log does not hold what follows `position`, or never got as far.
        """
        if position > self.position:
            raise NotFound(
                f"{self.directory}: {self.series} ends at {tuple(self.position)}, before the position "
                f"{tuple(position)} asked for; start from an older state"
            )
        if position.segment < self.oldest.segment and not self._just_before_oldest(position):
            raise NotFound(
                f"{self.directory}: what followed position {tuple(position)} of {self.series} was forgotten; "
                f"start from a newer state"
            )

    def holds(self, position: Position) -> bool:
        """True if everything that follows a position is here."""
        try:
            self.check(position)
        except NotFound:
            return False
        return True

    def _just_before_oldest(self, position: Position) -> bool:
        """True at the end of the last segment that was forgotten: nothing that follows is gone."""
        oldest = self.segments[0] if self.segments else None
        if oldest is None or not oldest.header or position.segment != oldest.number - 1:
            return False
        return position.offset >= int(oldest.header["previous_bytes"])

    def read_at(self, start: Position) -> Entry:
        """The record at a position.

        Raises:
            NotFound: it was forgotten. CorruptObject: it is not whole.
        """
        segment = next((segment for segment in self.segments if segment.number == start.segment), None)
        if segment is None:
            raise NotFound(f"{self.directory}: {self.series} segment {start.segment} was forgotten")
        with segment.path.open("rb", buffering=READ_BYTES) as file:
            file.seek(start.offset)
            record = read_record(file, start.offset, segment.end)
        if record is None:
            raise CorruptObject(f"{segment.path}: expected a whole record at offset {start.offset}; restore the file")
        return Entry(record, segment)

    # Forgetting

    def settled_before(self, before_us: int) -> int:
        """Number of the first segment that may hold records stamped `before_us` or later; all below may go."""
        number = self.segments[0].number if self.segments else self._number
        for segment, after in pairwise(self.segments):
            if after.first_us > before_us:
                break
            number = segment.number + 1
        return number

    def forget(self, keep_from: int) -> None:
        """Remove the segments numbered below `keep_from`, never the one being written."""
        last = self.segments[-1].number if self._fd >= 0 else self._number
        gone = [segment for segment in self.segments if segment.number < min(keep_from, last)]
        del self.segments[: len(gone)]
        for segment in gone:
            segment.path.unlink(missing_ok=True)

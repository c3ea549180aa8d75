"""Records in a file: each with its length and checksum, so that a reader knows which of them are whole.

Theory of operation. A record is `HEAD` (magic, crc32, payload length, stamp) and the payload; the checksum covers all
that follows it. One append is one write, so that a process that dies leaves at most one record cut short, at the end:
a torn tail, which nobody was told to be durable. A bad record with a whole one behind it is no torn tail but damage.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from market_data_tick_handler.errors import CorruptObject, OutOfRange

MAGIC: Final = b"\xa5MDR"
HEAD: Final = struct.Struct("<4sIIq")
_COVERED: Final = struct.Struct("<Iq")
_COVERED_FROM: Final = HEAD.size - _COVERED.size
MAX_PAYLOAD: Final = 1 << 30
# A file is read in pieces of this size, which a turn of a live feed is far below.
READ_BYTES: Final = 1 << 20


class Record(NamedTuple):
    """One whole record. `stamp` is what its writer orders records by: a time in microseconds, or an index."""

    stamp: int
    payload: bytes
    offset: int
    end: int


@dataclass(frozen=True, slots=True)
class Finding:
    """What a file had that its writer did not mean. `lost_bytes` from `offset` on cannot be read; damaged: whole
    records lie behind them, so this is more than the last append of a process that died."""

    path: Path
    offset: int
    lost_bytes: int
    damaged: bool
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text} ({self.lost_bytes} bytes from offset {self.offset} on)"


@dataclass(frozen=True, slots=True)
class Survey:
    """The whole records at the beginning of a file: where they end, how many there are, and the last of them."""

    end: int
    count: int
    last: Record | None
    size: int
    damaged: bool

    @property
    def torn(self) -> bool:
        """True if bytes follow that are no whole record."""
        return self.end < self.size


def frame(stamp: int, payload: bytes) -> bytes:
    """The bytes of one record.

    Raises:
        OutOfRange: the payload is larger than a record may be.
    """
    if len(payload) > MAX_PAYLOAD:
        raise OutOfRange(f"record: expected at most {MAX_PAYLOAD} bytes, got {len(payload)}; append less at once")
    covered = _COVERED.pack(len(payload), stamp)
    checksum = zlib.crc32(payload, zlib.crc32(covered))
    return b"".join((MAGIC, checksum.to_bytes(4, "little"), covered, payload))


def read_record(file: BinaryIO, offset: int, limit: int) -> Record | None:
    """The record at `offset`, where `file` stands; None if it is not whole within `limit`."""
    head = file.read(HEAD.size)
    if len(head) < HEAD.size:
        return None
    magic, checksum, length, stamp = HEAD.unpack(head)
    end = offset + HEAD.size + length
    if magic != MAGIC or end > limit:
        return None
    payload = file.read(length)
    if len(payload) < length or zlib.crc32(payload, zlib.crc32(head[_COVERED_FROM:])) != checksum:
        return None
    return Record(stamp, payload, offset, end)


def read_records(path: Path, start: int, stop: int, *, skipped: list[Finding] | None = None) -> Iterator[Record]:
    """The records of [start, stop), which both lie at the border of a record.

    skipped: where given, bad stretches are passed over and told there; otherwise they end the reading.

    Raises:
        CorruptObject: there is a record that is not whole.
    """
    with path.open("rb", buffering=READ_BYTES) as file:
        file.seek(start)
        while start < stop:
            record = read_record(file, start, stop)
            if record is None:
                if skipped is None:
                    raise CorruptObject(
                        f"{path}: expected a whole record at offset {start} and records up to {stop}; it is cut off "
                        f"or changed; restore the file, or go on from a state saved behind it"
                    )
                record = _next_whole(file, start, stop)
                end = stop if record is None else record.offset
                skipped.append(Finding(path, start, end - start, True, "damaged records were passed over"))
                if record is None:
                    return
            yield record
            start = record.end


def survey(path: Path, start: int = 0) -> Survey:
    """How much of a file is whole records, from `start` on."""
    size = path.stat().st_size
    count, last, end = 0, None, start
    with path.open("rb", buffering=READ_BYTES) as file:
        file.seek(start)
        while end < size:
            record = read_record(file, end, size)
            if record is None:
                break
            count, last, end = count + 1, record, record.end
        damaged = end < size and _next_whole(file, end, size) is not None
    return Survey(end, count, last, size, damaged)


def _next_whole(file: BinaryIO, offset: int, limit: int) -> Record | None:
    """The first whole record that begins behind the bad one at `offset`; `file` stands behind it."""
    file.seek(offset)
    rest = file.read(limit - offset)
    at = rest.find(MAGIC, 1)
    while at >= 0:
        file.seek(offset + at)
        record = read_record(file, offset + at, limit)
        if record is not None:
            return record
        at = rest.find(MAGIC, at + 1)
    return None

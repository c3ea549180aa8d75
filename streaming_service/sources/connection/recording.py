"""The raw journal's file format, and reading it back.

Theory of operation. A journal is what the connections delivered and what the shell made of time passing, in the order
in which turns took it: one block per turn. A file is `MAGIC`, then blocks. A block is a header (length and CRC-32 of
its body) and records, each a kind, a length and a body. Frames are stored as columns: times, lengths, bytes. All other
records are MessagePack. Heartbeats, gaps and disconnects come from timers, which a replay has not; so they are stored
as they were emitted. A writer that dies leaves at most one torn block at the end of a file, which a reader passes over;
damage anywhere else is an error.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
import numpy as np
import pyarrow as pa

from market_data_tick_handler.core.events import Disconnect, Gap, Heartbeat
from market_data_tick_handler.core.ticks import Array, DataType
from market_data_tick_handler.errors import CorruptObject, NotFound
from streaming_service.sources.exchanges.protocol import Stream

MAGIC: Final = b"MDTHRAW1"
SUFFIX: Final = ".frames"
PACKED_SUFFIX: Final = ".frames.zst"
_BLOCK: Final = struct.Struct("<II")
_RECORD: Final = struct.Struct("<BI")
_FRAMES_HEAD: Final = struct.Struct("<II")
# Larger than any turn can be; a length beyond it is damage.
_LARGEST_BLOCK: Final = 1 << 30


class Session(msgspec.Struct, frozen=True, array_like=True):
    """Head of every file: whose frames, since when this writer runs, and which part of what it wrote this is."""

    exchange: str
    started_us: int
    part: int


class Opened(msgspec.Struct, frozen=True, array_like=True):
    """A connection was opened for these streams. again: it was before, this is the head of another file."""

    connection: int
    at_us: int
    exchange: str
    streams: tuple[tuple[str, DataType], ...]
    again: bool = False


class Promoted(msgspec.Struct, frozen=True, array_like=True):
    """`new` took over from `old`."""

    old: int
    new: int
    at_us: int


class Wanted(msgspec.Struct, frozen=True, array_like=True):
    """From here on only rows of these instruments count."""

    instruments: tuple[str, ...]


class Closed(msgspec.Struct, frozen=True, array_like=True):
    """A connection ended; `last_alive_us`: its last proof of life."""

    connection: int
    at_us: int
    last_alive_us: int
    reason: str


class Turn(msgspec.Struct, frozen=True, array_like=True):
    """End of a block: everything received before `at_us` is in it or in earlier ones."""

    at_us: int


@dataclass(frozen=True, slots=True)
class Frames:
    """What one connection delivered in one turn: payloads, and times of receipt (int64 us, not decreasing)."""

    connection: int
    frames: list[bytes]
    local_us: Array


Mark = Gap | Disconnect | Heartbeat
Note = Session | Opened | Promoted | Wanted | Closed | Turn | Mark
Record = Note | Frames

_FRAMES: Final = 1
_KINDS: Final[dict[int, type[Note]]] = {
    2: Session,
    3: Opened,
    4: Promoted,
    5: Closed,
    6: Turn,
    7: Gap,
    8: Disconnect,
    9: Heartbeat,
    10: Wanted,
}
_NUMBERS: Final = {kind: number for number, kind in _KINDS.items()}
_DECODERS: Final = {number: msgspec.msgpack.Decoder(kind) for number, kind in _KINDS.items()}
_encode: Final = msgspec.msgpack.Encoder().encode


def pack_record(record: Note) -> bytes:
    """One record that is no frames."""
    body = _encode(record)
    return _RECORD.pack(_NUMBERS[type(record)], len(body)) + body


def pack_frames(connection: int, frames: Sequence[bytes], local_us: Array) -> list[bytes]:
    """Frames as parts of a block."""
    lengths = np.fromiter(map(len, frames), np.uint32, len(frames))
    size = _FRAMES_HEAD.size + 12 * len(frames) + int(lengths.sum())
    return [
        _RECORD.pack(_FRAMES, size),
        _FRAMES_HEAD.pack(connection, len(frames)),
        np.asarray(local_us, "<i8").tobytes(),
        lengths.astype("<u4").tobytes(),
        *frames,
    ]


def pack_block(parts: Iterable[bytes]) -> bytes:
    """A block of these records."""
    body = b"".join(parts)
    return _BLOCK.pack(len(body), zlib.crc32(body)) + body


def stream_list(streams: Iterable[Stream]) -> tuple[Stream, ...]:
    """Streams in an order that does not depend on hashes."""
    return tuple(sorted(streams))


class RecordedFrames:
    """Every record of a journal: a file, or the files of a directory in the order of their writing.

    torn: files that end in the middle of a block, known once they were read.

    Raises:
        NotFound: no such file, or a directory without journals.
    """

    def __init__(self, path: str | Path) -> None:
        self.files = _files_of(Path(path))
        self.torn: list[Path] = []

    def __iter__(self) -> Iterator[Record]:
        """Records in order.

        Raises:
            CorruptObject: a file is none of ours, or is damaged before its end.
        """
        for file in self.files:
            try:
                yield from self._read(file)
            except OSError as error:
                raise CorruptObject(f"{file}: cannot be read to its end: {error}; restore the file") from error

    def _read(self, file: Path) -> Iterator[Record]:
        with open(file, "rb") as raw:
            stream = pa.CompressedInputStream(raw, "zstd") if file.name.endswith(PACKED_SUFFIX) else raw
            head = stream.read(len(MAGIC))
            if head != MAGIC:
                if MAGIC.startswith(head):
                    self.torn.append(file)
                    return
                raise CorruptObject(f"{file}: expected a journal that begins with {MAGIC!r}, came {head!r}")
            while (body := self._block(file, stream)) is not None:
                yield from _records(file, body)

    def _block(self, file: Path, stream: BinaryIO | pa.CompressedInputStream) -> bytes | None:
        head = stream.read(_BLOCK.size)
        if not head:
            return None
        if len(head) == _BLOCK.size:
            length, crc = _BLOCK.unpack(head)
            body: bytes = stream.read(length) if length <= _LARGEST_BLOCK else b""
            if len(body) == length and zlib.crc32(body) == crc:
                return body
            if length <= _LARGEST_BLOCK and stream.read(1):
                raise CorruptObject(f"{file}: a block of {length} bytes fails its checksum; restore the file")
        self.torn.append(file)
        return None


def _records(file: Path, body: bytes) -> Iterator[Record]:
    at = 0
    while at < len(body):
        kind, length = _RECORD.unpack_from(body, at)
        at += _RECORD.size
        if kind == _FRAMES:
            yield _unpack_frames(body, at)
        elif kind in _DECODERS:
            yield _DECODERS[kind].decode(memoryview(body)[at : at + length])
        else:
            raise CorruptObject(f"{file}: record of kind {kind}; expected 1 to {max(_KINDS)}: a newer version wrote it")
        at += length


def _unpack_frames(body: bytes, at: int) -> Frames:
    connection, count = _FRAMES_HEAD.unpack_from(body, at)
    at += _FRAMES_HEAD.size
    local_us = np.frombuffer(body, "<i8", count, at).astype(np.int64)
    lengths = np.frombuffer(body, "<u4", count, at + 8 * count).astype(np.int64)
    start = at + 12 * count
    stops = (start + np.cumsum(lengths)).tolist()
    starts = [start, *stops[:-1]]
    return Frames(connection, [body[first:stop] for first, stop in zip(starts, stops, strict=True)], local_us)


def _files_of(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    found = [each for suffix in (SUFFIX, PACKED_SUFFIX) for each in path.glob(f"*{suffix}")]
    if not found:
        raise NotFound(f"{path}: expected a journal or a directory of them ({SUFFIX}, {PACKED_SUFFIX}); found none")
    # A file that was being compressed when its writer died is there twice.
    by_name = {
        each.name.partition(".")[0]: each for each in sorted(found, key=lambda each: len(each.name), reverse=True)
    }
    return [by_name[name] for name in sorted(by_name)]

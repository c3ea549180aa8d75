"""Writes the raw journal: one append per turn, files rotated by size and by hour, compressed once they are full."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

import pyarrow as pa

from market_data_tick_handler.core.ticks import Array
from streaming_service.sources.connection.recording import (
    MAGIC,
    PACKED_SUFFIX,
    SUFFIX,
    Closed,
    Mark,
    Note,
    Opened,
    Promoted,
    Session,
    Turn,
    Wanted,
    pack_block,
    pack_frames,
    pack_record,
    stream_list,
)
from streaming_service.sources.exchanges.protocol import Stream

log = logging.getLogger(__name__)

HOUR_US: Final = 3_600_000_000
_COPY_BYTES: Final = 1 << 20


class FrameRecorder:
    """Journals what one source receives, into files of `directory`.

    max_bytes: of a file. max_us: time a file covers. compress: full files become zstd, in a thread of this recorder.
    Records are gathered and written by `turn`, which the source calls once per drain. A disk that fails costs the
    journal, not the feed: it is logged, `failed` says why, and nothing more is written.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        exchange: str,
        started_us: int,
        max_bytes: int = 256 << 20,
        max_us: int = HOUR_US,
        compress: bool = True,
    ) -> None:
        self.directory = Path(directory)
        self.exchange = exchange
        self.failed = ""
        self.written_bytes = 0
        self._started_us = started_us
        self._max_bytes = max_bytes
        self._max_us = max_us
        self._compress = compress
        self._part = 0
        self._file: BinaryIO | None = None
        self._path = self.directory
        self._size = 0
        self._file_us = 0
        self._parts: list[bytes] = []
        self._open: dict[int, Opened] = {}
        self._wanted: Wanted | None = None
        # Both as they were after the last turn: what the head of a file must say.
        self._settled: tuple[Opened | Wanted, ...] = ()
        self._pool: ThreadPoolExecutor | None = None
        self._packing: list[Future[None]] = []

    def opened(self, connection: int, at_us: int, streams: Iterable[Stream]) -> None:
        """A connection begins."""
        record = Opened(connection, at_us, self.exchange, stream_list(streams))
        self._parts.append(pack_record(record))
        self._open[connection] = record

    def frames(self, connection: int, frames: Sequence[bytes], local_us: Array) -> None:
        """What a turn took from a connection."""
        self._parts += pack_frames(connection, frames, local_us)

    def promoted(self, old: int, new: int, at_us: int) -> None:
        """A connection took over from another."""
        self._parts.append(pack_record(Promoted(old, new, at_us)))

    def wanted(self, instruments: Iterable[str]) -> None:
        """From here on only rows of these instruments count."""
        self._wanted = Wanted(tuple(sorted(instruments)))
        self._parts.append(pack_record(self._wanted))

    def closed(self, connection: int, at_us: int, last_alive_us: int, reason: str) -> None:
        """A connection ended."""
        self._parts.append(pack_record(Closed(connection, at_us, last_alive_us, reason)))
        self._open.pop(connection, None)

    def mark(self, event: Mark) -> None:
        """An event that was made from time passing."""
        self._parts.append(pack_record(event))

    def turn(self, at_us: int) -> None:
        """The turn that took all this is over."""
        parts, self._parts = self._parts, []
        if not parts or self.failed:
            return
        parts.append(pack_record(Turn(at_us)))
        try:
            self._append(pack_block(parts), at_us)
        except OSError as error:
            self.failed = repr(error)
            log.error("the raw journal stops: %s", error, extra={"path": str(self._path)})
            file, self._file = self._file, None
            if file is not None:
                with suppress(OSError):
                    file.close()
        self._settled = (*self._open.values(), *(() if self._wanted is None else (self._wanted,)))

    def close(self) -> None:
        """Close the file, and wait for what is being compressed. The last file stays as it is."""
        file, self._file = self._file, None
        if file is not None:
            os.fsync(file.fileno())
            file.close()
        if self._pool is not None:
            self._pool.shutdown(wait=True)
            self._pool = None
        for packing in self._packing:
            packing.result()
        self._packing.clear()

    def _append(self, block: bytes, at_us: int) -> None:
        if self._file is not None and (self._size >= self._max_bytes or at_us - self._file_us >= self._max_us):
            self._rotate()
        if self._file is None:
            self._begin(at_us)
        self._write(block)

    def _begin(self, at_us: int) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._path = self.directory / f"{self.exchange}-{self._started_us:020d}-{self._part:06d}{SUFFIX}"
        # Unbuffered: a turn is one append, and what was appended survives the process.
        self._file = open(self._path, "xb", buffering=0)  # noqa: SIM115
        self._size, self._file_us = 0, at_us
        head: list[Note] = [Session(self.exchange, self._started_us, self._part)]
        for each in self._settled:
            if isinstance(each, Opened):
                head.append(Opened(each.connection, each.at_us, each.exchange, each.streams, True))
            else:
                head.append(each)
        self._part += 1
        self._write(MAGIC + pack_block([pack_record(record) for record in head]))

    def _write(self, data: bytes) -> None:
        if self._file is None:
            return
        self._size += len(data)
        self.written_bytes += len(data)
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]

    def _rotate(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        if not self._compress:
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix=f"journal-{self.exchange}")
        self._packing = [packing for packing in self._packing if not packing.done()]
        self._packing.append(self._pool.submit(_pack_file, self._path))


def _pack_file(path: Path) -> None:
    """Compress a full file in its place; the name appears when the content is whole."""
    packed = path.with_name(path.name.removesuffix(SUFFIX) + PACKED_SUFFIX)
    unfinished = packed.with_name(packed.name + ".part")
    try:
        with open(path, "rb") as source, pa.CompressedOutputStream(str(unfinished), "zstd") as packing:
            while block := source.read(_COPY_BYTES):
                packing.write(block)
        os.replace(unfinished, packed)
        path.unlink()
    except OSError as error:
        # The file itself stays and is as good.
        log.error("a journal file stays uncompressed: %s", error, extra={"path": str(path)})

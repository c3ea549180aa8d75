"""How far each sink has written: a position per sink that outlives the process.

The file has two slots, written in turn, each with a count and a checksum: a write that is cut short leaves the other
slot, and moving on costs one write and no new file. A position that is lost with the machine is an older one: the sink
gets rows a second time, under the identity they had.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Final
from urllib.parse import quote

from market_data_tick_handler.storage.recovery.segment_files import Position

_SLOT: Final = struct.Struct("<QQQI")
_SLOT_BYTES: Final = 32


class Cursor:
    """The position of one sink, in a file of its own."""

    def __init__(self, directory: Path, series: str, sink: str) -> None:
        self.path = directory / f"{series}-{quote(sink, safe='')}.cursor"
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._count, self.position = self._read()

    def _read(self) -> tuple[int, Position | None]:
        data = os.pread(self._fd, 2 * _SLOT_BYTES, 0)
        newest: tuple[int, Position | None] = (0, None)
        for start in range(0, len(data) - _SLOT.size + 1, _SLOT_BYTES):
            count, segment, offset, checksum = _SLOT.unpack_from(data, start)
            if count > newest[0] and zlib.crc32(data[start : start + _SLOT.size - 4]) == checksum:
                newest = count, Position(segment, offset)
        return newest

    def move(self, position: Position) -> None:
        """Set the position, in one write.

        Raises:
            OSError: the disk is full or broken.
        """
        count = self._count + 1
        data = _SLOT.pack(count, *position, 0)[:-4]
        data += zlib.crc32(data).to_bytes(4, "little") + bytes(_SLOT_BYTES - _SLOT.size)
        os.pwrite(self._fd, data, count % 2 * _SLOT_BYTES)
        self._count, self.position = count, position

    def close(self) -> None:
        """Release the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

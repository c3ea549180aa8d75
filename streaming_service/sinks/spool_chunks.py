"""Which unconfirmed chunks of rows a table has in its spool, and where: the index, without the rows."""

from __future__ import annotations

from collections import deque
from threading import Lock
from typing import NamedTuple

from market_data_tick_handler.storage.recovery.segment_files import Position
from streaming_service.sinks.spool_records import Chunk


class Placed(NamedTuple):
    """A chunk and where it is."""

    chunk: Chunk
    position: Position


class WaitingChunks:
    """In order of their rows. For threads: nothing here waits for the disk."""

    def __init__(self) -> None:
        self._placed: deque[Placed] = deque()
        self._lock = Lock()
        self._confirmed = 0
        self.data_bytes = 0

    def add(self, chunk: Chunk, position: Position) -> None:
        """A chunk behind all others."""
        with self._lock:
            self._placed.append(Placed(chunk, position))
            self.data_bytes += chunk.data_bytes

    def confirm(self, end: int) -> None:
        """Rows before `end` are done with: chunks that have no others go."""
        with self._lock:
            self._confirmed = end
            while self._placed and self._placed[0].chunk.end_row <= end:
                self.data_bytes -= self._placed.popleft().chunk.data_bytes

    @property
    def rows(self) -> int:
        """Unconfirmed rows that are there."""
        with self._lock:
            return sum(self._rows_of(placed.chunk) for placed in self._placed)

    @property
    def first_segment(self) -> int | None:
        """The oldest file that has any."""
        with self._lock:
            return self._placed[0].position.segment if self._placed else None

    def batch_end(self, *, max_rows: int, max_bytes: int) -> int:
        """Number behind the last row of the next batch: whole chunks within the limits, at least one."""
        with self._lock:
            rows = data_bytes = 0
            end = self._confirmed
            for chunk, _ in self._placed:
                rows += self._rows_of(chunk)
                data_bytes += chunk.data_bytes
                if end > self._confirmed and (rows > max_rows or data_bytes > max_bytes):
                    break
                end = chunk.end_row
            return end

    def between(self, begin: int, end: int) -> list[Placed]:
        """Chunks with rows of [begin, end)."""
        with self._lock:
            return [placed for placed in self._placed if placed.chunk.first_row < end and placed.chunk.end_row > begin]

    def _rows_of(self, chunk: Chunk) -> int:
        return chunk.end_row - max(chunk.first_row, self._confirmed)

"""Candles between the service and Redis: those that wait, in order, and those sent last, in case Redis loses them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from streaming_service.sinks.redis.series import Entry, Series


class SendBuffer:
    """Bounded by rows and by bytes; a batch that is larger than all of it still goes into an empty one."""

    def __init__(self, *, rows: int, size: int, keep_size: int) -> None:
        self.rows = 0
        self.size = 0
        self.put = 0
        self.settled = 0
        self._limits = rows, size
        self._keep_size = keep_size
        self._kept_size = 0
        self._waiting: deque[Entry] = deque()
        self._kept: deque[Entry] = deque()

    def has_room(self, rows: int, size: int = 0) -> bool:
        """Whether so many candles of together `size` bytes can be added."""
        most_rows, most_size = self._limits
        return not self.rows or (self.rows + rows <= most_rows and self.size + size <= most_size)

    def add(self, entries: Sequence[Entry]) -> None:
        """Add candles behind those that wait."""
        self._waiting.extend(entries)
        self.rows += len(entries)
        self.put += len(entries)
        self.size += sum(len(entry.body) for entry in entries)

    def turn(self, rows: int, size: int, *, one_per_series: bool = False) -> list[Entry]:
        """The next candles to send, `rows` or about `size` bytes at most. They stay here until `settle`."""
        chosen: list[Entry] = []
        taken: set[Series] = set()
        for place, entry in enumerate(self._waiting):
            if len(chosen) >= rows or size <= 0 or place >= 4 * rows:
                break
            if entry.done or (one_per_series and entry.series in taken):
                continue
            taken.add(entry.series)
            chosen.append(entry)
            size -= len(entry.body)
        return chosen

    def settle(self, entries: Sequence[Entry], *, keep: bool = True) -> None:
        """Redis has these, or will never take them (`keep` false)."""
        for entry in entries:
            entry.done = True
            self.rows -= 1
            self.size -= len(entry.body)
            self.settled += 1
            if keep:
                self._kept.append(entry)
                self._kept_size += len(entry.body)
        while self._waiting and self._waiting[0].done:
            self._waiting.popleft()
        while self._kept_size > self._keep_size:
            self._kept_size -= len(self._kept.popleft().body)

    def kept(self) -> dict[Series, list[Entry]]:
        """Those that Redis had, by series, in order."""
        found: dict[Series, list[Entry]] = {}
        for entry in self._kept:
            found.setdefault(entry.series, []).append(entry)
        return found

    def clear(self) -> None:
        """Forget those that wait."""
        for entry in self._waiting:
            entry.done = True
        self._waiting.clear()
        self.settled += self.rows
        self.rows = self.size = 0

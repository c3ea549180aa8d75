"""Which numbers of a stream that counts by one never came, and when.

Theory of operation. The highest number seen divides the future from the past. A number above it by more than one opens
a hole; a number below it closes a hole, wholly or in part, or is a duplicate. Whoever sends over several machines sends
out of order, so a hole is believed only after `patience_us` of the arrival clock. A number far below the highest is
neither: the venue counts anew. All of it works on columns; a batch without surprise costs two comparisons of arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from market_data_tick_handler.core.ticks import Array

PATIENCE_US: Final = 1_000_000
RESTART_BELOW: Final = 1_000_000
MAX_OPEN: Final = 1_024


@dataclass(frozen=True, slots=True)
class Hole:
    """Numbers first..last never came. from_us, to_us: arrival of the neighbours on either side, int64 us.
    across_outage: it opened over an interruption that is known for other reasons."""

    first: int
    last: int
    from_us: int
    to_us: int
    across_outage: bool = False

    def __len__(self) -> int:
        return self.last - self.first + 1


class SequenceWatch:
    """Numbers of one stream.

    patience_us: how long a missing number may be late. restart_below: a number lower than the highest by more than
    this starts a new count. max_open: holes waited for at a time; beyond it the oldest is reported early.
    """

    __slots__ = (
        "_high_us", "_interrupted", "_max_open", "_open", "_patience_us", "_restart_below", "duplicates", "high",
        "missing", "restarts",
    )  # fmt: skip

    def __init__(
        self, *, patience_us: int = PATIENCE_US, restart_below: int = RESTART_BELOW, max_open: int = MAX_OPEN
    ) -> None:
        self._patience_us = patience_us
        self._restart_below = restart_below
        self._max_open = max_open
        self._high_us = 0
        self._interrupted = False
        self._open: list[Hole] = []
        self.high: int | None = None
        self.duplicates = 0
        self.missing = 0
        self.restarts = 0

    @property
    def waits(self) -> bool:
        """Whether a missing number may still come."""
        return bool(self._open)

    def interrupted(self) -> None:
        """The stream is known to have been cut: the next hole is `across_outage`."""
        self._interrupted = self.high is not None

    def observe(self, numbers: Array, local_us: Array) -> list[Hole]:
        """Note numbers (int64) and their arrival times (int64 us, not decreasing); return holes given up early.

        What was waited for when a new count starts is among them.
        """
        given_up: list[Hole] = []
        while len(numbers):
            if self.high is None:
                self.high, self._high_us = int(numbers[0]), int(local_us[0])
                numbers, local_us = numbers[1:], local_us[1:]
                continue
            if _goes_on(numbers, self.high):
                self.high, self._high_us = int(numbers[-1]), int(local_us[-1])
                self._interrupted = False
                break
            stop = self._restart(numbers, self.high)
            self._sort_in(numbers[:stop], local_us[:stop], self.high)
            if stop < len(numbers):
                given_up += self._open
                self._open = []
                self.high, self._interrupted = None, False
                self.restarts += 1
            numbers, local_us = numbers[stop:], local_us[stop:]
        excess = len(self._open) - self._max_open
        if excess > 0:
            given_up += self._open[:excess]
            self._open = self._open[excess:]
        return self._count(given_up)

    def expire(self, now_us: int) -> list[Hole]:
        """Holes whose patience is over at `now_us`."""
        if not self._open:
            return []
        limit_us = now_us - self._patience_us
        due = [hole for hole in self._open if hole.to_us <= limit_us]
        if due:
            self._open = [hole for hole in self._open if hole.to_us > limit_us]
        return self._count(due)

    def _count(self, holes: list[Hole]) -> list[Hole]:
        self.missing += sum(map(len, holes))
        return holes

    def _restart(self, numbers: Array, high: int) -> int:
        """Index of the first number that starts a new count; the length where there is none."""
        highest = np.maximum.accumulate(np.concatenate(([high], numbers)))[:-1]
        below = np.flatnonzero(numbers < highest - self._restart_below)
        return int(below[0]) if len(below) else len(numbers)

    def _sort_in(self, numbers: Array, local_us: Array, high: int) -> None:
        ordered, first_at = np.unique(numbers, return_index=True)
        self.duplicates += len(numbers) - len(ordered)
        arrival_us = local_us[first_at]
        split = int(np.searchsorted(ordered, high, "right"))
        self._fill(ordered[:split])
        self._extend(ordered[split:], arrival_us[split:], high)

    def _fill(self, late: Array) -> None:
        filled = 0
        left: list[Hole] = []
        for hole in self._open:
            inside = late[np.searchsorted(late, hole.first) : np.searchsorted(late, hole.last, "right")]
            filled += len(inside)
            left += _without(hole, inside) if len(inside) else (hole,)
        if filled:
            self._open = left
        self.duplicates += len(late) - filled

    def _extend(self, new: Array, arrival_us: Array, high: int) -> None:
        if not len(new):
            return
        below = np.concatenate(([high], new[:-1]))
        below_us = np.concatenate(([self._high_us], arrival_us[:-1]))
        for at in np.flatnonzero(new - below > 1).tolist():
            # Sorted by number, arrivals may run backwards.
            from_us, to_us = sorted((int(below_us[at]), int(arrival_us[at])))
            outage = self._interrupted and at == 0
            self._open.append(Hole(int(below[at]) + 1, int(new[at]) - 1, from_us, to_us, outage))
        self._interrupted = False
        self.high, self._high_us = int(new[-1]), int(arrival_us[-1])


def _goes_on(numbers: Array, high: int) -> bool:
    return bool(numbers[0] == high + 1) and bool((np.diff(numbers) == 1).all())


def _without(hole: Hole, numbers: Array) -> list[Hole]:
    """What is left of a hole after `numbers` (sorted, all inside) came."""
    stops = [*numbers.tolist(), hole.last + 1]
    starts = [hole.first, *(number + 1 for number in numbers.tolist())]
    return [
        Hole(start, stop - 1, hole.from_us, hole.to_us, hole.across_outage)
        for start, stop in zip(starts, stops, strict=True)
        if start < stop
    ]

"""What was published last of every candle of the repair window: its digest and its revision.

One ring per timeframe; the slot of a candle is its number modulo the length, so that a newer candle takes the place of
one that has left the window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from market_data_tick_handler.core.ticks import Array
from market_data_tick_handler.core.timeframes import Timeframe

_UNKNOWN_US: Final = -(2**63)


class Verdict(NamedTuple):
    """Rows that are new, by index, and the revision of each. `outside` counts rows older than the window."""

    kept: list[int]
    revisions: list[int]
    outside: int


class Identities:
    """The ring of one timeframe. next_sequence: of the row that is published next."""

    __slots__ = ("_digests", "_revisions", "_slots", "_step", "_times", "next_sequence")

    def __init__(self, timeframe: Timeframe, window_us: int) -> None:
        self._step = timeframe.us
        # A candle leaves the window with its end, and one is open at either side of it.
        self._slots = -(-window_us // timeframe.us) + 2
        self._times = np.full(self._slots, _UNKNOWN_US, np.int64)
        self._revisions = np.zeros(self._slots, np.int64)
        self._digests = np.zeros((self._slots, 2), np.uint64)
        self.next_sequence = 1

    def judge(self, timestamps: Array, revisions: Array, digests: Array) -> Verdict:
        """Which rows are new. A row like the last one of its candle is not; another gets the next revision; a candle
        that is not known keeps the revision it has."""
        found: dict[int, tuple[int, Sequence[int]]] = {}
        kept, numbers, outside = [], [], 0
        given = zip(timestamps.tolist(), revisions.tolist(), digests.tolist(), strict=True)
        for index, (time, revision, digest) in enumerate(given):
            known = found.get(time) or self._find(time)
            if known is not None:
                if known[1] == digest:
                    continue
                revision = known[0] + 1
            elif self._times[self._slot(time)] > time:
                outside += 1
            found[time] = revision, digest
            kept.append(index)
            numbers.append(revision)
        return Verdict(kept, numbers, outside)

    def _slot(self, time: int) -> int:
        return time // self._step % self._slots

    def _find(self, time: int) -> tuple[int, Sequence[int]] | None:
        slot = self._slot(time)
        if self._times[slot] != time:
            return None
        return int(self._revisions[slot]), self._digests[slot].tolist()

    def remember(self, timestamps: Array, revisions: Array, digests: Array, first_sequence: int) -> None:
        """These rows were published, in this order."""
        for index, time in enumerate(timestamps.tolist()):
            slot = self._slot(time)
            if time >= self._times[slot]:
                self._times[slot] = time
                self._revisions[slot] = revisions[index]
                self._digests[slot] = digests[index]
        self.next_sequence = first_sequence + len(timestamps)

    def tree(self) -> dict[str, Any]:
        """For the index: what is known, oldest first."""
        known = np.flatnonzero(self._times != _UNKNOWN_US)
        known = known[np.argsort(self._times[known])]
        return {
            "times": self._times[known],
            "revisions": self._revisions[known],
            "digests": self._digests[known],
            "next_sequence": self.next_sequence,
        }

    def load(self, tree: dict[str, Any]) -> None:
        """Put back what `tree` gave, of a ring of the same timeframe and any length."""
        self.remember(tree["times"], tree["revisions"], tree["digests"], 0)
        self.next_sequence = tree["next_sequence"]

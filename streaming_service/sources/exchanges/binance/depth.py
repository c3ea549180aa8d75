"""Binance order books: differences over the socket, joined to a snapshot over REST by their update ids.

Theory of operation. A book waits for a snapshot and keeps the differences that come meanwhile. The snapshot, with the
kept differences that it does not hold yet folded in, is one change; each later difference is one more. The first
difference after a snapshot must join it, and each must follow the one before, or something was lost: then the book is
void and waits again, with the difference that did not fit kept for the next snapshot. Differences that the snapshot
holds already, and a difference that is sent twice, are dropped. A snapshot that nobody waits for is dropped too.

A book that a difference leaves crossed is uncrossed as the vendor does it and kept: ids prove that nothing is missing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from market_data_tick_handler.core.order_book import BookChanges, OrderBook
from market_data_tick_handler.core.ticks import Array, TickBatch
from streaming_service.sources.exchanges.binance.joining import Joining
from streaming_service.sources.exchanges.binance.times import to_us
from streaming_service.sources.exchanges.binance.updates import Difference, Level, Levels, Snapshot

# What the vendor's normaliser keeps; at ten a second three minutes of a market.
MAX_WAITING: Final = 2_000
# What the venue calls the last update of a book in which there has been no order yet.
_EMPTY_BOOK: Final = -1


@dataclass(slots=True)
class Taken:
    """What a batch did to one book. dropped: differences and snapshots that it did not need. broken: why it is void."""

    rows: list[TickBatch] = field(default_factory=list)
    changes: list[BookChanges] = field(default_factory=list)
    dropped: int = 0
    broken: str = ""


# Stamp, arrival, is it a snapshot, bids, asks.
_Piece = tuple[int, int, bool, Sequence[Level], Sequence[Level]]


class BookFeed:
    """The book of one instrument and where it stands in the venue's updates. `holding`: a snapshot came."""

    __slots__ = ("_book", "_joined", "_joining", "_last", "_waiting", "holding")

    def __init__(self, joining: Joining) -> None:
        self._joining = joining
        self._book = OrderBook()
        self._waiting: deque[Difference] = deque(maxlen=MAX_WAITING)
        self._last = 0
        self._joined = False
        self.holding = False

    def take(
        self,
        differences: Sequence[Difference],
        levels: Levels,
        local_us: Array,
        snapshots: Sequence[tuple[int, int, Snapshot]] = (),
    ) -> Taken:
        """Differences (their levels packed, and arrivals) and snapshots: (how many differences came before it, its
        arrival, the snapshot)."""
        taken = Taken()
        if not differences and not snapshots:
            return taken
        if self._joined and not snapshots and self._joining.follow(self._last, differences):
            self._last = differences[-1].u
            stamps = to_us(np.array([difference.E for difference in differences], np.int64))
            self._apply(levels.changes(stamps, local_us, np.zeros(len(stamps), np.bool_)), taken)
            return taken
        pieces: list[_Piece] = []
        arrivals = local_us.tolist()
        start = 0
        for stop, arrived, snapshot in (*snapshots, (len(differences), 0, None)):
            for difference, at_us in zip(differences[start:stop], arrivals[start:stop], strict=True):
                self._step(difference, at_us, pieces, taken)
            start = stop
            if snapshot is not None:
                self._begin(snapshot, arrived, pieces, taken)
        self._flush(pieces, taken)
        return taken

    def _step(self, difference: Difference, at_us: int, pieces: list[_Piece], taken: Taken) -> None:
        if not self.holding:
            self._wait(difference, taken)
            return
        if difference.u == self._last if self._joined else self._joining.holds(self._last, difference):
            taken.dropped += 1
            return
        if not self._fits(difference):
            self._break(difference, pieces, taken)
            return
        self._joined = True
        self._last = difference.u
        pieces.append((difference.E, at_us, False, difference.b, difference.a))

    def _begin(self, snapshot: Snapshot, at_us: int, pieces: list[_Piece], taken: Taken) -> None:
        """Start from `snapshot`, with the differences that waited for it folded in."""
        if self.holding:
            taken.dropped += 1
            return
        self.holding, self._joined, self._last = True, False, snapshot.lastUpdateId
        bids, asks = dict(snapshot.bids), dict(snapshot.asks)
        waiting, self._waiting = self._waiting, deque(maxlen=MAX_WAITING)
        while waiting:
            difference = waiting.popleft()
            if difference.u == self._last if self._joined else self._joining.holds(self._last, difference):
                taken.dropped += 1
                continue
            if not self._fits(difference):
                # The snapshot is older than what was kept, or what was kept has a hole.
                self._break(difference, pieces, taken)
                self._waiting.extend(waiting)
                return
            self._joined, self._last = True, difference.u
            bids.update(difference.b)
            asks.update(difference.a)
        pieces.append((snapshot.T, at_us, True, _existing(bids), _existing(asks)))

    def _fits(self, difference: Difference) -> bool:
        if self._joined:
            return self._joining.follows(self._last, difference)
        return self._last == _EMPTY_BOOK or self._joining.joins(self._last, difference)

    def _break(self, difference: Difference, pieces: list[_Piece], taken: Taken) -> None:
        what = "the update before was" if self._joined else "the snapshot ends with"
        taken.broken = f"updates {difference.U} to {difference.u} do not follow: {what} {self._last}"
        self._flush(pieces, taken)
        self._book.clear()
        self.holding = False
        self._joined = False
        self._wait(difference, taken)

    def _wait(self, difference: Difference, taken: Taken) -> None:
        taken.dropped += len(self._waiting) == MAX_WAITING
        self._waiting.append(difference)

    def _flush(self, pieces: list[_Piece], taken: Taken) -> None:
        if not pieces:
            return
        local_us = np.array([piece[1] for piece in pieces], np.int64)
        stamps = to_us(np.array([piece[0] for piece in pieces], np.int64))
        levels = Levels.of([side for piece in pieces for side in piece[3:]])
        # Spot snapshots carry no time.
        changes = levels.changes(
            np.where(stamps > 0, stamps, local_us), local_us, np.array([piece[2] for piece in pieces], np.bool_)
        )
        pieces.clear()
        self._apply(changes, taken)

    def _apply(self, changes: BookChanges, taken: Taken) -> None:
        taken.changes.append(changes)
        rows = self._book.apply(changes)
        if len(rows):
            taken.rows.append(rows)


def _existing(side: dict[float, float]) -> list[Level]:
    return [level for level in side.items() if level[1] > 0.0]

"""An order book from snapshots and level changes, and its best five levels as rows whenever they change.

Theory of operation. Each side is a pair of arrays, prices and amounts, best level last; a change is a binary search
and a shift of the better levels, and as most changes are near the touch that is cheaper than any tree. A snapshot
clears both sides. Changes before the first snapshot are void. Where a change leaves the book crossed, the venue has
not said that a level is gone: the levels of the side that the change did not bring are removed until it is not (the
vendor's `removeCrossedLevels`). A row is written after each message that changed one of the five best levels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numba import njit

from market_data_tick_handler.core.ticks import BOOK_LEVELS, Array, DataType, TickBatch

BID: Final = 1
ASK: Final = -1
_FIRST_CAPACITY: Final = 256
_WIDTH: Final = 4 * BOOK_LEVELS
# Column order of a row: per level ask price, ask volume, bid price, bid volume.
_NAMES: Final = tuple(
    f"{side}_{what}_{level}"
    for level in range(1, BOOK_LEVELS + 1)
    for side in ("ask", "bid")
    for what in ("price", "volume")
)


@dataclass(frozen=True, slots=True)
class BookChanges:
    """Normalised changes of one book, n messages with m levels together.

    timestamp, local_timestamp: int64 us, shape (n,). is_snapshot: bool, (n,). stops: int64, (n,): message k has the
    levels [stops[k-1], stops[k]). side: int8, (m,), BID or ASK. price, amount: float64, (m,); amount 0 removes a level.
    """

    timestamp: Array
    local_timestamp: Array
    is_snapshot: Array
    stops: Array
    side: Array
    price: Array
    amount: Array

    def __len__(self) -> int:
        return len(self.stops)


@njit(cache=True, nogil=True)
def _place(prices: Array, n: int, price: float, sign: int) -> int:
    """First index whose level is not worse than `price`; sign: 1 asks (best is lowest), -1 bids."""
    low = 0
    high = n
    while low < high:
        middle = (low + high) >> 1
        if sign * prices[middle] > sign * price:
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True, nogil=True)
def _set_level(prices: Array, amounts: Array, n: int, price: float, amount: float, sign: int) -> int:
    """Put or (amount 0) remove one level; return the new number of levels."""
    at = _place(prices, n, price, sign)
    there = at < n and prices[at] == price
    if amount == 0.0:
        if not there:
            return n
        for k in range(at, n - 1):
            prices[k] = prices[k + 1]
            amounts[k] = amounts[k + 1]
        return n - 1
    if not there:
        for k in range(n, at, -1):
            prices[k] = prices[k - 1]
            amounts[k] = amounts[k - 1]
        n += 1
        prices[at] = price
    amounts[at] = amount
    return n


@njit(cache=True, nogil=True)
def _uncross(
    ask_p: Array, asks: int, bid_p: Array, bids: int, side: Array, price: Array, start: int, stop: int
) -> tuple[int, int]:
    """Numbers of levels after removing those of the side that this message did not bring."""
    asks_are_new = False
    for j in range(start, stop):
        if side[j] == ASK and price[j] == ask_p[asks - 1]:
            asks_are_new = True
            break
    if asks_are_new:
        while bids > 0 and bid_p[bids - 1] >= ask_p[asks - 1]:
            bids -= 1
    else:
        while asks > 0 and bid_p[bids - 1] >= ask_p[asks - 1]:
            asks -= 1
    return asks, bids


@njit(cache=True, nogil=True)
def _read_top(ask_p: Array, ask_q: Array, asks: int, bid_p: Array, bid_q: Array, bids: int, row: Array) -> None:
    for k in range(BOOK_LEVELS):
        row[4 * k] = ask_p[asks - 1 - k] if k < asks else np.nan
        row[4 * k + 1] = ask_q[asks - 1 - k] if k < asks else np.nan
        row[4 * k + 2] = bid_p[bids - 1 - k] if k < bids else np.nan
        row[4 * k + 3] = bid_q[bids - 1 - k] if k < bids else np.nan


@njit(cache=True, nogil=True)
def _differs(a: Array, b: Array) -> bool:
    different = False
    for k in range(a.shape[0]):
        different |= a[k] != b[k] and not (np.isnan(a[k]) and np.isnan(b[k]))
    return different


@njit(cache=True, nogil=True)
def _apply(
    ask_p: Array, ask_q: Array, bid_p: Array, bid_q: Array, sizes: Array, top: Array, ready: bool,
    is_snapshot: Array, stops: Array, side: Array, price: Array, amount: Array, rows: Array, taken: Array,
) -> tuple[int, int]:  # fmt: skip
    """Apply every message; return (rows written, messages that left the book crossed). `taken[i]`: message of row i."""
    asks = sizes[0]
    bids = sizes[1]
    written = 0
    crossed = 0
    start = 0
    for m in range(stops.shape[0]):
        stop = stops[m]
        if is_snapshot[m]:
            asks = 0
            bids = 0
            ready = True
        if ready:
            for j in range(start, stop):
                if side[j] == ASK:
                    asks = _set_level(ask_p, ask_q, asks, price[j], amount[j], 1)
                else:
                    bids = _set_level(bid_p, bid_q, bids, price[j], amount[j], -1)
            if asks > 0 and bids > 0 and bid_p[bids - 1] >= ask_p[asks - 1]:
                crossed += 1
                asks, bids = _uncross(ask_p, asks, bid_p, bids, side, price, start, stop)
            row = rows[written]
            _read_top(ask_p, ask_q, asks, bid_p, bid_q, bids, row)
            if _differs(row, top):
                top[:] = row
                taken[written] = m
                written += 1
        start = stop
    sizes[0] = asks
    sizes[1] = bids
    return written, crossed


class OrderBook:
    """The book of one instrument. `ready` once a snapshot came; `crossed` counts messages that left it crossed."""

    __slots__ = ("_ask_p", "_ask_q", "_bid_p", "_bid_q", "_sizes", "_top", "crossed", "ready")

    def __init__(self) -> None:
        self.crossed = 0
        self._ask_p, self._ask_q, self._bid_p, self._bid_q = (np.zeros(_FIRST_CAPACITY) for _ in range(4))
        self.clear()

    def clear(self) -> None:
        """Forget everything; the next snapshot gives a row in any case."""
        self.ready = False
        self._sizes = np.zeros(2, np.int64)
        self._top = np.full(_WIDTH, np.nan)

    @property
    def depth(self) -> tuple[int, int]:
        """Number of ask and of bid levels."""
        return int(self._sizes[0]), int(self._sizes[1])

    def apply(self, changes: BookChanges) -> TickBatch:
        """Rows of `book_snapshot_5`, one for each message that changed the best five levels of a side."""
        self._reserve(len(changes.price))
        rows = np.empty((len(changes) + 1, _WIDTH))
        taken = np.empty(len(changes), np.int64)
        written, crossed = _apply(
            self._ask_p, self._ask_q, self._bid_p, self._bid_q, self._sizes, self._top, self.ready,
            changes.is_snapshot, changes.stops, changes.side, changes.price, changes.amount, rows, taken,
        )  # fmt: skip
        self.ready = self.ready or bool(changes.is_snapshot.any())
        self.crossed += crossed
        taken = taken[:written]
        columns = np.ascontiguousarray(rows[:written].T)
        return TickBatch(
            DataType.BOOK,
            {
                "timestamp": changes.timestamp[taken],
                "local_timestamp": changes.local_timestamp[taken],
                **dict(zip(_NAMES, columns, strict=True)),
            },
        )

    def _reserve(self, levels: int) -> None:
        needed = int(self._sizes.max()) + levels
        if needed <= len(self._ask_p):
            return
        size = max(needed, 2 * len(self._ask_p))
        self._ask_p, self._ask_q, self._bid_p, self._bid_q = (
            np.concatenate([side, np.zeros(size - len(side))])
            for side in (self._ask_p, self._ask_q, self._bid_p, self._bid_q)
        )

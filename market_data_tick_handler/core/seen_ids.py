"""Which ids were seen: exact for integers that increase, by 64-bit hash for the rest.

Theory of operation. Increasing integer ids live in an interval set, where a dense stream costs one comparison per row.
Every other id is a 64-bit hash in an open-addressing table, one table per UTC day of arrival, two days kept. Integers
that come in no order at all would make the interval set quadratic: past `MAX_SCATTERED` insertions away from its end it
is frozen, and further integers go to the hash tables.

The counters of the content (`ID_STATE`) live in the state record of the stream, where the kernel that judges rows
updates them; the arrays grow between batches, never inside one.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit

from market_data_tick_handler.core.ticks import ID_HASH, Array

NEVER_US: Final = np.iinfo(np.int64).max
MAX_SCATTERED: Final = 1 << 16
ID_STATE: Final = ("intervals", "scattered", "day_min_id", "hashes", "log")


@njit(cache=True, nogil=True)
def _find_interval(lows: Array, n: int, value: int) -> int:
    """Index of the last interval that begins at or before `value`, -1 if none."""
    low = 0
    high = n
    while low < high:
        middle = (low + high) >> 1
        if lows[middle] <= value:
            low = middle + 1
        else:
            high = middle
    return low - 1


@njit(cache=True, nogil=True)
def _insert_interval(lows: Array, highs: Array, n: int, at: int, value: int) -> int:
    """Insert `value`, absent so far, after interval `at`; return the new number of intervals."""
    joins_left = at >= 0 and highs[at] + 1 == value
    joins_right = at + 1 < n and lows[at + 1] - 1 == value
    if joins_left and joins_right:
        highs[at] = highs[at + 1]
        for k in range(at + 1, n - 1):
            lows[k] = lows[k + 1]
            highs[k] = highs[k + 1]
        return n - 1
    if joins_left:
        highs[at] = value
        return n
    if joins_right:
        lows[at + 1] = value
        return n
    for k in range(n, at + 1, -1):
        lows[k] = lows[k - 1]
        highs[k] = highs[k - 1]
    lows[at + 1] = value
    highs[at + 1] = value
    return n + 1


@njit(cache=True, nogil=True)
def _mix(value: int) -> np.uint64:
    """Spread an id over the table (splitmix64 finaliser); 0 marks a free slot and is never returned."""
    x = np.uint64(value)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x = x ^ (x >> np.uint64(31))
    return x if x != np.uint64(0) else np.uint64(1)


@njit(cache=True, nogil=True)
def _probe(table: Array, key: np.uint64) -> Any:
    """Slot that holds `key`, or the free slot where it belongs as -1 - slot."""
    mask = np.uint64(table.shape[0] - 1)
    slot = key & mask
    while True:
        held = table[slot]
        if held == key:
            return np.int64(slot)
        if held == np.uint64(0):
            return -1 - np.int64(slot)
        slot = (slot + np.uint64(1)) & mask


@njit(cache=True, nogil=True)
def _fill(table: Array, keys: Array) -> None:
    for j in range(keys.shape[0]):
        slot = _probe(table, keys[j])
        if slot < 0:
            table[-1 - slot] = keys[j]


@njit(cache=True, nogil=True)
def seen_hash(st: Any, table: Array, previous: Array, log: Array, value: int) -> bool:
    key = _mix(value)
    slot = _probe(table, key)
    if slot >= 0 or _probe(previous, key) >= 0:
        return True
    table[-1 - slot] = key
    log[st.log] = key
    st.log += 1
    st.hashes += 1
    return False


@njit(cache=True, nogil=True)
def seen_integer(st: Any, lows: Array, highs: Array, table: Array, previous: Array, log: Array, value: int) -> bool:
    """True if the integer was seen before; the caller has handled an id right after the newest one."""
    n = st.intervals
    at = _find_interval(lows, n, value)
    if at >= 0 and value <= highs[at]:
        return True
    if st.scattered >= MAX_SCATTERED:
        return seen_hash(st, table, previous, log, value)
    if at + 1 < n:
        st.scattered += 1
    st.intervals = _insert_interval(lows, highs, n, at, value)
    if value < st.day_min_id:
        st.day_min_id = value
    return False


class SeenIds:
    """The ids of the current and the previous UTC day of arrival: 16 bytes per run of integers, 40 per other id."""

    __slots__ = ("day", "highs", "log", "lows", "previous", "table")

    def __init__(self) -> None:
        self.day = -1
        self.lows = np.zeros(64, np.int64)
        self.highs = np.zeros(64, np.int64)
        self.table = np.zeros(64, np.uint64)
        self.previous = np.zeros(64, np.uint64)
        self.log = np.zeros(64, np.uint64)

    def reserve(self, state: Array, kinds: Array) -> None:
        """Make room for a batch, so that the kernel never has to grow anything."""
        rows = len(kinds)
        intervals = int(state["intervals"][0])
        if intervals + rows > len(self.lows):
            # A dense stream needs one interval however long it is; growing by the batch is enough.
            size = max(2 * len(self.lows), intervals + rows)
            self.lows, self.highs = _grown(self.lows, size), _grown(self.highs, size)
        # The limit may be crossed inside the batch, and what follows in it already goes to the table.
        if kinds.any() and (kinds.max() == ID_HASH or state["scattered"][0] + rows >= MAX_SCATTERED):
            self._reserve_hashes(state, rows)

    def _reserve_hashes(self, state: Array, rows: int) -> None:
        logged = int(state["log"][0])
        if logged + rows > len(self.log):
            self.log = _grown(self.log, max(2 * len(self.log), logged + rows))
        if 2 * (int(state["hashes"][0]) + rows) > len(self.table):
            size = len(self.table)
            while size < 4 * (int(state["hashes"][0]) + rows):
                size *= 2
            self.table = np.zeros(size, np.uint64)
            _fill(self.table, self.log[:logged])

    def rotate(self, state: Array, day: int) -> None:
        """Enter UTC day `day` of arrival: forget what is older than the day before it."""
        self.previous = self.table if day - self.day == 1 else np.zeros(64, np.uint64)
        self.table = np.zeros(len(self.table), np.uint64)
        count = int(state["intervals"][0])
        keep = int(np.searchsorted(self.highs[:count], state["day_min_id"][0], "left"))
        self.lows[: count - keep] = self.lows[keep:count].copy()
        self.highs[: count - keep] = self.highs[keep:count].copy()
        state["intervals"] = count - keep
        state["hashes"] = state["log"] = 0
        if state["scattered"][0] < MAX_SCATTERED:
            state["scattered"] = 0  # else integers were told apart by hash, and yesterday's still are
        state["day_min_id"] = NEVER_US
        self.day = day

    def export(self, state: Array) -> dict[str, Any]:
        """Content as arrays, for a checkpoint next to (never inside) the pipeline snapshot."""
        count, logged = int(state["intervals"][0]), int(state["log"][0])
        return {
            "day": self.day,
            "lows": self.lows[:count].copy(),
            "highs": self.highs[:count].copy(),
            "log": self.log[:logged].copy(),
            "previous": self.previous[self.previous != 0],
            "counts": state[list(ID_STATE)].copy(),
        }

    def load(self, state: Array, content: dict[str, Any]) -> None:
        """Put back what `export` gave."""
        self.day = int(content["day"])
        self.lows, self.highs = (
            _grown(content["lows"], len(content["lows"]) + 64),
            _grown(content["highs"], len(content["highs"]) + 64),
        )
        self.log = _grown(content["log"], len(content["log"]) + 64)
        self.table = _table_of(content["log"])
        self.previous = _table_of(content["previous"])
        for name in ID_STATE:
            state[name] = content["counts"][name]


def _grown(array: Array, size: int) -> Array:
    out = np.zeros(size, array.dtype)
    out[: len(array)] = array
    return out


def _table_of(keys: Array) -> Array:
    size = 64
    while size < 4 * len(keys):
        size *= 2
    table = np.zeros(size, np.uint64)
    _fill(table, keys)
    return table

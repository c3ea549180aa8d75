"""Which ids were seen: exact for integers that increase, by 64-bit hash for the rest.

Theory of operation. Increasing integer ids live in an interval set, where a dense stream costs one comparison per row.
Every other id is a 64-bit hash in an open-addressing table, one table per UTC day of arrival, two days kept. Integers
that come in no order at all would make the interval set quadratic: past `MAX_SCATTERED` insertions away from its end it
is frozen, and further integers go to the hash tables.

Every hash is also written to a log, one per day, so that a checkpoint stores a mark (the intervals and how long the log
is) and what the log has gained since the last one, however many ids the day has.

The counters of the content (`ID_STATE`) live in the state record of the stream, where the kernel that judges rows
updates them; the arrays grow between batches, never inside one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit
from numpy.lib.recfunctions import repack_fields

from market_data_tick_handler.core.ticks import ID_HASH, Array
from market_data_tick_handler.errors import CorruptObject

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


class LoggedIds(NamedTuple):
    """Keys (uint64) of ids in the order in which they were first seen on a UTC day of arrival (days since 1970), from
    number `start` of that day on. Never written to again."""

    day: int
    start: int
    keys: Array


class SeenIds:
    """The ids of the current and the previous UTC day of arrival: 16 bytes per run of integers, 40 per other id.

    previous_log: the first `previous_count` of it are the keys of the day before, in their order.
    """

    __slots__ = ("day", "highs", "log", "lows", "previous", "previous_count", "previous_log", "table")

    def __init__(self) -> None:
        self.day = -1
        self.lows = np.zeros(64, np.int64)
        self.highs = np.zeros(64, np.int64)
        self.table = np.zeros(64, np.uint64)
        self.previous = np.zeros(64, np.uint64)
        self.log = np.zeros(64, np.uint64)
        self.previous_log = np.zeros(0, np.uint64)
        self.previous_count = 0

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
        if day - self.day == 1:
            self.previous, self.previous_log, self.previous_count = self.table, self.log, int(state["log"][0])
        else:
            self.previous, self.previous_log, self.previous_count = np.zeros(64, np.uint64), np.zeros(0, np.uint64), 0
        # A new array: whoever holds a part of the old log may go on reading it.
        self.log = np.zeros(len(self.log), np.uint64)
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

    def mark(self, state: Array) -> dict[str, Any]:
        """What a checkpoint stores of the ids next to their logs: small unless integers came in no order."""
        count = int(state["intervals"][0])
        return {
            "day": self.day,
            "lows": self.lows[:count].copy(),
            "highs": self.highs[:count].copy(),
            "previous_count": self.previous_count,
            "counts": repack_fields(state[list(ID_STATE)]),
        }

    def log_since(self, state: Array, day: int, count: int) -> list[LoggedIds]:
        """What the logs gained after the first `count` keys of `day`, oldest first; everything held if that is unknown
        here. Views: they stay as they are while more ids come."""
        logged = int(state["log"][0])
        if day == self.day and count <= logged:
            return [LoggedIds(day, count, self.log[count:logged])]
        start = count if day == self.day - 1 and count <= self.previous_count else 0
        today = LoggedIds(self.day, 0, self.log[:logged])
        if not self.previous_count:
            return [today]
        return [LoggedIds(self.day - 1, start, self.previous_log[start : self.previous_count]), today]

    def restore(self, state: Array, mark: Mapping[str, Any], keys: Array, previous: Array) -> None:
        """Put back the state of `mark`. keys, previous: the logs of its day and of the day before, of which only what
        was there when the mark was made is taken.

        Raises:
            CorruptObject: a log is shorter than the mark says.
        """
        logged = int(mark["counts"]["log"][0])
        before = int(mark.get("previous_count", len(previous)))
        if len(keys) < logged or len(previous) < before:
            raise CorruptObject(
                f"ids: expected logs of {logged} keys and {before} of the day before, got {len(keys)} and "
                f"{len(previous)}; start from an older state"
            )
        self.day = int(mark["day"])
        self.lows = _grown(mark["lows"], len(mark["lows"]) + 64)
        self.highs = _grown(mark["highs"], len(mark["highs"]) + 64)
        self.log = _grown(keys[:logged], logged + 64)
        self.table = _table_of(keys[:logged])
        self.previous_log, self.previous_count = previous[:before].copy(), before
        self.previous = _table_of(previous[:before])
        for name in ID_STATE:
            state[name] = mark["counts"][name]

    def export(self, state: Array) -> dict[str, Any]:
        """Content as arrays, for a checkpoint next to (never inside) the pipeline snapshot."""
        logs = {
            "log": self.log[: int(state["log"][0])].copy(),
            "previous": self.previous_log[: self.previous_count].copy(),
        }
        return {**self.mark(state), **logs}

    def load(self, state: Array, content: Mapping[str, Any]) -> None:
        """Put back what `export` gave."""
        self.restore(state, content, content["log"], content["previous"])


def log_end(mark: Mapping[str, Any]) -> tuple[int, int]:
    """(day, number of keys) at which `log_since` goes on from a mark."""
    return int(mark["day"]), int(mark["counts"]["log"][0])


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

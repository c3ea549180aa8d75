"""Decides of every arriving row what it is: accepted, duplicate, invalid, refused or of another day (features.md 2.3).

Theory of operation. `Continuity` holds the arrival clock and the identifiers seen. `judge` walks a batch once, in
arrival order, and writes one code per row; folds read the codes and never judge again, so that there is one rule for
acceptance. A row that breaks the order of arrival is moved to the arrival clock before it is judged.

Increasing integer ids live in an interval set, where a dense stream costs one comparison per row. Every other id is a
64-bit hash in an open-addressing table, one table per UTC day of arrival, two days kept. Integers that come in no
order at all would make the interval set quadratic: past `MAX_SCATTERED` insertions away from its end it is frozen, and
further integers go to the hash tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numba import njit

from market_data_tick_handler.core.ticks import ID_HASH, ID_INTEGER, Array, TickBatch
from market_data_tick_handler.core.timeframes import DAY_US

# Codes up to FOREIGN advance sequence state; only ACCEPTED enters a candle's sums.
ACCEPTED: Final = 0
REFUSED: Final = 1  # later than the revision window
FOREIGN: Final = 2  # belongs to a day this run does not produce
DUPLICATE: Final = 3  # counted in the candle of arrival
INVALID: Final = 4  # counted in the candle of its timestamp
INVALID_TIME: Final = 5  # its timestamp is unusable: counted in the candle of arrival
INVALID_OLD: Final = 6  # its candle is not open to changes any more

EARLIEST_US: Final = 1_262_304_000_000_000  # 2010-01-01: no venue of ours is older
LATEST_US: Final = 4_102_444_800_000_000  # 2100-01-01: catches nanoseconds and garbage
# Beyond these no product or square of prices and amounts would stay finite, and no market has been: garbage, like 0.
SMALLEST: Final = 1e-30
LARGEST: Final = 1e30
NEVER_US: Final = np.iinfo(np.int64).max
MAX_SCATTERED: Final = 1 << 16

STATE: Final = np.dtype(
    [
        ("prev_price", "f8"),
        ("direction", "i8"),
        ("intervals", "i8"),
        ("scattered", "i8"),
        ("day_min_id", "i8"),
        ("hashes", "i8"),
        ("log", "i8"),
    ]
)
_ID_STATE: Final = ("intervals", "scattered", "day_min_id", "hashes", "log")
COUNTS: Final = np.dtype(
    [("accepted", "i8"), ("duplicate", "i8"), ("invalid", "i8"), ("refused", "i8"), ("filtered", "i8"), ("late", "i8")]
)


@dataclass(slots=True)
class StreamCounters:
    """The accounting of one stream: received = accepted + duplicate + invalid + refused + filtered, always.

    `late` counts accepted rows that came after their 15 s candle was due, `clamped` rows moved to the arrival clock,
    `gaps` intervals without proof of life; those three are views on the rows above, not further outcomes.
    """

    received: int = 0
    accepted: int = 0
    duplicate: int = 0
    invalid: int = 0
    refused: int = 0
    filtered: int = 0
    late: int = 0
    clamped: int = 0
    gaps: int = 0

    def balanced(self) -> bool:
        """True while the accounting identity holds."""
        return self.received == self.accepted + self.duplicate + self.invalid + self.refused + self.filtered


@njit(cache=True, nogil=True)
def _clamp(ts: Array, lt: Array, clock: int, out: Array) -> int:
    """Write the order of arrival into `out`; return how many rows were moved."""
    moved = 0
    for j in range(lt.shape[0]):
        t = lt[j]
        if t < clock or t >= LATEST_US or t < EARLIEST_US:
            t = clock
            moved += 1
        clock = t
        out[j] = t
    return moved


@njit(cache=True, nogil=True)
def _in_order(lt: Array, clock: int) -> bool:
    for j in range(lt.shape[0]):
        t = lt[j]
        if t < clock or t >= LATEST_US or t < EARLIEST_US:
            return False
        clock = t
    return True


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
def _seen_hash(st: Any, table: Array, previous: Array, log: Array, value: int) -> bool:
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
def _seen_scattered(st: Any, lows: Array, highs: Array, table: Array, previous: Array, log: Array, value: int) -> bool:
    """True if the integer was seen before; the caller has handled an id right after the newest one."""
    n = st.intervals
    at = _find_interval(lows, n, value)
    if at >= 0 and value <= highs[at]:
        return True
    if st.scattered >= MAX_SCATTERED:
        return _seen_hash(st, table, previous, log, value)
    if at + 1 < n:
        st.scattered += 1
    st.intervals = _insert_interval(lows, highs, n, at, value)
    if value < st.day_min_id:
        st.day_min_id = value
    return False


@njit(cache=True, nogil=True)
def _judge(
    state: Array, counts: Array, ts: Array, lt: Array, ids: Array, kinds: Array, side: Array, price: Array,
    amount: Array, lows: Array, highs: Array, table: Array, previous: Array, log: Array,
    refuse_after_us: int, floor_us: int, skew_us: int, grace_us: int, code: Array, sign: Array,
) -> None:  # fmt: skip
    """Fill `code` and `sign`."""
    st = state[0]
    ct = counts[0]
    prev_price = st.prev_price
    direction = st.direction
    n_accepted = 0
    n_late = 0
    for j in range(lt.shape[0]):
        t = ts[j]
        now = lt[j]
        p = price[j]
        q = amount[j]
        sign[j] = 0
        if not (EARLIEST_US <= t <= now + skew_us and t < LATEST_US):
            code[j] = INVALID_TIME
            ct.invalid += 1
            continue
        if not (SMALLEST <= p <= LARGEST and SMALLEST <= q <= LARGEST):
            ct.invalid += 1
            if now - t > refuse_after_us or t < floor_us:
                code[j] = INVALID_OLD
            else:
                code[j] = INVALID
            continue
        kind = kinds[j]
        if kind == ID_INTEGER:
            value = ids[j]
            n = st.intervals
            if n > 0 and value == highs[n - 1] + 1 and st.scattered < MAX_SCATTERED:
                highs[n - 1] = value
                if value < st.day_min_id:
                    st.day_min_id = value
            elif _seen_scattered(st, lows, highs, table, previous, log, value):
                code[j] = DUPLICATE
                ct.duplicate += 1
                continue
        elif kind == ID_HASH and _seen_hash(st, table, previous, log, ids[j]):
            code[j] = DUPLICATE
            ct.duplicate += 1
            continue
        if p > prev_price:
            direction = 1 if prev_price > 0.0 else 0
        elif p < prev_price:
            direction = -1
        prev_price = p
        sign[j] = side[j] if side[j] != 0 else direction
        if t < floor_us:
            code[j] = FOREIGN
            ct.filtered += 1
        elif now - t > refuse_after_us:
            code[j] = REFUSED
            ct.refused += 1
        else:
            code[j] = ACCEPTED
            n_accepted += 1
            if now >= t - t % 15_000_000 + 15_000_000 + grace_us:
                n_late += 1
    st.prev_price = prev_price
    st.direction = direction
    ct.accepted += n_accepted
    ct.late += n_late


@njit(cache=True, nogil=True)
def _earliest(ts: Array, code: Array, or_invalid: bool) -> int:
    out = NEVER_US
    for j in range(ts.shape[0]):
        if ts[j] < out and (code[j] == ACCEPTED or (or_invalid and code[j] == INVALID)):
            out = ts[j]
    return out


@dataclass(frozen=True, slots=True)
class Judged:
    """Rows with their verdicts: `code` (see the constants above) and `sign` (+1, -1, 0: side after the tick rule)."""

    rows: TickBatch
    code: Array
    sign: Array

    def slice(self, start: int, stop: int) -> Judged:
        """Rows [start, stop) as views."""
        return Judged(self.rows.slice(start, stop), self.code[start:stop], self.sign[start:stop])

    def earliest_changed(self) -> int:
        """The earliest timestamp whose candle these rows change (NEVER_US if none)."""
        return int(_earliest(self.rows["timestamp"], self.code, True))

    def earliest_effective(self, grace_us: int) -> int:
        """The earliest time at which an accepted row of state (book, ticker, options) takes effect."""
        taken = self.code == ACCEPTED
        times = np.maximum(self.rows["timestamp"], self.rows["local_timestamp"] - grace_us)[taken]
        return int(times.min()) if len(times) else NEVER_US

    def earliest_accepted(self) -> int:
        """The earliest timestamp of an accepted row (NEVER_US if none)."""
        return int(_earliest(self.rows["timestamp"], self.code, False))


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
            "counts": state[list(_ID_STATE)].copy(),
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
        for name in _ID_STATE:
            state[name] = content["counts"][name]


class Continuity:
    """Arrival order, validity and identity of one stream with ids (trades or liquidations)."""

    __slots__ = ("counts", "floor_us", "grace_us", "ids", "refuse_after_us", "skew_us", "state")

    def __init__(self, *, refuse_after_us: int, skew_us: int, grace_us: int, floor_us: int = 0) -> None:
        self.state = np.zeros(1, STATE)
        self.state["day_min_id"] = NEVER_US
        self.counts = np.zeros(1, COUNTS)
        self.ids = SeenIds()
        self.refuse_after_us = refuse_after_us
        self.floor_us = floor_us
        self.skew_us = skew_us
        self.grace_us = grace_us

    def judge(self, rows: TickBatch) -> Judged:
        """Verdicts for rows already in arrival order (see `in_arrival_order`)."""
        code = np.empty(len(rows), np.uint8)
        sign = np.empty(len(rows), np.int8)
        start = 0
        while start < len(rows):
            day = int(rows["local_timestamp"][start]) // DAY_US
            stop = int(np.searchsorted(rows["local_timestamp"], (day + 1) * DAY_US, "left"))
            if day != self.ids.day:
                self.ids.rotate(self.state, day)
            self._judge(rows, start, stop, code, sign)
            start = stop
        return Judged(rows, code, sign)

    def _judge(self, rows: TickBatch, start: int, stop: int, code: Array, sign: Array) -> None:
        part = slice(start, stop)
        ids = self.ids
        ids.reserve(self.state, rows["id_kind"][part])
        _judge(
            self.state, self.counts, rows["timestamp"][part], rows["local_timestamp"][part], rows["id"][part],
            rows["id_kind"][part], rows["side"][part], rows["price"][part], rows["amount"][part],
            ids.lows, ids.highs, ids.table, ids.previous, ids.log,
            self.refuse_after_us, self.floor_us, self.skew_us, self.grace_us, code[part], sign[part],
        )  # fmt: skip


def in_arrival_order(rows: TickBatch, clock_us: int) -> tuple[TickBatch, int]:
    """Rows with local_timestamp never before `clock_us` nor before an earlier row, and how many were moved for it."""
    lt = rows["local_timestamp"]
    if _in_order(lt, clock_us):
        return rows, 0
    moved = np.empty_like(lt)
    count = int(_clamp(rows["timestamp"], lt, clock_us, moved))
    return rows.with_column("local_timestamp", moved), count


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

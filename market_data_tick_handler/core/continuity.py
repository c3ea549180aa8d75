"""Decides of every arriving row what it is: accepted, duplicate, invalid, refused or of another day (features.md 2.3).

Theory of operation. `Continuity` holds the arrival clock and the identifiers seen. `judge` walks a batch once, in
arrival order, and writes one code per row; folds read the codes and never judge again, so that there is one rule for
acceptance. A row that breaks the order of arrival is moved to the arrival clock before it is judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numba import njit

from market_data_tick_handler.core.seen_ids import MAX_SCATTERED, NEVER_US, SeenIds, seen_hash, seen_integer
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
            elif seen_integer(st, lows, highs, table, previous, log, value):
                code[j] = DUPLICATE
                ct.duplicate += 1
                continue
        elif kind == ID_HASH and seen_hash(st, table, previous, log, ids[j]):
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

"""What five levels of the book say at a candle's end, on average over it, and by how they changed (features.md 9.6).

Theory of operation. A snapshot takes effect at e = max(e, timestamp, local_timestamp - grace), is counted in the bin of
e, and is held until the next one. `_advance` moves the e-clock: it integrates what is held, split at 15 s borders in
every run, and at each border it passes it leaves the held levels in the bin that ends there and opens the next bin with
them. A snapshot at e = border therefore belongs to the next bin, and the state at the border is that before it.

Per snapshot only `MEASURES` are computed, which are averaged over time; columns that describe the state at a candle's
end are computed once per candle from the levels left in its bin. One row of floats (`HELD`) keeps the levels and their
measures side by side, so that blocks of it are added to bins by index.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numba import njit

from market_data_tick_handler.core.continuity import ACCEPTED
from market_data_tick_handler.core.features.bins import US_15S, US_60S, slot
from market_data_tick_handler.core.features.book_bins import (
    BIN,
    FLOWS_AT,
    INTEGRALS_AT,
    LEVELS_AT,
    OUT,
    empty_bin,
    finish,
    floats,
    merge,
    see,
)
from market_data_tick_handler.core.features.book_levels import (
    LEVELS,
    MEASURES,
    BookParameters,
    book_matrix,
    measure,
    read_levels,
)
from market_data_tick_handler.core.features.book_state import valid_mid
from market_data_tick_handler.core.features.contract import Parent, RunShape, Segment, TickGroup, TickState, record
from market_data_tick_handler.core.ticks import BOOK_LEVELS, Array, DataType

# valid: 1 if the held snapshot is. last_us: e of the last snapshot. The floats are the held levels and their measures.
CARRY: Final = record("i8", "seen e_us last_us valid", "f8", " ".join((*LEVELS, *MEASURES)))
MEMORY: Final = record("i8", "unused")

_WIDTH: Final = len(LEVELS)
_MEASURED: Final = len(MEASURES)
_HELD: Final = 4
_HELD_MEASURES: Final = _HELD + _WIDTH
# Rows copied into a matrix at a time: it stays in the processor's cache.
_BLOCK: Final = 2048


@njit(cache=True, nogil=True)
def _hold(
    c: Any, held: Array, dt: int, b15: Any, sums15: Array, k15: int, b60: Any, sums60: Array, k60: int
) -> None:  # fmt: skip
    """Add `dt` under the held snapshot to a 15 s and a 1 m bin."""
    b15.covered_us += dt
    b60.covered_us += dt
    if c.valid == 1:
        b15.valid_us += dt
        b60.valid_us += dt
        for i in range(_MEASURED):
            x = held[0, _HELD_MEASURES + i] * dt
            sums15[k15, INTEGRALS_AT + i] += x
            sums60[k60, INTEGRALS_AT + i] += x


@njit(cache=True, nogil=True)
def _leave(c: Any, held: Array, border_us: int, bins: Array, sums: Array, k: int) -> None:
    """Leave the state at the border in the bin that ends there."""
    bins[k].age_us = border_us - c.last_us
    bins[k].held = c.valid
    for i in range(_WIDTH):
        sums[k, LEVELS_AT + i] = held[0, _HELD + i]


@njit(cache=True, nogil=True)
def _open(c: Any, bins: Array, empty: Array, base_us: int, t0: int) -> None:
    """Open the bin at `t0` with the state that is held."""
    k = slot(bins, empty, base_us, t0)
    if c.valid == 1:
        see(bins[k], c.mid_price, c.spread_bps)


@njit(cache=True, nogil=True)
def _advance(
    carry: Array, held: Array, until_us: int, bins15: Array, sums15: Array, bins60: Array, sums60: Array,
    empty: Array, floor_us: int,
) -> None:  # fmt: skip
    """Move the e-clock to `until_us` under the held snapshot."""
    c = carry[0]
    if c.seen == 0:
        return
    while c.e_us < until_us:
        t0 = c.e_us - c.e_us % US_15S
        border = t0 + US_15S
        stop = min(until_us, border)
        if t0 >= floor_us:
            k15 = slot(bins15, empty, US_15S, t0)
            k60 = slot(bins60, empty, US_60S, t0 - t0 % US_60S)
            _hold(c, held, stop - c.e_us, bins15[k15], sums15, k15, bins60[k60], sums60, k60)
            if stop == border:
                _leave(c, held, border, bins15, sums15, k15)
                if border % US_60S == 0:
                    _leave(c, held, border, bins60, sums60, k60)
        c.e_us = stop
        if stop == border and border >= floor_us:
            _open(c, bins15, empty, US_15S, border)
            if border % US_60S == 0:
                _open(c, bins60, empty, US_60S, border)


@njit(cache=True, nogil=True)
def _count(b: Any, bids: int, asks: int, bid: float, ask: float) -> None:
    b.updates += 1
    if bids == 0 or asks == 0:
        b.invalid += 1
    elif bid > ask:
        b.crossed += 1
    elif bid == ask:
        b.locked += 1


@njit(cache=True, nogil=True)
def _count_changes(b: Any, bid: int, ask: int, mid: int) -> None:
    b.bid_changes += bid
    b.ask_changes += ask
    b.mid_changes += mid


@njit(cache=True, nogil=True)
def _add_flow(held: Array, levels: Array, sums15: Array, k15: int, sums60: Array, k60: int) -> None:
    """Order flow between the held snapshot and the next one, per level."""
    for level in range(BOOK_LEVELS):
        i = 4 * level
        bid, bid_amount, ask, ask_amount = levels[0, i], levels[0, i + 1], levels[0, i + 2], levels[0, i + 3]
        i += _HELD
        bid_before, bid_amount_before, ask_before, ask_amount_before = (
            held[0, i], held[0, i + 1], held[0, i + 2], held[0, i + 3],
        )  # fmt: skip
        flow = (
            (bid_amount if bid >= bid_before else 0.0)
            - (bid_amount_before if bid <= bid_before else 0.0)
            - (ask_amount if ask <= ask_before else 0.0)
            + (ask_amount_before if ask >= ask_before else 0.0)
        )
        sums15[k15, FLOWS_AT + level] += flow
        sums60[k60, FLOWS_AT + level] += flow


@njit(cache=True, nogil=True)
def _fold(
    ts: Array, lt: Array, code: Array, book: Array, carry: Array, held: Array, bins15: Array, sums15: Array,
    bins60: Array, sums60: Array, empty: Array, grace_us: int, floor_us: int,
) -> None:  # fmt: skip
    c = carry[0]
    levels = np.empty((1, _WIDTH))
    border = np.int64(-1)
    k15 = 0
    k60 = 0
    for j in range(ts.shape[0]):
        now = lt[j]
        if code[j] != ACCEPTED:
            # Its time is unusable, so that it is no state of any time: it is counted on arrival.
            if now >= floor_us:
                _count(bins15[slot(bins15, empty, US_15S, now - now % US_15S)], 0, 0, 0.0, 0.0)
                _count(bins60[slot(bins60, empty, US_60S, now - now % US_60S)], 0, 0, 0.0, 0.0)
            continue
        e = max(ts[j], now - grace_us)
        if c.seen == 0:
            c.seen = 1
            c.e_us = e
        e = max(e, c.e_us)
        if e >= border:
            _advance(carry, held, e, bins15, sums15, bins60, sums60, empty, floor_us)
            border = e - e % US_15S + US_15S
            if e >= floor_us:
                k15 = slot(bins15, empty, US_15S, border - US_15S)
                k60 = slot(bins60, empty, US_60S, e - e % US_60S)
        elif e >= floor_us:
            _hold(c, held, e - c.e_us, bins15[k15], sums15, k15, bins60[k60], sums60, k60)
        c.e_us = e
        c.last_us = e
        bids, asks = read_levels(book, j, levels, 0)
        bid, ask = levels[0, 0], levels[0, 2]
        mid = valid_mid(bid, levels[0, 1], ask, levels[0, 3])
        valid = 0 if np.isnan(mid) else 1
        kept = e >= floor_us
        if kept:
            _count(bins15[k15], bids, asks, bid, ask)
            _count(bins60[k60], bids, asks, bid, ask)
        if valid == 1:
            measures = measure(levels, 0, 0, mid)
            if kept:
                b15 = bins15[k15]
                b60 = bins60[k60]
                see(b15, mid, measures[2])
                see(b60, mid, measures[2])
                depth = measures[6] + measures[7]
                b15.usable += 1
                b15.depth_sum += depth
                b60.usable += 1
                b60.depth_sum += depth
                if c.valid == 1:
                    bid_moved = 1 if bid != c.bid_price_1 else 0
                    ask_moved = 1 if ask != c.ask_price_1 else 0
                    mid_moved = 1 if mid != c.mid_price else 0
                    _count_changes(b15, bid_moved, ask_moved, mid_moved)
                    _count_changes(b60, bid_moved, ask_moved, mid_moved)
                    _add_flow(held, levels, sums15, k15, sums60, k60)
            for i in range(_MEASURED):
                held[0, _HELD_MEASURES + i] = measures[i]
        for i in range(_WIDTH):
            held[0, _HELD + i] = levels[0, i]
        c.valid = valid


class BookState(TickState):
    """Bins and the held snapshot of one pipeline."""

    BIN, CARRY, MEMORY, OUT = BIN, CARRY, MEMORY, OUT
    merge_kernel = staticmethod(merge)

    def __init__(self, shape: RunShape) -> None:
        super().__init__(shape)
        self.empty = empty_bin()
        self.sums15, self.sums60 = floats(self.bins15), floats(self.bins60)
        self.parameters, self.table = BookParameters(
            impact_notional=shape.parameters.impact_notional,
            inverse=shape.inverse,
            multiplier=shape.multiplier,
            microprice_table=shape.parameters.microprice_table,
        ).arrays()

    def fold(self, segment: Segment) -> None:
        """Add the segment's snapshots."""
        books = segment.get(DataType.BOOK)
        if books is None:
            return
        rows, shape = books.rows, self.shape
        for start in range(0, len(rows), _BLOCK):
            stop = min(start + _BLOCK, len(rows))
            _fold(
                rows["timestamp"][start:stop], rows["local_timestamp"][start:stop], books.code[start:stop],
                book_matrix(rows, start, stop), self.carry, floats(self.carry), self.bins15, self.sums15,
                self.bins60, self.sums60, self.empty, shape.grace_us, shape.floor_us,
            )  # fmt: skip

    def settle(self, border_us: int) -> None:
        """Integrate to the border and leave the state in the bins that end there."""
        _advance(
            self.carry, floats(self.carry), border_us, self.bins15, self.sums15, self.bins60, self.sums60, self.empty,
            self.shape.floor_us,
        )  # fmt: skip

    def finish(self, memory: Array, step_us: int, t0: int, bins: Array, out: Array) -> None:
        """Columns of consecutive 15 s or 1 m candles from their bins."""
        finish(bins, self.parameters, self.table, out)

    def finish_parents(self, memory: Array, step_us: int, parents: Sequence[Parent], out: Array) -> None:
        """Columns of consecutive candles above 1m from their accumulators."""
        finish(np.concatenate([parent.bin for parent in parents]), self.parameters, self.table, out)


GROUP: Final = TickGroup("book", (DataType.BOOK,), BookState)

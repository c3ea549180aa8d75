"""Funding, open interest, mark and index price: the derivative ticker as each candle holds it (features.md 9.5).

Theory of operation. A ticker row replaces the fields it carries, from e = max(e, timestamp, local_timestamp - grace)
on, so that no row is ever late. Between rows the state is held: `_advance` integrates it up to a time, cut at every
15 s border in every run, and stamps the state into the candles that end at a border before anything newer takes effect.
`settle` does the same when time passes without rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numba import njit

from market_data_tick_handler.core.continuity import ACCEPTED
from market_data_tick_handler.core.features.bins import US_15S, US_60S, ratio, slot
from market_data_tick_handler.core.features.contract import Parent, RunShape, Segment, TickGroup, TickState, record
from market_data_tick_handler.core.ticks import Array, DataType

# Unknown as-of values, extremes and the open interest at the opening are NaN in an empty bin; stamp_us is the border at
# which the as-of values were taken, 0 if none.
_HELD: Final = "funding_rate predicted open_interest last_price index_price mark_price"
_NAN_IN_BIN: Final = f"{_HELD} oi_open mark_high mark_low oi_high oi_low"
BIN: Final = record(
    "i8", "t0 rows children stamp_us e_us funding_us rate_dt basis_dt", "f8", f"{_NAN_IN_BIN} rate_time basis_time"
)
CARRY: Final = record("i8", "rows e_us held_us border_us funding_us", "f8", f"{_HELD} basis_bps")
MEMORY: Final = record("i8", "unused")
OUT: Final = record(
    "f8",
    "funding_rate predicted_funding_rate open_interest mark_price index_price ticker_last_price funding_timestamp "
    "time_to_funding_s funding_rate_tw funding_rate_annualized basis basis_bps basis_bps_tw mark_price_high "
    "mark_price_low open_interest_high open_interest_low oi_change oi_change_pct open_interest_notional",
    "i8",
    "derivative_update_count",
    "f8",
    "derivative_ticker_age_ms basis_annualized",
)

NAN: Final = np.nan
_YEAR_S: Final = 31_536_000.0


@njit(cache=True, nogil=True)
def _higher(held: float, value: float) -> float:
    """The larger of the two; NaN is nothing."""
    return held if held >= value or np.isnan(value) else value


@njit(cache=True, nogil=True)
def _lower(held: float, value: float) -> float:
    return held if held <= value or np.isnan(value) else value


@njit(cache=True, nogil=True)
def _extend(b: Any, mark: float, open_interest: float) -> None:
    b.mark_high = _higher(b.mark_high, mark)
    b.mark_low = _lower(b.mark_low, mark)
    b.oi_high = _higher(b.oi_high, open_interest)
    b.oi_low = _lower(b.oi_low, open_interest)


@njit(cache=True, nogil=True)
def _hold(b: Any, c: Any, dt: int) -> None:
    """Integrate the state over `dt` microseconds of the bin."""
    _extend(b, c.mark_price, c.open_interest)
    if not np.isnan(c.funding_rate):
        b.rate_time += c.funding_rate * dt
        b.rate_dt += dt
    if not np.isnan(c.basis_bps):
        b.basis_time += c.basis_bps * dt
        b.basis_dt += dt


@njit(cache=True, nogil=True)
def _stamp(b: Any, c: Any) -> None:
    b.stamp_us = c.border_us
    b.e_us = c.e_us
    b.funding_us = c.funding_us
    b.funding_rate = c.funding_rate
    b.predicted = c.predicted
    b.open_interest = c.open_interest
    b.last_price = c.last_price
    b.index_price = c.index_price
    b.mark_price = c.mark_price


@njit(cache=True, nogil=True)
def _advance(c: Any, until_us: int, bins15: Array, bins60: Array, empty: Array, floor_us: int) -> None:
    """Hold the state until `until_us`, and stamp it at each border on the way.

    c.held_us is how far it was held so far, c.border_us the first border after that, c.e_us the time of the last row.
    """
    while c.held_us < until_us:
        border = c.border_us
        stop = min(until_us, border)
        t0 = border - US_15S
        if t0 >= floor_us:
            k15 = slot(bins15, empty, US_15S, t0)
            k60 = slot(bins60, empty, US_60S, t0 - t0 % US_60S)
            _hold(bins15[k15], c, stop - c.held_us)
            _hold(bins60[k60], c, stop - c.held_us)
            if stop == border:
                _stamp(bins15[k15], c)
                _stamp(bins60[k60], c)
        if stop == border:
            if border >= floor_us:
                bins15[slot(bins15, empty, US_15S, border)].oi_open = c.open_interest
                if border % US_60S == 0:
                    bins60[slot(bins60, empty, US_60S, border)].oi_open = c.open_interest
            c.border_us = border + US_15S
        c.held_us = stop


@njit(cache=True, nogil=True)
def _settle(carry: Array, border_us: int, bins15: Array, bins60: Array, empty: Array, floor_us: int) -> None:
    if carry[0].rows > 0:
        _advance(carry[0], border_us, bins15, bins60, empty, floor_us)


@njit(cache=True, nogil=True)
def _begin(c: Any, e_us: int) -> None:
    c.held_us = e_us
    c.border_us = e_us - e_us % US_15S + US_15S
    c.funding_rate = NAN
    c.predicted = NAN
    c.open_interest = NAN
    c.last_price = NAN
    c.index_price = NAN
    c.mark_price = NAN


@njit(cache=True, nogil=True)
def _fold(
    ts: Array, lt: Array, funding: Array, rate: Array, predicted: Array, open_interest: Array, last: Array,
    index: Array, mark: Array, code: Array, carry: Array, bins15: Array, bins60: Array, empty: Array,
    grace_us: int, floor_us: int,
) -> None:  # fmt: skip
    c = carry[0]
    open15 = np.int64(-US_15S)
    k15 = 0
    k60 = 0
    for j in range(ts.shape[0]):
        if code[j] != ACCEPTED:
            continue
        e = max(c.e_us, ts[j], lt[j] - grace_us)
        if c.rows == 0:
            _begin(c, e)
        elif e < c.border_us == open15 + US_15S:
            # No border in between, hence in the same bins: the common case.
            if e > c.held_us:
                _hold(bins15[k15], c, e - c.held_us)
                _hold(bins60[k60], c, e - c.held_us)
                c.held_us = e
        else:
            _advance(c, e, bins15, bins60, empty, floor_us)
        c.rows += 1
        c.e_us = e
        if funding[j] > 0:
            c.funding_us = funding[j]
        c.funding_rate = rate[j] if np.isfinite(rate[j]) else c.funding_rate
        c.predicted = predicted[j] if np.isfinite(predicted[j]) else c.predicted
        c.open_interest = open_interest[j] if np.isfinite(open_interest[j]) else c.open_interest
        c.last_price = last[j] if np.isfinite(last[j]) else c.last_price
        c.index_price = index[j] if np.isfinite(index[j]) else c.index_price
        c.mark_price = mark[j] if np.isfinite(mark[j]) else c.mark_price
        c.basis_bps = ratio(1e4 * (c.mark_price - c.index_price), c.index_price)
        if e >= floor_us:
            if e >= open15 + US_15S:
                open15 = e - e % US_15S
                k15 = slot(bins15, empty, US_15S, open15)
                k60 = slot(bins60, empty, US_60S, e - e % US_60S)
            received_mark = mark[j] if np.isfinite(mark[j]) else NAN
            received_interest = open_interest[j] if np.isfinite(open_interest[j]) else NAN
            bins15[k15].rows += 1
            bins60[k60].rows += 1
            _extend(bins15[k15], received_mark, received_interest)
            _extend(bins60[k60], received_mark, received_interest)


@njit(cache=True, nogil=True)
def _merge(acc: Array, children: Array) -> None:
    """Left fold of `children` (oldest first) into `acc[0]`."""
    a = acc[0]
    for k in range(children.shape[0]):
        c = children[k]
        if a.children == 0:
            a.oi_open = c.oi_open
        a.children += 1
        a.rows += c.rows
        a.mark_high = _higher(a.mark_high, c.mark_high)
        a.mark_low = _lower(a.mark_low, c.mark_low)
        a.oi_high = _higher(a.oi_high, c.oi_high)
        a.oi_low = _lower(a.oi_low, c.oi_low)
        a.rate_time += c.rate_time
        a.rate_dt += c.rate_dt
        a.basis_time += c.basis_time
        a.basis_dt += c.basis_dt
        if c.stamp_us > 0:
            a.stamp_us = c.stamp_us
            a.e_us = c.e_us
            a.funding_us = c.funding_us
            a.funding_rate = c.funding_rate
            a.predicted = c.predicted
            a.open_interest = c.open_interest
            a.last_price = c.last_price
            a.index_price = c.index_price
            a.mark_price = c.mark_price


@njit(cache=True, nogil=True)
def _finish(memory: Array, bins: Array, step_us: int, out: Array) -> None:
    for i in range(bins.shape[0]):
        b = bins[i]
        o = out[i]
        o.funding_rate = b.funding_rate
        o.predicted_funding_rate = b.predicted
        o.open_interest = b.open_interest
        o.ticker_last_price = b.last_price
        o.index_price = b.index_price
        o.mark_price = b.mark_price
        o.funding_timestamp = b.funding_us if b.funding_us > 0 else NAN
        o.time_to_funding_s = (b.funding_us - b.stamp_us) / 1e6 if b.funding_us >= b.stamp_us > 0 else NAN
        o.funding_rate_tw = b.rate_time / b.rate_dt if b.rate_dt > 0 else NAN
        o.basis = b.mark_price - b.index_price
        o.basis_bps = ratio(1e4 * (b.mark_price - b.index_price), b.index_price)
        o.basis_bps_tw = b.basis_time / b.basis_dt if b.basis_dt > 0 else NAN
        o.mark_price_high = b.mark_high
        o.mark_price_low = b.mark_low
        o.open_interest_high = b.oi_high
        o.open_interest_low = b.oi_low
        o.oi_change = b.open_interest - b.oi_open
        o.oi_change_pct = ratio(o.oi_change, b.oi_open)
        o.derivative_update_count = b.rows
        o.derivative_ticker_age_ms = (b.stamp_us - b.e_us) / 1000.0 if b.stamp_us > 0 else NAN


@njit(cache=True, nogil=True)
def _scale(bins: Array, out: Array, interval_s: float, inverse: bool, multiplier: float, expiry_us: int) -> None:
    """Columns that need the contract: interval_s and expiry_us are 0 where there is none."""
    for i in range(bins.shape[0]):
        b = bins[i]
        o = out[i]
        o.funding_rate_annualized = b.funding_rate * (_YEAR_S / interval_s) if interval_s > 0.0 else NAN
        if np.isnan(b.mark_price):
            o.open_interest_notional = NAN
        elif inverse:
            o.open_interest_notional = b.open_interest * multiplier
        else:
            o.open_interest_notional = b.open_interest * b.mark_price * multiplier
        o.basis_annualized = NAN
        if expiry_us > b.stamp_us > 0 and b.mark_price > 0.0 and b.index_price > 0.0:
            o.basis_annualized = math.log(b.mark_price / b.index_price) * 365.0 * 86400e6 / (expiry_us - b.stamp_us)


class DerivativesState(TickState):
    """Bins and held state of one pipeline."""

    BIN, CARRY, MEMORY, OUT = BIN, CARRY, MEMORY, OUT
    merge_kernel = staticmethod(_merge)
    finish_kernel = staticmethod(_finish)

    def __init__(self, shape: RunShape) -> None:
        super().__init__(shape)
        for name in _NAN_IN_BIN.split():
            self.empty[name] = NAN

    def fold(self, segment: Segment) -> None:
        """Add the segment's ticker rows."""
        ticker = segment.get(DataType.DERIVATIVE)
        if ticker is None:
            return
        rows, shape = ticker.rows, self.shape
        _fold(
            rows["timestamp"], rows["local_timestamp"], rows["funding_timestamp"], rows["funding_rate"],
            rows["predicted_funding_rate"], rows["open_interest"], rows["last_price"], rows["index_price"],
            rows["mark_price"], ticker.code, self.carry, self.bins15, self.bins60, self.empty,
            shape.grace_us, shape.floor_us,
        )  # fmt: skip

    def settle(self, border_us: int) -> None:
        """Hold the state to the border and stamp it into the candles that end there."""
        _settle(self.carry, border_us, self.bins15, self.bins60, self.empty, self.shape.floor_us)

    def finish(self, memory: Array, step_us: int, t0: int, bins: Array, out: Array) -> None:
        """Columns of consecutive 15 s or 1 m candles from their bins."""
        super().finish(memory, step_us, t0, bins, out)
        self._scale(bins, out)

    def finish_parents(self, memory: Array, step_us: int, parents: Sequence[Parent], out: Array) -> None:
        """Columns of consecutive candles above 1m from their accumulators."""
        super().finish_parents(memory, step_us, parents, out)
        self._scale(np.concatenate([parent.bin for parent in parents]), out)

    def _scale(self, bins: Array, out: Array) -> None:
        shape = self.shape
        interval_s = float(shape.parameters.funding_interval_s or 0.0)
        _scale(bins, out, interval_s, shape.inverse, float(shape.multiplier), int(shape.expiry_us))


GROUP: Final = TickGroup("derivatives", (DataType.DERIVATIVE,), DerivativesState)

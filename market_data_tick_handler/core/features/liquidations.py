"""Forced closings per candle: counts, volumes, prices, and whether open interest rose with them (features.md 9.4).

A liquidation enters the bin of its own timestamp, like a trade. The group follows open interest by itself, on the
ticker's e-clock, because the split by its direction is summed over minutes: a coarser candle's own change of open
interest does not tell it. Where the run asks for it, large trades stand in for the venue's feed and every row says
so (`liquidation_source`); the two never mix (features.md 7.4).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numba import njit

from market_data_tick_handler.core.continuity import ACCEPTED, INVALID_TIME, Judged
from market_data_tick_handler.core.features.bins import US_15S, US_60S, ratio, slot
from market_data_tick_handler.core.features.contract import Parent, RunShape, Segment, TickGroup, TickState, record
from market_data_tick_handler.core.ticks import Array, DataType

BIN: Final = record(
    "i8", "t0 count buy_count sell_count late known",
    "f8", "volume buy sell notional base largest price_high price_low oi_open oi_close rising falling",
)  # fmt: skip
CARRY: Final = record("i8", "rows e_us border_us", "f8", "open_interest")
MEMORY: Final = record("i8", "unused")
OUT: Final = record(
    "i8",
    "liquidation_count liquidation_buy_count liquidation_sell_count",
    "f8",
    "liquidation_buy_volume liquidation_sell_volume liquidation_volume liquidation_notional liquidation_imbalance "
    "liquidation_vwap liquidation_max_size liquidation_price_max liquidation_price_min liquidation_with_rising_oi "
    "liquidation_with_falling_oi",
    "i8",
    "late_liquidation_count liquidation_source",
)
CODES: Final = {"liquidation_source": np.array(["native", "derived"])}
_NATIVE: Final = 0
_DERIVED: Final = 1
NAN: Final = np.nan


@njit(cache=True, nogil=True)
def _stamp(c: Any, until_us: int, bins15: Array, bins60: Array, empty: Array, floor_us: int) -> None:
    """Stamp open interest into the candles that end, and those that open, at the borders up to `until_us`."""
    while c.border_us <= until_us:
        border = c.border_us
        t0 = border - US_15S
        if t0 >= floor_us:
            bins15[slot(bins15, empty, US_15S, t0)].oi_close = c.open_interest
            bins60[slot(bins60, empty, US_60S, t0 - t0 % US_60S)].oi_close = c.open_interest
        if border >= floor_us:
            bins15[slot(bins15, empty, US_15S, border)].oi_open = c.open_interest
            if border % US_60S == 0:
                bins60[slot(bins60, empty, US_60S, border)].oi_open = c.open_interest
        c.border_us = border + US_15S


@njit(cache=True, nogil=True)
def _settle(carry: Array, border_us: int, bins15: Array, bins60: Array, empty: Array, floor_us: int) -> None:
    if carry[0].rows > 0:
        _stamp(carry[0], border_us, bins15, bins60, empty, floor_us)


@njit(cache=True, nogil=True)
def _follow(
    ts: Array, lt: Array, open_interest: Array, code: Array, carry: Array, bins15: Array, bins60: Array, empty: Array,
    grace_us: int, floor_us: int,
) -> None:  # fmt: skip
    c = carry[0]
    for j in range(ts.shape[0]):
        if code[j] != ACCEPTED:
            continue
        e = max(c.e_us, ts[j], lt[j] - grace_us)
        if c.rows == 0:
            c.border_us = e - e % US_15S + US_15S
            c.open_interest = NAN
        elif e >= c.border_us:
            _stamp(c, e, bins15, bins60, empty, floor_us)
        c.rows += 1
        c.e_us = e
        if np.isfinite(open_interest[j]):
            c.open_interest = open_interest[j]


@njit(cache=True, nogil=True)
def _add(b: Any, p: float, q: float, notional: float, base: float, side: int, late: int) -> None:
    if b.count == 0:
        b.largest = q
        b.price_high = p
        b.price_low = p
    else:
        b.largest = max(b.largest, q)
        b.price_high = max(b.price_high, p)
        b.price_low = min(b.price_low, p)
    b.count += 1
    b.volume += q
    b.notional += notional
    b.base += base
    if side > 0:
        b.buy_count += 1
        b.buy += q
    elif side < 0:
        b.sell_count += 1
        b.sell += q
    b.late += late


@njit(cache=True, nogil=True)
def _fold(
    ts: Array, lt: Array, price: Array, amount: Array, side: Array, code: Array, bins15: Array, bins60: Array,
    empty: Array, grace_us: int, inverse: bool, multiplier: float,
) -> None:  # fmt: skip
    for j in range(ts.shape[0]):
        if code[j] != ACCEPTED:
            continue
        t = ts[j]
        p = price[j]
        q = amount[j]
        if inverse:
            notional = q * multiplier
            base = notional / p
        else:
            base = q * multiplier
            notional = p * base
        open15 = t - t % US_15S
        open60 = t - t % US_60S
        overdue = lt[j] - grace_us
        k15 = slot(bins15, empty, US_15S, open15)
        k60 = slot(bins60, empty, US_60S, open60)
        _add(bins15[k15], p, q, notional, base, side[j], 1 if overdue >= open15 + US_15S else 0)
        _add(bins60[k60], p, q, notional, base, side[j], 1 if overdue >= open60 + US_60S else 0)


@njit(cache=True, nogil=True)
def _merge(acc: Array, children: Array) -> None:
    """Left fold of `children` (oldest first) into `acc[0]`."""
    a = acc[0]
    for k in range(children.shape[0]):
        c = children[k]
        change = c.oi_close - c.oi_open
        if not np.isnan(change):
            a.known += 1
            a.rising += c.volume if change > 0.0 else 0.0
            a.falling += c.volume if change < 0.0 else 0.0
        if c.count == 0:
            continue
        if a.count == 0:
            a.largest = c.largest
            a.price_high = c.price_high
            a.price_low = c.price_low
        else:
            a.largest = max(a.largest, c.largest)
            a.price_high = max(a.price_high, c.price_high)
            a.price_low = min(a.price_low, c.price_low)
        a.count += c.count
        a.buy_count += c.buy_count
        a.sell_count += c.sell_count
        a.late += c.late
        a.volume += c.volume
        a.buy += c.buy
        a.sell += c.sell
        a.notional += c.notional
        a.base += c.base


@njit(cache=True, nogil=True)
def _finish_direction(b: Any, o: Any, step_us: int) -> None:
    change = b.oi_close - b.oi_open
    if step_us > US_60S:
        o.liquidation_with_rising_oi = b.rising if b.known > 0 else NAN
        o.liquidation_with_falling_oi = b.falling if b.known > 0 else NAN
    elif np.isnan(change):
        o.liquidation_with_rising_oi = NAN
        o.liquidation_with_falling_oi = NAN
    else:
        o.liquidation_with_rising_oi = b.volume if change > 0.0 else 0.0
        o.liquidation_with_falling_oi = b.volume if change < 0.0 else 0.0


@njit(cache=True, nogil=True)
def _finish(memory: Array, bins: Array, step_us: int, out: Array) -> None:
    for i in range(bins.shape[0]):
        b = bins[i]
        o = out[i]
        o.liquidation_count = b.count
        o.liquidation_buy_count = b.buy_count
        o.liquidation_sell_count = b.sell_count
        o.liquidation_buy_volume = b.buy
        o.liquidation_sell_volume = b.sell
        o.liquidation_volume = b.volume
        o.liquidation_notional = b.notional
        o.liquidation_imbalance = ratio(b.buy - b.sell, b.buy + b.sell)
        o.liquidation_vwap = ratio(b.notional, b.base)
        o.liquidation_max_size = b.largest if b.count > 0 else NAN
        o.liquidation_price_max = b.price_high if b.count > 0 else NAN
        o.liquidation_price_min = b.price_low if b.count > 0 else NAN
        o.late_liquidation_count = b.late
        _finish_direction(b, o, step_us)


class LiquidationsState(TickState):
    """Bins of one pipeline and the open interest that holds."""

    BIN, CARRY, MEMORY, OUT, CODES = BIN, CARRY, MEMORY, OUT, CODES
    merge_kernel = staticmethod(_merge)
    finish_kernel = staticmethod(_finish)

    def __init__(self, shape: RunShape) -> None:
        super().__init__(shape)
        self.empty["oi_open"] = self.empty["oi_close"] = NAN
        self._large = shape.parameters.liquidation_fallback_notional

    def fold(self, segment: Segment) -> None:
        """Add the segment's liquidations and follow its open interest; neither depends on the other's order."""
        shape, ticker = self.shape, segment.get(DataType.DERIVATIVE)
        if ticker is not None:
            rows = ticker.rows
            _follow(
                rows["timestamp"], rows["local_timestamp"], rows["open_interest"], ticker.code, self.carry,
                self.bins15, self.bins60, self.empty, shape.grace_us, shape.floor_us,
            )  # fmt: skip
        large = self._large
        events = segment.get(DataType.LIQUIDATIONS if large is None else DataType.TRADES)
        if events is not None:
            rows = events.rows
            code = events.code if large is None else self._large_only(events, large)
            side = rows["side"] if large is None else events.sign
            _fold(
                rows["timestamp"], rows["local_timestamp"], rows["price"], rows["amount"], side, code,
                self.bins15, self.bins60, self.empty, shape.grace_us, shape.inverse, shape.multiplier,
            )  # fmt: skip

    def _large_only(self, trades: Judged, least: float) -> Array:
        """Verdicts under which only large trades are accepted (features.md 7.4)."""
        price, base = trades.rows["price"], trades.rows["amount"] * self.shape.multiplier
        notional = base if self.shape.inverse else price * base
        return np.where(notional >= least, trades.code, INVALID_TIME)

    def finish(self, memory: Array, step_us: int, t0: int, bins: Array, out: Array) -> None:
        """Columns of consecutive 15 s or 1 m candles, and where their events came from."""
        super().finish(memory, step_us, t0, bins, out)
        out["liquidation_source"] = _NATIVE if self._large is None else _DERIVED

    def finish_parents(self, memory: Array, step_us: int, parents: Sequence[Parent], out: Array) -> None:
        """Columns of consecutive candles above 1m, and where their events came from."""
        super().finish_parents(memory, step_us, parents, out)
        out["liquidation_source"] = _NATIVE if self._large is None else _DERIVED

    def settle(self, border_us: int) -> None:
        """Stamp open interest into the candles that end at the border."""
        _settle(self.carry, border_us, self.bins15, self.bins60, self.empty, self.shape.floor_us)


GROUP: Final = TickGroup("liquidations", (DataType.LIQUIDATIONS, DataType.DERIVATIVE), LiquidationsState)

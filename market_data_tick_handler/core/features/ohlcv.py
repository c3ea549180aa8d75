"""Prices, volumes, counts and sides of a candle: the sums that every other group builds on (features.md 9.1, 9.2)."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit

from market_data_tick_handler.core.continuity import ACCEPTED, DUPLICATE, INVALID, INVALID_TIME
from market_data_tick_handler.core.features.bins import US_15S, US_60S, ratio, slot
from market_data_tick_handler.core.features.contract import Segment, TickGroup, TickState, record
from market_data_tick_handler.core.ticks import Array, DataType

BIN: Final = record(
    "i8",
    "t0 trade_count open_us close_us buy_count sell_count tick_rule_count duplicate_trade_count invalid_trade_count "
    "late_trade_count",
    "f8",
    "open high low close volume buy_volume sell_volume unknown_volume quote buy_quote sell_quote "
    "base buy_base sell_base",
)
CARRY: Final = record("i8", "unused")
MEMORY: Final = record("f8", "close")
OUT: Final = record(
    "f8",
    "open high low close volume quote_volume price_vwap buy_volume_sum sell_volume_sum unknown_volume_sum "
    "buy_quote_volume sell_quote_volume buy_vwap sell_vwap bid_ask_spread_proxy volume_delta order_flow_imbalance "
    "trade_count_imbalance aggressive_buy_ratio aggressive_sell_ratio size_avg buy_size_avg sell_size_avg "
    "trade_intensity vwap_base_volume",
    "i8",
    "trade_count buy_count sell_count unknown_count tick_rule_count late_trade_count duplicate_trade_count "
    "invalid_trade_count",
)

NAN: Final = np.nan


@njit(cache=True, nogil=True)
def _add(b: Any, t: int, p: float, q: float, notional: float, base: float, sign: int, ruled: int, late: int) -> None:
    if b.trade_count == 0:
        b.open_us = t
        b.close_us = t
        b.open = p
        b.close = p
        b.high = p
        b.low = p
    else:
        if t < b.open_us:
            b.open_us = t
            b.open = p
        if t >= b.close_us:
            b.close_us = t
            b.close = p
        if p > b.high:
            b.high = p
        if p < b.low:
            b.low = p
    # Adding 0.0 leaves a sum of non-negative terms as it is; selects are cheaper than branches the market decides.
    buy = sign > 0
    sell = sign < 0
    b.trade_count += 1
    b.volume += q
    b.quote += notional
    b.base += base
    b.buy_volume += q if buy else 0.0
    b.sell_volume += q if sell else 0.0
    b.unknown_volume += q if sign == 0 else 0.0
    b.buy_quote += notional if buy else 0.0
    b.sell_quote += notional if sell else 0.0
    b.buy_base += base if buy else 0.0
    b.sell_base += base if sell else 0.0
    b.buy_count += 1 if buy else 0
    b.sell_count += 1 if sell else 0
    b.tick_rule_count += ruled
    b.late_trade_count += late


@njit(cache=True, nogil=True)
def _count(bins: Array, empty: Array, base_us: int, t: int, code: int) -> None:
    k = slot(bins, empty, base_us, t - t % base_us)
    if code == DUPLICATE:
        bins[k].duplicate_trade_count += 1
    else:
        bins[k].invalid_trade_count += 1


@njit(cache=True, nogil=True)
def _fold(
    ts: Array, lt: Array, price: Array, amount: Array, side: Array, sign: Array, code: Array,
    bins15: Array, bins60: Array, empty: Array, grace_us: int, floor_us: int, inverse: bool, multiplier: float,
) -> None:  # fmt: skip
    k15 = 0
    k60 = 0
    open15 = np.int64(-US_15S)
    open60 = np.int64(-US_60S)
    for j in range(ts.shape[0]):
        c = code[j]
        t = ts[j]
        if c != ACCEPTED:
            if DUPLICATE <= c <= INVALID_TIME:
                at = t if c == INVALID else lt[j]
                if at >= floor_us:
                    _count(bins15, empty, US_15S, at, c)
                    _count(bins60, empty, US_60S, at, c)
            continue
        if t < open15 or t >= open15 + US_15S:
            open15 = t - t % US_15S
            k15 = slot(bins15, empty, US_15S, open15)
            open60 = t - t % US_60S
            k60 = slot(bins60, empty, US_60S, open60)
        p = price[j]
        q = amount[j]
        if inverse:
            notional = q * multiplier
            base = notional / p
        else:
            base = q * multiplier
            notional = p * base
        s = sign[j]
        ruled = 1 if side[j] == 0 and s != 0 else 0
        overdue = lt[j] - grace_us
        _add(bins15[k15], t, p, q, notional, base, s, ruled, 1 if overdue >= open15 + US_15S else 0)
        _add(bins60[k60], t, p, q, notional, base, s, ruled, 1 if overdue >= open60 + US_60S else 0)


@njit(cache=True, nogil=True)
def _merge(acc: Array, children: Array) -> None:
    """Left fold of `children` (oldest first) into `acc[0]`."""
    a = acc[0]
    for k in range(children.shape[0]):
        c = children[k]
        a.duplicate_trade_count += c.duplicate_trade_count
        a.invalid_trade_count += c.invalid_trade_count
        if c.trade_count == 0:
            continue
        if a.trade_count == 0:
            a.open = c.open
            a.open_us = c.open_us
            a.high = c.high
            a.low = c.low
        else:
            a.high = max(a.high, c.high)
            a.low = min(a.low, c.low)
        a.close = c.close
        a.close_us = c.close_us
        a.trade_count += c.trade_count
        a.buy_count += c.buy_count
        a.sell_count += c.sell_count
        a.tick_rule_count += c.tick_rule_count
        a.late_trade_count += c.late_trade_count
        a.volume += c.volume
        a.buy_volume += c.buy_volume
        a.sell_volume += c.sell_volume
        a.unknown_volume += c.unknown_volume
        a.quote += c.quote
        a.buy_quote += c.buy_quote
        a.sell_quote += c.sell_quote
        a.base += c.base
        a.buy_base += c.buy_base
        a.sell_base += c.sell_base


@njit(cache=True, nogil=True)
def _finish(memory: Array, bins: Array, step_us: int, out: Array) -> None:
    carried = memory[0].close
    for i in range(bins.shape[0]):
        b = bins[i]
        o = out[i]
        n = b.trade_count
        if n > 0:
            o.open = b.open
            o.high = b.high
            o.low = b.low
            o.close = b.close
            carried = b.close
        else:
            o.open = carried
            o.high = carried
            o.low = carried
            o.close = carried
        o.trade_count = n
        o.buy_count = b.buy_count
        o.sell_count = b.sell_count
        o.unknown_count = n - b.buy_count - b.sell_count
        o.tick_rule_count = b.tick_rule_count
        o.late_trade_count = b.late_trade_count
        o.duplicate_trade_count = b.duplicate_trade_count
        o.invalid_trade_count = b.invalid_trade_count
        o.volume = b.volume
        o.quote_volume = b.quote
        o.buy_volume_sum = b.buy_volume
        o.sell_volume_sum = b.sell_volume
        o.unknown_volume_sum = b.unknown_volume
        o.buy_quote_volume = b.buy_quote
        o.sell_quote_volume = b.sell_quote
        o.vwap_base_volume = b.base
        o.price_vwap = ratio(b.quote, b.base)
        o.buy_vwap = ratio(b.buy_quote, b.buy_base)
        o.sell_vwap = ratio(b.sell_quote, b.sell_base)
        o.bid_ask_spread_proxy = o.buy_vwap - o.sell_vwap if b.buy_count > 0 and b.sell_count > 0 else NAN
        signed = b.buy_volume + b.sell_volume
        o.volume_delta = b.buy_volume - b.sell_volume
        o.order_flow_imbalance = ratio(o.volume_delta, signed)
        sided = b.buy_count + b.sell_count
        o.trade_count_imbalance = ratio(float(b.buy_count - b.sell_count), float(sided))
        o.aggressive_buy_ratio = ratio(b.buy_volume, signed)
        o.aggressive_sell_ratio = ratio(b.sell_volume, signed)
        o.size_avg = ratio(b.volume, float(n))
        o.buy_size_avg = ratio(b.buy_volume, float(b.buy_count))
        o.sell_size_avg = ratio(b.sell_volume, float(b.sell_count))
        o.trade_intensity = n / (step_us / 1e6)
    memory[0].close = carried


class OhlcvState(TickState):
    """Bins of one pipeline."""

    BIN, CARRY, MEMORY, OUT = BIN, CARRY, MEMORY, OUT
    merge_kernel = staticmethod(_merge)
    finish_kernel = staticmethod(_finish)

    def traded(self, out: Array) -> Array:
        """Candles with at least one trade."""
        traded: Array = out["trade_count"] > 0
        return traded

    def fold(self, segment: Segment) -> None:
        """Add the segment's trades."""
        ticks = segment.get(DataType.TRADES)
        if ticks is None:
            return
        rows, shape = ticks.rows, self.shape
        _fold(
            rows["timestamp"], rows["local_timestamp"], rows["price"], rows["amount"], rows["side"], ticks.sign,
            ticks.code, self.bins15, self.bins60, self.empty, shape.grace_us, shape.floor_us,
            shape.inverse, shape.multiplier,
        )  # fmt: skip


GROUP: Final = TickGroup("ohlcv", (DataType.TRADES,), OhlcvState)

# mypy: disable-error-code="untyped-decorator,no-any-return"
"""Single columns of highest and lowest values and of money flow; see indicator_columns.py."""

from __future__ import annotations

import numpy as np
from numpy import int64

from benchmarks.indicator_columns import mean
from market_data_tick_handler.core.features.rolling import (
    BLOCK,
    kernel,
    window_sum,
)
from market_data_tick_handler.core.features.windows import (
    SCRATCH,
    age_of_highest,
    window_distances,
    window_highest,
    window_lowest,
)
from market_data_tick_handler.core.ticks import Array


@kernel
def highest(x: Array, width: int) -> Array:
    """Highest of each window."""
    out, scratch = np.empty(x.size), np.empty((SCRATCH, BLOCK + width))
    out[: width - 1] = np.nan
    for start in range(width - 1, x.size, BLOCK):
        size = min(BLOCK, x.size - start)
        window_highest(x[start - width + 1 : start + size], width, scratch, out[start : start + size])
    return out


@kernel
def lowest(x: Array, width: int) -> Array:
    """Lowest of each window."""
    out, scratch = np.empty(x.size), np.empty((SCRATCH, BLOCK + width))
    out[: width - 1] = np.nan
    for start in range(width - 1, x.size, BLOCK):
        size = min(BLOCK, x.size - start)
        window_lowest(x[start - width + 1 : start + size], width, scratch, out[start : start + size])
    return out


@kernel
def stochastic(high: Array, low: Array, close: Array) -> tuple[Array, Array]:
    """stoch_k_14 and stoch_d_3."""
    place, scratch = np.empty(close.size), np.empty((SCRATCH, BLOCK + 14))
    top, bottom, smooth = np.empty(BLOCK), np.empty(BLOCK), np.empty(close.size)
    place[:13] = smooth[:15] = np.nan
    for start in range(13, close.size, BLOCK):
        size = min(BLOCK, close.size - start)
        window_highest(high[start - 13 : start + size], int64(14), scratch, top[:size])
        window_lowest(low[start - 13 : start + size], int64(14), scratch, bottom[:size])
        own, column = close[start : start + size], place[start : start + size]
        for k in range(size):
            span = top[k] - bottom[k]
            column[k] = 100.0 * ((own[k] - bottom[k]) / span) if span != 0.0 else 50.0
    smooth[13:] = mean(place[13:], int64(3))
    return place, smooth


@kernel
def williams(high: Array, low: Array, close: Array) -> Array:
    """williams_r_14."""
    out, scratch = np.empty(close.size), np.empty((SCRATCH, BLOCK + 14))
    top, bottom = np.empty(BLOCK), np.empty(BLOCK)
    out[:13] = np.nan
    for start in range(13, close.size, BLOCK):
        size = min(BLOCK, close.size - start)
        window_highest(high[start - 13 : start + size], int64(14), scratch, top[:size])
        window_lowest(low[start - 13 : start + size], int64(14), scratch, bottom[:size])
        own, column = close[start : start + size], out[start : start + size]
        for k in range(size):
            span = top[k] - bottom[k]
            column[k] = -100.0 * ((top[k] - own[k]) / span) if span != 0.0 else -50.0
    return out


@kernel
def channel_index(high: Array, low: Array, close: Array) -> Array:
    """cci_20."""
    typical, distances = np.empty(close.size), np.empty(BLOCK)
    for k in range(close.size):
        typical[k] = (high[k] + low[k] + close[k]) / 3.0
    out = mean(typical, int64(20))
    for start in range(19, close.size, BLOCK):
        size = min(BLOCK, close.size - start)
        centre = out[start : start + size]
        window_distances(typical[start - 19 : start + size], centre, int64(20), distances[:size])
        for k in range(size):
            away = 0.015 * (distances[k] / 20.0)
            centre[k] = (typical[start + k] - centre[k]) / away if away != 0.0 else 0.0
    return out


@kernel
def money_flow(high: Array, low: Array, close: Array, volume: Array) -> Array:
    """mfi_14."""
    into, away, out, before = np.empty(close.size), np.empty(close.size), np.empty(close.size), 0.0
    for k in range(close.size):
        typical = (high[k] + low[k] + close[k]) / 3.0
        money = typical * volume[k]
        into[k], away[k] = money if typical > before else 0.0, money if typical < before else 0.0
        before = typical
    out[:14] = np.nan
    ups, downs = np.empty(BLOCK), np.empty(BLOCK)
    for start in range(14, close.size, BLOCK):
        size = min(BLOCK, close.size - start)
        window_sum(into[start - 13 : start + size], int64(14), ups[:size])
        window_sum(away[start - 13 : start + size], int64(14), downs[:size])
        for k in range(size):
            both = ups[k] + downs[k]
            out[start + k] = 100.0 * (ups[k] / both) if both != 0.0 else 50.0
    return out


@kernel
def on_balance(close: Array, volume: Array) -> Array:
    """obv_session without its days."""
    out, total = np.empty(close.size), 0.0
    out[0] = 0.0
    for k in range(1, close.size):
        if close[k] > close[k - 1]:
            total += volume[k]
        elif close[k] < close[k - 1]:
            total -= volume[k]
        out[k] = total
    return out


@kernel
def aroon(high: Array, low: Array) -> tuple[Array, Array]:
    """aroon_down_25 and aroon_up_25."""
    up, down = np.full(high.size, np.nan), np.full(high.size, np.nan)
    for start in range(25, high.size, BLOCK):
        stop = min(start + BLOCK, high.size)
        age_of_highest(high[start - 25 : stop], int64(26), 1.0, up[start:stop])
        age_of_highest(low[start - 25 : stop], int64(26), -1.0, down[start:stop])
        for k in range(start, stop):
            up[k], down[k] = 100.0 * (25.0 - up[k]) / 25.0, 100.0 * (25.0 - down[k]) / 25.0
    return down, up

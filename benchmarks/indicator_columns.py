# mypy: disable-error-code="untyped-decorator,no-any-return"
"""Single columns from the kernels of the groups, on plain arrays: what one indicator costs without its neighbours."""

from __future__ import annotations

import math

import numpy as np
from numpy import int64

from market_data_tick_handler.core.features.mft_trend import LINE_SQUARES, adx_step, range_step, true_range, wilder_sum
from market_data_tick_handler.core.features.moving import ema, rsi
from market_data_tick_handler.core.features.rolling import (
    BLOCK,
    kernel,
    run_lengths,
    window_mean,
    window_squares,
)
from market_data_tick_handler.core.features.windows import (
    SCRATCH,
    window_long_mean,
    window_slope,
)
from market_data_tick_handler.core.ticks import Array

LONG = 32


@kernel
def _first_run(x: Array, stop: int) -> int:
    """Length of the run of equal values that ends before `stop`."""
    length = 1
    while length < stop and x[stop - 1 - length] == x[stop - 1]:
        length += 1
    return length


@kernel
def mean(x: Array, width: int) -> Array:
    """Simple moving average with the guard for flat windows."""
    out, runs = np.empty(x.size), np.empty(BLOCK + 1, int64)
    scratch = np.empty((SCRATCH, BLOCK + width))
    out[: width - 1] = np.nan
    carried = _first_run(x, width - 1)
    for start in range(width - 1, x.size, BLOCK):
        size = min(BLOCK, x.size - start)
        row, column = x[start - width + 1 : start + size], out[start : start + size]
        run_lengths(row, carried, runs[: size + 1])
        carried = runs[size]
        if width > LONG:
            window_long_mean(row, runs[1 : size + 1], width, scratch, column)
        else:
            window_mean(row, runs[1 : size + 1], width, column)
    return out


@kernel
def weighted(x: Array) -> Array:
    """wma_5."""
    out = np.empty(x.size)
    out[:4] = np.nan
    for k in range(4, x.size):
        total = 0.0
        for j in range(5):
            total += (j + 1) * x[k - 4 + j]
        out[k] = total / 15.0
    return out


@kernel
def exponential(x: Array, period: int) -> Array:
    """Exponential average; the run lengths matter only until the seed."""
    out, state, runs = np.empty(x.size), np.zeros(1), np.empty(BLOCK + 1, int64)
    runs[0] = 0
    for start in range(0, x.size, BLOCK):
        size = min(BLOCK, x.size - start)
        if start < period:
            run_lengths(x[start : start + size], runs[0], runs[: size + 1])
        ema(x[start : start + size], runs[1 : size + 1], start, period, state, out[start : start + size])
        runs[0] = runs[size]
    return out


@kernel
def strength(x: Array, period: int) -> Array:
    """RSI."""
    out, state, changes = np.empty(x.size), np.zeros(2), np.empty(BLOCK)
    changes[0] = 0.0
    for start in range(0, x.size, BLOCK):
        size = min(BLOCK, x.size - start)
        for k in range(1 if start == 0 else 0, size):
            changes[k] = x[start + k] - x[start + k - 1]
        rsi(changes[:size], start - 1, period, state, out[start : start + size])
    return out


@kernel
def bands(x: Array, width: int) -> tuple[Array, Array, Array]:
    """Bollinger: upper, middle, lower."""
    upper, middle, lower = np.empty(x.size), mean(x, width), np.empty(x.size)
    squares = np.empty(BLOCK)
    upper[: width - 1] = lower[: width - 1] = np.nan
    for start in range(width - 1, x.size, BLOCK):
        size = min(BLOCK, x.size - start)
        centre = middle[start : start + size]
        window_squares(x[start - width + 1 : start + size], centre, width, squares[:size])
        for k in range(size):
            sigma = math.sqrt(squares[k] / width)
            upper[start + k], lower[start + k] = centre[k] + 2.0 * sigma, centre[k] - 2.0 * sigma
    return upper, middle, lower


@kernel
def change(x: Array, lag: int) -> Array:
    """Fractional change over `lag` candles."""
    out = np.empty(x.size)
    out[:lag] = np.nan
    old, new, column = x[: x.size - lag], x[lag:], out[lag:]
    for k in range(new.size):
        column[k] = (new[k] - old[k]) / old[k] if old[k] != 0.0 else np.nan
    return out


@kernel
def ranges(high: Array, low: Array, close: Array) -> Array:
    """True range."""
    out = np.empty(high.size)
    out[0] = np.nan
    tops, bottoms, before, column = high[1:], low[1:], close[: close.size - 1], out[1:]
    for k in range(column.size):
        column[k] = true_range(tops[k], bottoms[k], before[k])
    return out


@kernel
def average_range(high: Array, low: Array, close: Array) -> Array:
    """atr_14."""
    out, average = np.empty(high.size), 0.0
    out[0] = np.nan
    for k in range(1, high.size):
        average = range_step(average, true_range(high[k], low[k], close[k - 1]), k - 1)
        out[k] = average if k >= 14 else np.nan
    return out


@kernel
def directional(high: Array, low: Array, close: Array) -> tuple[Array, Array, Array]:
    """plus_di_14, minus_di_14, adx_14."""
    plus, minus, adx = np.full(high.size, np.nan), np.full(high.size, np.nan), np.full(high.size, np.nan)
    total, ups, downs, level = 0.0, 0.0, 0.0, 0.0
    for k in range(1, high.size):
        up, down = high[k] - high[k - 1], low[k - 1] - low[k]
        total = wilder_sum(total, true_range(high[k], low[k], close[k - 1]), k - 1)
        ups = wilder_sum(ups, up if up > down and up > 0.0 else 0.0, k - 1)
        downs = wilder_sum(downs, down if down > up and down > 0.0 else 0.0, k - 1)
        if k >= 14:
            plus[k] = 100.0 * (ups / total) if total != 0.0 else 0.0
            minus[k] = 100.0 * (downs / total) if total != 0.0 else 0.0
            level = adx_step(level, plus[k], minus[k], k - 1)
            adx[k] = level if k >= 27 else np.nan
    return plus, minus, adx


@kernel
def slope(x: Array) -> Array:
    """linreg_slope_20."""
    out = np.empty(x.size)
    out[:19] = np.nan
    for start in range(19, x.size, BLOCK):
        column = out[start : min(start + BLOCK, x.size)]
        window_slope(x[start - 19 : start + column.size], int64(20), column)
        for k in range(column.size):
            column[k] = column[k] / LINE_SQUARES
    return out


@kernel
def convergence(x: Array) -> tuple[Array, Array, Array]:
    """macd, macd_signal, macd_histogram. Run lengths of 1: no start of this series is flat."""
    line, signal, rest = np.empty(x.size), np.empty(x.size), np.empty(x.size)
    fast, slow, smooth = np.zeros(1), np.zeros(1), np.zeros(1)
    quick, runs = np.empty(BLOCK), np.ones(BLOCK, int64)
    for start in range(0, x.size, BLOCK):
        size = min(BLOCK, x.size - start)
        own, column, late = x[start : start + size], line[start : start + size], signal[start : start + size]
        ema(own, runs, start, int64(12), fast, quick[:size])
        ema(own, runs, start, int64(26), slow, column)
        for k in range(size):
            column[k] = quick[k] - column[k]
        ema(column, runs, start - 25, int64(9), smooth, late)
        for k in range(size):
            rest[start + k] = column[k] - late[k]
    return line, signal, rest

"""Trend columns of the group `mft`: averages, directional movement, channels and oscillators, line fit."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy import int64

from market_data_tick_handler.core.features.mft_layout import (
    ADX,
    ATR,
    CLOSE,
    DISTANCE,
    EMA_50,
    EMA_200,
    GAIN,
    HIGH,
    LONG_HISTORY,
    LOSS,
    LOW,
    MINUS_SUM,
    PLUS_SUM,
    SHORT_HISTORY,
    STOCHASTIC,
    TRUE_SUM,
    TYPICAL,
)
from market_data_tick_handler.core.features.moving import ema, rsi
from market_data_tick_handler.core.features.rolling import kernel, publish, window_mean, window_squares, window_sum
from market_data_tick_handler.core.features.windows import (
    age_of_highest,
    window_distances,
    window_highest,
    window_long_mean,
    window_lowest,
    window_slope,
)
from market_data_tick_handler.core.ticks import Array

# Wilder's sums of a market that rests fall for ever; below this only the rounding of denormal numbers is left of them.
VANISHED: Final = 1e-290
FOURTEENTH: Final = 1.0 / 14.0
# Sum of squared distances from the centre of 0 ... 19.
LINE_SQUARES: Final = 665.0


@kernel
def average_columns(m: Any, long: Array, runs: Array, temp: Array, scratch: Array, out: Array) -> None:
    """Simple and exponential averages of the close, RSI."""
    close, run, f, changes = long[CLOSE], runs[CLOSE, 1:], m.filters, temp[1]
    window_long_mean(close, run, int64(50), scratch, temp[0])
    publish(temp[0], m.seen, int64(49), out["sma_50"])
    window_long_mean(close, run, int64(200), scratch, temp[0])
    publish(temp[0], m.seen, int64(199), out["sma_200"])
    own = close[LONG_HISTORY:]
    ema(own, run, m.seen, int64(50), f[EMA_50 : EMA_50 + 1], out["ema_50"])
    ema(own, run, m.seen, int64(200), f[EMA_200 : EMA_200 + 1], out["ema_200"])
    before = close[LONG_HISTORY - 1 :]
    for k in range(out.size):
        changes[k] = own[k] - before[k]
    rsi(changes, m.seen - 1, int64(14), f[GAIN : LOSS + 1], out["rsi_14"])


@kernel
def true_range(high: float, low: float, before: float) -> float:
    """Largest of the range and the two distances to the previous close."""
    up, down, widest = abs(high - before), abs(low - before), high - low
    widest = up if up > widest else widest
    return down if down > widest else widest


@kernel
def range_step(average: float, x: float, index: int) -> float:
    """Wilder's average over 14 after input `index` (0 is the first), seeded with a mean. It moves by a share of the
    distance, as TA-Lib's ATR does: no division in the chain of candles, and a flat input leaves it where it is."""
    if index >= 14:
        return average + (x - average) * FOURTEENTH
    return (average + x) / 14.0 if index == 13 else average + x


@kernel
def wilder_sum(total: float, x: float, index: int) -> float:
    """Wilder's sum over 14: 13 plain additions, then S - S/14 + x; `index` 0 is the first input."""
    return total + x if index < 13 else total - total / 14.0 + x


@kernel
def adx_step(adx: float, plus: float, minus: float, index: int) -> float:
    """ADX after the strength of +DI against -DI at `index`: a sum of 14, then their mean, then Wilder's average."""
    both = plus + minus
    if both != 0.0:
        strength = 100.0 * (abs(plus - minus) / both)
        adx = (adx * 13.0 + strength) / 14.0 if index > 26 else adx + strength
    return adx / 14.0 if index == 26 else adx


@kernel
def directional_columns(m: Any, long: Array, short: Array, out: Array) -> None:
    """True range, its Wilder average, and the directional indicators +DI, -DI and ADX."""
    high, low = short[HIGH, SHORT_HISTORY - 1 :], short[LOW, SHORT_HISTORY - 1 :]
    close, f = long[CLOSE, LONG_HISTORY - 1 :], m.filters
    average, true_sum, plus_sum, minus_sum, adx = f[ATR], f[TRUE_SUM], f[PLUS_SUM], f[MINUS_SUM], f[ADX]
    for k in range(out.size):
        o, index = out[k], m.seen + k - 1
        o.true_range, o.atr_14, o.natr_14 = np.nan, np.nan, np.nan
        o.plus_di_14, o.minus_di_14, o.adx_14 = np.nan, np.nan, np.nan
        if index < 0:
            continue
        widest = true_range(high[k + 1], low[k + 1], close[k])
        up, down = high[k + 1] - high[k], low[k] - low[k + 1]
        o.true_range = widest
        average = range_step(average, widest, index)
        true_sum = wilder_sum(true_sum, widest, index)
        plus_sum = wilder_sum(plus_sum, up if up > down and up > 0.0 else 0.0, index)
        minus_sum = wilder_sum(minus_sum, down if down > up and down > 0.0 else 0.0, index)
        if true_sum < VANISHED:
            true_sum, plus_sum, minus_sum = 0.0, 0.0, 0.0
        if index < 13:
            continue
        plus = 100.0 * (plus_sum / true_sum) if true_sum != 0.0 else 0.0
        minus = 100.0 * (minus_sum / true_sum) if true_sum != 0.0 else 0.0
        adx = adx_step(adx, plus, minus, index)
        o.atr_14, o.natr_14 = average, 100.0 * average / close[k + 1]
        o.plus_di_14, o.minus_di_14 = plus, minus
        if index >= 26:
            o.adx_14 = adx
    f[ATR], f[TRUE_SUM], f[PLUS_SUM], f[MINUS_SUM], f[ADX] = average, true_sum, plus_sum, minus_sum, adx


@kernel
def channel_columns(m: Any, long: Array, short: Array, temp: Array, scratch: Array, out: Array) -> None:
    """Where the close lies between highest and lowest: Donchian, stochastic (also a series), Williams, Aroon."""
    close, highest, lowest, middle, place = long[CLOSE, LONG_HISTORY:], temp[0], temp[1], temp[2], temp[3]
    window_highest(short[HIGH], int64(20), scratch, highest)
    window_lowest(short[LOW], int64(20), scratch, lowest)
    for k in range(out.size):
        span = highest[k] - lowest[k]
        middle[k] = (highest[k] + lowest[k]) / 2.0
        place[k] = (close[k] - lowest[k]) / span if span != 0.0 else 0.5
    publish(highest, m.seen, int64(19), out["donchian_high_20"])
    publish(lowest, m.seen, int64(19), out["donchian_low_20"])
    publish(middle, m.seen, int64(19), out["donchian_mid_20"])
    publish(place, m.seen, int64(19), out["donchian_position_20"])
    window_highest(short[HIGH], int64(14), scratch, highest)
    window_lowest(short[LOW], int64(14), scratch, lowest)
    stochastic, williams = short[STOCHASTIC, SHORT_HISTORY:], temp[2]
    for k in range(out.size):
        span = highest[k] - lowest[k]
        stochastic[k] = 100.0 * ((close[k] - lowest[k]) / span) if span != 0.0 else 50.0
        williams[k] = -100.0 * ((highest[k] - close[k]) / span) if span != 0.0 else -50.0
    publish(stochastic, m.seen, int64(13), out["stoch_k_14"])
    publish(williams, m.seen, int64(13), out["williams_r_14"])
    for row, sign, column in ((HIGH, 1.0, out["aroon_up_25"]), (LOW, -1.0, out["aroon_down_25"])):
        age_of_highest(short[row], int64(26), sign, temp[0])
        for k in range(out.size):
            column[k] = 100.0 * (25.0 - temp[0, k]) / 25.0 if m.seen + k >= 25 else np.nan


@kernel
def fit_columns(
    m: Any, long: Array, long_runs: Array, short: Array, short_runs: Array, temp: Array, out: Array
) -> None:
    """Line fit and z-score of the close, CCI, efficiency ratio, average of the stochastic."""
    close, own, before = long[CLOSE], long[CLOSE, LONG_HISTORY:], long[CLOSE, LONG_HISTORY - 10 :]
    mean, squares, slope = temp[0], temp[1], temp[2]
    window_mean(close, long_runs[CLOSE, 1:], int64(20), mean)
    window_squares(close, mean, int64(20), squares)
    window_slope(close, int64(20), slope)
    for k in range(out.size):
        sigma, both = math.sqrt(squares[k] / 19.0), slope[k]
        mean[k] = (own[k] - mean[k]) / sigma if sigma != 0.0 else np.nan
        slope[k] = both / LINE_SQUARES
        squares[k] = both * both / (LINE_SQUARES * squares[k]) if squares[k] != 0.0 else np.nan
    publish(mean, m.seen, int64(19), out["price_zscore_20"])
    publish(slope, m.seen, int64(19), out["linreg_slope_20"])
    publish(squares, m.seen, int64(19), out["linreg_r2_20"])
    typical, distances, path = short[TYPICAL, SHORT_HISTORY:], temp[1], temp[2]
    window_mean(short[TYPICAL], short_runs[TYPICAL, 1:], int64(20), mean)
    window_distances(short[TYPICAL], mean, int64(20), distances)
    window_sum(short[DISTANCE], int64(10), path)
    for k in range(out.size):
        away = 0.015 * (distances[k] / 20.0)
        mean[k] = (typical[k] - mean[k]) / away if away != 0.0 else 0.0
        path[k] = abs(own[k] - before[k]) / path[k] if path[k] != 0.0 else 0.0
    publish(mean, m.seen, int64(19), out["cci_20"])
    publish(path, m.seen, int64(10), out["efficiency_ratio_10"])
    window_mean(short[STOCHASTIC], short_runs[STOCHASTIC, 1:], int64(3), mean)
    publish(mean, m.seen, int64(15), out["stoch_d_3"])

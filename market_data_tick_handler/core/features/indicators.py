"""Group `indicators`: the HFT set of features.md 9.8, computed from closed candles.

`MEMORY` keeps the last HISTORY values of every input series, computed once per candle, and the recursive filters. A
block of candles is laid behind that history and every column is swept over it (rolling.py, moving.py, spreads.py).
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy import int64

from market_data_tick_handler.core.features.contract import CandleGroup
from market_data_tick_handler.core.features.moving import ema, rsi
from market_data_tick_handler.core.features.rolling import (
    BLOCK,
    keep_newest,
    kernel,
    null_unless_finite,
    publish,
    recall,
    run_lengths,
    window_mean,
    window_mean_present,
    window_squares,
    window_sum,
)
from market_data_tick_handler.core.features.spreads import (
    abdi_ranaldo_spread,
    corwin_schultz,
    illiquidity,
    ols_slope,
    roll_spread,
)
from market_data_tick_handler.core.ticks import Array
from market_data_tick_handler.core.timeframes import ALL_TIMEFRAMES, DAY_US, SECOND_US

COLUMNS: Final = (
    *("sma_5", "sma_10", "sma_20", "ema_5", "ema_10", "ema_20", "wma_5"),
    *("price_momentum_3", "price_momentum_5", "price_momentum_10", "price_momentum_20"),
    *("price_velocity", "price_acceleration", "price_volatility_5", "price_volatility_10", "price_volatility_20"),
    *("volume_sma_5", "volume_sma_10", "volume_sma_20", "volume_ema_5", "volume_ratio", "volume_ratio_20"),
    *("volume_momentum_5", "volume_volatility_5", "volume_momentum_10", "volume_volatility_10"),
    *("vwap_deviation", "vwap_20", "vwap_session", "rsi_5"),
    *("bollinger_middle", "bollinger_upper", "bollinger_lower", "bollinger_width", "bollinger_position"),
    *("macd", "macd_signal", "macd_histogram", "ema_12", "ema_26"),
    *("roll_spread_bps_20", "corwin_schultz_spread_bps_20", "abdi_ranaldo_spread_bps_20"),
    *("amihud_20", "kyle_lambda_20", "hasbrouck_lambda_20"),
)

# Widths are passed as int64(20), not 20: Numba compiles a callee again for every literal integer it is given.

# The longest window looks back 20 candles from the current one.
HISTORY: Final = 20

# Rows of the history. The first GUARDED of them are averaged and need the lengths of their runs of equal values.
CLOSE, VOLUME, CHANGE, RETURN, DELTA, PRESSURE, BAR_SPREAD, ETA, QUOTE, BASE, AMIHUD = range(11)
SERIES: Final = 11
GUARDED: Final = 8
TEMPS: Final = 4

# Slots of the recursive filters' state.
EMA_5, EMA_10, EMA_20, EMA_12, EMA_26, EMA_VOLUME, EMA_MACD, GAIN, LOSS = range(9)

MEMORY: Final = np.dtype(
    [
        ("seen", "i8"),
        ("day", "i8"),
        ("session_quote", "f8"),
        ("session_base", "f8"),
        ("high", "f8"),
        ("low", "f8"),
        ("log_close", "f8"),
        ("eta", "f8"),
        ("filters", "f8", (9,)),
        ("runs", "i8", (GUARDED,)),
        ("history", "f8", (SERIES, HISTORY)),
    ]
)
OUT: Final = np.dtype([(name, "f8") for name in COLUMNS])


@kernel
def _lay_out(m: Any, candles: Array, work: Array) -> None:
    """Put the inputs of a block behind the history, one row per series."""
    recall(m.history, work)
    for k in range(candles.size):
        c, i = candles[k], HISTORY + k
        previous = work[CLOSE, i - 1]
        work[CLOSE, i], work[VOLUME, i] = c.close, c.volume
        work[DELTA, i], work[PRESSURE, i] = c.volume_delta, c.signed_sqrt_notional
        work[QUOTE, i], work[BASE, i] = c.quote_volume, c.vwap_base_volume
        log_close = math.log(c.close)
        eta = (math.log(c.high) + math.log(c.low)) / 2.0
        if m.seen + k > 0:
            work[CHANGE, i] = c.close - previous
            work[RETURN, i] = math.log(c.close / previous)
            work[BAR_SPREAD, i] = corwin_schultz(c.high, c.low, m.high, m.low)
            work[ETA, i] = (m.log_close - m.eta) * (m.log_close - eta)
            work[AMIHUD, i] = illiquidity(work[RETURN, i], c.quote_volume)
        else:
            for row in (CHANGE, RETURN, BAR_SPREAD, ETA, AMIHUD):
                work[row, i] = np.nan
        m.high, m.low, m.log_close, m.eta = c.high, c.low, log_close, eta


@kernel
def _momentum(row: Array, lag: int, seen: int, column: Array) -> None:
    """(x_i - x_{i-lag}) / x_{i-lag}; null where that is 0."""
    first = row.size - column.size
    for k in range(column.size):
        old = row[first + k - lag]
        column[k] = (row[first + k] - old) / old if seen + k >= lag and old != 0.0 else np.nan


@kernel
def _deviation(row: Array, runs: Array, width: int, temp: Array, seen: int, warmup: int, column: Array) -> None:
    """Sample standard deviation (ddof 1) of each window."""
    window_mean(row, runs, width, temp[1])
    window_squares(row, temp[1], width, temp[0])
    for k in range(column.size):
        temp[0, k] = math.sqrt(temp[0, k] / (width - 1))
    publish(temp[0], seen, warmup, column)


@kernel
def _trend(m: Any, work: Array, runs: Array, temp: Array, step_us: int, out: Array) -> None:
    """Weighted average, momentum, velocity, acceleration and volatility of the close."""
    seen, step_s = m.seen, step_us / SECOND_US
    close, change = work[CLOSE], work[CHANGE]
    wma, velocity, acceleration = out["wma_5"], out["price_velocity"], out["price_acceleration"]
    for k in range(out.size):
        i = HISTORY + k
        total = 0.0
        for j in range(5):
            total += (j + 1) * close[i - 4 + j]
        wma[k] = total / 15.0 if seen + k >= 4 else np.nan
        speed = change[i] / step_s
        velocity[k] = speed if seen + k >= 1 else np.nan
        acceleration[k] = (speed - change[i - 1] / step_s) / step_s if seen + k >= 2 else np.nan
    _momentum(close, int64(3), seen, out["price_momentum_3"])
    _momentum(close, int64(5), seen, out["price_momentum_5"])
    _momentum(close, int64(10), seen, out["price_momentum_10"])
    _momentum(close, int64(20), seen, out["price_momentum_20"])
    _deviation(work[RETURN], runs[RETURN, 1:], int64(5), temp, seen, int64(5), out["price_volatility_5"])
    _deviation(work[RETURN], runs[RETURN, 1:], int64(10), temp, seen, int64(10), out["price_volatility_10"])
    _deviation(work[RETURN], runs[RETURN, 1:], int64(20), temp, seen, int64(20), out["price_volatility_20"])


@kernel
def _bands(m: Any, work: Array, runs: Array, temp: Array, out: Array) -> None:
    """Simple averages of the close and the Bollinger bands around the longest."""
    close, run = work[CLOSE], runs[CLOSE, 1:]
    window_mean(close, run, int64(5), temp[0])
    publish(temp[0], m.seen, int64(4), out["sma_5"])
    window_mean(close, run, int64(10), temp[0])
    publish(temp[0], m.seen, int64(9), out["sma_10"])
    window_mean(close, run, int64(20), temp[0])
    publish(temp[0], m.seen, int64(19), out["sma_20"])
    publish(temp[0], m.seen, int64(19), out["bollinger_middle"])
    window_squares(close, temp[0], int64(20), temp[1])
    for k in range(out.size):
        middle, sigma = temp[0, k], math.sqrt(temp[1, k] / 20)
        upper, lower = middle + 2.0 * sigma, middle - 2.0 * sigma
        temp[0, k], temp[1, k] = upper, lower
        temp[2, k] = (upper - lower) / middle
        temp[3, k] = (close[HISTORY + k] - lower) / (upper - lower) if upper != lower else 0.5
    publish(temp[0], m.seen, int64(19), out["bollinger_upper"])
    publish(temp[1], m.seen, int64(19), out["bollinger_lower"])
    publish(temp[2], m.seen, int64(19), out["bollinger_width"])
    publish(temp[3], m.seen, int64(19), out["bollinger_position"])


@kernel
def _filters(m: Any, work: Array, runs: Array, temp: Array, out: Array) -> None:
    """Exponential averages, MACD and RSI."""
    close, run, f = work[CLOSE, HISTORY:], runs[CLOSE, 1:], m.filters
    ema(close, run, m.seen, int64(5), f[EMA_5 : EMA_5 + 1], out["ema_5"])
    ema(close, run, m.seen, int64(10), f[EMA_10 : EMA_10 + 1], out["ema_10"])
    ema(close, run, m.seen, int64(20), f[EMA_20 : EMA_20 + 1], out["ema_20"])
    ema(close, run, m.seen, int64(12), f[EMA_12 : EMA_12 + 1], out["ema_12"])
    ema(close, run, m.seen, int64(26), f[EMA_26 : EMA_26 + 1], out["ema_26"])
    ema(work[VOLUME, HISTORY:], runs[VOLUME, 1:], m.seen, int64(5), f[EMA_VOLUME : EMA_VOLUME + 1], out["volume_ema_5"])
    rsi(work[CHANGE, HISTORY:], m.seen - 1, int64(5), f[GAIN : LOSS + 1], out["rsi_5"])
    macd, histogram, signal = temp[0], temp[1], out["macd_signal"]
    for k in range(out.size):
        macd[k] = out["ema_12"][k] - out["ema_26"][k]
    ema(macd, runs[CLOSE, 1:], m.seen - 25, int64(9), f[EMA_MACD : EMA_MACD + 1], signal)
    for k in range(out.size):
        histogram[k] = macd[k] - signal[k]
    publish(macd, m.seen, int64(25), out["macd"])
    publish(histogram, m.seen, int64(33), out["macd_histogram"])


@kernel
def _volume(m: Any, work: Array, runs: Array, temp: Array, out: Array) -> None:
    """Averages, ratios, momentum and deviation of the volume."""
    volume, run = work[VOLUME], runs[VOLUME, 1:]
    window_mean(volume, run, int64(10), temp[0])
    publish(temp[0], m.seen, int64(9), out["volume_sma_10"])
    window_mean(volume, run, int64(5), temp[0])
    publish(temp[0], m.seen, int64(4), out["volume_sma_5"])
    window_mean(volume, run, int64(20), temp[1])
    publish(temp[1], m.seen, int64(19), out["volume_sma_20"])
    for k in range(out.size):
        for row in range(2):
            average = temp[row, k]
            temp[row, k] = volume[HISTORY + k] / average if average != 0.0 else np.nan
    publish(temp[0], m.seen, int64(4), out["volume_ratio"])
    publish(temp[1], m.seen, int64(19), out["volume_ratio_20"])
    _momentum(volume, int64(5), m.seen, out["volume_momentum_5"])
    _momentum(volume, int64(10), m.seen, out["volume_momentum_10"])
    _deviation(volume, run, int64(5), temp, m.seen, int64(4), out["volume_volatility_5"])
    _deviation(volume, run, int64(10), temp, m.seen, int64(9), out["volume_volatility_10"])


@kernel
def _vwaps(m: Any, candles: Array, work: Array, temp: Array, out: Array) -> None:
    """Rolling and session VWAP, deviation of the close from the candle's own."""
    window_sum(work[QUOTE], int64(20), temp[0])
    window_sum(work[BASE], int64(20), temp[1])
    deviation, session, rolling = out["vwap_deviation"], out["vwap_session"], out["vwap_20"]
    for k in range(out.size):
        c = candles[k]
        day = c.timestamp // DAY_US
        if day != m.day:
            m.day, m.session_quote, m.session_base = day, 0.0, 0.0
        m.session_quote += c.quote_volume
        m.session_base += c.vwap_base_volume
        deviation[k] = (c.close - c.price_vwap) / c.price_vwap if c.price_vwap != 0.0 else np.nan
        session[k] = m.session_quote / m.session_base if m.session_base != 0.0 else np.nan
        rolling[k] = temp[0, k] / temp[1, k] if m.seen + k >= 19 and temp[1, k] != 0.0 else np.nan


@kernel
def _liquidity(m: Any, work: Array, runs: Array, temp: Array, out: Array) -> None:
    """Spread estimates, illiquidity and price-impact slopes."""
    roll_spread(work[RETURN], runs[RETURN], int64(20), temp)
    publish(temp[0], m.seen, int64(21), out["roll_spread_bps_20"])
    window_mean(work[BAR_SPREAD], runs[BAR_SPREAD, 1:], int64(20), temp[0])
    for k in range(out.size):
        temp[0, k] = 1e4 * temp[0, k]
    publish(temp[0], m.seen, int64(20), out["corwin_schultz_spread_bps_20"])
    abdi_ranaldo_spread(work[ETA], runs[ETA, 1:], int64(20), temp)
    publish(temp[0], m.seen, int64(20), out["abdi_ranaldo_spread_bps_20"])
    window_mean_present(work[AMIHUD], int64(20), temp[0])
    publish(temp[0], m.seen, int64(20), out["amihud_20"])
    ols_slope(work[DELTA], runs[DELTA, 1:], work[CHANGE], runs[CHANGE, 1:], int64(20), temp)
    publish(temp[0], m.seen, int64(20), out["kyle_lambda_20"])
    ols_slope(work[PRESSURE], runs[PRESSURE, 1:], work[RETURN], runs[RETURN, 1:], int64(20), temp)
    publish(temp[0], m.seen, int64(20), out["hasbrouck_lambda_20"])


@kernel
def _finish(memory: Array, candles: Array, step_us: int, out: Array, values: Array) -> None:
    """`values` is `out` as a flat row of floats."""
    m = memory[0]
    for start in range(0, candles.size, BLOCK):
        size = min(BLOCK, candles.size - start)
        block, columns = candles[start : start + size], out[start : start + size]
        work, temp = np.empty((SERIES, HISTORY + size)), np.empty((TEMPS, size))
        runs = np.empty((GUARDED, size + 1), int64)
        _lay_out(m, block, work)
        for row in range(GUARDED):
            run_lengths(work[row], m.runs[row], runs[row])
            m.runs[row] = runs[row, size]
        _trend(m, work, runs, temp, step_us, columns)
        _bands(m, work, runs, temp, columns)
        _filters(m, work, runs, temp, columns)
        _volume(m, work, runs, temp, columns)
        _vwaps(m, block, work, temp, columns)
        _liquidity(m, work, runs, temp, columns)
        keep_newest(work, m.history)
        m.seen += size
    null_unless_finite(values)


class Indicators:
    """The candle group `indicators`. `warmup_bars` of the row tells how far the recursive columns have converged."""

    __slots__ = ()
    name: str = "indicators"
    timeframes = ALL_TIMEFRAMES
    columns: tuple[str, ...] = COLUMNS
    MEMORY = MEMORY
    OUT = OUT

    def finish(self, memory: Array, candles: Array, step_us: int, out: Array) -> None:
        """See `CandleGroup.finish`. `out` must be contiguous."""
        _finish(memory, candles, step_us, out, out.view(np.float64))


GROUP: Final[CandleGroup] = Indicators()

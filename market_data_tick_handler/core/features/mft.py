"""Group `mft`: the slower set of features.md 9.9, computed from closed candles of 1m and above.

The plan is that of indicators.py: `MEMORY` keeps the newest values of every input series, computed once per candle, and
the recursive filters; a block of candles is laid behind them and every column is swept over it. The series live in
three tables, by how far back their longest window reaches (mft_layout.py).
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy import int64

from market_data_tick_handler.core.features import mft_layout
from market_data_tick_handler.core.features.contract import CandleGroup
from market_data_tick_handler.core.features.mft_flow import volume_columns
from market_data_tick_handler.core.features.mft_layout import (
    BASIS,
    CLOSE,
    COLUMNS,
    DISTANCE,
    FUNDING,
    HIGH,
    INFLOW,
    INTRADAY,
    JUMP,
    LOCATED,
    LOG_CLOSE,
    LONG_GUARDED,
    LONG_HISTORY,
    LONG_SERIES,
    LOW,
    MEDIUM_GUARDED,
    MEDIUM_HISTORY,
    MEDIUM_SERIES,
    OUTFLOW,
    OVERNIGHT,
    RANGE_KLASS,
    RANGE_SATCHELL,
    RANGE_SQUARE,
    RETURN,
    SHORT_GUARDED,
    SHORT_HISTORY,
    SHORT_SERIES,
    TYPICAL,
    VARIANCE,
    VOLUME,
)
from market_data_tick_handler.core.features.mft_moments import moment_columns
from market_data_tick_handler.core.features.mft_trend import (
    average_columns,
    channel_columns,
    directional_columns,
    fit_columns,
)
from market_data_tick_handler.core.features.mft_volatility import range_columns, score_columns
from market_data_tick_handler.core.features.rolling import (
    BLOCK,
    keep_newest,
    kernel,
    null_unless_finite,
    recall,
    run_lengths,
)
from market_data_tick_handler.core.features.windows import SCRATCH
from market_data_tick_handler.core.ticks import Array
from market_data_tick_handler.core.timeframes import ALL_TIMEFRAMES, Timeframe

__all__ = ["COLUMNS", "GROUP", "MEMORY", "OUT"]

MEMORY: Final = mft_layout.MEMORY
OUT: Final = mft_layout.OUT
TEMPS: Final = 6
# 2 ln 2 - 1, of Garman and Klass.
KLASS: Final = 2.0 * math.log(2.0) - 1.0


@kernel
def _ranges(c: Any, short: Array, i: int) -> None:
    """Terms of the range volatilities: Parkinson, Garman-Klass, Rogers-Satchell, and ln(c/o) of Yang-Zhang."""
    own, body = math.log(c.high / c.low), math.log(c.close / c.open)
    short[RANGE_SQUARE, i] = own * own
    short[RANGE_KLASS, i] = 0.5 * (own * own) - KLASS * (body * body)
    up = math.log(c.high / c.close) * math.log(c.high / c.open)
    short[RANGE_SATCHELL, i] = up + math.log(c.low / c.close) * math.log(c.low / c.open)
    short[INTRADAY, i] = body


@kernel
def _flows(c: Any, short: Array, i: int) -> None:
    """Volume weighted with the close's place in the range; money flow by the direction of the typical price."""
    span = c.high - c.low
    place = ((c.close - c.low) - (c.high - c.close)) / span if span != 0.0 else 0.0
    short[LOCATED, i] = place * c.volume
    typical, before = (c.high + c.low + c.close) / 3.0, short[TYPICAL, i - 1]
    money = typical * c.volume
    short[TYPICAL, i] = typical
    short[INFLOW, i] = money if typical > before else 0.0
    short[OUTFLOW, i] = money if typical < before else 0.0


@kernel
def _lay_out(m: Any, candles: Array, long: Array, medium: Array, short: Array) -> None:
    """Put the inputs of a block behind the history, one row per series."""
    recall(m.long, long)
    recall(m.medium, medium)
    recall(m.short, short)
    for k in range(candles.size):
        c, at, i = candles[k], LONG_HISTORY + k, SHORT_HISTORY + k
        long[CLOSE, at], long[LOG_CLOSE, at] = c.close, math.log(c.close)
        short[HIGH, i], short[LOW, i], short[VOLUME, i] = c.high, c.low, c.volume
        _ranges(c, short, i)
        _flows(c, short, i)
        first, before = m.seen + k == 0, long[CLOSE, at - 1]
        short[OVERNIGHT, i] = np.nan if first else math.log(c.open / before)
        short[DISTANCE, i] = np.nan if first else abs(c.close - before)
        j = MEDIUM_HISTORY + k
        medium[RETURN, j] = np.nan if first else math.log(c.close / before)
        medium[VARIANCE, j], medium[JUMP, j] = c.rv_1s, c.jump_1s
        medium[FUNDING, j], medium[BASIS, j] = c.funding_rate, c.basis_bps_tw


@kernel
def _run(table: Array, carried: Array, runs: Array) -> None:
    """Lengths of the runs of equal values of the guarded rows; `carried` moves on."""
    for row in range(carried.size):
        run_lengths(table[row], carried[row], runs[row])
        carried[row] = runs[row, runs.shape[1] - 1]


@kernel
def _finish(memory: Array, candles: Array, out: Array, values: Array) -> None:
    """`values` is `out` as a flat row of floats."""
    m = memory[0]
    for start in range(0, candles.size, BLOCK):
        size = min(BLOCK, candles.size - start)
        block, columns = candles[start : start + size], out[start : start + size]
        long = np.empty((LONG_SERIES, LONG_HISTORY + size))
        medium = np.empty((MEDIUM_SERIES, MEDIUM_HISTORY + size))
        short = np.empty((SHORT_SERIES, SHORT_HISTORY + size))
        long_runs = np.empty((LONG_GUARDED, size + 1), int64)
        medium_runs = np.empty((MEDIUM_GUARDED, size + 1), int64)
        short_runs = np.empty((SHORT_GUARDED, size + 1), int64)
        temp, scratch = np.empty((TEMPS, size)), np.empty((SCRATCH, LONG_HISTORY + size))
        _lay_out(m, block, long, medium, short)
        _run(long, m.long_runs, long_runs)
        _run(medium, m.medium_runs, medium_runs)
        average_columns(m, long, long_runs, temp, scratch, columns)
        directional_columns(m, long, short, columns)
        channel_columns(m, long, short, temp, scratch, columns)
        _run(short, m.short_runs, short_runs)
        fit_columns(m, long, long_runs, short, short_runs, temp, columns)
        volume_columns(m, block, long, short, short_runs, temp, columns)
        range_columns(m, short, short_runs, temp, columns)
        moment_columns(m, long, medium, medium_runs, temp, scratch, columns)
        score_columns(m, long, medium, medium_runs, temp, columns)
        keep_newest(long, m.long)
        keep_newest(medium, m.medium)
        keep_newest(short, m.short)
        m.seen += size
    null_unless_finite(values)


class MediumFrequency:
    """The candle group `mft`. `warmup_bars` of the row tells how far the recursive columns have converged."""

    __slots__ = ()
    name: str = "mft"
    timeframes: tuple[Timeframe, ...] = ALL_TIMEFRAMES[1:]
    columns: tuple[str, ...] = COLUMNS
    MEMORY = MEMORY
    OUT = OUT

    def finish(self, memory: Array, candles: Array, step_us: int, out: Array) -> None:
        """See `CandleGroup.finish`; `step_us` plays no part. `out` must be contiguous."""
        _finish(memory, candles, out, out.view(np.float64))


GROUP: Final[CandleGroup] = MediumFrequency()

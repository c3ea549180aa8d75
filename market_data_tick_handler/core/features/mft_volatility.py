"""Volatility columns of the group `mft`: from candle ranges, from the 1 s grid, and the derivative z-scores."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy import int64

from market_data_tick_handler.core.features.mft_flow import zscores
from market_data_tick_handler.core.features.mft_layout import (
    BASIS,
    CLOSE,
    FUNDING,
    INTRADAY,
    JUMP,
    OVERNIGHT,
    RANGE_KLASS,
    RANGE_SATCHELL,
    RANGE_SQUARE,
    VARIANCE,
)
from market_data_tick_handler.core.features.rolling import kernel, publish, window_mean, window_squares, window_sum
from market_data_tick_handler.core.features.windows import window_drawdown
from market_data_tick_handler.core.ticks import Array

PARKINSON: Final = 4.0 * 20.0 * math.log(2.0)
# Weight of the intraday variance of Yang and Zhang over 20 candles.
INTRADAY_WEIGHT: Final = 0.34 / (1.34 + 21.0 / 19.0)


@kernel
def _root(variances: Array) -> None:
    """Square roots in place; null where rounding or an odd window left a negative variance."""
    for k in range(variances.size):
        variances[k] = math.sqrt(variances[k]) if variances[k] >= 0.0 else np.nan


@kernel
def range_columns(m: Any, short: Array, runs: Array, temp: Array, out: Array) -> None:
    """Parkinson, Garman-Klass, Rogers-Satchell and Yang-Zhang over 20 candles."""
    variance, mean, squares = temp[0], temp[1], temp[2]
    window_sum(short[RANGE_SQUARE], int64(20), variance)
    for k in range(out.size):
        variance[k] = math.sqrt(variance[k] / PARKINSON)
    publish(variance, m.seen, int64(19), out["parkinson_vol_20"])
    window_mean(short[RANGE_KLASS], runs[RANGE_KLASS, 1:], int64(20), variance)
    _root(variance)
    publish(variance, m.seen, int64(19), out["garman_klass_vol_20"])
    window_mean(short[RANGE_SATCHELL], runs[RANGE_SATCHELL, 1:], int64(20), variance)
    for k in range(out.size):
        temp[3, k] = (1.0 - INTRADAY_WEIGHT) * variance[k]
    _root(variance)
    publish(variance, m.seen, int64(19), out["rogers_satchell_vol_20"])
    window_mean(short[OVERNIGHT], runs[OVERNIGHT, 1:], int64(20), mean)
    window_squares(short[OVERNIGHT], mean, int64(20), variance)
    window_mean(short[INTRADAY], runs[INTRADAY, 1:], int64(20), mean)
    window_squares(short[INTRADAY], mean, int64(20), squares)
    for k in range(out.size):
        variance[k] = variance[k] / 19.0 + INTRADAY_WEIGHT * (squares[k] / 19.0) + temp[3, k]
    _root(variance)
    publish(variance, m.seen, int64(20), out["yang_zhang_vol_20"])


@kernel
def score_columns(m: Any, long: Array, medium: Array, runs: Array, temp: Array, out: Array) -> None:
    """Realised volatility and jumps of 60 candles, deepest fall, z-scores of funding and basis."""
    window_sum(medium[VARIANCE], int64(60), temp[0])
    window_sum(medium[JUMP], int64(60), temp[1])
    for k in range(out.size):
        temp[1, k] = temp[1, k] / temp[0, k] if temp[0, k] != 0.0 else np.nan
        temp[0, k] = math.sqrt(temp[0, k])
    publish(temp[0], m.seen, int64(59), out["realized_vol_60"])
    publish(temp[1], m.seen, int64(59), out["jump_ratio_60"])
    window_drawdown(long[CLOSE], int64(60), temp[1], temp[0])
    publish(temp[0], m.seen, int64(59), out["max_drawdown_60"])
    zscores(medium[FUNDING], runs[FUNDING, 1:], int64(60), temp)
    publish(temp[0], m.seen, int64(59), out["funding_zscore_60"])
    zscores(medium[BASIS], runs[BASIS, 1:], int64(60), temp)
    publish(temp[0], m.seen, int64(59), out["basis_zscore_60"])

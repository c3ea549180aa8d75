"""Volume columns of the group `mft`: money flow, on-balance volume, Chaikin's flow, z-score of the volume."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy import int64

from market_data_tick_handler.core.features.mft_layout import (
    CLOSE,
    INFLOW,
    LOCATED,
    LONG_HISTORY,
    OUTFLOW,
    VOLUME,
)
from market_data_tick_handler.core.features.rolling import kernel, publish, window_mean, window_squares, window_sum
from market_data_tick_handler.core.ticks import Array
from market_data_tick_handler.core.timeframes import DAY_US


@kernel
def zscores(row: Array, runs: Array, width: int, temp: Array) -> None:
    """temp[0] = distance of each value from its window's mean in sample deviations; null where those are 0."""
    score, squares = temp[0], temp[1]
    window_mean(row, runs, width, score)
    window_squares(row, score, width, squares)
    values = row[row.size - score.size :]
    for k in range(score.size):
        sigma = math.sqrt(squares[k] / (width - 1))
        score[k] = (values[k] - score[k]) / sigma if sigma != 0.0 else np.nan


@kernel
def _on_balance(m: Any, candles: Array, close: Array, column: Array) -> None:
    """Volume signed by the direction of the close, summed since 00:00 UTC. close: the one before the block first."""
    for k in range(candles.size):
        day = candles[k].timestamp // DAY_US
        if day != m.day:
            m.day, m.on_balance = day, 0.0
        if m.seen + k > 0:
            if close[k + 1] > close[k]:
                m.on_balance += candles[k].volume
            elif close[k + 1] < close[k]:
                m.on_balance -= candles[k].volume
        column[k] = m.on_balance


@kernel
def volume_columns(m: Any, candles: Array, long: Array, short: Array, runs: Array, temp: Array, out: Array) -> None:
    """Columns of the volume."""
    _on_balance(m, candles, long[CLOSE, LONG_HISTORY - 1 :], out["obv_session"])
    zscores(short[VOLUME], runs[VOLUME, 1:], int64(20), temp)
    publish(temp[0], m.seen, int64(19), out["volume_zscore_20"])
    window_sum(short[INFLOW], int64(14), temp[0])
    window_sum(short[OUTFLOW], int64(14), temp[1])
    for k in range(out.size):
        both = temp[0, k] + temp[1, k]
        temp[0, k] = 100.0 * (temp[0, k] / both) if both != 0.0 else 50.0
    publish(temp[0], m.seen, int64(14), out["mfi_14"])
    window_sum(short[LOCATED], int64(20), temp[0])
    window_sum(short[VOLUME], int64(20), temp[1])
    for k in range(out.size):
        temp[0, k] = temp[0, k] / temp[1, k] if temp[1, k] != 0.0 else np.nan
    publish(temp[0], m.seen, int64(19), out["cmf_20"])

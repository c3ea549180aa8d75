"""Recursive filters of the indicator group: what one candle leaves in them never quite goes away.

Seeding is TA-Lib's classic one everywhere: the plain mean of the first `period` inputs, null before it
(features.md 5.2). Until then the state holds the running sum of the inputs.
"""

from __future__ import annotations

import numpy as np

from market_data_tick_handler.core.features.rolling import kernel
from market_data_tick_handler.core.ticks import Array


@kernel
def ema(values: Array, runs: Array, seen: int, period: int, state: Array, out: Array) -> None:
    """Exponential moving average, v += 2/(period+1) * (x - v), of a block of `values` into `out`.

    runs: lengths of the runs of equal values, so that a flat start is seeded with the value itself.
    seen: inputs before this block; negative while the inputs have not begun.
    state: shape (1,), moved on in place.
    """
    weight = 2.0 / (period + 1)
    v = state[0]
    for k in range(values.size):
        index = seen + k
        x = values[k]
        if index >= period:
            v = v + weight * (x - v)
        elif index >= 0:
            v = x if index == 0 else v + x
            if index == period - 1:
                v = x if runs[k] >= period else v / period
        out[k] = v if index >= period - 1 else np.nan
    state[0] = v


@kernel
def wilder(average: float, x: float, index: int, period: int) -> float:
    """Wilder's average after input `index` (0 is the first): seeded with a mean, then (v*(period-1) + x) / period."""
    if index >= period:
        return (average * (period - 1) + x) / period
    total = average + x
    return total / period if index == period - 1 else total


@kernel
def rsi(changes: Array, seen: int, period: int, state: Array, out: Array) -> None:
    """Relative strength index 0..100 of a block of close-to-close `changes`; 50 when nothing has moved.

    seen: changes before this block, -1 when the first candle (which has no change) opens the block.
    state: shape (2,), average gain and average loss, moved on in place.
    """
    gain, loss = state[0], state[1]
    for k in range(changes.size):
        index = seen + k
        if index >= 0:
            change = changes[k]
            gain = wilder(gain, change if change > 0.0 else 0.0, index, period)
            loss = wilder(loss, -change if change < 0.0 else 0.0, index, period)
        if index < period - 1:
            out[k] = np.nan
        elif gain + loss == 0.0:
            out[k] = 50.0
        else:
            out[k] = 100.0 * (gain / (gain + loss))
    state[0], state[1] = gain, loss

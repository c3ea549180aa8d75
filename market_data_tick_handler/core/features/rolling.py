"""Rolling windows recomputed from scratch on every candle, swept over a block of candles at once.

A series of a block is one contiguous row: `history` old values, then the block's own. `out[k]` belongs to the k-th
candle of the block, and its window is the `width` values that end there. The outer loop runs over the window, oldest to
newest, and the inner one over the candles: every candle gets exactly the left-to-right sum that a loop of its own would
give, bit for bit, and the inner loop vectorises because it never adds across candles. A block of one candle therefore
gives what a block of a thousand gives (features.md 4, N2 and "column sweep").
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit

from market_data_tick_handler.core.ticks import Array

# Candles per block: the rows of one block stay in the first-level cache.
BLOCK: Final = 256

# IEEE division (x/0 is infinite or null) instead of an exception, and never fastmath: its reorderings change bits.
kernel: Final[Any] = njit(cache=True, nogil=True, error_model="numpy")


@kernel
def recall(history: Array, work: Array) -> None:
    """Put the history of every series in front of the block's own values. Loops, because slices compile slowly."""
    for row in range(history.shape[0]):
        for j in range(history.shape[1]):
            work[row, j] = history[row, j]


@kernel
def keep_newest(work: Array, history: Array) -> None:
    """The newest values of every series become its history."""
    first = work.shape[1] - history.shape[1]
    for row in range(history.shape[0]):
        for j in range(history.shape[1]):
            history[row, j] = work[row, first + j]


@kernel
def run_lengths(row: Array, carried: int, out: Array) -> None:
    """Fill out[k + 1] with how many equal values end at candle k; out[0] is `carried`, the run before the block.

    A run of at least `width` is a flat window: its mean is the value itself and every deviation is exactly 0, which
    a sum divided by `width` would miss in most flat windows.
    """
    values = row[row.size - out.size + 1 :]
    before = row[row.size - values.size - 1] if carried > 0 else np.nan
    run = carried
    out[0] = run
    for k in range(values.size):
        value = values[k]
        run = run + 1 if value == before else 1
        before = value
        out[k + 1] = run


@kernel
def window_sum(row: Array, width: int, out: Array) -> None:
    """Sum of each window."""
    first = row.size - out.size - width + 1
    oldest = row[first : first + out.size]
    for k in range(out.size):
        out[k] = oldest[k]
    j, end = first + 1, first + width
    while j + 4 <= end:
        # Four at a time: the sum is loaded and stored once for them, and added up in the same order.
        a, b, c, d = row[j : j + out.size], row[j + 1 :], row[j + 2 :], row[j + 3 :]
        for k in range(out.size):
            out[k] = out[k] + a[k] + b[k] + c[k] + d[k]
        j += 4
    while j < end:
        values = row[j : j + out.size]
        for k in range(out.size):
            out[k] += values[k]
        j += 1


@kernel
def window_mean(row: Array, runs: Array, width: int, out: Array) -> None:
    """Mean of each window, exact where the window is flat; `runs` are the run lengths at the block's candles."""
    window_sum(row, width, out)
    values = row[row.size - out.size :]
    for k in range(out.size):
        out[k] = values[k] if runs[k] >= width else out[k] / width


@kernel
def window_squares(row: Array, mean: Array, width: int, out: Array) -> None:
    """Sum of squared deviations from `mean` over each window."""
    first = row.size - out.size - width + 1
    out[:] = 0.0
    for j in range(first, first + width):
        values = row[j : j + out.size]
        for k in range(out.size):
            deviation = values[k] - mean[k]
            out[k] += deviation * deviation


@kernel
def window_products(x: Array, x_mean: Array, y: Array, y_mean: Array, width: int, out: Array) -> None:
    """Sum of (x - mean of x)(y - mean of y) over each window; the rows may have histories of different length."""
    x_first = x.size - out.size - width + 1
    y_first = y.size - out.size - width + 1
    out[:] = 0.0
    for j in range(width):
        xs = x[x_first + j : x_first + j + out.size]
        ys = y[y_first + j : y_first + j + out.size]
        for k in range(out.size):
            out[k] += (xs[k] - x_mean[k]) * (ys[k] - y_mean[k])


@kernel
def window_mean_present(row: Array, width: int, out: Array) -> None:
    """Mean of the non-null values of each window; null when there are none."""
    first = row.size - out.size - width + 1
    for k in range(out.size):
        total, count = 0.0, 0
        for value in row[first + k : first + k + width]:
            if value == value:
                total += value
                count += 1
        out[k] = total / count if count else np.nan


@kernel
def publish(values: Array, seen: int, warmup: int, column: Array) -> None:
    """Copy a block of `values` into an output column, null in the first `warmup` candles of the series.

    seen: candles before this block.
    """
    for k in range(values.size):
        column[k] = values[k] if seen + k >= warmup else np.nan


@kernel
def null_unless_finite(values: Array) -> None:
    """Turn what overflowed into null: infinity never leaves a group."""
    for k in range(values.size):
        if not np.isfinite(values[k]):
            values[k] = np.nan

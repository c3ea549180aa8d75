"""Rolling windows that are cheaper than a sweep over every element, or that need more than a sum.

Layout and promise are those of rolling.py: a series is one row of old values and the block's own, and every candle's
value is computed from its own window in an order that does not depend on the block. Long sums and extremes are built by
doubling: windows of 2, 4, 8 ... values from two of half the length, the last one from those that fit. That is a
recomputation like any other, with nothing added and taken off again, in log2(width) passes instead of `width`.
"""

from __future__ import annotations

from typing import Final

from market_data_tick_handler.core.features.rolling import kernel
from market_data_tick_handler.core.ticks import Array

# Rows of scratch that the doubling needs, each as long as the series.
SCRATCH: Final = 2


@kernel
def _pair_sums(values: Array, distance: int, out: Array) -> None:
    left, right = values[: out.size], values[distance : distance + out.size]
    for k in range(out.size):
        out[k] = left[k] + right[k]


@kernel
def window_long_sum(row: Array, width: int, scratch: Array, out: Array) -> None:
    """Sum of each window, for widths where a sweep is slow. Parts of a power of two, the newest part the shortest."""
    size = out.size
    first = row.size - size - width + 1
    level, other = row[first:], scratch[0]
    span, newest, toggle = 1, width, 0
    while True:
        if width & span:
            # level[i] is the sum of `span` values from first + i; the part ends where the newer ones begin.
            newest -= span
            part = level[newest : newest + size]
            if newest + span == width:
                for k in range(size):
                    out[k] = part[k]
            else:
                for k in range(size):
                    out[k] = part[k] + out[k]
        if 2 * span > width:
            return
        other = scratch[toggle, : level.size - span]
        _pair_sums(level, span, other)
        level, span, toggle = other, 2 * span, 1 - toggle


@kernel
def window_long_mean(row: Array, runs: Array, width: int, scratch: Array, out: Array) -> None:
    """Mean of each window by `window_long_sum`, exact where the window is flat."""
    window_long_sum(row, width, scratch, out)
    values = row[row.size - out.size :]
    for k in range(out.size):
        out[k] = values[k] if runs[k] >= width else out[k] / width


@kernel
def _pair_highest(values: Array, distance: int, out: Array) -> None:
    left, right = values[: out.size], values[distance : distance + out.size]
    for k in range(out.size):
        out[k] = left[k] if left[k] > right[k] else right[k]


@kernel
def _pair_lowest(values: Array, distance: int, out: Array) -> None:
    left, right = values[: out.size], values[distance : distance + out.size]
    for k in range(out.size):
        out[k] = left[k] if left[k] < right[k] else right[k]


@kernel
def window_highest(row: Array, width: int, scratch: Array, out: Array) -> None:
    """Highest value of each window."""
    level, span, toggle = row[row.size - out.size - width + 1 :], 1, 0
    while 2 * span <= width:
        other = scratch[toggle, : level.size - span]
        _pair_highest(level, span, other)
        level, span, toggle = other, 2 * span, 1 - toggle
    _pair_highest(level, width - span, out)


@kernel
def window_lowest(row: Array, width: int, scratch: Array, out: Array) -> None:
    """Lowest value of each window."""
    level, span, toggle = row[row.size - out.size - width + 1 :], 1, 0
    while 2 * span <= width:
        other = scratch[toggle, : level.size - span]
        _pair_lowest(level, span, other)
        level, span, toggle = other, 2 * span, 1 - toggle
    _pair_lowest(level, width - span, out)


@kernel
def age_of_highest(row: Array, width: int, sign: float, out: Array) -> None:
    """Candles since the highest value of each window, the newest of equal ones; with `sign` -1 the lowest."""
    first = row.size - out.size
    at = -1
    for k in range(out.size):
        i = first + k
        if at > i - width:
            if sign * row[i] >= sign * row[at]:
                at = i
        else:
            at = i
            for j in range(i - 1, i - width, -1):
                if sign * row[j] > sign * row[at]:
                    at = j
        out[k] = i - at


@kernel
def window_distances(row: Array, mean: Array, width: int, out: Array) -> None:
    """Sum of absolute deviations from `mean` over each window."""
    first = row.size - out.size - width + 1
    out[:] = 0.0
    for j in range(first, first + width):
        values = row[j : j + out.size]
        for k in range(out.size):
            out[k] += abs(values[k] - mean[k])


@kernel
def window_moments(row: Array, mean: Array, width: int, second: Array, third: Array, fourth: Array) -> None:
    """Sums of the second, third and fourth power of the deviations from `mean` over each window."""
    size = mean.size
    first = row.size - size - width + 1
    second[:], third[:], fourth[:] = 0.0, 0.0, 0.0
    for j in range(first, first + width):
        values = row[j : j + size]
        for k in range(size):
            deviation = values[k] - mean[k]
            square = deviation * deviation
            second[k] += square
            third[k] += square * deviation
            fourth[k] += square * square


@kernel
def window_lagged(row: Array, mean: Array, width: int, lag: int, out: Array) -> None:
    """Sum of (x_t - mean)(x_{t-lag} - mean) over the pairs inside each window."""
    first = row.size - out.size - width + 1
    out[:] = 0.0
    for j in range(first + lag, first + width):
        values, lagged = row[j : j + out.size], row[j - lag : j - lag + out.size]
        for k in range(out.size):
            out[k] += (values[k] - mean[k]) * (lagged[k] - mean[k])


@kernel
def window_slope(row: Array, width: int, out: Array) -> None:
    """Sum of (j - mean of j) * x_j, j = 0 ... width - 1 from the oldest value, over each window of even width.

    Values at equal distance from the middle are taken together: their weights are opposite, so that no mean need be
    subtracted first, and a flat window gives exactly 0.
    """
    first = row.size - out.size - width + 1
    out[:] = 0.0
    for j in range(width // 2):
        late, early = row[first + width - 1 - j :], row[first + j : first + j + out.size]
        weight = (width - 1) / 2.0 - j
        for k in range(out.size):
            out[k] += weight * (late[k] - early[k])


@kernel
def window_drawdown(row: Array, width: int, peak: Array, out: Array) -> None:
    """Deepest fall from the running maximum within each window, as a fraction of it, at most 0."""
    first = row.size - out.size - width + 1
    oldest = row[first : first + out.size]
    for k in range(out.size):
        peak[k], out[k] = oldest[k], 0.0
    for j in range(first + 1, first + width):
        values = row[j : j + out.size]
        for k in range(out.size):
            peak[k] = peak[k] if peak[k] > values[k] else values[k]
            fall = (values[k] - peak[k]) / peak[k]
            out[k] = out[k] if out[k] < fall else fall

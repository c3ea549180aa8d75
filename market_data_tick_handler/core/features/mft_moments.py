"""Distribution and memory of 60 log returns, and the Hurst exponent of 128: columns of the group `mft`."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy import int64

from market_data_tick_handler.core.features.mft_layout import LOG_CLOSE, RETURN
from market_data_tick_handler.core.features.rolling import kernel, publish, window_mean
from market_data_tick_handler.core.features.windows import window_lagged, window_long_sum, window_moments
from market_data_tick_handler.core.ticks import Array

# Lo and MacKinlay's m for overlapping sums of 5 out of 60 returns, without bias.
OVERLAPPING: Final = 5.0 * (60 - 5 + 1) * (1.0 - 5.0 / 60.0)
# ln of the lags 1, 2, 4, 8, 16 is 0 ... 4 times this; squared distances from their centre add up to 10 of its squares.
LN_2: Final = math.log(2.0)
LAGS: Final = 5
HURST_WINDOW: Final = 129


@kernel
def moment_columns(m: Any, long: Array, medium: Array, runs: Array, temp: Array, scratch: Array, out: Array) -> None:
    """Columns of the log returns."""
    returns, mean = medium[RETURN], temp[0]
    window_mean(returns, runs[RETURN, 1:], int64(60), mean)
    _autocorrelations(m, returns, mean, temp, out)
    _variance_ratio(m, long[LOG_CLOSE], mean, temp, out)
    _hurst(m, long[LOG_CLOSE], temp, scratch, out)


@kernel
def _autocorrelations(m: Any, returns: Array, mean: Array, temp: Array, out: Array) -> None:
    """Skew, excess kurtosis, and autocorrelation at 1 and 5. Leaves the sum of squares in temp[1]."""
    second, third, fourth = temp[1], temp[2], temp[3]
    window_moments(returns, mean, int64(60), second, third, fourth)
    for k in range(out.size):
        variance = second[k] / 60.0
        flat = second[k] == 0.0
        third[k] = np.nan if flat else (third[k] / 60.0) / (variance * math.sqrt(variance))
        fourth[k] = np.nan if flat else (fourth[k] / 60.0) / (variance * variance) - 3.0
    publish(third, m.seen, int64(60), out["return_skew_60"])
    publish(fourth, m.seen, int64(60), out["return_kurt_60"])
    window_lagged(returns, mean, int64(60), int64(1), third)
    window_lagged(returns, mean, int64(60), int64(5), fourth)
    for k in range(out.size):
        third[k] = third[k] / second[k] if second[k] != 0.0 else np.nan
        fourth[k] = fourth[k] / second[k] if second[k] != 0.0 else np.nan
    publish(third, m.seen, int64(60), out["return_autocorr_1_60"])
    publish(fourth, m.seen, int64(60), out["return_autocorr_5_60"])


@kernel
def _variance_ratio(m: Any, prices: Array, mean: Array, temp: Array, out: Array) -> None:
    """Variance of overlapping 5-candle returns over five times that of single ones; temp[1] holds their squares."""
    single, ratio = temp[1], temp[2]
    first = prices.size - out.size - 60
    ratio[:] = 0.0
    for j in range(first + 5, first + 61):
        values, lagged = prices[j : j + out.size], prices[j - 5 : j - 5 + out.size]
        for k in range(out.size):
            deviation = (values[k] - lagged[k]) - 5.0 * mean[k]
            ratio[k] += deviation * deviation
    for k in range(out.size):
        ratio[k] = (ratio[k] / OVERLAPPING) / (single[k] / 59.0) if single[k] != 0.0 else np.nan
    publish(ratio, m.seen, int64(60), out["variance_ratio_5_60"])


@kernel
def _hurst(m: Any, prices: Array, temp: Array, scratch: Array, out: Array) -> None:
    """Slope of the log of the mean move over 1, 2, 4, 8, 16 candles on the log of that number."""
    sums, slope, flat = temp[0], temp[1], temp[2]
    slope[:], flat[:] = 0.0, 0.0
    own = np.empty(HURST_WINDOW + out.size - 1)
    for power in range(LAGS):
        lag = 1 << power
        width = HURST_WINDOW - lag
        first = prices.size - own.size
        length = own.size - lag
        for i in range(length):
            own[i] = abs(prices[first + i + lag] - prices[first + i])
        window_long_sum(own[:length], width, scratch, sums)
        for k in range(out.size):
            if sums[k] == 0.0:
                flat[k] = 1.0
            else:
                slope[k] += (power - 2) * math.log(sums[k] / width)
    for k in range(out.size):
        slope[k] = slope[k] / (10.0 * LN_2) if flat[k] == 0.0 else np.nan
    publish(slope, m.seen, int64(128), out["hurst_128"])

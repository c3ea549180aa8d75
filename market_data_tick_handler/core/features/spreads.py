"""Liquidity from candles alone: spreads of Roll, Corwin-Schultz and Abdi-Ranaldo, slopes of Kyle and Hasbrouck."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from market_data_tick_handler.core.features.rolling import kernel, window_mean, window_products, window_squares
from market_data_tick_handler.core.ticks import Array

CORWIN_SCHULTZ_K: Final = 3.0 - 2.0 * math.sqrt(2.0)


@kernel
def illiquidity(log_return: float, quote_volume: float) -> float:
    """Amihud (2002): |log return| per million of quote volume; null without volume."""
    return 1e6 * abs(log_return) / quote_volume if quote_volume != 0.0 else np.nan


@kernel
def corwin_schultz(high: float, low: float, previous_high: float, previous_low: float) -> float:
    """Spread (fraction) from two adjacent candles' ranges, Corwin and Schultz (2012) eq. 14 and 18; negative is 0."""
    own, previous = math.log(high / low), math.log(previous_high / previous_low)
    both = math.log(max(high, previous_high) / min(low, previous_low))
    beta = own * own + previous * previous
    gamma = both * both
    alpha = (math.sqrt(2.0 * beta) - math.sqrt(beta)) / CORWIN_SCHULTZ_K - math.sqrt(gamma / CORWIN_SCHULTZ_K)
    grown = math.exp(alpha)
    return max(2.0 * (grown - 1.0) / (1.0 + grown), 0.0)


@kernel
def roll_spread(returns: Array, runs: Array, width: int, temp: Array) -> None:
    """temp[0] = Roll (1984) in bps: 2*sqrt(-cov(r_i, r_{i-1})), 0 when the covariance is not negative.

    returns: at least `width` values of history, then the block. runs: as `run_lengths` gives them, block + 1.
    temp: shape (at least 3, block).
    """
    lagged = returns[: returns.size - 1]
    covariance, mean, lagged_mean = temp[0], temp[1], temp[2]
    window_mean(returns, runs[1:], width, mean)
    window_mean(lagged, runs[: runs.size - 1], width, lagged_mean)
    window_products(returns, mean, lagged, lagged_mean, width, covariance)
    for k in range(covariance.size):
        c = covariance[k] / (width - 1)
        covariance[k] = 1e4 * 2.0 * math.sqrt(-c) if c < 0.0 else 0.0


@kernel
def abdi_ranaldo_spread(products: Array, runs: Array, width: int, temp: Array) -> None:
    """temp[0] = Abdi and Ranaldo (2017) in bps from the products (ln c⁻ - η⁻)(ln c⁻ - η) of adjacent candles."""
    spread = temp[0]
    window_mean(products, runs, width, spread)
    for k in range(spread.size):
        spread[k] = 1e4 * math.sqrt(max(4.0 * spread[k], 0.0))


@kernel
def ols_slope(x: Array, x_runs: Array, y: Array, y_runs: Array, width: int, temp: Array) -> None:
    """temp[0] = least-squares slope of y on x with intercept over each window; null where x does not vary.

    temp: shape (at least 4, block).
    """
    slope, x_mean, y_mean, squares = temp[0], temp[1], temp[2], temp[3]
    window_mean(x, x_runs, width, x_mean)
    window_mean(y, y_runs, width, y_mean)
    window_squares(x, x_mean, width, squares)
    window_products(x, x_mean, y, y_mean, width, slope)
    for k in range(slope.size):
        slope[k] = slope[k] / squares[k] if squares[k] != 0.0 else np.nan

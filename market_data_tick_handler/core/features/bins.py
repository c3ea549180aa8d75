"""Finding the bin of a time in a ring, and the one division that gives null instead of infinity."""

from __future__ import annotations

import numpy as np
from numba import njit

from market_data_tick_handler.core.features.chains import release
from market_data_tick_handler.core.ticks import Array

US_15S = 15_000_000
US_60S = 60_000_000


@njit(cache=True, nogil=True)
def slot(bins: Array, empty: Array, base_us: int, t0: int) -> int:
    """Slot of the bin that opens at `t0`; a slot left over from an older bin starts anew."""
    k = (t0 // base_us) % bins.shape[0]
    if bins[k].t0 != t0:
        bins[k] = empty[0]
        bins[k].t0 = t0
    return k


@njit(cache=True, nogil=True)
def slot_with_chain(bins: Array, empty: Array, t0: int, links: Array, free: Array) -> int:
    """As `slot`, for 15 s bins that own a chain of values: an older bin's chain goes back to the pool."""
    k = (t0 // US_15S) % bins.shape[0]
    if bins[k].t0 != t0:
        release(bins[k], links, free)
        bins[k] = empty[0]
        bins[k].t0 = t0
    return k


@njit(cache=True, nogil=True)
def ratio(numerator: float, denominator: float) -> float:
    """The quotient, or NaN (null) where the denominator is 0."""
    return numerator / denominator if denominator != 0.0 else np.nan

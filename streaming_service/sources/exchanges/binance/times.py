"""Times as Binance writes them: milliseconds, or microseconds where a socket was asked for them."""

from __future__ import annotations

from typing import Final

import numpy as np

from market_data_tick_handler.core.ticks import Array

# Milliseconds reach this in the year 33658.
_MICROSECONDS_FROM: Final = 10**15


def to_us(stamps: Array) -> Array:
    """Microseconds of int64 times in either unit; 0 stays 0."""
    if len(stamps) and stamps.min() < _MICROSECONDS_FROM:
        return np.where(stamps < _MICROSECONDS_FROM, stamps * 1_000, stamps)
    return stamps

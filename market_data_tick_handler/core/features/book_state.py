"""When a book snapshot is usable, and its mid: one rule for every group that reads books (features.md section 3)."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def is_level(price: float, amount: float) -> bool:
    """Whether a level is there: both positive and finite. A bad level ends its side: deeper ones do not count."""
    return 0.0 < price < np.inf and 0.0 < amount < np.inf


@njit(cache=True, nogil=True)
def valid_mid(bid_price: float, bid_amount: float, ask_price: float, ask_amount: float) -> float:
    """Mid of the best levels, or NaN where the book is INVALID: a side is missing, or the sides touch or cross."""
    if is_level(bid_price, bid_amount) and is_level(ask_price, ask_amount) and bid_price < ask_price:
        return (ask_price + bid_price) / 2.0
    return np.nan

"""What a candle from outside implies, and what makes it impossible: one kernel for one candle and for a series."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from market_data_tick_handler.core.features.rolling import kernel
from market_data_tick_handler.core.ticks import Array

UNKNOWN_COUNT: Final = -1

# What `complete` finds wrong with a candle; 0 is nothing.
BAD_PRICE: Final = 1
BAD_RANGE: Final = 2
BAD_VOLUME: Final = 3
EXPECTED: Final = {
    BAD_PRICE: "open, high, low and close finite and above 0",
    BAD_RANGE: "low <= open, close <= high",
    BAD_VOLUME: "finite volumes of at least 0 (optional ones may be null)",
}


@kernel
def _fault(c: Any) -> int:
    for price in (c.open, c.high, c.low, c.close):
        if not (np.isfinite(price) and price > 0.0):
            return BAD_PRICE
    if c.low > min(c.open, c.close) or c.high < max(c.open, c.close):
        return BAD_RANGE
    if not np.isfinite(c.volume):
        return BAD_VOLUME
    for amount in (c.volume, c.quote_volume, c.buy_volume_sum, c.sell_volume_sum, c.vwap_base_volume):
        if amount < 0.0 or np.isinf(amount):
            return BAD_VOLUME
    for amount in (c.volume_delta, c.signed_sqrt_notional, c.price_vwap):
        if np.isinf(amount):
            return BAD_VOLUME
    return 0


@kernel
def complete(candles: Array) -> tuple[int, int]:
    """Fill in what `candles` (CANDLE, null where unknown) imply, in place; the first impossible one ends it.

    Unknown base volume is the volume (linear contracts of size 1 and spot), an unknown VWAP the quotient of the
    volumes, an unknown delta buys minus sells, and an unknown trade count 1 where there is volume.

    Returns:
        (index, fault) of the first impossible candle, or (-1, 0).
    """
    for index in range(candles.size):
        c = candles[index]
        fault = _fault(c)
        if fault:
            return index, fault
        if np.isnan(c.vwap_base_volume):
            c.vwap_base_volume = c.volume
        if np.isnan(c.price_vwap) and c.vwap_base_volume > 0.0:
            c.price_vwap = c.quote_volume / c.vwap_base_volume
        if np.isnan(c.volume_delta):
            c.volume_delta = c.buy_volume_sum - c.sell_volume_sum
        if c.trade_count == UNKNOWN_COUNT:
            c.trade_count = 1 if c.volume > 0.0 else 0
    return -1, 0

"""The ticker and liquidations against the candle's own trades: the columns that need both (features.md 9.4, 9.5)."""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit

from market_data_tick_handler.core.features.bins import ratio
from market_data_tick_handler.core.features.contract import record
from market_data_tick_handler.core.ticks import Array
from market_data_tick_handler.core.timeframes import ALL_TIMEFRAMES

MEMORY: Final = record("i8", "unused")
OUT: Final = record("f8", "premium_close_bps mark_deviation_bps oi_volume_ratio liquidation_volume_ratio")


@njit(cache=True, nogil=True)
def _finish(candles: Array, out: Array) -> None:
    for i in range(candles.shape[0]):
        c = candles[i]
        o = out[i]
        o.premium_close_bps = ratio(1e4 * (c.close - c.index_price), c.index_price)
        o.mark_deviation_bps = ratio(1e4 * (c.close - c.mark_price), c.mark_price)
        o.oi_volume_ratio = ratio(c.oi_change, c.volume)
        o.liquidation_volume_ratio = ratio(c.liquidation_volume, c.volume)


class DerivativeRatiosGroup:
    """Feature group `derivative_ratios`; null where `derivatives` or `liquidations` is not selected."""

    name = "derivative_ratios"
    timeframes = ALL_TIMEFRAMES
    columns = tuple(OUT.names or ())
    MEMORY: np.dtype[np.void] = MEMORY
    OUT: np.dtype[np.void] = OUT

    def finish(self, memory: Array, candles: Array, step_us: int, out: Array) -> None:
        """Fill `out` from closed candles; each stands for itself."""
        _finish(candles, out)


GROUP: Final = DerivativeRatiosGroup()

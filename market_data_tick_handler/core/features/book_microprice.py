"""Stoikov's micro-price: the mid plus an adjustment looked up by imbalance and spread (features.md 7.6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numba import njit

from market_data_tick_handler.core.ticks import Array
from market_data_tick_handler.errors import ConfigError

DECILES: Final = 10


@dataclass(frozen=True, slots=True)
class MicropriceTable:
    """Adjustments calibrated offline for one instrument.

    adjustments: one row per decile of bid amount / (bid + ask amount), lowest first; in each row the price to add to
    the mid at a spread of 1, 2, ... ticks. tick_size: the tick they were calibrated with.

    Raises:
        ConfigError: not ten rows of one length, or a tick that is not positive.
    """

    adjustments: tuple[tuple[float, ...], ...]
    tick_size: float

    def __post_init__(self) -> None:
        widths = {len(row) for row in self.adjustments}
        if len(self.adjustments) != DECILES or len(widths) != 1 or 0 in widths:
            raise ConfigError(
                f"micro-price table: expected {DECILES} rows of one length, got lengths "
                f"{[len(row) for row in self.adjustments]}; calibrate it again",
                key="microprice_table",
            )
        if not 0.0 < self.tick_size < np.inf:
            raise ConfigError(
                f"micro-price table: expected a positive tick size, got {self.tick_size}", key="microprice_table"
            )


def table_array(table: MicropriceTable | None) -> Array:
    """The adjustments as kernels take them; without a table there is no spread they are known for."""
    return np.array(table.adjustments, np.float64) if table is not None else np.zeros((DECILES, 0))


@njit(cache=True, nogil=True, error_model="numpy")
def adjustment(table: Array, tick_size: float, bid_amount: float, ask_amount: float, spread: float) -> float:
    """What to add to the mid, NaN where the table does not know the spread."""
    widest = table.shape[1]
    ticks = spread / tick_size
    if not 0.5 <= ticks < widest + 0.5:
        return np.nan
    decile = min(int(bid_amount / (bid_amount + ask_amount) * DECILES), DECILES - 1)
    return float(table[decile, min(int(ticks + 0.5), widest) - 1])

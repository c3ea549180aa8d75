"""The shape every feature group has, so that a new one drops in without touching pipeline.py.

A group is a module that exports `GROUP`, an object of one of two kinds:

* A *tick group* folds ticks into bins. `BIN` is the accumulator record of one candle, `CARRY` the sequence state that
  outlives candles (previous trade, clocks). `fold` adds rows, `settle` stamps what a candle border fixes (as-of values,
  the rest of a time integral), `merge` folds a bin into a coarser one, `finish` turns bins into columns.
* A *candle group* reads closed candles. `MEMORY` is the record carried from candle to candle; zeros are its cold state.
  `finish` turns candles into columns and moves the memory on.

Both write `OUT` records: float64 (NaN is null) and int64 fields named like the columns.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from market_data_tick_handler.core.ticks import Array

# What a candle group may read of a closed candle. Volumes in venue units; an empty candle has trade_count 0, the
# previous close in all four prices and price_vwap NaN. Fields a caller does not have are NaN.
CANDLE = np.dtype(
    [
        ("timestamp", "i8"),
        ("trade_count", "i8"),
        ("open", "f8"),
        ("high", "f8"),
        ("low", "f8"),
        ("close", "f8"),
        ("volume", "f8"),
        ("quote_volume", "f8"),
        ("price_vwap", "f8"),
        ("buy_volume_sum", "f8"),
        ("sell_volume_sum", "f8"),
        ("volume_delta", "f8"),
        ("signed_sqrt_notional", "f8"),
        ("vwap_base_volume", "f8"),
    ]
)


class CandleGroup(Protocol):
    """Columns computed from closed candles (roll-up code SELF)."""

    name: str
    MEMORY: np.dtype[np.void]
    OUT: np.dtype[np.void]

    def finish(self, memory: Array, candles: Array, step_us: int, out: Array) -> None:
        """Fill `out` (shape (n,), OUT) from `candles` (shape (n,), CANDLE), oldest first.

        `memory` (shape (1,), MEMORY) is moved on in place; calling once with n candles or n times with one gives the
        same bits. Candles are consecutive: timestamp[i+1] == timestamp[i] + step_us; the caller checks.
        """

"""The ticker of one Bybit contract: sparse deltas filled forward to rows of `derivative_ticker`.

A row is written where a value differs from the one before it. Its time is the latest that any message named, as the
vendor has it. A field without a value (empty text) keeps the last one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from market_data_tick_handler.core.ticks import Array, DataType, TickBatch
from streaming_service.sources.exchanges.bybit.frames import TickerFrame

_FUNDING_TIME: Final = "funding_timestamp"
_COLUMNS: Final = (
    "funding_rate", _FUNDING_TIME, "open_interest", "last_price", "index_price", "mark_price",
)  # fmt: skip
_AT: Final = _COLUMNS.index(_FUNDING_TIME)


class TickerState:
    """What is known of one contract."""

    __slots__ = ("_stamp", "_values")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """The connection ended."""
        self._values = np.full(len(_COLUMNS), np.nan)
        self._stamp = 0

    def update(self, messages: Sequence[TickerFrame], local_us: Array) -> tuple[TickBatch, Array]:
        """Rows of the messages that changed a value, and a mask of the messages whose values are no numbers, which are
        left out."""
        values = np.array(
            [
                (
                    m.data.fundingRate, m.data.nextFundingTime, m.data.openInterest,
                    m.data.lastPrice, m.data.indexPrice, m.data.markPrice,
                )
                for m in messages
            ],
            np.float64,
        )  # fmt: skip
        stamps = np.array([message.ts for message in messages], np.int64) * 1_000
        bad = np.asarray(np.isinf(values).any(axis=1))
        if bad.any():
            values, stamps, local_us = values[~bad], stamps[~bad], local_us[~bad]
        # A contract without funding names none, or 0.
        values[values[:, _AT] <= 0.0, _AT] = np.nan
        filled = self._fill(values)
        # A comparison with NaN is true, but what is NaN has been so before.
        changed = ((filled[1:] != filled[:-1]) & ~np.isnan(filled[1:])).any(axis=1)
        reached = np.maximum.accumulate(np.concatenate([[self._stamp], stamps]))
        self._values, self._stamp = filled[-1].copy(), int(reached[-1])
        return _batch(filled[1:][changed], reached[1:][changed], local_us[changed]), bad

    def _fill(self, values: Array) -> Array:
        """`values` below what was known, every NaN replaced by the last number above it."""
        stacked = np.vstack([self._values, values])
        rows = np.where(np.isnan(stacked), 0, np.arange(len(stacked))[:, None])
        filled: Array = np.take_along_axis(stacked, np.maximum.accumulate(rows, axis=0), axis=0)
        return filled


def _batch(values: Array, stamps: Array, local_us: Array) -> TickBatch:
    columns = dict(zip(_COLUMNS, np.ascontiguousarray(values.T), strict=True))
    funding = columns.pop(_FUNDING_TIME)
    return TickBatch.build(
        DataType.DERIVATIVE,
        {
            "timestamp": stamps,
            "local_timestamp": local_us,
            _FUNDING_TIME: np.nan_to_num(funding).astype(np.int64) * 1_000,
            **columns,
        },
    )

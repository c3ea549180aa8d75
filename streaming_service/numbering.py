"""Numbers for candles that no output journal has numbered, so that whoever misses one can tell."""

from __future__ import annotations

import numpy as np

from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.timeframes import Timeframe

_US_PER_MS = 1_000


def first_number(now_us: int) -> int:
    """Where the numbers of a run without a journal begin: a reader of an earlier run must not take them for its
    continuation."""
    return max(now_us // _US_PER_MS, 1)


class ChannelNumbers:
    """Counts the candles of each instrument and timeframe from `first` on."""

    def __init__(self, first: int) -> None:
        self._first = first
        self._next: dict[tuple[str, Timeframe], int] = {}

    def number(self, batch: CandleBatch) -> CandleBatch:
        """`batch` with the next numbers of its channel; one that has some keeps them."""
        if batch.sequences is not None:
            return batch
        channel = (batch.instrument.key, batch.timeframe)
        start = self._next.get(channel, self._first)
        self._next[channel] = start + len(batch)
        return batch.numbered(np.arange(start, start + len(batch), dtype=np.int64))

"""The last order book of every instrument, for whoever looks at it."""

from __future__ import annotations

from typing import Any

from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.events import Event, Rows
from market_data_tick_handler.core.ticks import BOOK_LEVELS, DataType, TickBatch


class LatestBooks:
    """An observer of turns that remembers where the last book row of each instrument is, and reads it when asked."""

    def __init__(self) -> None:
        self._books: dict[str, TickBatch] = {}

    def drained(self, event: Event, now_us: int) -> None:
        if isinstance(event, Rows) and event.data_type is DataType.BOOK and len(event.batch):
            self._books[event.instrument] = event.batch

    def published(self, batch: CandleBatch, now_us: int) -> None: ...

    def forget(self, instrument: str) -> None:
        """The instrument is no longer of the service."""
        self._books.pop(instrument, None)

    def latest(self, instrument: str) -> dict[str, Any]:
        """`{timestamp, local_timestamp, bids, asks}`: times in us UTC, sides as [price, amount] from the best level on,
        amounts in the venue's units. Levels that the book does not have are left out. Empty without a book.
        """
        batch = self._books.get(instrument)
        if batch is None:
            return {}
        return {
            "timestamp": int(batch["timestamp"][-1]),
            "local_timestamp": int(batch["local_timestamp"][-1]),
            **{f"{side}s": list(_levels(batch, side)) for side in ("bid", "ask")},
        }


def _levels(batch: TickBatch, side: str) -> list[list[float]]:
    rows = [
        [float(batch[f"{side}_{what}_{level}"][-1]) for what in ("price", "volume")]
        for level in range(1, BOOK_LEVELS + 1)
    ]
    return [row for row in rows if row[0] == row[0]]

"""The book of one Deribit instrument: the chain of its messages, and the rows they give.

A message names the change before it, so that a lost one shows at the next. A snapshot is a message of that type, or one
without a change before it (options whose book was empty). After a break the book is void until a snapshot comes.
Deribit's matching engine never leaves a book crossed, so a change that does says the same as a break.
https://docs.deribit.com/#book-instrument_name-interval
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import chain
from typing import Final

import numpy as np

from market_data_tick_handler.core.order_book import ASK, BID, BookChanges, OrderBook
from market_data_tick_handler.core.ticks import Array, TickBatch
from streaming_service.sources.exchanges.deribit.frames import Data, Level

_SNAPSHOT: Final = "snapshot"


@dataclass(slots=True)
class BookOutcome:
    """What became of messages. void: how many were not applied. broken: why the book was dropped, empty where it was
    not."""

    rows: list[TickBatch] = field(default_factory=list)
    changes: list[BookChanges] = field(default_factory=list)
    void: int = 0
    broken: str = ""


class ChainedBook:
    """A book that only takes unbroken chains of messages."""

    __slots__ = ("_book", "_last")

    def __init__(self) -> None:
        self._book = OrderBook()
        self._last: int | None = None

    def take(self, messages: Sequence[Data], local_us: Array) -> BookOutcome:
        """Apply well-formed messages, which arrived at `local_us`."""
        outcome = BookOutcome()
        start = 0
        while start < len(messages):
            chained, stop, why = self._follow(messages, start)
            crossing = self._apply(messages, chained, local_us, outcome) if chained else None
            if crossing is not None:
                stop, why = crossing + 1, f"change {messages[crossing].change_id} left the book crossed"
                chained = [index for index in chained if index < crossing]
            outcome.void += stop - start - len(chained)
            if why:
                outcome.broken = why
                self._drop()
            start = stop
        return outcome

    def _follow(self, messages: Sequence[Data], start: int) -> tuple[list[int], int, str]:
        """Indices of the messages that continue the chain from `start`, where that ends, and why if it broke there."""
        chained: list[int] = []
        for index in range(start, len(messages)):
            message = messages[index]
            if _is_snapshot(message) or message.prev_change_id == self._last:
                self._last = message.change_id
                chained.append(index)
            elif self._last is not None and message.change_id != self._last:
                why = f"expected the change after {self._last}, got the one after {message.prev_change_id}"
                return chained, index + 1, why
        return chained, len(messages), ""

    def _apply(
        self, messages: Sequence[Data], chained: Sequence[int], local_us: Array, outcome: BookOutcome
    ) -> int | None:
        """Apply a chain; the index of the change that crossed the book, before which the outcome then ends."""
        before = deepcopy(self._book) if len(chained) > 1 else None
        crossed = self._book.crossed
        changes = _book_changes([messages[index] for index in chained], local_us[np.array(chained, np.int64)])
        rows = self._book.apply(changes)
        if self._book.crossed == crossed:
            outcome.rows.append(rows)
            outcome.changes.append(changes)
            return None
        if before is not None:
            self._book = before
            return self._apply_singly(messages, chained, local_us, outcome)
        if _is_snapshot(messages[chained[0]]):
            outcome.rows.append(rows)
            outcome.changes.append(changes)
            return None
        return chained[0]

    def _apply_singly(
        self, messages: Sequence[Data], chained: Sequence[int], local_us: Array, outcome: BookOutcome
    ) -> int | None:
        """Batches of one tell which message it was. A crossed snapshot is the venue's word: asking again is no use."""
        for index in chained:
            if self._apply(messages, [index], local_us, outcome) is not None:
                return index
        return None

    def _drop(self) -> None:
        self._last = None
        self._book.clear()


def is_book(message: Data) -> bool:
    """Whether a message has what every book message has."""
    return message.timestamp > 0 and message.change_id >= 0 and message.bids is not None and message.asks is not None


def _is_snapshot(message: Data) -> bool:
    return message.type == _SNAPSHOT or not message.prev_change_id


def _book_changes(messages: Sequence[Data], local_us: Array) -> BookChanges:
    sides = [side or [] for message in messages for side in (message.bids, message.asks)]
    counts = np.array([len(side) for side in sides], np.int64)
    levels = list(_flat(sides))
    return BookChanges(
        timestamp=np.array([message.timestamp for message in messages], np.int64) * 1_000,
        local_timestamp=local_us,
        is_snapshot=np.array([_is_snapshot(message) for message in messages], np.bool_),
        stops=np.cumsum(counts)[1::2],
        side=np.repeat(np.tile(np.array([BID, ASK], np.int8), len(messages)), counts),
        price=np.array([level.price for level in levels], np.float64),
        amount=np.array([0.0 if level.action == "delete" else level.amount for level in levels], np.float64),
    )


def _flat(sides: Iterable[list[Level]]) -> Iterable[Level]:
    return chain.from_iterable(sides)

"""The book of one Bybit instrument: which messages count, and the changes and rows they make.

`u` of a delta is one more than that of the message before it. A snapshot may come at any time and replaces the book; a
message with `u` 1 is one whatever its `type`, as it follows a restart of the service. After a break nothing counts
until the next snapshot. A message that crosses the book is none: as `u` is whole, nothing was lost, and `OrderBook`
removes what it crossed, as the vendor does.
https://bybit-exchange.github.io/docs/v5/websocket/public/orderbook
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Final

import numpy as np

from market_data_tick_handler.core.order_book import ASK, BID, BookChanges, OrderBook
from market_data_tick_handler.core.ticks import Array, TickBatch
from streaming_service.sources.exchanges.bybit.frames import BookFrame

_NONE: Final = -1
_SIDES: Final = np.array([BID, ASK], np.int8)


@dataclass(slots=True)
class BookUpdate:
    """What messages made of a book: changes and their rows, how many messages were left out, where the values of which
    are no numbers, and why the book broke, empty if it did not."""

    changes: list[BookChanges] = field(default_factory=list)
    rows: list[TickBatch] = field(default_factory=list)
    skipped: int = 0
    bad: list[int] = field(default_factory=list)
    broken: str = ""


@dataclass(slots=True)
class _Run:
    """Indices of messages that follow one another, and which of them replace the book."""

    members: list[int] = field(default_factory=list)
    snapshots: list[bool] = field(default_factory=list)


class Book:
    """The book of one instrument."""

    __slots__ = ("_book", "_last", "_missed")

    def __init__(self) -> None:
        self._book = OrderBook()
        self.clear()

    def clear(self) -> None:
        """The connection ended."""
        self._book.clear()
        self._last = _NONE
        # The break is reported, and a snapshot is on its way.
        self._missed = False

    def update(self, messages: Sequence[BookFrame], local_us: Array) -> BookUpdate:
        """Apply messages of this book, which arrived at `local_us`, in their order."""
        out = BookUpdate()
        changes = _changes(messages, local_us)
        bad = ~(
            np.isfinite(changes.price) & (changes.price > 0.0) & np.isfinite(changes.amount) & (changes.amount >= 0)
        )
        if bad.any():
            # Without them the sequence is broken, which is what makes the book whole again.
            out.bad = np.unique(np.searchsorted(changes.stops, np.flatnonzero(bad), side="right")).tolist()
            members = np.setdiff1d(np.arange(len(messages)), out.bad)
            messages, local_us = [messages[index] for index in members.tolist()], local_us[members]
            if not messages:
                return out
            changes = _changes(messages, local_us)
        if self._follow(messages):
            self._apply(out, changes)
            return out
        for run in self._runs(messages, out):
            if run is None:
                self._book.clear()
            else:
                own = _changes([messages[index] for index in run.members], local_us[run.members], run.snapshots)
                self._apply(out, own)
        return out

    def _follow(self, messages: Sequence[BookFrame]) -> bool:
        """True, and all of them taken, where they are deltas that follow the book and each other: nearly always."""
        if self._last == _NONE:
            return False
        u = np.array([message.data.u for message in messages], np.int64)
        whole = bool((u == np.arange(self._last + 1, self._last + 1 + len(u))).all())
        if not whole or any(message.type == "snapshot" for message in messages):
            return False
        self._last = int(u[-1])
        return True

    def _runs(self, messages: Sequence[BookFrame], out: BookUpdate) -> list[_Run | None]:
        """The messages that count, one after another; None between them is a break."""
        runs: list[_Run | None] = []
        run = _Run()
        for index, message in enumerate(messages):
            u = message.data.u
            snapshot = message.type == "snapshot" or (u == 1 and self._last != 0)
            if snapshot or (self._last != _NONE and u == self._last + 1):
                self._last, self._missed = u, False
                run.members.append(index)
                run.snapshots.append(snapshot)
                continue
            out.skipped += 1
            if u == self._last or (self._last == _NONE and self._missed):
                continue
            out.broken = _reason(self._last, u)
            self._last, self._missed = _NONE, True
            runs += [run, None] if run.members else [None]
            run = _Run()
        return [*runs, run] if run.members else runs

    def _apply(self, out: BookUpdate, changes: BookChanges) -> None:
        out.changes.append(changes)
        rows = self._book.apply(changes)
        if len(rows):
            out.rows.append(rows)


def _reason(last: int, u: int) -> str:
    if last == _NONE:
        return f"expected a snapshot first, got the delta {u}"
    return f"expected update {last + 1}, got {u}"


def _changes(messages: Sequence[BookFrame], local_us: Array, snapshots: Sequence[bool] | None = None) -> BookChanges:
    """All levels of `messages`, bids before asks. `snapshots`: which are, None for what their type says."""
    sides = [side for message in messages for side in (message.data.b, message.data.a)]
    lengths = np.array([len(side) for side in sides], np.int64)
    total = int(lengths.sum())
    flat = chain.from_iterable(chain.from_iterable(sides))
    levels = np.fromiter(flat, np.float64, 2 * total).reshape(total, 2)
    if snapshots is None:
        snapshots = [message.type == "snapshot" for message in messages]
    return BookChanges(
        timestamp=np.array([message.ts for message in messages], np.int64) * 1_000,
        local_timestamp=local_us,
        is_snapshot=np.array(snapshots, np.bool_),
        stops=np.cumsum(lengths.reshape(-1, 2).sum(axis=1)),
        side=np.repeat(np.tile(_SIDES, len(messages)), lengths),
        price=np.ascontiguousarray(levels[:, 0]),
        amount=np.ascontiguousarray(levels[:, 1]),
    )

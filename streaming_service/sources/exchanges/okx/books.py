"""OKX order books: is every update there, and what the book looks like after each.

Theory of operation. A snapshot and its updates come over one channel. Each message names its own id and that of the
message before it (`seqId`, `prevSeqId`): an update belongs here if the one before it is the last one that came. That
holds in the three odd cases, too: a message without levels proves after a minute of silence that the channel lives and
repeats the last id as both of its own; maintenance starts the ids anew with an update whose own id is below the one
before it; and a snapshot has -1 before it. An update that does not belong makes the book void: it stays silent until
the next snapshot, which `Venue.resubscribe` asks for. Recordings up to 2023 have no ids, and nothing to verify.

Next to the ids comes a CRC32 of the best 25 levels as text. It is not verified: it proves nothing that a whole chain
of ids does not, over TLS; it would need the texts of all prices kept; and the venue has declared it obsolete.

A chain of ids that is whole proves that a crossed book is the venue's own (it shows one during the call auction of a
new listing), so crossing asks for no snapshot, which would be crossed as well. The book drops the stale side itself.
https://www.okx.com/docs-v5/en/#order-book-trading-market-data-ws-order-book-channel
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from market_data_tick_handler.core.order_book import ASK, BID, BookChanges, OrderBook
from market_data_tick_handler.core.ticks import Array, TickBatch, concat
from streaming_service.sources.exchanges.okx.frames import Read
from streaming_service.sources.exchanges.okx.messages import UNNUMBERED, Book
from streaming_service.sources.exchanges.okx.trades import MILLISECOND_US

_SNAPSHOT: Final = "snapshot"
_SIDES: Final = np.array([ASK, BID], np.int8)


@dataclass(slots=True)
class BookRows:
    """What became of the messages of one book.

    rows, changes: None or empty where there are none. dropped: messages that changed nothing or came while the book was
    void. lost: why it became void, empty if it did not.
    """

    rows: TickBatch | None = None
    changes: BookChanges | None = None
    dropped: int = 0
    lost: str = ""


@dataclass(slots=True)
class _Messages:
    """Messages of one book in order: levels as columns, and for each message its ids and which frame brought it."""

    changes: BookChanges
    seq: Array
    prev: Array
    stamped: Array
    broken: Array


@dataclass(slots=True)
class _Chosen:
    """Messages to apply, in runs between which the book is void, and why it first became so."""

    runs: list[list[int]] = field(default_factory=lambda: [[]])
    lost: str = ""


class FollowedBook:
    """One book and the id of the last message that went into it."""

    __slots__ = ("_book", "_last", "_void")

    def __init__(self) -> None:
        self._book = OrderBook()
        self._last = UNNUMBERED
        self._void = False

    def follow(self, read: Read[Book], local_us: Array) -> BookRows:
        """Take in the messages of a batch; `local_us` is that of all frames of the batch."""
        messages = _messages(read, local_us)
        if not self._whole(messages):
            return self._apply_runs(messages, self._choose(messages))
        if not len(messages.seq):
            return BookRows()
        self._last = int(messages.seq[-1])
        rows = self._book.apply(messages.changes)
        told = messages.stamped & _says_something(messages.changes)
        if told.all():
            return BookRows(rows, messages.changes)
        return BookRows(rows, _take(messages.changes, np.flatnonzero(told)), int((~told).sum()))

    def _whole(self, messages: _Messages) -> bool:
        """Whether every message belongs where it came."""
        if self._void or messages.broken.any():
            return False
        before = np.concatenate([[self._last], messages.seq[:-1]]) if len(messages.seq) else messages.prev
        fits = (messages.prev == before) | (messages.prev == UNNUMBERED) | (before == UNNUMBERED)
        return bool((fits | messages.changes.is_snapshot).all())

    def _choose(self, messages: _Messages) -> _Chosen:
        """Go through the messages one by one: which belong, and why the book was void in between."""
        out = _Chosen()
        snapshot, seq, prev, broken = (
            column.tolist() for column in (messages.changes.is_snapshot, messages.seq, messages.prev, messages.broken)
        )
        for k in range(len(seq)):
            if broken[k]:
                self._lose(out, "a message of this book could not be read")
            elif snapshot[k]:
                self._void, self._last = False, seq[k]
                out.runs[-1].append(k)
            elif self._void or (seq[k] == self._last != UNNUMBERED and prev[k] != seq[k]):
                # While the book is void nothing counts; and the last message, come twice, changes nothing.
                continue
            elif prev[k] == self._last or UNNUMBERED in (prev[k], self._last):
                self._last = seq[k]
                out.runs[-1].append(k)
            else:
                self._lose(
                    out, f"expected the message after seqId {self._last}, got prevSeqId {prev[k]} seqId {seq[k]}"
                )
        return out

    def _lose(self, out: _Chosen, why: str) -> None:
        if not self._void:
            self._void = True
            out.lost = out.lost or why
            out.runs.append([])

    def _apply_runs(self, messages: _Messages, chosen: _Chosen) -> BookRows:
        """Rows and changes of the messages that belong; the book is void between two runs."""
        parts: list[TickBatch] = []
        for number, run in enumerate(chosen.runs):
            if number:
                self._book.clear()
            if run:
                parts.append(self._book.apply(_take(messages.changes, np.array(run, np.int64))))
        at = np.array([k for run in chosen.runs for k in run], np.int64)
        at = at[messages.stamped[at] & _says_something(messages.changes)[at]]
        return BookRows(
            concat(parts) if parts else None,
            _take(messages.changes, at),
            int((~messages.broken).sum()) - len(at),
            chosen.lost,
        )


def _messages(read: Read[Book], local_us: Array) -> _Messages:
    """The messages of frames that were read; a frame that was broken ends in a message that is."""
    broken_frames = set(read.broken)
    books: list[Book] = []
    at: list[int] = []
    snapshot: list[bool] = []
    broken: list[bool] = []
    for frame, index in zip(read.frames, read.at, strict=True):
        found = [*frame.data, Book([], [], 0)] if index in broken_frames else frame.data
        books += found
        at += [index] * len(found)
        snapshot += [frame.action == _SNAPSHOT] * len(found)
        broken += [False] * (len(found) - 1) + [index in broken_frames] if found else []
    sides = [side for book in books for side in (book.asks, book.bids)]
    levels = [level for side in sides for level in side]
    counts = np.array([len(side) for side in sides], np.int64)
    stops = np.cumsum(counts)[1::2]
    stamp = np.array([book.ts for book in books], np.int64) * MILLISECOND_US
    local = local_us[at]
    changes = BookChanges(
        # A book in which nobody ever had an order is stamped 0.
        timestamp=np.where(stamp > 0, stamp, local),
        local_timestamp=local,
        is_snapshot=np.array(snapshot, np.bool_),
        stops=stops,
        side=np.repeat(np.tile(_SIDES, len(books)), counts),
        price=np.array([level.px for level in levels], np.float64),
        amount=np.array([level.sz for level in levels], np.float64),
    )
    return _Messages(
        changes,
        np.array([book.seqId for book in books], np.int64),
        np.array([book.prevSeqId for book in books], np.int64),
        stamp > 0,
        np.array(broken, np.bool_),
    )


def _says_something(changes: BookChanges) -> Array:
    """Which messages have levels; a snapshot says something without, too."""
    return changes.is_snapshot | (np.diff(changes.stops, prepend=0) > 0)


def _take(changes: BookChanges, at: Array) -> BookChanges:
    """The messages at the indices `at`."""
    starts = np.concatenate([[0], changes.stops[:-1]]).astype(np.int64)
    lengths = (changes.stops - starts)[at]
    stops = np.cumsum(lengths)
    levels = np.arange(int(lengths.sum()), dtype=np.int64) + np.repeat(starts[at] - stops + lengths, lengths)
    return BookChanges(
        timestamp=changes.timestamp[at],
        local_timestamp=changes.local_timestamp[at],
        is_snapshot=changes.is_snapshot[at],
        stops=stops,
        side=changes.side[levels],
        price=changes.price[levels],
        amount=changes.amount[levels],
    )

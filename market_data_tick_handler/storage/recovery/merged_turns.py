"""Turns as fed, with the rows that a repair fetched later at their places in the order of arrival.

The order is (local_timestamp, rank of the data type, as fed before fetched, order of fetching). A turn ends at a known
place in it (`Order`): every later row lies at or behind. So what a repair has before that place belongs to the turn or
before it, and nothing needs to be held back; what lies before a turn's first row comes as turns of its own, in pieces,
so that memory does not grow with the length of a gap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from market_data_tick_handler.core.ticks import RANK, Array, DataType, TickBatch, concat
from market_data_tick_handler.storage.recovery.segment_files import Position
from market_data_tick_handler.storage.recovery.tick_records import Note, Order, order_after

# Rows of one record of a repair, and records that are loaded together.
REPAIR_ROWS: Final = 8_192
_RECORDS_AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True)
class JournalTurn:
    """What a pipeline was fed in one turn: rows as stored and notes; `clock_us` is the arrival clock after it, and
    `position` the place in the journal to go on from. A turn of fetched rows alone has no place of its own: its
    position is where the next turn begins, and it takes `clock_us` as well to go on from there."""

    batches: tuple[TickBatch, ...]
    notes: tuple[Note, ...]
    clock_us: int
    position: Position


class Turn(NamedTuple):
    """A turn, where the order of arrival stood before it, and where it begins in the journal."""

    before: Order
    start: Position
    turn: JournalTurn


class Repaired(NamedTuple):
    """A record of fetched rows: its first and last local_timestamp, its place among all fetched, where it is."""

    first_us: int
    last_us: int
    number: int
    data_type: DataType
    start: Position


class RepairRows:
    """Fetched rows in order, loaded a few records at a time. Begins at `begin` in the order of arrival."""

    def __init__(self, records: Sequence[Repaired], load: Callable[[Repaired], TickBatch], begin: Order) -> None:
        self._records = sorted(record for record in records if record.last_us >= begin.us)
        self._load = load
        self._at = 0
        self._held: dict[DataType, tuple[TickBatch, Array]] = {}
        self._begin = begin

    def until(self, order: Order) -> Iterator[list[TickBatch]]:
        """What lies before `order`, in pieces, each one batch per data type at most."""
        more = True
        while more:
            waiting = self._fetch(order)
            more = waiting < order
            batches = self._cut(min(waiting, order))
            if batches:
                yield batches

    def _fetch(self, order: Order) -> Order:
        """Load the next few records that begin before `order`; where the first one not loaded begins."""
        stop = min(self._at + _RECORDS_AT_ONCE, len(self._records))
        while self._at < stop and self._place(self._at) < order:
            self._hold(self._records[self._at])
            self._at += 1
        return self._place(self._at) if self._at < len(self._records) else order

    def _place(self, index: int) -> Order:
        # Of records that begin in one microsecond none is passed over for its rank.
        return Order(self._records[index].first_us, -1)

    def _hold(self, record: Repaired) -> None:
        rows = self._load(record)
        rows = rows.slice(_count_before(rows, self._begin), len(rows))
        numbers = np.full(len(rows), record.number)
        if record.data_type in self._held:
            held, held_numbers = self._held[record.data_type]
            rows, numbers = concat([held, rows]), np.concatenate([held_numbers, numbers])
            order = np.lexsort((numbers, rows["local_timestamp"]))
            rows, numbers = rows.take(order), numbers[order]
        self._held[record.data_type] = rows, numbers

    def _cut(self, order: Order) -> list[TickBatch]:
        out = []
        for data_type, (rows, numbers) in list(self._held.items()):
            count = _count_before(rows, order)
            if count:
                out.append(rows.slice(0, count))
            if count < len(rows):
                self._held[data_type] = rows.slice(count, len(rows)), numbers[count:]
            else:
                del self._held[data_type]
        return sorted(out, key=lambda batch: RANK[batch.data_type])


def _count_before(rows: TickBatch, order: Order) -> int:
    side = "right" if RANK[rows.data_type] < order.rank else "left"
    return int(np.searchsorted(rows["local_timestamp"], order.us, side))  # type: ignore[call-overload]


def merge(turns: Iterable[Turn], rows: RepairRows, end: Order | None) -> Iterator[JournalTurn]:
    """`turns` with the fetched rows at their places, and behind the last turn those before `end`."""
    position = Position(0, 0)
    for before, start, turn in turns:
        after = order_after(before, turn.batches, turn.clock_us)
        for batches in rows.until(_first(turn.batches, after)):
            yield _turn_of(batches, start)
        yield _with_rows(turn, list(rows.until(after)))
        position = turn.position
    for batches in rows.until(end) if end is not None else ():
        yield _turn_of(batches, position)


def _first(batches: Sequence[TickBatch], otherwise: Order) -> Order:
    places = (Order(int(b["local_timestamp"][0]), RANK[b.data_type]) for b in batches if len(b))
    return min(places, default=otherwise)


def _turn_of(batches: list[TickBatch], position: Position) -> JournalTurn:
    clock = max(int(batch["local_timestamp"][-1]) for batch in batches)
    return JournalTurn(tuple(batches), (), clock, position)


def _with_rows(turn: JournalTurn, pieces: list[list[TickBatch]]) -> JournalTurn:
    """The turn with fetched rows between its own; own rows first where local_timestamp is equal."""
    if not pieces:
        return turn
    by_type: dict[DataType, list[TickBatch]] = {}
    for batch in [*turn.batches, *(batch for piece in pieces for batch in piece)]:
        by_type.setdefault(batch.data_type, []).append(batch)
    merged = []
    for data_type in sorted(by_type, key=lambda data_type: RANK[data_type]):
        rows = concat(by_type[data_type])
        if len(by_type[data_type]) > 1:
            rows = rows.take(np.argsort(rows["local_timestamp"], kind="stable"))
        merged.append(rows)
    return JournalTurn(tuple(merged), turn.notes, turn.clock_us, turn.position)

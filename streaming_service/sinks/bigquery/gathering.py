"""Rows on their way into the spool: what was delivered again is left out, the rest becomes columns in pieces."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.errors import DataError, SinkError
from streaming_service.sink import SinkItem, row_count
from streaming_service.sinks.bigquery.definitions import TableDefinition, wire_schema
from streaming_service.sinks.bigquery.rows import candle_rows, in_chunks, stamped, tick_rows
from streaming_service.sinks.spool_records import Mark
from streaming_service.sinks.table_spool import TableSpool

Item = TypeVar("Item", CandleBatch, Rows)
_CANDLES_AT_ONCE: Final = 96
_TICKS_AT_ONCE: Final = 16_384
Bury = Callable[[SinkItem, str], None]


def channel_of(item: SinkItem) -> str:
    """What numbers the rows: an instrument and timeframe, or an instrument and data type."""
    if isinstance(item, CandleBatch):
        return f"{item.instrument.key}/{item.timeframe}"
    return f"{item.instrument}/{item.data_type}"


class _Piece(NamedTuple):
    """Rows as columns. marks: of candles, how far their channels are; streams: of ticks, rows per channel."""

    rows: pa.RecordBatch
    marks: Mapping[str, Mark]
    streams: Mapping[str, int]


@dataclass(slots=True)
class Gathered:
    """Rows of one table that are not in the spool yet."""

    definition: TableDefinition
    items: list[SinkItem] = field(default_factory=list)
    rows: int = 0
    unfit_rows: int = 0
    _pieces: deque[_Piece] = field(default_factory=deque)

    @property
    def pending_rows(self) -> int:
        """Rows that are columns already and did not fit into the spool."""
        return sum(piece.rows.num_rows for piece in self._pieces)

    def add(self, item: SinkItem) -> None:
        """Take rows."""
        self.items.append(item)
        self.rows += row_count(item)

    def move(self, items: list[SinkItem], spool: TableSpool, *, now_us: int, max_rows: int, bury: Bury) -> int:
        """Put `items`, and what an earlier call could not, into the spool; rows put. For a thread.

        Raises:
            SinkBusy: the spool or the disk is full; what is left stays here. SinkError: the disk fails.
        """
        try:
            self._pieces.extend(list(self._encode(items, max_rows, bury)))
        except SinkError:
            self.items[:0] = items
            raise
        moved = 0
        while self._pieces:
            piece = self._pieces[0]
            if piece.streams:
                out_us = spool.stamp(now_us)
                marks = {name: _advanced(spool.mark(name), rows, out_us) for name, rows in piece.streams.items()}
                spool.append(stamped(piece.rows, out_us), now_us=now_us, marks=marks)
            else:
                spool.append(piece.rows, now_us=now_us, marks=piece.marks)
            self._pieces.popleft()
            moved += piece.rows.num_rows
        return moved

    @property
    def cells(self) -> int:
        """Values of all rows: what memory goes by."""
        return self.rows * len(self.definition.schema)

    def _encode(self, items: list[SinkItem], max_rows: int, bury: Bury) -> Iterator[_Piece]:
        candles = [item for item in items if isinstance(item, CandleBatch)]
        ticks = [item for item in items if isinstance(item, Rows)]
        # In portions, so that no step keeps the interpreter from the event loop for long.
        for portion in _portions(candles, _CANDLES_AT_ONCE):
            yield from self._fitting(portion, partial(self._candle_pieces, max_rows=max_rows), bury)
        for part in _portions(ticks, _TICKS_AT_ONCE):
            yield from self._fitting(part, partial(_tick_pieces, max_rows=max_rows), bury)

    def _fitting(self, items: list[Item], encode: Callable[[list[Item]], list[_Piece]], bury: Bury) -> list[_Piece]:
        """The items as columns, without those that do not fit."""
        try:
            return encode(items)
        except DataError as error:
            if len(items) == 1:
                self.unfit_rows += row_count(items[0])
                bury(items[0], str(error))
                return []
        return [piece for item in items for piece in self._fitting([item], encode, bury)]

    def _candle_pieces(self, batches: list[CandleBatch], max_rows: int) -> list[_Piece]:
        rows = candle_rows(batches, wire_schema(self.definition.schema))
        ends = np.cumsum([len(batch) for batch in batches])
        pieces, start = [], 0
        for chunk in in_chunks(rows, max_rows=max_rows):
            stop = start + chunk.num_rows
            pieces.append(_Piece(chunk, _candle_marks(batches, ends.tolist(), start, stop), {}))
            start = stop
        return pieces


def _portions(items: Sequence[Item], rows: int) -> Iterator[list[Item]]:
    """The items in lists of about this many rows."""
    portion: list[Item] = []
    count = 0
    for item in items:
        portion.append(item)
        count += row_count(item)
        if count >= rows:
            yield portion
            portion, count = [], 0
    if portion:
        yield portion


def _candle_marks(batches: list[CandleBatch], ends: list[int], start: int, stop: int) -> dict[str, Mark]:
    """How far each channel is with rows [start, stop) of all batches end to end."""
    marks: dict[str, Mark] = {}
    first = int(np.searchsorted(ends, start, "right"))
    for index in range(first, len(batches)):
        batch = batches[index]
        begin = ends[index] - len(batch)
        if begin >= stop:
            break
        if batch.sequences is None:
            continue
        within = slice(max(start - begin, 0), min(stop - begin, len(batch)))
        out_us = int(batch["timestamp_out"][within].max())
        name, known = channel_of(batch), marks.get(channel_of(batch))
        marks[name] = Mark(int(batch.sequences[within][-1]), max(out_us, known.out_us if known else 0))
    return marks


def _tick_pieces(rows: list[Rows], max_rows: int) -> list[_Piece]:
    names = [channel_of(one) for one in rows]
    ends = np.cumsum([len(one.batch) for one in rows]).tolist()
    pieces, start, index = [], 0, 0
    for chunk in in_chunks(tick_rows(rows), max_rows=max_rows):
        stop = start + chunk.num_rows
        streams: dict[str, int] = {}
        while start < stop:
            until = min(stop, ends[index])
            streams[names[index]] = streams.get(names[index], 0) + until - start
            start = until
            index += start == ends[index]
        pieces.append(_Piece(chunk, {}, streams))
    return pieces


def _advanced(mark: Mark | None, rows: int, out_us: int) -> Mark:
    return Mark((0 if mark is None else mark.sequence) + rows, out_us)


def without_repeated(batch: CandleBatch, mark: Mark | None) -> CandleBatch | None:
    """The rows that the spool does not have yet. A row delivered again has the number and the time it had; rows of a
    journal that began anew have old numbers and new times."""
    if mark is None or batch.sequences is None:
        return batch
    new = (batch.sequences > mark.sequence) | (batch["timestamp_out"] > mark.out_us)
    if new.all():
        return batch
    return batch.take(new) if new.any() else None

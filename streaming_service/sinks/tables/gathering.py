"""Rows on their way into the spool: what was delivered again is left out, the rest becomes columns in pieces."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.errors import DataError, SinkError
from streaming_service.sink import SinkItem, TickChannel, row_count
from streaming_service.sinks.spool_records import Mark
from streaming_service.sinks.table_spool import TableSpool
from streaming_service.sinks.tables.candle_columns import CandleColumns
from streaming_service.sinks.tables.definitions import TableDefinition, wire_schema
from streaming_service.sinks.tables.rows import in_chunks, stamped, tick_rows
from streaming_service.sinks.turns import computing, give_way

Item = TypeVar("Item", CandleBatch, Rows)
_CANDLES_AT_ONCE: Final = 512
_TICKS_AT_ONCE: Final = 16_384
_FREED_AT_ONCE: Final = 32
Bury = Callable[[SinkItem, str], None]


def channel_of(item: SinkItem) -> str:
    """What numbers the rows: an instrument and timeframe, or an instrument and data type."""
    if isinstance(item, CandleBatch):
        return f"{item.instrument.key}/{item.timeframe}"
    if item.numbers is not None:
        return tick_channel(TickChannel(item.instrument, item.data_type, item.numbers.birth, item.numbers.fetched))
    return f"{item.instrument}/{item.data_type}"


def tick_channel(channel: TickChannel) -> str:
    """Name of a channel of numbered ticks; what it has before `@` is the same for every journal of the instrument."""
    return f"{channel.instrument}/{channel.data_type}{'/repair' if channel.fetched else ''}@{channel.birth}"


class _Piece(NamedTuple):
    """Rows as columns. marks: of candles, how far their channels are. Of ticks: streams, rows per channel; ends, the
    last number of channels that have numbers."""

    rows: pa.RecordBatch
    marks: Mapping[str, Mark]
    streams: Mapping[str, int]
    ends: Mapping[str, int]


@dataclass(slots=True)
class Gathered:
    """Rows of one table that are not in the spool yet."""

    definition: TableDefinition
    items: list[SinkItem] = field(default_factory=list)
    rows: int = 0
    unfit_rows: int = 0
    _pieces: deque[_Piece] = field(default_factory=deque)
    _columns: CandleColumns = field(init=False)
    _width: int = field(init=False)

    def __post_init__(self) -> None:
        self._columns = CandleColumns(wire_schema(self.definition.schema))
        self._width = len(self.definition.schema)

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
        # Freeing hundreds of arrays a row takes time too: here, and not on the event loop, and a few rows at a time.
        while items:
            del items[-_FREED_AT_ONCE:]
            give_way()
        moved = 0
        while self._pieces:
            piece = self._pieces[0]
            if piece.streams:
                out_us = spool.stamp(now_us)
                marks = {name: _advanced(spool.mark(name), rows, out_us) for name, rows in piece.streams.items()}
                marks |= {name: Mark(number, out_us) for name, number in piece.ends.items()}
                spool.append(stamped(piece.rows, out_us), now_us=now_us, marks=marks)
            else:
                spool.append(piece.rows, now_us=now_us, marks=piece.marks)
            self._pieces.popleft()
            moved += piece.rows.num_rows
        return moved

    @property
    def cells(self) -> int:
        """Values of all rows: what memory goes by."""
        return self.rows * self._width

    def _encode(self, items: list[SinkItem], max_rows: int, bury: Bury) -> Iterator[_Piece]:
        candles = [item for item in items if isinstance(item, CandleBatch)]
        ticks = [item for item in items if isinstance(item, Rows)]
        for portion in _portions(candles, _CANDLES_AT_ONCE):
            yield from self._fitting(portion, partial(self._candle_pieces, max_rows=max_rows), bury)
        for part in _portions(ticks, _TICKS_AT_ONCE):
            yield from self._fitting(part, partial(_tick_pieces, max_rows=max_rows), bury)

    def _fitting(self, items: list[Item], encode: Callable[[list[Item]], list[_Piece]], bury: Bury) -> list[_Piece]:
        """The items as columns, without those that do not fit."""
        try:
            with computing:
                return encode(items)
        except DataError as error:
            if len(items) == 1:
                self.unfit_rows += row_count(items[0])
                bury(items[0], str(error))
                return []
        return [piece for item in items for piece in self._fitting([item], encode, bury)]

    def _candle_pieces(self, batches: list[CandleBatch], max_rows: int) -> list[_Piece]:
        pieces = []
        for alike, rows in self._columns.rows(batches):
            ends, start = np.cumsum([len(batch) for batch in alike]).tolist(), 0
            for chunk in in_chunks(rows, max_rows=max_rows):
                stop = start + chunk.num_rows
                pieces.append(_Piece(chunk, _candle_marks(alike, ends, start, stop), {}, {}))
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


def _candle_marks(batches: Sequence[CandleBatch], ends: list[int], start: int, stop: int) -> dict[str, Mark]:
    """How far each channel is with rows [start, stop) of all batches end to end."""
    marks: dict[str, Mark] = {}
    for index in range(bisect_right(ends, start), len(batches)):
        batch = batches[index]
        begin = ends[index] - len(batch)
        if begin >= stop:
            break
        mark = last_mark(batch, max(start - begin, 0), min(stop - begin, len(batch)))
        if mark is not None:
            name = channel_of(batch)
            known = marks.get(name, mark)
            marks[name] = Mark(mark.sequence, max(mark.out_us, known.out_us))
    return marks


def last_mark(batch: CandleBatch, start: int, stop: int) -> Mark | None:
    """How far the channel is with rows [start, stop) of a batch; None: no rows, or they have no numbers."""
    if batch.sequences is None or start == stop:
        return None
    out_us = batch["timestamp_out"]
    return Mark(int(batch.sequences[stop - 1]), int(out_us[start] if stop == start + 1 else out_us[start:stop].max()))


def _tick_pieces(rows: list[Rows], max_rows: int) -> list[_Piece]:
    names = [channel_of(one) for one in rows]
    ends = np.cumsum([len(one.batch) for one in rows]).tolist()
    pieces, start, index = [], 0, 0
    for chunk in in_chunks(tick_rows(rows), max_rows=max_rows):
        stop = start + chunk.num_rows
        streams: dict[str, int] = {}
        reached: dict[str, int] = {}
        while start < stop:
            until = min(stop, ends[index])
            name, numbers = names[index], rows[index].numbers
            streams[name] = streams.get(name, 0) + until - start
            if numbers is not None:
                reached[name] = numbers.first + until - (ends[index] - len(rows[index].batch)) - 1
            start = until
            index += start == ends[index]
        pieces.append(_Piece(chunk, {}, streams, reached))
    return pieces


def _advanced(mark: Mark | None, rows: int, out_us: int) -> Mark:
    return Mark((0 if mark is None else mark.sequence) + rows, out_us)


def mark_of(item: SinkItem) -> Mark | None:
    """How far the channel of the rows is with them; None: they have no numbers."""
    if isinstance(item, CandleBatch):
        return last_mark(item, 0, len(item))
    return None if item.numbers is None else Mark(item.numbers.first + len(item.batch) - 1, 0)


def what_is_new(item: SinkItem, mark: Mark | None) -> SinkItem | None:
    """The rows that the spool does not have yet."""
    return without_repeated(item, mark) if isinstance(item, CandleBatch) else _rows_behind(item, mark)


def _rows_behind(rows: Rows, mark: Mark | None) -> Rows | None:
    numbers = rows.numbers
    if numbers is None or mark is None or mark.sequence < numbers.first:
        return rows
    known, count = mark.sequence + 1 - numbers.first, len(rows.batch)
    if known >= count:
        return None
    return replace(rows, batch=rows.batch.slice(known, count), numbers=replace(numbers, first=numbers.first + known))


def without_repeated(batch: CandleBatch, mark: Mark | None) -> CandleBatch | None:
    """The rows that the spool does not have yet. A row delivered again has the number and the time it had; rows of a
    journal that began anew have old numbers and new times."""
    if mark is None or batch.sequences is None:
        return batch
    if len(batch) == 1 and batch.sequences[0] > mark.sequence:
        return batch
    new = (batch.sequences > mark.sequence) | (batch["timestamp_out"] > mark.out_us)
    if new.all():
        return batch
    return batch.take(new) if new.any() else None

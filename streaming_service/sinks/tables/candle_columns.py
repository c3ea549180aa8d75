"""Candles of one timeframe as Arrow columns of their table: hundreds of columns, and mostly one row per batch.

What costs time is handling arrays one by one, 340 of them per candle. So each is touched once, when its bytes are put
behind those of the others; all that follows works on whole blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.schemas import candles_to_arrow
from market_data_tick_handler.core.ticks import Array
from streaming_service.sinks.tables.rows import OWN, owners
from streaming_service.sinks.turns import give_way

_NUMBERS: Final = (np.dtype(np.float64), np.dtype(np.int64))
_WORD: Final = np.dtype(np.uint64)
_MOST_LAYOUTS: Final = 64
# Batches of one row that take about a millisecond and a half.
_AT_ONCE: Final = 48
_dtype = attrgetter("dtype")


class _Source(NamedTuple):
    """What a column of the table is made from: the `place` of a column of `candles_to_arrow`, cast to `kind` if that is
    another type; without a place, what the instrument says, or nothing."""

    name: str
    kind: pa.DataType
    place: int | None
    cast: bool


@dataclass(frozen=True, slots=True)
class _Layout:
    """Batches with the same columns. numbers: names and types of those that are numbers of 8 bytes; others: places and
    names of those that are not, the last one first. sources: per column of the table."""

    identity: tuple[Any, ...]
    numbers: list[tuple[str, np.dtype[Any]]]
    others: list[tuple[int, str]]
    sources: list[_Source]

    def words(self, columns: list[Any], rows: int) -> bytes:
        """All numbers of a batch, row by row; columns: all of them, in their order. The list is used up."""
        for place, _ in self.others:
            del columns[place]
        if rows == 1:
            # Single values have their bytes in one piece, wherever they lie.
            return b"".join(columns)
        return np.array([column.view(_WORD) for column in columns]).T.tobytes()


class CandleRows(NamedTuple):
    """Candles with the same columns, and their rows, in their order."""

    batches: Sequence[CandleBatch]
    rows: pa.RecordBatch


@dataclass(slots=True)
class _Alike:
    """Batches of one layout."""

    layout: _Layout
    batches: list[CandleBatch] = field(default_factory=list)
    words: list[bytes] = field(default_factory=list)

    def add(self, batch: CandleBatch, columns: list[Array]) -> None:
        """columns: those of the batch; the list is used up."""
        self.batches.append(batch)
        self.words.append(self.layout.words(columns, len(batch)))

    def merged(self) -> CandleBatch:
        """All of them end to end."""
        first, layout = self.batches[0], self.layout
        rows = np.frombuffer(b"".join(self.words), _WORD).reshape(-1, len(layout.numbers))
        whole = np.ascontiguousarray(rows.T)
        alike = {kind: whole.view(kind) for kind in _NUMBERS}
        columns: dict[str, Array] = {name: alike[kind][place] for place, (name, kind) in enumerate(layout.numbers)}
        columns |= {name: np.concatenate([batch.columns[name] for batch in self.batches]) for _, name in layout.others}
        ordered = {name: columns[name] for name in first.columns}
        return CandleBatch(first.instrument, first.timeframe, ordered, first.feature_version, first.absent)

    def rows(self, schema: pa.Schema) -> CandleRows:
        """Their rows: converted as one, which costs the same for one row as for many."""
        merged = candles_to_arrow(self.merged()).to_batches()[0].columns
        rows = len(merged[0])
        own = owners([batch.instrument for batch in self.batches], [len(batch) for batch in self.batches])
        columns = []
        for source in self.layout.sources:
            if source.place is not None:
                column = merged[source.place]
                columns.append(column.cast(source.kind) if source.cast else column)
            elif source.name in own:
                columns.append(own[source.name])
            else:
                columns.append(pa.nulls(rows, source.kind))
        return CandleRows(self.batches, pa.RecordBatch.from_arrays(columns, schema=schema))


class CandleColumns:
    """Makes the columns of `schema`; what is to be done with candles of one kind is found out once. For one thread."""

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self._layouts: list[_Layout] = []

    def rows(self, batches: Sequence[CandleBatch]) -> Iterator[CandleRows]:
        """Candles of one timeframe and of any instruments, those with the same columns together: candles of an
        instrument keep their order, candles of several do not. A column that a candle does not have is null.

        Raises:
            SchemaMismatch: a column is not registered, or does not fit its declared type.
        """
        kinds: dict[int, _Alike] = {}
        kind_of: dict[str, int] = {}
        for index, batch in enumerate(batches, 1):
            if index % _AT_ONCE == 0:
                give_way()
            if not len(batch):
                continue
            columns = list(batch.columns.values())
            layout = self._layout_of(batch, columns)
            key, kind = batch.instrument.key, id(layout)
            if kind_of.setdefault(key, kind) != kind:
                # Other columns from here on: what came before must stay before it.
                yield from (alike.rows(self.schema) for alike in kinds.values())
                kinds, kind_of = {}, {key: kind}
            if kind not in kinds:
                kinds[kind] = _Alike(layout)
            kinds[kind].add(batch, columns)
        yield from (alike.rows(self.schema) for alike in kinds.values())

    def _layout_of(self, batch: CandleBatch, columns: Sequence[Array]) -> _Layout:
        identity = (tuple(batch.columns), tuple(map(_dtype, columns)), batch.absent, batch.feature_version)
        # Compared and not hashed: parts that are the same objects, as they nearly always are, cost nothing.
        for layout in reversed(self._layouts):
            if layout.identity == identity:
                return layout
        if len(self._layouts) >= _MOST_LAYOUTS:
            del self._layouts[0]
        numbers = [(name, column.dtype) for name, column in batch.columns.items() if column.dtype in _NUMBERS]
        names = dict(numbers)
        others = [(place, name) for place, name in enumerate(batch.columns) if name not in names]
        layout = _Layout(identity, numbers, others[::-1], self._sources(batch))
        self._layouts.append(layout)
        return layout

    def _sources(self, batch: CandleBatch) -> list[_Source]:
        made = candles_to_arrow(batch.slice(0, 1)).schema
        places = {name: (place, kind) for place, (name, kind) in enumerate(zip(made.names, made.types, strict=True))}
        sources = []
        for member in self.schema:
            place, kind = (None, member.type) if member.name in OWN else places.get(member.name, (None, member.type))
            sources.append(_Source(member.name, member.type, place, kind != member.type))
        return sources

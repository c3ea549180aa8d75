"""Candles of one timeframe as Arrow columns of their table: hundreds of columns, and mostly one row per batch.

What costs time is handling arrays one by one, 340 of them per candle. A candle of a pipeline is one record, and is
copied as one. Of other candles each array is touched once, when its bytes are put behind those of the others. All that
follows works on whole blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Final, NamedTuple, Protocol

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


class _Layout(Protocol):
    """Batches with the same columns. identity: what these have in common. sources: per column of the table."""

    @property
    def identity(self) -> tuple[Any, ...]: ...

    @property
    def sources(self) -> list[_Source]: ...

    def packed(self, batch: CandleBatch) -> bytes:
        """What fits into a block, row by row."""
        ...

    def columns(self, batches: Sequence[CandleBatch], packed: bytes) -> dict[str, Array]:
        """Every column of all batches end to end; packed: theirs, end to end."""
        ...


@dataclass(frozen=True, slots=True)
class _Records:
    """Batches of records with one `dtype`. texts: the columns that are no fields of it."""

    identity: tuple[Any, ...]
    sources: list[_Source]
    dtype: np.dtype[Any]
    texts: tuple[str, ...]

    def packed(self, batch: CandleBatch) -> bytes:
        assert batch.records is not None
        return batch.records.rows.tobytes()

    def columns(self, batches: Sequence[CandleBatch], packed: bytes) -> dict[str, Array]:
        rows = np.frombuffer(packed, self.dtype)
        columns = {name: np.ascontiguousarray(rows[name]) for name in batches[0].names if name not in self.texts}
        return columns | {name: np.concatenate([batch[name] for batch in batches]) for name in self.texts}


@dataclass(frozen=True, slots=True)
class _Arrays:
    """Batches of arrays. numbers: names and types of those that are numbers of 8 bytes; others: places and names of
    those that are not, the last one first."""

    identity: tuple[Any, ...]
    sources: list[_Source]
    numbers: list[tuple[str, np.dtype[Any]]]
    others: list[tuple[int, str]]

    def packed(self, batch: CandleBatch) -> bytes:
        columns: list[Any] = list(batch.columns.values())
        for place, _ in self.others:
            del columns[place]
        if len(batch) == 1:
            # Single values have their bytes in one piece, wherever they lie.
            return b"".join(columns)
        return np.array([column.view(_WORD) for column in columns]).T.tobytes()

    def columns(self, batches: Sequence[CandleBatch], packed: bytes) -> dict[str, Array]:
        rows = np.frombuffer(packed, _WORD).reshape(-1, len(self.numbers))
        whole = np.ascontiguousarray(rows.T)
        alike = {kind: whole.view(kind) for kind in _NUMBERS}
        columns: dict[str, Array] = {name: alike[kind][place] for place, (name, kind) in enumerate(self.numbers)}
        return columns | {name: np.concatenate([batch[name] for batch in batches]) for _, name in self.others}


class CandleRows(NamedTuple):
    """Candles with the same columns, and their rows, in their order."""

    batches: Sequence[CandleBatch]
    rows: pa.RecordBatch


@dataclass(slots=True)
class _Alike:
    """Batches of one layout."""

    layout: _Layout
    batches: list[CandleBatch] = field(default_factory=list)
    packed: list[bytes] = field(default_factory=list)

    def add(self, batch: CandleBatch) -> None:
        """Take a batch of the layout."""
        self.batches.append(batch)
        self.packed.append(self.layout.packed(batch))

    def merged(self) -> CandleBatch:
        """All of them end to end."""
        first = self.batches[0]
        columns = self.layout.columns(self.batches, b"".join(self.packed))
        ordered = {name: columns[name] for name in first.names}
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
            layout = self._layout_of(batch)
            key, kind = batch.instrument.key, id(layout)
            if kind_of.setdefault(key, kind) != kind:
                # Other columns from here on: what came before must stay before it.
                yield from (alike.rows(self.schema) for alike in kinds.values())
                kinds, kind_of = {}, {key: kind}
            if kind not in kinds:
                kinds[kind] = _Alike(layout)
            kinds[kind].add(batch)
        yield from (alike.rows(self.schema) for alike in kinds.values())

    def _layout_of(self, batch: CandleBatch) -> _Layout:
        records = batch.records
        kinds = records.rows.dtype if records is not None else tuple(map(_dtype, batch.columns.values()))
        identity = (records is None, kinds, batch.names, batch.absent, batch.feature_version)
        # Compared and not hashed: parts that are the same objects, as they nearly always are, cost nothing.
        for layout in reversed(self._layouts):
            if layout.identity == identity:
                return layout
        if len(self._layouts) >= _MOST_LAYOUTS:
            del self._layouts[0]
        layout = self._new_layout(batch, identity)
        self._layouts.append(layout)
        return layout

    def _new_layout(self, batch: CandleBatch, identity: tuple[Any, ...]) -> _Layout:
        sources = self._sources(batch)
        if batch.records is not None:
            return _Records(identity, sources, batch.records.rows.dtype, tuple(batch.records.texts))
        numbers = [(name, column.dtype) for name, column in batch.columns.items() if column.dtype in _NUMBERS]
        names = dict(numbers)
        others = [(place, name) for place, name in enumerate(batch.columns) if name not in names]
        return _Arrays(identity, sources, numbers, others[::-1])

    def _sources(self, batch: CandleBatch) -> list[_Source]:
        made = candles_to_arrow(batch.slice(0, 1)).schema
        places = {name: (place, kind) for place, (name, kind) in enumerate(zip(made.names, made.types, strict=True))}
        sources = []
        for member in self.schema:
            place, kind = (None, member.type) if member.name in OWN else places.get(member.name, (None, member.type))
            sources.append(_Source(member.name, member.type, place, kind != member.type))
        return sources

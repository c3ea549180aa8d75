"""Closed candles of one instrument and timeframe, as columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from market_data_tick_handler.core.features.registry import columns
from market_data_tick_handler.core.instruments import InstrumentDefinition
from market_data_tick_handler.core.ticks import Array
from market_data_tick_handler.core.timeframes import Timeframe

# Which rows: views for a slice, copies for indices or a mask.
_Rows = slice | Array
# Never part of a comparison of live and batch: they tell of the publication, not of the market (features.md 2.9).
PUBLICATION_COLUMNS = ("revision", "timestamp_out")


@cache
def _whole_columns() -> frozenset[str]:
    return frozenset(column.name for column in columns() if column.dtype.startswith(("int", "timestamp")))


@dataclass(frozen=True, slots=True)
class CandleRecords:
    """Rows as the pipeline makes them, one record each: the record is one piece of memory, its 340 columns are 340.

    rows: structured, shape (n,). names: the columns, in published order. texts: those of them that are no fields, or
    not as they stand. All rows of a pipeline and timeframe have one `dtype` and one `names`, the objects themselves.
    """

    rows: Array
    names: tuple[str, ...]
    texts: Mapping[str, Array]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, name: str) -> Array:
        text = self.texts.get(name)
        if text is not None:
            return text
        try:
            return self.rows[name]
        except ValueError:
            raise KeyError(name) from None

    def at(self, rows: _Rows) -> CandleRecords:
        """Some of the rows: views for a slice, copies for indices or a mask."""
        return CandleRecords(self.rows[rows], self.names, {name: text[rows] for name, text in self.texts.items()})

    def replaced(self, columns: Mapping[str, Array]) -> CandleRecords | None:
        """The same with some fields replaced; None where there are no such fields, or of another type."""
        kinds: Mapping[str, Any] = self.rows.dtype.fields or {}
        if any(name not in kinds or name in self.texts or kinds[name][0] != new.dtype for name, new in columns.items()):
            return None
        rows = self.rows.copy()
        for name, new in columns.items():
            rows[name] = new
        return CandleRecords(rows, self.names, self.texts)


class CandleBatch:
    """`columns` maps every published column to a 1-D array, rows in time order; a null float is NaN.

    `quality` is a string array; `instrument_id`, `exchange`, `symbol`, `timeframe` and `feature_version` are constants
    of the batch and not stored per row: `row()` and the Arrow schema add them. `absent` names the columns that are null
    in every row because the instrument has no such feed (never 0, which would mean that nothing happened).
    `digests`: per row 16 bytes over everything but the publication columns, uint64, shape (n, 2), where the pipeline
    was asked for them (core/digests.py): two rows with one digest have one content. `sequences`: per row its number
    on its channel (instrument and timeframe), int64, shape (n,), where an output journal gave it one: none twice, none
    left out, over restarts. `records`: the same rows in one piece, where they came from a pipeline and nothing was
    replaced; who handles every column of few rows does it many times as fast with them.
    """

    __slots__ = (
        "_columns",
        "absent",
        "config_hash",
        "digests",
        "feature_version",
        "instrument",
        "records",
        "sequences",
        "timeframe",
    )

    def __init__(
        self,
        instrument: InstrumentDefinition,
        timeframe: Timeframe,
        columns: Mapping[str, Array] | CandleRecords,
        feature_version: str,
        absent: tuple[str, ...] = (),
        config_hash: str = "",
        digests: Array | None = None,
        sequences: Array | None = None,
    ) -> None:
        self.instrument = instrument
        self.timeframe = timeframe
        self.records = columns if isinstance(columns, CandleRecords) else None
        self._columns = None if isinstance(columns, CandleRecords) else dict(columns)
        self.feature_version = feature_version
        self.absent = absent
        self.config_hash = config_hash
        self.digests = digests
        self.sequences = sequences

    def __len__(self) -> int:
        return len(self["timestamp"] if self.records is None else self.records)

    def __getitem__(self, name: str) -> Array:
        return self.columns[name] if self.records is None else self.records[name]

    @property
    def columns(self) -> dict[str, Array]:
        """Every column by name, in published order."""
        if self._columns is None:
            assert self.records is not None
            self._columns = {name: self.records[name] for name in self.records.names}
        return self._columns

    @property
    def names(self) -> tuple[str, ...]:
        """The names of `columns`, without making these."""
        return tuple(self.columns) if self.records is None else self.records.names

    @property
    def constants(self) -> dict[str, str]:
        """The identity columns that are the same in every row."""
        return {
            "instrument_id": self.instrument.key,
            "exchange": self.instrument.exchange,
            "symbol": self.instrument.symbol,
            "timeframe": str(self.timeframe),
            "feature_version": self.feature_version,
        }

    def row(self, index: int) -> dict[str, Any]:
        """Row `index` as Python scalars; null floats are None."""
        out: dict[str, Any] = {**self.constants, **dict.fromkeys(self.absent)}
        for name, column in self.columns.items():
            value = column[index].item()
            if isinstance(value, float):
                # A whole number that may be null travels as a float, which can say so.
                value = None if value != value else int(value) if name in _whole_columns() else value
            out[name] = value
        return out

    def rows(self) -> Iterator[dict[str, Any]]:
        """Every row as Python scalars, in time order."""
        return (self.row(index) for index in range(len(self)))

    def slice(self, start: int, stop: int) -> CandleBatch:
        """Rows [start, stop) as views."""
        return self._at(slice(start, stop))

    def take(self, rows: Array) -> CandleBatch:
        """The rows at indices, or under a boolean mask."""
        return self._at(rows)

    def replace(self, **columns: Array) -> CandleBatch:
        """The same candles with some columns replaced."""
        records = None if self.records is None else self.records.replaced(columns)
        return self._with({**self.columns, **columns} if records is None else records, self.digests, self.sequences)

    def numbered(self, sequences: Array) -> CandleBatch:
        """The same candles with their numbers on their channel."""
        return self._with(self.columns if self.records is None else self.records, self.digests, sequences)

    def _at(self, rows: _Rows) -> CandleBatch:
        if self.records is None:
            found: Mapping[str, Array] | CandleRecords = {name: column[rows] for name, column in self.columns.items()}
        else:
            found = self.records.at(rows)
        digests = None if self.digests is None else self.digests[rows]
        return self._with(found, digests, None if self.sequences is None else self.sequences[rows])

    def _with(
        self, columns: Mapping[str, Array] | CandleRecords, digests: Array | None, sequences: Array | None
    ) -> CandleBatch:
        return CandleBatch(
            self.instrument,
            self.timeframe,
            columns,
            self.feature_version,
            self.absent,
            self.config_hash,
            digests,
            sequences,
        )


def concat_candles(batches: list[CandleBatch]) -> CandleBatch:
    """Batches of one instrument and timeframe, end to end."""
    first = batches[0]
    columns: CandleRecords | dict[str, Array] | None = _joined_records([batch.records for batch in batches])
    if columns is None:
        columns = {name: np.concatenate([batch[name] for batch in batches]) for name in first.columns}
    return CandleBatch(
        first.instrument,
        first.timeframe,
        columns,
        first.feature_version,
        first.absent,
        first.config_hash,
        _joined([batch.digests for batch in batches]),
        _joined([batch.sequences for batch in batches]),
    )


def _joined_records(parts: Sequence[CandleRecords | None]) -> CandleRecords | None:
    """Records end to end; None where a part has none, or others."""
    known = [part for part in parts if part is not None]
    first = known[0] if len(known) == len(parts) else None
    if first is None or any(part.rows.dtype != first.rows.dtype or part.names != first.names for part in known):
        return None
    # Given the type, as joining makes an equal one of its own.
    rows = np.concatenate([part.rows for part in known], dtype=first.rows.dtype)
    return CandleRecords(
        rows, first.names, {name: np.concatenate([part.texts[name] for part in known]) for name in first.texts}
    )


def _joined(parts: Sequence[Array | None]) -> Array | None:
    """Parts end to end; None where one is missing."""
    known = [part for part in parts if part is not None]
    return np.concatenate(known) if len(known) == len(parts) else None


def newest_rows(batch: CandleBatch) -> CandleBatch:
    """The last row of each candle, in time order; rows of one candle stand in the order of their publication."""
    backwards = batch["timestamp"][::-1]
    _, last = np.unique(backwards, return_index=True)
    return batch if len(last) == len(batch) else batch.take(len(batch) - 1 - last)

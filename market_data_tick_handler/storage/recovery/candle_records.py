"""Rows of candles as bytes, and back bit for bit; what they consist of is said once per file.

A payload is `_ROWS` (index of the layout in the header of the segment, number of rows, sequence number of the first),
the digests, the records where the layout has one, the columns of fixed width beside it, each end to end, in the order
of the layout, and the texts of object columns as JSON.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np

from market_data_tick_handler.core.candle_batch import CandleBatch, CandleRecords
from market_data_tick_handler.core.instruments import InstrumentDefinition, InstrumentType
from market_data_tick_handler.core.ticks import Array
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.errors import CorruptObject

_ROWS: Final = struct.Struct("<BIq")
_DIGEST_BYTES: Final = 16
_Dtype = np.dtype[Any]


@dataclass(frozen=True, slots=True)
class CandleLayout:
    """What is the same for all rows of a timeframe while the settings stay: the columns, and the constants of a
    `CandleBatch`.

    names: of all columns, in their order. record: the dtype of `CandleBatch.records`, None where there are none.
    columns: names and dtypes of those that are no fields of the record.
    """

    instrument: InstrumentDefinition
    timeframe: Timeframe
    names: tuple[str, ...]
    record: _Dtype | None
    columns: tuple[tuple[str, _Dtype], ...]
    feature_version: str
    absent: tuple[str, ...]
    config_hash: str
    # The columns of fixed width with the bytes per row before each; behind them, bytes per row.
    places: Mapping[str, tuple[_Dtype, int]] = field(init=False, repr=False, compare=False)
    row_bytes: int = field(init=False, repr=False, compare=False)
    objects: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        places, at = {}, 0 if self.record is None else self.record.itemsize
        for name, dtype in self.columns:
            if not dtype.hasobject:
                places[name] = (dtype, at)
                at += dtype.itemsize
        object.__setattr__(self, "places", places)
        object.__setattr__(self, "row_bytes", at)
        object.__setattr__(self, "objects", tuple(name for name, dtype in self.columns if dtype.hasobject))

    @classmethod
    def of(cls, batch: CandleBatch) -> CandleLayout:
        """The layout of a batch."""
        return cls(
            batch.instrument, batch.timeframe, batch.names, *_kinds(batch),
            batch.feature_version, batch.absent, batch.config_hash,
        )  # fmt: skip

    def fits(self, batch: CandleBatch) -> bool:
        """True if a batch has this layout."""
        return (
            batch.instrument is self.instrument
            and batch.config_hash == self.config_hash
            and batch.feature_version == self.feature_version
            and batch.absent == self.absent
            and batch.names == self.names
            and _kinds(batch) == (self.record, self.columns)
        )

    def tree(self) -> dict[str, Any]:
        """As JSON, for the header of a segment."""
        return {
            "instrument": asdict(self.instrument),
            "timeframe": self.timeframe.value,
            "names": list(self.names),
            "record": None if self.record is None else self.record.descr,
            "columns": [[name, dtype.str] for name, dtype in self.columns],
            "feature_version": self.feature_version,
            "absent": list(self.absent),
            "config_hash": self.config_hash,
        }

    @classmethod
    def of_tree(cls, tree: Mapping[str, Any]) -> CandleLayout:
        """What `tree` was made from. The first trees knew no records, and had every column among `columns`."""
        kind = InstrumentType(tree["instrument"]["instrument_type"])
        columns = tuple((name, np.dtype(dtype)) for name, dtype in tree["columns"])
        record = tree.get("record")
        return cls(
            InstrumentDefinition(**{**tree["instrument"], "instrument_type": kind}),
            Timeframe(tree["timeframe"]),
            tuple(tree.get("names", [name for name, _ in columns])),
            None if record is None else np.dtype([(name, dtype) for name, dtype in record]),
            columns,
            tree["feature_version"],
            tuple(tree["absent"]),
            tree["config_hash"],
        )


def _kinds(batch: CandleBatch) -> tuple[_Dtype | None, tuple[tuple[str, _Dtype], ...]]:
    """`CandleLayout.record` and `CandleLayout.columns` of a batch."""
    records = batch.records
    beside = batch.columns if records is None else records.texts
    columns = tuple((name, column.dtype) for name, column in beside.items())
    return None if records is None else records.rows.dtype, columns


class CandleRows(NamedTuple):
    """Rows of one record: a batch with its digests, and the sequence number of its first row."""

    batch: CandleBatch
    first_sequence: int


class RowIdentities(NamedTuple):
    """What a record says of the identity of its rows."""

    timeframe: Timeframe
    timestamps: Array
    revisions: Array
    digests: Array
    first_sequence: int


def encode_rows(index: int, layout: CandleLayout, batch: CandleBatch, digests: Array, first_sequence: int) -> bytes:
    """The payload of rows whose layout is at `index` of the header."""
    head = _ROWS.pack(index, len(batch), first_sequence)
    records = [] if batch.records is None else [batch.records.rows]
    columns: list[Array] = [batch[name] for name in layout.places]
    texts = json.dumps([batch[name].tolist() for name in layout.objects]).encode() if layout.objects else b""
    parts: list[Any] = [head, np.ascontiguousarray(digests), *records, *columns, texts]
    try:
        return b"".join(parts)
    except (BufferError, TypeError, ValueError):
        # Several rows of one record array are not contiguous per column.
        return b"".join([head, digests.tobytes(), *[part.tobytes() for part in (*records, *columns)], texts])


def decode_rows(payload: bytes, layouts: Sequence[CandleLayout]) -> CandleRows:
    """The rows of a payload.

    Raises:
        CorruptObject: it holds no rows of these layouts.
    """
    try:
        layout, rows, first_sequence, digests = _head(payload, layouts)
        begin = _ROWS.size + _DIGEST_BYTES * rows
        found = {
            name: np.frombuffer(payload, dtype, rows, begin + rows * before).copy()
            for name, (dtype, before) in layout.places.items()
        }
        if layout.objects:
            texts = json.loads(payload[begin + rows * layout.row_bytes :])
            found |= {name: _objects(values) for name, values in zip(layout.objects, texts, strict=True)}
        columns: Mapping[str, Array] | CandleRecords
        if layout.record is None:
            columns = {name: found[name] for name in layout.names}
        else:
            records = np.frombuffer(payload, layout.record, rows, begin).copy()
            columns = CandleRecords(records, layout.names, {name: found[name] for name, _ in layout.columns})
    except (struct.error, IndexError, ValueError) as error:
        raise CorruptObject(f"candles: expected rows of a known layout, got: {error}; restore the file") from error
    batch = CandleBatch(
        layout.instrument, layout.timeframe, columns, layout.feature_version, layout.absent, layout.config_hash,
        digests.copy(),
    )  # fmt: skip
    return CandleRows(batch, first_sequence)


def decode_identities(payload: bytes, layouts: Sequence[CandleLayout]) -> RowIdentities:
    """The identities of a payload's rows, without their columns.

    Raises:
        CorruptObject: it holds no rows of these layouts.
    """
    try:
        layout, rows, first_sequence, digests = _head(payload, layouts)
        begin = _ROWS.size + _DIGEST_BYTES * rows
        if layout.record is None:
            places = (layout.places[name] for name in ("timestamp", "revision"))
            timestamps, revisions = (
                np.frombuffer(payload, dtype, rows, begin + rows * before) for dtype, before in places
            )
        else:
            records = np.frombuffer(payload, layout.record, rows, begin)
            timestamps, revisions = records["timestamp"], records["revision"]
    except (struct.error, IndexError, ValueError) as error:
        raise CorruptObject(f"candles: expected rows of a known layout, got: {error}; restore the file") from error
    return RowIdentities(layout.timeframe, timestamps, revisions, digests, first_sequence)


def _head(payload: bytes, layouts: Sequence[CandleLayout]) -> tuple[CandleLayout, int, int, Array]:
    """Layout, number of rows, number of the first, digests."""
    index, rows, first_sequence = _ROWS.unpack_from(payload)
    digests = np.frombuffer(payload, "<u8", 2 * rows, _ROWS.size).reshape(rows, 2)
    return layouts[index], rows, first_sequence, digests


def _objects(values: Sequence[Any]) -> Array:
    column = np.empty(len(values), object)
    column[:] = values
    return column

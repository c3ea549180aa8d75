"""Rows of candles as bytes, and back bit for bit: columns end to end, what they are once per file.

A payload is `_ROWS` (index of the layout in the header of the segment, number of rows, sequence number of the first),
the digests, the columns of fixed width end to end in the order of the layout, and the texts of object columns as JSON.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from operator import attrgetter
from typing import Any, Final, NamedTuple

import numpy as np

from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.instruments import InstrumentDefinition, InstrumentType
from market_data_tick_handler.core.ticks import Array
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.errors import CorruptObject

_ROWS: Final = struct.Struct("<BIq")
_DIGEST_BYTES: Final = 16
_DTYPE: Final = attrgetter("dtype")


@dataclass(frozen=True, slots=True)
class CandleLayout:
    """What is the same for all rows of a timeframe while the settings stay: names and dtypes of the columns, and the
    constants of a `CandleBatch`."""

    instrument: InstrumentDefinition
    timeframe: Timeframe
    names: tuple[str, ...]
    dtypes: tuple[np.dtype[Any], ...]
    feature_version: str
    absent: tuple[str, ...]
    config_hash: str
    # Of `timestamp` and `revision`: index, and the bytes per row of the columns before it.
    places: tuple[tuple[int, int], ...] = field(init=False, repr=False, compare=False)
    has_objects: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        indices = [self.names.index(name) for name in ("timestamp", "revision")]
        before = [sum(dtype.itemsize for dtype in self.dtypes[:at] if not dtype.hasobject) for at in indices]
        object.__setattr__(self, "places", tuple(zip(indices, before, strict=True)))
        object.__setattr__(self, "has_objects", any(dtype.hasobject for dtype in self.dtypes))

    @classmethod
    def of(cls, batch: CandleBatch) -> CandleLayout:
        """The layout of a batch."""
        dtypes = tuple(map(_DTYPE, batch.columns.values()))
        return cls(
            batch.instrument, batch.timeframe, tuple(batch.columns), dtypes,
            batch.feature_version, batch.absent, batch.config_hash,
        )  # fmt: skip

    def fits(self, batch: CandleBatch) -> bool:
        """True if a batch has this layout."""
        columns = batch.columns
        return (
            batch.instrument is self.instrument
            and batch.config_hash == self.config_hash
            and batch.feature_version == self.feature_version
            and batch.absent == self.absent
            and tuple(columns) == self.names
            and tuple(map(_DTYPE, columns.values())) == self.dtypes
        )

    def tree(self) -> dict[str, Any]:
        """As JSON, for the header of a segment."""
        return {
            "instrument": asdict(self.instrument),
            "timeframe": self.timeframe.value,
            "columns": [[name, dtype.str] for name, dtype in zip(self.names, self.dtypes, strict=True)],
            "feature_version": self.feature_version,
            "absent": list(self.absent),
            "config_hash": self.config_hash,
        }

    @classmethod
    def of_tree(cls, tree: Mapping[str, Any]) -> CandleLayout:
        """What `tree` was made from."""
        kind = InstrumentType(tree["instrument"]["instrument_type"])
        return cls(
            InstrumentDefinition(**{**tree["instrument"], "instrument_type": kind}),
            Timeframe(tree["timeframe"]),
            tuple(name for name, _ in tree["columns"]),
            tuple(np.dtype(dtype) for _, dtype in tree["columns"]),
            tree["feature_version"],
            tuple(tree["absent"]),
            tree["config_hash"],
        )


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
    columns: list[Array] = list(batch.columns.values())
    texts = b""
    if layout.has_objects:
        objects = [column.tolist() for column in columns if column.dtype.hasobject]
        texts = json.dumps(objects).encode()
        columns = [column for column in columns if not column.dtype.hasobject]
    parts: list[Any] = [head, np.ascontiguousarray(digests), *columns, texts]
    try:
        return b"".join(parts)
    except (BufferError, TypeError, ValueError):
        # Several rows of one record array are not contiguous per column.
        return b"".join([head, digests.tobytes(), *[column.tobytes() for column in columns], texts])


def decode_rows(payload: bytes, layouts: Sequence[CandleLayout]) -> CandleRows:
    """The rows of a payload.

    Raises:
        CorruptObject: it holds no rows of these layouts.
    """
    try:
        index, rows, first_sequence = _ROWS.unpack_from(payload)
        layout = layouts[index]
        at = _ROWS.size
        digests = np.frombuffer(payload, "<u8", 2 * rows, at).reshape(rows, 2).copy()
        at += _DIGEST_BYTES * rows
        columns: dict[str, Array] = {}
        for name, dtype in zip(layout.names, layout.dtypes, strict=True):
            if dtype.hasobject:
                columns[name] = np.empty(rows, object)
                continue
            columns[name] = np.frombuffer(payload, dtype, rows, at).copy()
            at += rows * dtype.itemsize
        if layout.has_objects:
            _fill_objects(columns, payload[at:])
    except (struct.error, IndexError, ValueError) as error:
        raise CorruptObject(f"candles: expected rows of a known layout, got: {error}; restore the file") from error
    batch = CandleBatch(
        layout.instrument, layout.timeframe, columns, layout.feature_version, layout.absent, layout.config_hash, digests
    )
    return CandleRows(batch, first_sequence)


def decode_identities(payload: bytes, layouts: Sequence[CandleLayout]) -> RowIdentities:
    """The identities of a payload's rows, without their columns.

    Raises:
        CorruptObject: it holds no rows of these layouts.
    """
    try:
        index, rows, first_sequence = _ROWS.unpack_from(payload)
        layout = layouts[index]
        digests = np.frombuffer(payload, "<u8", 2 * rows, _ROWS.size).reshape(rows, 2)
        begin = _ROWS.size + _DIGEST_BYTES * rows
        timestamps, revisions = (
            np.frombuffer(payload, layout.dtypes[at], rows, begin + rows * before) for at, before in layout.places
        )
    except (struct.error, IndexError, ValueError) as error:
        raise CorruptObject(f"candles: expected rows of a known layout, got: {error}; restore the file") from error
    return RowIdentities(layout.timeframe, timestamps, revisions, digests, first_sequence)


def _fill_objects(columns: Mapping[str, Array], texts: bytes) -> None:
    objects = [column for column in columns.values() if column.dtype.hasobject]
    for column, values in zip(objects, json.loads(texts), strict=True):
        column[:] = values

"""Turns as bytes: the batches of a turn in their layouts, the notes as JSON.

A payload is `_TURN` (the order before the turn, number of batches, length of the notes), then per batch `_BATCH` (code
of the data type, 1 if it has texts, rows, length of the texts), the columns end to end in the order of the layout, the
texts as a JSON list; last the notes. Codes and layouts are in the header of the segment: a later version, whose layouts
may differ, reads by name.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from market_data_tick_handler.core.events import Disconnect, Gap, Heartbeat
from market_data_tick_handler.core.ticks import LAYOUTS, RANK, TEXT_COLUMNS, DataType, TickBatch
from market_data_tick_handler.errors import CorruptObject, SchemaMismatch

_TURN: Final = struct.Struct("<qbHI")
_BATCH: Final = struct.Struct("<BBII")
_DTYPES: Final = {data_type: tuple(np.dtype(field.dtype) for field in fields) for data_type, fields in LAYOUTS.items()}


class Order(NamedTuple):
    """A place in the order of arrival: rows that are still to come have (local_timestamp, rank) at or after it."""

    us: int
    rank: int


START: Final = Order(-(2**63), -1)
END: Final = Order(2**63 - 1, 127)


@dataclass(frozen=True, slots=True)
class OutageOpened:
    """The feed is without proof of life since `open_us`, and has not come back yet."""

    open_us: int


@dataclass(frozen=True, slots=True)
class Remark:
    """Anything else a replay must know: JSON under a name."""

    name: str
    content: Any


Note = Gap | OutageOpened | Disconnect | Heartbeat | Remark
_NOTES: Final[Mapping[str, type[Any]]] = {kind.__name__: kind for kind in (OutageOpened, Disconnect, Heartbeat, Remark)}


def order_after(order: Order, batches: Sequence[TickBatch], clock_us: int) -> Order:
    """Where the order of arrival stands after these rows, and a promise that no row is older than `clock_us`."""
    for batch in batches:
        if len(batch):
            order = max(order, Order(int(batch.columns["local_timestamp"][-1]), RANK[batch.data_type]))
    return Order(clock_us, -1) if clock_us > order.us else order


def describe_layouts() -> dict[str, Any]:
    """For the header of a segment: per code of a data type its name and columns."""
    return {
        "layouts": {
            str(RANK[data_type]): [data_type.value, [[field.name, field.dtype] for field in fields]]
            for data_type, fields in LAYOUTS.items()
        }
    }


def encode_turn(order: Order, batches: Sequence[TickBatch], notes: Sequence[Note]) -> bytes:
    """The payload of a turn.

    Raises:
        SchemaMismatch: a column is absent, or has another dtype or length than its layout says.
    """
    told = json.dumps([_note_tree(note) for note in notes], separators=(",", ":")).encode() if notes else b""
    parts: list[Any] = [_TURN.pack(order.us, order.rank, len(batches), len(told))]
    for batch in batches:
        _encode_batch(batch, parts)
    parts.append(told)
    return b"".join(parts)


def _encode_batch(batch: TickBatch, parts: list[Any]) -> None:
    data_type, columns, rows = batch.data_type, batch.columns, len(batch)
    texts = b""
    text = TEXT_COLUMNS.get(data_type)
    if text is not None and text in columns:
        texts = json.dumps(columns[text].tolist()).encode()
    parts.append(_BATCH.pack(RANK[data_type], bool(texts), rows, len(texts)))
    for field, dtype in zip(LAYOUTS[data_type], _DTYPES[data_type], strict=True):
        column = columns.get(field.name)
        if column is None or column.dtype != dtype or column.shape != (rows,):
            came = "none" if column is None else f"{column.dtype} of shape {column.shape}"
            raise SchemaMismatch(
                f"{data_type}: expected column {field.name} as {dtype} of shape {(rows,)}, got {came}; "
                f"make the batch with TickBatch.build"
            )
        parts.append(column if column.flags.c_contiguous else column.tobytes())
    parts.append(texts)


def decode_order(payload: bytes) -> Order:
    """Where the order of arrival stood before the turn."""
    us, rank, _, _ = _TURN.unpack_from(payload)
    return Order(us, rank)


def decode_turn(
    payload: bytes, header: Mapping[str, Any], only: DataType | None = None
) -> tuple[list[TickBatch], list[Note]]:
    """The batches and notes of a turn; with `only` the batches of that data type.

    Raises:
        CorruptObject: the payload is no turn of this header.
    """
    try:
        _, _, count, told = _TURN.unpack_from(payload)
        at, batches = _TURN.size, []
        for _ in range(count):
            batch, at = _decode_batch(payload, at, header["layouts"], only)
            if batch is not None:
                batches.append(batch)
        notes = [_note_of(tree) for tree in json.loads(payload[at : at + told])] if told else []
    except (struct.error, KeyError, TypeError, ValueError) as error:
        raise CorruptObject(f"turn: expected batches and notes, got: {error}; start from a state behind it") from error
    return batches, notes


def _decode_batch(
    payload: bytes, at: int, layouts: Mapping[str, Any], only: DataType | None
) -> tuple[TickBatch | None, int]:
    code, has_texts, rows, text_bytes = _BATCH.unpack_from(payload, at)
    at += _BATCH.size
    name, layout = layouts[str(code)]
    data_type = DataType(name)
    columns: dict[str, Any] = {}
    wanted = only is None or only is data_type
    for column, dtype in layout:
        if wanted:
            columns[column] = np.frombuffer(payload, dtype, rows, at).copy()
        at += rows * np.dtype(dtype).itemsize
    if wanted and has_texts:
        texts = np.empty(rows, dtype=object)
        texts[:] = json.loads(payload[at : at + text_bytes])
        columns[TEXT_COLUMNS[data_type]] = texts
    at += text_bytes
    if not wanted:
        return None, at
    if layout == _LAYOUTS_NOW[data_type]:
        return TickBatch(data_type, columns), at
    known = {field.name for field in LAYOUTS[data_type]} | {TEXT_COLUMNS.get(data_type, "")}
    return TickBatch.build(data_type, {name: column for name, column in columns.items() if name in known}), at


_LAYOUTS_NOW: Final = {data_type: [[f.name, f.dtype] for f in fields] for data_type, fields in LAYOUTS.items()}


def _note_tree(note: Note) -> list[Any]:
    return [type(note).__name__, asdict(note)]


def _note_of(tree: list[Any]) -> Note:
    kind, content = tree
    if kind == Gap.__name__:
        return Gap.of_tree(content)
    note: Note = _NOTES[kind](**content)
    return note

"""TickBatch to the Arrow table of a raw day file, and back: also from files that others wrote."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import numpy as np
import pyarrow as pa

from market_data_tick_handler.core.ids import id_texts
from market_data_tick_handler.core.ticks import (
    ID_HASH,
    ID_INTEGER,
    ID_NONE,
    LAYOUTS,
    TEXT_COLUMNS,
    Array,
    DataType,
    Field,
    TickBatch,
)
from market_data_tick_handler.errors import SchemaMismatch
from market_data_tick_handler.storage import arrow_columns
from market_data_tick_handler.storage.tardis_layouts import source_columns

_SYMBOL_HASH: Final = next(spec for spec in LAYOUTS[DataType.OPTIONS] if spec.name == "symbol_hash")


def to_table(batch: TickBatch, schema: pa.Schema) -> pa.Table:
    """The batch in the columns of `schema`; missing floats and texts become nulls."""
    return pa.table([_column(batch, field) for field in schema], schema=schema)


def _column(batch: TickBatch, field: pa.Field) -> pa.Array:
    name = field.name
    if name == "id" and pa.types.is_string(field.type):
        return _id_texts(batch)
    if name not in batch.columns and name == TEXT_COLUMNS.get(batch.data_type):
        return pa.nulls(len(batch), field.type)
    values = batch[name]
    if values.dtype == object:
        return pa.array(values, field.type, mask=values == "")
    return pa.array(values, field.type, from_pandas=field.nullable)


def _id_texts(batch: TickBatch) -> pa.Array:
    texts = np.array(id_texts(batch["id"], batch["id_kind"]), dtype=object)
    if "id_text" in batch.columns:
        given = batch["id_text"]
        texts = np.where((batch["id_kind"] == ID_HASH) & (given != ""), given, texts)
    return pa.array(texts, pa.string(), mask=batch["id_kind"] == ID_NONE)


def needs_id_texts(batch: TickBatch) -> bool:
    """True when an id of the batch is no integer, or is the integer 0, which an integer column reads as no id."""
    if "id_kind" not in batch.columns:
        return False
    kinds = batch["id_kind"]
    return bool((kinds == ID_HASH).any()) or bool(((kinds == ID_INTEGER) & (batch["id"] == 0)).any())


def file_names(data_type: DataType, present: Collection[str], where: str) -> dict[str, str]:
    """Our column name -> the name in a file, which may be ours or Tardis'.

    Raises:
        SchemaMismatch: the file lacks a column that the layout needs.
    """
    names: dict[str, str] = {}
    for ours, tardis in source_columns(data_type).items():
        if ours in present or tardis in present:
            names[ours] = ours if ours in present else tardis
    missing = [name for name in source_columns(data_type) if name not in names and name != "id"]
    if data_type is DataType.OPTIONS and "symbol" not in present:
        missing.append("symbol")
    if missing:
        raise SchemaMismatch(
            f"{where}: expected columns {sorted(source_columns(data_type))} of {data_type}; missing {missing}; "
            f"came {sorted(present)}; write the file in the documented layout"
        )
    return names


def to_batch(
    data_type: DataType, columns: pa.RecordBatch | pa.Table, names: dict[str, str], wanted: Collection[str]
) -> TickBatch:
    """Batch of the `wanted` columns; the others hold their missing value and cost no decoding."""
    rows = columns.num_rows
    out: dict[str, Array] = {}
    for spec in LAYOUTS[data_type]:
        source = names.get(spec.name)
        if spec.name in ("id_kind", "symbol_hash") or spec.name in out:
            continue
        if source is None or spec.name not in wanted:
            out[spec.name] = np.full(rows, spec.missing, spec.dtype)
        elif spec.name in ("side", "option_type"):
            out[spec.name] = arrow_columns.codes(columns.column(source), spec.name)
        elif spec.name != "id":
            out[spec.name] = _numbers(columns.column(source), spec, source)
    if "id" in names and "id" in wanted:
        out["id"], out["id_kind"], text = arrow_columns.ids(columns.column(names["id"]))
        if text is not None:
            out["id_text"] = text
    elif "id" in out:
        out["id_kind"] = np.full(rows, ID_NONE, np.uint8)
    if data_type is DataType.OPTIONS:
        hashes, out["symbol"] = arrow_columns.symbols(columns.column("symbol"))
        if "symbol_hash" in columns.schema.names:
            stored = arrow_columns.numbers(columns.column("symbol_hash"), _SYMBOL_HASH)
            hashes = np.where(out["symbol"] == "", stored, hashes)
        out["symbol_hash"] = hashes
    return TickBatch(data_type, out)


def _numbers(column: pa.Array | pa.ChunkedArray, spec: Field, name: str) -> Array:
    kind = column.type
    if not (
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_timestamp(kind) or pa.types.is_null(kind)
    ):
        raise SchemaMismatch(f"column {name}: expected numbers or timestamps, got {kind}; convert the column")
    if pa.types.is_null(kind):
        return np.full(len(column), spec.missing, spec.dtype)
    return arrow_columns.numbers(column, spec)

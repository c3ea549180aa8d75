"""Arrow, BigQuery and JSON schema of every table, derived from the column registry and the tick layouts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
import pyarrow as pa

from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.features.registry import FEATURE_VERSION, Column, column, columns, group_names
from market_data_tick_handler.core.ticks import LAYOUTS, TEXT_COLUMNS, Array, DataType
from market_data_tick_handler.errors import SchemaMismatch

TIMESTAMP: Final = pa.timestamp("us", tz="UTC")
# Key of the file metadata that names the settings behind the values, several of them separated by commas.
CONFIG_HASH: Final = b"config_hash"
_ARROW: Final[dict[str, pa.DataType]] = {
    "float64": pa.float64(),
    "int64": pa.int64(),
    "int32": pa.int32(),
    "bool": pa.bool_(),
    "string": pa.string(),
    "timestamp[us,UTC]": TIMESTAMP,
}
_TICK_ARROW: Final[dict[str, pa.DataType]] = {"f8": pa.float64(), "i8": pa.int64(), "i1": pa.int8(), "u1": pa.uint8()}
# Kept in the type and the content of `id` (see tick_schema), so not stored per row.
_FLOAT: Final = pa.float64()
_FEW_ROWS: Final = 4096
_ID_KIND: Final = "id_kind"


def candle_schema(groups: Sequence[str] | None = None) -> pa.Schema:
    """Arrow schema of candle rows: identity and the selected groups, with unit and description on every field.

    None selects every group but `options`: a chain of options has rows of its own.
    """
    chosen = [name for name in group_names() if name != "options"] if groups is None else groups
    return _candle_schema(tuple(member.name for member in columns(chosen)), FEATURE_VERSION)


@lru_cache(maxsize=64)
def _candle_schema(names: tuple[str, ...], feature_version: str) -> pa.Schema:
    return pa.schema([_field(column(name)) for name in names], metadata={"feature_version": feature_version})


def _field(member: Column) -> pa.Field:
    metadata = {"unit": member.unit, "description": member.gloss, "group": member.group}
    return pa.field(member.name, _ARROW[member.dtype], nullable=member.nullable, metadata=metadata)


def candles_to_arrow(batch: CandleBatch) -> pa.Table:
    """The batch as a table of `candle_schema` restricted to the columns it has, in published order; NaN becomes null.

    Raises:
        SchemaMismatch: the batch has a column that is not registered, or one that does not fit its declared type.
    """
    constants = batch.constants
    schema, plan = _batch_plan((*batch.columns, *batch.absent), tuple(constants), batch.feature_version)
    absent = frozenset(batch.absent)
    length = len(batch)
    floats = _floats([batch.columns[name] for name, kind in plan if kind is None and name not in absent], length)
    arrays = []
    for name, kind in plan:
        if name in absent:
            arrays.append(pa.nulls(length, kind or _FLOAT))
        elif kind is None:
            arrays.append(next(floats))
        elif name in constants:
            arrays.append(pa.repeat(constants[name], length))
        else:
            arrays.append(_array(name, batch.columns[name], kind))
    if batch.config_hash:
        schema = schema.with_metadata({**(schema.metadata or {}), CONFIG_HASH: batch.config_hash.encode()})
    return pa.Table.from_arrays(arrays, schema=schema)


def _floats(values: Sequence[Array], length: int) -> Iterator[pa.Array]:
    """One Arrow array per float column, NaN as null. A live flush has few rows and many columns: there, converting all
    of them at once and slicing costs a third of converting each."""
    if not values or not 0 < length <= _FEW_ROWS:
        return (pa.array(column, _FLOAT, from_pandas=True) for column in values)
    whole = pa.array(np.concatenate(values, dtype=np.float64), _FLOAT, from_pandas=True)
    return (whole.slice(start, length) for start in range(0, length * len(values), length))


@lru_cache(maxsize=64)
def _batch_plan(
    present: tuple[str, ...], constants: tuple[str, ...], feature_version: str
) -> tuple[pa.Schema, tuple[tuple[str, pa.DataType | None], ...]]:
    """Schema of a batch with these columns and, per column, its name and type; None stands for float64."""
    wanted = {*present, *constants}
    known = tuple(member.name for member in columns() if member.name in wanted)
    if unknown := sorted(wanted - set(known)):
        raise SchemaMismatch(f"candle columns {unknown} are not registered; declare them in core/features/columns")
    schema = _candle_schema(known, feature_version)
    return schema, tuple((field.name, None if field.type == _FLOAT else field.type) for field in schema)


def _array(name: str, values: Array, kind: pa.DataType) -> pa.Array:
    try:
        if kind == TIMESTAMP and values.dtype.kind == "f":
            # A time that may be null travels as a float, which holds microseconds exactly until the year 2255.
            return pa.array(values, from_pandas=True).cast(pa.int64()).view(kind)
        if kind == TIMESTAMP:
            return pa.array(values.astype(np.int64, casting="safe", copy=False)).view(kind)
        if kind == pa.string():
            return pa.array(values.tolist(), kind)
        if kind == pa.bool_() and values.dtype.kind != "b":
            raise TypeError("not boolean")
        made = pa.array(values, from_pandas=True)
        return made if made.type == kind else made.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, TypeError) as error:
        raise SchemaMismatch(f"candle column {name!r}: expected {kind}, got {values.dtype}: {error}") from error


@lru_cache(maxsize=16)
def tick_schema(data_type: DataType, integer_ids: bool = True) -> pa.Schema:
    """Arrow schema of raw ticks as stored: the fields of `LAYOUTS[data_type]`.

    Times are int64 microseconds and `side` is int8 (1 buy, -1 sell, 0 unknown), so that a stored column becomes a
    kernel argument without a copy; a missing time is 0, a missing float null. `id` is int64 where every id is an
    integer (0 = none) and the venue's text otherwise; that replaces the `id_kind` of memory. Options also keep the
    venue symbol.
    """
    fields = []
    for part in LAYOUTS[data_type]:
        if part.name == _ID_KIND:
            continue
        kind = pa.string() if part.name == "id" and not integer_ids else _TICK_ARROW[part.dtype]
        metadata = {"unit": part.unit, "description": part.doc}
        fields.append(pa.field(part.name, kind, nullable=part.dtype == "f8" or kind == pa.string(), metadata=metadata))
    text = TEXT_COLUMNS.get(data_type)
    if text == "symbol":
        fields.append(pa.field(text, pa.string(), metadata={"unit": "-", "description": "venue symbol of the option"}))
    return pa.schema(fields, metadata={"data_type": str(data_type)})


GAP_LEDGER: Final = pa.schema(
    [
        pa.field(name, kind, nullable=False, metadata={"unit": unit, "description": text})
        for name, kind, unit, text in (
            ("instrument_id", pa.string(), "-", "canonical key"),
            ("data_type", pa.string(), "-", "kind of ticks that were missing"),
            ("from_time", TIMESTAMP, "µs UTC", "arrival clock at the last proof of life"),
            ("to_time", TIMESTAMP, "µs UTC", "arrival clock at the next proof of life; the interval is half-open"),
            ("kind", pa.string(), "enum", "outage, or not_running: the service did not run"),
            ("reason", pa.string(), "-", "what broke, in words"),
            ("backfilled", pa.bool_(), "-", "whether nothing is missing any more"),
            (
                "ending",
                pa.string(),
                "enum",
                "what became of it: open, repaired, explained (nothing was missed) or lost",
            ),
        )
    ]
)

_BIGQUERY: Final = {
    pa.float64(): "FLOAT64",
    pa.int64(): "INT64",
    pa.int32(): "INT64",
    pa.int8(): "INT64",
    pa.bool_(): "BOOL",
    pa.string(): "STRING",
    TIMESTAMP: "TIMESTAMP",
}
_BIGQUERY_DESCRIPTION_LIMIT: Final = 1024
_JSON: Final = {
    pa.float64(): "number",
    pa.int64(): "integer",
    pa.int32(): "integer",
    pa.int8(): "integer",
    pa.bool_(): "boolean",
    pa.string(): "string",
    TIMESTAMP: "integer",
}


def bigquery_schema(schema: pa.Schema) -> list[dict[str, str]]:
    """The fields of `schema` in the JSON form that `bq mk --schema` and the client library read.

    Every mode is NULLABLE except for the identity of a row, so that a group switched off later needs no new table.
    """
    required = {"instrument_id", "timeframe", "timestamp", "local_timestamp", "revision", "from_time", "data_type"}
    return [
        {
            "name": field.name,
            "type": _BIGQUERY[field.type],
            "mode": "REQUIRED" if field.name in required else "NULLABLE",
            "description": _metadata(field, "description")[:_BIGQUERY_DESCRIPTION_LIMIT],
        }
        for field in schema
    ]


def json_schema(schema: pa.Schema, title: str = "candle") -> dict[str, Any]:
    """JSON schema of one row of `schema` as messages carry it: times are integer microseconds UTC."""
    properties = {
        field.name: {
            "type": [_JSON[field.type], "null"] if field.nullable else _JSON[field.type],
            "description": _metadata(field, "description"),
        }
        for field in schema
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "type": "object",
        "properties": properties,
        "required": [field.name for field in schema if not field.nullable],
        "additionalProperties": False,
    }


def _metadata(field: pa.Field, key: str) -> str:
    return str((field.metadata or {}).get(key.encode(), b"").decode())

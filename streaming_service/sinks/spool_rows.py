"""Rows as they come out of the spool: in the schema they went in with, or in the one of this version."""

from __future__ import annotations

import base64
from typing import NamedTuple

import pyarrow as pa


class SpooledRows(NamedTuple):
    """Rows of a batch, in the schema asked for, and their numbers."""

    table: pa.Table
    numbers: list[int]


def schema_text(schema: pa.Schema) -> str:
    """A schema for the header of a segment."""
    return base64.b64encode(schema.serialize().to_pybytes()).decode()


def schema_of(text: str) -> pa.Schema:
    """What `schema_text` was made from."""
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))


def fitted(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The rows as columns of `schema`, null where they have no such column."""
    if batch.schema.equals(schema):
        return batch
    present = set(batch.schema.names)
    columns = [
        batch.column(field.name).cast(field.type) if field.name in present else pa.nulls(batch.num_rows, field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)

"""Ticks as Arrow rows of their tables, and what holds for the rows of every table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.ids import id_texts
from market_data_tick_handler.core.instruments import InstrumentDefinition, parse_instrument_key
from market_data_tick_handler.core.schemas import TIMESTAMP
from market_data_tick_handler.core.ticks import ID_HASH, ID_NONE, Array, DataType, TickBatch, concat
from streaming_service.sinks.tables.definitions import (
    TICK_TABLES,
    candle_table,
    ticks_schema,
    wire_schema,
)

OWN: Final = ("instrument_id", "exchange", "symbol")
_VENUE_SYMBOL: Final = "venue_symbol"
# No chunk of the spool is larger: batches are made of whole ones, and should come close to the limit of an append.
CHUNK_BYTES: Final = 768 << 10


def table_of(item: CandleBatch | Rows) -> str:
    """Name of the table the rows belong to."""
    if isinstance(item, CandleBatch):
        return candle_table(item.timeframe, item.instrument.instrument_type)
    return TICK_TABLES[item.data_type]


def owners(instruments: Sequence[InstrumentDefinition], lengths: Sequence[int]) -> dict[str, pa.Array]:
    """Whose each row is: the columns `OWN` of batches of these instruments and lengths, end to end."""
    index = pa.array(np.repeat(np.arange(len(instruments)), lengths))
    values = (
        [one.key for one in instruments],
        [one.exchange for one in instruments],
        [one.symbol for one in instruments],
    )
    return {name: pa.array(texts, pa.string()).take(index) for name, texts in zip(OWN, values, strict=True)}


def tick_rows(rows: Sequence[Rows], *, out_us: int = 0) -> pa.RecordBatch:
    """Ticks of one data type, of any instruments, in their order; `out_us`: their timestamp_out."""
    data_type = rows[0].data_type
    batch = concat([one.batch for one in rows])
    schema = wire_schema(ticks_schema(data_type))
    own = owners([parse_instrument_key(one.instrument) for one in rows], [len(one.batch) for one in rows])
    columns = []
    for field in schema:
        if field.name in own:
            columns.append(own[field.name])
        elif field.name == "timestamp_out":
            columns.append(pa.repeat(pa.scalar(out_us, TIMESTAMP), len(batch)))
        else:
            columns.append(_tick_column(batch, field))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def stamped(batch: pa.RecordBatch, out_us: int) -> pa.RecordBatch:
    """The same rows with another timestamp_out."""
    index = batch.schema.get_field_index("timestamp_out")
    return batch.set_column(index, batch.schema.field(index), pa.repeat(pa.scalar(out_us, TIMESTAMP), batch.num_rows))


def _tick_column(batch: TickBatch, field: pa.Field) -> pa.Array:
    name = field.name
    if name == "id":
        return _ids(batch)
    if name == _VENUE_SYMBOL:
        return _texts(batch.columns.get("symbol"), len(batch))
    values = batch[name]
    if field.type == TIMESTAMP:
        return pa.array(values, mask=values == 0 if field.nullable else None).view(TIMESTAMP)
    if field.type == pa.float64():
        return pa.array(values, from_pandas=True)
    return pa.array(values.astype(np.int64))


def _ids(batch: TickBatch) -> pa.Array:
    kinds, ids = batch["id_kind"], batch["id"]
    if not (kinds == ID_HASH).any():
        return pa.array(ids, mask=kinds == ID_NONE).cast(pa.string())
    texts = np.array(id_texts(ids, kinds), dtype=object)
    if "id_text" in batch.columns:
        given = batch["id_text"]
        texts = np.where((kinds == ID_HASH) & (given != ""), given, texts)
    return pa.array(texts, pa.string(), mask=kinds == ID_NONE)


def _texts(values: Array | None, rows: int) -> pa.Array:
    return pa.nulls(rows, pa.string()) if values is None else pa.array(values, pa.string(), mask=values == "")


def in_chunks(batch: pa.RecordBatch, *, max_rows: int, max_bytes: int = CHUNK_BYTES) -> Iterator[pa.RecordBatch]:
    """The rows in pieces within the limits, at least a row each."""
    if not batch.num_rows:
        return
    rows = batch.num_rows
    pieces = -(-pa.ipc.get_record_batch_size(batch) // max_bytes)
    step = min(max_rows, -(-rows // pieces))
    for start in range(0, rows, step):
        yield batch.slice(start, step)


def logical_bytes(batch: pa.RecordBatch | pa.Table) -> int:
    """Size of the rows as BigQuery counts it: 8 bytes a number or time, 1 a boolean, 2 plus its UTF-8 a text, nothing a
    null (https://cloud.google.com/bigquery/docs/reference/standard-sql/data-types#data_type_sizes)."""
    return sum(map(_column_bytes, batch.columns))


def _column_bytes(column: pa.Array | pa.ChunkedArray) -> int:
    there = len(column) - int(column.null_count)
    if column.type == pa.string():
        return 2 * there + int(pc.sum(pc.binary_length(column)).as_py() or 0)
    return there if column.type == pa.bool_() else 8 * there


def unfit(batches: Iterable[CandleBatch | Rows]) -> Iterator[dict[str, Any]]:
    """Rows that could not be turned into columns, as plain values, for people to look at."""
    for item in batches:
        if isinstance(item, CandleBatch):
            yield from item.rows()
            continue
        for index in range(len(item.batch)):
            values = {name: column[index] for name, column in item.batch.columns.items()}
            yield {"instrument_id": item.instrument} | {
                name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()
            }


def data_type_of(table: str) -> DataType | None:
    """The data type whose raw ticks a table has."""
    return next((data_type for data_type, name in TICK_TABLES.items() if name == table), None)

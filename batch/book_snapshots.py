"""The table `processed_book_snapshots`: what candles say of the book, and one row per snapshot for research."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.features.book_levels import SNAPSHOT_COLUMNS, BookParameters, snapshot_features
from market_data_tick_handler.core.features.registry import FEATURE_VERSION, columns
from market_data_tick_handler.core.instruments import InstrumentDefinition
from market_data_tick_handler.core.options import FeatureParameters, PipelineOptions
from market_data_tick_handler.core.schemas import TIMESTAMP, candle_schema
from market_data_tick_handler.core.ticks import Array, DataType, TickBatch
from market_data_tick_handler.storage.candle_files import replace_candles
from market_data_tick_handler.storage.local_files import replacing
from market_data_tick_handler.storage.paths import BOOK_CANDLES, per_snapshot_path, raw_ticks_path
from market_data_tick_handler.storage.raw_ticks import read_raw_ticks
from market_data_tick_handler.storage.read_ahead import ahead

BOOK: Final = "book"
GROUPS: Final = (BOOK, "book_delays")
# 75 columns of float64: a piece is 20 MB.
PIECE_ROWS: Final = 32_768
_CONSTANTS: Final = ("instrument_id", "exchange", "symbol")
_VERSION: Final = "feature_version"


def write_candles(root: Path, candles: Sequence[CandleBatch], day: date) -> int:
    """Write the identity and the book columns of a day's candles; return how many rows are new or changed.

    The rules are those of candles: a row that says the same stays, another one raises the revision.
    """
    held = (_of_book(batch) for batch in candles)
    return sum(replace_candles(root, batch, day, table=BOOK_CANDLES) for batch in held if batch is not None)


def _of_book(batch: CandleBatch) -> CandleBatch | None:
    """The part of a batch that tells of the book; None if the instrument has none."""
    book = {column.name for column in columns(GROUPS)}
    kept = {name: values for name, values in batch.columns.items() if name in book}
    if not any(column.group == BOOK and column.name in kept for column in columns((BOOK,))):
        return None
    absent = tuple(name for name in batch.absent if name in book)
    return CandleBatch(batch.instrument, batch.timeframe, kept, batch.feature_version, absent, batch.config_hash)


def write_per_snapshot(root: Path, instrument: InstrumentDefinition, options: PipelineOptions, day: date) -> int:
    """Write one row per stored book snapshot of the day, in order of arrival, and return how many; no file without
    snapshots.

    Every stored row is described as it stands: one whose book cannot be has nulls, and none is left out. Memory holds
    a few pieces of PIECE_ROWS.

    Raises:
        CorruptObject, SchemaMismatch: the raw file cannot be read.
    """
    if not (root / raw_ticks_path(day, DataType.BOOK, instrument.key)).is_file():
        return 0
    parameters = book_parameters(instrument, options.parameters)
    schema, count = per_snapshot_schema(), 0
    with (
        replacing(root / per_snapshot_path(day, instrument.key)) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd", use_dictionary=list(_texts())) as writer,
    ):
        for rows in ahead(read_raw_ticks(root, day, DataType.BOOK, instrument.key, batch_rows=PIECE_ROWS)):
            writer.write_table(_table(instrument, rows, parameters, schema))
            count += len(rows)
    return count


def book_parameters(instrument: InstrumentDefinition, parameters: FeatureParameters) -> BookParameters:
    """What the formulas of a snapshot need of the instrument and the settings."""
    return BookParameters(
        impact_notional=parameters.impact_notional,
        inverse=instrument.inverse,
        multiplier=instrument.contract_size,
        microprice_table=parameters.microprice_table,
    )


def per_snapshot_schema() -> pa.Schema:
    """Columns of a row per snapshot: whose, both times, the columns that follow from one snapshot, the version."""
    candle = candle_schema((BOOK,))
    arrival = pa.field(
        "local_timestamp", TIMESTAMP, nullable=False, metadata={"unit": "µs UTC", "description": "time of receipt"}
    )
    stamp = pa.field(
        "timestamp", TIMESTAMP, nullable=False, metadata={"unit": "µs UTC", "description": "exchange time"}
    )
    fields = [
        *(candle.field(name) for name in _CONSTANTS), stamp, arrival,
        *(candle.field(name).with_nullable(True) for name in SNAPSHOT_COLUMNS), candle.field(_VERSION),
    ]  # fmt: skip
    return pa.schema(fields, metadata={_VERSION: FEATURE_VERSION})


def _texts() -> Iterator[str]:
    yield from (*_CONSTANTS, _VERSION)


def _table(
    instrument: InstrumentDefinition, rows: TickBatch, parameters: BookParameters, schema: pa.Schema
) -> pa.Table:
    constants = {
        "instrument_id": instrument.key,
        "exchange": instrument.exchange,
        "symbol": instrument.symbol,
        _VERSION: FEATURE_VERSION,
    }
    values = snapshot_features(rows, parameters)
    arrays = [
        pa.repeat(constants[field.name], len(rows)) if field.name in constants else _array(values[field.name], field)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _array(values: Array, field: pa.Field) -> pa.Array:
    if field.type == TIMESTAMP:
        return pa.array(values).view(TIMESTAMP)
    made = pa.array(np.ascontiguousarray(values), from_pandas=True)
    return made if made.type == field.type else made.cast(field.type)

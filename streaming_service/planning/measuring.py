"""How many bytes a row takes wherever it goes, found by making real rows of the configured columns and encoding them.

An hour of the simulated market goes through a pipeline with the settings' options; of what comes out the fullest candle
counts, that of a service that has run for a while. No file is written and no connection opened.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from market_data_tick_handler.config import pipeline_options
from market_data_tick_handler.config.settings import Settings
from market_data_tick_handler.core.candle_batch import CandleBatch, concat_candles
from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.instruments import InstrumentDefinition, InstrumentType
from market_data_tick_handler.core.pipeline import Pipeline
from market_data_tick_handler.core.schemas import candles_to_arrow, tick_schema
from market_data_tick_handler.core.ticks import DataType, TickBatch, concat
from market_data_tick_handler.storage.raw_ticks import encoding_of
from market_data_tick_handler.storage.recovery.candle_records import CandleLayout, encode_rows
from market_data_tick_handler.storage.recovery.framing import HEAD
from market_data_tick_handler.storage.recovery.tick_records import START, encode_turn
from market_data_tick_handler.storage.tick_tables import to_table
from market_data_tick_handler.wire import CandleEncoder
from streaming_service.planning.rates import Rates, enabled_types
from streaming_service.sinks.spool_records import Chunk, encode
from streaming_service.sinks.tables.candle_columns import CandleColumns
from streaming_service.sinks.tables.definitions import candles_schema, chain_schema, wire_schema
from streaming_service.sinks.tables.rows import logical_bytes, tick_rows
from streaming_service.sinks.tables.table_files import table_writer
from streaming_service.sources.simulated import MarketSettings, SimulatedMarket

_MINUTE_US: Final = 60_000_000
# A border of every timeframe.
_START_US: Final = 1_704_067_200_000_000
_MINUTES: Final = 60
# More trades a second than this fill no column that fewer leave null.
_ENOUGH_TRADES: Final = 20.0
# A row of the last part of the hour has what windows needed to fill.
_WARM_ROWS: Final = 8


class Size(NamedTuple):
    """Bytes of a file or record: what it has anyway, and what each row adds."""

    fixed: float
    each: float

    def of(self, rows: float, pieces: float) -> float:
        """Bytes of so many rows in so many pieces."""
        return self.fixed * pieces + self.each * rows


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSizes:
    """Bytes of rows of one kind.

    table: as BigQuery counts them, per row. spool: per append. journal: per record. file: per Parquet day file.
    table_file: per file of a table on local disk.
    """

    table: float
    spool: Size
    journal: Size
    file: Size
    table_file: Size


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What an instrument's rows take. message: bytes of a candle on a channel. snapshot: of its pipeline."""

    candles: RowSizes
    message: int
    ticks: Mapping[DataType, RowSizes]
    snapshot: int


def measure(settings: Settings, instrument: InstrumentDefinition, rates: Rates) -> Sizes:
    """Make rows of an instrument, and weigh them."""
    pipeline = Pipeline(instrument, pipeline_options(settings, instrument))
    candles, ticks = _hour(pipeline, enabled_types(settings, instrument), rates)
    schema = _candle_schema(settings, instrument)
    return Sizes(
        candles=max((_candle_sizes(schema, series) for series in candles), key=lambda sizes: sizes.table),
        message=_longest_message(settings, candles),
        ticks={data_type: _tick_sizes(instrument, batch) for data_type, batch in ticks.items()},
        snapshot=len(pa.compress(pipeline.snapshot(), codec="zstd", asbytes=True)),
    )


def _hour(
    pipeline: Pipeline, wanted: Sequence[DataType], rates: Rates
) -> tuple[list[CandleBatch], dict[DataType, TickBatch]]:
    """Candles by timeframe, and a few minutes of ticks."""
    key = pipeline.instrument.key
    market = SimulatedMarket(
        pipeline.instrument,
        MarketSettings(start_us=_START_US, trades_per_second=min(max(rates.trades, 1.0), _ENOUGH_TRADES)),
    )
    candles: dict[str, list[CandleBatch]] = defaultdict(list)
    ticks: dict[DataType, list[TickBatch]] = defaultdict(list)
    pipeline.start(_START_US)
    for minute in range(1, _MINUTES + 1):
        now_us = _START_US + minute * _MINUTE_US
        polled = {name: rows for name, rows in market.poll(now_us).items() if name in wanted}
        pipeline.feed([Rows(key, rows) for rows in polled.values()])
        pipeline.advance(now_us)
        for batch in pipeline.outputs(now_us):
            candles[batch.timeframe].append(batch)
        for name, rows in polled.items():
            ticks[name].append(rows)
    return [concat_candles(batches) for batches in candles.values()], {
        name: concat(batches) for name, batches in ticks.items()
    }


def _longest_message(settings: Settings, candles: Sequence[CandleBatch]) -> int:
    encoder = CandleEncoder(columns=settings.serve.columns, encoding=settings.serve.encoding)
    found = 0
    for series in candles:
        warm = _warm(series)
        # Numbers of a channel that has been at work for years.
        found = max(found, *map(len, encoder.messages(warm, range(10**7, 10**7 + len(warm)))))
    return found


def _warm(series: CandleBatch) -> CandleBatch:
    return series.slice(max(0, len(series) - _WARM_ROWS), len(series))


def _candle_schema(settings: Settings, instrument: InstrumentDefinition) -> pa.Schema:
    if instrument.instrument_type is InstrumentType.OPTION_CHAIN:
        return wire_schema(chain_schema())
    return wire_schema(candles_schema(tuple(str(group) for group in settings.features.groups)))


def _candle_sizes(schema: pa.Schema, batch: CandleBatch) -> RowSizes:
    warm = _warm(batch)
    (made,) = CandleColumns(schema).rows([warm])
    rows = made.rows
    layout = CandleLayout.of(warm)

    def journal(count: int) -> int:
        part = warm.slice(0, count)
        return HEAD.size + len(encode_rows(0, layout, part, np.zeros((count, 2), np.uint64), 1))

    return RowSizes(
        table=logical_bytes(rows) / rows.num_rows,
        spool=_fitted(lambda count: _spooled(rows.slice(0, count)), rows.num_rows),
        table_file=_fitted(lambda count: _table_file(rows.slice(0, count)), rows.num_rows),
        journal=_fitted(journal, len(warm)),
        file=_fitted(lambda count: _parquet(candles_to_arrow(batch.slice(0, count)), compression="zstd"), len(batch)),
    )


def _tick_sizes(instrument: InstrumentDefinition, batch: TickBatch) -> RowSizes:
    rows = tick_rows([Rows(instrument.key, batch)])
    schema = tick_schema(batch.data_type)
    options = encoding_of(schema)
    return RowSizes(
        table=logical_bytes(rows) / rows.num_rows,
        spool=_fitted(lambda count: _spooled(rows.slice(0, count)), rows.num_rows),
        table_file=_fitted(lambda count: _table_file(rows.slice(0, count)), rows.num_rows),
        journal=_fitted(lambda count: HEAD.size + len(encode_turn(START, [batch.slice(0, count)], ())), len(batch)),
        file=_fitted(lambda count: _parquet(to_table(batch.slice(0, count), schema), **options), len(batch)),
    )


def _fitted(size_of: Callable[[int], int], rows: int) -> Size:
    """The straight line through the sizes of one row and of all."""
    one, every = size_of(1), size_of(rows)
    each = (every - one) / (rows - 1) if rows > 1 else 0.0
    return Size(max(0.0, one - each), each)


def _spooled(rows: pa.RecordBatch) -> int:
    """Bytes that rows take in the spool, appended at once."""
    body = rows.serialize().to_pybytes()
    return HEAD.size + len(encode(Chunk(0, rows.num_rows, rows.nbytes, {}), body))


def _table_file(rows: pa.RecordBatch) -> int:
    """Bytes of a file of a table, of these rows."""
    file = BytesIO()
    with table_writer(file, rows.schema) as writer:
        writer.write_batch(rows)
    return file.tell()


def _parquet(table: pa.Table, **options: object) -> int:
    file = BytesIO()
    pq.write_table(table, file, **options)
    return file.tell()

"""The tables: columns, partitions and clustering of each, derived from the column registry and the tick layouts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import pyarrow as pa

from market_data_tick_handler.core.instruments import InstrumentType
from market_data_tick_handler.core.schemas import TIMESTAMP, candle_schema
from market_data_tick_handler.core.ticks import LAYOUTS, DataType
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.storage.bigquery_names import TICK_TABLES as TICK_TABLES
from market_data_tick_handler.storage.bigquery_names import candle_table as candle_table

USAGE_TABLE: Final = "persist_usage"
CANDLE_IDENTITY: Final = ("instrument_id", "timestamp", "revision", "timestamp_out")
# Rows that were appended to the spool together share timestamp_out, and no others have it.
TICK_IDENTITY: Final = ("instrument_id", "timestamp_out")
_USAGE_IDENTITY: Final = ("service", "table_name", "timestamp_out")
_TIME_FIELDS: Final = ("timestamp", "local_timestamp", "funding_timestamp", "expiration")
_KEPT_IN_ID: Final = "id_kind"


@dataclass(frozen=True, slots=True)
class Partitioning:
    """A table cut by `column` in pieces of `unit` (HOUR, DAY, MONTH, YEAR), dropped after `ttl_days`; None: never."""

    column: str
    unit: str
    ttl_days: int | None


@dataclass(frozen=True, slots=True)
class TableDefinition:
    """A table as it must be. `kind`: whose batch_timeout holds, and what its rows are. `identity`: columns that tell
    the rows of one append from all others. `schema` carries unit and description of each column as metadata."""

    name: str
    kind: str
    description: str
    schema: pa.Schema
    identity: tuple[str, ...]
    partitioning: Partitioning | None
    clustering: tuple[str, ...]


def live_tables(
    *,
    timeframes: Iterable[Timeframe],
    data_types: Iterable[DataType] = (),
    chains: bool = False,
    groups: Sequence[str] | None = None,
    partition_unit: str = "HOUR",
    ttl_days: int = 30,
    clustering: Sequence[str] = ("exchange", "symbol"),
) -> list[TableDefinition]:
    """What a service writes: candles of these timeframes (chains: of option chains too), raw ticks of these types, and
    what the service itself used."""
    cut = Partitioning("timestamp_out", partition_unit, ttl_days)
    schema, fields = candles_schema(None if groups is None else tuple(groups)), tuple(clustering)
    made = [_candles(timeframe, schema, cut, fields) for timeframe in timeframes]
    made += [_candles(timeframe, chain_schema(), cut, fields, chain=True) for timeframe in timeframes if chains]
    made += [_ticks(data_type, cut, fields) for data_type in data_types]
    return [*made, _usage()]


def history_tables(
    *, timeframes: Iterable[Timeframe], clustering: Sequence[str] = ("exchange", "symbol")
) -> list[TableDefinition]:
    """What batch fills: candles, by day of the candle, kept for good."""
    return [
        _candles(timeframe, candles_schema(), Partitioning("timestamp", "DAY", None), tuple(clustering))
        for timeframe in timeframes
    ]


def _candles(
    timeframe: Timeframe, schema: pa.Schema, cut: Partitioning, clustering: tuple[str, ...], *, chain: bool = False
) -> TableDefinition:
    kind = InstrumentType.OPTION_CHAIN if chain else InstrumentType.SPOT_PAIR
    what = "Option chains" if chain else "Candles with features"
    return TableDefinition(
        candle_table(timeframe, kind),
        "candles",
        f"{what} of {timeframe}, each revision a row; the view with _latest behind the name has the newest only.",
        schema,
        CANDLE_IDENTITY,
        cut,
        clustering,
    )


def _ticks(data_type: DataType, cut: Partitioning, clustering: tuple[str, ...]) -> TableDefinition:
    return TableDefinition(
        TICK_TABLES[data_type],
        data_type.value,
        f"Raw {data_type} in order of arrival, as the candles were computed from.",
        ticks_schema(data_type),
        TICK_IDENTITY,
        cut,
        clustering,
    )


def _usage() -> TableDefinition:
    return TableDefinition(
        USAGE_TABLE,
        "usage",
        "What the service wrote per table, and what it cost by the prices in its settings.",
        _USAGE,
        _USAGE_IDENTITY,
        Partitioning("timestamp_out", "MONTH", None),
        ("table_name",),
    )


@lru_cache(maxsize=8)
def candles_schema(groups: tuple[str, ...] | None = None) -> pa.Schema:
    """Columns of `candles_{tf}`: of these groups; default: every registered one but those of option chains."""
    return _widened(candle_schema(groups))


@lru_cache(maxsize=1)
def chain_schema() -> pa.Schema:
    """Columns of `options_chain_{tf}`."""
    return _widened(candle_schema(["identity", "options"]))


@lru_cache(maxsize=8)
def ticks_schema(data_type: DataType) -> pa.Schema:
    """Columns of a table of raw ticks.

    As the Parquet files, except that rows say whose they are, times are timestamps (missing: null), ids are text, and
    the venue's symbol of an option is `venue_symbol`.
    """
    fields = [
        _field("instrument_id", pa.string(), "-", "canonical key", nullable=False),
        _field("exchange", pa.string(), "-", "venue id", nullable=False),
        _field("symbol", pa.string(), "-", "canonical symbol", nullable=False),
        _field("timestamp_out", TIMESTAMP, "µs UTC", "when the row left the service", nullable=False),
    ]
    for part in LAYOUTS[data_type]:
        if part.name == _KEPT_IN_ID:
            continue
        if part.name in _TIME_FIELDS:
            required = part.name in ("timestamp", "local_timestamp")
            fields.append(_field(part.name, TIMESTAMP, "µs UTC", part.doc, nullable=not required))
        elif part.name == "id":
            fields.append(_field("id", pa.string(), "-", "the venue's id, as text"))
        else:
            kind = pa.float64() if part.dtype == "f8" else pa.int64()
            fields.append(_field(part.name, kind, part.unit, part.doc))
    if data_type is DataType.OPTIONS:
        fields.append(_field("venue_symbol", pa.string(), "-", "the venue's symbol of the option"))
    return pa.schema(fields)


def wire_schema(schema: pa.Schema) -> pa.Schema:
    """The same columns without metadata: what is spooled and sent."""
    return pa.schema([pa.field(field.name, field.type, nullable=field.nullable) for field in schema])


def _widened(schema: pa.Schema) -> pa.Schema:
    """Whole numbers as BigQuery has them: one width."""
    return pa.schema([field.with_type(pa.int64()) if pa.types.is_integer(field.type) else field for field in schema])


def _field(name: str, kind: pa.DataType, unit: str, description: str, *, nullable: bool = True) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"unit": unit, "description": description})


_USAGE: Final = pa.schema(
    [
        _field("timestamp_out", TIMESTAMP, "µs UTC", "end of the interval", nullable=False),
        _field("timestamp", TIMESTAMP, "µs UTC", "begin of the interval", nullable=False),
        _field("service", pa.string(), "-", "which service wrote", nullable=False),
        _field("table_name", pa.string(), "-", "table written", nullable=False),
        _field("write_method", pa.string(), "-", "committed, pending or insert_rows", nullable=False),
        _field("rows_written", pa.int64(), "rows", "rows that BigQuery confirmed"),
        _field("bytes_written", pa.int64(), "bytes", "their size as BigQuery counts it"),
        _field("calls", pa.int64(), "calls", "appends sent, repetitions included"),
        _field("dead_letters", pa.int64(), "rows", "rows that BigQuery refused"),
        _field("usd", pa.float64(), "USD", "cost by the prices in the settings, the free part deducted"),
    ]
)

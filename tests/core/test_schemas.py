"""Schemas: every table follows from the registry and the tick layouts; candles become an Arrow table of that schema."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.features.registry import FEATURE_VERSION, column, columns
from market_data_tick_handler.core.instruments import parse_instrument_key
from market_data_tick_handler.core.schemas import (
    GAP_LEDGER,
    TIMESTAMP,
    bigquery_schema,
    candle_schema,
    candles_to_arrow,
    json_schema,
    tick_schema,
)
from market_data_tick_handler.core.ticks import LAYOUTS, DataType
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.errors import SchemaMismatch

START_US = 1_700_000_000_000_000 // 60_000_000 * 60_000_000
CONSTANTS = {"instrument_id", "exchange", "symbol", "timeframe", "feature_version"}


def candles(rows: int, groups: list[str] | None = None) -> CandleBatch:
    """A batch with every column of the groups; each float column has a null in every third row."""
    made = {
        "float64": lambda: np.where(np.arange(rows) % 3 == 1, np.nan, np.arange(rows) + 0.5),
        "int64": lambda: np.arange(rows),
        "int32": lambda: np.zeros(rows, np.int32),
        "bool": lambda: np.arange(rows) % 2 == 0,
        "string": lambda: np.full(rows, "COMPLETE"),
        "timestamp[us,UTC]": lambda: START_US + np.arange(rows) * 60_000_000,
    }
    members = [column(name) for name in candle_schema(groups).names]
    data = {member.name: made[member.dtype]() for member in members if member.name not in CONSTANTS}
    instrument = parse_instrument_key("BINANCE:SPOT_PAIR:BTC-USDT")
    return CandleBatch(instrument, Timeframe.M1, data, FEATURE_VERSION)


def test_the_candle_schema_has_every_registered_column_with_its_unit_and_description() -> None:
    schema = candle_schema()
    assert schema.names == [member.name for member in columns() if member.group != "options"]
    assert schema.metadata == {b"feature_version": FEATURE_VERSION.encode()}
    assert schema.field("timestamp").type == TIMESTAMP
    assert schema.field("close").metadata[b"unit"] == b"quote/base"
    assert schema.field("rsi_5").nullable
    assert not schema.field("trade_count").nullable
    assert all(field.metadata[b"description"] for field in schema)


def test_the_candle_schema_of_some_groups_is_identity_and_those_groups() -> None:
    assert candle_schema(["delays"]).names == [member.name for member in columns(["delays"])]


@pytest.mark.parametrize("rows", [0, 1, 7, 4_097])
def test_a_batch_becomes_a_table_whose_nulls_are_the_nan_values(rows: int) -> None:
    batch = candles(rows)
    table = candles_to_arrow(batch)
    table.validate(full=True)
    assert table.schema.equals(candle_schema(), check_metadata=True)
    assert table.num_rows == rows
    for row, expected in zip(table.to_pylist(), batch.rows(), strict=True):
        assert _comparable(row) == expected


def _comparable(row: dict[str, object]) -> dict[str, object]:
    return {
        name: int(value.timestamp() * 1_000_000) if hasattr(value, "timestamp") else value
        for name, value in row.items()
    }


def test_no_nan_is_left_in_a_table() -> None:
    for values in candles_to_arrow(candles(9)).columns:
        assert not any(
            isinstance(value, float) and math.isnan(value) for value in values.to_pylist() if value is not None
        )


def test_a_batch_of_some_groups_gives_their_columns_in_published_order() -> None:
    batch = candles(3, ["delays"])
    shuffled = CandleBatch(batch.instrument, batch.timeframe, dict(reversed(batch.columns.items())), FEATURE_VERSION)
    assert candles_to_arrow(shuffled).equals(candles_to_arrow(batch))
    assert candles_to_arrow(batch).schema.equals(candle_schema(["delays"]), check_metadata=True)


def test_a_table_survives_parquet(tmp_path) -> None:
    table = candles_to_arrow(candles(100))
    pq.write_table(table, tmp_path / "candles.parquet")
    back = pq.read_table(tmp_path / "candles.parquet")
    assert back.equals(table)
    assert back.schema.metadata[b"feature_version"] == FEATURE_VERSION.encode()


def test_a_column_that_is_not_registered_is_refused() -> None:
    batch = candles(2).replace(astrology_5=np.zeros(2))
    with pytest.raises(SchemaMismatch, match="astrology_5"):
        candles_to_arrow(batch)


@pytest.mark.parametrize("name", ["trade_count", "is_empty", "timestamp"])
def test_a_column_of_another_type_is_refused(name: str) -> None:
    with pytest.raises(SchemaMismatch, match=name):
        candles_to_arrow(candles(2).replace(**{name: np.array([1.5, 2.5])}))


@pytest.mark.parametrize("data_type", list(DataType))
def test_raw_ticks_are_stored_field_by_field_as_kernels_take_them(data_type: DataType) -> None:
    schema = tick_schema(data_type)
    assert [name for name in schema.names if name != "symbol"] == [
        field.name for field in LAYOUTS[data_type] if field.name != "id_kind"
    ]
    assert schema.field("local_timestamp").type == pa.int64()
    assert all(field.metadata[b"unit"] for field in schema)


def test_ids_are_integers_or_the_venues_text() -> None:
    assert tick_schema(DataType.TRADES, True).field("id").type == pa.int64()
    assert tick_schema(DataType.TRADES, False).field("id").type == pa.string()
    assert tick_schema(DataType.TRADES).field("side").type == pa.int8()
    assert "symbol" in tick_schema(DataType.OPTIONS).names


@pytest.mark.parametrize("schema", [candle_schema(), GAP_LEDGER, *map(tick_schema, DataType)])
def test_bigquery_fields_have_a_type_and_a_description_it_accepts(schema: pa.Schema) -> None:
    fields = bigquery_schema(schema)
    assert [field["name"] for field in fields] == schema.names
    assert {field["mode"] for field in fields} <= {"REQUIRED", "NULLABLE"}
    assert all(0 < len(field["description"]) <= 1024 for field in fields)


def test_bigquery_knows_the_candle_types() -> None:
    kinds = {field["name"]: field["type"] for field in bigquery_schema(candle_schema())}
    assert (kinds["timestamp"], kinds["close"], kinds["trade_count"]) == ("TIMESTAMP", "FLOAT64", "INT64")
    assert (kinds["is_empty"], kinds["quality"], kinds["revision"]) == ("BOOL", "STRING", "INT64")


def test_a_candle_row_follows_the_json_schema() -> None:
    schema = json_schema(candle_schema())
    python = {"number": (float,), "integer": (int,), "boolean": (bool,), "string": (str,), "null": (type(None),)}
    for row in candles(4).rows():
        assert set(schema["required"]) <= set(row) == set(schema["properties"])
        for name, value in row.items():
            kinds = schema["properties"][name]["type"]
            allowed = [kind for word in ([kinds] if isinstance(kinds, str) else kinds) for kind in python[word]]
            assert type(value) in allowed, name

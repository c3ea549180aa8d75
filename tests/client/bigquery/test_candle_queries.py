"""The SQL that is sent, and how the answers of two datasets become one table."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from market_data_tick_handler.client.candle_queries import CandleRequest, candle_query, check_columns, united
from market_data_tick_handler.client.frames import to_frame
from market_data_tick_handler.client.pruning import TableLayout
from market_data_tick_handler.client.time_range import parse_range
from market_data_tick_handler.core.instruments import parse_instrument_key
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.errors import ConfigError, SchemaMismatch

COLUMNS = ("instrument_id", "timestamp", "timestamp_out", "revision", "open")
LIVE = TableLayout("p.live.candles_1h", COLUMNS, "timestamp_out")
HISTORY = TableLayout("p.history.candles_1h", COLUMNS, "timestamp")


def request(**changes: Any) -> CandleRequest:
    given: dict[str, Any] = {
        "instrument": parse_instrument_key("DERIBIT:PERPETUAL:BTC-USD"),
        "timeframe": Timeframe.H1,
        "range": parse_range("2024-01-01", "2024-01-02"),
        "columns": None,
        "latest": True,
        "repair_window_us": 86_400_000_000,
    }
    return CandleRequest(**given | changes)


def test_history_is_asked_by_the_time_of_the_candle() -> None:
    """Clustering columns and the column of the partitions are compared, with parameters and nothing else."""
    sql, parameters = candle_query(HISTORY, request())
    assert "FROM `p.history.candles_1h`" in sql
    assert "timestamp >= @first AND timestamp < @until" in sql and "@out_first" not in sql
    assert "exchange = @exchange AND symbol = @symbol AND instrument_id = @instrument_id" in sql
    assert parameters == {
        "exchange": "deribit",
        "symbol": "BTC-USD",
        "instrument_id": "DERIBIT:PERPETUAL:BTC-USD",
        "first": datetime(2024, 1, 1, tzinfo=UTC),
        "until": datetime(2024, 1, 3, tzinfo=UTC),
    }


def test_live_is_asked_by_the_time_of_publication_too() -> None:
    """From the first open to the last close, the repair window, and an hour for a repair under way."""
    sql, parameters = candle_query(LIVE, request())
    assert "timestamp_out >= @out_first AND timestamp_out < @out_until" in sql
    assert parameters["out_first"] == datetime(2024, 1, 1, tzinfo=UTC)
    assert parameters["out_until"] == datetime(2024, 1, 4, 2, tzinfo=UTC)


def test_only_the_columns_wanted_are_read() -> None:
    """And those that tell which revision is the newest; a table gives what it has of them."""
    sql, _ = candle_query(LIVE, request(columns=("open", "vwap"), latest=False))
    assert sql.startswith("SELECT `timestamp`, `timestamp_out`, `revision`, `open`\n") and "QUALIFY" not in sql


def test_a_column_that_no_table_has_is_refused() -> None:
    """With the nearest name; a column that one of two tables has is fine."""
    check_columns(["open", "timestamp_in"], [HISTORY, TableLayout("q", ())])
    with pytest.raises(SchemaMismatch, match="did you mean open"):
        check_columns(["opem"], [HISTORY, LIVE])


def candles(*rows: tuple[int, int, int, float | None], extra: bool = False) -> pa.Table:
    """Rows of (timestamp, revision, timestamp_out, open)."""
    times, revisions, outs, opens = zip(*rows, strict=True) if rows else ((), (), (), ())
    stamp = pa.timestamp("us", tz="UTC")
    columns = {
        "timestamp": pa.array(times, stamp),
        "revision": pa.array(revisions, pa.int64()),
        "timestamp_out": pa.array(outs, stamp),
        "open": pa.array(opens, pa.float64()),
    }
    return pa.table(columns | ({"vwap": pa.array(opens, pa.float64())} if extra else {}))


def shown(table: pa.Table) -> list[tuple[int, int, float | None]]:
    columns = (table["timestamp"].cast(pa.int64()), table["revision"], table["open"])
    return list(zip(*(column.to_pylist() for column in columns), strict=True))


HISTORY_ROWS = candles((2, 0, 20, 2.0), (1, 0, 10, 1.0), (3, 1, 30, 3.0), extra=True)
LIVE_ROWS = candles((4, 0, 40, -4.0), (3, 1, 31, -3.0), (3, 0, 29, -3.5), (2, 1, 50, -2.0), (1, 0, 11, -1.0))


def test_of_both_datasets_the_highest_revision_counts() -> None:
    """A live revision that history lacks wins, of equal ones that of history; what live lacks is null for its rows."""
    table = united(HISTORY_ROWS, LIVE_ROWS, request())
    assert shown(table) == [(1, 0, 1.0), (2, 1, -2.0), (3, 1, 3.0), (4, 0, -4.0)]
    assert table["vwap"].to_pylist() == [1.0, None, 3.0, None]


def test_all_revisions_come_once_each() -> None:
    """In order of time, then revision; history's content of a revision that both have."""
    table = united(HISTORY_ROWS, LIVE_ROWS, request(latest=False))
    assert shown(table) == [(1, 0, 1.0), (2, 0, 2.0), (2, 1, -2.0), (3, 0, -3.5), (3, 1, 3.0), (4, 0, -4.0)]


def test_a_row_that_was_written_twice_comes_once() -> None:
    """`insert_rows` may double a row; two publications of one revision number are two."""
    twice = candles((1, 0, 10, 1.0), (1, 0, 10, 1.0), (1, 0, 12, 1.5))
    assert shown(united(None, twice, request(latest=False))) == [(1, 0, 1.0), (1, 0, 1.5)]
    assert shown(united(None, twice, request())) == [(1, 0, 1.5)]


def test_columns_come_in_the_order_asked_for() -> None:
    """Without those that were only needed to find the newest; `timestamp_in` is `timestamp`."""
    table = united(None, LIVE_ROWS, request(columns=("open", "timestamp_in")))
    assert table.schema.names == ["open", "timestamp_in"] and table["open"].to_pylist() == [-1.0, -2.0, -3.0, -4.0]


def test_no_rows_are_an_empty_table() -> None:
    assert united(candles(), candles(), request()).num_rows == 0


def test_two_types_of_one_column_are_said() -> None:
    wrong = LIVE_ROWS.set_column(3, "open", pa.array(["x"] * LIVE_ROWS.num_rows))
    with pytest.raises(SchemaMismatch, match="one type per column"):
        united(HISTORY_ROWS, wrong, request())


def test_numbers_with_nulls_stay_whole_in_pandas() -> None:
    """Beyond 2**53 a float would round; times keep their microseconds, floats are floats."""
    table = pa.table(
        {
            "big": pa.array([(1 << 60) + 1, None]),
            "flag": pa.array([True, None]),
            "count": pa.array([1, 2]),
            "price": pa.array([0.1, None]),
            "timestamp": pa.array([1, 2], pa.timestamp("us", tz="UTC")),
        }
    )
    frame = to_frame(table, "pandas")
    assert frame["big"][0] == (1 << 60) + 1 and frame["big"].isna().tolist() == [False, True]
    assert [str(kind) for kind in frame.dtypes] == ["Int64", "boolean", "int64", "float64", "datetime64[us, UTC]"]
    assert to_frame(table, "polars").to_arrow().equals(table.cast(to_frame(table, "polars").to_arrow().schema))
    assert to_frame(table, "arrow") is table
    with pytest.raises(ConfigError, match="pandas, polars or arrow"):
        to_frame(table, "csv")  # type: ignore[arg-type]

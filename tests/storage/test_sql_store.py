"""SQL over a store: its tables and day files, read only, nothing else within reach."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from market_data_tick_handler.core.schemas import TIMESTAMP
from market_data_tick_handler.core.timeframes import DAY_US
from market_data_tick_handler.errors import ConfigError, CorruptObject, DataError, MarketDataError, NotFound
from market_data_tick_handler.storage.local_tables import TABLES, FileRange
from market_data_tick_handler.storage.raw_ticks import RawTickWriter
from market_data_tick_handler.testing.ticks import BTC, START_US, trades

pytest.importorskip("duckdb", reason="needs duckdb: install the extra query")

from market_data_tick_handler.storage.sql_store import FilesMoved, SqlStore

LIVE = "market_data_streaming_live"
ETH = "BINANCE:SPOT_PAIR:ETH-USDT"
MINUTE_US = 60_000_000


def times(values: list[int]) -> pa.Array:
    return pa.array(values, pa.int64()).cast(TIMESTAMP)


def candles(minutes: list[int], *, revision: int = 0, close: float = 1.0, late_us: int = 0, **more: Any) -> pa.Table:
    rows = len(minutes)
    at = [START_US + minute * MINUTE_US for minute in minutes]
    return pa.table(
        {
            "instrument_id": [BTC] * rows,
            "exchange": ["binance"] * rows,
            "symbol": ["BTC-USDT"] * rows,
            "timestamp": times(at),
            "timestamp_out": times([each + MINUTE_US + 500_000 + late_us for each in at]),
            "revision": pa.array([revision] * rows, pa.int64()),
            "quality": ["GAPPED" if minute % 10 == 3 else "COMPLETE" for minute in minutes],
            "gap_ms": pa.array([100] * rows, pa.int64()),
            "coverage": pa.array([0.5] * rows),
            "close": pa.array([close] * rows),
            **{name: pa.array([value] * rows) for name, value in more.items()},
        }
    )


def put(store: Path, table: str, first: int, rows: pa.Table, *, merged: bool = False, day: int = 0) -> Path:
    directory = store / TABLES / LIVE / table / f"day={np.datetime64(START_US + day * DAY_US, 'us').astype('M8[D]')}"
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / str(FileRange("5eaf", first, first + rows.num_rows, merged))
    pq.write_table(rows, path)
    return path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Ten minutes, two of them revised, one missing, and the trades of two instruments; a quote in its name."""
    root = tmp_path / "o'clock"
    put(root, "candles_1m", 0, candles([0, 1, 2, 3, 4]))
    put(root, "candles_1m", 5, candles([1, 3], revision=1, close=2.0, late_us=9_000_000))
    put(root, "candles_1m", 7, candles([6, 7, 8, 9], spread_bps_tw=0.25))
    ticks = pa.table(
        {
            "instrument_id": [BTC, ETH, BTC],
            "exchange": ["binance"] * 3,
            "symbol": ["BTC-USDT", "ETH-USDT", "BTC-USDT"],
            "timestamp": times([START_US, START_US + 1, START_US + 2]),
            "price": [1.0, 2.0, 3.0],
        }
    )
    put(root, "ticks_trades", 0, ticks)
    return root


def ask(store: Path, sql: str, **days: date) -> list[dict[str, Any]]:
    with SqlStore(store, **days).query(sql) as reader:
        found: list[dict[str, Any]] = reader.read_all().to_pylist()
        return found


def failing(store: Path, sql: str) -> MarketDataError:
    with pytest.raises(MarketDataError) as raised:
        ask(store, sql)
    return raised.value


def test_the_latest_view_has_the_newest_revision_of_each_candle(store: Path) -> None:
    rows = ask(store, "SELECT minute(timestamp) AS m, revision, close FROM candles_1m_latest ORDER BY timestamp")
    assert [(row["m"], row["revision"], row["close"]) for row in rows] == [
        (minute, *((1, 2.0) if minute in (1, 3) else (0, 1.0))) for minute in (0, 1, 2, 3, 4, 6, 7, 8, 9)
    ]
    assert ask(store, "SELECT count(*) AS n FROM candles_1m") == [{"n": 11}]


def test_earlier_names_are_there(store: Path) -> None:
    assert ask(store, "SELECT count(*) AS n FROM streaming_candles_1m") == [{"n": 9}]
    assert ask(store, "select sum(price) AS n from Ticks_Binance_BTC_USDT") == [{"n": 4.0}]
    assert ask(store, f"SELECT count(*) AS n FROM {LIVE}.candles_1m_latest") == [{"n": 9}]


def test_columns_of_later_versions_are_null_before(store: Path) -> None:
    assert ask(store, "SELECT count(spread_bps_tw) AS n, count(*) AS every FROM candles_1m") == [{"n": 4, "every": 11}]


def test_a_merged_file_hides_those_it_was_made_of(store: Path) -> None:
    merged = pa.concat_tables([candles([0, 1, 2, 3, 4]), candles([1, 3], revision=1, close=2.0)])
    put(store, "candles_1m", 0, merged, merged=True)
    assert ask(store, "SELECT count(*) AS n FROM candles_1m") == [{"n": 11}]


def test_the_gap_report_counts_what_is_missing_and_what_is_gapped(store: Path) -> None:
    (row,) = ask(store, "SELECT * FROM gap_report_daily")
    assert row["day"] == date(2024, 1, 1) and row["instrument_id"] == BTC
    assert (row["candles"], row["missing_candles"], row["gapped_candles"], row["revisions"]) == (9, 1, 1, 2)
    assert row["gap_seconds"] == pytest.approx(0.9) and row["least_coverage"] == 0.5


def test_latency_is_that_of_first_publications(store: Path) -> None:
    (row,) = ask(store, "SELECT candles, p50_ms, max_ms FROM latency_hourly")
    assert row == {"candles": 9, "p50_ms": 500.0, "max_ms": 500.0}


def test_times_are_utc_whatever_the_machine_says(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    rows = ask(store, "SELECT count(*) AS n FROM candles_1m_latest WHERE timestamp >= '2024-01-01 00:05'")
    assert rows == [{"n": 4}]
    (row,) = ask(store, "SELECT min(timestamp) AS t, date_trunc('hour', max(timestamp)) AS h FROM candles_1m")
    assert row["t"].isoformat() == "2024-01-01T00:00:00+00:00" and row["h"].isoformat() == "2024-01-01T00:00:00+00:00"


def test_day_files_say_what_their_paths_say(tmp_path: Path) -> None:
    """Raw ticks: times as times, whose they are from the path."""
    writer = RawTickWriter(tmp_path)
    writer.write(BTC, trades(np.arange(5) + 10.0, first_id=1))
    writer.close()
    rows = ask(tmp_path, "SELECT *, price::INT AS p FROM raw_trades ORDER BY timestamp")
    assert [row["p"] for row in rows] == [10, 11, 12, 13, 14]
    assert {(row["instrument_id"], row["data_type"], row["day"]) for row in rows} == {(BTC, "trades", date(2024, 1, 1))}
    assert rows[0]["timestamp"].isoformat().startswith("2024-01-01T00:00:0")
    assert ask(tmp_path, "SELECT count(*) AS n FROM raw_tick_data WHERE data_type = 'trades'") == [{"n": 5}]


def test_days_choose_day_files(tmp_path: Path) -> None:
    for day in range(3):
        path = tmp_path / f"processed_candles/by_date/day-2024-01-0{day + 1}/timeframe-1m/{BTC}.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(candles([day * 1_440]).append_column("timeframe", pa.array(["1m"])), path)
    sql = "SELECT day, instrument_id, timeframe, count(*) AS n FROM processed_candles GROUP BY ALL ORDER BY day"
    assert [row["day"].day for row in ask(tmp_path, sql)] == [1, 2, 3]
    (row,) = ask(tmp_path, sql, start=date(2024, 1, 2), end=date(2024, 1, 2))
    assert row == {"day": date(2024, 1, 2), "instrument_id": BTC, "timeframe": "1m", "n": 1}


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('{secret}')",
        "SELECT * FROM '{secret}'",
        "SELECT * FROM read_text('{secret}')",
        "SELECT * FROM glob('{directory}/*')",
        "COPY (SELECT 1) TO '{directory}/stolen.csv'",
        "COPY candles_1m TO '{file}'",
        "ATTACH '{directory}/other.db'",
        "CREATE TABLE t AS SELECT 1",
        "DROP VIEW candles_1m",
        "INSERT INTO candles_1m SELECT * FROM candles_1m",
        "SET enable_external_access = true",
        "PRAGMA enable_profiling",
        "INSTALL httpfs",
        "LOAD httpfs",
        "CALL pragma_version()",
        "SELECT 1; COPY (SELECT 1) TO '{directory}/stolen.csv'",
    ],
)
def test_a_query_reads_the_store_and_does_nothing_else(store: Path, tmp_path: Path, sql: str) -> None:
    outside = tmp_path.parent / f"outside-{tmp_path.name}"
    outside.mkdir()
    (outside / "secret.csv").write_text("a,b\n1,2\n")
    before = {path: path.stat().st_mtime_ns for path in [*store.rglob("*"), *outside.rglob("*")]}
    file = next(store.rglob("*.parquet"))
    told = failing(
        store, sql.format(secret=outside / "secret.csv", directory=outside, file=str(file).replace("'", "''"))
    )
    assert isinstance(told, ConfigError) and str(told).startswith("SQL: ")
    assert {path: path.stat().st_mtime_ns for path in [*store.rglob("*"), *outside.rglob("*")]} == before


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("SELECT * FROM candle_1m", "there is no table 'candle_1m' (did you mean candles_1m"),
        ("SELECT * FROM zzz", "there are: candles_1m, candles_1m_latest,"),
        ("SELECT closing FROM candles_1m", "close"),
        ("SELEC 1", "syntax error"),
        ("", "expected one statement, came 0"),
        ("SELECT 1; SELECT 2", "expected one statement, came 2"),
    ],
)
def test_a_wrong_statement_is_a_usage_error_with_a_hint(store: Path, sql: str, told: str) -> None:
    error = failing(store, sql)
    assert isinstance(error, ConfigError) and told in str(error)


def test_a_value_that_cannot_be_read_is_an_error_of_the_data(store: Path) -> None:
    assert isinstance(failing(store, "SELECT CAST(quality AS INT) FROM candles_1m"), DataError)


def test_a_file_that_is_no_parquet_is_named(store: Path) -> None:
    (broken,) = [path for path in (store / TABLES).rglob("*.parquet") if path.name.startswith("5eaf-000000000005")]
    broken.write_bytes(b"PAR1 no parquet")
    error = failing(store, "SELECT * FROM candles_1m")
    assert isinstance(error, CorruptObject) and broken.name in str(error)


def test_files_that_vanish_before_they_are_read_are_no_error_of_the_statement(store: Path) -> None:
    """A service merged them meanwhile: whoever asks lists them again."""
    opened = SqlStore(store)
    for path in (store / TABLES / LIVE / "candles_1m").rglob("*.parquet"):
        path.unlink()
    with pytest.raises(FilesMoved), opened.query("SELECT * FROM candles_1m") as reader:
        reader.read_all()


def test_an_empty_store_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="tick-handler demo"):
        SqlStore(tmp_path)


def test_everything_is_listed_with_rows_and_columns(store: Path) -> None:
    opened = SqlStore(store)
    rows = opened.rows_of(opened.relations)
    assert rows[LIVE, "candles_1m"] == 11 and rows[LIVE, "candles_1m_latest"] == 9 and rows[LIVE, "ticks_trades"] == 3
    columns = opened.columns()
    assert ("timestamp", "TIMESTAMP WITH TIME ZONE") in columns[LIVE, "candles_1m"]
    assert set(columns) == {(each.schema, each.name) for each in opened.relations}


def test_rows_come_in_batches_of_bounded_size(store: Path) -> None:
    with SqlStore(store).query("SELECT a.close FROM candles_1m a, range(40000)") as reader:
        sizes = [batch.num_rows for batch in reader]
    assert sum(sizes) == 440_000 and max(sizes) <= 65_536

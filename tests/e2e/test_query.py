"""`query` over what a service stored: the candles of the bus, for people and for programs."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from market_data_tick_handler.commands import query as command
from market_data_tick_handler.config import load_settings
from market_data_tick_handler.main import main
from market_data_tick_handler.storage.local_tables import table_files
from streaming_service.app import Service
from tests.e2e.live import Seen
from tests.waiting import until

pytest.importorskip("duckdb", reason="needs duckdb: install the extra query")

BTC, ETH = "BINANCE:SPOT_PAIR:BTC-USDT", "BINANCE:SPOT_PAIR:ETH-USDT"
COLUMNS = ("instrument_id", "timestamp", "revision", "open", "close", "volume", "trade_count", "quality")


async def serve(store: Path, timeframe: str, candles: int) -> list[dict[str, Any]]:
    """What a service published until there were so many candles of a timeframe."""
    overrides = {
        "instruments": [BTC, ETH],
        "modes": ["persist"],
        "simulation.speed": 200.0,
        "simulation.rate": 5.0,
        "persist.path": str(store),
        "persist.store_ticks": True,
        "persist.bigquery.batch_timeouts.candles": "500ms",
        "shutdown.deadline": "60s",
        "monitoring.port": 0,
        "candles.timeframes": ["15s", "1m", "5m"],
    }
    seen = Seen()
    service = Service(load_settings(overrides=overrides, environment={}).settings, sinks={"seen": seen})
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(service.run(stop))
        await until(lambda: sum(row["timeframe"] == timeframe for row in seen.rows) >= candles, lambda: seen.rows[-1:])
        stop.set()
    return seen.rows


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """A store that a service filled in two runs, and what it published."""
    store = tmp_path_factory.mktemp("service") / "store"
    published = asyncio.run(serve(store, "5m", 4))
    published += asyncio.run(serve(store, "1m", 4))
    assert len(published) > 50
    return store, published


class Ask:
    """`query` of the store with these arguments: what it prints, or the rows that it prints as JSON."""

    def __init__(self, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._store = store
        self._capsys = capsys

    def __call__(self, *arguments: str) -> str:
        self._capsys.readouterr()
        assert main(["query", *arguments, "--store", str(self._store)]) == 0
        return self._capsys.readouterr().out

    def rows(self, *arguments: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self(*arguments, "--format", "json"))
        return found


@pytest.fixture
def ask(stored: tuple[Path, list[dict[str, Any]]], capsys: pytest.CaptureFixture[str]) -> Ask:
    return Ask(stored[0], capsys)


def told(*arguments: str, code: int, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(["query", *arguments]) == code
    return capsys.readouterr().err


@pytest.mark.parametrize("timeframe", ["15s", "1m", "5m"])
def test_the_tables_have_exactly_what_was_published(
    stored: tuple[Path, list[dict[str, Any]]], timeframe: str, ask: Ask
) -> None:
    """Every revision of every candle of both runs, once, with its values."""
    _, published = stored
    micros = "epoch_us(timestamp) AS timestamp"
    columns = ", ".join(micros if name == "timestamp" else name for name in COLUMNS)
    rows = ask.rows(f"SELECT {columns} FROM candles_{timeframe}")
    wanted = [{name: row[name] for name in COLUMNS} for row in published if row["timeframe"] == timeframe]
    assert sorted(map(json.dumps, rows)) == sorted(map(json.dumps, wanted)) and rows


def test_the_day_files_have_the_newest_revision_of_the_tables(ask: Ask) -> None:
    """Of the second run, which wrote the same simulated hours again."""
    sql = (
        "SELECT count(*) AS n FROM processed_candles d "
        "JOIN candles_1m t USING (instrument_id, timestamp, timestamp_out) "
        "WHERE d.timeframe = '1m' AND d.close IS NOT DISTINCT FROM t.close AND d.volume = t.volume"
    )
    (joined,) = ask.rows(sql)
    days = "SELECT count(*) AS n FROM processed_candles WHERE timeframe = '1m'"
    (there,) = ask.rows(days)
    assert joined["n"] == there["n"] > 5


def test_raw_ticks_are_in_the_tables_and_in_the_day_files(ask: Ask) -> None:
    sql = "SELECT (SELECT count(*) FROM ticks_trades) AS t, (SELECT count(*) FROM raw_trades) AS d"
    (row,) = ask.rows(sql)
    assert row["t"] == row["d"] > 500


@pytest.mark.parametrize("width", [80, 160])
def test_a_table_fits_the_screen_and_says_what_it_leaves_out(
    width: int,
    ask: Ask,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("market_data_tick_handler.commands.console._PLAIN_WIDTH", width)
    out = ask("SELECT * FROM candles_15s_latest ORDER BY timestamp", "--limit", "3")
    *lines, footer = out.splitlines()
    assert len(lines) == 4 and max(map(len, lines)) <= width
    assert lines[0].split()[:2] == ["instrument_id", "exchange"] and lines[1].startswith(BTC[:7])
    assert footer.startswith("first 3 rows, there are more: --limit 0 shows all; no room for 3")
    assert footer.endswith("times are UTC") and "_" in footer
    few = ask("SELECT timestamp, close FROM candles_5m LIMIT 2").splitlines()
    assert few[0].split() == ["timestamp", "close"] and few[-1] == "2 rows; times are UTC"


def test_programs_get_csv_json_and_parquet(tmp_path: Path, ask: Ask) -> None:
    """From standard output or a file whose name says the format; the same rows in each."""
    sql = "SELECT timestamp, close, sma_5, trade_count, is_empty FROM candles_1m ORDER BY ALL"
    text = ask(sql, "--format", "csv")
    from_csv = list(csv.DictReader(io.StringIO(text)))
    from_json = ask.rows(sql)
    for name in ("rows.csv", "rows.json", "rows.parquet"):
        assert ask(sql, "--out", str(tmp_path / name)) == ""
    assert (tmp_path / "rows.csv").read_text() == text and json.loads((tmp_path / "rows.json").read_text()) == from_json
    parquet = pq.read_table(tmp_path / "rows.parquet")
    assert len(from_csv) == len(from_json) == parquet.num_rows > 5
    assert (
        [row["close"] for row in from_json] == parquet["close"].to_pylist() == [float(row["close"]) for row in from_csv]
    )
    assert from_json[0]["timestamp"] == from_csv[0]["timestamp"] and from_json[0]["timestamp"].endswith("Z")
    assert from_csv[0]["sma_5"] == "" and from_json[0]["sma_5"] is None
    assert {type(row["trade_count"]) for row in from_json} == {int} and from_json[0]["is_empty"] in (True, False)
    assert len(ask.rows(sql, "--limit", "3")) == 3


def test_a_statement_comes_from_a_file_or_standard_input(
    tmp_path: Path,
    ask: Ask,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sql = "-- how many\nSELECT count(*) AS n\nFROM candles_1m;\n"
    (tmp_path / "how_many.sql").write_text(sql)
    monkeypatch.setattr(sys, "stdin", io.StringIO(sql))
    from_file = ask("-f", str(tmp_path / "how_many.sql"))
    assert ask("-") == from_file and from_file.split()[0] == "n"


def test_tables_are_listed_with_their_rows(stored: tuple[Path, list[dict[str, Any]]], ask: Ask) -> None:
    _, published = stored
    out = ask("--tables")
    rows = sum(row["timeframe"] == "15s" for row in published)
    line = next(line.split() for line in out.splitlines() if line.startswith("candles_15s "))
    assert line[:3] == ["candles_15s", "table", f"{rows:,}"]
    listed = {each["name"]: each for each in ask.rows("--tables")}
    assert {"candles_1m_latest", "streaming_candles_1m", "gap_report_daily", "processed_candles"} <= set(listed)
    assert {"name": "close", "type": "DOUBLE"} in listed["candles_1m"]["columns"]


def test_files_that_are_merged_meanwhile_are_read_again(
    stored: tuple[Path, list[dict[str, Any]]],
    tmp_path: Path,
    ask: Ask,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first try finds the files of its listing gone; the answer is that of the second."""
    store, _ = stored
    wanted = ask("SELECT count(*) AS n FROM candles_1m")
    directory = store / "tables" / "market_data_streaming_live" / "candles_1m"
    hidden = {path: path.with_name(f".{path.name}.hidden") for path in table_files(directory)}
    shown, tries = command._shown, []

    def once_hidden(*arguments: Any) -> Any:
        tries.append(len(tries))
        if len(tries) == 1:
            for path, other in hidden.items():
                path.rename(other)
        try:
            return shown(*arguments)
        finally:
            for path, other in hidden.items():
                if other.exists():
                    other.rename(path)

    monkeypatch.setattr(command, "_shown", once_hidden)
    assert ask("SELECT count(*) AS n FROM candles_1m") == wanted and len(tries) == 2


def test_errors_are_one_line_with_a_hint_and_the_documented_exit_codes(
    stored: tuple[Path, list[dict[str, Any]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = str(stored[0])
    assert "did you mean candles_1m" in told("SELECT * FROM candle_1m", "--store", store, code=2, capsys=capsys)
    assert "came COPY" in told("COPY candles_1m TO 'x'", "--store", store, code=2, capsys=capsys)
    assert "came neither" in told("--store", store, code=2, capsys=capsys)
    assert ".parquet" in told("SELECT 1", "--store", store, "--out", "rows.txt", code=2, capsys=capsys)
    assert "YYYY-MM-DD" in told("SELECT 1", "--store", store, "--start-date", "1st", code=2, capsys=capsys)
    assert "tick-handler demo" in told("SELECT 1", "--store", str(tmp_path), code=1, capsys=capsys)
    assert "Could not convert" in told("SELECT 'x'::INT", "--store", store, code=1, capsys=capsys)


def test_without_duckdb_the_extra_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    assert "market-data-tick-handler[query]" in told("SELECT 1", "--store", str(tmp_path), code=2, capsys=capsys)


def test_tables_can_be_switched_off(tmp_path: Path) -> None:
    settings = load_settings(
        overrides={"persist.tables": False, "persist.path": str(tmp_path / "store"), "monitoring.port": 0},
        environment={},
    ).settings
    service = Service(settings)
    asyncio.run(service.run(duration_s=0.5))
    assert "tables" not in service.health_report() and not (tmp_path / "store" / "tables").exists()

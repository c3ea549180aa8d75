"""`replay` from the command line: recorded files in, stored candles and an exact account of every row out."""

from __future__ import annotations

import csv
import gzip
import json
import re
import shutil
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.main import main
from market_data_tick_handler.storage.candle_files import read_candles

HEADER = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount"
START_US = 1_704_067_200_000_000  # 2024-01-01 00:00 UTC
SECOND_US = 1_000_000
BTC, ETH = "BINANCE:SPOT_PAIR:BTC-USDT", "BINANCE:SPOT_PAIR:ETH-USDT"


def trade(number: int, *, symbol: str = "BTCUSDT", at_s: float | None = None, price: str = "100.5") -> str:
    timestamp = START_US + int((number if at_s is None else at_s) * SECOND_US)
    side = "buy" if number % 3 else "sell"
    return f"binance,{symbol},{timestamp},{timestamp + 2_000},{number + 1},{side},{price},0.25"


def write_csv(path: Path, rows: list[str], *, header: str = HEADER) -> Path:
    text = "\n".join([header, *rows]) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def replay(files: list[Path], out: Path, *more: str) -> tuple[int, dict[str, Any]]:
    summary = out.parent / f"{out.name}.json"
    code = main(["replay", "--files", *map(str, files), "--out", str(out), "--summary-json", str(summary), *more])
    return code, json.loads(summary.read_text()) if summary.is_file() else {}


def candles(out: Path, timeframe: Timeframe, key: str = BTC) -> pa.Table:
    return read_candles(out, key, timeframe, date(2024, 1, 1), date(2024, 1, 1))


@pytest.fixture
def two_files(tmp_path: Path) -> list[Path]:
    """Ten minutes, one trade a second, of two symbols; one duplicate, one negative price, one late row."""
    btc = [trade(number) for number in range(600)]
    late = f"binance,BTCUSDT,{START_US + 95 * SECOND_US},{START_US + 150 * SECOND_US},9001,buy,101.0,1.0"
    btc[150:150] = [btc[149], trade(9_500, at_s=149.5, price="-1"), late]
    eth = [trade(number, symbol="ETHUSDT", price="10.5") for number in range(600)]
    return [
        write_csv(tmp_path / "binance_trades_2024-01-01_BTCUSDT.csv.gz", btc),
        write_csv(tmp_path / "binance_trades_2024-01-01_ETHUSDT.csv", eth),
    ]


def test_every_row_is_accounted_for_and_every_timeframe_is_stored(two_files: list[Path], tmp_path: Path) -> None:
    code, summary = replay(two_files, tmp_path / "out")
    assert code == 0
    assert set(summary) == {"streams", "candles", "revisions"}
    assert set(summary["streams"]) == {f"{BTC}/trades", f"{ETH}/trades"}
    assert summary["streams"][f"{BTC}/trades"] == {
        "received": 603, "accepted": 601, "duplicate": 1, "invalid": 1, "refused": 0, "filtered": 0,
    }  # fmt: skip
    assert summary["revisions"] > 0
    stored = sum(candles(tmp_path / "out", timeframe, key).num_rows for timeframe in Timeframe for key in (BTC, ETH))
    assert summary["candles"] == stored
    minutes = candles(tmp_path / "out", Timeframe.M1)
    assert minutes.num_rows == 10
    assert sum(minutes["trade_count"].to_pylist()) == 601
    assert minutes["revision"].to_pylist()[1] > 0


def test_speed_and_chunks_change_nothing_but_the_time(two_files: list[Path], tmp_path: Path) -> None:
    assert replay(two_files, tmp_path / "fast")[0] == 0
    assert replay(two_files, tmp_path / "paced", "--speed", "2000x")[0] == 0
    assert main(["parity", str(tmp_path / "fast"), str(tmp_path / "paced")]) == 0


def test_a_second_run_takes_the_place_of_the_first(two_files: list[Path], tmp_path: Path) -> None:
    replay(two_files, tmp_path / "out", "--store-ticks")
    assert replay(two_files[1:], tmp_path / "one")[0] == 0
    without_late = write_csv(two_files[0], [trade(number) for number in range(600)])
    assert replay([without_late], tmp_path / "out", "--store-ticks")[0] == 0
    assert replay([without_late], tmp_path / "fresh", "--store-ticks")[0] == 0
    assert main(["parity", str(tmp_path / "out"), str(tmp_path / "fresh"), "--instrument", BTC]) == 0
    assert main(["parity", str(tmp_path / "out"), str(tmp_path / "one"), "--instrument", ETH]) == 0


def test_stored_ticks_replayed_give_the_same_candles(two_files: list[Path], tmp_path: Path) -> None:
    assert replay(two_files, tmp_path / "out", "--store-ticks")[0] == 0
    raw = tmp_path / "out" / "raw_tick_data" / "by_date" / "day-2024-01-01" / "data_type-trades"
    assert pq.read_metadata(raw / f"{BTC}.parquet").num_rows == 603
    assert (tmp_path / "out" / "gap_ledger" / "by_date" / "day-2024-01-01" / f"{BTC}.parquet").is_file()
    assert replay([raw], tmp_path / "again")[0] == 0
    assert main(["parity", str(tmp_path / "out"), str(tmp_path / "again")]) == 0


def test_only_the_timeframes_asked_for_are_written(two_files: list[Path], tmp_path: Path) -> None:
    assert replay(two_files, tmp_path / "out", "--timeframes", "1M,5m")[0] == 0
    day = tmp_path / "out" / "processed_candles" / "by_date" / "day-2024-01-01"
    assert sorted(path.name for path in day.iterdir()) == ["timeframe-1m", "timeframe-5m"]


def test_print_shows_candles_as_the_live_terminal_does(
    two_files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    replay(two_files[1:], tmp_path / "out", "--print", "--timeframes", "1m")
    lines = [line for line in capsys.readouterr().out.splitlines() if " | " in line]
    assert len(lines) == 10
    assert f"00:03:00 | {ETH} 1m | O=10.5" in lines[3]


def test_bad_files_are_named_and_the_rest_of_the_run_goes_on(
    two_files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    whole = two_files[0].read_bytes()
    (bad / "binance_trades_2024-01-01_BTCUSDT.csv.gz").write_bytes(whole[: len(whole) // 2])
    write_csv(bad / "binance_trades_2024-01-01_ADAUSDT.csv", [])
    (bad / "binance_trades_2024-01-01_DOTUSDT.csv").touch()
    no_price = HEADER.replace(",price", "")
    write_csv(bad / "binance_trades_2024-01-01_XRPUSDT.csv", ["binance,XRPUSDT,1,1,1,buy,1"], header=no_price)
    nanoseconds = [trade(n, symbol="SOLUSDT").replace("1704067", "1704067000", 1) for n in range(3)]
    write_csv(bad / "binance_trades_2024-01-01_SOLUSDT.csv", nanoseconds)
    text = [trade(n, symbol="LTCUSDT", price="abc" if n == 1 else "7.5") for n in range(20)]
    write_csv(bad / "binance_trades_2024-01-01_LTCUSDT.csv", text)
    code, summary = replay([bad, two_files[1], tmp_path / "missing.csv"], tmp_path / "out")
    assert code == 3
    shown = capsys.readouterr().out
    for name in ("BTCUSDT.csv.gz", "XRPUSDT.csv", "SOLUSDT.csv", "missing.csv"):
        line = next(line for line in shown.splitlines() if name in line)
        assert "FAILED" in line, line
    assert "microseconds" in shown
    assert summary["streams"][f"{ETH}/trades"]["accepted"] == 600
    ltc = summary["streams"]["BINANCE:SPOT_PAIR:LTC-USDT/trades"]
    assert (ltc["received"], ltc["accepted"], ltc["invalid"]) == (20, 19, 1)
    assert set(summary["streams"]) >= {f"{BTC}/trades"}


def test_nothing_readable_is_a_failure(tmp_path: Path) -> None:
    code, summary = replay([tmp_path / "missing.csv"], tmp_path / "out")
    assert code == 1
    assert summary == {"streams": {}, "candles": 0, "revisions": 0}


def test_a_speed_that_is_none_is_a_usage_error(two_files: list[Path], tmp_path: Path) -> None:
    assert replay(two_files, tmp_path / "out", "--speed", "fast")[0] == 2


@pytest.mark.parametrize(("venue_symbol", "key"), [("BTCUSDT", BTC), ("ETHUSDT", ETH)])
def test_minutes_equal_the_klines_of_the_exchange(
    venue_symbol: str, key: str, samples_dir: Path, tmp_path: Path
) -> None:
    """The recording starts at 23:54 and stops at 00:05; the ten minutes in between are whole."""
    capture = samples_dir / "binance-spot-btc-eth-2024-08-08_09"
    code, _ = replay(sorted((capture / "tardis").glob(f"binance_trades_*_{venue_symbol}.csv.gz")), tmp_path / "out")
    assert code == 0
    ours = read_candles(tmp_path / "out", key, Timeframe.M1, date(2024, 8, 8), date(2024, 8, 9)).to_pylist()
    with (capture / "oracle" / f"binance_klines_1m_{venue_symbol}.csv").open() as file:
        klines = {int(row["open_time_ms"]): row for row in csv.DictReader(file)}
    whole = [row for row in ours if row["quality"] == "COMPLETE"]
    equal = 0
    for row in whole:
        kline = klines[round(row["timestamp"].timestamp() * 1000)]
        exact = all(row[name] == float(kline[name]) for name in ("open", "high", "low", "close"))
        equal += exact and row["volume"] == pytest.approx(float(kline["volume"]), rel=1e-9)
    assert (equal, len(whole)) == (10, 10)


def test_batch_over_the_stored_ticks_gives_the_same_bits(
    two_files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert replay(two_files, tmp_path / "out", "--store-ticks")[0] == 0
    shutil.copytree(tmp_path / "out", tmp_path / "history", ignore=shutil.ignore_patterns("processed_candles"))
    job = ["batch", "candle-processing", "--start-date", "2024-01-01", "--store", str(tmp_path / "history")]
    assert main(job) == 0
    assert main(["parity", str(tmp_path / "out"), str(tmp_path / "history")]) == 0
    capsys.readouterr()
    assert main(["--mode", "candle-processing", *job[2:], "--symbol", "btcusdt"]) == 0
    assert ", 0 new or changed" in capsys.readouterr().out


def test_batch_says_what_became_of_each_day(
    two_files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    replay(two_files[1:], tmp_path / "out", "--store-ticks")
    job = ["batch", "candle-processing", "--store", str(tmp_path / "out"), "--start-date"]
    assert main([*job, "2024-01-01", "--end-date", "2024-01-02"]) == 3
    assert re.search(r"2024-01-02\s+MISSING", capsys.readouterr().out)
    assert main([*job, "2023-05-05"]) == 1
    assert "raw_tick_data" in capsys.readouterr().err
    assert main([*job, "01.02.2024"]) == 2
    assert main([*job, "2024-01-02", "--end-date", "2024-01-01"]) == 2


def test_parity_says_what_differs_and_exits_1(
    two_files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    replay(two_files, tmp_path / "a")
    rows = [trade(number, price="100.5" if number != 300 else "100.75") for number in range(600)]
    replay([write_csv(two_files[0], rows), two_files[1]], tmp_path / "b")
    capsys.readouterr()
    assert main(["parity", str(tmp_path / "a"), str(tmp_path / "b")]) == 1
    shown = capsys.readouterr().out
    assert re.search(rf"value: high\s+\d+\s+15m {BTC} 2024-01-01 00:00:00 UTC: 101.0 / 100.75", shown)
    assert re.search(r"\d+ of \d+ candles equal", shown)
    assert main(["parity", str(tmp_path / "a"), str(tmp_path / "b"), "--instrument", ETH]) == 0
    assert main(["parity", str(tmp_path / "a"), str(tmp_path / "nothing")]) == 1

"""`stream` and its relatives as processes: candles on the terminal and on disk, monitoring, and an orderly end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from market_data_tick_handler.config import installed
from market_data_tick_handler.main import main

# A process that does not do what it is started for ends some day all the same.
DEADLINE_S = 600
LINE = re.compile(
    r"^\S+ \d\d:\d\d:\d\d \| BINANCE:SPOT_PAIR:BTC-USDT (15s|1m|5m|15m|1h|4h|24h) \| O=\S+ H=\S+ L=\S+ C=\S+ \| "
    r"V=\S+ T=\d+ \| \S+ \(\S+%\) \| SMA5=\S+ RSI5=\S+ \| (COMPLETE|PARTIAL|QUIET|GAPPED|REPAIRED)( r\d+)? "
    r"\| latency .+$"
)


def write_settings(directory: Path, **more: Any) -> Path:
    settings = {
        "instruments": ["BINANCE:SPOT_PAIR:BTC-USDT"],
        "simulation": {"speed": "300x"},
        "persist": {"path": str(directory / "store"), "store_ticks": True},
        "monitoring": {"port": 0},
        "logging": {"format": "json"},
        **more,
    }
    path = directory / "settings.yaml"
    path.write_text(json.dumps(settings))
    return path


def stop_after(process: subprocess.Popen[str], enough: Callable[[list[str]], bool]) -> list[str]:
    """Read its lines until there are enough, end it as an operator does, and give all lines that it printed."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if enough(lines):
            break
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, err
    return lines + out.splitlines()


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("MARKET_DATA_")}


@contextmanager
def running(*arguments: str, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "market_data_tick_handler", *arguments]
    process = subprocess.Popen(
        command, cwd=cwd, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("mode", ["stream", "streaming-candles-serve", "streaming-candles-bigquery"])
def test_every_live_mode_prints_candles(mode: str, tmp_path: Path) -> None:
    settings = write_settings(tmp_path)
    with running("--mode", mode, "--config", str(settings), "--timeframes", "15S 1m", cwd=tmp_path) as process:
        lines = stop_after(process, lambda lines: {"15s", "1m"} <= {line.split(" | ")[1].split()[1] for line in lines})
    assert all(LINE.match(line) for line in lines), lines[:3]
    assert not [line for line in lines if "\x1b" in line]
    stored = {path.parent.name for path in (tmp_path / "store" / "processed_candles").rglob("*.parquet")}
    assert stored == (set() if mode == "streaming-candles-serve" else {"timeframe-15s", "timeframe-1m"})


def test_a_duration_ends_it(tmp_path: Path) -> None:
    settings = write_settings(tmp_path)
    with running("stream", "--config", str(settings), "--duration", "2", cwd=tmp_path) as process:
        out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, err
    assert all(LINE.match(line) for line in out.splitlines())
    assert '"reason": "duration over"' in err


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        (
            "DERIBIT:OPTION_CHAIN:BTC-USD",
            r"F=\d+\.\d\d \| ATM IV=\d+\.\d\d% .* \| options [1-9]\d* in [1-9]\d* expiries",
        ),
        ("BINANCE-FUTURES:PERPETUAL:BTC-USDT", r"O=\d+\.\d\d H=.* \| V=\d.* T=[1-9]\d*"),
    ],
    ids=["chain", "perpetual"],
)
def test_a_chain_and_a_perpetual_are_streamed_with_every_group(key: str, shown: str, tmp_path: Path) -> None:
    settings = write_settings(tmp_path, instruments=[key])
    with running("stream", "--config", str(settings), cwd=tmp_path) as process:
        lines = stop_after(process, lambda lines: len(lines) >= 5)
    assert [line for line in lines if f"{key} " not in line or not re.search(shown, line)] == []


def test_sigterm_drains_and_ends_well_and_the_pages_answer_meanwhile(tmp_path: Path) -> None:
    settings = write_settings(tmp_path)
    with running("stream", "--config", str(settings), cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        started = next(entry for entry in map(json.loads, process.stderr) if "monitoring" in entry)
        assert LINE.match(process.stdout.readline().rstrip("\n"))
        with urllib.request.urlopen(f"{started['monitoring']}/health", timeout=DEADLINE_S) as answer:
            assert json.load(answer)["candles"] > 0
        with urllib.request.urlopen(f"{started['monitoring']}/metrics", timeout=DEADLINE_S) as answer:
            assert b"# TYPE" in answer.read()
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, err
    shown = {line.split(" | ")[1].split()[1] for line in out.splitlines()}
    stored = {path.parent.name for path in (tmp_path / "store" / "processed_candles").rglob("*.parquet")}
    assert {f"timeframe-{name}" for name in shown} <= stored


def test_streamed_files_give_the_candles_of_a_replay(tmp_path: Path) -> None:
    """The service ends by itself when its files do; what it stored is what `replay` stores."""
    times = (1_704_067_200_000_000 + number * 500_000 for number in range(900))
    rows = [f"binance,BTCUSDT,{at},{at + 2_000},{at},buy,{100 + at % 7},0.5" for at in times]
    ticks = tmp_path / "binance_trades_2024-01-01_BTCUSDT.csv"
    ticks.write_text("\n".join(["exchange,symbol,timestamp,local_timestamp,id,side,price,amount", *rows]) + "\n")
    types = ("trades", "book_snapshot_5", "derivative_ticker", "liquidations", "options_chain")
    settings = write_settings(
        tmp_path,
        data_types={name: {"source": "files", "enabled": name == "trades"} for name in types},
        files={"paths": [str(ticks)], "speed": "max"},
    )
    with running("stream", "--config", str(settings), cwd=tmp_path) as process:
        _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, err
    assert main(["replay", "--files", str(ticks), "--out", str(tmp_path / "replayed")]) == 0
    assert main(["parity", str(tmp_path / "store"), str(tmp_path / "replayed"), "--timeframes", "15s", "1m", "5m"]) == 0


def test_a_part_that_is_not_installed_is_named_with_its_extra(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installed, "find_spec", lambda name: None)
    settings = write_settings(tmp_path, persist={"target": "bigquery"})
    assert main(["persist", "--config", str(settings)]) == 2
    assert "market-data-tick-handler[gcp]" in capsys.readouterr().err


def test_a_symbol_that_could_be_several_instruments_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = write_settings(tmp_path)
    assert main(["stream", "--config", str(settings), "--symbol", "NOSUCH", "--duration", "1"]) == 2
    assert "NOSUCH" in capsys.readouterr().err


def test_a_reader_that_leaves_ends_the_service_in_order(tmp_path: Path) -> None:
    """`tick-handler stream | head -1`"""
    settings = write_settings(tmp_path)
    with running("stream", "--config", str(settings), cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
        assert process.wait(DEADLINE_S) == 0
    assert "Traceback" not in err
    assert "service stopped" in err

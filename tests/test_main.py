"""The command line: what people type reaches the right command, and errors are one clear line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from market_data_tick_handler.commands.arguments import normalise
from market_data_tick_handler.commands.modes import AVAILABLE, LATER, LATER_BATCH
from market_data_tick_handler.errors import ConfigError, NotInstalled
from market_data_tick_handler.main import main
from tests.waiting import PATIENCE_S


@pytest.mark.parametrize(
    ("typed", "parsed"),
    [
        ("replay --out X", "replay --out X"),
        ("--mode replay --out X", "replay --out X"),
        ("--out X --mode=replay", "replay --out X"),
        ("--mode REPLAY", "replay"),
        ("--mode streaming-candles-serve --duration 5", "serve --duration 5"),
        ("--mode streaming_candles_bigquery", "persist"),
        ("streaming-candles", "stream"),
        ("--mode candle-processing --force", "batch candle-processing --force"),
        ("batch --mode candle-processing", "batch candle-processing"),
        ("batch candle-processing", "batch candle-processing"),
        ("--mode config check", "config check"),
        ("Config Check", "config check"),
        ("--verbose stream", "stream --verbose"),
        ("stream --START_DATE 2024-01-01", "stream --start-date 2024-01-01"),
    ],
)
def test_every_documented_spelling_of_a_mode_reaches_its_sub_command(typed: str, parsed: str) -> None:
    assert normalise(typed.split()) == parsed.split()


@pytest.mark.parametrize(
    "typed",
    [
        "--timeframes 1m,5m,1h",
        "--timeframes 1m 5m 1h",
        "--timeframes 1m, 5m ,1h",
        "--timeframes=1m,5m 1h",
        "--TIMEFRAMES 1m 5m --timeframes 1h",
    ],
)
def test_lists_take_commas_and_spaces(typed: str) -> None:
    assert normalise(["stream", *typed.split()]) == "stream --timeframes 1m --timeframes 5m --timeframes 1h".split()


def test_a_list_ends_at_the_next_option_and_at_a_double_dash() -> None:
    assert normalise("stream --symbols BTC-USDT ETH-USDT --duration 3".split()) == (
        "stream --symbol BTC-USDT --symbol ETH-USDT --duration 3".split()
    )
    assert normalise("parity --timeframes 1m -- a b".split()) == "parity --timeframes 1m a b".split()


def test_an_address_is_no_value_of_a_list() -> None:
    typed = "watch --timeframes 15s 1m redis://127.0.0.1:6379 --once".split()
    assert normalise(typed) == "watch --timeframes 15s --timeframes 1m redis://127.0.0.1:6379 --once".split()


def test_file_names_may_contain_commas() -> None:
    assert normalise(["replay", "--files", "a,b.csv", "c.csv"]) == ["replay", "--files", "a,b.csv", "--files", "c.csv"]


@pytest.mark.parametrize(
    "typed", ["--mode", "--mode --out x", "--mode serve --mode persist", "--mode replai", "replai"]
)
def test_a_mode_that_cannot_be_told_is_a_configuration_error(typed: str) -> None:
    with pytest.raises(ConfigError):
        normalise(typed.split())


@pytest.mark.parametrize("name", sorted([*LATER, *LATER_BATCH, *(f"batch {job}" for job in LATER_BATCH)]))
def test_modes_of_later_versions_say_so_and_exit_2(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(NotInstalled):
        normalise(["--mode", name])
    assert main(name.split()) == 2
    assert "later version" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted(set(AVAILABLE.values())))
def test_every_sub_command_has_help(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*path, "--help"]) == 0
    assert "Usage: tick-handler" in capsys.readouterr().out


def test_usage_errors_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", "--files", "a.csv"]) == 2
    assert main(["batch", "foo"]) == 2
    assert main(["parity", "a", "b", "--colour"]) == 2
    assert main(["stream", "--duration", "-1"]) == 2
    assert capsys.readouterr().out == ""


def test_an_error_is_one_line_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "none.yaml"
    assert main(["config", "check", "--config", str(missing)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert str(missing) in err
    assert len(err.splitlines()) == 1


def test_verbose_adds_the_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["parity", str(tmp_path / "a"), str(tmp_path / "b"), "--verbose"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_help_needs_no_heavy_import() -> None:
    """Start-up stays quick because nothing numerical is imported before a command runs."""
    code = (
        "import sys\nfrom market_data_tick_handler.main import main\nassert main(['--help']) == 0\n"
        "heavy = {'numpy', 'numba', 'pyarrow', 'pandas', 'polars', 'asyncio', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr


def test_python_m_is_the_same_command() -> None:
    command = [sys.executable, "-m", "market_data_tick_handler", "--mode", "full-pipeline-ticks"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 2
    assert "later version" in done.stderr

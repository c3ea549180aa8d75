"""`plan` as people use it: tables or JSON out of the settings and flags of `stream`, and nothing else happens."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from market_data_tick_handler.commands.console import size_text, usd_text
from market_data_tick_handler.commands.plan import mode_of
from market_data_tick_handler.errors import ConfigError
from market_data_tick_handler.main import main

LIVE = """
data_types:
  trades: {source: exchange, fallback: [tardis_realtime]}
  book_snapshot_5: {source: exchange}
  derivative_ticker: {enabled: false}
  liquidations: {enabled: false}
  options_chain: {enabled: false}
serve: {transport: redis}
persist: {target: bigquery, store_ticks: true}
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError(f"plan touched the network: {arguments}")

    monkeypatch.chdir(tmp_path)
    (tmp_path / "live.yaml").write_text(LIVE)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "bind", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def planned(capsys: pytest.CaptureFixture[str], *flags: str) -> dict[str, Any]:
    assert main(["plan", "--json", "--timeframes", "1m", *flags]) == 0
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


def test_every_part_has_its_table_and_nothing_is_left_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "--config", "live.yaml", "--timeframes", "1m"]) == 0
    shown = capsys.readouterr().out
    for words in (
        "Connections",
        "1 of 1,024 streams",
        "Instruments",
        "Channels, streams and keys (transport redis)",
        "Redis needs",
        "Tables (dataset market_data_streaming_live, write method committed)",
        "ticks_trades",
        "Disk",
        "The spool holds",
        "warning: prices were not compared",
    ):
        assert words in shown, words
    assert "\x1b" not in shown
    assert [path.name for path in tmp_path.iterdir()] == ["live.yaml"]


def test_flags_are_those_of_stream_and_assumptions_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    found = planned(
        capsys, "--config", "live.yaml", "--symbol", "ETH-USDT,SOL-USDT", "--trades-per-second", "7",
        "--revisions-per-candle", "0",
    )  # fmt: skip
    keys = [each["instrument"] for each in found["instruments"]]
    assert keys == ["BINANCE:SPOT_PAIR:ETH-USDT", "BINANCE:SPOT_PAIR:SOL-USDT"]
    assert any("trades 7" in text for text in found["assumptions"])
    rows = {each["day"]["table"]: each["day"]["rows"] for each in found["tables"]["tables"]}
    assert rows["candles_1m"] == 2 * 1_440 and rows["ticks_trades"] == 2 * 7 * 86_400


def test_a_mode_limits_the_plan_to_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    serve = planned(capsys, "--mode", "streaming-candles-serve", "--config", "live.yaml")
    persist = planned(capsys, "--mode=persist", "--config", "live.yaml")
    assert serve["tables"] is None and serve["serving"]["redis_bytes"] > 0
    assert persist["serving"] is None and persist["tables"]["in_bigquery"]
    assert main(["--mode", "plan", "--timeframes", "1m"]) == 0


def test_a_configuration_error_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mixed.yaml").write_text("data_types: {trades: {source: exchange}}\n")
    assert main(["plan", "--config", "mixed.yaml"]) == 2
    assert main(["plan", "--symbol", "NO-SUCH-THING-AT-ALL"]) == 2
    assert main(["plan", "--mode", "replay"]) == 2
    assert main(["plan", "--trades-per-second", "-1"]) == 2
    assert "cannot run together" in capsys.readouterr().err


def test_names_of_live_modes() -> None:
    assert [mode_of(name) for name in (None, "stream", "serve", "streaming-candles-bigquery")] == [
        None, None, "serve", "persist",
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="expected a live mode"):
        mode_of("demo")


def test_sizes_and_sums_are_short() -> None:
    assert [size_text(size) for size in (0, 999, 1_536, 200 << 20, 3 << 40)] == [
        "0 B", "999 B", "1.5 KiB", "200 MiB", "3.0 TiB",
    ]  # fmt: skip
    assert [usd_text(usd) for usd in (0.0, 0.000123, 1_234.5)] == ["0.00", "0.000123", "1,234.50"]

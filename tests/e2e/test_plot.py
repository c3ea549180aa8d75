"""`plot` from the command line, over candles that `replay` stored: files that open, and answers that help."""

from __future__ import annotations

import io
import json
import re
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from market_data_tick_handler.commands.plot import PlotOptions, run
from market_data_tick_handler.commands.selection import Selection
from market_data_tick_handler.core.events import Gap, GapEnding
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.errors import NotInstalled
from market_data_tick_handler.main import main
from market_data_tick_handler.storage.candle_files import read_candles
from market_data_tick_handler.storage.gap_ledger import write_gaps
from tests.e2e.test_replay import BTC, ETH, SECOND_US, START_US, trade, write_csv
from tests.streaming_service.serving.browser import tab

pytest.importorskip("matplotlib", reason="needs the package matplotlib (extra dashboard)")
pytest.importorskip("plotly", reason="needs the package plotly (extra dashboard)")

CANDLES = "document.querySelectorAll('#chart .boxlayer path.box').length"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten minutes of two instruments, replayed; two minutes of one have no trades, and a gap is in the ledger."""
    folder = tmp_path_factory.mktemp("plot")
    prices = {number: f"{100 + (number % 90) / 10:.1f}" for number in range(600)}
    btc = [trade(number, price=prices[number]) for number in range(600) if not 240 <= number < 360]
    late = f"binance,BTCUSDT,{START_US + 95 * SECOND_US},{START_US + 150 * SECOND_US},9001,buy,101.0,1.0"
    btc[150:150] = [late]
    eth = [trade(number, symbol="ETHUSDT", price="10.5") for number in range(600)]
    files = [
        write_csv(folder / "binance_trades_2024-01-01_BTCUSDT.csv", btc),
        write_csv(folder / "binance_trades_2024-01-01_ETHUSDT.csv", eth),
    ]
    assert main(["replay", "--files", *map(str, files), "--out", str(folder / "store")]) == 0
    gap = Gap(
        BTC, DataType.TRADES, START_US + 240 * SECOND_US, START_US + 360 * SECOND_US, "disconnect",
        ending=GapEnding.REPAIRED,
    )  # fmt: skip
    write_gaps(folder / "store", [gap])
    return folder / "store"


def plot(store: Path, out: Path, *more: str) -> int:
    return main(["plot", "--store", str(store), "--out", str(out), *more])


def figure(path: Path) -> dict[str, Any]:
    found = re.search(r'id="figure">(.*?)</script>', path.read_text(encoding="utf-8"), flags=re.S)
    assert found is not None
    told: dict[str, Any] = json.loads(found[1])
    return told


def stored(store: Path, timeframe: Timeframe) -> pa.Table:
    return read_candles(store, BTC, timeframe, date(2024, 1, 1), date(2024, 1, 1))


def test_a_directory_gets_a_page_and_a_picture_and_their_paths_are_said(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from matplotlib.image import imread

    assert plot(store, tmp_path, "--instrument", BTC, "--timeframe", "15s") == 0
    name = "BINANCE_SPOT_PAIR_BTC-USDT_15s_2024-01-01"
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{name}.html", f"{name}.png"]
    drawn = imread(io.BytesIO((tmp_path / f"{name}.png").read_bytes()), format="png")
    assert drawn.shape[1] == 1_920 and float(drawn.std()) > 0.05
    shown = capsys.readouterr().out.replace("\n", "")
    assert "MB" in shown and "kB" in shown and "QUIET" in shown
    for path in tmp_path.iterdir():
        assert path.name in re.sub(r"\s+", "", shown)


def test_what_is_drawn_is_what_is_stored(store: Path, tmp_path: Path) -> None:
    assert plot(store, tmp_path / "chart.html", "--symbol", "btcusdt", "--timeframe", "1m") == 0
    kept = stored(store, Timeframe.M1).to_pylist()
    told = figure(tmp_path / "chart.html")
    candles = [trace for trace in told["data"] if trace["type"] == "candlestick"]
    drawn = {
        at: prices
        for trace in candles
        for at, *prices in zip(*(trace[name] for name in ("x", "open", "high", "low", "close")), strict=True)
    }
    wanted = {
        round(row["timestamp"].timestamp() * 1000): [row[name] for name in ("open", "high", "low", "close")]
        for row in kept
    }
    assert drawn == wanted and len(drawn) == 10
    names = [trace.get("name", "") for trace in told["data"]]
    assert "Gap repaired or explained (1)" in names
    assert any(name.startswith("Revised") for name in names)


async def test_the_page_opens_in_a_browser_without_a_network(store: Path, tmp_path: Path) -> None:
    assert (
        run(
            PlotOptions(
                store=store, out=tmp_path / "chart.html", selection=Selection(instruments=(BTC,), timeframes=("15s",))
            )
        )
        == 0
    )
    async with tab((tmp_path / "chart.html").as_uri(), scheme="light") as opened:
        await opened.until("document.getElementById('chart').dataset.drawn === 'true'")
        await opened.screenshot(tmp_path / "plot-page.png")
        assert await opened.page.evaluate(CANDLES) == stored(store, Timeframe.S15).num_rows
        assert await opened.text("h1") == "BTC-USDT 15s"
        assert "of 40 candles" in await opened.text("header p")
        assert await opened.page.evaluate("performance.getEntriesByType('resource').length") == 0
        assert opened.complaints == []


def test_a_time_range_and_columns(store: Path, tmp_path: Path) -> None:
    told = ["--instrument", BTC, "--start", "2024-01-01T00:01", "--end", "2024-01-01T00:03", "--timeframe", "15s"]
    assert plot(store, tmp_path / "chart.html", *told, "--columns", "volume_delta,rsi_5+order_flow_imbalance") == 0
    data = figure(tmp_path / "chart.html")["data"]
    assert sum(len(trace["x"]) for trace in data if trace["type"] == "candlestick") == 8
    axes = {
        trace["name"]: trace["yaxis"] for trace in data if trace.get("name") in ("volume_delta", "order_flow_imbalance")
    }
    assert axes == {"volume_delta": "y4", "order_flow_imbalance": "y5"}


def test_a_chart_per_instrument_and_timeframe_and_what_is_missing_is_said(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "some").mkdir()
    told = ["--instrument", BTC, ETH, "--timeframes", "1m", "--max-candles", "10"]
    assert plot(store, tmp_path / "all", *told) == 0
    assert len(list((tmp_path / "all").iterdir())) == 4
    missing = "BINANCE:SPOT_PAIR:LTC-USDT"
    assert plot(store, tmp_path / "some", "--instrument", BTC, missing) == 3
    assert f"not drawn: no 1m candles of {missing}" in capsys.readouterr().out
    assert plot(store, tmp_path / "one.png", *told) == 2


def test_what_was_merged_is_said(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plot(store, tmp_path / "c.html", "--instrument", ETH, "--timeframe", "15s", "--max-candles", "10") == 0
    note = "40 candles of 15s are drawn as 10 of 1 min"
    assert note in capsys.readouterr().out
    assert note in (tmp_path / "c.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("told", "code", "answer"),
    [
        ([], 2, f"{BTC}  15s 1m"),
        (["--symbol", "LTCUSDT"], 1, f"{BTC}  15s 1m 5m 15m 1h 4h 24h  2024-01-01"),
        (["--instrument", BTC, "--start-date", "2023-01-01"], 1, "2024-01-01"),
        (["--instrument", BTC, "--start", "2024-01-01T05:00"], 1, "no candle opens from 2024-01-01 05:00"),
        (["--instrument", BTC, "--columns", "rsi_55"], 2, "did you mean rsi_5"),
        (["--instrument", BTC, "--timeframe", "7m"], 2, "15s 1m 5m"),
    ],
)
def test_what_cannot_be_drawn_is_answered_with_what_can(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], told: list[str], code: int, answer: str
) -> None:
    assert plot(store, tmp_path / "out", *told) == code
    assert answer in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_other_formats_and_empty_stores_are_refused(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plot(store, tmp_path / "chart.svg", "--instrument", BTC) == 2
    assert plot(tmp_path, tmp_path / "chart.png", "--instrument", BTC) == 1
    assert "processed_candles" in capsys.readouterr().err


def test_a_missing_library_is_named_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(NotInstalled, match=r"\[dashboard\]"):
        run(PlotOptions(store=tmp_path / "absent", out=tmp_path / "chart.png"))

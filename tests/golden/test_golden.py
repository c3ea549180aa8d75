"""The pipeline gives the verified values: candles of the golden trades, and the worked cases of quality."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from market_data_tick_handler.core import quality
from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.events import Gap, GapEnding, GapKind, Rows
from market_data_tick_handler.core.instruments import parse_instrument_key
from market_data_tick_handler.core.options import FeatureParameters, PipelineOptions
from market_data_tick_handler.core.parity import compare
from market_data_tick_handler.core.pipeline import Day, Pipeline
from market_data_tick_handler.core.quality import Span
from market_data_tick_handler.core.ticks import ID_INTEGER, ID_NONE, DataType, TickBatch
from market_data_tick_handler.core.timeframes import DAY_US, Timeframe, floor_us
from tests.parity.streams import last

HERE = Path(__file__).parent
PERPETUAL = parse_instrument_key("BINANCE-FUTURES:PERPETUAL:BTC-USDT")
CASES = json.loads((HERE / "quality_cases.json").read_text())
NAMES = list(quality.NAMES)
OPTIONS = PipelineOptions(timeframes=(Timeframe.S15, Timeframe.M1), groups=("ohlcv",))


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((HERE / "config.json").read_text())
    return loaded


@pytest.fixture(scope="module")
def chosen(settings: dict[str, Any]) -> PipelineOptions:
    parameters = FeatureParameters(
        vpin_bucket_volume=settings["vpin_bucket_volume"],
        vpin_buckets=settings["vpin_buckets"],
        large_trade_notional=settings["large_trade_notional"],
    )
    return PipelineOptions(
        grace_us=settings["grace_ms"] * 1_000,
        revision_window_us=settings["revision_window_s"] * 1_000_000,
        parameters=parameters,
    )


@pytest.fixture(scope="module")
def trades() -> TickBatch:
    with (HERE / "trades_10m.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    sides = {"buy": 1, "sell": -1}
    return TickBatch.build(
        DataType.TRADES,
        {
            "timestamp": [int(row["timestamp"] or 0) for row in rows],
            "local_timestamp": [int(row["local_timestamp"]) for row in rows],
            "id": [int(row["id"] or 0) for row in rows],
            "id_kind": [ID_INTEGER if row["id"] else ID_NONE for row in rows],
            "side": [sides.get(row["side"], 0) for row in rows],
            "price": [float(row["price"] or "nan") for row in rows],
            "amount": [float(row["amount"] or "nan") for row in rows],
        },
    )


@pytest.fixture(scope="module")
def live(
    trades: TickBatch, chosen: PipelineOptions, settings: dict[str, Any]
) -> tuple[Pipeline, dict[str, CandleBatch]]:
    """A live run and everything it published, revisions included."""
    pipeline = Pipeline(PERPETUAL, chosen)
    pipeline.feed(Rows(PERPETUAL.key, trades))
    pipeline.finish(settings["end"])
    assert pipeline.counters[DataType.TRADES].balanced()
    return pipeline, last(pipeline.outputs())


@pytest.mark.parametrize(("timeframe", "name"), [("15s", "15s"), ("1m", "60s"), ("5m", "300s")])
def test_last_revisions_are_the_expected_candles(
    live: tuple[Pipeline, dict[str, CandleBatch]], timeframe: str, name: str, tmp_path: Path
) -> None:
    final = {row["timestamp"]: row for row in live[1][timeframe].rows()}
    produced = tmp_path / f"{name}.csv"
    with produced.open("w", newline="") as file:
        writer = csv.DictWriter(file, next(iter(final.values())).keys())
        writer.writeheader()
        writer.writerows(final.values())
    expected = HERE / f"trades_10m_expected_{name}.csv"
    done = subprocess.run(
        [sys.executable, HERE / "compare.py", produced, expected], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("timeframe", [Timeframe.S15, Timeframe.M1])
def test_first_publications_are_what_batch_gives_for_the_rows_that_had_arrived(
    live: tuple[Pipeline, dict[str, CandleBatch]], trades: TickBatch, chosen: PipelineOptions, timeframe: Timeframe
) -> None:
    """Revision 0 of a candle == batch over the rows with local_timestamp < t1 + grace and the ledger of then."""
    pipeline, published = live[0], live[1][timeframe]
    day, one = Day(floor_us(int(trades["local_timestamp"][0]), DAY_US)), replace(chosen, timeframes=(timeframe,))
    compared = 0
    for index in np.flatnonzero(published["revision"] == 0)[:-1:3]:
        t1 = int(published["timestamp"][index]) + timeframe.us
        batch = Pipeline(PERPETUAL, one, day=day, gaps=pipeline.gaps[:1])
        stop = int(np.searchsorted(trades["local_timestamp"], t1 + chosen.grace_us, "left"))
        batch.feed(Rows(PERPETUAL.key, trades.slice(0, stop)))
        batch.finish_day(t1)
        rebuilt = last(batch.outputs())[timeframe]
        report = compare(published.slice(index, index + 1).columns, rebuilt.slice(-1, len(rebuilt)).columns)
        assert report.ok, (index, report.differences)
        compared += report.compared
    assert compared > 2


def gaps_of(case: list[dict[str, Any]], t0: int) -> list[Gap]:
    return [
        Gap(
            "", DataType.TRADES, t0 + gap["from_us"], t0 + gap["to_us"], "", GapKind(gap["kind"]),
            GapEnding.REPAIRED if gap["backfilled"] else GapEnding.OPEN,
        )  # fmt: skip
        for gap in case
    ]


@pytest.mark.parametrize("case", CASES["candles"], ids=lambda case: case["case"])
def test_quality_of_a_candle(case: dict[str, Any], settings: dict[str, Any]) -> None:
    t0, step = settings["t0"], case["timeframe_s"] * 1_000_000
    code, gap_ms = quality.judge(np.array([t0]), step, gaps_of(case["gaps"], t0), np.array([case["trade_count"] > 0]))
    assert_quality(case["expected"], NAMES[code[0]], gap_ms[0], quality.coverage(gap_ms, step)[0])


@pytest.mark.parametrize("case", CASES["candles"], ids=lambda case: case["case"])
def test_quality_of_a_candle_that_the_pipeline_builds(case: dict[str, Any], settings: dict[str, Any]) -> None:
    """As above through a day of history: trades in the candle before, so that the series has begun."""
    t0, step = settings["t0"] + 3_600_000_000, case["timeframe_s"] * 1_000_000
    stamped = np.array([t0 - 1, *(t0 + 1 + k for k in range(case["trade_count"]))])
    columns = {"timestamp": stamped, "local_timestamp": stamped, "price": stamped * 0 + 1, "amount": stamped * 0 + 1}
    pipeline = Pipeline(PERPETUAL, OPTIONS, day=Day(floor_us(t0, DAY_US)), gaps=gaps_of(case["gaps"], t0))
    pipeline.feed(Rows(PERPETUAL.key, TickBatch.build(DataType.TRADES, columns)))
    pipeline.finish_day(t0 + step)
    candles = next(batch for batch in pipeline.outputs() if batch.timeframe.us == step)
    row = {row["timestamp"]: row for row in candles.rows()}[t0]
    assert_quality(case["expected"], row["quality"], row["gap_ms"], row["coverage"])


@pytest.mark.parametrize("case", CASES["rollups"], ids=lambda case: case["case"])
def test_quality_of_a_candle_rolled_up_from_its_minutes(case: dict[str, Any], settings: dict[str, Any]) -> None:
    t0, minute = settings["t0"], 60_000_000
    opens = [t0 + index * minute for index in range(len(case["children"]))]
    gaps: list[Gap] = []
    for start, child in zip(opens, case["children"], strict=True):
        lost_ms = 60_000 if child is None else child["gap_ms"]
        if not lost_ms:
            continue
        kind = GapKind.NOT_RUNNING if child is None or child["quality"] == "PARTIAL" else GapKind.OUTAGE
        repaired = child is not None and child["quality"] == "REPAIRED"
        ending = GapEnding.REPAIRED if repaired else GapEnding.OPEN
        gaps.append(Gap("", DataType.TRADES, start, start + lost_ms * 1_000, "", kind, ending))
    there = [start for start, child in zip(opens, case["children"], strict=True) if child is not None]
    traded = any(child is not None and child["quality"] != "QUIET" for child in case["children"])
    span = Span(there[0], there[-1] + minute)
    code, gap_ms = quality.judge_parents(np.array([t0]), len(opens) * minute, gaps, np.array([traded]), span)
    coverage = quality.coverage(gap_ms, len(opens) * minute)
    assert_quality(case["expected"], NAMES[code[0]], gap_ms[0], coverage[0])


def assert_quality(expected: dict[str, Any], name: str, gap_ms: int, coverage: float) -> None:
    assert (name, int(gap_ms)) == (expected["quality"], expected["gap_ms"])
    assert coverage == pytest.approx(expected["coverage"], abs=1e-12)

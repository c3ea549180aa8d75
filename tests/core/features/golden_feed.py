"""The golden ticks of every type through one pipeline, judged by the comparison tool that came with them."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.options import FeatureParameters, PipelineOptions
from market_data_tick_handler.core.pipeline import Pipeline
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.storage.tardis_csv import read_tardis_csv
from tests.core.features.feeds import PERPETUAL
from tests.parity.streams import last

GOLDEN = Path(__file__).parents[2] / "golden"
SETTINGS: dict[str, Any] = json.loads((GOLDEN / "config.json").read_text())
_INPUTS = {
    DataType.BOOK: "book_10m.csv",
    DataType.DERIVATIVE: "derivative_ticker_10m.csv",
    DataType.LIQUIDATIONS: "liquidations_10m.csv",
    DataType.TRADES: "trades_10m.csv",
}
_GROUPS = ("ohlcv", "derivatives", "liquidations", "spread", "book_delays", "derivative_ratios", "book")
TIMEFRAMES = ((Timeframe.S15, "15s"), (Timeframe.M1, "60s"))


@cache
def candles(timeframe: Timeframe) -> tuple[dict[str, Any], ...]:
    """The last revisions of the candles of the golden ticks, in time order."""
    chosen = PipelineOptions(
        timeframes=(timeframe,),
        grace_us=SETTINGS["grace_ms"] * 1_000,
        revision_window_us=SETTINGS["revision_window_s"] * 1_000_000,
        groups=_GROUPS,
        parameters=FeatureParameters(funding_interval_s=SETTINGS["funding_interval_s"]),
    )
    events = [
        Rows(PERPETUAL.key, ticks.batch)
        for data_type, name in _INPUTS.items()
        for ticks in read_tardis_csv(GOLDEN / name, data_type=data_type)
    ]
    pipeline = Pipeline(PERPETUAL, chosen)
    pipeline.feed(events)
    pipeline.finish(SETTINGS["end"])
    assert all(counter.balanced() for counter in pipeline.counters.values())
    final = {row["timestamp"]: row for row in last(pipeline.outputs())[timeframe].rows()}
    return tuple(final[timestamp] for timestamp in sorted(final))


def assert_golden(name: str, timeframe: Timeframe, steps: str, folder: Path, columns: tuple[str, ...] = ()) -> None:
    """The candles are those of `{name}_10m_expected_{steps}.csv`, in `columns` or in all that the file has."""
    rows = candles(timeframe)
    produced = folder / "produced.csv"
    with produced.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    expected = GOLDEN / f"{name}_10m_expected_{steps}.csv"
    command = [sys.executable, str(GOLDEN / "compare.py"), str(produced), str(expected)]
    command += ["--columns", ",".join(columns)] if columns else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

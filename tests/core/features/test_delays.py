"""Delays in exact integers, worked by hand."""

from __future__ import annotations

from typing import Any

from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.pipeline import Pipeline
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.testing.ticks import START_US, trades
from tests.parity.streams import SPOT, options

S = 1_000_000


def candle(*delays_us: int) -> dict[str, Any]:
    """One 15 s candle whose trades all arrive a second in, stamped the given delays earlier; the last revision."""
    arrival = START_US + 5 * S
    rows = trades(
        [1.0] * len(delays_us), timestamps=[arrival - d for d in delays_us], local_timestamps=[arrival] * len(delays_us)
    )
    pipeline = Pipeline(SPOT, options(groups=("delays",), timeframes=(Timeframe.S15,)))
    pipeline.feed(Rows(SPOT.key, rows))
    pipeline.advance(START_US + 16 * S)
    return next(row for batch in pipeline.outputs() for row in batch.rows())


def test_statistics_are_in_milliseconds() -> None:
    row = candle(1_000, 4_000, 2_000, 5_500)
    assert (row["delay_min"], row["delay_max"], row["delay_mean"], row["delay_median"]) == (1.0, 5.5, 3.125, 3.0)
    assert (row["delay_p95"], row["delay_p99"]) == (5.5, 5.5)
    assert row["delay_std"] == (((1 - 3.125) ** 2 + 0.875**2 + 1.125**2 + 2.375**2) / 3) ** 0.5


def test_negative_delays_are_kept_and_counted() -> None:
    row = candle(-2_000, 1_000, 0)
    assert (row["delay_negative_count"], row["delay_min"], row["delay_median"]) == (1, -2.0, 0.0)


def test_one_delay_has_no_deviation() -> None:
    row = candle(7_000)
    assert row["delay_std"] is None
    assert {row[name] for name in ("delay_min", "delay_max", "delay_mean", "delay_median", "delay_p99")} == {7.0}


def test_nearest_ranks_are_observed_values() -> None:
    row = candle(*(1_000 * k for k in range(1, 101)))
    assert (row["delay_p95"], row["delay_p99"], row["delay_median"]) == (95.0, 99.0, 50.5)
    row = candle(*(1_000 * k for k in range(1, 21)))
    assert (row["delay_p95"], row["delay_p99"]) == (19.0, 20.0)

"""Sequence statistics, time integrals, the 1 s grid and VPIN, worked by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.features import flow
from market_data_tick_handler.core.features.contract import RunShape
from market_data_tick_handler.core.options import FeatureParameters
from market_data_tick_handler.core.parity import compare
from market_data_tick_handler.core.pipeline import Pipeline
from market_data_tick_handler.core.ticks import TickBatch
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.testing.ticks import START_US, trades
from tests.parity.streams import SPOT, last, options

S = 1_000_000
PARAMETERS = FeatureParameters(vpin_bucket_volume=10.0, vpin_buckets=2, large_trade_notional=100.0)


def candles(rows: TickBatch, until_s: int, parameters: FeatureParameters = PARAMETERS) -> list[dict[str, Any]]:
    pipeline = Pipeline(SPOT, options(groups=("flow",), timeframes=(Timeframe.S15,), parameters=parameters))
    pipeline.feed(Rows(SPOT.key, rows))
    pipeline.advance(START_US + (until_s + 1) * S)
    final = {row["timestamp"]: row for batch in pipeline.outputs() for row in batch.rows()}
    return [final[key] for key in sorted(final)]


def at(*seconds: float) -> list[int]:
    return [START_US + round(second * S) for second in seconds]


def test_the_time_weighted_price_counts_from_the_first_trade_and_carries_into_the_next_candle() -> None:
    rows = trades([10.0, 20.0, 40.0], timestamps=at(5, 10, 20), local_timestamps=at(5, 10, 20))
    first, second, third = candles(rows, 45)
    assert first["twap"] == (10 * 5 + 20 * 5) / 10
    assert second["twap"] == (20 * 5 + 40 * 10) / 15
    assert third["twap"] == 40.0


def test_a_late_trade_moves_the_last_price_when_it_arrives_less_grace() -> None:
    rows = trades([10.0, 30.0], timestamps=at(5, 6), local_timestamps=at(5, 20.5))
    first, second = candles(rows, 30)
    assert first["twap"] == 10.0
    assert second["twap"] == (10 * 5 + 30 * 10) / 15
    assert (first["late_trade_count"], first["trade_count"], first["size_max"]) == (1, 2, 1.0)


def test_grid_returns_see_prices_before_the_grid_point_and_belong_to_the_candle_that_ends_there() -> None:
    rows = trades([10.0, 20.0, 40.0], timestamps=at(0.5, 14.5, 15), local_timestamps=at(0.5, 14.5, 15))
    first, second = candles(rows, 30)
    step = math.log(2.0)
    assert first["rv_1s"] == first["rv_up_1s"] == step * step
    assert second["rv_1s"] == step * step
    assert second["bpv_1s"] == math.pi / 2 * step * step, "its predecessor is the last return of the candle before"
    assert (first["bpv_1s"], first["jump_1s"], second["jump_1s"]) == (0.0, step * step, 0.0)
    assert first["rq_1s"] == pytest.approx(5 * step**4, rel=1e-14)
    assert (first["rv_down_1s"], first["realized_vol"]) == (0.0, step)


def test_runs_restart_with_the_candle_but_switches_and_pairs_reach_back() -> None:
    signs, seconds = [1, 1, -1, -1, -1, 1], [1.0, 2.0, 3.0, 13.0, 16.0, 17.0]
    rows = trades([10.0] * 6, sides=signs, timestamps=at(*seconds), local_timestamps=at(*seconds))
    first, second = candles(rows, 30)
    assert (first["side_run_max"], first["side_switch_count"], first["sign_autocorr_1"]) == (2, 1, 1 / 3)
    assert (second["side_run_max"], second["side_switch_count"], second["sign_autocorr_1"]) == (1, 1, 0.0)


def test_the_very_first_trade_has_no_pair() -> None:
    row = candles(trades([10.0], step_us=S), 15)[0]
    for name in ("interarrival_mean_ms", "interarrival_median_ms", "interarrival_max_ms", "interarrival_std_ms",
                 "burstiness", "tick_imbalance", "sign_autocorr_1", "kyle_lambda", "hasbrouck_lambda", "roll_spread",
                 "size_std"):  # fmt: skip
        assert row[name] is None, name
    assert (row["tick_zero_count"], row["price_path_length"], row["rv_tick"], row["size_hhi"]) == (0, 0.0, 0.0, 1.0)


def test_impact_is_a_regression_through_the_origin() -> None:
    rows = trades([10.0, 12.0, 11.0], [5.0, 2.0, 4.0], sides=[1, 1, -1])
    row = candles(rows, 15)[0]
    assert row["kyle_lambda"] == (2 * 2 + 1 * 4) / (4 + 16)
    assert row["roll_spread"] == 2 * math.sqrt(2.0)
    assert (row["price_path_length"], row["tick_imbalance"]) == (3.0, 0.0)


def test_times_between_trades_follow_the_running_maximum_of_exchange_time() -> None:
    rows = trades([10.0] * 4, timestamps=at(1, 5, 3, 6), local_timestamps=at(6, 6, 6, 6))
    row = candles(rows, 15)[0]
    assert row["interarrival_mean_ms"] == pytest.approx(5_000 / 3)
    assert (row["interarrival_median_ms"], row["interarrival_max_ms"]) == (1_000.0, 4_000.0)
    assert row["out_of_order_count"] == 1


def test_large_trades_are_those_of_at_least_the_notional() -> None:
    row = candles(trades([10.0, 10.0, 10.0], [10.0, 9.999, 11.0]), 15)[0]
    assert (row["large_trade_count"], row["large_trade_volume"]) == (2, 21.0)


def test_vpin_splits_a_trade_over_buckets() -> None:
    """Buckets of 10: 8 buys and 2 of the sells, 10 sells, 3 sells still open: (|8-2| + 10) / 20."""
    rows = trades([10.0, 10.0], [8.0, 15.0], sides=[1, -1])
    assert candles(rows, 15)[0]["vpin"] == 0.8


def test_vpin_is_null_before_its_window_is_full_or_without_a_bucket_size() -> None:
    rows = trades([10.0], [19.9])
    assert candles(rows, 15)[0]["vpin"] is None
    assert candles(trades([10.0], [500.0]), 15, FeatureParameters())[0]["vpin"] is None


def test_a_bucket_that_decimals_fill_almost_is_full() -> None:
    rows = trades([10.0] * 200, [0.1] * 200, sides=[1] * 200, step_us=10_000)
    assert candles(rows, 15)[0]["vpin"] == pytest.approx(1.0, rel=1e-9)


def test_trades_of_no_side_fill_no_bucket() -> None:
    rows = trades([10.0] * 3, [20.0, 10.0, 10.0], sides=[0, 1, -1])
    assert candles(rows, 15)[0]["vpin"] == 1.0


@pytest.mark.parametrize("size", [1e3, 1e9, 1e15, 1e29])
def test_a_trade_of_any_size_fills_the_window_with_itself_in_no_time(size: float) -> None:
    assert candles(trades([10.0], [size]), 15)[0]["vpin"] == pytest.approx(1.0)


def test_a_day_without_trades_passes_at_once_and_keeps_the_price() -> None:
    pipeline = Pipeline(SPOT, options(groups=("flow",), timeframes=(Timeframe.H24,)))
    pipeline.feed(Rows(SPOT.key, trades([10.0], start_us=START_US)))
    pipeline.advance(START_US + 2 * 86_400 * S + S)
    rows = [row for batch in pipeline.outputs() for row in batch.rows()]
    assert [row["twap"] for row in rows] == [10.0, 10.0]


@pytest.mark.parametrize("seconds", [20, 120, 4_000])
def test_state_may_continue_in_a_ring_of_another_length(seconds: int) -> None:
    """A longer revision window after a restart: bins find their places, and nothing points into the old ring."""
    stamped = START_US + np.arange(0, 200 * S, S // 2)
    rows = trades(100 + np.arange(400) % 13, timestamps=stamped)
    chosen = options(groups=("flow", "delays"), timeframes=(Timeframe.S15, Timeframe.M1))
    other = options(**{**chosen_fields(chosen), "revision_window_us": seconds * S})
    plain, moved = Pipeline(SPOT, chosen), Pipeline(SPOT, chosen)
    for pipeline in (plain, moved):
        pipeline.feed(Rows(SPOT.key, rows.slice(0, 200)))
    again = Pipeline(SPOT, other)
    again.restore(moved.snapshot())
    again.restore_ids(moved.ids_snapshot())
    results = []
    for pipeline in (plain, again):
        pipeline.feed(Rows(SPOT.key, rows.slice(200, 400)))
        pipeline.advance(START_US + 300 * S)
        results.append(last(pipeline.outputs()))
    for timeframe, candles_ in results[0].items():
        report = compare(candles_.columns, results[1][timeframe].columns)
        assert report.ok, (timeframe, report.by_kind())


def chosen_fields(chosen: Any) -> dict[str, Any]:
    return {name: getattr(chosen, name) for name in ("groups", "timeframes", "parameters")}


def test_slots_of_the_clock_lie_in_the_ring_after_a_load() -> None:
    state = flow.GROUP.open(shape_of(40))
    state.carry["e_slot15"], state.carry["e_slot60"], state.carry["trades"] = 39, 39, 1
    state.carry["e_open15"] = state.carry["e_open60"] = START_US
    other = flow.GROUP.open(shape_of(7))
    other.load(state.state())
    assert 0 <= other.carry["e_slot15"][0] < 7 and 0 <= other.carry["e_slot60"][0] < 7


def shape_of(slots: int) -> RunShape:
    return RunShape(slots, slots, 500_000, 0, False, 1.0, PARAMETERS)

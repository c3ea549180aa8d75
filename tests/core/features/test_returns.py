"""Group returns: the formulas, on numbers small enough to check by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from market_data_tick_handler.core.features import returns
from market_data_tick_handler.core.features.contract import CANDLE

DAY_US = 86_400_000_000
STEP_US = 60_000_000


def candles(*rows: dict[str, float]) -> np.ndarray:
    """Consecutive candles; what a row leaves out is 1 minute later, 0 volumes and all prices 100."""
    out = np.zeros(len(rows), CANDLE)
    for index, row in enumerate(rows):
        prices = dict.fromkeys(("open", "high", "low", "close"), 100.0)
        for name, value in ({"timestamp": 20_000 * DAY_US + index * STEP_US} | prices | row).items():
            out[name][index] = value
    return out


def run(rows: np.ndarray) -> np.ndarray:
    memory, out = np.zeros(1, returns.MEMORY), np.empty(len(rows), returns.OUT)
    returns.GROUP.finish(memory, rows, STEP_US, out)
    return out


def test_returns_compare_with_the_previous_close() -> None:
    out = run(candles({"close": 100.0}, {"open": 101.0, "high": 110.0, "low": 99.0, "close": 104.0}))
    assert np.isnan([out[name][0] for name in ("close_to_close_return", "log_return", "gap_return")]).all()
    assert out["close_to_close_return"][1] == (104.0 - 100.0) / 100.0
    assert out["log_return"][1] == math.log(104.0 / 100.0)
    assert out["gap_return"][1] == (101.0 - 100.0) / 100.0
    assert out["open_to_close_return"][1] == (104.0 - 101.0) / 101.0


def test_geometry_is_relative_to_the_range() -> None:
    out = run(candles({"open": 101.0, "high": 110.0, "low": 90.0, "close": 105.0}))[0]
    assert out["high_low_ratio"] == 110.0 / 90.0
    assert out["close_location"] == pytest.approx(0.5)
    assert out["body_ratio"] == 0.2
    assert out["upper_wick_ratio"] == 0.25
    assert out["lower_wick_ratio"] == 0.55


def test_illiquidity_and_impact_are_per_million_of_quote_volume() -> None:
    out = run(candles({}, {"open": 100.0, "close": 101.0, "quote_volume": 2e6}))
    assert out["amihud_illiq"][1] == 1e6 * math.log(1.01) / 2e6
    assert out["price_impact"][1] == pytest.approx(0.005)


def test_without_volume_illiquidity_impact_and_flow_ratios_are_null() -> None:
    out = run(candles(*({} for _ in range(25))))[-1]
    for name in ("amihud_illiq", "price_impact", "order_flow_toxicity_20", "order_flow_imbalance_20"):
        assert np.isnan(out[name])


def test_cvd_starts_again_at_midnight() -> None:
    start = 20_000 * DAY_US - 2 * STEP_US
    rows = candles(*({"timestamp": start + i * STEP_US, "volume_delta": 1.5} for i in range(5)))
    assert run(rows)["cvd_session"].tolist() == [1.5, 3.0, 1.5, 3.0, 4.5]


def test_flow_ratios_divide_sums_over_the_window() -> None:
    rows = candles(*({"volume": 4.0, "buy_volume_sum": 3.0, "sell_volume_sum": 1.0} for _ in range(19)))
    last = candles({"volume": 5.0, "buy_volume_sum": 0.0, "sell_volume_sum": 4.0})
    out = run(np.concatenate([rows, last]))
    assert np.isnan(out["order_flow_imbalance_5"][3])
    assert out["order_flow_imbalance_5"][4] == 0.5
    assert out["order_flow_imbalance_5"][19] == (4 * 2.0 - 4.0) / 20.0
    assert np.isnan(out["order_flow_toxicity_20"][18])
    assert out["order_flow_toxicity_20"][19] == (19 * 2.0 + 4.0) / (19 * 4.0 + 5.0)

"""Group indicators: formulas on small numbers, seeding, sessions and contract units."""

from __future__ import annotations

import itertools
import math
import statistics

import numpy as np
import pytest

from market_data_tick_handler.core.features import indicators
from market_data_tick_handler.core.features.contract import CANDLE

DAY_US = 86_400_000_000
STEP_US = 60_000_000

# First candle (0 = the first of the series) with a value, where the inputs allow one (features.md 9.8).
FIRST = {
    **{"sma_5": 4, "sma_10": 9, "sma_20": 19, "ema_5": 4, "ema_10": 9, "ema_20": 19, "wma_5": 4},
    **{"price_momentum_3": 3, "price_momentum_5": 5, "price_momentum_10": 10, "price_momentum_20": 20},
    **{"price_velocity": 1, "price_acceleration": 2},
    **{"price_volatility_5": 5, "price_volatility_10": 10, "price_volatility_20": 20},
    **{"volume_sma_5": 4, "volume_sma_10": 9, "volume_sma_20": 19, "volume_ema_5": 4},
    **{"volume_ratio": 4, "volume_ratio_20": 19, "volume_momentum_5": 5, "volume_momentum_10": 10},
    **{"volume_volatility_5": 4, "volume_volatility_10": 9},
    **{"vwap_deviation": 0, "vwap_20": 19, "vwap_session": 0, "rsi_5": 5},
    **{f"bollinger_{part}": 19 for part in ("middle", "upper", "lower", "width", "position")},
    **{"macd": 25, "macd_signal": 33, "macd_histogram": 33, "ema_12": 11, "ema_26": 25},
    **{"roll_spread_bps_20": 21, "corwin_schultz_spread_bps_20": 20, "abdi_ranaldo_spread_bps_20": 20},
    **{"amihud_20": 20, "kyle_lambda_20": 20, "hasbrouck_lambda_20": 20},
}


def candles(closes: list[float], **columns: list[float]) -> np.ndarray:
    """Consecutive one-price candles of volume 1, half of it bought."""
    out = np.zeros(len(closes), CANDLE)
    out["timestamp"] = 20_000 * DAY_US + STEP_US * np.arange(len(closes))
    for name in ("open", "high", "low", "close", "price_vwap"):
        out[name] = closes
    for name in ("volume", "vwap_base_volume"):
        out[name] = 1.0
    out["quote_volume"] = closes
    for name, values in columns.items():
        out[name] = values
    return out


def run(rows: np.ndarray, step_us: int = STEP_US) -> np.ndarray:
    memory, out = np.zeros(1, indicators.MEMORY), np.empty(len(rows), indicators.OUT)
    indicators.GROUP.finish(memory, rows, step_us, out)
    return out


def wave(size: int) -> list[float]:
    return [100.0 + 3.0 * math.sin(i) + 0.1 * i for i in range(size)]


def test_there_are_46_columns_and_each_starts_where_the_specification_says() -> None:
    rows = candles(wave(60), volume_delta=wave(60)[::-1], signed_sqrt_notional=wave(60)[::-1])
    out = run(rows)
    assert set(FIRST) == set(indicators.OUT.names or ())
    assert len(FIRST) == 46
    starts = {name: int(np.flatnonzero(~np.isnan(out[name]))[0]) for name in FIRST}
    assert starts == FIRST
    assert all(not np.isnan(out[name][first:]).any() for name, first in FIRST.items())


def test_averages_of_five() -> None:
    out = run(candles([1.0, 2.0, 3.0, 4.0, 5.0, 7.0]))
    assert out["sma_5"][4:].tolist() == [3.0, 21.0 / 5]
    assert out["wma_5"][4] == (1 + 4 + 9 + 16 + 25) / 15
    assert out["ema_5"][4:].tolist() == [3.0, 3.0 + 2.0 / 6.0 * (7.0 - 3.0)]


def test_velocity_is_per_second_of_the_timeframe() -> None:
    out = run(candles([100.0, 103.0, 112.0]), step_us=3_000_000)
    assert out["price_velocity"][1:].tolist() == [1.0, 3.0]
    assert out["price_acceleration"][2] == pytest.approx(2.0 / 3.0)


def test_volatility_is_the_sample_deviation_of_log_returns_and_bollinger_the_population_one_of_closes() -> None:
    closes = wave(25)
    out = run(candles(closes))[-1]
    moves = [math.log(b / a) for a, b in itertools.pairwise(closes)]
    assert out["price_volatility_10"] == pytest.approx(statistics.stdev(moves[-10:]), rel=1e-12)
    sigma = statistics.pstdev(closes[-20:])
    assert out["bollinger_upper"] - out["bollinger_middle"] == pytest.approx(2 * sigma, rel=1e-12)
    assert out["bollinger_position"] == pytest.approx((closes[-1] - out["bollinger_lower"]) / (4 * sigma), rel=1e-12)


def test_macd_is_the_difference_of_the_published_averages() -> None:
    out = run(candles(wave(80)))
    assert (out["macd"][25:] == out["ema_12"][25:] - out["ema_26"][25:]).all()
    assert out["macd_signal"][33] == pytest.approx(out["macd"][25:34].mean(), rel=1e-12)
    assert (out["macd_histogram"][33:] == out["macd"][33:] - out["macd_signal"][33:]).all()


@pytest.mark.parametrize(("step", "expected"), [(1.0, 100.0), (-1.0, 0.0), (0.0, 50.0)])
def test_rsi_of_a_market_that_only_rises_falls_or_rests(step: float, expected: float) -> None:
    assert run(candles([500.0 + step * i for i in range(30)]))["rsi_5"][-1] == expected


def test_session_vwap_starts_again_at_midnight() -> None:
    rows = candles([10.0, 20.0, 30.0, 50.0])
    rows["timestamp"] += DAY_US - 2 * STEP_US
    assert run(rows)["vwap_session"].tolist() == [10.0, 15.0, 30.0, 40.0]


def test_vwaps_divide_by_base_units_not_by_contracts() -> None:
    """An inverse contract: volume counts contracts of 100 quote each."""
    closes = wave(20)
    notional = [100.0] * 20
    rows = candles(closes, volume=[1.0] * 20, quote_volume=notional, vwap_base_volume=[100.0 / c for c in closes])
    harmonic = statistics.harmonic_mean(closes)
    out = run(rows)[-1]
    assert out["vwap_20"] == pytest.approx(harmonic, rel=1e-12)
    assert out["vwap_session"] == pytest.approx(harmonic, rel=1e-12)


def test_amihud_skips_candles_without_volume() -> None:
    quote = [1e6] * 21
    quote[5] = 0.0
    closes = wave(21)
    expected = [math.log(closes[i] / closes[i - 1]) for i in range(1, 21) if i != 5]
    out = run(candles(closes, quote_volume=quote))
    assert out["amihud_20"][20] == pytest.approx(statistics.fmean(abs(x) for x in expected), rel=1e-12)


def test_kyle_lambda_finds_the_slope_it_was_given_and_is_null_without_flow() -> None:
    delta = [math.cos(i * i) for i in range(40)]
    closes = [100.0]
    for value in delta[1:]:
        closes.append(closes[-1] + 0.25 * value + 0.01)
    assert run(candles(closes, volume_delta=delta))["kyle_lambda_20"][-1] == pytest.approx(0.25, rel=1e-9)
    assert np.isnan(run(candles(closes, volume_delta=[0.1] * 40))["kyle_lambda_20"][-1])


def test_roll_spread_of_a_bid_ask_bounce_and_of_a_trend() -> None:
    bounce = [100.0 + (0.05 if i % 2 else -0.05) for i in range(40)]
    assert run(candles(bounce))["roll_spread_bps_20"][-1] == pytest.approx(20.0, rel=0.1)
    assert run(candles([100.0 * 1.01**i for i in range(40)]))["roll_spread_bps_20"][-1] == pytest.approx(0.0, abs=1e-3)

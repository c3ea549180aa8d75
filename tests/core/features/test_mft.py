"""Group mft: golden values, a plain reference of every column, seeding, neutral values and inputs it lacks."""

from __future__ import annotations

import csv
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market_data_tick_handler.calculator import HFTFeatureCalculator
from market_data_tick_handler.core.features import mft
from market_data_tick_handler.core.features.contract import CANDLE
from market_data_tick_handler.errors import ConfigError
from tests.core.features.mft_reference import windowed
from tests.core.features.test_candle_groups import MIDNIGHT_US, MINUTE_US, flat_candles, golden_candles, random_candles
from tests.core.features.test_candle_groups import run as run_group

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
INPUTS = ("rv_1s", "jump_1s", "funding_rate", "basis_bps_tw")
# Not in the golden bars, which have no ticks and no derivative feed.
NOT_GOLDEN = {"realized_vol_60", "jump_ratio_60", "funding_zscore_60", "basis_zscore_60"}
RECURSIVE = {"ema_50", "ema_200", "rsi_14", "atr_14", "natr_14", "plus_di_14", "minus_di_14", "adx_14"}

FIRST = {
    **{"sma_50": 49, "ema_50": 49, "sma_200": 199, "ema_200": 199, "rsi_14": 14, "true_range": 1, "atr_14": 14},
    **{"natr_14": 14, "plus_di_14": 14, "minus_di_14": 14, "adx_14": 27, "stoch_k_14": 13, "stoch_d_3": 15},
    **{f"donchian_{part}_20": 19 for part in ("high", "low", "mid", "position")},
    **{"williams_r_14": 13, "cci_20": 19, "mfi_14": 14, "obv_session": 0, "cmf_20": 19},
    **{"aroon_up_25": 25, "aroon_down_25": 25, "efficiency_ratio_10": 10},
    **dict.fromkeys(("linreg_slope_20", "linreg_r2_20", "price_zscore_20", "volume_zscore_20"), 19),
    **{f"{name}_vol_20": 19 for name in ("parkinson", "garman_klass", "rogers_satchell")},
    **{"yang_zhang_vol_20": 20, "return_skew_60": 60, "return_kurt_60": 60, "return_autocorr_1_60": 60},
    **{"return_autocorr_5_60": 60, "variance_ratio_5_60": 60, "hurst_128": 128, "max_drawdown_60": 59},
    **{"realized_vol_60": 59, "jump_ratio_60": 59, "funding_zscore_60": 59, "basis_zscore_60": 59},
}


def candles_of(seed: int, size: int) -> np.ndarray:
    """Random candles with the inputs that come from the trade grid and the derivative feed."""
    candles = random_candles(seed, size)
    random = np.random.default_rng(seed + 1)
    candles["rv_1s"] = random.lognormal(-12.0, 1.0, size) * (random.random(size) > 0.1)
    candles["jump_1s"] = candles["rv_1s"] * random.random(size)
    candles["funding_rate"] = 1e-4 + 1e-6 * np.round(np.cumsum(random.normal(size=size)))
    candles["basis_bps_tw"] = random.normal(3.0, 1.0, size)
    return candles


def run(candles: np.ndarray, splits: tuple[int, ...] = ()) -> np.ndarray:
    return run_group(mft.GROUP, candles, splits)[0]


@pytest.mark.parametrize(
    ("bars", "expected"),
    [("bars_200.csv", "bars_200_expected.csv"), ("bars_edge_60.csv", "bars_edge_60_expected_reference.csv")],
)
def test_columns_equal_the_golden_values(bars: str, expected: str, tmp_path: Path) -> None:
    candles = golden_candles(bars)
    out = run(candles)
    with (GOLDEN / expected).open(newline="") as file:
        wanted = csv.DictReader(file).fieldnames or []
    names = [name for name in mft.COLUMNS if name in wanted]
    assert set(mft.COLUMNS) - set(names) == NOT_GOLDEN
    produced = tmp_path / "produced.csv"
    with produced.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["timestamp", *names])
        for time, row in zip(candles["timestamp"].tolist(), out, strict=True):
            values = [row[name].item() for name in names]
            writer.writerow([time, *("" if value != value else repr(value) for value in values)])
    command = [sys.executable, str(GOLDEN / "compare.py"), str(produced), str(GOLDEN / expected)]
    command += ["--columns", ",".join(names), "--spec", str(GOLDEN / "features.csv")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_there_are_44_columns_and_each_starts_where_the_specification_says() -> None:
    candles = candles_of(1, 260)
    for field in ("high", "volume", "rv_1s"):
        candles[field] += 0.5
    out = run(candles)
    assert set(FIRST) == set(mft.COLUMNS)
    assert len(mft.COLUMNS) == 44
    starts = {name: int(np.flatnonzero(~np.isnan(out[name]))[0]) for name in FIRST}
    assert starts == FIRST
    assert all(not np.isnan(out[name][first:]).any() for name, first in FIRST.items())


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 700), st.lists(st.integers(1, 699), max_size=12), st.booleans())
def test_any_split_of_a_random_stream_equals_the_batch_bit_for_bit(
    seed: int, size: int, cuts: list[int], has_inputs: bool
) -> None:
    candles = candles_of(seed, size)
    if not has_inputs:
        for field in INPUTS:
            candles[field] = np.nan
    splits = tuple(sorted({cut for cut in cuts if cut < size}))
    whole = run(candles)
    assert whole.tobytes() == run(candles, splits).tobytes()
    assert not np.isinf(whole.view(np.float64)).any()


def test_golden_bars_one_by_one_equal_the_batch_bit_for_bit() -> None:
    candles = golden_candles("bars_200.csv")
    assert run(candles).tobytes() == run(candles, tuple(range(1, 200))).tobytes()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(200, 330))
def test_columns_with_a_window_equal_a_plain_computation(seed: int, size: int) -> None:
    rows = candles_of(seed, size)
    expected, out = windowed(rows), run(rows)[-1]
    assert set(expected) == set(mft.COLUMNS) - RECURSIVE - {"obv_session"}
    for name, value in expected.items():
        assert float(out[name]) == pytest.approx(value, rel=1e-7, abs=1e-9, nan_ok=True), name


def test_recursive_columns_equal_wilders_own_words() -> None:
    rows = golden_candles("bars_200.csv")
    out, tr = run(rows), [0.0]
    h, lo, c = (rows[name].tolist() for name in ("high", "low", "close"))
    tr += [max(h[i] - lo[i], abs(h[i] - c[i - 1]), abs(lo[i] - c[i - 1])) for i in range(1, 200)]
    atr = statistics.fmean(tr[1:15])
    for i in range(15, 200):
        atr = (atr * 13 + tr[i]) / 14
    assert out["atr_14"][-1] == pytest.approx(atr, rel=1e-12)
    assert out["natr_14"][-1] == pytest.approx(100 * atr / c[-1], rel=1e-12)
    ema = statistics.fmean(c[:50])
    for value in c[50:]:
        ema += 2 / 51 * (value - ema)
    assert out["ema_50"][-1] == pytest.approx(ema, rel=1e-13)


@pytest.mark.parametrize("price", [0.1, 42_000.12, 3e-7])
def test_a_flat_market_reads_neutral(price: float) -> None:
    rows = flat_candles(300, price)
    for field in INPUTS:
        rows[field] = 0.25
    out = run(rows)[-1]
    neutral = {"rsi_14": 50.0, "stoch_k_14": 50.0, "stoch_d_3": 50.0, "mfi_14": 50.0, "williams_r_14": -50.0}
    neutral |= {"donchian_position_20": 0.5, "efficiency_ratio_10": 0.0, "cci_20": 0.0, "max_drawdown_60": 0.0}
    neutral |= {"plus_di_14": 0.0, "minus_di_14": 0.0, "adx_14": 0.0, "true_range": 0.0, "atr_14": 0.0, "natr_14": 0.0}
    neutral |= {"sma_50": price, "sma_200": price, "ema_50": price, "ema_200": price, "linreg_slope_20": 0.0}
    neutral |= {f"{name}_vol_20": 0.0 for name in ("parkinson", "garman_klass", "rogers_satchell", "yang_zhang")}
    neutral |= {"aroon_up_25": 100.0, "aroon_down_25": 100.0, "obv_session": 0.0}
    assert {name: float(out[name]) for name in neutral} == neutral
    null = {"linreg_r2_20", "price_zscore_20", "volume_zscore_20", "cmf_20", "return_skew_60", "return_kurt_60"}
    null |= {"return_autocorr_1_60", "return_autocorr_5_60", "variance_ratio_5_60", "hurst_128"}
    null |= {"funding_zscore_60", "basis_zscore_60"}
    assert {name for name in mft.COLUMNS if np.isnan(out[name])} == null


def test_a_market_that_moved_and_then_rests_for_weeks_has_no_direction() -> None:
    """Wilder's sums fade into denormal numbers, whose quotients mean nothing."""
    rows = flat_candles(30_000, 100.0)
    rows["high"][100:200] += np.linspace(1.0, 7.0, 100)
    out = run(rows)
    assert 0.0 < out["plus_di_14"][400] <= 100.0
    assert set(out["plus_di_14"][-5:]) == {0.0}
    assert set(out["minus_di_14"][-5:]) == {0.0}


def test_on_balance_volume_begins_at_0_and_again_at_midnight() -> None:
    rows = np.zeros(6, CANDLE)
    rows["timestamp"] = MIDNIGHT_US + MINUTE_US * np.arange(-3, 3)
    for field in ("open", "high", "low", "close"):
        rows[field] = [10.0, 11.0, 9.0, 9.5, 9.5, 9.0]
    rows["volume"] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
    assert run(rows)["obv_session"].tolist() == [0.0, 2.0, -2.0, 8.0, 8.0, -24.0]


def test_aroon_counts_from_the_latest_of_equal_extremes() -> None:
    rows = flat_candles(40, 100.0)
    rows["high"][[12, 20]] = 101.0
    assert run(rows)["aroon_up_25"][[30, 37, 39]].tolist() == [60.0, 32.0, 24.0]


def test_without_their_feed_the_columns_of_derivatives_and_of_the_grid_are_null_and_the_others_the_same() -> None:
    rows = candles_of(8, 200)
    without = rows.copy()
    for field in INPUTS:
        without[field] = np.nan
    full, bare = run(rows), run(without)
    for name in mft.COLUMNS:
        if name in NOT_GOLDEN:
            assert np.isnan(bare[name]).all()
        else:
            assert full[name].tobytes() == bare[name].tobytes()


def test_one_null_in_the_window_makes_the_z_score_null() -> None:
    rows = candles_of(8, 200)
    rows["funding_rate"][100] = np.nan
    known = ~np.isnan(run(rows)["funding_zscore_60"])
    assert np.flatnonzero(known).tolist() == [*range(59, 100), *range(160, 200)]


def test_a_print_of_1e12_leaves_the_windows_without_a_trace() -> None:
    rows = candles_of(1, 1_000)
    for field in ("high", "close", "volume", "rv_1s", "basis_bps_tw"):
        rows[field][100] = 1e12
    late = int((-(rows["timestamp"][400] - MIDNIGHT_US) // MINUTE_US) % 1440) % 100 + 400
    early, fresh = run(rows)[late:], run(rows[late:])
    for name in set(mft.COLUMNS) - RECURSIVE - {"obv_session"}:
        assert early[name][200:].tobytes() == fresh[name][200:].tobytes(), name


@pytest.mark.parametrize("price", [1e-300, 1e300])
def test_what_overflows_is_null(price: float) -> None:
    rows = candles_of(3, 300)
    for field in ("open", "high", "low", "close"):
        rows[field][140] = price
    assert not np.isinf(run(rows).view(np.float64)).any()


def test_the_calculator_computes_the_group_when_asked() -> None:
    rows = golden_candles("bars_200.csv")
    calculator = HFTFeatureCalculator("BTC-USDT", groups=("mft", "indicators"))
    assert calculator.groups == ("indicators", "mft")
    assert calculator.columns[-44:] == mft.COLUMNS
    bars = {name: rows[name] for name in ("timestamp", "open", "high", "low", "close", "volume")}
    whole = calculator.batch(bars)
    restored = HFTFeatureCalculator("BTC-USDT", groups=calculator.groups)
    for i in range(200):
        features = calculator.update({name: column[i].item() for name, column in bars.items()})
        if i == 120:
            restored.restore(calculator.snapshot())
            calculator = restored
        assert features["cci_20"] == pytest.approx(whole["cci_20"][i], abs=0.0, nan_ok=True) or i < 19
    assert features["adx_14"] == whole["adx_14"][-1] == run(rows)["adx_14"][-1]
    with pytest.raises(ConfigError, match="15s"):
        HFTFeatureCalculator("BTC-USDT", "15s", groups=("mft",))
    with pytest.raises(ConfigError, match="flow"):
        HFTFeatureCalculator("BTC-USDT", groups=("flow",))

"""Every candle group: golden values, one evaluation order, restarts, nulls and bad prints."""

from __future__ import annotations

import csv
import itertools
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_data_tick_handler.core.features import indicators, returns
from market_data_tick_handler.core.features.contract import CANDLE, CandleGroup

GROUPS = [returns.GROUP, indicators.GROUP]
MINUTE_US = 60_000_000
MIDNIGHT_US = 1_704_067_200_000_000
GOLDEN = Path(__file__).resolve().parents[2] / "golden"
FLOW = ("quote_volume", "price_vwap", "buy_volume_sum", "sell_volume_sum", "volume_delta", "signed_sqrt_notional")

# Columns that never forget, so that a late start differs from an early one; all others have a window.
RECURSIVE = {"ema_5", "ema_10", "ema_20", "ema_12", "ema_26", "volume_ema_5", "rsi_5"}
RECURSIVE |= {"macd", "macd_signal", "macd_histogram"}


def run(group: CandleGroup, candles: np.ndarray, splits: tuple[int, ...] = ()) -> tuple[np.ndarray, bytes]:
    """Columns and final memory of `candles`, fed in the pieces that `splits` cut."""
    memory, out = np.zeros(1, group.MEMORY), np.empty(len(candles), group.OUT)
    edges = [0, *splits, len(candles)]
    for start, stop in itertools.pairwise(edges):
        group.finish(memory, candles[start:stop], MINUTE_US, out[start:stop])
    return out, memory.tobytes()


def golden_candles(name: str) -> np.ndarray:
    with (GOLDEN / name).open(newline="") as file:
        rows = list(csv.DictReader(file))
    candles = np.zeros(len(rows), CANDLE)
    candles["timestamp"] = [int(datetime.fromisoformat(row["timestamp"]).timestamp()) * 1_000_000 for row in rows]
    for field in set(rows[0]) - {"timestamp"}:
        candles[field] = [float(row[field]) for row in rows]
    candles["volume_delta"] = candles["buy_volume_sum"] - candles["sell_volume_sum"]
    candles["vwap_base_volume"] = candles["volume"]
    traded = candles["volume"] > 0
    candles["price_vwap"] = np.nan
    candles["price_vwap"][traded] = candles["quote_volume"][traded] / candles["volume"][traded]
    return candles


def random_candles(seed: int, size: int) -> np.ndarray:
    """A random walk with fillers, flat stretches, equal prices and one-trade candles."""
    random = np.random.default_rng(seed)
    candles = np.zeros(size, CANDLE)
    candles["timestamp"] = MIDNIGHT_US + MINUTE_US * (np.arange(size) + random.integers(0, 1440))
    quiet = random.random(size) < random.choice([0.0, 0.2, 0.9])
    steps = np.where(quiet, 0.0, np.round(random.normal(0.0, 5.0, size), 1))
    close = 40_000.0 + np.cumsum(steps)
    candles["close"] = close
    candles["open"] = np.concatenate([close[:1], close[:-1]])
    spread = np.where(quiet, 0.0, np.round(random.random(size) * 4, 1))
    candles["high"] = np.maximum(candles["open"], close) + spread
    candles["low"] = np.minimum(candles["open"], close) - spread
    volume = np.where(quiet, 0.0, np.round(random.lognormal(size=size), 3))
    buy = np.round(volume * random.random(size), 3)
    candles["volume"] = candles["vwap_base_volume"] = volume
    candles["buy_volume_sum"], candles["sell_volume_sum"] = buy, volume - buy
    candles["volume_delta"] = candles["buy_volume_sum"] - candles["sell_volume_sum"]
    candles["quote_volume"] = volume * (close + spread / 3)
    candles["price_vwap"] = np.where(volume > 0, close + spread / 3, np.nan)
    candles["signed_sqrt_notional"] = np.where(quiet, 0.0, random.normal(size=size))
    candles["trade_count"] = volume > 0
    return candles


def flat_candles(size: int, price: float) -> np.ndarray:
    candles = random_candles(0, size)
    for field in ("open", "high", "low", "close"):
        candles[field] = price
    for field in ("volume", "vwap_base_volume", *FLOW):
        candles[field] = np.nan if field == "price_vwap" else 0.0
    return candles


@pytest.mark.parametrize(
    ("bars", "expected"),
    [
        ("bars_200.csv", "bars_200_expected.csv"),
        ("bars_edge_60.csv", "bars_edge_60_expected_reference.csv"),
    ],
)
def test_columns_equal_the_golden_values(bars: str, expected: str, tmp_path: Path) -> None:
    candles = golden_candles(bars)
    columns = {
        name: out[name] for group in GROUPS for out in [run(group, candles)[0]] for name in group.OUT.names or ()
    }
    with (GOLDEN / expected).open(newline="") as file:
        wanted = csv.DictReader(file).fieldnames or []
    names = [name for name in columns if name in wanted]
    # Golden for these two are in the trade files, which need the tick groups.
    assert set(columns) - set(names) == {"cvd_session", "price_impact"}
    produced = tmp_path / "produced.csv"
    with produced.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["timestamp", *names])
        for i, time in enumerate(candles["timestamp"].tolist()):
            values = [columns[name][i].item() for name in names]
            writer.writerow([time, *("" if value != value else repr(value) for value in values)])
    command = [sys.executable, str(GOLDEN / "compare.py"), str(produced), str(GOLDEN / expected)]
    command += ["--columns", ",".join(names)]
    if (GOLDEN / "features.csv").exists():
        command += ["--spec", str(GOLDEN / "features.csv")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("seconds", [15, 60, 300])
def test_session_delta_and_impact_equal_the_golden_trade_candles(seconds: int) -> None:
    with (GOLDEN / f"trades_10m_expected_{seconds}s.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    candles = np.zeros(len(rows), CANDLE)
    for field in ("timestamp", "open", "high", "low", "close", "volume", "quote_volume", "volume_delta"):
        candles[field] = [float(row[field]) for row in rows]
    out, _ = run(returns.GROUP, candles)
    for name, tolerance in (("cvd_session", 1e-9), ("price_impact", 1e-12)):
        expected = np.array([float(row[name] or "nan") for row in rows])
        np.testing.assert_allclose(out[name], expected, rtol=1e-9, atol=tolerance)


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
@pytest.mark.parametrize("bars", ["bars_200.csv", "bars_edge_60.csv"])
def test_golden_bars_one_by_one_equal_the_batch_bit_for_bit(group: CandleGroup, bars: str) -> None:
    candles = golden_candles(bars)
    whole, whole_memory = run(group, candles)
    single, single_memory = run(group, candles, tuple(range(1, len(candles))))
    assert whole.tobytes() == single.tobytes()
    assert whole_memory == single_memory


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
@given(st.integers(0, 2**32), st.integers(1, 700), st.lists(st.integers(1, 699), max_size=12), st.booleans())
def test_any_split_of_a_random_stream_equals_the_batch_bit_for_bit(
    group: CandleGroup, seed: int, size: int, cuts: list[int], has_flow: bool
) -> None:
    candles = random_candles(seed, size)
    if not has_flow:
        for field in FLOW:
            candles[field] = np.nan
    splits = tuple(sorted({cut for cut in cuts if cut < size}))
    whole, whole_memory = run(group, candles)
    pieces, pieces_memory = run(group, candles, splits)
    assert whole.tobytes() == pieces.tobytes()
    assert np.array_equal(np.frombuffer(whole_memory), np.frombuffer(pieces_memory), equal_nan=True)
    assert not np.isinf(whole.view(np.float64)).any()


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_memory_survives_its_bytes(group: CandleGroup) -> None:
    candles = random_candles(5, 120)
    expected, _ = run(group, candles)
    memory, out = np.zeros(1, group.MEMORY), np.empty(120, group.OUT)
    for i in range(120):
        memory = np.frombuffer(memory.tobytes(), group.MEMORY).copy()
        group.finish(memory, candles[i : i + 1], MINUTE_US, out[i : i + 1])
    assert out.tobytes() == expected.tobytes()


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_a_candle_depends_on_no_later_one(group: CandleGroup) -> None:
    candles = random_candles(9, 300)
    whole, _ = run(group, candles)
    for size in (1, 21, 22, 255, 256, 257):
        assert run(group, candles[:size])[0].tobytes() == whole[:size].tobytes()


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_columns_without_flow_are_null_only_where_flow_is_needed(group: CandleGroup) -> None:
    candles = golden_candles("bars_200.csv")
    without = candles.copy()
    for field in FLOW:
        without[field] = np.nan
    full, bare = run(group, candles)[0], run(group, without)[0]
    null = {name for name in group.OUT.names or () if np.isnan(bare[name]).all()}
    needs_flow = {"cvd_session", "amihud_illiq", "price_impact", "order_flow_toxicity_20"}
    needs_flow |= {f"order_flow_imbalance_{width}" for width in (5, 10, 20)}
    needs_flow |= {"vwap_deviation", "vwap_20", "vwap_session", "amihud_20", "kyle_lambda_20", "hasbrouck_lambda_20"}
    assert null == needs_flow & set(group.OUT.names or ())
    for name in set(group.OUT.names or ()) - null:
        assert full[name].tobytes() == bare[name].tobytes(), name


@pytest.mark.parametrize("price", [0.1, 42_000.12, 3e-7])
def test_a_flat_market_reads_neutral(price: float) -> None:
    out = run(indicators.GROUP, flat_candles(300, price))[0][-1]
    neutral = {"rsi_5": 50.0, "bollinger_position": 0.5, "bollinger_width": 0.0, "macd": 0.0, "macd_histogram": 0.0}
    neutral |= {f"price_volatility_{width}": 0.0 for width in (5, 10, 20)}
    neutral |= {f"price_momentum_{lag}": 0.0 for lag in (3, 5, 10, 20)}
    neutral |= {"sma_20": price, "ema_26": price, "roll_spread_bps_20": 0.0, "corwin_schultz_spread_bps_20": 0.0}
    assert {name: float(out[name]) for name in neutral} == neutral
    null = {"volume_ratio", "volume_momentum_5", "vwap_20", "vwap_session", "amihud_20", "kyle_lambda_20"}
    assert all(np.isnan(out[name]) for name in null)
    geometry = run(returns.GROUP, flat_candles(30, price))[0][-1]
    assert (geometry["close_location"], geometry["body_ratio"], geometry["high_low_ratio"]) == (0.0, 0.0, 1.0)
    assert np.isnan(geometry["order_flow_imbalance_5"])


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_a_print_of_1e12_leaves_the_windows_without_a_trace(group: CandleGroup) -> None:
    size, bad = 200_000, 1_000
    candles = random_candles(1, size)
    for field in ("high", "close", "volume", "quote_volume", "buy_volume_sum", "volume_delta"):
        candles[field][bad] = 1e12
    late = size - size % 1440 - 1440
    late += int((-(candles["timestamp"][late] - MIDNIGHT_US) // MINUTE_US) % 1440)
    names = [name for name in group.OUT.names or () if name not in RECURSIVE]
    early, fresh = run(group, candles)[0][late:], run(group, candles[late:])[0]
    for name in names:
        assert early[name][22:].tobytes() == fresh[name][22:].tobytes(), name
    after = early.view(np.float64)
    assert np.isfinite(after[~np.isnan(after)]).all()


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
@pytest.mark.parametrize("price", [1e-300, 1e300])
def test_what_overflows_is_null(group: CandleGroup, price: float) -> None:
    candles = random_candles(3, 80)
    for field in ("open", "high", "low", "close"):
        candles[field][40] = price
    values = run(group, candles)[0].view(np.float64)
    assert not np.isinf(values).any()

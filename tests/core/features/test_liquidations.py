"""Liquidation columns: verified values, live == batch, an independent reference, and what is null when."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market_data_tick_handler.core.instruments import InstrumentDefinition
from market_data_tick_handler.core.options import FeatureParameters, PipelineOptions
from market_data_tick_handler.core.schemas import candles_to_arrow
from market_data_tick_handler.core.ticks import DataType, TickBatch
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.testing.ticks import START_US, derivative_tickers, liquidations, trades
from tests.core.features.feeds import PERPETUAL, Feed, assert_parity, assert_same, batched, bounds, replayed, scenario
from tests.core.features.golden_feed import TIMEFRAMES, assert_golden
from tests.core.features.slow import GRACE_US, Row, accepted, effective, finished, same
from tests.parity.streams import INVERSE, SPOT

S = 1_000_000
MINUTE = 60 * S
OPTIONS = PipelineOptions(groups=("ohlcv", "liquidations"))


@pytest.mark.parametrize(("timeframe", "steps"), TIMEFRAMES)
def test_golden(timeframe: Timeframe, steps: str, tmp_path: Path) -> None:
    assert_golden("liquidations", timeframe, steps, tmp_path)


@settings(max_examples=12)
@given(seed=st.integers(0, 2**32 - 1))
def test_live_equals_replay_equals_batch(seed: int) -> None:
    assert_parity(seed, "liquidations")


def change(ticker: list[Row], t0: int, t1: int) -> float | None:
    """Open interest at t1 less that at t0."""
    ends: list[float] = []
    for time_us in (t1, t0):
        known = [row["open_interest"] for row in ticker if row["e"] < time_us and math.isfinite(row["open_interest"])]
        if not known:
            return None
        ends.append(known[-1])
    return ends[0] - ends[1]


def late(rows: list[Row], step_us: int) -> int:
    t1s = ((row, row["timestamp"] // step_us * step_us + step_us) for row in rows)
    return sum(row["local_timestamp"] >= t1 + GRACE_US for row, t1 in t1s)


def expected(rows: list[Row], ticker: list[Row], instrument: InstrumentDefinition, t0: int, t1: int) -> dict[str, Any]:
    inside = [row for row in rows if t0 <= row["timestamp"] < t1]
    buys, sells = ([row["amount"] for row in inside if row["side"] == side] for side in (1, -1))
    size = instrument.contract_size
    notional = [row["amount"] * size * (1.0 if instrument.inverse else row["price"]) for row in inside]
    base = [row["amount"] * size / (row["price"] if instrument.inverse else 1.0) for row in inside]
    sided = math.fsum(buys) + math.fsum(sells)
    out: dict[str, Any] = {
        "liquidation_count": len(inside),
        "liquidation_buy_count": len(buys),
        "liquidation_sell_count": len(sells),
        "liquidation_buy_volume": math.fsum(buys),
        "liquidation_sell_volume": math.fsum(sells),
        "liquidation_volume": math.fsum(row["amount"] for row in inside),
        "liquidation_notional": math.fsum(notional),
        "liquidation_imbalance": (math.fsum(buys) - math.fsum(sells)) / sided if sided else None,
        "liquidation_vwap": math.fsum(notional) / math.fsum(base) if inside else None,
        "liquidation_max_size": max((row["amount"] for row in inside), default=None),
        "liquidation_price_max": max((row["price"] for row in inside), default=None),
        "liquidation_price_min": min((row["price"] for row in inside), default=None),
        "late_liquidation_count": late(inside, min(t1 - t0, MINUTE)),
    }
    step = min(t1 - t0, MINUTE)
    parts = []
    for start in range(t0, t1, step):
        moved = change(ticker, start, start + step)
        if moved is not None:
            volume = math.fsum(row["amount"] for row in inside if start <= row["timestamp"] < start + step)
            parts.append((volume * (moved > 0), volume * (moved < 0)))
    for index, name in enumerate(("rising", "falling")):
        out[f"liquidation_with_{name}_oi"] = math.fsum(part[index] for part in parts) if parts else None
    return out


@settings(max_examples=8)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_timeframe_agrees_with_a_direct_computation_on_ticks(seed: int) -> None:
    instrument, feed = scenario(seed)
    rows, ticker = accepted(feed[DataType.LIQUIDATIONS]), effective(feed[DataType.DERIVATIVE])
    _, candles = replayed(feed, OPTIONS, instrument)
    for timeframe in (Timeframe.S15, Timeframe.M1, Timeframe.M5):
        for candle in finished(candles[timeframe], bounds(feed)[1]):
            for name, value in expected(rows, ticker, instrument, candle.t0, candle.t1).items():
                produced = candle.row[name]
                relative = 1e-9 if isinstance(value, float) else 0.0
                assert same(produced, value, relative), (timeframe, candle.t0, name, produced, value)


def market() -> TickBatch:
    """A trade every 20 seconds for seven minutes."""
    return trades([100.0] * 21, start_us=START_US + S, step_us=20 * S, amounts=2.0)


def run(feed: Feed, instrument: InstrumentDefinition = PERPETUAL) -> dict[str, dict[int, Row]]:
    """Candles per timeframe, by second of their opening."""
    _, candles = replayed({DataType.TRADES: market(), **feed}, OPTIONS, instrument)
    return {
        timeframe: {(row["timestamp"] - START_US) // S: row for row in batch.rows()}
        for timeframe, batch in candles.items()
    }


def test_a_quiet_candle_has_zeros_for_what_is_counted_and_nulls_for_prices() -> None:
    row = run({})["1m"][0]
    zeros = "count buy_count sell_count buy_volume sell_volume volume notional".split()
    assert {row[f"liquidation_{name}"] for name in zeros} == {0}
    nulls = "imbalance vwap max_size price_max price_min with_rising_oi with_falling_oi".split()
    assert {row[f"liquidation_{name}"] for name in nulls} == {None}


def test_an_unknown_side_is_in_neither_bucket_even_where_a_tick_rule_could_guess_it() -> None:
    events = liquidations([100.0, 101.0], start_us=START_US + S, amounts=3.0, sides=0)
    row = run({DataType.LIQUIDATIONS: events})["1m"][0]
    assert (row["liquidation_count"], row["liquidation_volume"], row["liquidation_notional"]) == (2, 6.0, 603.0)
    assert (row["liquidation_buy_count"], row["liquidation_sell_count"], row["liquidation_imbalance"]) == (0, 0, None)


def test_the_split_by_open_interest_is_the_sum_of_the_minutes() -> None:
    """Open interest rises in the second minute and falls by more in the third: over five minutes it fell."""
    ticker = derivative_tickers(3, start_us=START_US + 30 * S, step_us=MINUTE, open_interest=[10.0, 12.0, 5.0])
    events = liquidations([100.0] * 3, start_us=START_US + 40 * S, step_us=MINUTE, amounts=[1.0, 2.0, 4.0], sides=1)
    candles = run({DataType.DERIVATIVE: ticker, DataType.LIQUIDATIONS: events})
    split = [
        (row["liquidation_with_rising_oi"], row["liquidation_with_falling_oi"])
        for row in (candles["1m"][0], candles["1m"][60], candles["1m"][120], candles["1m"][180], candles["5m"][0])
    ]
    assert split == [(None, None), (2.0, 0.0), (0.0, 4.0), (0.0, 0.0), (2.0, 4.0)]


def test_an_inverse_contract_has_a_harmonic_vwap() -> None:
    events = liquidations([40_000.0, 50_000.0], start_us=START_US + S, amounts=1.0, sides=-1)
    row = run({DataType.LIQUIDATIONS: events}, INVERSE)["1m"][0]
    assert (row["liquidation_volume"], row["liquidation_notional"]) == (2.0, 200.0)
    assert row["liquidation_vwap"] == pytest.approx(200.0 / (100.0 / 40_000.0 + 100.0 / 50_000.0), rel=1e-12)


def test_the_source_is_native_and_text_in_arrow() -> None:
    assert run({})["15s"][0]["liquidation_source"] == "native"
    _, candles = replayed({DataType.TRADES: market()}, OPTIONS, PERPETUAL)
    assert set(candles_to_arrow(candles[Timeframe.H1])["liquidation_source"].to_pylist()) == {"native"}


def test_an_instrument_without_the_feed_has_nulls_not_zeros() -> None:
    row = run({}, SPOT)["1m"][0]
    names = [name for name in row if "liquidation" in name]
    assert len(names) == 16
    assert {row[name] for name in names} == {None}
    assert (row["instrument_id"], row["is_empty"]) == (SPOT.key, False)


def derived(notional: float) -> PipelineOptions:
    return replace(OPTIONS, parameters=FeatureParameters(liquidation_fallback_notional=notional))


def test_large_trades_stand_in_for_the_feed_where_asked_and_every_row_says_so() -> None:
    """Trades from the notional on give the columns that the same rows as a feed would give; the feed itself is left
    out, so that the two never mix."""
    count = 60
    prices = [100.0 + index % 7 for index in range(count)]
    amounts = [1.0 + index % 5 for index in range(count)]
    sides = [1 if index % 3 else -1 for index in range(count)]
    everything = trades(prices, amounts, sides=sides)
    large = [price * amount >= 400.0 for price, amount in zip(prices, amounts, strict=True)]
    as_feed = TickBatch(DataType.LIQUIDATIONS, everything.take(np.array(large)).columns)
    other = liquidations([100.0], [9.0], sides=-1)
    _, native = replayed({DataType.TRADES: everything, DataType.LIQUIDATIONS: as_feed}, OPTIONS, PERPETUAL)
    _, stood_in = replayed({DataType.TRADES: everything, DataType.LIQUIDATIONS: other}, derived(400.0), PERPETUAL)
    for timeframe, candles in stood_in.items():
        assert set(candles["liquidation_source"]) == {"derived"}
        assert set(native[timeframe]["liquidation_source"]) == {"native"}
        for name in candles.columns:
            if name.startswith("liquidation_") and name != "liquidation_source":
                assert candles[name].tolist() == pytest.approx(native[timeframe][name].tolist(), nan_ok=True), name
        assert candles["liquidation_count"].sum() > 0


@pytest.mark.parametrize("seed", range(4))
def test_derived_liquidations_are_the_same_live_and_in_batch(seed: int) -> None:
    instrument, feed = scenario(seed)
    chosen = derived(42_000.0 * 0.05 if not instrument.inverse else 5.0)
    live, final = replayed(feed, chosen, instrument)
    assert any(candles["liquidation_count"].sum() for candles in final.values())
    assert_same(batched(feed, chosen, instrument, live), final)

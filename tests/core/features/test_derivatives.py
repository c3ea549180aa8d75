"""Derivative ticker columns: verified values, live == batch, an independent reference, and what is null when."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market_data_tick_handler.core.instruments import InstrumentDefinition, parse_instrument_key
from market_data_tick_handler.core.options import FeatureParameters, PipelineOptions
from market_data_tick_handler.core.schemas import candles_to_arrow
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.testing.ticks import START_US, derivative_tickers, trades
from tests.core.features.feeds import (
    PERPETUAL,
    Feed,
    assert_parity,
    assert_same,
    batched,
    bounds,
    replayed,
    scenario,
    streamed,
)
from tests.core.features.golden_feed import TIMEFRAMES, assert_golden
from tests.core.features.slow import Row, effective, finished, same
from tests.parity.streams import INVERSE

S = 1_000_000
MINUTE = 60 * S
FUTURE = parse_instrument_key("BINANCE-FUTURES:FUTURE:BTC-USDT-240329")
OPTIONS = PipelineOptions(groups=("ohlcv", "derivatives"))
HELD = {
    "funding_rate": "funding_rate",
    "predicted_funding_rate": "predicted_funding_rate",
    "open_interest": "open_interest",
    "index_price": "index_price",
    "mark_price": "mark_price",
    "ticker_last_price": "last_price",
}


@pytest.mark.parametrize(("timeframe", "steps"), TIMEFRAMES)
def test_golden(timeframe: Timeframe, steps: str, tmp_path: Path) -> None:
    assert_golden("derivative_ticker", timeframe, steps, tmp_path)


@settings(max_examples=12)
@given(seed=st.integers(0, 2**32 - 1))
def test_live_equals_replay_equals_batch(seed: int) -> None:
    assert_parity(seed, "derivatives")


class Slow:
    """The state after each row, and what a candle makes of it."""

    def __init__(self, feed: Feed) -> None:
        self.rows = effective(feed[DataType.DERIVATIVE])
        self.states: list[Row] = []
        state: Row = {}
        for row in self.rows:
            known = {name: row[name] for name in HELD.values() if math.isfinite(row[name])}
            funding = {"funding_timestamp": row["funding_timestamp"]} if row["funding_timestamp"] > 0 else {}
            state = {**state, **known, **funding, "e": row["e"]}
            if "mark_price" in state and "index_price" in state:
                state["basis_bps"] = 1e4 * (state["mark_price"] - state["index_price"]) / state["index_price"]
            self.states.append(state)

    def at(self, time_us: int) -> Row:
        """The state that rows with e < time_us make."""
        return next((state for state in reversed(self.states) if state["e"] < time_us), {})

    def held(self, name: str, t0: int, t1: int) -> list[tuple[float, int]]:
        """(value, microseconds) pieces of the candle in which the field is known."""
        ends = [state["e"] for state in self.states[1:]] + [2**62]
        pieces = []
        for state, end in zip(self.states, ends, strict=True):
            dt = min(end, t1) - max(state["e"], t0)
            if dt > 0 and name in state:
                pieces.append((state[name], dt))
        return pieces

    def mean(self, name: str, t0: int, t1: int) -> float | None:
        pieces = self.held(name, t0, t1)
        total = sum(dt for _, dt in pieces)
        return math.fsum(value * dt for value, dt in pieces) / total if total else None

    def seen(self, name: str, t0: int, t1: int) -> list[float]:
        """Values held or received in the candle."""
        received = [row[name] for row in self.rows if t0 <= row["e"] < t1 and math.isfinite(row[name])]
        return [value for value, _ in self.held(name, t0, t1)] + received


def expected(slow: Slow, instrument: InstrumentDefinition, t0: int, t1: int) -> dict[str, Any]:
    now, before = slow.at(t1), slow.at(t0)
    out: dict[str, Any] = {name: now.get(field) for name, field in HELD.items()}
    mark, index, interest = now.get("mark_price"), now.get("index_price"), now.get("open_interest")
    earlier, funding = before.get("open_interest"), now.get("funding_timestamp")
    out["funding_timestamp"] = funding
    out["time_to_funding_s"] = None if funding is None or funding < t1 else (funding - t1) / 1e6
    rate = now.get("funding_rate")
    out["funding_rate_annualized"] = None if rate is None else rate * (31_536_000 / 28_800)
    out["basis"] = None if mark is None or index is None else mark - index
    out["basis_bps"] = now.get("basis_bps")
    for column, field in (("mark_price", "mark_price"), ("open_interest", "open_interest")):
        values = slow.seen(field, t0, t1)
        out[f"{column}_high"], out[f"{column}_low"] = (max(values), min(values)) if values else (None, None)
    out["oi_change"] = None if interest is None or earlier is None else interest - earlier
    out["oi_change_pct"] = None if out["oi_change"] is None else out["oi_change"] / earlier
    out["open_interest_notional"] = None
    if mark is not None and interest is not None:
        size = instrument.contract_size
        out["open_interest_notional"] = interest * size if instrument.inverse else interest * mark * size
    out["derivative_update_count"] = sum(t0 <= row["e"] < t1 for row in slow.rows)
    out["derivative_ticker_age_ms"] = (t1 - now["e"]) / 1000.0 if now else None
    out["basis_annualized"] = None
    return out


@settings(max_examples=8)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_timeframe_agrees_with_a_direct_computation_on_ticks(seed: int) -> None:
    instrument, feed = scenario(seed)
    slow = Slow(feed)
    _, candles = replayed(feed, OPTIONS, instrument)
    for timeframe in (Timeframe.S15, Timeframe.M1, Timeframe.M5):
        for candle in finished(candles[timeframe], bounds(feed)[1]):
            for name, value in expected(slow, instrument, candle.t0, candle.t1).items():
                assert same(candle.row[name], value), (timeframe, candle.t0, name, candle.row[name], value)
            for name, field in (("funding_rate_tw", "funding_rate"), ("basis_bps_tw", "basis_bps")):
                value = slow.mean(field, candle.t0, candle.t1)
                assert same(candle.row[name], value, 1e-9), (timeframe, candle.t0, name, candle.row[name], value)


def run(feed: Feed, instrument: InstrumentDefinition = PERPETUAL, **parameters: Any) -> dict[int, Row]:
    """1m candles of a feed by second of their opening."""
    chosen = PipelineOptions(
        timeframes=(Timeframe.M1,), groups=("ohlcv", "derivatives"), parameters=FeatureParameters(**parameters)
    )
    _, candles = replayed(feed, chosen, instrument)
    return {(row["timestamp"] - START_US) // S: row for row in candles[Timeframe.M1].rows()}


def market(seconds: float = 200.0) -> Any:
    """A trade a minute."""
    return trades([100.0] * int(seconds // 60 + 1), step_us=MINUTE, start_us=START_US + S)


def test_before_the_first_row_everything_is_null_but_the_count() -> None:
    ticker = derivative_tickers(1, start_us=START_US + 130 * S, mark_price=10.0, index_price=8.0, open_interest=4.0)
    rows = run({DataType.TRADES: market(), DataType.DERIVATIVE: ticker})
    names = [name for name in rows[0] if name.startswith(("funding", "open_interest", "mark", "basis", "oi_"))]
    assert len(names) > 10
    assert {name: rows[0][name] for name in names} == dict.fromkeys(names)
    assert (rows[0]["derivative_update_count"], rows[0]["derivative_ticker_age_ms"]) == (0, None)
    assert (rows[120]["derivative_update_count"], rows[120]["derivative_ticker_age_ms"]) == (1, 50_000.0)
    assert (rows[120]["basis"], rows[120]["oi_change"], rows[120]["basis_bps_tw"]) == (2.0, None, 2500.0)


def test_a_row_replaces_only_the_fields_it_carries_and_the_rest_is_carried_on() -> None:
    ticker = derivative_tickers(
        2, start_us=START_US + 10 * S, step_us=MINUTE, mark_price=[10.0, np.nan], open_interest=[4.0, 6.0]
    )
    rows = run({DataType.TRADES: market(), DataType.DERIVATIVE: ticker})
    assert (rows[60]["mark_price"], rows[60]["open_interest"], rows[60]["oi_change"]) == (10.0, 6.0, 2.0)
    assert rows[60]["oi_change_pct"] == 0.5
    assert (rows[120]["oi_change"], rows[120]["open_interest_high"], rows[120]["mark_price_low"]) == (0.0, 6.0, 10.0)
    assert rows[60]["index_price"] is rows[60]["basis"] is rows[60]["basis_bps_tw"] is None


def test_a_row_stamped_at_the_border_belongs_to_the_next_candle() -> None:
    ticker = derivative_tickers(2, start_us=START_US + 30 * S, step_us=30 * S, mark_price=[10.0, 11.0])
    rows = run({DataType.TRADES: market(), DataType.DERIVATIVE: ticker})
    assert (rows[0]["mark_price"], rows[0]["mark_price_high"], rows[0]["derivative_update_count"]) == (10.0, 10.0, 1)
    assert (rows[60]["mark_price"], rows[60]["mark_price_low"], rows[60]["derivative_update_count"]) == (11.0, 11.0, 1)


def test_a_funding_time_that_has_passed_leaves_no_time_to_funding() -> None:
    ticker = derivative_tickers(1, start_us=START_US + S, funding_timestamp=START_US + 120 * S)
    rows = run({DataType.TRADES: market(), DataType.DERIVATIVE: ticker})
    assert [rows[at]["time_to_funding_s"] for at in (0, 60, 120)] == [60.0, 0.0, None]
    assert [rows[at]["funding_timestamp"] for at in (0, 120)] == [START_US + 120 * S] * 2


def test_zero_denominators_are_null_never_infinite() -> None:
    ticker = derivative_tickers(
        2, start_us=START_US + S, step_us=MINUTE, mark_price=10.0, index_price=0.0, open_interest=[0.0, 5.0]
    )
    row = run({DataType.TRADES: market(), DataType.DERIVATIVE: ticker})[60]
    assert (row["basis"], row["basis_bps"], row["basis_bps_tw"]) == (10.0, None, None)
    assert (row["oi_change"], row["oi_change_pct"]) == (5.0, None)


def test_an_inverse_contract_counts_quote_currency() -> None:
    ticker = derivative_tickers(1, start_us=START_US + S, mark_price=40_000.0, open_interest=7.0)
    feed = {DataType.TRADES: market(), DataType.DERIVATIVE: ticker}
    assert run(feed, INVERSE)[0]["open_interest_notional"] == 700.0
    assert run(feed)[0]["open_interest_notional"] == 280_000.0


def test_without_a_funding_interval_the_annual_rate_is_null() -> None:
    ticker = derivative_tickers(1, start_us=START_US + S, funding_rate=1e-4)
    feed = {DataType.TRADES: market(), DataType.DERIVATIVE: ticker}
    assert run(feed, funding_interval_s=None)[0]["funding_rate_annualized"] is None
    assert run(feed, funding_interval_s=14_400.0)[0]["funding_rate_annualized"] == 1e-4 * 2190.0


def test_the_basis_of_a_dated_future_is_annualised_to_its_expiry() -> None:
    ticker = derivative_tickers(1, start_us=START_US + S, mark_price=102.0, index_price=100.0)
    feed = {DataType.TRADES: market(), DataType.DERIVATIVE: ticker}
    years = (FUTURE.expiry_us - START_US - MINUTE) / (365 * 86_400e6)
    assert run(feed, FUTURE)[0]["basis_annualized"] == pytest.approx(math.log(1.02) / years, rel=1e-12)
    assert run(feed)[0]["basis_annualized"] is None


def test_a_ticker_known_long_before_the_first_trade_counts_the_same_live_and_in_batch() -> None:
    """Ten minutes of silence before the first trade: parents are sealed meanwhile."""
    feed = {
        DataType.TRADES: trades([100.0] * 30, start_us=START_US + 11 * MINUTE, step_us=20 * S),
        DataType.DERIVATIVE: derivative_tickers(3, start_us=START_US + S, step_us=4 * S, funding_rate=[1.0, 2.0, 4.0]),
    }
    pipeline, replay = replayed(feed, OPTIONS, PERPETUAL)
    for seed in range(5):
        assert_same(streamed(feed, OPTIONS, PERPETUAL, np.random.default_rng(seed)), replay)
    assert_same(batched(feed, OPTIONS, PERPETUAL, pipeline), replay)
    assert replay[Timeframe.H1]["funding_rate_tw"][0] > 3.9


def test_the_funding_time_is_a_timestamp_in_arrow_with_null_where_unknown() -> None:
    ticker = derivative_tickers(1, start_us=START_US + 70 * S, funding_timestamp=START_US + 8 * 3600 * S)
    feed = {DataType.TRADES: market(), DataType.DERIVATIVE: ticker}
    _, candles = replayed(feed, OPTIONS, PERPETUAL)
    column = candles_to_arrow(candles[Timeframe.M1])["funding_timestamp"].cast("int64").to_pylist()
    assert column[:2] == [None, START_US + 8 * 3600 * S]

"""Effective spread: verified values, live == batch, an independent reference, and which trades are skipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market_data_tick_handler.core.options import PipelineOptions
from market_data_tick_handler.core.ticks import DataType, TickBatch
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.testing.ticks import START_US, books, trades
from tests.core.features.feeds import PERPETUAL, Feed, assert_parity, bounds, replayed, scenario
from tests.core.features.golden_feed import TIMEFRAMES, assert_golden
from tests.core.features.slow import Row, accepted, every, finished, same, timely

S = 1_000_000
MINUTE = 60 * S
OPTIONS = PipelineOptions(groups=("ohlcv", "spread"))


@pytest.mark.parametrize(("timeframe", "steps"), TIMEFRAMES)
def test_golden(timeframe: Timeframe, steps: str, tmp_path: Path) -> None:
    assert_golden("trades_book", timeframe, steps, tmp_path)


@settings(max_examples=12)
@given(seed=st.integers(0, 2**32 - 1))
def test_live_equals_replay_equals_batch(seed: int) -> None:
    assert_parity(seed, "spread")


def mid(book: Row) -> float | None:
    best = [book[f"{side}_{what}_1"] for side in ("bid", "ask") for what in ("price", "volume")]
    if not all(0.0 < value < float("inf") for value in best) or best[0] >= best[2]:
        return None
    return float((best[0] + best[2]) / 2)


def matched(feed: Feed) -> list[tuple[int, float, float]]:
    """(timestamp, amount, amount-weighted cost in bps) of the trades with a side and a valid mid, by arrival."""
    snapshots = [row for row in every(feed[DataType.BOOK]) if timely(row)]
    arrivals = np.array([row["local_timestamp"] for row in snapshots])
    out = []
    for trade in accepted(feed[DataType.TRADES]):
        before = int(np.searchsorted(arrivals, trade["local_timestamp"], "right"))
        reference = mid(snapshots[before - 1]) if before else None
        if trade["sign"] and reference is not None:
            bps = 2.0 * trade["sign"] * (trade["price"] - reference) / reference * 1e4
            out.append((trade["timestamp"], trade["amount"], trade["amount"] * bps))
    return out


@settings(max_examples=8)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_timeframe_agrees_with_a_direct_computation_on_ticks(seed: int) -> None:
    instrument, feed = scenario(seed)
    costs = matched(feed)
    _, candles = replayed(feed, OPTIONS, instrument)
    for timeframe in (Timeframe.S15, Timeframe.M1, Timeframe.M5):
        for candle in finished(candles[timeframe], bounds(feed)[1]):
            inside = [(amount, cost) for at, amount, cost in costs if candle.t0 <= at < candle.t1]
            value = sum(cost for _, cost in inside) / sum(amount for amount, _ in inside) if inside else None
            assert candle.row["trades_matched_to_book"] == len(inside)
            assert same(candle.row["effective_spread_bps"], value, 1e-8), (timeframe, candle.row, value)


def run(trade_rows: TickBatch, book_rows: TickBatch) -> dict[int, Row]:
    """1m candles by second of their opening."""
    chosen = PipelineOptions(groups=("spread",), timeframes=(Timeframe.M1,))
    _, candles = replayed({DataType.TRADES: trade_rows, DataType.BOOK: book_rows}, chosen, PERPETUAL)
    return {(row["timestamp"] - START_US) // S: row for row in candles[Timeframe.M1].rows()}


def trade(price: float, seconds: float, **changes: Any) -> TickBatch:
    """One taker buy."""
    return trades([price], start_us=START_US + int(seconds * S), **changes)


def test_the_book_comes_before_a_trade_of_the_same_arrival() -> None:
    at = START_US + 5 * S
    book = books([100.0, 200.0], timestamps=[at - S, at], local_timestamps=[at - S, at])
    row = run(trade(201.0, 5, local_timestamps=[at], sides=1), book)[0]
    assert row["effective_spread_bps"] == pytest.approx(2 * 1e4 / 200.0)


def test_a_late_trade_meets_the_book_of_its_arrival_in_the_candle_of_its_timestamp() -> None:
    book = books([100.0, 200.0], timestamps=[START_US, START_US + 70 * S])
    row = run(trade(201.0, 5, delay_us=70 * S, sides=1), book)[0]
    assert (row["trades_matched_to_book"], row["effective_spread_bps"]) == (1, pytest.approx(100.0))


@pytest.mark.parametrize(
    "broken", [{"bid_price_1": 101.0}, {"bid_price_1": 100.5}, {"ask_volume_1": 0.0}, {"bid_price_1": np.nan}]
)
def test_trades_are_skipped_while_the_book_is_invalid(broken: dict[str, float]) -> None:
    """Crossed, locked, or a side missing."""
    book = books([100.0], start_us=START_US)
    for name, value in broken.items():
        book = book.with_column(name, np.array([value]))
    row = run(trade(101.0, 5, sides=1), book)[0]
    assert (row["trades_matched_to_book"], row["effective_spread_bps"]) == (0, None)


def test_a_trade_before_any_book_or_without_a_side_is_skipped() -> None:
    before = run(trade(101.0, 5, sides=1), books([100.0], start_us=START_US + 6 * S))[0]
    sideless = run(trade(101.0, 5, sides=0), books([100.0], start_us=START_US))[0]
    assert before["trades_matched_to_book"] == sideless["trades_matched_to_book"] == 0


def test_a_snapshot_with_an_impossible_timestamp_changes_nothing() -> None:
    at = START_US + S
    book = books([100.0, 200.0], timestamps=[at, 0], local_timestamps=[at, at + S])
    assert run(trade(101.0, 5, sides=1), book)[0]["effective_spread_bps"] == pytest.approx(200.0)

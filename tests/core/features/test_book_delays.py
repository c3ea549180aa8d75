"""Book delay columns: verified values, live == batch, an independent reference, and which rows count where."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market_data_tick_handler.core.options import PipelineOptions
from market_data_tick_handler.core.ticks import DataType, TickBatch
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.testing.ticks import START_US, books, trades
from tests.core.features.feeds import PERPETUAL, assert_parity, bounds, replayed, scenario
from tests.core.features.golden_feed import TIMEFRAMES, assert_golden
from tests.core.features.slow import Row, effective, finished

S = 1_000_000
OPTIONS = PipelineOptions(groups=("ohlcv", "book_delays"))
COLUMNS = ("book_delay_median", "book_delay_p99", "book_delay_max")


@pytest.mark.parametrize(("timeframe", "steps"), TIMEFRAMES)
def test_golden(timeframe: Timeframe, steps: str, tmp_path: Path) -> None:
    assert_golden("book", timeframe, steps, tmp_path, COLUMNS)


@settings(max_examples=12)
@given(seed=st.integers(0, 2**32 - 1))
def test_live_equals_replay_equals_batch(seed: int) -> None:
    assert_parity(seed, "book_delays")


@settings(max_examples=8)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_timeframe_agrees_with_a_direct_computation_on_ticks(seed: int) -> None:
    """Exact at 15s and 1m; above, within 1/256 of the nearest rank, which for the median is k = ceil(n/2)."""
    instrument, feed = scenario(seed)
    rows = effective(feed[DataType.BOOK])
    _, candles = replayed(feed, OPTIONS, instrument)
    for timeframe in (Timeframe.S15, Timeframe.M1, Timeframe.M5):
        for candle in finished(candles[timeframe], bounds(feed)[1]):
            inside = sorted(r["local_timestamp"] - r["timestamp"] for r in rows if candle.t0 <= r["e"] < candle.t1)
            produced = [candle.row[name] for name in COLUMNS]
            if not inside:
                assert produced == [None, None, None]
                continue
            n = len(inside)
            p99, most = inside[(99 * n + 99) // 100 - 1] / 1000, inside[-1] / 1000
            assert candle.row["book_delay_max"] == most
            if timeframe is Timeframe.M5:
                assert produced[:2] == pytest.approx([inside[(n + 1) // 2 - 1] / 1000, p99], rel=1 / 256)
            else:
                assert produced[:2] == [statistics.median(inside) / 1000, p99]


def run(book: TickBatch) -> dict[int, Row]:
    """15s candles by second of their opening, with a trade in the first."""
    chosen = PipelineOptions(groups=("book_delays",), timeframes=(Timeframe.S15,))
    feed = {DataType.TRADES: trades([100.0, 100.0], start_us=START_US, step_us=40 * S), DataType.BOOK: book}
    _, candles = replayed(feed, chosen, PERPETUAL)
    return {(row["timestamp"] - START_US) // S: row for row in candles[Timeframe.S15].rows()}


def test_a_slow_snapshot_counts_where_it_takes_effect() -> None:
    rows = run(books([100.0], start_us=START_US + 5 * S, delay_us=12 * S))
    assert [rows[at]["book_delay_max"] for at in (0, 15, 30)] == [None, 12_000.0, None]


def test_a_snapshot_within_grace_of_the_border_still_belongs_to_the_candle_before() -> None:
    rows = run(books([100.0, 100.0], timestamps=[START_US + 14_900_000] * 2, delay_us=400_000))
    assert (rows[0]["book_delay_median"], rows[15]["book_delay_median"]) == (400.0, None)


def test_an_invalid_book_is_a_row_like_any_other_but_an_impossible_time_is_none() -> None:
    crossed = books([100.0], start_us=START_US + S, delay_us=7_000, spread=-1.0)
    assert run(crossed)[0]["book_delay_max"] == 7.0
    assert run(books([100.0], timestamps=[0], local_timestamps=[START_US + S]))[0]["book_delay_max"] is None


def test_a_clock_that_runs_ahead_gives_a_negative_delay() -> None:
    rows = run(books([100.0], start_us=START_US + S, delay_us=-2_000))
    assert [rows[0][name] for name in COLUMNS] == [-2.0, -2.0, -2.0]

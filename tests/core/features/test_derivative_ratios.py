"""Ratios of the ticker and liquidations to the candle's trades: closed forms of published columns, bit for bit."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market_data_tick_handler.core.instruments import InstrumentDefinition
from market_data_tick_handler.core.options import PipelineOptions
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.storage.candle_files import replace_candles
from tests.core.features.feeds import PERPETUAL, assert_parity, bounds, random_feed, replayed, scenario
from tests.core.features.golden_feed import TIMEFRAMES, assert_golden
from tests.core.features.slow import finished
from tests.parity.streams import SPOT

COLUMNS = ("premium_close_bps", "mark_deviation_bps", "oi_volume_ratio", "liquidation_volume_ratio")
GROUPS = ("ohlcv", "derivatives", "liquidations", "derivative_ratios")


@pytest.mark.parametrize(("timeframe", "steps"), TIMEFRAMES)
def test_golden(timeframe: Timeframe, steps: str, tmp_path: Path) -> None:
    assert_golden("liquidations", timeframe, steps, tmp_path, ("liquidation_volume_ratio",))


def over(a: float | None, b: float | None) -> float | None:
    return None if a is None or not b else a / b


@settings(max_examples=6)
@given(seed=st.integers(0, 2**32 - 1))
def test_each_is_its_formula_over_the_published_columns_at_every_timeframe(seed: int) -> None:
    instrument, feed = scenario(seed)
    _, candles = replayed(feed, PipelineOptions(groups=GROUPS), instrument)
    for batch in candles.values():
        for candle in finished(batch, bounds(feed)[1]):
            row = candle.row
            index, mark = row["index_price"], row["mark_price"]
            assert [row[name] for name in COLUMNS] == [
                over(1e4 * (row["close"] - index), index) if index is not None else None,
                over(1e4 * (row["close"] - mark), mark) if mark is not None else None,
                over(row["oi_change"], row["volume"]),
                over(row["liquidation_volume"], row["volume"]),
            ]


@settings(max_examples=6)
@given(seed=st.integers(0, 2**32 - 1))
def test_live_equals_replay_equals_batch_with_every_group_together(seed: int) -> None:
    assert_parity(seed, *GROUPS, "spread", "book_delays")


def test_without_the_groups_it_reads_every_column_is_null() -> None:
    instrument, feed = scenario(5)
    _, candles = replayed(feed, PipelineOptions(groups=("derivative_ratios",)), instrument)
    assert {row[name] for row in candles[Timeframe.M1].rows() for name in COLUMNS} == {None}


@pytest.mark.parametrize("instrument", [SPOT, PERPETUAL])
def test_candles_with_and_without_the_feeds_can_be_stored_and_stored_again(
    instrument: InstrumentDefinition, tmp_path: Path
) -> None:
    feed = {key: rows for key, rows in random_feed(3, minutes=5.0).items() if key in instrument.data_types}
    _, candles = replayed(feed, PipelineOptions(groups=GROUPS), instrument)
    batch = candles[Timeframe.M1]
    assert replace_candles(tmp_path, batch, date(2024, 1, 1)) == len(batch)
    assert replace_candles(tmp_path, batch, date(2024, 1, 1)) == 0

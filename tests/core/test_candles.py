"""Candles in any grouping: one by one or a day at once, from the ring or from a sealed sum, with the same bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from market_data_tick_handler.core.candles import RowLayout, borders, candles_open_before
from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.parity import compare
from market_data_tick_handler.core.pipeline import Pipeline
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.testing.ticks import START_US, trades
from tests.parity.streams import NOON_US, SPOT, batched, last, options, random_trades, replayed

S = 1_000_000


def test_borders_are_those_after_the_start_up_to_and_with_the_stop() -> None:
    assert list(borders(0, 45 * S)) == [15 * S, 30 * S, 45 * S]
    assert list(borders(14 * S, 44 * S)) == [15 * S, 30 * S]
    assert list(borders(15 * S, 15 * S)) == []
    assert list(borders(30 * S, 10 * S)) == []


def test_a_candle_opens_before_a_stop_inside_it_but_not_before_one_on_its_open() -> None:
    assert candles_open_before(START_US, Timeframe.M1) == START_US
    assert candles_open_before(START_US + 1, Timeframe.M1) == START_US + 60 * S


def test_rows_are_the_same_if_only_the_publication_differs() -> None:
    layout = RowLayout([np.dtype([("x", "f8"), ("n", "i8")])])
    rows = np.zeros(2, layout.dtype)
    layout.put(rows, [np.array([(1.5, 3), (2.5, 4)], [("x", "f8"), ("n", "i8")])])
    assert rows["x"].tolist() == [1.5, 2.5] and rows["n"].tolist() == [3, 4]
    one, other = rows[:1].copy(), rows[:1].copy()
    other["revision"], other["timestamp_out"] = 7, 8
    assert layout.same(one, other)
    for name in ("timestamp", "gap_ms", "x", "n"):
        other = one.copy()
        other[name] += 1
        assert not layout.same(one, other), name


@pytest.mark.parametrize("timeframes", [(Timeframe.M5,), (Timeframe.H1, Timeframe.S15), (Timeframe.H24,)])
def test_a_selection_of_timeframes_changes_no_bits(timeframes: tuple[Timeframe, ...]) -> None:
    rows = random_trades(5, minutes=8.0)
    _, everything = replayed(rows, options())
    _, some = replayed(rows, options(timeframes=timeframes))
    assert set(some) == set(timeframes)
    for timeframe, candles in some.items():
        report = compare(candles.columns, everything[timeframe].columns)
        assert report.ok and report.compared, report.by_kind()


def test_a_parent_longer_than_the_ring_is_a_fold_of_all_its_minutes() -> None:
    """4 h of trades, 2 minutes of revisions: what left the ring is in the sealed sums, and batch agrees."""
    stamped = NOON_US + np.arange(0, 4 * 3_600, 20) * S
    rows = trades(100 + np.arange(720) % 11, np.arange(720) % 7 + 0.5, timestamps=stamped)
    pipeline, replay = replayed(rows, options())
    (whole,) = replay["4h"].rows()
    assert (whole["trade_count"], whole["volume"], whole["revision"]) == (720, float(rows["amount"].sum()), 0)
    again = batched(pipeline, pipeline.stored, options())
    for timeframe, candles in replay.items():
        report = compare(candles.columns, again[timeframe].columns)
        assert report.ok, (timeframe, report.by_kind())


def test_memory_of_a_live_pipeline_does_not_grow_with_time() -> None:
    pipeline = Pipeline(SPOT, options(groups=("ohlcv", "flow", "delays")))
    sizes = []
    for hour in range(6):
        stamped = NOON_US + hour * 3_600 * S + np.arange(0, 3_600, 2) * S
        pipeline.feed(
            Rows(SPOT.key, trades(100 + np.arange(1_800) % 11, timestamps=stamped, first_id=1 + hour * 1_800))
        )
        pipeline.outputs()
        sizes.append(len(pipeline.snapshot()))
    # The 24h candle and the longer ones are open all the while: a few sketch buckets come and go.
    assert sizes[-1] < 1.1 * sizes[1]


def published(pipeline: Pipeline) -> dict[str, list[dict[str, Any]]]:
    return {timeframe: list(batch.rows()) for timeframe, batch in last(pipeline.outputs()).items()}


def test_revision_numbers_count_publications_across_a_restart() -> None:
    pipeline = Pipeline(SPOT, options(timeframes=(Timeframe.S15,), groups=("ohlcv",)))
    pipeline.feed(Rows(SPOT.key, trades([1.0], start_us=NOON_US)))
    pipeline.advance(NOON_US + 16 * S)
    assert [row["revision"] for row in published(pipeline)["15s"]] == [0]
    for revision in (1, 2, 3):
        late = trades([1.0], timestamps=[NOON_US + revision], local_timestamps=[NOON_US + (16 + revision) * S], ids=[0])
        other = Pipeline(SPOT, options(timeframes=(Timeframe.S15,), groups=("ohlcv",)))
        other.restore(pipeline.snapshot())
        pipeline = other
        pipeline.feed(Rows(SPOT.key, late))
        assert [row["revision"] for row in published(pipeline)["15s"]] == [revision]

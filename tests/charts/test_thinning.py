"""Charts of more candles than can be seen: nothing that matters disappears, and the reader is told."""

from __future__ import annotations

import numpy as np
import pytest

from market_data_tick_handler.charts import thinned
from market_data_tick_handler.core.quality import COMPLETE, GAPPED, PARTIAL
from market_data_tick_handler.core.timeframes import Timeframe
from tests.charts.made import CHAIN, START_US, M, chart, columns, with_quality


def test_a_chart_with_room_for_all_is_left_alone() -> None:
    shown = chart(columns(100))
    assert thinned(shown, most=100) is shown


def test_merged_candles_keep_extremes_sums_and_the_worst_quality() -> None:
    made = with_quality(120, {"GAPPED": (7,), "PARTIAL": (7 + 30,)}, revision=(np.arange(120) == 119).astype(np.int32))
    made["high"][3], made["low"][4] = 500.0, 1.0
    whole = chart(made)
    shown = thinned(whole, most=25)
    few, many = shown.candles, whole.candles
    assert few is not None and many is not None
    assert shown.drawn_us == 5 * M
    assert few.time.tolist() == [START_US + 5 * M * place for place in range(24)]
    assert few.open.tolist() == many.open[::5].tolist()
    assert few.close.tolist() == many.close[4::5].tolist()
    assert (few.high[0], few.low[0]) == (500.0, 1.0)
    assert few.volume.sum() == pytest.approx(many.volume.sum(), rel=1e-12)
    assert few.trades.sum() == many.trades.sum()
    assert (few.quality[1], few.quality[7], few.quality[2]) == (GAPPED, PARTIAL, COMPLETE)
    assert few.revision[-1] == 1
    assert few.members.tolist() == [5] * 24


def test_the_reader_is_told_what_was_merged() -> None:
    note = thinned(chart(columns(120)), most=25).notes[-1]
    assert "120 candles of 1m are drawn as 24 of 5 min" in note
    assert "worst" in note and "lines are means" in note


def test_lines_become_means_within_their_extremes_and_still_break() -> None:
    made = columns(300, spread_bps_tw=np.arange(300.0))
    made = {name: np.delete(values, np.s_[100:150], axis=0) for name, values in made.items()}
    line = thinned(chart(made, panes=[["spread_bps_tw"]]), most=60).panes[0].lines[0]
    assert line.low is not None and line.high is not None
    assert (line.values[0], line.low[0], line.high[0]) == (2.0, 0.0, 4.0)
    assert np.flatnonzero(np.isnan(line.values)).tolist() == [20]
    assert len(line.time) == 51


@pytest.mark.parametrize(("number", "most", "minutes"), [(40_320, 6_000, 2), (40_320, 900, 15), (86_400, 900, 30)])
def test_a_week_and_a_fortnight_of_15s_fit(number: int, most: int, minutes: int) -> None:
    shown = thinned(chart(columns(number, timeframe=Timeframe.S15), timeframe=Timeframe.S15), most=most)
    assert shown.candles is not None
    assert shown.drawn_us == minutes * M
    assert most / 3 < len(shown.candles) <= most
    assert all(len(line.time) <= most for pane in shown.panes for line in pane.lines)


def test_years_of_days_are_merged_to_several_days() -> None:
    shown = thinned(chart(columns(1_000, timeframe=Timeframe.H24), timeframe=Timeframe.H24), most=300)
    assert shown.drawn_us == 4 * Timeframe.H24.us
    assert shown.candles is not None and len(shown.candles) <= 300


def test_lines_without_candles_are_thinned_too() -> None:
    state = {name: columns(500)[name] for name in ("timestamp", "quality", "coverage", "gap_ms", "revision")}
    shown = thinned(chart(state | {"atm_iv_30d": np.linspace(0.5, 0.6, 500)}, key=CHAIN), most=100)
    assert len(shown.panes[0].lines[0].time) == 100

"""What is on a chart: its range, panes, shaded times, and what is said about it."""

from __future__ import annotations

import numpy as np
import pytest

from market_data_tick_handler.charts import SpanKind, compose
from market_data_tick_handler.charts.composition import columns_to_read
from market_data_tick_handler.charts.panes import MOST_PANES, wanted_columns
from market_data_tick_handler.core.events import GapEnding, GapKind
from market_data_tick_handler.core.quality import COMPLETE, GAPPED, PARTIAL, QUIET, REPAIRED
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.errors import ConfigError, NotFound, SchemaMismatch
from tests.charts.made import CHAIN, KEY, START_US, M, chart, columns, gap, troubled, with_quality


def test_only_candles_that_open_in_the_range_are_on_the_chart() -> None:
    made = compose(KEY, Timeframe.M1, columns(30), from_us=START_US + 5 * M, to_us=START_US + 10 * M)
    assert made.candles is not None
    assert made.candles.time.tolist() == [START_US + minute * M for minute in range(5, 10)]
    assert (made.from_us, made.to_us) == (START_US + 5 * M, START_US + 10 * M)
    assert made.notes == ()


def test_a_range_without_a_candle_is_an_error() -> None:
    with pytest.raises(NotFound, match="2024-01-01 01:00"):
        compose(KEY, Timeframe.M1, columns(30), from_us=START_US + 60 * M, to_us=START_US + 90 * M)


def test_columns_that_every_candle_has_are_required() -> None:
    made = columns(3)
    del made["quality"]
    with pytest.raises(SchemaMismatch, match="quality"):
        chart(made)


def test_title_and_subtitle_tell_instrument_range_number_and_coverage() -> None:
    made = columns(10, coverage=np.array([1.0] * 9 + [0.5]))
    kept = {name: np.delete(values, [3, 4], axis=0) for name, values in made.items()}
    shown = chart(kept)
    assert shown.title == "BTC-USDT 1m"
    assert shown.subtitle == "BINANCE SPOT_PAIR · 2024-01-01 00:00 – 00:10 UTC · 8 of 10 candles · coverage 75.00%"


def test_coverage_is_not_rounded_up_to_all() -> None:
    almost = columns(10, coverage=np.array([1.0] * 9 + [0.99999]))
    assert chart(almost).subtitle.endswith("coverage 99.99%")
    assert chart(columns(10)).subtitle.endswith("coverage 100.00%")


def test_qualities_and_revisions_are_counted() -> None:
    candles = troubled().candles
    assert candles is not None
    assert candles.counts() == {COMPLETE: 95, QUIET: 2, PARTIAL: 2, GAPPED: 5, REPAIRED: 6}
    assert candles.revised == 3


def test_runs_of_a_quality_end_at_another_one_and_where_candles_are_absent() -> None:
    made = with_quality(6, {"GAPPED": (1, 2)})
    candles = chart({name: np.delete(values, 4, axis=0) for name, values in made.items()}).candles
    assert candles is not None
    minutes = [(code, (start - START_US) // M, (end - START_US) // M) for code, start, end in candles.runs(M)]
    assert minutes == [(COMPLETE, 0, 1), (GAPPED, 1, 3), (COMPLETE, 3, 4), (COMPLETE, 5, 6)]


def test_gaps_are_shaded_by_what_became_of_them_and_end_at_the_axis() -> None:
    spans = [(span.kind, (span.from_us - START_US) / M, (span.to_us - START_US) / M) for span in troubled().spans]
    assert spans == [
        (SpanKind.NOT_RUNNING, 0.0, 0.2),
        (SpanKind.DOWN, 20.0, 25.0),
        (SpanKind.REPAIRED, 40.5, 45.5),
        (SpanKind.NOT_RUNNING, 90.0, 100.0),
        (SpanKind.ABSENT, 90.0, 100.0),
    ]
    assert any("not drawn: 1" in note for note in troubled().notes)


def test_an_explained_gap_is_one_in_which_nothing_is_missing() -> None:
    gaps = [gap(3, 4, ending=GapEnding.EXPLAINED), gap(6, 7, ending=GapEnding.LOST)]
    assert [span.kind for span in chart(columns(10), gaps=gaps).spans] == [SpanKind.REPAIRED, SpanKind.DOWN]


def test_gaps_nearer_than_a_dot_are_one_span_that_says_how_many() -> None:
    gaps = [gap(at / 100, at / 100 + 0.005) for at in range(100)] + [gap(500, 501, kind=GapKind.NOT_RUNNING)]
    spans = chart(columns(1_000), gaps=gaps).spans
    assert [(span.kind, span.gaps) for span in spans] == [(SpanKind.DOWN, 100), (SpanKind.NOT_RUNNING, 1)]


def test_the_default_panes_are_those_that_have_values() -> None:
    names = [[line.name for line in pane.lines] for pane in chart(columns(40)).panes]
    assert names == [["order_flow_imbalance"], ["spread_bps_tw"], ["rsi_14"]]
    nothing = columns(40, rsi_14=np.full(40, np.nan), rsi_5=np.full(40, 10.0), spread_bps_tw=np.full(40, np.nan))
    names = [[line.name for line in pane.lines] for pane in chart(nothing).panes]
    assert names == [["order_flow_imbalance"], ["rsi_5"]]


def test_columns_share_a_pane_where_asked_and_averages_lie_over_the_price() -> None:
    made = columns(40) | {"rsi_5": np.full(40, 70.0), "bid_ask_spread_proxy": np.full(40, 0.1)}
    shown = chart(made, panes=[["rsi_5", "rsi_14"], ["sma_20"], ["bid_ask_spread_proxy"]])
    assert [[line.name for line in pane.lines] for pane in shown.panes] == [
        ["rsi_5", "rsi_14"],
        ["bid_ask_spread_proxy"],
    ]
    assert [line.name for line in shown.overlays] == ["sma_20"]
    assert shown.panes[0].bounds == (0.0, 100.0)
    assert shown.panes[0].guides == (30.0, 70.0)
    assert shown.panes[1].guides == ()


def test_a_column_without_a_value_is_named_instead_of_drawn() -> None:
    shown = chart(columns(10), panes=[["rsi_14"], ["spread_bps_tw"]])
    assert len(shown.panes) == 1
    assert shown.notes == ("no value in this range: rsi_14",)


def test_lines_break_where_candles_are_absent() -> None:
    made = {name: np.delete(values, [5, 6], axis=0) for name, values in columns(10).items()}
    line = chart(made, panes=[["spread_bps_tw"]]).panes[0].lines[0]
    assert np.isnan(line.values).tolist() == [False] * 5 + [True] + [False] * 3
    assert line.time[5] == START_US + 5 * M


def test_what_is_missing_at_either_end_of_the_range_is_said() -> None:
    made = compose(KEY, Timeframe.M1, columns(30), from_us=START_US - 60 * M, to_us=START_US + 60 * M)
    assert made.notes == (
        "no candle is stored from 2023-12-31 23:00 to 2024-01-01 00:00 UTC",
        "no candle is stored from 2024-01-01 00:30 to 2024-01-01 01:00 UTC",
    )


def test_an_option_chain_has_panes_without_candles() -> None:
    state = {name: columns(50)[name] for name in ("timestamp", "quality", "coverage", "gap_ms", "revision")}
    made = state | {"atm_iv_30d": np.linspace(0.5, 0.6, 50), "put_call_oi_ratio": np.full(50, 0.8)}
    shown = chart(made, key=CHAIN)
    assert shown.candles is None
    assert [[line.name for line in pane.lines] for pane in shown.panes] == [["atm_iv_30d"], ["put_call_oi_ratio"]]


def test_only_what_is_shown_is_read() -> None:
    assert "rsi_14" in columns_to_read(None)
    read = columns_to_read([["sma_20"], ["rsi_5"]])
    assert {"sma_20", "rsi_5", "open", "quality", "timestamp"} <= set(read)
    assert "rsi_14" not in read


def test_names_of_columns_are_checked() -> None:
    assert wanted_columns(["RSI_5+rsi_14", "spread_bps_tw"]) == [["rsi_5", "rsi_14"], ["spread_bps_tw"]]
    with pytest.raises(ConfigError, match="did you mean rsi_5 or rsi_14"):
        wanted_columns(["rsi_15"])
    with pytest.raises(ConfigError, match="is text"):
        wanted_columns(["quality"])
    with pytest.raises(ConfigError, match="12 panes"):
        wanted_columns(["rsi_5"] * (MOST_PANES + 1))

"""What `watch` knows after candles, revisions and gaps came in whatever order they come in."""

from __future__ import annotations

import pytest

from market_data_tick_handler.client import CandleGap, GapReason
from market_data_tick_handler.commands.watch_board import Bar, FeedState, SeriesRow, read_feeds
from market_data_tick_handler.core.timeframes import Timeframe
from tests.commands.watched import BTC, ETH, after_close_us, board, candle

CHANNEL = f"candles:{BTC}:1m"


def row_of(*candles_: object, history: int = 40) -> SeriesRow:
    return board(*candles_, history=history).rows[BTC, Timeframe.M1]  # type: ignore[arg-type]


def prices(row: SeriesRow, count: int = 10) -> list[float | None]:
    return [None if bar is None else bar.price for bar in row.bars(count)]


def test_the_newest_candle_is_shown_with_its_change_from_the_one_before() -> None:
    row = row_of(candle(0, 100.0), candle(1, 102.0))
    assert row.price == 102.0
    assert row.change == pytest.approx(0.02)


def test_the_change_of_the_first_candle_and_after_a_hole_is_from_its_open() -> None:
    assert row_of(candle(0, 99.0, open=100.0)).change == pytest.approx(-0.01)
    assert row_of(candle(0, 50.0), candle(2, 99.0, open=100.0)).change == pytest.approx(-0.01)
    assert row_of(candle(0, None)).change is None


def test_a_revision_replaces_its_candle_and_an_older_one_never_the_newest() -> None:
    row = row_of(candle(0, 1.0), candle(1, 2.0), candle(0, 1.5, revision=1, quality="REPAIRED"))
    assert row.bars(2) == [Bar(1.5, "REPAIRED"), Bar(2.0, "COMPLETE")]
    assert row.newest is not None and not row.newest.is_revision
    row = row_of(candle(1, 2.0), candle(1, 2.5, revision=1))
    assert row.price == 2.5 and row.newest is not None and row.newest.is_revision


def test_a_candle_that_comes_late_takes_its_place_in_time() -> None:
    assert prices(row_of(candle(0, 1.0), candle(3, 4.0), candle(1, 2.0))) == [1.0, 2.0, None, 4.0]


def test_no_more_candles_are_kept_than_the_trend_shows() -> None:
    row = row_of(*(candle(index, float(index)) for index in range(100)), history=5)
    assert prices(row, 50) == [95.0, 96.0, 97.0, 98.0, 99.0]
    assert prices(row, 2) == [98.0, 99.0]


def test_a_candle_in_progress_is_shown_until_it_is_final() -> None:
    row = row_of(candle(0, 1.0), candle(1, 1.2, is_final=False))
    assert row.forming is not None and row.forming["close"] == 1.2 and row.price == 1.0
    row.take(candle(1, 1.3), 0, is_news=True)
    assert row.forming is None and row.price == 1.3
    row.take(candle(1, 1.2, is_final=False), 0, is_news=True)
    assert row.forming is None


def test_lag_is_from_the_close_to_the_arrival_of_what_came_while_we_listened() -> None:
    row = row_of(candle(0, 1.0))
    assert row.lag_s == pytest.approx(0.5)
    row.take(candle(0, 1.1, revision=1), after_close_us(0, 30), is_news=True)
    assert row.lag_s == pytest.approx(0.5)
    row.take(candle(1, 1.0), after_close_us(1, 300), is_news=False)
    assert row.lag_s is None


@pytest.mark.parametrize(("age_s", "lateness"), [(0.5, 0), (64.0, 0), (66.0, 1), (124.0, 1), (126.0, 2)])
def test_a_series_is_late_when_its_next_candle_should_have_come(age_s: float, lateness: int) -> None:
    row, now_us = row_of(candle(0, 1.0)), after_close_us(0, age_s)
    assert row.age_s(now_us) == pytest.approx(age_s)
    assert row.lateness(now_us) == lateness


def test_at_many_times_the_speed_a_few_seconds_of_ours_are_not_late() -> None:
    row = row_of(candle(0, 1.0))
    assert row.lateness(after_close_us(0, 600.0), speed=200.0) == 0
    assert row.lateness(after_close_us(0, 1_200.0), speed=200.0) == 2


def test_a_series_without_a_candle_is_not_late() -> None:
    row = row_of()
    assert (row.age_s(0), row.lateness(10**16), row.bars(5)) == (None, 0, [])


def test_gaps_are_counted_and_what_is_not_shown_is_passed_over() -> None:
    made = board(candle(0, 1.0), candle(0, 9.0, key=ETH))
    made.take(CandleGap(channel=CHANNEL, reason=GapReason.LOST, missing=3), 0, is_news=False)
    made.take(CandleGap(channel=CHANNEL, reason=GapReason.RENUMBERED), 0, is_news=False)
    assert made.missing == 4
    assert (made.candles, made.revisions) == (1, 0)


def test_series_that_stay_keep_what_is_known_of_them() -> None:
    made = board(candle(0, 1.0))
    assert made.is_complete
    made.show({ETH: (Timeframe.M1,), BTC: (Timeframe.M1,)})
    assert made.rows[BTC, Timeframe.M1].price == 1.0
    assert made.has_candles and not made.is_complete


def test_a_chain_of_options_is_shown_by_its_forward() -> None:
    chain = candle(0, 0.0, hft_features={"front_forward": 42_000.5})
    del chain["close"]
    assert row_of(chain).price == 42_000.5


def stream(status: str, *, required: bool = True, gaps: int = 0) -> dict[str, object]:
    return {"status": status, "required": required, "gaps": gaps}


def test_a_feed_is_as_good_as_the_worst_of_its_required_streams() -> None:
    health = {
        "data_types": {
            "trades": {"instruments": {BTC: stream("live", gaps=1), ETH: stream("stale")}},
            "book_snapshot_5": {"instruments": {BTC: stream("waiting", required=False, gaps=2), ETH: stream("live")}},
        }
    }
    assert read_feeds(health) == {BTC: FeedState("live", 3), ETH: FeedState("stale", 0)}
    assert read_feeds({}) == {}

"""Candle borders are aligned to UTC midnight, and every name a user may write is understood."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_data_tick_handler.core.timeframes import (
    ALL_TIMEFRAMES,
    BORDER_US,
    DAY_US,
    Timeframe,
    ceil_us,
    floor_us,
    parse_timeframe,
)
from market_data_tick_handler.errors import ConfigError

moments = st.integers(0, 4_102_444_800_000_000)


@given(moments, st.sampled_from(ALL_TIMEFRAMES))
def test_a_moment_lies_in_its_candle(moment: int, timeframe: Timeframe) -> None:
    start = floor_us(moment, timeframe.us)
    assert start <= moment < start + timeframe.us
    assert (start - floor_us(moment, DAY_US)) % timeframe.us == 0
    assert floor_us(start, timeframe.us) == start == ceil_us(start, timeframe.us)


@given(moments, st.sampled_from(ALL_TIMEFRAMES))
def test_the_next_border_is_the_candle_end_unless_the_moment_is_a_border(moment: int, timeframe: Timeframe) -> None:
    start, end = floor_us(moment, timeframe.us), ceil_us(moment, timeframe.us)
    assert end == (start if moment == start else start + timeframe.us)


@pytest.mark.parametrize("timeframe", ALL_TIMEFRAMES)
def test_every_length_divides_a_day_and_is_made_of_whole_borders(timeframe: Timeframe) -> None:
    assert DAY_US % timeframe.us == 0
    assert timeframe.us % BORDER_US == 0
    assert timeframe.us == timeframe.seconds * 1_000_000


def test_lengths_are_listed_shortest_first_and_two_are_built_from_ticks() -> None:
    lengths = [timeframe.us for timeframe in ALL_TIMEFRAMES]
    assert lengths == sorted(set(lengths))
    assert [timeframe for timeframe in ALL_TIMEFRAMES if timeframe.from_ticks] == [Timeframe.S15, Timeframe.M1]


@pytest.mark.parametrize(
    ("text", "timeframe"),
    [(str(timeframe), timeframe) for timeframe in ALL_TIMEFRAMES]
    + [("1D", Timeframe.H24), (" 60s ", Timeframe.M1), ("60m", Timeframe.H1), ("240M", Timeframe.H4)],
)
def test_names(text: str, timeframe: Timeframe) -> None:
    assert parse_timeframe(text) is timeframe


@pytest.mark.parametrize("text", ["", "2m", "15", "m1", "1w"])
def test_an_unknown_name_is_refused_with_the_known_ones(text: str) -> None:
    with pytest.raises(ConfigError, match="15s 1m 5m 15m 1h 4h 24h"):
        parse_timeframe(text)

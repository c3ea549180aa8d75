"""The arrival clock never goes back, and a border is due exactly when the clock reaches it plus grace."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from market_data_tick_handler.core.timeframes import BORDER_US
from market_data_tick_handler.core.watermark import Watermark

NOON_US = 1_704_110_400_000_000


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 100), st.integers(0, 4))))
def test_the_clock_is_the_maximum_of_everything_seen_and_promised(steps: list[tuple[bool, int, int]]) -> None:
    mark, highest = Watermark(500_000), 0
    for promised, us, rank in steps:
        if promised:
            mark.promise(us)
        else:
            mark.saw(us, rank)
        highest = max(highest, us)
        assert mark.us == highest


def test_a_border_is_due_at_its_time_plus_grace() -> None:
    mark = Watermark(500_000)
    mark.promise(NOON_US + BORDER_US + 499_999)
    assert mark.due() == NOON_US
    mark.promise(NOON_US + BORDER_US + 500_000)
    assert mark.due() == NOON_US + BORDER_US


def test_nothing_is_due_before_the_first_row() -> None:
    assert Watermark(500_000).due() == 0


def test_a_row_may_share_the_time_of_rows_of_its_rank_or_lower_only() -> None:
    mark = Watermark(0)
    mark.saw(10, 2)
    assert [mark.floor_for(rank) for rank in (1, 2, 3)] == [11, 10, 10]
    mark.saw(10, 4)
    assert mark.floor_for(3) == 11
    mark.saw(10, 1)
    assert mark.floor_for(3) == 11
    mark.saw(11, 0)
    assert mark.floor_for(0) == 11


def test_a_promise_leaves_room_for_every_rank_at_its_very_time() -> None:
    mark = Watermark(0)
    mark.saw(10, 4)
    mark.promise(11)
    assert mark.floor_for(0) == 11
    mark.promise(11)
    mark.saw(11, 3)
    mark.promise(11)
    assert mark.floor_for(0) == 12

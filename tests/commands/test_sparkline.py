"""A line of blocks shows where closes were highest and lowest, and where there were none."""

from __future__ import annotations

import math

import pytest

from market_data_tick_handler.commands.sparkline import blocks, sparkline


def test_the_lowest_value_is_the_lowest_block_and_the_highest_the_highest() -> None:
    assert blocks([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]) == "▁▂▃▄▅▆▇█"
    assert blocks([-5.0, 5.0, 0.0]) == "▁█▅"


@pytest.mark.parametrize("missing", [None, math.nan, math.inf])
def test_what_has_no_value_is_a_dot_and_does_not_stretch_the_rest(missing: float | None) -> None:
    assert blocks([1.0, missing, 2.0]) == "▁·█"
    assert blocks([missing]) == "·"


def test_equal_values_lie_in_the_middle_and_none_give_nothing() -> None:
    assert blocks([3.0, 3.0]) == "▄▄"
    assert blocks([]) == ""


def test_values_next_to_each_other_by_rounding_stay_within_the_blocks() -> None:
    low = 0.1 + 0.2
    assert set(blocks([low, math.nextafter(low, 1.0), math.nextafter(math.nextafter(low, 1.0), 1.0)])) <= set(
        "▁▂▃▄▅▆▇█"
    )


def test_each_block_has_its_style() -> None:
    line = sparkline([1.0, None], ["green", "red"])
    assert line.plain == "▄·"
    assert [(span.start, str(span.style)) for span in line.spans] == [(0, "green"), (1, "red")]

"""A comparison reports every difference by kind, on the last revisions, and overlooks nothing but the publication."""

from __future__ import annotations

from typing import Any

import numpy as np

from market_data_tick_handler.core.parity import Kind, ParityReport, compare


def candles(timestamps: list[int], **columns: Any) -> dict[str, np.ndarray]:
    filled = {"close": [1.0] * len(timestamps), "revision": [0] * len(timestamps), **columns}
    return {"timestamp": np.array(timestamps), **{name: np.asarray(values) for name, values in filled.items()}}


def test_equal_series_are_equal_in_any_order_and_with_nulls() -> None:
    report = compare(candles([1, 2], close=[np.nan, 3.0]), candles([2, 1], close=[3.0, -np.nan]))
    assert report.ok and (report.compared, report.equal) == (2, 2)


def test_only_the_last_revision_counts_and_its_number_does_not() -> None:
    left = candles([1, 2, 1], close=[9.0, 2.0, 5.0], revision=[0, 0, 1])
    assert compare(left, candles([1, 2], close=[5.0, 2.0])).ok
    assert compare(candles([1, 1], close=[5.0, 9.0], revision=[2, 1]), candles([1], close=[5.0])).ok
    assert compare(candles([1], timestamp_out=[4]), candles([1], timestamp_out=[5])).ok


def test_each_difference_has_its_kind() -> None:
    left = candles([1, 2, 3, 4], close=[1.0, np.nan, 3.0, 4.0], quality=["A", "A", "A", "A"])
    right = candles([2, 3, 4, 5], close=[2.0, np.nextafter(3.0, 4.0), 4.0, 5.0], quality=["A", "A", "B", "A"])
    report = compare(left, right)
    assert not report.ok
    assert (report.compared, report.equal) == (3, 0)
    assert report.by_kind() == {
        "only left": 1,
        "only right": 1,
        "null: close": 1,
        "value: close": 1,
        "value: quality": 1,
    }
    value = next(item for item in report.differences if item.kind is Kind.VALUE and item.column == "close")
    assert (value.timestamp, value.left, value.right) == (3, 3.0, np.nextafter(3.0, 4.0))


def test_floats_are_compared_by_their_bits() -> None:
    assert not compare(candles([1], close=[0.0]), candles([1], close=[-0.0])).ok


def test_a_column_of_one_side_makes_every_candle_differ() -> None:
    report = compare(candles([1, 2], extra=[1, 2]), candles([1, 2]))
    assert report.by_kind() == {"column missing: extra": 1}
    assert (report.compared, report.equal) == (2, 0)


def test_a_missing_candle_is_no_match_even_if_everything_else_is() -> None:
    report = compare(candles([1, 2]), candles([1]))
    assert not report.ok and report.equal == report.compared == 1


def test_reports_of_several_series_add_up() -> None:
    total = ParityReport()
    total.add(compare(candles([1]), candles([1])))
    total.add(compare(candles([1]), candles([1, 2], close=[2.0, 2.0])))
    assert (total.compared, total.equal, len(total.differences)) == (2, 1, 2)


def test_nothing_compared_with_nothing_is_equal() -> None:
    report = compare(candles([]), candles([]))
    assert report.ok and report.compared == 0

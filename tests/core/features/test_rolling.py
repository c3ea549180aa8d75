"""Windows: what a plain loop over each window gives, bit for bit, in blocks of any size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_data_tick_handler.core.features import rolling

HISTORY = 20
WIDTHS = (1, 5, 20)


def runs_of(row: np.ndarray, size: int) -> np.ndarray:
    out = np.empty(size + 1, np.int64)
    rolling.run_lengths(row, 0, out)
    return out[1:]


def left_to_right(values: np.ndarray) -> float:
    total = 0.0
    for value in values:
        total += float(value)
    return total


@given(st.integers(0, 2**32), st.integers(1, 60), st.sampled_from(WIDTHS))
def test_sums_and_deviations_equal_a_left_to_right_loop(seed: int, size: int, width: int) -> None:
    row = np.random.default_rng(seed).normal(40_000.0, 50.0, HISTORY + size)
    runs = runs_of(row, size)
    total, mean, squares = np.empty(size), np.empty(size), np.empty(size)
    rolling.window_sum(row, width, total)
    rolling.window_mean(row, runs, width, mean)
    rolling.window_squares(row, mean, width, squares)
    for k in range(size):
        window = row[HISTORY + k + 1 - width : HISTORY + k + 1]
        assert total[k] == left_to_right(window)
        expected = left_to_right(window) / width if width > 1 else window[0]
        assert mean[k] == expected
        assert squares[k] == left_to_right(np.array([(x - expected) * (x - expected) for x in window]))


@given(st.integers(0, 2**32), st.integers(1, 40))
def test_products_take_rows_with_histories_of_different_length(seed: int, size: int) -> None:
    random = np.random.default_rng(seed)
    x, y = random.normal(size=HISTORY + size), random.normal(size=HISTORY - 1 + size)
    x_mean, y_mean, out = random.normal(size=size), random.normal(size=size), np.empty(size)
    rolling.window_products(x, x_mean, y, y_mean, 5, out)
    for k in range(size):
        xs, ys = x[HISTORY + k - 4 : HISTORY + k + 1], y[HISTORY + k - 5 : HISTORY + k]
        assert out[k] == left_to_right((xs - x_mean[k]) * (ys - y_mean[k]))


@pytest.mark.parametrize("value", [0.1, 42_000.12, 1e-9, 1e12])
def test_a_flat_window_has_the_value_as_mean_and_no_deviation(value: float) -> None:
    row = np.full(HISTORY + 30, value)
    runs, mean, squares = runs_of(row, 30), np.empty(30), np.empty(30)
    rolling.window_mean(row, runs, 20, mean)
    rolling.window_squares(row, mean, 20, squares)
    assert (mean[19:] == value).all()
    assert (squares[19:] == 0.0).all()


def test_runs_go_on_across_blocks_and_end_at_a_change() -> None:
    row = np.array([7.0] * HISTORY + [7.0, 7.0, 8.0, 8.0])
    out = np.empty(5, np.int64)
    rolling.run_lengths(row, 3, out)
    assert out.tolist() == [3, 4, 5, 1, 2]


def test_nulls_are_left_out_of_the_mean_of_present_values() -> None:
    row = np.array([0.0] * 15 + [np.nan, 2.0, np.nan, 4.0, np.nan] + [np.nan])
    out = np.empty(1)
    rolling.window_mean_present(row, 5, out)
    assert out[0] == 3.0
    rolling.window_mean_present(row, 1, out)
    assert np.isnan(out[0])


def test_warm_up_is_null_and_counts_candles_before_the_block() -> None:
    column = np.empty(3)
    rolling.publish(np.array([1.0, 2.0, 3.0]), 8, 9, column)
    assert np.isnan(column[0])
    assert column[1:].tolist() == [2.0, 3.0]


def test_infinity_becomes_null() -> None:
    values = np.array([1.0, np.inf, -np.inf, np.nan])
    rolling.null_unless_finite(values)
    assert np.isnan(values[1:]).all()
    assert values[0] == 1.0

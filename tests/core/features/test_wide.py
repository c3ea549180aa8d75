"""Sums of squares stay exact beyond 64 bits, checked against Python's integers."""

from __future__ import annotations

import math
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from market_data_tick_handler.core.features import wide

WORD = 1 << 63
value = st.integers(-(2**61), 2**61) | st.integers(-3_000_000_001, 3_000_000_001) | st.integers(-3, 3)


def split(number: int) -> tuple[int, int]:
    return number % WORD, number // WORD


@given(st.lists(value, max_size=12))
def test_squares_add_up_exactly(values: list[int]) -> None:
    low = high = 0
    for x in values:
        low, high = wide.add_square(low, high, x)
    assert (low, high) == split(sum(x * x for x in values))


@given(st.integers(0, 2**62 - 1), st.integers(0, 2**62 - 1))
def test_a_product_is_exact(a: int, b: int) -> None:
    assert wide.multiply(a, b) == split(a * b)


@given(st.integers(0, 2**120), st.integers(0, 2**120))
def test_sum_and_difference_are_exact(a: int, b: int) -> None:
    assert wide.add(*split(a), *split(b)) == split(a + b)
    assert wide.subtract(*split(max(a, b)), *split(min(a, b))) == split(abs(a - b))


@given(st.lists(st.integers(-(10**14), 10**14) | st.integers(-50, 50), min_size=2, max_size=40))
def test_sample_deviation_is_that_of_exact_arithmetic(values: list[int]) -> None:
    low = high = 0
    for x in values:
        low, high = wide.add_square(low, high, x)
    n, total = len(values), sum(values)
    exact = Fraction(n * sum(x * x for x in values) - total * total, n * (n - 1))
    assert math.isclose(wide.sample_std(n, total, low, high), math.sqrt(exact), rel_tol=1e-12, abs_tol=1e-6)


def test_a_tiny_spread_far_from_zero_is_not_cancelled_away() -> None:
    values = [10**14, 10**14 + 1, 10**14 + 2]
    low = high = 0
    for x in values:
        low, high = wide.add_square(low, high, x)
    assert wide.sample_std(3, sum(values), low, high) == 1.0


def test_equal_values_deviate_by_nothing() -> None:
    low = high = 0
    for _ in range(7):
        low, high = wide.add_square(low, high, 123_456_789_012)
    assert wide.sample_std(7, 7 * 123_456_789_012, low, high) == 0.0

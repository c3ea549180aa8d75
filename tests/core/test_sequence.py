"""Numbers that never came are told once, with their neighbours' times; late, repeated and restarted ones are not."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from market_data_tick_handler.core.sequence import Hole, SequenceWatch

S = 1_000_000
T0 = 1_704_067_200 * S


def observe(watch: SequenceWatch, numbers: list[int], local_us: list[int] | int = T0) -> list[Hole]:
    times = [local_us] * len(numbers) if isinstance(local_us, int) else local_us
    return watch.observe(np.array(numbers, np.int64), np.array(times, np.int64))


def test_a_stream_without_holes_says_nothing() -> None:
    watch = SequenceWatch()
    for start in range(1, 1_000, 10):
        assert observe(watch, list(range(start, start + 10))) == []
    assert watch.expire(T0 + 3_600 * S) == []
    assert (watch.high, watch.duplicates, watch.missing) == (1_000, 0, 0)


def test_a_hole_is_told_after_the_patience_with_the_arrivals_of_its_neighbours() -> None:
    watch = SequenceWatch(patience_us=S)
    observe(watch, [1, 2, 3], [T0, T0 + 1, T0 + 2])
    observe(watch, [7, 8], [T0 + 5, T0 + 6])
    assert watch.waits
    assert watch.expire(T0 + 5 + S - 1) == []
    assert watch.expire(T0 + 5 + S) == [Hole(4, 6, T0 + 2, T0 + 5)]
    assert watch.expire(T0 + 60 * S) == []
    assert (watch.missing, watch.waits) == (3, False)


def test_holes_within_one_batch_have_the_times_of_their_own_neighbours() -> None:
    watch = SequenceWatch()
    observe(watch, [1, 3, 4, 9], [T0, T0 + 10, T0 + 20, T0 + 30])
    assert watch.expire(T0 + 2 * S) == [Hole(2, 2, T0, T0 + 10), Hole(5, 8, T0 + 20, T0 + 30)]


def test_numbers_that_come_late_but_in_time_leave_no_hole() -> None:
    watch = SequenceWatch(patience_us=S)
    observe(watch, [1, 2, 5])
    observe(watch, [4, 3], T0 + S // 2)
    assert watch.expire(T0 + 10 * S) == []
    assert watch.duplicates == 0


def test_a_hole_that_is_filled_in_part_is_told_in_its_rest() -> None:
    watch = SequenceWatch(patience_us=S)
    observe(watch, [1, 10], [T0, T0 + 5])
    observe(watch, [4, 5, 9], T0 + 6)
    assert watch.expire(T0 + 2 * S) == [Hole(2, 3, T0, T0 + 5), Hole(6, 8, T0, T0 + 5)]


def test_duplicates_are_counted_and_change_nothing() -> None:
    watch = SequenceWatch()
    observe(watch, [1, 2, 3])
    observe(watch, [1, 2, 3, 3, 4])
    observe(watch, [4, 4])
    assert watch.expire(T0 + 10 * S) == []
    assert (watch.high, watch.duplicates) == (4, 6)


def test_two_connections_that_deliver_the_same_numbers_side_by_side_leave_no_hole() -> None:
    watch = SequenceWatch()
    observe(watch, [100, 101])
    observe(watch, [99, 100, 101, 102, 103])
    observe(watch, [102, 103, 104])
    assert watch.expire(T0 + 10 * S) == []
    assert watch.high == 104


def test_a_number_far_below_starts_a_new_count_and_gives_up_what_was_waited_for() -> None:
    watch = SequenceWatch(restart_below=1_000)
    observe(watch, [50_000, 50_002], [T0, T0 + 1])
    assert observe(watch, [50_003, 1, 2, 3], T0 + 2) == [Hole(50_001, 50_001, T0, T0 + 1)]
    assert (watch.high, watch.restarts) == (3, 1)
    observe(watch, [5], T0 + 3)
    assert watch.expire(T0 + 10 * S) == [Hole(4, 4, T0 + 2, T0 + 3)]


def test_the_hole_over_a_known_interruption_is_marked() -> None:
    watch = SequenceWatch()
    observe(watch, [1, 2, 3])
    watch.interrupted()
    observe(watch, [10, 12], T0 + S)
    first, second = watch.expire(T0 + 10 * S)
    assert (first.first, first.last, first.across_outage) == (4, 9, True)
    assert (second.first, second.last, second.across_outage) == (11, 11, False)


def test_an_interruption_without_a_hole_marks_no_later_hole() -> None:
    watch = SequenceWatch()
    observe(watch, [1, 2])
    watch.interrupted()
    observe(watch, [3, 4])
    observe(watch, [6])
    assert [hole.across_outage for hole in watch.expire(T0 + 10 * S)] == [False]


def test_an_interruption_before_the_first_number_is_none() -> None:
    watch = SequenceWatch()
    watch.interrupted()
    observe(watch, [5, 7])
    assert [hole.across_outage for hole in watch.expire(T0 + 10 * S)] == [False]


def test_more_open_holes_than_are_waited_for_are_told_early_oldest_first() -> None:
    watch = SequenceWatch(max_open=3)
    early = observe(watch, [1, 3, 5, 7, 9, 11])
    assert [hole.first for hole in early] == [2, 4]
    assert [hole.first for hole in watch.expire(T0 + 10 * S)] == [6, 8, 10]
    assert watch.missing == 5


@given(st.lists(st.integers(1, 300), min_size=1, max_size=300), st.integers(1, 40), st.randoms(use_true_random=False))
def test_whatever_the_order_and_the_batches_exactly_the_missing_numbers_are_told(
    numbers: list[int], size: int, chance: random.Random
) -> None:
    """Against a set: of the range from the first number seen to the highest, what never came."""
    chance.shuffle(numbers)
    watch = SequenceWatch(max_open=10_000)
    for start in range(0, len(numbers), size):
        assert observe(watch, numbers[start : start + size], T0 + start) == []
    told = [number for hole in watch.expire(T0 + 10 * S) for number in range(hole.first, hole.last + 1)]
    assert told == [number for number in range(numbers[0], max(numbers)) if number not in set(numbers)]
    assert watch.missing == len(told)
    below = [number for number in numbers if number < numbers[0]]
    assert watch.duplicates == len(numbers) - len(set(numbers)) + len(set(below))

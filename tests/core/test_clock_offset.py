"""The smallest difference lately seen is the offset of the clocks, and it follows when one of them is set."""

from __future__ import annotations

import numpy as np
import pytest

from market_data_tick_handler.core.clock_offset import ClockOffset

S = 1_000_000
T0 = 1_704_067_200 * S


class Feed:
    """Rows every 10 ms whose delays are `least_us` and more; the local clock is ahead of the venue's by `ahead_us`."""

    def __init__(self, offset: ClockOffset, least_us: int = 2_000) -> None:
        self.offset = offset
        self.ahead_us = 0
        self.now_us = T0
        self._least_us = least_us
        self._random = np.random.default_rng(3)

    def run(self, seconds: float) -> None:
        for _ in range(int(seconds * 10)):
            exchange_us = self.now_us + np.arange(10) * 10_000
            delays = self._least_us + self._random.exponential(20_000, 10).astype(np.int64)
            delays[0] = self._least_us
            self.offset.observe(np.maximum.accumulate(exchange_us + delays) + self.ahead_us, exchange_us)
            self.now_us += S // 10


def test_nothing_is_known_before_the_first_row() -> None:
    offset = ClockOffset()
    offset.observe(np.array([], np.int64), np.array([], np.int64))
    offset.observe(np.array([T0]), np.array([0]))
    assert offset.offset_us is None


@pytest.mark.parametrize("ahead_us", [0, 3 * S, -5 * S])
def test_the_offset_is_the_smallest_difference(ahead_us: int) -> None:
    feed = Feed(ClockOffset())
    feed.ahead_us = ahead_us
    feed.run(30.0)
    assert feed.offset.offset_us == ahead_us + 2_000
    assert feed.offset.steps == 0


def test_a_local_clock_set_back_shows_at_once() -> None:
    feed = Feed(ClockOffset())
    feed.run(30.0)
    feed.ahead_us = -2 * S
    feed.run(0.1)
    assert feed.offset.offset_us == -2 * S + 2_000


def test_a_local_clock_set_forward_shows_within_two_windows() -> None:
    feed = Feed(ClockOffset(window_us=5 * S, windows=100))
    feed.run(60.0)
    feed.ahead_us = 3 * S
    feed.run(11.0)
    assert feed.offset.offset_us == 3 * S + 2_000
    assert feed.offset.steps == 1


def test_a_drift_is_followed_as_old_windows_are_forgotten() -> None:
    feed = Feed(ClockOffset(window_us=S, windows=5))
    for ms in range(60):
        feed.ahead_us = ms * 1_000
        feed.run(1.0)
    assert 52_000 < (feed.offset.offset_us or 0) < 62_000
    assert feed.offset.steps == 0


def test_a_window_with_a_handful_of_slow_rows_is_no_step() -> None:
    offset = ClockOffset(window_us=S, windows=100)
    offset.observe(np.array([T0]), np.array([T0 - 1_000]))
    for second in range(1, 20):
        at_us = T0 + second * S
        offset.observe(np.array([at_us]), np.array([at_us - 900_000]))
    assert (offset.offset_us, offset.steps) == (1_000, 0)


def test_memory_does_not_grow_with_time() -> None:
    feed = Feed(ClockOffset(window_us=S, windows=4))
    feed.run(60.0)
    assert len(feed.offset._minima) <= 4

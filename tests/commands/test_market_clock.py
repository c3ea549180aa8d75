"""Ages are counted on the clock of the service, be it ours, another machine's or a simulated one."""

from __future__ import annotations

from market_data_tick_handler.commands.market_clock import MarketClock

NOW_US = 1_760_000_000_000_000


class Own:
    """The clock of this machine, moved by the test."""

    def __init__(self) -> None:
        self.s = 100.0

    def now_us(self) -> int:
        return NOW_US + int((self.s - 100.0) * 1e6)

    def monotonic_s(self) -> float:
        return self.s

    async def sleep(self, seconds: float) -> None:
        self.s += seconds


def test_a_service_of_nearly_the_same_time_has_our_clock() -> None:
    own = Own()
    clock = MarketClock(own)
    assert not clock.note(NOW_US + 30_000, at_s=100.0)
    assert clock.is_own and clock.now_us() == NOW_US


def test_another_time_is_kept_and_goes_on_between_two_reports() -> None:
    own = Own()
    clock = MarketClock(own)
    clock.note(NOW_US - 3_000_000, at_s=100.0)
    own.s += 1.5
    assert not clock.is_own
    assert clock.now_us() == NOW_US - 1_500_000
    assert clock.at_us(99.0) == NOW_US - 4_000_000


def test_a_clock_that_runs_faster_is_followed_once_it_was_seen_twice() -> None:
    own = Own()
    clock = MarketClock(own)
    clock.note(1_000_000_000, at_s=100.0)
    own.s = 102.0
    clock.note(1_400_000_000, at_s=102.0)
    own.s = 103.0
    assert clock.speed == 200.0
    assert clock.now_us() == 1_600_000_000


def test_small_errors_of_measuring_do_not_make_a_clock_faster() -> None:
    own = Own()
    clock = MarketClock(own)
    clock.note(1_000_000_000, at_s=100.0)
    own.s = 102.0
    clock.note(1_002_050_000, at_s=102.0)
    assert clock.speed == 1.0
    assert clock.now_us() == 1_002_050_000


def test_a_simulation_that_starts_anew_is_told_from_one_that_goes_on() -> None:
    own = Own()
    clock = MarketClock(own)
    assert not clock.note(1_000_000_000, at_s=100.0)
    own.s = 102.0
    assert clock.note(5_000_000, at_s=102.0)
    assert (clock.speed, clock.now_us()) == (1.0, 5_000_000)
    own.s = 104.0
    assert not clock.note(7_000_000, at_s=104.0)


def test_it_comes_back_to_our_clock_when_the_service_does() -> None:
    own = Own()
    clock = MarketClock(own)
    clock.note(1_000_000_000, at_s=100.0)
    own.s = 102.0
    clock.note(own.now_us(), at_s=102.0)
    assert clock.is_own and clock.speed == 1.0

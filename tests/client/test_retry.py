"""Failures are followed by waits that grow, are random, are bounded, and end when one has said so."""

from __future__ import annotations

import pytest

from market_data_tick_handler.client.retry import LONGEST_WAIT_S, ClientTiming, Retry
from market_data_tick_handler.errors import SourceUnavailable
from market_data_tick_handler.testing import ManualClock

TIMING = ClientTiming(backoff_base_s=0.1, backoff_cap_s=5.0)
ERROR = ConnectionRefusedError("nobody there")


async def waits(retry: Retry, clock: ManualClock, count: int, *, at_least_s: float = 0.0) -> list[float]:
    found = []
    for _ in range(count):
        before_s = clock.monotonic_s()
        await retry.pause(ERROR, "a place", at_least_s=at_least_s)
        found.append(clock.monotonic_s() - before_s)
    return found


async def test_waits_are_drawn_from_a_range_that_doubles_up_to_a_bound() -> None:
    clock = ManualClock(auto=True)
    many = [await waits(Retry(clock, TIMING, None), clock, 8) for _ in range(200)]
    for number, column in enumerate(zip(*many, strict=True), start=1):
        ceiling_s = min(5.0, 0.1 * 2**number)
        assert max(column) <= ceiling_s + 1e-6
        # All of the range is used: who fails together does not come back together.
        assert max(column) > 0.8 * ceiling_s and min(column) < 0.2 * ceiling_s


async def test_an_outage_of_days_is_no_reason_to_stop() -> None:
    clock = ManualClock(auto=True)
    retry = Retry(clock, TIMING, None)
    found = await waits(retry, clock, 3_000)
    assert max(found) <= 5.0 and retry.failures == 3_000


async def test_what_the_server_asks_for_is_waited_within_reason() -> None:
    clock = ManualClock(auto=True)
    assert (await waits(Retry(clock, TIMING, None), clock, 1, at_least_s=20.0)) == [20.0]
    assert (await waits(Retry(clock, TIMING, None), clock, 1, at_least_s=1e9)) == [LONGEST_WAIT_S]


async def test_the_time_that_is_allowed_is_used_up_and_no_more() -> None:
    clock = ManualClock(auto=True)
    retry = Retry(clock, TIMING, 10.0)
    with pytest.raises(
        SourceUnavailable, match=r"a place: no connection for 10 s.*ConnectionRefusedError: nobody there"
    ):
        await waits(retry, clock, 1_000)
    assert clock.monotonic_s() == pytest.approx(10.0)


async def test_a_connection_that_works_starts_the_time_anew() -> None:
    clock = ManualClock(auto=True)
    retry = Retry(clock, TIMING, 10.0)
    for _ in range(5):
        await waits(retry, clock, 3, at_least_s=3.0)
        retry.succeed()
    assert clock.monotonic_s() >= 45.0 and retry.failures == 0

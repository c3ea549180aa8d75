"""ManualClock: time moves only as told, sleeps end in order."""

from __future__ import annotations

import asyncio

import pytest

from market_data_tick_handler.testing import ManualClock


async def test_time_stands_still_until_it_is_moved() -> None:
    clock = ManualClock(1_000_000)
    assert (clock.now_us(), clock.monotonic_s()) == (1_000_000, 0.0)
    clock.move(2.5)
    assert (clock.now_us(), clock.monotonic_s()) == (3_500_000, 2.5)


async def test_time_does_not_go_back() -> None:
    with pytest.raises(ValueError, match="back"):
        ManualClock().move(-1)


async def test_sleeps_end_in_the_order_of_their_times_and_tasks_run_between() -> None:
    clock = ManualClock()
    seen: list[tuple[str, float]] = []

    async def beat(name: str, every: float, times: int) -> None:
        for _ in range(times):
            await clock.sleep(every)
            seen.append((name, clock.monotonic_s()))

    async with asyncio.TaskGroup() as group:
        group.create_task(beat("slow", 3, 2), name="slow")
        group.create_task(beat("fast", 2, 3), name="fast")
        await clock.advance(4.5)
        assert seen == [("fast", 2.0), ("slow", 3.0), ("fast", 4.0)]
        assert clock.sleeping == 2
        await clock.advance(10)
    assert seen[3:] == [("slow", 6.0), ("fast", 6.0)]
    assert clock.monotonic_s() == 14.5


async def test_an_automatic_clock_jumps_when_everybody_sleeps() -> None:
    clock = ManualClock(auto=True)
    seen: list[float] = []

    async def beat(every: float) -> None:
        for _ in range(3):
            await clock.sleep(every)
            seen.append(clock.monotonic_s())

    await asyncio.gather(beat(10), beat(4))
    assert seen == [4.0, 8.0, 10.0, 12.0, 20.0, 30.0]
    await clock.sleep(5)
    assert clock.monotonic_s() == 35.0


@pytest.mark.parametrize("auto", [False, True])
async def test_a_cancelled_sleep_holds_nobody_up(auto: bool) -> None:
    clock = ManualClock(auto=auto)
    task = asyncio.create_task(clock.sleep(3_600), name="cancelled")
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert clock.sleeping == 0
    await clock.advance(1)
    assert clock.monotonic_s() == 1.0


async def test_a_sleep_of_zero_only_gives_way() -> None:
    clock = ManualClock()
    await clock.sleep(0)
    assert clock.monotonic_s() == 0.0

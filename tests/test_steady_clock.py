"""Time passes for those who sleep, and not while the machine does something else."""

from __future__ import annotations

import asyncio
import itertools
import time
from pathlib import Path

import pytest

from streaming_service.clock import ScaledClock
from tests import steady_clock
from tests.steady_clock import CREEP, MOST_S, FollowingClock, KeptClock, SteadyClock
from tests.waiting import patience, until


class Wall:
    """The machine's clock, ahead by what it did besides."""

    def __init__(self) -> None:
        self.busy_s = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.busy_s


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    wall = Wall()
    monkeypatch.setattr(steady_clock, "time", wall)
    return wall


async def test_a_busy_machine_takes_no_time_from_anybody(wall: Wall) -> None:
    base = SteadyClock()
    clock = ScaledClock(start_us=0, speed=20.0, base=base)
    async with patience("a sleep"):
        await clock.sleep(1.0)
    assert clock.monotonic_s() >= 1.0
    sleeping = asyncio.create_task(clock.sleep(100.0))
    before_s = base.monotonic_s()
    for _ in range(5):
        wall.busy_s += 3.0
        assert before_s <= base.monotonic_s() <= before_s + MOST_S + 2 * CREEP * wall.busy_s
    assert not sleeping.done()
    sleeping.cancel()


async def test_sleepers_wake_in_the_order_of_their_ends() -> None:
    clock = SteadyClock()
    woken: list[float] = []

    async def sleep(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(seconds)

    async with patience("three sleepers"):
        await asyncio.gather(*map(sleep, (0.03, 0.01, 0.02)))
    assert woken == [0.01, 0.02, 0.03]


async def test_whoever_gives_up_sleeping_keeps_nobody_else_from_it() -> None:
    clock = SteadyClock()
    tired = asyncio.create_task(clock.sleep(0.001))
    await asyncio.sleep(0)
    tired.cancel()
    async with patience("a sleep after one that was given up"):
        await clock.sleep(0.01)
    assert tired.cancelled()


def test_the_sleepers_of_one_loop_are_forgotten_in_the_next() -> None:
    clock = SteadyClock()

    async def leave_behind() -> None:
        asyncio.get_running_loop().call_soon(asyncio.ensure_future, clock.sleep(1.0))
        await clock.sleep(0.001)

    asyncio.run(leave_behind())
    asyncio.run(asyncio.wait_for(clock.sleep(0.001), 60.0))


async def test_two_processes_have_one_time_and_wait_for_each_other(tmp_path: Path) -> None:
    kept = KeptClock(tmp_path / "clock")
    await kept.sleep(0.01)
    following = FollowingClock(kept.path)
    assert abs(following.monotonic_s() - kept.monotonic_s()) <= 2 * MOST_S
    async with patience("two sleepers"):
        await asyncio.gather(kept.sleep(0.2), following.sleep(0.2))
    # Nobody sleeps by the follower's clock now, as if its process stood still: the keeper's time stands still as well.
    left_s = following.monotonic_s()
    sleeping = asyncio.create_task(kept.sleep(10.0))
    looks = itertools.count()
    await until(lambda: next(looks) > 100)
    assert kept.monotonic_s() <= left_s + 4 * MOST_S
    kept.alone()
    await until(lambda: kept.monotonic_s() > left_s + 10 * MOST_S, "time that goes on")
    sleeping.cancel()


async def test_a_time_that_is_being_written_is_not_read(tmp_path: Path) -> None:
    kept = KeptClock(tmp_path / "clock")
    await kept.sleep(0.01)
    following = FollowingClock(kept.path)
    before_s = following.monotonic_s()
    told = kept.path.read_bytes()
    for zeros in (8, 16):
        kept.path.write_bytes(bytes(zeros) + told[zeros:])
        assert before_s <= following.monotonic_s() <= before_s + 2 * MOST_S
        kept.path.write_bytes(told[:8] + bytes(8) + told[16:])
        assert before_s <= following.monotonic_s() <= before_s + 2 * MOST_S


def test_it_keeps_time_on_the_event_loop_of_the_service_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its handles of calls that are due at once are of another kind than asyncio's."""
    uvloop = pytest.importorskip("uvloop")
    monkeypatch.setattr(steady_clock, "_LEAST_S", 0.0001)

    async def sleepers() -> None:
        clock = SteadyClock()
        for _ in range(20):
            await asyncio.gather(clock.sleep(0.0001), clock.sleep(0.0001), clock.sleep(0.002))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(sleepers(), 60.0))

"""Time as the live application sees it; `SystemClock` is the only place that reads the wall clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, Protocol

SECOND_US: Final = 1_000_000


class Clock(Protocol):
    """Time of the service. Sleeping is part of it, so that tests and simulations own both."""

    def now_us(self) -> int:
        """Microseconds since the epoch, UTC."""
        ...

    def monotonic_s(self) -> float:
        """Seconds since some fixed point; never goes back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return once `seconds` of this clock have passed."""
        ...


class SystemClock:
    """The machine's clock."""

    __slots__ = ()

    def now_us(self) -> int:
        return time.time_ns() // 1_000

    def monotonic_s(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class ScaledClock:
    """A clock that stood at `start_us` when `base.monotonic_s()` stood at `origin_s` (default: now), and runs `speed`
    times as fast: simulations and paced replays."""

    __slots__ = ("_base", "_origin_s", "_start_us", "speed")

    def __init__(
        self, *, start_us: int, speed: float, base: Clock | None = None, origin_s: float | None = None
    ) -> None:
        if not speed > 0:
            raise ValueError(f"speed must be above 0, came {speed}; use 1 for real time")
        self._base: Clock = SystemClock() if base is None else base
        self._origin_s = self._base.monotonic_s() if origin_s is None else origin_s
        self._start_us = start_us
        self.speed = speed

    def now_us(self) -> int:
        return self._start_us + int(self.monotonic_s() * SECOND_US)

    def monotonic_s(self) -> float:
        return (self._base.monotonic_s() - self._origin_s) * self.speed

    async def sleep(self, seconds: float) -> None:
        await self._base.sleep(seconds / self.speed)


class DataClock:
    """The time that recorded data has reached, as `read_us` tells it.

    `speed`: seconds of data per second of `base` where the data is paced, which is what sleeping goes by. Where it
    comes as fast as it can there is no such number, and sleeping is done in seconds of `base`.
    """

    __slots__ = ("_base", "_read_us", "speed")

    def __init__(self, read_us: Callable[[], int], *, speed: float = 1.0, base: Clock | None = None) -> None:
        self._read_us = read_us
        self._base: Clock = SystemClock() if base is None else base
        self.speed = speed

    def now_us(self) -> int:
        return self._read_us()

    def monotonic_s(self) -> float:
        return self._base.monotonic_s() * self.speed

    async def sleep(self, seconds: float) -> None:
        await self._base.sleep(seconds / self.speed)

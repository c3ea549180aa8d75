"""The time a simulated exchange lives by."""

from __future__ import annotations

import asyncio
from typing import Protocol


class Clock(Protocol):
    """`now_us()` in microseconds since the epoch, UTC, and a sleep of the same time. `ManualClock` is one."""

    def now_us(self) -> int: ...

    async def sleep(self, seconds: float) -> None: ...


class LoopClock:
    """Runs with the event loop's own clock, from `start_us` on: real sleeps, no reading of wall-clock time."""

    def __init__(self, start_us: int) -> None:
        self._start_us = start_us
        self._origin_s: float | None = None

    def now_us(self) -> int:
        """Microseconds since the epoch; `start_us` at the first call."""
        now_s = asyncio.get_running_loop().time()
        if self._origin_s is None:
            self._origin_s = now_s
        return self._start_us + round((now_s - self._origin_s) * 1_000_000)

    async def sleep(self, seconds: float) -> None:
        """Real sleep."""
        await asyncio.sleep(seconds)

"""A clock that moves only when a test says so, or, if asked to, whenever everybody sleeps."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from typing import Final

_SECOND_US: Final = 1_000_000
# Turns of the event loop granted to tasks that are not asleep before time moves.
_SETTLE_TURNS: Final = 8


class ManualClock:
    """Virtual time with the clock interface of the live service: `now_us()`, `monotonic_s()`, `await sleep(seconds)`.

    start_us: first value of `now_us()`; `monotonic_s()` starts at 0.
    auto: when every task has had its turns and some sleep, jump to the earliest end of a sleep. Without it, time
        stands still until `advance` or `move`.
    """

    def __init__(self, start_us: int = 0, *, auto: bool = False) -> None:
        self._start_us = start_us
        self._elapsed_us = 0
        self._auto = auto
        self._jumping = False
        self._order = itertools.count()
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []

    def now_us(self) -> int:
        """Virtual microseconds since the epoch, UTC."""
        return self._start_us + self._elapsed_us

    def monotonic_s(self) -> float:
        """Virtual seconds since the clock was made."""
        return self._elapsed_us / _SECOND_US

    @property
    def sleeping(self) -> int:
        """How many tasks wait for this clock."""
        return sum(not sleeper.done() for _, _, sleeper in self._sleepers)

    async def sleep(self, seconds: float) -> None:
        """Return once `seconds` of virtual time have passed; 0 gives other tasks a turn."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        loop = asyncio.get_running_loop()
        sleeper = loop.create_future()
        until_us = self._elapsed_us + max(round(seconds * _SECOND_US), 1)
        heapq.heappush(self._sleepers, (until_us, next(self._order), sleeper))
        if self._auto and not self._jumping:
            self._jumping = True
            loop.call_soon(self._settle, loop, _SETTLE_TURNS)
        await sleeper

    def move(self, seconds: float) -> None:
        """Go on by `seconds` at once and wake everybody whose sleep is over."""
        self._move_to(self._elapsed_us + round(seconds * _SECOND_US))

    async def advance(self, seconds: float) -> None:
        """Go on by `seconds`, stopping at the end of each sleep so that tasks run, and sleep again, in time order."""
        target_us = self._elapsed_us + round(seconds * _SECOND_US)
        await self._turns()
        while self._forget_done() and self._sleepers[0][0] <= target_us:
            self._move_to(self._sleepers[0][0])
            await self._turns()
        self._move_to(target_us)
        await self._turns()

    def _move_to(self, elapsed_us: int) -> None:
        if elapsed_us < self._elapsed_us:
            raise ValueError(f"time must not go back: at {self._elapsed_us} us, asked for {elapsed_us} us")
        self._elapsed_us = elapsed_us
        while self._sleepers and self._sleepers[0][0] <= elapsed_us:
            _, _, sleeper = heapq.heappop(self._sleepers)
            if not sleeper.done():
                sleeper.set_result(None)

    def _settle(self, loop: asyncio.AbstractEventLoop, turns: int) -> None:
        if turns:
            loop.call_soon(self._settle, loop, turns - 1)
            return
        if self._forget_done():
            self._move_to(self._sleepers[0][0])
        if self._forget_done():
            loop.call_soon(self._settle, loop, _SETTLE_TURNS)
        else:
            self._jumping = False

    def _forget_done(self) -> bool:
        """Drop cancelled sleepers from the front; whether any remains."""
        while self._sleepers and self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)
        return bool(self._sleepers)

    async def _turns(self) -> None:
        for _ in range(_SETTLE_TURNS):
            await asyncio.sleep(0)

"""Time that waits for those who live in it: what a busy machine takes away passes for nobody.

A service that runs at twenty times the speed of the market would take half a second in which the machine does something
else for an outage of ten. The event loop tells how far time may go: each of its beats adds what passed since the last
one, but hardly more than a little. Who reads the time, or sleeps, sees a machine that is never busy.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import mmap
import struct
import time
from pathlib import Path
from typing import Final

# The most that a beat counts, seconds of the wall; two of them in this time.
MOST_S: Final = 0.01
# What lies behind that passes this slowly, so that what is stamped later has a later time even then.
CREEP: Final = 0.01
_LEAST_S: Final = 0.0005

_PAIR: Final = struct.Struct("dd")
_ONE: Final = struct.Struct("d")


class SteadyClock:
    """Seconds of the wall without its busy moments: the base of a `ScaledClock`. Time stands still unless somebody
    sleeps. most_s: of the wall, what may pass between two beats at full speed."""

    def __init__(self, *, most_s: float = MOST_S) -> None:
        self._most_s = most_s
        self._beat: tuple[float, float] = (0.0, time.monotonic())
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._next: asyncio.Handle | None = None
        self._next_s = 0.0

    def now_us(self) -> int:
        return int(self.monotonic_s() * 1_000_000)

    def monotonic_s(self) -> float:
        return self._since(self._beat)

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            # Whoever slept in a loop that is closed does so for ever.
            self._loop, self._next = loop, None
            self._sleepers.clear()
        end_s, woken = self.monotonic_s() + seconds, loop.create_future()
        heapq.heappush(self._sleepers, (end_s, next(self._order), woken))
        self._expect_beat(loop)
        await woken

    def _expect_beat(self, loop: asyncio.AbstractEventLoop) -> None:
        """Beat when the first sleeper wakes, but soon in any case."""
        due_s = loop.time() + min(self._most_s / 2, max(_LEAST_S, self._sleepers[0][0] - self.monotonic_s()))
        if self._next is not None:
            if self._next_s <= due_s:
                return
            self._next.cancel()
        self._next, self._next_s = loop.call_at(due_s, self._on_beat, loop), due_s

    def _on_beat(self, loop: asyncio.AbstractEventLoop) -> None:
        self._next = None
        self._go_on()
        now_s = self.monotonic_s()
        while self._sleepers and (self._sleepers[0][2].done() or self._sleepers[0][0] <= now_s):
            _, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                woken.set_result(None)
        if self._sleepers:
            self._expect_beat(loop)

    def _go_on(self) -> None:
        self._beat = (self.monotonic_s(), time.monotonic())

    def _since(self, beat: tuple[float, float]) -> float:
        told_s, at_s = beat
        passed_s = max(0.0, time.monotonic() - at_s)
        return told_s + min(passed_s, self._most_s) + max(0.0, passed_s - self._most_s) * CREEP


class KeptClock(SteadyClock):
    """The time of two processes: that of the one which keeps it, in a file. It waits for the other one as well."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        path.write_bytes(bytes(_PAIR.size + _ONE.size))
        self._shared = _mapped(path)
        self._write()

    def monotonic_s(self) -> float:
        (followed_s,) = _ONE.unpack_from(self._shared, _PAIR.size)
        now_s = super().monotonic_s()
        return max(self._beat[0], min(now_s, followed_s + 2 * self._most_s)) if followed_s else now_s

    def alone(self) -> None:
        """Nobody follows any more."""
        _ONE.pack_into(self._shared, _PAIR.size, 0.0)

    def _go_on(self) -> None:
        super()._go_on()
        self._write()

    def _write(self) -> None:
        _PAIR.pack_into(self._shared, 0, *self._beat)


class FollowingClock(SteadyClock):
    """The time that a `KeptClock` keeps."""

    def __init__(self, path: Path) -> None:
        self._shared = _mapped(path)
        self._last_s = 0.0
        super().__init__()

    def monotonic_s(self) -> float:
        told_s, at_s = _PAIR.unpack_from(self._shared)
        # Zero while it is being written: time goes on with the next look.
        if at_s:
            self._last_s = max(self._last_s, self._since((told_s, at_s)))
        return self._last_s

    def _go_on(self) -> None:
        _ONE.pack_into(self._shared, _PAIR.size, self.monotonic_s())


def _mapped(path: Path) -> mmap.mmap:
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), 0)

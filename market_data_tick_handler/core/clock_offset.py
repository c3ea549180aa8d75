"""How far the clocks of a venue and of this machine are apart, as far as one-way delays can tell.

Theory of operation. local - exchange = offset + delay, and the delay is never negative, so the smallest difference
lately seen is the offset plus the shortest way there is. "Lately" is a ring of short windows, each remembered by its
minimum alone: that is a sliding minimum in constant memory. A step of the local clock backwards (or of the venue's
forwards) shows at once as a new minimum. A step the other way hides below the old minimum; it is told by a whole window
whose smallest difference lies far above it, and the older windows are dropped then.
"""

from __future__ import annotations

from typing import Final

from market_data_tick_handler.core.ticks import Array

WINDOW_US: Final = 10_000_000
WINDOWS: Final = 12
STEP_US: Final = 500_000
_ENOUGH: Final = 8
_NONE: Final = 2**63 - 1


class ClockOffset:
    """The smallest (local - exchange) of the last `windows` times `window_us` of arrivals.

    step_us: a window whose minimum is higher than the estimate by this means that a clock was set.
    """

    __slots__ = ("_count", "_current", "_minima", "_start_us", "_step_us", "_window_us", "_windows", "steps")

    def __init__(self, *, window_us: int = WINDOW_US, windows: int = WINDOWS, step_us: int = STEP_US) -> None:
        self._window_us = window_us
        self._windows = windows
        self._step_us = step_us
        self._minima: list[int] = []
        self._current = _NONE
        self._count = 0
        self._start_us = 0
        self.steps = 0

    @property
    def offset_us(self) -> int | None:
        """Microseconds; None before the first observation."""
        smallest = min(self._current, min(self._minima, default=_NONE))
        return None if smallest == _NONE else smallest

    def observe(self, local_us: Array, exchange_us: Array) -> None:
        """Note arrivals and the venue's times of the same rows (int64 us; 0 in `exchange_us` is no time)."""
        if not len(local_us):
            return
        differences = (local_us - exchange_us)[exchange_us > 0]
        if not len(differences):
            return
        at_us = int(local_us[-1])
        # A clock that was set back begins a window too.
        if not 0 <= at_us - self._start_us < self._window_us:
            self._close(at_us)
        self._current = min(self._current, int(differences.min()))
        self._count += len(differences)

    def _close(self, at_us: int) -> None:
        self._start_us = at_us
        if self._current == _NONE:
            return
        known = min(self._minima, default=_NONE)
        if self._count >= _ENOUGH and known != _NONE and self._current - known > self._step_us:
            self.steps += 1
            self._minima.clear()
        self._minima.append(self._current)
        del self._minima[: -self._windows]
        self._current, self._count = _NONE, 0

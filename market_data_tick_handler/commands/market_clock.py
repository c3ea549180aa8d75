"""What time it is where the candles come from: their ages are counted on that clock, which may be a simulated one."""

from __future__ import annotations

from typing import Final

from market_data_tick_handler.client.clock import Clock, SystemClock

SECOND_US: Final = 1_000_000
# Two clocks that differ by less are taken for one: then our own is the better measure.
SAME_S: Final = 0.05
# A message says when it was published, not how long it was on its way.
SAME_AT_ARRIVAL_S: Final = 60.0
# Less is the noise of a clock that is many times faster.
WENT_BACK_S: Final = 60.0
# Speeds this near to 1 are the noise of measuring.
_SPEED_NOISE: Final = 0.05
_LEAST_BASELINE_S: Final = 0.5


class MarketClock:
    """The clock of this machine, until `note` shows that the service has another one."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.speed = 1.0
        self._clock = SystemClock() if clock is None else clock
        self._anchor: tuple[int, float] | None = None

    @property
    def is_own(self) -> bool:
        """Whether it is that of this machine."""
        return self._anchor is None

    def now_us(self) -> int:
        """Microseconds since the epoch, UTC."""
        return self.at_us(self.monotonic_s())

    def at_us(self, monotonic_s: float) -> int:
        """What time it was there at that time here."""
        if self._anchor is None:
            return self._clock.now_us() - int((self.monotonic_s() - monotonic_s) * SECOND_US)
        time_us, at_s = self._anchor
        return time_us + int((monotonic_s - at_s) * self.speed * SECOND_US)

    def monotonic_s(self) -> float:
        """Seconds of this machine since some fixed point; never goes back."""
        return self._clock.monotonic_s()

    def note(self, time_us: int, *, at_s: float, same_s: float = SAME_S) -> bool:
        """It was `time_us` there when it was `at_s`, monotonic, here. same_s: a difference that means nothing. True
        where that clock has gone back, as that of a simulation does when it starts anew."""
        went_back = time_us < self.at_us(at_s) - WENT_BACK_S * max(self.speed, 1.0) * SECOND_US and not self.is_own
        here_us = self._clock.now_us() - int((self.monotonic_s() - at_s) * SECOND_US)
        if abs(time_us - here_us) <= same_s * SECOND_US:
            self._anchor, self.speed = None, 1.0
            return went_back
        if self._anchor is None or went_back:
            self._anchor, self.speed = (time_us, at_s), 1.0
            return went_back
        before_us, before_s = self._anchor
        if at_s - before_s >= _LEAST_BASELINE_S:
            speed = (time_us - before_us) / SECOND_US / (at_s - before_s)
            self.speed = 1.0 if abs(speed - 1.0) < _SPEED_NOISE else max(speed, 0.0)
            self._anchor = time_us, at_s
        return False

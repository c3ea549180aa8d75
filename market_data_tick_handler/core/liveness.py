"""How long silence is still believable, and what tells a quiet stream from a dead one.

Theory of operation. `Pace` learns the gaps between arrivals: a histogram over their length, in which every gap weighs
as much as it lasted, so that a burst of a thousand arrivals says no more than the second it took. A quantile of it is
the silence in which a moment chosen at random lies; a multiple of that is the longest silence to believe. Old gaps
fade, so that a market that falls asleep is believed to. Silence beyond that is no verdict but a question: a connection
is asked with a ping (`ConnectionLiveness`), a stream on a living connection is asked about at another place, where its
last trade is told (`StreamLiveness`).

Times are int64 microseconds of any one clock; nothing here reads it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

# Two buckets per doubling, from 1 us to 2**40 us (13 days).
_BUCKETS_PER_OCTAVE: Final = 2
_BUCKETS: Final = 40 * _BUCKETS_PER_OCTAVE
# Weights grow instead of old ones being shrunk; they are brought back before they lose precision.
_LARGEST_GROWTH: Final = 2.0**40


@dataclass(frozen=True, slots=True, kw_only=True)
class PaceLimits:
    """floor_us, ceiling_us: silence up to the floor is always believed, beyond the ceiling never. The ceiling holds
    until `enough` gaps are known. The rest: `factor` times the `quantile` of time; a gap counts half after
    `half_life_us`."""

    floor_us: int
    ceiling_us: int
    quantile: float = 0.99
    factor: float = 3.0
    half_life_us: int = 600_000_000
    enough: int = 32

    def __post_init__(self) -> None:
        if not 0 < self.floor_us <= self.ceiling_us:
            raise ValueError(f"expected 0 < floor <= ceiling, came {self.floor_us} and {self.ceiling_us} us")
        if not 0.0 < self.quantile < 1.0:
            raise ValueError(f"quantile must be between 0 and 1, came {self.quantile}")


class Pace:
    """The gaps between the arrivals of one stream."""

    __slots__ = ("_limits", "_origin_us", "_total", "_weights", "gaps", "last_us")

    def __init__(self, limits: PaceLimits) -> None:
        self._limits = limits
        self._weights = [0.0] * _BUCKETS
        self._total = 0.0
        self._origin_us = 0
        self.gaps = 0
        self.last_us = 0

    @property
    def floor_us(self) -> int:
        return self._limits.floor_us

    def saw(self, first_us: int, last_us: int) -> None:
        """Arrivals came from `first_us` to `last_us`, close enough together that what lies between is no silence."""
        if self.last_us == 0:
            self._origin_us = last_us
        elif first_us > self.last_us:
            self._add(first_us - self.last_us, last_us)
            self.gaps += 1
        self.last_us = max(self.last_us, last_us)

    def believable_us(self) -> int:
        """The longest silence that still means nothing, microseconds."""
        limits = self._limits
        if self.gaps < limits.enough:
            return limits.ceiling_us
        wanted = self._total * limits.quantile
        reached = 0.0
        bucket = 0
        for bucket, weight in enumerate(self._weights):  # noqa: B007
            reached += weight
            if reached >= wanted:
                break
        upper_us = 2.0 ** ((bucket + 1) / _BUCKETS_PER_OCTAVE)
        return int(min(max(limits.factor * upper_us, limits.floor_us), limits.ceiling_us))

    def _add(self, gap_us: int, at_us: int) -> None:
        growth = 2.0 ** min((at_us - self._origin_us) / self._limits.half_life_us, 1_000.0)
        if growth > _LARGEST_GROWTH:
            self._weights = [weight / growth for weight in self._weights]
            self._total /= growth
            self._origin_us = at_us
            growth = 1.0
        weight = gap_us * growth
        self._weights[min(int(math.log2(gap_us) * _BUCKETS_PER_OCTAVE), _BUCKETS - 1)] += weight
        self._total += weight


class Verdict(StrEnum):
    """ALIVE: silent no longer than usual. QUIET: silent longer, and proven to miss nothing. SUSPECT: ask."""

    ALIVE = "alive"
    QUIET = "quiet"
    SUSPECT = "suspect"


class StreamLiveness:
    """One stream on a connection that is alive."""

    __slots__ = ("_began_us", "_quiet_us", "pace")

    def __init__(self, limits: PaceLimits) -> None:
        self.pace = Pace(limits)
        self._began_us = 0
        self._quiet_us = 0

    def saw(self, first_us: int, last_us: int) -> None:
        """Rows arrived."""
        self.pace.saw(first_us, last_us)

    def began(self, at_us: int) -> None:
        """The stream is subscribed to anew: its silence counts from here."""
        self._began_us = at_us
        self._quiet_us = 0

    def proven_quiet(self, at_us: int) -> None:
        """Somebody who knows said that up to `at_us` nothing happened."""
        self._quiet_us = max(self._quiet_us, at_us)

    def silence_us(self, now_us: int) -> int:
        """How long nothing came."""
        return now_us - max(self.pace.last_us, self._began_us)

    def judge(self, now_us: int) -> Verdict:
        """What to think of the stream."""
        silence_us = self.silence_us(now_us)
        if silence_us <= self.pace.floor_us:
            return Verdict.ALIVE
        believable_us = self.pace.believable_us()
        if silence_us <= believable_us:
            return Verdict.ALIVE
        return Verdict.QUIET if now_us - self._quiet_us <= believable_us else Verdict.SUSPECT


class Action(StrEnum):
    """What a connection needs."""

    NOTHING = "nothing"
    PING = "ping"
    GIVE_UP = "give up"


class ConnectionLiveness:
    """Whether the other side of one connection is there.

    ping_every_us: regular pings, so that a quiet connection has proof of life too. pong_within_us: how long an answer
    to a ping (any frame is one) may take.
    """

    __slots__ = ("_asked_us", "_looked_us", "_ping_every_us", "_pinged_us", "_pong_within_us", "pace", "proof_us")

    def __init__(self, limits: PaceLimits, *, ping_every_us: int, pong_within_us: int, opened_us: int) -> None:
        self.pace = Pace(limits)
        self.proof_us = opened_us
        self._ping_every_us = ping_every_us
        self._pong_within_us = pong_within_us
        self._pinged_us = opened_us
        self._looked_us = opened_us
        self._asked_us = 0

    def saw_frames(self, first_us: int, last_us: int) -> None:
        """Frames with data arrived."""
        self.pace.saw(first_us, last_us)
        self.proof_us = max(self.proof_us, last_us)

    def saw_pong(self, at_us: int) -> None:
        """The other side answered, or sent something that is no data."""
        self.proof_us = max(self.proof_us, at_us)

    def look(self, now_us: int) -> Action:
        """What to do now. Call it often: time in which nobody looked (a stalled event loop, a paused socket) is not
        held against the other side."""
        absent_us = now_us - self._looked_us
        self._looked_us = now_us
        if self._asked_us and self.proof_us > self._asked_us:
            self._asked_us = 0
        if self._asked_us:
            if absent_us > self._pong_within_us // 2:
                self._asked_us += absent_us
            return Action.GIVE_UP if now_us - self._asked_us > self._pong_within_us else Action.NOTHING
        silence_us = now_us - self.proof_us
        unusual = silence_us > self.pace.floor_us and silence_us > self.pace.believable_us()
        return Action.PING if unusual or now_us - self._pinged_us >= self._ping_every_us else Action.NOTHING

    def pinged(self, now_us: int) -> None:
        """A ping was sent."""
        self._pinged_us = now_us
        self._asked_us = now_us

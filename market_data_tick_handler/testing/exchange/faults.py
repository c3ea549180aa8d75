"""Everything that can go wrong at the other side, as values: written into a script, or handed over while it runs.

Fault
    Cut           TCP connections end without a word, new ones are refused for `duration_s`
    Stall         connections that are open, or are opened within `duration_s`, stay open and never say anything again
    Slow          frames are sent `delay_s` late for `duration_s`
    Garbage       one frame that cannot be read; nothing real is lost
    Duplicate     the last `count` trade frames come again
    Reorder       the next `count` pairs of trade frames come in the wrong order
    Drop          the next `count` trade frames are not sent; REST still knows the trades
    BookBreak     the next `count` book updates are not sent, so the sequence breaks
    Mute          one kind of data is not sent for `duration_s`, the connection lives
    RateLimit     REST calls, handshakes or both are answered `status` with Retry-After for `duration_s`
    Close         a close frame with `code` and `reason`
    ClockStep     timestamps of the exchange jump by `step_us` for `duration_s`
    Maintenance   the venue announces that it will end the connection, where it has a message for that

Faults on frames (Garbage, Duplicate, Reorder, Drop, BookBreak) act on every connection that is open at that time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["trades", "book", "ticker", "liquidations"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """at_s: seconds after the exchange opened, for a script. duration_s: how long; None: until `heal()`."""

    at_s: float = 0.0
    duration_s: float | None = 0.0

    def __post_init__(self) -> None:
        if self.at_s < 0 or (self.duration_s is not None and self.duration_s < 0):
            raise ValueError(f"at_s and duration_s must be 0 or more, got {self.at_s} and {self.duration_s}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut(Fault):
    """See the module."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stall(Fault):
    """See the module."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slow(Fault):
    """See the module. The order of the frames of a connection stays."""

    delay_s: float
    duration_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage(Fault):
    """`text`: no JSON. `truncated`: the first half of the last frame."""

    form: Literal["text", "truncated"] = "text"


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicate(Fault):
    """See the module. A connection remembers its last 256 trade frames."""

    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Reorder(Fault):
    """See the module. The first of a pair waits until the second is due."""

    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop(Fault):
    """See the module. symbol: only frames of this one."""

    count: int = 1
    symbol: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BookBreak(Fault):
    """See the module. symbol: only frames of this one."""

    count: int = 1
    symbol: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mute(Fault):
    """See the module. symbol: only frames of this one."""

    kind: Kind
    symbol: str = ""
    duration_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit(Fault):
    """See the module. retry_after_s: None: what is left of the duration."""

    status: Literal[418, 429] = 429
    where: Literal["rest", "handshake", "both"] = "both"
    retry_after_s: int | None = None
    duration_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Close(Fault):
    """See the module."""

    code: int = 1001
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockStep(Fault):
    """See the module."""

    step_us: int
    duration_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Maintenance(Fault):
    """See the module."""


class FaultBoard:
    """Which lasting faults are in force. Times: the true time of the exchange, without `ClockStep`."""

    def __init__(self) -> None:
        self._lasting: list[tuple[float, Fault]] = []

    def put(self, fault: Fault, now_us: int) -> None:
        """In force from now on for its duration."""
        until = float("inf") if fault.duration_s is None else now_us + fault.duration_s * 1_000_000
        self._lasting.append((until, fault))

    def clear(self) -> None:
        """Nothing is in force."""
        self._lasting.clear()

    def in_force(self, now_us: int) -> list[tuple[float, Fault]]:
        """(end in us, fault) of each that has not ended."""
        if self._lasting:
            self._lasting = [entry for entry in self._lasting if entry[0] > now_us]
        return self._lasting

    def stalled(self, now_us: int) -> bool:
        """Whether connections opened now are dead from the start."""
        return any(isinstance(fault, Stall) for _, fault in self.in_force(now_us))

    def delay_us(self, now_us: int) -> int:
        """By how much frames are late."""
        delays = [fault.delay_s for _, fault in self.in_force(now_us) if isinstance(fault, Slow)]
        return round(max(delays, default=0.0) * 1_000_000)

    def step_us(self, now_us: int) -> int:
        """By how much the clock of the exchange is wrong."""
        return sum(fault.step_us for _, fault in self.in_force(now_us) if isinstance(fault, ClockStep))

    def muted(self, kind: str, symbol: str, now_us: int) -> bool:
        """Whether frames of this kind and symbol are kept back."""
        return any(
            fault.kind == kind and fault.symbol in ("", symbol)
            for _, fault in self.in_force(now_us)
            if isinstance(fault, Mute)
        )

    def limit(self, where: str, now_us: int) -> tuple[int, int] | None:
        """(status, Retry-After in seconds) for a REST call or handshake; None: served."""
        for until, fault in self.in_force(now_us):
            if isinstance(fault, RateLimit) and fault.where in (where, "both"):
                left_s = 1 if until == float("inf") else max(-int(-(until - now_us) // 1_000_000), 1)
                return fault.status, left_s if fault.retry_after_s is None else fault.retry_after_s
        return None

"""What the Redis sink is doing, for /ready, /health and the metrics."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Final

# Shorter troubles than this do not concern whoever balances load by /ready.
READY_AFTER_S: Final = 2.0


@dataclass(slots=True)
class RedisCounters:
    """Candles: taken = sent + already_there + rejected + those that wait."""

    taken: int = 0
    sent: int = 0
    already_there: int = 0
    rejected: int = 0
    refilled: int = 0
    renumbered: int = 0
    lost_by_redis: int = 0
    refused_full: int = 0
    open_sent: int = 0
    open_skipped: int = 0
    marks_sent: int = 0
    marks_paused: int = 0
    marks_lost: int = 0
    connects: int = 0
    failures: int = 0


@dataclass(slots=True)
class RedisState:
    """How it stands.

    trouble_since_s: monotonic, since when nothing succeeded; None while all is well. round_trip_s: of the last turn.
    receivers: subscribers that the last candle was published to.
    """

    counters: RedisCounters = field(default_factory=RedisCounters)
    connected: bool = False
    last_error: str = ""
    trouble_since_s: float | None = None
    round_trip_s: float = 0.0
    receivers: int = 0

    def fail(self, error: str, now_s: float) -> bool:
        """Note a failure; whether it is the first one after a success."""
        self.counters.failures += 1
        self.last_error = error
        first = self.trouble_since_s is None
        if first:
            self.trouble_since_s = now_s
        return first

    def succeed(self) -> bool:
        """Note a success; whether it ends a trouble."""
        ends = self.trouble_since_s is not None
        self.trouble_since_s = None
        return ends

    def reasons(self, now_s: float, *, full: bool) -> list[str]:
        """Why the service is not ready, empty if it is."""
        found = ["redis: the buffer is full"] if full else []
        if self.trouble_since_s is not None and now_s - self.trouble_since_s >= READY_AFTER_S:
            found.append(f"redis: nothing delivered for {now_s - self.trouble_since_s:.0f} s ({self.last_error})")
        return found

    def report(self, now_s: float, *, rows: int, size: int) -> dict[str, Any]:
        """The section about this sink in `/health`."""
        trouble_s = None if self.trouble_since_s is None else round(now_s - self.trouble_since_s, 3)
        return {
            "connected": self.connected,
            "trouble_s": trouble_s,
            "last_error": self.last_error,
            "buffered_rows": rows,
            "buffered_bytes": size,
            "round_trip_s": round(self.round_trip_s, 6),
            "receivers": self.receivers,
            **asdict(self.counters),
        }

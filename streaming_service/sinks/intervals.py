"""Which intervals are complete: every instrument's candle is in its stream."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from market_data_tick_handler.core.timeframes import DAY_US, Timeframe
from market_data_tick_handler.wire import VERSION, Interval, MessageType

_SECOND_US: Final = 1_000_000
_MOST_NAMES: Final = 20
# Of one timeframe; a restart that catches up has some of them open at a time.
_MOST_OPEN: Final = 64


@dataclass(slots=True)
class _Open:
    since_s: float
    whole: bool
    seen: set[str] = field(default_factory=set)
    reported: int = -1


class IntervalTracker:
    """Counts instruments per interval. `instruments`: those the service has now."""

    def __init__(self, service: str, instruments: Callable[[], Collection[str]], *, late_after_s: float) -> None:
        self._service = service
        self._instruments = instruments
        self._late_after_s = late_after_s
        self._open: dict[Timeframe, OrderedDict[int, _Open]] = {}
        self._first: dict[Timeframe, int] = {}
        self._sequence = 0

    def note(self, arrived: Iterable[tuple[str, Timeframe, int]], now_s: float, now_us: int) -> Iterator[Interval]:
        """First publications (instrument, timeframe, open time) are in their streams: the intervals they complete."""
        touched: dict[tuple[Timeframe, int], _Open] = {}
        for key, timeframe, timestamp in arrived:
            intervals = self._open.setdefault(timeframe, OrderedDict())
            # A run that goes on where another one died sees some of the first interval only.
            first = self._first.setdefault(timeframe, timestamp)
            interval = intervals.setdefault(timestamp, _Open(now_s, whole=timestamp > first))
            interval.seen.add(key)
            touched[timeframe, timestamp] = interval
        expected = frozenset(self._instruments())
        for (timeframe, timestamp), interval in touched.items():
            if expected <= interval.seen:
                del self._open[timeframe][timestamp]
                yield self._interval(timeframe, timestamp, interval, expected, now_us)

    def late(self, now_s: float, now_us: int) -> Iterator[Interval]:
        """The intervals that wait for some instrument for too long, each once per state."""
        expected = frozenset(self._instruments())
        for timeframe, intervals in self._open.items():
            for timestamp, interval in intervals.items():
                late = now_s - interval.since_s >= self._late_after_s
                if late and interval.whole and interval.reported != len(interval.seen):
                    interval.reported = len(interval.seen)
                    yield self._interval(timeframe, timestamp, interval, expected, now_us)
            while len(intervals) > _MOST_OPEN:
                intervals.popitem(last=False)

    def _interval(
        self, timeframe: Timeframe, timestamp: int, interval: _Open, expected: frozenset[str], now_us: int
    ) -> Interval:
        self._sequence += 1
        missing = sorted(expected - interval.seen)
        here = len(expected) - len(missing)
        word = "incomplete" if missing else "complete"
        return Interval(
            v=VERSION,
            type=MessageType.INTERVAL.value,
            sequence=self._sequence,
            service=self._service,
            timeframe=timeframe.value,
            timestamp=timestamp,
            complete=not missing,
            instruments=here,
            expected=len(expected),
            missing=missing[:_MOST_NAMES],
            text=f"{timeframe.value} {_clock_time(timeframe, timestamp)} {word}, {here} of {len(expected)} instruments",
            time=now_us,
        )


def _clock_time(timeframe: Timeframe, timestamp: int) -> str:
    """The open time as short as it can be said: 12:00, 12:00:15, 2024-01-01."""
    moment = datetime.fromtimestamp(timestamp // _SECOND_US, UTC)
    if timeframe.us >= DAY_US:
        return f"{moment:%Y-%m-%d}"
    return f"{moment:%H:%M}" if timeframe.us % (60 * _SECOND_US) == 0 else f"{moment:%H:%M:%S}"

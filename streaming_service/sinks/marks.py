"""What is said besides candles, whatever carries it: how far each instrument has got, which intervals are complete."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.wire import (
    VERSION,
    ChannelMark,
    Encoding,
    Interval,
    MessageType,
    Watermark,
    channels,
    encode_mark,
)
from streaming_service.clock import Clock
from streaming_service.sinks.intervals import IntervalTracker

# Between two watermarks of an instrument.
MARK_INTERVAL_S: Final = 1.0
# An interval that lacks an instrument for so long is reported as incomplete.
LATE_AFTER_S: Final = 5.0
# A watermark that is older than this is of a service that runs no more, or repairs a gap.
MARK_EXPIRES_S: Final = 10


def _none_repairing(key: str) -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkSource:
    """Where the marks of one transport come from.

    service: name in `marks:service:{name}`. instruments: keys of those that publish candles now. watermarks: by key,
    the arrival clock up to which every candle was handed to the transport. repairing: whether a gap of an instrument is
    being repaired, so that what is published now will be revised.
    """

    service: str
    instruments: Callable[[], Collection[str]]
    watermarks: Callable[[], Mapping[str, int]]
    repairing: Callable[[str], bool] = _none_repairing


class MarkWriter:
    """The messages of one transport, with their numbers. It keeps no time: the transport asks when it is due.

    late_after_s: seconds until an interval counts as incomplete.
    """

    def __init__(self, source: MarkSource, *, encoding: Encoding, clock: Clock, late_after_s: float) -> None:
        self.paused = 0
        self._source = source
        self._encoding = encoding
        self._clock = clock
        self._intervals = IntervalTracker(source.service, source.instruments, late_after_s=late_after_s)
        self._sequences: dict[str, int] = {}

    @property
    def interval_channel(self) -> str:
        """Where interval markers go."""
        return channels.interval_marks(self._source.service)

    def due(self) -> dict[str, int]:
        """By instrument, the watermark that may be said once all that was handed over until now is with the readers."""
        return dict(self._source.watermarks())

    def watermark(self, key: str, watermark_us: int, positions: Mapping[Timeframe, ChannelMark]) -> bytes | None:
        """The message about an instrument; None while a gap of it is being repaired, which is counted as `paused`.

        positions: the newest final candle of each timeframe that readers have.
        """
        if self._source.repairing(key):
            self.paused += 1
            return None
        sequence = self._sequences[key] = self._sequences.get(key, 0) + 1
        mark = Watermark(
            v=VERSION,
            type=MessageType.WATERMARK.value,
            sequence=sequence,
            instrument_id=key,
            watermark=watermark_us,
            time=self._clock.now_us(),
            channels={timeframe.value: position for timeframe, position in positions.items()},
        )
        return encode_mark(mark, self._encoding)

    def arrived(self, candles: Iterable[tuple[str, Timeframe, int]]) -> list[bytes]:
        """Readers have these candles for the first time (instrument, timeframe, open time): what that completes."""
        return self._encoded(self._intervals.note(candles, self._clock.monotonic_s(), self._clock.now_us()))

    def late(self) -> list[bytes]:
        """What waits for too long for some instrument, each state once."""
        return self._encoded(self._intervals.late(self._clock.monotonic_s(), self._clock.now_us()))

    def _encoded(self, marks: Iterable[Interval]) -> list[bytes]:
        return [encode_mark(mark, self._encoding) for mark in marks]

"""What is said besides final candles: candles in progress, watermarks, interval markers.

Each is small and soon outdated, so only interval markers wait for Redis; of the others the newest counts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from redis.exceptions import ResponseError

from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.wire import (
    VERSION,
    CandleEncoder,
    ChannelMark,
    Encoding,
    MessageType,
    Watermark,
    channels,
    encode_mark,
)
from streaming_service.clock import Clock
from streaming_service.sinks.redis.commands import publish_mark
from streaming_service.sinks.redis.intervals import IntervalTracker
from streaming_service.sinks.redis.link import Command
from streaming_service.sinks.redis.series import Entry, Series
from streaming_service.sinks.redis.state import RedisCounters

_MOST_INTERVALS: Final = 1_000


def _none_repairing(key: str) -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkSource:
    """Where marks come from.

    service: name in `marks:service:{name}`. instruments: keys of those that publish candles now. watermarks: by key,
    the arrival clock up to which every candle was handed to the sink. repairing: whether a gap of an instrument is
    being repaired, so that what is published now will be revised.
    """

    service: str
    instruments: Callable[[], Collection[str]]
    watermarks: Callable[[], Mapping[str, int]]
    repairing: Callable[[str], bool] = _none_repairing


class Marks:
    """Watermarks and interval markers, as commands. Without a `source` the connection is only pinged."""

    def __init__(
        self,
        source: MarkSource | None,
        *,
        encoding: Encoding,
        clock: Clock,
        late_after_s: float,
        counters: RedisCounters,
    ) -> None:
        self._source = source
        self._encoding = encoding
        self._clock = clock
        self._counters = counters
        self._intervals = (
            None if source is None else IntervalTracker(source.service, source.instruments, late_after_s=late_after_s)
        )
        self._series: dict[str, dict[str, Series]] = {}
        self._sequences: dict[str, int] = {}
        self._due: Mapping[str, int] | None = None
        self._after = 0
        self._waiting: deque[bytes] = deque(maxlen=_MOST_INTERVALS)

    def beat(self, put: int) -> None:
        """A second is over. `put`: candles handed over so far, which are to be in Redis before the watermarks."""
        if self._due is None:
            self._due = {} if self._source is None else dict(self._source.watermarks())
            self._after = put
        if self._intervals is not None:
            for late in self._intervals.late(self._clock.monotonic_s(), self._clock.now_us()):
                self._queue(encode_mark(late, self._encoding))

    def acknowledged(self, entries: Iterable[Entry]) -> None:
        """Redis has these candles."""
        arrived = []
        for entry in entries:
            series = entry.series
            self._series.setdefault(series.key, {})[series.timeframe.value] = series
            if entry.revision == 0:
                arrived.append((series.key, series.timeframe, entry.timestamp))
        if self._intervals is not None and arrived:
            for mark in self._intervals.note(arrived, self._clock.monotonic_s(), self._clock.now_us()):
                self._queue(encode_mark(mark, self._encoding))

    def commands(self, settled: int) -> list[Command]:
        """What is due now that so many candles are settled."""
        commands: list[Command] = []
        if self._source is not None:
            name = channels.interval_marks(self._source.service)
            for message in self._waiting:
                commands += publish_mark(name, message, expires=False)
        if self._due is not None and settled >= self._after:
            marks = [command for key, us in self._due.items() for command in self._watermark(key, us)]
            commands += marks or [(b"PING",)]
        return commands

    def has_due(self, settled: int) -> bool:
        """Whether `commands` would give any."""
        return bool(self._waiting) or (self._due is not None and settled >= self._after)

    def delivered(self, settled: int) -> None:
        """What `commands` gave is in Redis."""
        self._waiting.clear()
        if settled >= self._after:
            self._due = None

    def _queue(self, message: bytes) -> None:
        self._counters.marks_lost += len(self._waiting) == _MOST_INTERVALS
        self._waiting.append(message)

    def _watermark(self, key: str, watermark_us: int) -> list[Command]:
        source = self._source
        if source is None or source.repairing(key):
            self._counters.marks_paused += 1
            return []
        sequence = self._sequences[key] = self._sequences.get(key, 0) + 1
        mark = Watermark(
            v=VERSION,
            type=MessageType.WATERMARK.value,
            sequence=sequence,
            instrument_id=key,
            watermark=watermark_us,
            time=self._clock.now_us(),
            channels={
                timeframe: ChannelMark(series.acknowledged, series.timestamp)
                for timeframe, series in self._series.get(key, {}).items()
            },
        )
        return publish_mark(channels.watermarks(key), encode_mark(mark, self._encoding), expires=True)


@dataclass(slots=True)
class _OpenCandle:
    sent_s: float
    pending: CandleBatch | None = None
    final_us: int = -1
    sequence: int = 0


@dataclass(slots=True)
class OpenCandles:
    """The newest state of each candle in progress, at most one message per `interval_s` and channel."""

    encoder: CandleEncoder
    interval_s: float
    clock: Clock
    counters: RedisCounters
    _channels: dict[str, _OpenCandle] = field(default_factory=dict)

    def put(self, batch: CandleBatch) -> None:
        """The last row of `batch` is how its candle stands now; a candle that was final already is passed over."""
        name = channels.open_candles(batch.instrument.key, batch.timeframe)
        channel = self._channels.setdefault(name, _OpenCandle(sent_s=float("-inf")))
        newest = batch.slice(len(batch) - 1, len(batch))
        if channel.pending is not None or newest["timestamp"][0] <= channel.final_us:
            self.counters.open_skipped += 1
        if newest["timestamp"][0] > channel.final_us:
            channel.pending = newest

    def end(self, batch: CandleBatch) -> None:
        """These candles are final: what waits about them, or earlier ones, is outdated."""
        name = channels.open_candles(batch.instrument.key, batch.timeframe)
        channel = self._channels.get(name)
        if channel is not None:
            channel.final_us = max(channel.final_us, int(batch["timestamp"].max()))
            if channel.pending is not None and channel.pending["timestamp"][0] <= channel.final_us:
                channel.pending = None
                self.counters.open_skipped += 1

    def has_due(self) -> bool:
        """Whether `commands` would give any."""
        now_s = self.clock.monotonic_s()
        return any(self._is_due(channel, now_s) for channel in self._channels.values())

    def commands(self) -> list[Command]:
        """Messages that are due. Nothing is sent twice: what is lost with a connection is soon outdated."""
        now_s = self.clock.monotonic_s()
        commands: list[Command] = []
        for name, channel in self._channels.items():
            if self._is_due(channel, now_s) and channel.pending is not None:
                channel.sequence += 1
                message = self.encoder.messages(channel.pending, [channel.sequence], is_final=False)[0]
                commands.append((b"PUBLISH", name.encode(), message))
                channel.pending, channel.sent_s = None, now_s
        return commands

    def _is_due(self, channel: _OpenCandle, now_s: float) -> bool:
        return channel.pending is not None and now_s - channel.sent_s >= self.interval_s


def refusals(answers: Sequence[Any]) -> list[ResponseError]:
    """The answers that are errors."""
    return [answer for answer in answers if isinstance(answer, ResponseError)]

"""What is said besides final candles: candles in progress, watermarks, interval markers.

Each is small and soon outdated, so only interval markers wait for Redis; of the others the newest counts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis.exceptions import ResponseError

from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.timeframes import Timeframe
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


@dataclass(slots=True, eq=False)
class _OpenCandle:
    name: bytes
    sent_s: float = float("-inf")
    pending: CandleBatch | None = None
    final_us: int = -1
    sequence: int = 0


class OpenCandles:
    """The newest state of each candle in progress, at most one message per `interval_s` and channel."""

    def __init__(self, encoder: CandleEncoder, interval_s: float, clock: Clock, counters: RedisCounters) -> None:
        self._encoder = encoder
        self._interval_s = interval_s
        self._clock = clock
        self._counters = counters
        self._channels: dict[tuple[str, Timeframe], _OpenCandle] = {}
        self._pending: set[_OpenCandle] = set()

    def put(self, batch: CandleBatch) -> None:
        """The last row of `batch` is how its candle stands now; a candle that was final already is passed over."""
        key, timeframe = batch.instrument.key, batch.timeframe
        channel = self._channels.get((key, timeframe))
        if channel is None:
            name = channels.open_candles(key, timeframe).encode()
            channel = self._channels[key, timeframe] = _OpenCandle(name)
        outdated = int(batch["timestamp"][-1]) <= channel.final_us
        self._counters.open_skipped += outdated or channel.pending is not None
        if not outdated:
            channel.pending = batch.slice(len(batch) - 1, len(batch))
            self._pending.add(channel)

    def end(self, batch: CandleBatch) -> None:
        """These candles are final: what waits about them, or earlier ones, is outdated."""
        channel = self._channels.get((batch.instrument.key, batch.timeframe))
        if channel is None:
            return
        channel.final_us = max(channel.final_us, int(batch["timestamp"].max()))
        if channel.pending is not None and channel.pending["timestamp"][0] <= channel.final_us:
            channel.pending = None
            self._pending.discard(channel)
            self._counters.open_skipped += 1

    def has_due(self) -> bool:
        """Whether `commands` would give any."""
        return bool(self._due())

    def commands(self) -> list[Command]:
        """Messages that are due. Nothing is sent twice: what is lost with a connection is soon outdated."""
        commands: list[Command] = []
        for channel in self._due():
            batch, channel.pending = channel.pending, None
            self._pending.discard(channel)
            if batch is not None:
                channel.sequence += 1
                channel.sent_s = self._clock.monotonic_s()
                (message,) = self._encoder.messages(batch, [channel.sequence], is_final=False)
                commands.append((b"PUBLISH", channel.name, message))
        return commands

    def _due(self) -> list[_OpenCandle]:
        if not self._pending:
            return []
        latest_s = self._clock.monotonic_s() - self._interval_s
        return [channel for channel in self._pending if channel.sent_s <= latest_s]


def refusals(answers: Sequence[Any]) -> list[ResponseError]:
    """The answers that are errors."""
    return [answer for answer in answers if isinstance(answer, ResponseError)]

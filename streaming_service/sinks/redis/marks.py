"""What goes to Redis besides final candles: candles in progress, watermarks, interval markers.

Each is small and soon outdated, so only interval markers wait for Redis; of the others the newest counts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis.exceptions import ResponseError

from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.wire import CandleEncoder, ChannelMark, channels
from streaming_service.clock import Clock
from streaming_service.sinks.marks import MarkWriter
from streaming_service.sinks.redis.commands import publish_mark
from streaming_service.sinks.redis.link import Command
from streaming_service.sinks.redis.series import Entry, Series
from streaming_service.sinks.redis.state import RedisCounters

_MOST_INTERVALS: Final = 1_000


class Marks:
    """Watermarks and interval markers, as commands. Without a `writer` the connection is only pinged."""

    def __init__(self, writer: MarkWriter | None, counters: RedisCounters) -> None:
        self._writer = writer
        self._counters = counters
        self._series: dict[str, dict[Timeframe, Series]] = {}
        self._due: Mapping[str, int] | None = None
        self._after = 0
        self._waiting: deque[bytes] = deque(maxlen=_MOST_INTERVALS)

    def beat(self, put: int) -> None:
        """A second is over. `put`: candles handed over so far, which are to be in Redis before the watermarks."""
        if self._due is None:
            self._due = {} if self._writer is None else self._writer.due()
            self._after = put
        if self._writer is not None:
            self._queue(self._writer.late())

    def acknowledged(self, entries: Iterable[Entry]) -> None:
        """Redis has these candles."""
        arrived = []
        for entry in entries:
            series = entry.series
            self._series.setdefault(series.key, {})[series.timeframe] = series
            if entry.revision == 0:
                arrived.append((series.key, series.timeframe, entry.timestamp))
        if self._writer is not None and arrived:
            self._queue(self._writer.arrived(arrived))

    def commands(self, settled: int) -> list[Command]:
        """What is due now that so many candles are settled."""
        commands: list[Command] = []
        if self._writer is not None:
            for message in self._waiting:
                commands += publish_mark(self._writer.interval_channel, message, expires=False)
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

    def _queue(self, messages: Iterable[bytes]) -> None:
        for message in messages:
            self._counters.marks_lost += len(self._waiting) == _MOST_INTERVALS
            self._waiting.append(message)

    def _watermark(self, key: str, watermark_us: int) -> list[Command]:
        if self._writer is None:
            return []
        positions = {
            timeframe: ChannelMark(series.acknowledged, series.timestamp)
            for timeframe, series in self._series.get(key, {}).items()
        }
        message = self._writer.watermark(key, watermark_us, positions)
        self._counters.marks_paused = self._writer.paused
        return [] if message is None else publish_mark(channels.watermarks(key), message, expires=True)


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

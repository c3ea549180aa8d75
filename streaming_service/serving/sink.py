"""The sink in front of every WebSocket and of the recent part of REST: each candle is encoded once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.wire import CandleEncoder
from streaming_service.clock import Clock, SystemClock
from streaming_service.numbering import first_number
from streaming_service.serving.history import Channel
from streaming_service.serving.hub import Hub
from streaming_service.serving.marks import ServingMarks
from streaming_service.serving.options import ServingOptions
from streaming_service.serving.websocket import GOING_AWAY, Connection
from streaming_service.sink import SinkItem
from streaming_service.sinks.marks import MarkSource

# Candles encoded before the sockets get a turn: the first of a large turn must not wait for the last one's JSON.
_ROWS_A_TURN: Final = 16


@dataclass(slots=True)
class _OpenCandle:
    """The candle in progress of a channel: when its state was last sent, and the state that waits."""

    sequence: int = 0
    sent_s: float = float("-inf")
    final_us: int = -1
    pending: CandleBatch | None = None


class ServingSink:
    """Keeps the last messages of every channel and hands every message to its subscribers.

    Numbers are those of the batch. Without any they begin at the milliseconds of the start, so that a subscriber of an
    earlier run does not take the numbers of this one for their continuation.

    `write` never waits for a subscriber, so the sink may block ingest.

    marks: where watermarks and interval markers come from; None: there are none.
    """

    def __init__(
        self, options: ServingOptions | None = None, *, clock: Clock | None = None, marks: MarkSource | None = None
    ) -> None:
        self.options = ServingOptions() if options is None else options
        self.hub = Hub(self.options)
        self.is_open = False
        self._clock = SystemClock() if clock is None else clock
        self._encoder = CandleEncoder(columns=self.options.columns)
        self._first_number = first_number(self._clock.now_us())
        self._since_turn = 0
        self._open: dict[Channel, _OpenCandle] = {}
        self._pacing: asyncio.Task[None] | None = None
        self._marks = None if marks is None else ServingMarks(marks, self.hub, self._clock)
        self._beating: asyncio.Task[None] | None = None

    @property
    def features(self) -> tuple[str, ...]:
        """Columns beside those that every candle carries."""
        return self._encoder.features

    async def open(self) -> None:
        self.is_open = True
        if self._marks is not None and self._beating is None:
            self._beating = asyncio.create_task(self._marks.run(), name="websocket marks")

    async def write(self, batch: SinkItem) -> None:
        """Publish the candles of `batch`; ticks are none of ours."""
        if not isinstance(batch, CandleBatch) or not len(batch):
            return
        if self._beating is not None and self._beating.done():
            # A defect that ended it is the supervisor's business, like any other.
            task, self._beating = self._beating, None
            task.result()
        for part in _parts(batch):
            self._publish(part)
            self._since_turn += len(part)
            if self._since_turn >= _ROWS_A_TURN:
                self._since_turn = 0
                await asyncio.sleep(0)

    def write_open(self, batch: CandleBatch) -> None:
        """The last row of `batch` is the candle in progress as it stands now. Of what comes faster than
        `open_interval_s` the newest is sent."""
        if not len(batch):
            return
        channel = self.hub.channel(batch.instrument.key, batch.timeframe)
        candle = self._open.setdefault(channel, _OpenCandle())
        newest = batch if len(batch) == 1 else batch.slice(len(batch) - 1, len(batch))
        if int(newest["timestamp"][0]) <= candle.final_us:
            return
        candle.pending = newest
        if not self._send_open(channel, candle) and self._pacing is None:
            self._pacing = asyncio.create_task(self._pace(), name="candles in progress")

    async def flush(self) -> None:
        """Nothing is held back."""

    async def aclose(self) -> None:
        """Say goodbye to every subscriber, with what waits for it where it takes that in time."""
        self.is_open = False
        if self._marks is not None:
            self._marks.flush()
        for task in (self._pacing, self._beating):
            if task is not None:
                task.cancel()
        self._pacing = self._beating = None
        connections = [receiver for receiver in self.hub.receivers if isinstance(receiver, Connection)]
        if connections:
            await asyncio.gather(*(connection.finish(GOING_AWAY, "the service stops") for connection in connections))

    def report(self) -> dict[str, Any]:
        """The section about subscribers in `/health`."""
        channels = self.hub.channels.values()
        return {
            "subscribers": len(self.hub),
            "channels": len(channels),
            "history_messages": sum(len(channel.entries) for channel in channels),
            "history_bytes": sum(channel.size for channel in channels),
            "waiting_bytes": self.hub.waiting_bytes,
            **asdict(self.hub.counters),
            "dropped": sum(self.hub.dropped.values()),
        }

    def _publish(self, batch: CandleBatch) -> None:
        channel = self.hub.channel(batch.instrument.key, batch.timeframe)
        numbers = self._numbers(channel, batch)
        revisions = batch["revision"].tolist() if "revision" in batch.columns else [0] * len(batch)
        times = batch["timestamp"].tolist()
        messages = self._encoder.messages(batch, numbers)
        first_times = []
        for number, time_us, revision, message in zip(numbers, times, revisions, messages, strict=True):
            if self.hub.publish(channel, number, time_us, revision, message) and revision == 0:
                first_times.append(time_us)
        if self._marks is not None and first_times:
            self._marks.published(channel, first_times)
        candle = self._open.get(channel)
        if candle is not None:
            candle.final_us = max(candle.final_us, *times)
            if candle.pending is not None and int(candle.pending["timestamp"][0]) <= candle.final_us:
                candle.pending = None

    def _numbers(self, channel: Channel, batch: CandleBatch) -> list[int]:
        if batch.sequences is not None:
            numbers: list[int] = batch.sequences.tolist()
            return numbers
        first = self._first_number if channel.last is None else channel.last + 1
        return list(range(first, first + len(batch)))

    def _send_open(self, channel: Channel, candle: _OpenCandle) -> bool:
        """Send the state that waits; whether there is none any more."""
        now_s = self._clock.monotonic_s()
        if candle.pending is None or now_s - candle.sent_s < self.options.open_interval_s:
            return candle.pending is None
        newest, candle.pending, candle.sent_s = candle.pending, None, now_s
        if channel.open_receivers:
            candle.sequence += 1
            message = self._encoder.messages(newest, [candle.sequence], is_final=False)[0]
            self.hub.publish_open(channel, int(newest["timestamp"][0]), message)
        return True

    async def _pace(self) -> None:
        """Send what came too soon, until nothing waits."""
        while any(candle.pending is not None for candle in self._open.values()):
            await self._clock.sleep(self.options.open_interval_s)
            for channel, candle in self._open.items():
                self._send_open(channel, candle)
        self._pacing = None


def _parts(batch: CandleBatch) -> Iterator[CandleBatch]:
    """`batch` in parts of a turn; a slice of hundreds of columns costs more than the JSON of a candle."""
    if len(batch) <= _ROWS_A_TURN:
        yield batch
        return
    for start in range(0, len(batch), _ROWS_A_TURN):
        yield batch.slice(start, start + _ROWS_A_TURN)

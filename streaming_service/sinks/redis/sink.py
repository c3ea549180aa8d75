"""The sink itself: candles in, everything else in the background."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import Any, Final

from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.errors import SinkBusy, SinkRejected
from market_data_tick_handler.wire import CandleEncoder
from streaming_service.clock import Clock
from streaming_service.sink import SinkItem
from streaming_service.sinks.marks import MarkSource, MarkWriter
from streaming_service.sinks.redis.buffer import SendBuffer
from streaming_service.sinks.redis.commands import CandleCommands
from streaming_service.sinks.redis.link import Link, make_link
from streaming_service.sinks.redis.marks import Marks, OpenCandles
from streaming_service.sinks.redis.options import RedisOptions
from streaming_service.sinks.redis.sender import Sender
from streaming_service.sinks.redis.series import Entry, Series
from streaming_service.sinks.redis.state import RedisState

# Rows written before the sender gets a turn: the first candles of a large turn must not wait for the last one's JSON.
_ROWS_A_TURN: Final = 16


class RedisSink:
    """Candles to the streams, channels and last values that docs/reference/wire.md describes.

    `write` returns as soon as the candles are in the buffer; a task of the sink's own delivers them. Every candle comes
    to its stream exactly once and in the order it was written, whatever happens to connections and servers; to the
    channel at least once. Numbers are those of the batch; without any, they go on behind the end of the stream.

    link: another way to Redis than the one that the address names.

    Raises:
        ConfigError: the address, or a column, is none.
    """

    def __init__(
        self, options: RedisOptions, *, clock: Clock, marks: MarkSource | None = None, link: Link | None = None
    ) -> None:
        self.state = RedisState()
        self._options = options
        self._clock = clock
        counters = self.state.counters
        self._encoder = CandleEncoder(columns=options.columns, encoding=options.encoding)
        self._buffer = SendBuffer(rows=options.buffer_rows, size=options.buffer_bytes, keep_size=options.keep_bytes)
        self._link = make_link(options.address, timeout_s=options.timeout_s) if link is None else link
        writer = None
        if marks is not None:
            writer = MarkWriter(marks, encoding=options.encoding, clock=clock, late_after_s=options.late_after_s)
        self._marks = Marks(writer, counters)
        self._open_candles = OpenCandles(self._encoder, options.open_interval_s, clock, counters)
        self._sender = Sender(
            self._link,
            self._buffer,
            CandleCommands(self._encoder, options.stream_length),
            self._marks,
            self._open_candles,
            options=options,
            state=self.state,
            clock=clock,
        )
        self._series: dict[tuple[str, Timeframe], Series] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._since_turn = 0
        self._rejected = 0

    async def open(self) -> None:
        """Begin to deliver. Redis need not be there yet."""
        if not self._tasks:
            self._tasks = [
                asyncio.create_task(self._sender.run(), name="redis sender"),
                asyncio.create_task(self._pulse(), name="redis pulse"),
            ]
            for task in self._tasks:
                # Whoever waits for progress must see that there will be none.
                task.add_done_callback(lambda _: self._sender.progress.set())

    async def write(self, batch: SinkItem) -> None:
        """Take the candles of `batch` on the way; ticks are none of ours.

        Raises:
            SinkBusy: Redis has not taken enough of what came before; nothing of `batch` was taken.
        """
        if not isinstance(batch, CandleBatch) or not len(batch):
            return
        self._check_tasks()
        if not self._buffer.has_room(len(batch)):
            raise self._busy(len(batch))
        entries: list[Entry] = []
        for part in _parts(batch):
            entries += self._entries(part)
            await self._give_turn(len(part))
        if not self._buffer.has_room(len(entries), sum(len(entry.body) for entry in entries)):
            raise self._busy(len(batch))
        self._buffer.add(entries)
        self._open_candles.end(batch)
        self.state.counters.taken += len(entries)
        self._sender.wake()

    def write_open(self, batch: CandleBatch) -> None:
        """The last row of `batch` is the candle in progress as it stands now. Of what comes faster than
        `open_interval_s` the newest is sent."""
        if len(batch):
            self._open_candles.put(batch)
            self._sender.wake()

    async def flush(self) -> None:
        """Return once everything written before is in Redis.

        Raises:
            SinkBusy: it is not, as Redis does not take it at the moment.
            SinkRejected: some of it never will be.
        """
        self._check_tasks()
        if not await self._settled(self._buffer.put, self._options.timeout_s, patient=False):
            raise SinkBusy(f"{self._buffer.rows} candles wait for Redis: {self.state.last_error or 'it is slow'}")
        self._report_rejected()

    async def aclose(self) -> None:
        """Deliver what is left, for `close_timeout_s` at most, and disconnect.

        Raises:
            SinkRejected: candles could not be delivered.
        """
        broken = [task for task in self._tasks if task.done()]
        try:
            if self._tasks and not broken:
                await self._settled(self._buffer.put, self._options.close_timeout_s, patient=True)
        finally:
            tasks, self._tasks = self._tasks, []
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._link.aclose()
            self.state.connected = False
        left = self._buffer.rows
        if left and not broken:
            self._buffer.clear()
            raise SinkRejected(
                f"{left} candles were not delivered before the end: {self.state.last_error or 'redis is slow'}; they "
                "are in the stored candles",
                rows=range(left),
            )
        self._report_rejected()

    def not_ready(self) -> list[str]:
        """Why the service is not ready, as far as Redis is concerned."""
        full = bool(self._buffer.rows) and not self._buffer.has_room(1)
        return self.state.reasons(self._clock.monotonic_s(), full=full)

    def report(self) -> dict[str, Any]:
        """The section about Redis in `/health`."""
        return self.state.report(self._clock.monotonic_s(), rows=self._buffer.rows, size=self._buffer.size)

    def _entries(self, batch: CandleBatch) -> Iterable[Entry]:
        key = (batch.instrument.key, batch.timeframe)
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = Series(*key)
        journal = [None] * len(batch) if batch.sequences is None else batch.sequences.tolist()
        revisions = batch["revision"].tolist() if "revision" in batch.columns else [0] * len(batch)
        rows = zip(self._encoder.bodies(batch), batch["timestamp"].tolist(), revisions, journal, strict=True)
        return (Entry(series, body, timestamp, revision, number) for body, timestamp, revision, number in rows)

    async def _give_turn(self, rows: int) -> None:
        self._since_turn += rows
        if self._since_turn >= _ROWS_A_TURN:
            self._since_turn = 0
            await asyncio.sleep(0)

    async def _pulse(self) -> None:
        """Wakes the sender for what is due by time: watermarks, candles in progress that had to wait."""
        step_s = min(self._options.open_interval_s, self._options.mark_interval_s)
        next_s = self._clock.monotonic_s() + self._options.mark_interval_s
        while True:
            if self._clock.monotonic_s() >= next_s:
                next_s += self._options.mark_interval_s
                self._marks.beat(self._buffer.put)
            self._sender.wake()
            await self._clock.sleep(step_s)

    async def _settled(self, put: int, timeout_s: float, *, patient: bool) -> bool:
        """Whether the first `put` candles are settled, waiting for it; not while Redis fails, unless `patient`."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._buffer.settled < put and (patient or self.state.trouble_since_s is None):
                    self._check_tasks()
                    self._sender.progress.clear()
                    self._sender.wake()
                    await self._sender.progress.wait()
        except TimeoutError:
            pass
        return self._buffer.settled >= put

    def _check_tasks(self) -> None:
        """A defect that ended a task is the supervisor's business, like any other."""
        for task in self._tasks:
            error = task.exception() if task.done() and not task.cancelled() else None
            if error is not None:
                raise error

    def _busy(self, rows: int) -> SinkBusy:
        self.state.counters.refused_full += rows
        return SinkBusy(f"{self._buffer.rows} candles wait for Redis, which is all the buffer holds")

    def _report_rejected(self) -> None:
        rejected, self._rejected = self.state.counters.rejected - self._rejected, self.state.counters.rejected
        if rejected:
            raise SinkRejected(f"redis refused {rejected} candles: {self.state.last_error}", rows=range(rejected))


def _parts(batch: CandleBatch) -> Iterator[CandleBatch]:
    # Cutting a batch costs more than writing a candle.
    if len(batch) <= _ROWS_A_TURN:
        yield batch
    else:
        yield from (batch.slice(start, start + _ROWS_A_TURN) for start in range(0, len(batch), _ROWS_A_TURN))

"""What a sink is to the live application, and the bounded queue in front of each one."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple, Protocol, runtime_checkable

from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.errors import SinkBusy, SinkError, SinkRejected
from streaming_service.clock import Clock
from streaming_service.numbering import ChannelNumbers

log = logging.getLogger(__name__)

SinkItem = CandleBatch | Rows

BUSY_ATTEMPTS: Final = 8
BUSY_BASE_S: Final = 0.1
BUSY_CAP_S: Final = 10.0
# An outage fails every flush, and is one piece of news.
TELL_AGAIN_S: Final = 60.0


class Sink(Protocol):
    """An output. `write` may keep rows in memory until `flush`; after `aclose` everything is where it belongs."""

    async def open(self) -> None: ...

    async def write(self, batch: SinkItem) -> None: ...

    async def flush(self) -> None: ...

    async def aclose(self) -> None: ...


class TickChannel(NamedTuple):
    """What numbers ticks: a journal (`birth`) of an instrument, by data type, as fed or as fetched by repairs."""

    instrument: str
    data_type: DataType
    birth: str
    fetched: bool = False


@runtime_checkable
class CountsTicks(Protocol):
    """A sink that remembers which ticks it has, over restarts, and takes none of them twice."""

    async def resume_ticks(self, ends: Mapping[TickChannel, int]) -> Mapping[TickChannel, int]:
        """The number of the last row of each channel that the sink has or need not have. One that is new to it begins
        behind the number given, from now on and over restarts.

        Raises:
            SinkError: not now.
        """
        ...


class FullPolicy(StrEnum):
    """What happens to a batch that meets a full queue."""

    BLOCK = "block"
    DROP_OLDEST = "drop_oldest"


@dataclass(slots=True)
class OutletCounters:
    """What became of the rows handed to one outlet: put = written + dropped + failed + unwritten."""

    put: int = 0
    written: int = 0
    dropped: int = 0
    failed: int = 0
    errors: int = 0
    retries: int = 0


class Outlet:
    """One sink behind its queue of at most `capacity` batches.

    busy_attempts: writes to a sink that is busy, before a batch counts as failed.
    numbers: for candles that have none, before any of them can be dropped here.
    settled: rows put, in order, that need not be delivered again: written and flushed, or counted as lost.
    abandoned: set once nobody writes any more.

    With `block` a full queue makes ingest wait, and so the sources; with `drop_oldest` the oldest batch goes and is
    counted. One producer, one consumer.
    """

    def __init__(
        self,
        name: str,
        sink: Sink,
        *,
        clock: Clock,
        capacity: int = 1_024,
        policy: FullPolicy = FullPolicy.BLOCK,
        flush_interval_s: float | None = None,
        busy_attempts: int = BUSY_ATTEMPTS,
        numbers: ChannelNumbers | None = None,
    ) -> None:
        self.name = name
        self.sink = sink
        self.capacity = capacity
        self.policy = policy
        self.flush_interval_s = flush_interval_s
        self._busy_attempts = busy_attempts
        self._numbers = numbers
        self.counters = OutletCounters()
        self.settled = 0
        self._clock = clock
        self._queue: deque[SinkItem] = deque()
        self._filled = asyncio.Event()
        self._room = asyncio.Event()
        self._closing = False
        self.abandoned = asyncio.Event()
        self._using_sink = asyncio.Lock()
        # By kind of error: when to log the next one, and how many were not logged since the last.
        self._told: dict[tuple[str, type], tuple[float, int]] = {}

    @property
    def depth(self) -> int:
        """Batches waiting."""
        return len(self._queue)

    @property
    def unwritten_rows(self) -> int:
        """Rows put that have come to no end yet: queued, or being written."""
        counters = self.counters
        return counters.put - counters.written - counters.dropped - counters.failed

    async def put(self, item: SinkItem) -> None:
        """Queue `item`, following the policy when the queue is full. After `abandon` it is counted as failed."""
        self.counters.put += row_count(item)
        if self._numbers is not None and isinstance(item, CandleBatch):
            item = self._numbers.number(item)
        while len(self._queue) >= self.capacity and not self.abandoned.is_set():
            if self.policy is FullPolicy.DROP_OLDEST:
                self.counters.dropped += row_count(self._queue.popleft())
            else:
                self._room.clear()
                await self._room.wait()
        if self.abandoned.is_set():
            self.counters.failed += row_count(item)
            return
        self._queue.append(item)
        self._filled.set()

    def close(self) -> None:
        """Nothing more will be put; `run` returns once the queue is written."""
        self._closing = True
        self._filled.set()

    def abandon(self) -> None:
        """Nobody writes any more: what is queued or still comes is counted as failed and holds nothing up."""
        self.abandoned.set()
        self.counters.failed += sum(row_count(item) for item in self._queue)
        self._queue.clear()
        self._room.set()

    async def run(self) -> None:
        """Write until closed and empty. Can be called again after it raised.

        Cancelling means that there is no time left, so the sink is not closed then.
        """
        await self.sink.open()
        cancelled = False
        try:
            while (item := await self._take()) is not None:
                await self._write(item)
            await self._flush()
        except asyncio.CancelledError:
            cancelled = True
            raise
        finally:
            if not cancelled:
                await self._aclose()

    async def flush_periodically(self) -> None:
        """Flush the sink every `flush_interval_s` until cancelled; returns at once without an interval."""
        while self.flush_interval_s is not None:
            await self._clock.sleep(self.flush_interval_s)
            await self._flush()

    async def _take(self) -> SinkItem | None:
        while not self._queue:
            if self._closing:
                return None
            self._filled.clear()
            await self._filled.wait()
        item = self._queue.popleft()
        self._room.set()
        return item

    async def _write(self, item: SinkItem) -> None:
        rows = row_count(item)
        done = False
        try:
            done = await self._write_patiently(item)
        finally:
            if done:
                self.counters.written += rows
            else:
                self.counters.failed += rows

    async def _write_patiently(self, item: SinkItem) -> bool:
        for attempt in range(self._busy_attempts):
            try:
                async with self._using_sink:
                    await self.sink.write(item)
                return True
            except SinkBusy as busy:
                self.counters.retries += 1
                wait_s = busy.retry_after
                if wait_s is None:
                    wait_s = random.uniform(0.0, min(BUSY_CAP_S, BUSY_BASE_S * 2.0 ** min(attempt, 16)))
                await self._clock.sleep(wait_s)
            except SinkError as error:
                if isinstance(error, SinkRejected):
                    self._take_back(len(error.rows) - row_count(item))
                self._count_error("write", error)
                return False
        self._count_error("write", SinkBusy(f"still busy after {self._busy_attempts} attempts"))
        return False

    async def _flush(self) -> None:
        await self._settle("flush", self.sink.flush)

    async def _aclose(self) -> None:
        await self._settle("close", self.sink.aclose)

    async def _settle(self, action: str, step: Callable[[], Awaitable[None]]) -> None:
        try:
            async with self._using_sink:
                ended = self.counters.put - self.unwritten_rows
                await step()
                self.settled = ended
        except SinkError as error:
            if isinstance(error, SinkRejected):
                self._take_back(len(error.rows))
            self._count_error(action, error)

    def _take_back(self, rows: int) -> None:
        """Rows that earlier writes had gathered and the sink could not keep after all."""
        self.counters.written -= max(rows, 0)
        self.counters.failed += max(rows, 0)

    def _count_error(self, action: str, error: SinkError) -> None:
        self.counters.errors += 1
        kind = (action, type(error))
        again_s, untold = self._told.get(kind, (-math.inf, 0))
        untold += 1
        now_s = self._clock.monotonic_s()
        if now_s >= again_s:
            told = {"sink": self.name, "action": action, "error": str(error), "errors": untold}
            log.error("sink failed", extra=told)
            again_s, untold = now_s + TELL_AGAIN_S, 0
        self._told[kind] = (again_s, untold)


def row_count(item: SinkItem) -> int:
    """Rows of a candle or tick batch."""
    return len(item) if isinstance(item, CandleBatch) else len(item.batch)

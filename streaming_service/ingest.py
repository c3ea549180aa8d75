"""Drives the pipelines in live: sources -> one turn -> pipelines -> the queues of the sinks. Nothing else may."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

import numpy as np

from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.events import Disconnect, Event, Gap, Heartbeat, Rows
from market_data_tick_handler.core.ticks import DataType, TickBatch
from market_data_tick_handler.core.timeframes import Timeframe, floor_us
from market_data_tick_handler.errors import MarketDataError, ServiceEnded
from streaming_service.clock import SECOND_US, Clock
from streaming_service.sink import Outlet
from streaming_service.source import BufferedSource, PacedSource, Source

log = logging.getLogger(__name__)

T = TypeVar("T")

# Rows that may wait for a turn before the sources are held back: bounds memory and the length of a turn.
MAX_PENDING_ROWS: Final = 65_536
TIMER_S: Final = 0.05
_SHORTEST_SLEEP_S: Final = 0.0005
_NO_TURN: Final = "the service has had its last turn: start it again and repeat what was asked"


class CandlePipeline(Protocol):
    """What ingest uses of `core.pipeline.Pipeline`."""

    stored: list[TickBatch]

    @property
    def clock_us(self) -> int: ...

    def feed(self, events: Event | Sequence[Event]) -> None: ...

    def advance(self, now_us: int) -> None: ...

    def outputs(self, published_us: int | None = None) -> list[CandleBatch]: ...

    def finish(self, stop_us: int) -> None: ...


class TurnKeeper(Protocol):
    """Whoever makes turns durable. Nothing leaves the service before both were called."""

    def keep(self, instrument: str, pipeline: Any) -> Sequence[CandleBatch]:
        """The pipeline has taken the turn's rows, which are in `stored`, and knows the turn's gaps. Returns what is
        left from before the turn to be published first."""
        ...

    def admit(self, batch: CandleBatch) -> CandleBatch | None:
        """What of `batch` was not published before, numbered for good; None if nothing."""
        ...

    def kept_rows(self, instrument: str, stored: Sequence[TickBatch]) -> Sequence[Rows]:
        """The rows that `keep` took from `stored`, with their numbers."""
        ...


class TurnObserver(Protocol):
    """Whoever wants to know what a turn drained and published: health and metrics."""

    def drained(self, event: Event, now_us: int) -> None: ...

    def published(self, batch: CandleBatch, now_us: int) -> None: ...


@dataclass(slots=True)
class Feed:
    """One source and how far it has got.

    `recorded`: its rows carry times of receipt of their own (a recording, a simulation), not the clock's.
    `vouches_for`: of which instruments its signs of life and death are believed; None: all. Where two feeds share an
    instrument, that is the one with its trades: books that go on say nothing of trades that do not.
    """

    name: str
    source: Source
    recorded: bool = False
    vouches_for: Callable[[str], bool] | None = None
    ended: bool = False
    last_us: int = 0
    instruments: set[str] = field(default_factory=set)
    _paced: PacedSource | None = field(init=False, repr=False)
    _buffered: BufferedSource | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # Asked once: the check of a protocol is too slow for every turn.
        self._paced = self.source if isinstance(self.source, PacedSource) else None
        self._buffered = self.source if isinstance(self.source, BufferedSource) else None

    def drain(self) -> list[Event]:
        """What a source that gathers has gathered."""
        return [] if self._buffered is None else self.believed(self._buffered.drain())

    def believed(self, events: list[Event]) -> list[Event]:
        """`events` without signs of life and death of instruments for which another feed vouches."""
        vouches = self.vouches_for
        if vouches is None:
            return events
        return [event for event in events if isinstance(event, Rows | Gap) or vouches(event.instrument)]

    def promise_us(self, now_us: int) -> int:
        """Every row of this feed with a `local_timestamp` below the result has been drained."""
        if self.ended or not self.recorded:
            return now_us
        return min(now_us, self.last_us if self._paced is None else self._paced.fed_until_us)

    def note(self, event: Event) -> None:
        """Remember whose events come from here and the latest arrival among them."""
        self.instruments.add(event.instrument)
        self.last_us = max(self.last_us, arrival_us(event))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cadence:
    """When candles are due: `step_us` is the shortest candle, `timer_s` the longest wait, in seconds of the clock."""

    step_us: int
    grace_us: int
    timer_s: float = TIMER_S

    @classmethod
    def of(cls, timeframes: Sequence[Timeframe], grace_us: int, *, timer_s: float = TIMER_S) -> Cadence:
        return cls(step_us=min(timeframe.us for timeframe in timeframes), grace_us=grace_us, timer_s=timer_s)

    def wait_s(self, now_us: int) -> float:
        """Seconds until the next candle is due, at most `timer_s`."""
        due_us = floor_us(now_us - self.grace_us, self.step_us) + self.step_us + self.grace_us
        return max(_SHORTEST_SLEEP_S, min(self.timer_s, (due_us - now_us) / SECOND_US))


class Ingest:
    """Turns what the sources yield into candles in the outlets.

    A turn takes everything that was yielded, feeds each pipeline once, advances all of them to the time up to which
    every feed is known to be drained, and fans the outputs out. Between the drain and the promise there is no await,
    so no row can come in between. Rows of an instrument without a pipeline, or of a data type that is not among
    `data_types`, are counted in `homeless_rows`. undelivered: by outlet, what it was given before this start and did
    not write. before_turns, after_turns: awaited before the first turn, and after the last.
    """

    def __init__(
        self,
        pipelines: Mapping[str, CandlePipeline],
        feeds: Sequence[Feed],
        *,
        clock: Clock,
        cadence: Cadence,
        candle_outlets: Sequence[Outlet] = (),
        tick_outlets: Sequence[Outlet] = (),
        observers: Sequence[TurnObserver] = (),
        keeper: TurnKeeper | None = None,
        undelivered: Callable[[str], Iterator[CandleBatch]] | None = None,
        before_turns: Callable[[], Awaitable[None]] | None = None,
        after_turns: Callable[[], Awaitable[None]] | None = None,
        data_types: Collection[DataType] = tuple(DataType),
        max_pending_rows: int = MAX_PENDING_ROWS,
    ) -> None:
        self.pipelines = pipelines
        self.feeds = list(feeds)
        self.homeless_rows: dict[tuple[str, DataType], int] = {}
        self.turns = 0
        # While candles are on their way to the outlets, the pipelines' clocks are ahead of them.
        self.in_turn = False
        self.finished = False
        self.cadence = cadence
        self._clock = clock
        self._candle_outlets = list(candle_outlets)
        self._tick_outlets = list(tick_outlets)
        self._observers = list(observers)
        self._keeper = keeper
        self._undelivered = undelivered
        self._before_turns = before_turns
        self._after_turns = after_turns
        self._data_types = frozenset(data_types)
        self._max_pending_rows = max_pending_rows
        self._pending: list[Event] = []
        self._pending_rows = 0
        self._wake = asyncio.Event()
        self._drained = asyncio.Event()
        self._closing = False
        self._ended = False
        self._between: list[tuple[Callable[[], None], asyncio.Future[Any]]] = []

    async def pump(self, feed: Feed) -> None:
        """Take lists from one source until it ends. A break says Disconnect for every instrument seen on it."""
        feed.ended = False
        broken = True
        try:
            async with aclosing(feed.source.events()) as lists:  # type: ignore[type-var]
                async for events in lists:
                    self._accept(feed, events)
                    while self._pending_rows >= self._max_pending_rows:
                        self._drained.clear()
                        await self._drained.wait()
            feed.ended = True
            broken = False
        except asyncio.CancelledError:
            broken = False
            raise
        finally:
            if broken:
                self._break(feed)

    async def run(self) -> None:
        """Turns until `close`. The last one takes what is still pending."""
        try:
            await self._deliver_again()
            while not self._closing:
                await self._wake.wait()
                self._wake.clear()
                await self.turn()
                # A source that always has rows must not keep everything else from running.
                await asyncio.sleep(0)
            await self.turn()
        finally:
            self._ended = True
            for _, asked in self._between:
                if not asked.done():
                    asked.set_exception(ServiceEnded(_NO_TURN))
        if self._after_turns is not None:
            await self._after_turns()

    async def _deliver_again(self) -> None:
        """What sinks had taken and not written when the service ended the last time."""
        if self._undelivered is not None:
            for outlet in self._candle_outlets:
                for batch in self._undelivered(outlet.name):
                    await outlet.put(batch)
        if self._before_turns is not None:
            await self._before_turns()

    async def tick(self) -> None:
        """Wake `run` whenever a candle may be due, whether rows come or not."""
        while True:
            await self._clock.sleep(self.cadence.wait_s(self._clock.now_us()))
            self._wake.set()

    def close(self) -> None:
        """No source will yield any more."""
        self._closing = True
        self._wake.set()

    async def between_turns(self, change: Callable[[], T]) -> T:
        """Call `change` before the next turn, which comes at once, and return what it returned. Pipelines and feeds
        change hands there only, because every turn before is whole: fed, kept and published.

        Raises:
            MarketDataError, OSError, ValueError: what `change` raised.
            ServiceEnded: no turn comes any more.
        """
        if self._ended:
            raise ServiceEnded(_NO_TURN)
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def carry_out() -> None:
            if done.cancelled():
                # Nobody waits for it any more: the service is being stopped.
                return
            try:
                result = change()
            except (MarketDataError, OSError, ValueError) as error:
                done.set_exception(error)
            else:
                done.set_result(result)

        self._between.append((carry_out, done))
        self._wake.set()
        return await done

    async def turn(self) -> None:
        """Drain, feed, advance, publish."""
        self.turns += 1
        self.in_turn = True
        try:
            await self._turn()
        finally:
            self.in_turn = False

    async def _turn(self) -> None:
        while self._between:
            carry_out, _ = self._between[0]
            carry_out()
            del self._between[0]
        events = self._drain()
        # Read after the drain: what arrives from here on is stamped later.
        now_us = self._clock.now_us()
        promise_us = min((feed.promise_us(now_us) for feed in self.feeds), default=now_us)
        for instrument, own in self._by_instrument(events, now_us).items():
            self.pipelines[instrument].feed(own)
        # A copy: what is awaited below may take long enough for an instrument to be added.
        for instrument, pipeline in list(self.pipelines.items()):
            # A recording that has not begun promises nothing.
            if promise_us > 0:
                pipeline.advance(promise_us)
            await self._publish(instrument, pipeline)

    async def finish(self) -> None:
        """End of finite sources: publish the candles that are still open."""
        self.finished = True
        for instrument, pipeline in self.pipelines.items():
            pipeline.finish(pipeline.clock_us)
            await self._publish(instrument, pipeline)

    def _drain(self) -> list[Event]:
        events, self._pending, self._pending_rows = self._pending, [], 0
        self._drained.set()
        for feed in self.feeds:
            gathered = feed.drain()
            for event in gathered:
                feed.note(event)
            events += gathered
        return events

    def _accept(self, feed: Feed, events: list[Event]) -> None:
        for event in events:
            feed.note(event)
            if isinstance(event, Rows):
                self._pending_rows += len(event.batch)
        self._pending.extend(events)
        self._wake.set()

    def _break(self, feed: Feed) -> None:
        at_us = feed.promise_us(self._clock.now_us())
        broken: list[Event] = [
            Disconnect(instrument, at_us, feed.last_us, f"source {feed.name} broke") for instrument in feed.instruments
        ]
        self._accept(feed, feed.believed(broken))

    def _by_instrument(self, events: list[Event], now_us: int) -> dict[str, list[Event]]:
        groups: dict[str, list[Event]] = {}
        for event in events:
            if not self._wanted(event):
                self._turn_away(event)
                continue
            for observer in self._observers:
                observer.drained(event, now_us)
            groups.setdefault(event.instrument, []).append(event)
        return groups

    def _wanted(self, event: Event) -> bool:
        if isinstance(event, Rows | Gap) and event.data_type not in self._data_types:
            return False
        return event.instrument in self.pipelines

    def _turn_away(self, event: Event) -> None:
        if isinstance(event, Rows):
            key = (event.instrument, event.data_type)
            self.homeless_rows[key] = self.homeless_rows.get(key, 0) + len(event.batch)

    def _closed(self, instrument: str, pipeline: CandlePipeline, published_us: int) -> list[CandleBatch]:
        """What is to be published, kept durable where somebody keeps it."""
        if self._keeper is None:
            return pipeline.outputs(published_us=published_us)
        left = [_stamped(batch, published_us) for batch in self._keeper.keep(instrument, pipeline)]
        admitted = map(self._keeper.admit, [*left, *pipeline.outputs(published_us=published_us)])
        return [batch for batch in admitted if batch is not None]

    def _rows(self, instrument: str, pipeline: CandlePipeline) -> Sequence[Rows]:
        """What the turn fed, for the outlets of ticks."""
        stored, pipeline.stored = pipeline.stored, []
        if not self._tick_outlets:
            return ()
        if self._keeper is None:
            return [Rows(instrument, batch) for batch in stored]
        return self._keeper.kept_rows(instrument, stored)

    async def _publish(self, instrument: str, pipeline: CandlePipeline) -> None:
        published_us = self._clock.now_us()
        closed = self._closed(instrument, pipeline, published_us)
        rows = self._rows(instrument, pipeline)
        for batch in closed:
            for observer in self._observers:
                observer.published(batch, published_us)
            for outlet in self._candle_outlets:
                await outlet.put(batch)
        for outlet in self._tick_outlets:
            for ticks in rows:
                await outlet.put(ticks)
        if closed:
            # What is closed goes out while the candles of the next instrument are computed, and not behind the last's.
            await asyncio.sleep(0)


def _stamped(batch: CandleBatch, published_us: int) -> CandleBatch:
    return batch.replace(timestamp_out=np.full(len(batch), published_us, np.int64))


def arrival_us(event: Event) -> int:
    """The latest instant of the arrival clock that `event` tells of."""
    match event:
        case Rows():
            return int(event.batch["local_timestamp"].max()) if len(event.batch) else 0
        case Disconnect():
            return event.last_alive_us
        case Heartbeat():
            return event.at_us
        case Gap():
            return event.to_us

"""Brings what only REST tells into the streams: book snapshots, in step with their changes, and polled values."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, Final, Protocol

from market_data_tick_handler.core.instruments import InstrumentDefinition
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.errors import ProtocolViolation, SourceError, SourceUnavailable
from streaming_service.clock import Clock
from streaming_service.sources.connection.deadline import any_of
from streaming_service.sources.connection.options import BookOptions
from streaming_service.sources.connection.venue_socket import VenueSocket
from streaming_service.sources.exchanges.protocol import Poll, Request, Venue

log = logging.getLogger(__name__)

_SPREAD: Final = 0.1
Spawn = Callable[[Coroutine[Any, Any, None], str], None]


class Rest(Protocol):
    """What is used of `RestClient`."""

    async def get(self, request: Request) -> bytes: ...


class _Sync:
    """One book being brought into step. ready: rows came. void: they did not, and will not from this snapshot."""

    __slots__ = ("ready", "void")

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.void = asyncio.Event()


class BookKeeper:
    """Snapshots and polls of one source. resyncs, failures: books that broke, and attempts that came to nothing.

    spawn: starts a task with a name. give_up: told which connection cannot get a book into step.
    """

    def __init__(
        self,
        venue: Venue,
        rest: Rest,
        *,
        instruments: Mapping[str, InstrumentDefinition],
        clock: Clock,
        options: BookOptions,
        spawn: Spawn,
        give_up: Callable[[VenueSocket, str], None],
    ) -> None:
        self._venue = venue
        self._rest = rest
        self._instruments = instruments
        self._clock = clock
        self._options = options
        self._spawn = spawn
        self._give_up = give_up
        self._running: dict[tuple[int, str], _Sync] = {}
        self.resyncs = 0
        self.failures = 0

    def begin(self, socket: VenueSocket) -> None:
        """A connection opened: fetch the books that it does not bring itself, and what is polled for its streams."""
        streams = [stream for stream in sorted(socket.subscription.streams) if stream[0] in self._instruments]
        books = [name for name, data_type in streams if data_type is DataType.BOOK]
        books = [name for name in books if self._venue.snapshot(self._instruments[name]) is not None]
        if books:
            self._spawn(self._first_books(socket, books), f"first books of connection {socket.number}")
        for data_type in sorted({data_type for _, data_type in streams}):
            polled = [
                self._instruments[name] for name, kind in streams if kind is data_type and name in self._instruments
            ]
            for poll in self._venue.polls(polled, [data_type]):
                self._spawn(self._repeat(socket, poll), f"poll {poll.request.path}")

    def in_step(self, socket: VenueSocket, instrument: str) -> None:
        """Rows of this book came."""
        sync = self._running.get((socket.number, instrument))
        if sync is not None:
            sync.ready.set()

    def out_of_step(self, socket: VenueSocket, instrument: str, reason: str) -> None:
        """The decoder gave this book up until the next snapshot."""
        self.resyncs += 1
        log.warning("book out of step", extra={"instrument": instrument, "reason": reason})
        sync = self._running.get((socket.number, instrument))
        if sync is not None:
            sync.ready.clear()
            sync.void.set()
        elif instrument in self._instruments:
            self._spawn(self._bring(socket, instrument), f"book of {instrument}")

    async def _first_books(self, socket: VenueSocket, books: Iterable[str]) -> None:
        """Changes must flow before the snapshot, or it would be older than the first of them."""
        if await any_of(self._clock, self._options.answer_s, socket.ended, socket.flowing) and socket.ended.is_set():
            return
        await self._clock.sleep(self._options.delay_s)
        for instrument in books:
            if (socket.number, instrument) not in self._running:
                self._spawn(self._bring(socket, instrument), f"book of {instrument}")

    async def _bring(self, socket: VenueSocket, instrument: str) -> None:
        """Ask for a book until its rows come."""
        key = (socket.number, instrument)
        if key in self._running:
            return
        sync = self._running[key] = _Sync()
        try:
            for attempt in range(1, self._options.attempts + 1):
                problem = await self._ask(socket, self._instruments[instrument])
                if problem is None:
                    await any_of(self._clock, self._options.answer_s, sync.ready, sync.void, socket.ended)
                if socket.ended.is_set() or sync.ready.is_set():
                    return
                if isinstance(problem, SourceError) and not isinstance(problem, SourceUnavailable | ProtocolViolation):
                    log.error("no book: %s", problem, extra={"instrument": instrument})
                    return
                self.failures += 1
                sync.void.clear()
                wait_s = self._options.backoff.wait_s(attempt, problem or SourceUnavailable("no rows"))
                if await any_of(self._clock, wait_s, socket.ended, sync.ready):
                    return
            self._give_up(socket, f"book of {instrument} does not come into step")
        finally:
            del self._running[key]

    async def _ask(self, socket: VenueSocket, instrument: InstrumentDefinition) -> SourceError | None:
        """Fetch a snapshot, or have the venue send one; what went wrong."""
        asked = self._venue.snapshot(instrument)
        if asked is None:
            for message in self._venue.resubscribe(instrument):
                socket.send(message)
                await self._clock.sleep(socket.subscription.pause_s)
            return None
        request, frame = asked
        try:
            socket.inbox.put(frame(await self._rest.get(request)))
        except SourceError as error:
            return error
        return None

    async def _repeat(self, socket: VenueSocket, poll: Poll) -> None:
        # Not all polls at the same moment.
        wait_s = random.uniform(0.0, _SPREAD * poll.every_s)
        while not await any_of(self._clock, wait_s, socket.ended):
            try:
                socket.inbox.put(poll.frame(await self._rest.get(poll.request)))
            except SourceError as error:
                self.failures += 1
                log.warning("poll failed: %s", error, extra={"path": poll.request.path})
            wait_s = poll.every_s

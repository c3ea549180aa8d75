"""A venue as a source of ticks: its connections, its REST interface and its proof of life behind one `drain()`.

Theory of operation. Sockets append what arrives to inboxes (`inbox`); nothing else happens between turns. `drain` is a
turn (`turns`). `events` runs what waits: a task per subscription that keeps it served (`link`), books and polls over
REST (`books`), questions about silent streams (`checks`), and one task that looks at all timers. It yields empty lists,
each of which asks for a turn.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Coroutine, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final

from market_data_tick_handler.core.events import Event, Gap
from market_data_tick_handler.core.instruments import InstrumentDefinition
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.errors import MarketDataError, SourceError, SourceUnavailable
from streaming_service.clock import SECOND_US, Clock
from streaming_service.sources.connection.books import BookKeeper
from streaming_service.sources.connection.chains import ChainLists
from streaming_service.sources.connection.checks import LastTradeCheck, Newest
from streaming_service.sources.connection.deadline import any_of
from streaming_service.sources.connection.dialing import Dialer
from streaming_service.sources.connection.inbox import Inbox, Load
from streaming_service.sources.connection.intake import decoder_for
from streaming_service.sources.connection.link import Link
from streaming_service.sources.connection.options import ConnectionOptions
from streaming_service.sources.connection.recorder import FrameRecorder
from streaming_service.sources.connection.rest import RestClient
from streaming_service.sources.connection.status import SourceStatus, connection_status
from streaming_service.sources.connection.streams import StreamState
from streaming_service.sources.connection.turns import Turns
from streaming_service.sources.connection.venue_socket import VenueSocket
from streaming_service.sources.exchanges.protocol import Endpoints, Stream, Subscription, TradeRange, Venue

log = logging.getLogger(__name__)

# How long closing may take before a connection is cut.
_GOODBYE_S: Final = 1.0
# By how much a venue's clock may be ahead of ours, before a trade counts as younger than our subscription.
_SLACK_US: Final = 5 * SECOND_US


class ExchangeSource:
    """Live ticks of one venue: a `BufferedSource`.

    instruments, data_types: what to subscribe to, as far as the venue has it. endpoints: a server other than the real
    one. recorder: journals everything received; the caller closes it after the source.
    """

    def __init__(
        self,
        venue: Venue,
        instruments: Sequence[InstrumentDefinition],
        data_types: Collection[DataType],
        *,
        clock: Clock,
        endpoints: Endpoints | None = None,
        options: ConnectionOptions | None = None,
        recorder: FrameRecorder | None = None,
    ) -> None:
        self.venue = venue
        self.options = options = ConnectionOptions() if options is None else options
        self._endpoints = venue.endpoints if endpoints is None else endpoints
        self._data_types = tuple(data_types)
        self._clock = clock
        self._recorder = recorder
        self._wanted = {instrument.key: instrument for instrument in instruments}
        # Decoders name instruments that were dropped, too, until their connection is closed.
        self._known = dict(self._wanted)
        self._links: dict[Link, asyncio.Task[None]] = {}
        self._opened = 0
        self._asking: set[Stream] = set()
        self._group: asyncio.TaskGroup | None = None
        self._wake = asyncio.Event()
        self._drained = False
        self._load = Load(
            turn=(options.turn_frames, options.turn_bytes),
            hold=(options.hold_frames, options.hold_bytes),
            on_turn=self._wake.set,
            on_hold=self._hold,
        )
        self.rest = RestClient(venue, clock=clock, base=self._endpoints.rest, options=options.rest)
        self._books = BookKeeper(
            venue, self.rest, instruments=self._known, clock=clock, options=options.books, spawn=self._spawn,
            give_up=self.renew,
        )  # fmt: skip
        self._chains = ChainLists(venue, self.rest)
        self._check = LastTradeCheck(venue, self.rest, clock=clock, grace_s=options.checks.grace_s)
        self._questions = asyncio.Semaphore(options.checks.in_flight)
        self._dialer = Dialer(clock=clock, options=options)
        self._turns = Turns(venue, clock=clock, options=options, handler=self, recorder=recorder)

    @property
    def instruments(self) -> tuple[InstrumentDefinition, ...]:
        """What is asked for."""
        return tuple(self._wanted.values())

    @property
    def up(self) -> bool:
        """True while every subscription has a connection."""
        return bool(self._links) and all(link.up for link in self._links)

    def drain(self) -> list[Event]:
        """Everything that arrived before this call, decoded, and what follows from the time that passed."""
        self._drained = True
        return self._turns.drain()

    async def events(self) -> AsyncIterator[list[Event]]:
        """Run the connections. Every list is empty and asks for a turn, which comes where none came for `yield_s`.

        Raises:
            SourceUnavailable: a connection failed more often in a row than `ConnectionOptions.reconnect` allows.
        """
        runner = asyncio.create_task(self._run(), name=f"connections of {self.venue.exchange}")
        runner.add_done_callback(lambda _: self._wake.set())
        asking = asyncio.create_task(self._ask_for_turns(), name=f"turns of {self.venue.exchange}")
        try:
            while True:
                # The buffer fills while it is waited for: nothing may lie between the wish for a turn and the turn.
                await self._wake.wait()
                self._wake.clear()
                if runner.done():
                    break
                yield []
            runner.result()
        except BaseExceptionGroup as group:
            raise _first_error(group) from group
        finally:
            asking.cancel()
            runner.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(asking, runner, return_exceptions=True)
            await self._close()

    def set_instruments(self, instruments: Sequence[InstrumentDefinition]) -> None:
        """Subscribe to exactly these from now on.

        Streams of instruments that stay are not touched: additions get connections of their own, a connection is closed
        when nobody asks for any of its streams, and rows of others that it carries are left out.
        """
        self._wanted = {instrument.key: instrument for instrument in instruments}
        self._known.update(self._wanted)
        self._turns.intake.want(self._wanted)
        if self._recorder is not None:
            self._recorder.wanted(self._wanted)
        if self._group is None:
            return
        for link, task in list(self._links.items()):
            if not any(name in self._wanted for name, _ in link.subscription.streams):
                task.cancel()
                del self._links[link]
        self._spawn(self._subscribe_unserved(), "additions")

    def missing_trades(self, gap: Gap) -> TradeRange:
        """What to ask `rest.fetch_trades` for to fill `gap`, with the missing numbers where the venue counts."""
        return self._turns.streams.missing(gap)

    def status(self) -> SourceStatus:
        """What health and metrics want to know, now."""
        turns = self._turns
        for socket in turns.sockets.values():
            socket.inbox.tell()
        return SourceStatus(
            exchange=self.venue.exchange,
            connections=tuple(connection_status(link) for link in self._links),
            buffered=self._load.frames,
            buffered_bytes=self._load.bytes,
            holds=self._load.holds,
            filtered=dict(turns.filtered),
            repeated=dict(turns.intake.repeated),
            unwanted=dict(turns.intake.unwanted),
            refused=turns.refused,
            violations=turns.violations,
            unknown=turns.unknown,
            missing=sum(state.watch.missing for state in turns.streams),
            resyncs=self._books.resyncs,
            weight_used=self.rest.budget.used,
            rest_calls=self.rest.calls,
            rest_failures=self.rest.failures,
            journal_failed="" if self._recorder is None else self._recorder.failed,
        )

    async def open_socket(self, link: Link, replacing: VenueSocket | None) -> VenueSocket:
        """Open a connection for a link (`LinkOwner`)."""
        ended = asyncio.Event()
        inbox = Inbox(self._clock, self._load, max_bytes=self.options.max_frame_bytes, on_end=ended.set)
        subscription = link.subscription
        transport = await self._dialer.open(self._endpoints.sockets.rstrip("/") + subscription.path, inbox)
        number, self._opened = self._opened, self._opened + 1
        socket = VenueSocket(
            number,
            subscription,
            decoder=decoder_for(self.venue, subscription.streams, resolve=self._known.__getitem__, connection=number),
            inbox=inbox,
            transport=transport,
            keep_alive=self.venue.keep_alive,
            clock=self._clock,
            options=self.options,
            ended=ended,
        )
        if self._load.held:
            socket.hold(True)
        self._turns.opened(socket, replacing)
        self._books.begin(socket)
        return socket

    def unreachable(self, link: Link, error: SourceUnavailable) -> None:
        """No connection for a link (`LinkOwner`)."""
        self._turns.lost(link.subscription.streams, last_alive_us=0, reason=str(error))

    def renew(self, socket: VenueSocket, reason: str) -> None:
        """Replace a connection (`TurnHandler`)."""
        for link in self._links:
            if link.socket is socket:
                link.renew(reason)

    def in_step(self, socket: VenueSocket, instrument: str) -> None:
        """A book delivers (`TurnHandler`)."""
        self._books.in_step(socket, instrument)

    def out_of_step(self, socket: VenueSocket, instrument: str, reason: str) -> None:
        """A book is void (`TurnHandler`)."""
        self._books.out_of_step(socket, instrument, reason)

    def suspect(self, socket: VenueSocket, state: StreamState) -> None:
        """A stream is silent beyond belief on a connection that lives (`TurnHandler`)."""
        instrument, every_s = self._known[state.stream[0]], self.options.checks.every_s
        if state.stream[1] is DataType.BOOK and not state.primary:
            self._turns.streams.broken(state.stream, state.last_row_us, "trades came, and the book did not change")
            self.renew(socket, f"{state.stream} is dead: trades came and the book did not change")
        elif state.stream[1] is not DataType.TRADES or not self._check.can_ask(instrument):
            # Nobody can be asked: the connection's own proof of life is the best there is.
            state.liveness.proven_quiet(socket.proof_us)
        elif state.stream not in self._asking and self._clock.monotonic_s() >= state.asked_s + every_s:
            state.asked_s = self._clock.monotonic_s()
            self._asking.add(state.stream)
            self._spawn(self._ask_about(socket, state, instrument), f"question about {instrument.key}")

    async def _ask_about(self, socket: VenueSocket, state: StreamState, instrument: InstrumentDefinition) -> None:
        try:
            async with self._questions:
                asked_us = self._clock.now_us()
                missed = await self._check.missed(instrument, lambda: _known_of(state))
        finally:
            self._asking.discard(state.stream)
        if missed is False:
            state.liveness.proven_quiet(asked_us)
        elif missed and not self._load.held and not socket.inbox.ended and self._turns.speaker(state.stream) is socket:
            log.warning("stream is dead on a living connection", extra={"instrument": instrument.key})
            reason = "the venue has newer trades than its stream brought"
            self._turns.lost([state.stream], last_alive_us=state.alive_us, reason=reason)
            self.renew(socket, f"{instrument.key}: {reason}")

    async def _run(self) -> None:
        try:
            await self._chains.refresh(self.instruments)
            async with asyncio.TaskGroup() as self._group:
                self._links.clear()
                self._subscribe(list(self._wanted.values()))
                self._spawn(self._look(), "timers")
                self._spawn(self._watch_chains(), "option chains")
        finally:
            self._group = None

    def _subscribe(self, instruments: Sequence[InstrumentDefinition]) -> None:
        """Serve these too."""
        subscriptions = self._chains.venue.subscriptions(instruments, self._data_types) if instruments else []
        for subscription in subscriptions:
            self._start(subscription)
        wanted = [stream for link in self._links for stream in link.subscription.streams if stream[0] in self._wanted]
        self._turns.streams.set(wanted, self._clock.now_us())

    async def _subscribe_unserved(self) -> None:
        """Serve what nobody serves yet; of a chain, its options have to be known first."""
        with suppress(SourceError):
            await self._chains.refresh(self._unserved())
        self._subscribe(self._unserved())

    def _unserved(self) -> list[InstrumentDefinition]:
        served = {name for link in self._links for name, _ in link.subscription.streams}
        return [each for each in self._wanted.values() if each.key not in served]

    async def _watch_chains(self) -> None:
        """Options expire every day and new ones are listed: a chain that changed is subscribed anew."""
        while True:
            await self._clock.sleep(self.options.chains_s)
            try:
                changed = await self._chains.refresh(self.instruments)
            except SourceError as error:
                log.warning("options of chains not known: %s", error, extra={"exchange": self.venue.exchange})
                continue
            for link, task in list(self._links.items()):
                if any(name in changed for name, _ in link.subscription.streams):
                    task.cancel()
                    del self._links[link]
            if changed:
                self._subscribe(self._unserved())

    def _start(self, subscription: Subscription) -> None:
        if self._group is None:
            return
        link = Link(subscription, owner=self, clock=self._clock, options=self.options, max_age_s=self.venue.max_age_s)
        self._links[link] = self._group.create_task(link.run(), name=f"connection to {subscription.path}")

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        try:
            if self._group is not None:
                self._group.create_task(work, name=name)
                return
        except RuntimeError:
            # The group is being cancelled: nothing new begins.
            pass
        work.close()

    async def _ask_for_turns(self) -> None:
        """Somebody who has a timer of their own needs no turn besides."""
        while True:
            self._drained = False
            await self._clock.sleep(self.options.yield_s)
            if not self._drained:
                self._wake.set()

    async def _look(self) -> None:
        """Timers: pings, dead connections, replacements that are due."""
        while True:
            await self._clock.sleep(self.options.look_s)
            if self._load.held:
                # A socket that is not read proves nothing.
                self._wake.set()
                continue
            for socket in list(self._turns.sockets.values()):
                socket.look(self.options.pong_within_s)
            for link in self._links:
                link.look()

    def _hold(self, held: bool) -> None:
        log.log(logging.WARNING if held else logging.INFO, "sockets are %s", "held" if held else "read again")
        for socket in self._turns.sockets.values():
            socket.hold(held)

    async def _close(self) -> None:
        sockets = list(self._turns.sockets.values())
        for socket in sockets:
            socket.retire("the source is closed")
        for socket in sockets:
            if not await any_of(self._clock, _GOODBYE_S, socket.ended):
                socket.drop("the source is closed")
        await self.rest.aclose()


def _known_of(state: StreamState) -> Newest:
    """The newest trade that a stream brought; of one that brought none, the moment from which it would have."""
    if state.last_timestamp_us:
        return Newest(state.last_timestamp_us, state.last_id)
    return Newest(state.since_us + _SLACK_US, None)


def _first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What a group of failed tasks fails with: the error of this package in it, else its first."""
    leaves = list(_leaves(group))
    return next((error for error in leaves if isinstance(error, MarketDataError)), leaves[0])


def _leaves(error: BaseException) -> Iterable[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error

"""The connections of a simulated exchange: who comes in, what they say, who hears of what."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from market_data_tick_handler.testing.exchange.clock import Clock
from market_data_tick_handler.testing.exchange.counters import Counters
from market_data_tick_handler.testing.exchange.dialect import Answer, Dialect, Event
from market_data_tick_handler.testing.exchange.faults import (
    BookBreak,
    Close,
    Drop,
    Duplicate,
    Fault,
    FaultBoard,
    Garbage,
    Maintenance,
    Reorder,
    Stall,
)
from market_data_tick_handler.testing.exchange.session import Session


class Lobby:
    """The other side of the `Server`: `refuse`, `admit`, `hear`, `see_off` and `serve` are its callbacks."""

    def __init__(self, dialect: Dialect, clock: Clock, board: FaultBoard, counters: Counters) -> None:
        self.sessions: list[Session] = []
        self._dialect, self._clock, self._board, self._counters = dialect, clock, board, counters

    def publish(self, event: Event) -> None:
        """Send an event to everybody who subscribed to it; every frame is encoded once."""
        keys = self._dialect.keys(event)
        encoded: dict[tuple[str, str], list[bytes]] = {}
        for session in list(self.sessions):
            for channel in session.channels_of(keys):
                at = channel, session.flavour
                if at not in encoded:
                    encoded[at] = self._dialect.encode(channel, session.flavour, event)
                for frame in encoded[at]:
                    session.deliver(event.kind, event.market.symbol, frame)

    def subscriber(self, event: Event) -> tuple[Session, str]:
        """The first connection that would hear of it, and over which channel.

        Raises:
            RuntimeError: nobody would.
        """
        keys = self._dialect.keys(event)
        for session in self.sessions:
            for channel in session.channels_of(keys):
                return session, channel
        raise RuntimeError(f"nobody is subscribed to {event.kind} of {event.market.symbol}")

    def strike(self, fault: Fault) -> None:
        """Do to every open connection what a fault does to one."""
        for session in list(self.sessions):
            self._strike(session, fault)

    def cut(self) -> None:
        """End every connection without a word."""
        for session in list(self.sessions):
            session.cut()

    def refuse(self, path: str) -> Answer | None:
        """The answer to a handshake that fails; None: it works."""
        limit = self._board.limit("handshake", self._clock.now_us())
        if limit is None and self._dialect.listens(path):
            return None
        self._counters.refused += 1
        return Answer(b"", 404) if limit is None else self._dialect.refusal(*limit)

    def admit(
        self,
        path: str,
        query: Mapping[str, str],
        transport: asyncio.Transport,
        drain: Callable[[], Awaitable[None]],
    ) -> Session:
        """The session of a new connection."""
        self._counters.connections += 1
        session = Session(
            number=self._counters.connections,
            path=path,
            transport=transport,
            drain=drain,
            clock=self._clock,
            board=self._board,
            counters=self._counters,
        )
        self.sessions.append(session)
        self._dialect.greet(session, query)
        return session

    def hear(self, session: Session, text: str) -> None:
        """A client said something."""
        self._counters.received += 1
        if session.stalled or session.ended_us is not None:
            return
        session.heard_us = self._clock.now_us()
        if session.too_many(self._dialect.rules.messages_per_s):
            session.end(1008, "Too many requests", "messages")
            return
        self._dialect.receive(session, text)
        most = self._dialect.rules.streams
        if most is not None and len(session.channels) > most:
            session.end(1008, f"more than {most} streams", "streams")

    def see_off(self, session: Session) -> None:
        """A connection is over."""
        self.sessions.remove(session)

    def serve(self, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> Answer:
        """A REST call."""
        self._counters.requests[path] += 1
        limit = self._board.limit("rest", self._clock.now_us())
        return self._dialect.answer(path, query, headers) if limit is None else self._dialect.refusal(*limit)

    def _strike(self, session: Session, fault: Fault) -> None:
        if isinstance(fault, Stall):
            session.stall()
        elif isinstance(fault, Close):
            session.end(fault.code, fault.reason, "Close")
        elif isinstance(fault, Garbage):
            session.garble(fault.form)
        elif isinstance(fault, Duplicate):
            session.repeat(fault.count)
        elif isinstance(fault, Reorder):
            session.swap(fault.count)
        elif isinstance(fault, Drop):
            session.skip("trades", fault.symbol.upper(), fault.count, "Drop")
        elif isinstance(fault, BookBreak):
            session.skip("book", fault.symbol.upper(), fault.count, "BookBreak")
        elif isinstance(fault, Maintenance):
            message = self._dialect.maintenance()
            if message is not None:
                session.say(message)

"""Keeps one subscription served: connects, connects again, and replaces connections before they fail."""

from __future__ import annotations

import asyncio
import logging
import random
from enum import StrEnum
from typing import Final, Protocol

from market_data_tick_handler.errors import SourceUnavailable
from streaming_service.clock import Clock
from streaming_service.sources.connection.deadline import any_of
from streaming_service.sources.connection.options import ConnectionOptions
from streaming_service.sources.connection.venue_socket import VenueSocket
from streaming_service.sources.exchanges.protocol import Subscription

log = logging.getLogger(__name__)

# Connections that were opened together are not replaced together.
_RENEWAL_JITTER: Final = 0.25
# A replacement that fails is tried again as unhurriedly as after so many failures: the old connection still works.
_RENEWAL_FAILURES: Final = 5


class LinkState(StrEnum):
    """CONNECTING: first attempt, or next one, runs. WAITING: between two attempts. OPEN. RENEWING: open, and its
    replacement is on its way. CLOSED: for good."""

    CONNECTING = "connecting"
    WAITING = "waiting"
    OPEN = "open"
    RENEWING = "renewing"
    CLOSED = "closed"


class LinkOwner(Protocol):
    """What a link needs of its source."""

    async def open_socket(self, link: Link, replacing: VenueSocket | None) -> VenueSocket:
        """Open a connection for the link's subscription; it speaks at once, or takes over from `replacing` later.

        Raises:
            SourceUnavailable: not now.
        """
        ...

    def unreachable(self, link: Link, error: SourceUnavailable) -> None:
        """No connection could be opened."""
        ...


class Link:
    """One subscription.

    failures: in a row; a connection that brought something good ends the row. reconnects, renewals: connections after
    the first, because one broke, and because one was replaced.
    """

    def __init__(
        self, subscription: Subscription, *, owner: LinkOwner, clock: Clock, options: ConnectionOptions,
        max_age_s: float | None,
    ) -> None:  # fmt: skip
        self.subscription = subscription
        self.state = LinkState.CONNECTING
        self.socket: VenueSocket | None = None
        self.created_us = clock.now_us()
        self.failures = 0
        self.reconnects = 0
        self.renewals = 0
        self.last_error = ""
        self._owner = owner
        self._clock = clock
        self._options = options
        self._max_age_s = max_age_s
        self._renew_at_s: float | None = None
        self._renew_reason = ""
        self._not_before_s = 0.0
        self._due = asyncio.Event()
        self._successor: VenueSocket | None = None

    @property
    def up(self) -> bool:
        """True while it has a connection; after a failure only from the first answer on, as a machine that accepts
        everybody and drops them again is down."""
        is_open = self.state in (LinkState.OPEN, LinkState.RENEWING)
        return is_open and (self.failures == 0 or (self.socket is not None and self.socket.good))

    def renew(self, reason: str) -> None:
        """Replace the connection while it still works, or seems to; soon, but not again and again."""
        due_s = max(self._clock.monotonic_s(), self._not_before_s)
        if self._renew_at_s is None or due_s < self._renew_at_s:
            self._renew_at_s, self._renew_reason = due_s, reason

    def look(self) -> None:
        """Notice that it is time for a replacement."""
        if self._renew_at_s is not None and self._clock.monotonic_s() >= self._renew_at_s:
            self._due.set()

    async def run(self) -> None:
        """Serve the subscription until cancelled.

        Raises:
            SourceUnavailable: more failures in a row than `ConnectionOptions.reconnect` allows.
        """
        try:
            while True:
                await self._serve(await self._connect())
        finally:
            self.state = LinkState.CLOSED
            for socket in (self.socket, self._successor):
                if socket is not None:
                    socket.retire("no longer needed")

    async def _connect(self) -> VenueSocket:
        error: SourceUnavailable | None = None
        while True:
            if self.failures:
                self.state = LinkState.WAITING
                await self._clock.sleep(self._wait_s(error))
            self.state = LinkState.CONNECTING
            try:
                return await self._owner.open_socket(self, None)
            except SourceUnavailable as problem:
                error = problem
                self._fail(problem)
                self._owner.unreachable(self, problem)

    def _wait_s(self, error: SourceUnavailable | None) -> float:
        problem = SourceUnavailable(self.last_error) if error is None else error
        return self._options.reconnect.wait_s(self.failures, problem)

    def _fail(self, error: SourceUnavailable) -> None:
        self.failures += 1
        self.last_error = str(error)
        # The first, the second, the fourth, ...: an exchange that is down for an hour is told of a few times.
        if self.failures.bit_count() == 1:
            told = {"path": self.subscription.path, "error": str(error), "row": self.failures}
            log.warning("no connection", extra=told)
        if self.failures > self._options.reconnect.budget:
            raise SourceUnavailable(
                f"{self.failures} failures in a row; last: {error}", retry_after=error.retry_after
            ) from error

    async def _serve(self, socket: VenueSocket) -> None:
        self._begin(socket)
        await socket.subscribe()
        while True:
            await any_of(self._clock, None, socket.ended, self._due)
            if socket.ended.is_set():
                break
            successor = await self._replace(socket)
            if successor is not None:
                socket.retire("replaced")
                socket = successor
                self._begin(socket)
        self.socket, self.state = None, LinkState.WAITING
        self.reconnects += 1
        lost = SourceUnavailable(socket.inbox.reason)
        if socket.good:
            # Not at once: everybody who lost the same server would be back at the same moment.
            self.failures = 0
            await self._clock.sleep(self._options.reconnect.wait_s(1, lost))
        else:
            self._fail(lost)

    def _begin(self, socket: VenueSocket) -> None:
        self.socket = socket
        self.state = LinkState.OPEN
        self._forget_renewal()
        self._not_before_s = socket.opened_s + self._options.renew_pause_s
        if self._max_age_s is not None:
            early_s = min(self._options.renew_before_s, self._max_age_s / 2)
            early_s *= 1.0 + random.uniform(0.0, _RENEWAL_JITTER)
            self._renew_at_s = socket.opened_s + self._max_age_s - early_s
            self._renew_reason = "its age"

    def _forget_renewal(self) -> None:
        self._renew_at_s = None
        self._due.clear()

    async def _replace(self, socket: VenueSocket) -> VenueSocket | None:
        """Another connection that took over; None where that failed, or the old one ended before."""
        self.state = LinkState.RENEWING
        self._forget_renewal()
        log.info("connection is replaced", extra={"path": self.subscription.path, "reason": self._renew_reason})
        try:
            successor = self._successor = await self._owner.open_socket(self, socket)
            await successor.subscribe()
            await any_of(self._clock, None, successor.promoted, successor.ended)
            if successor.promoted.is_set():
                self.renewals += 1
                return successor
            problem = SourceUnavailable(f"the replacement ended: {successor.inbox.reason}")
        except SourceUnavailable as error:
            problem = error
        finally:
            self._successor = None
        self.last_error = str(problem)
        self.state = LinkState.OPEN
        again_s = self._clock.monotonic_s() + self._options.reconnect.wait_s(
            self._options.reconnect.eager + _RENEWAL_FAILURES, problem
        )
        if self._renew_at_s is None:
            self._renew_at_s = again_s
        return None

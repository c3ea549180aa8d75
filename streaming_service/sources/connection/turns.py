"""Turns what the connections delivered, and the time that passed, into events: everything that happens in a drain.

Theory of operation. Per turn: every inbox is taken, journalled, decoded, and the rows that count are let through
(`intake`); the venue's control frames are answered; streams are handed over to replacements; connections that ended are
buried, because only now is everything decoded that they delivered; and what follows from time is said (`streams`).
Rows come first, so that a turn's rows meet in one order of arrival; what was said of time comes after them.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from typing import Final, Protocol

from market_data_tick_handler.core.events import Disconnect, Event, Gap, Heartbeat, Rows
from market_data_tick_handler.core.ticks import Array, DataType
from streaming_service.clock import SECOND_US, Clock
from streaming_service.sources.connection.intake import Intake
from streaming_service.sources.connection.options import ConnectionOptions
from streaming_service.sources.connection.recorder import FrameRecorder
from streaming_service.sources.connection.streams import Streams, StreamState
from streaming_service.sources.connection.venue_socket import VenueSocket
from streaming_service.sources.exchanges.protocol import Control, Decoded, Meaning, Stream, Venue

log = logging.getLogger(__name__)

# Frames decoded at once: of more, what is made on the way would no longer fit into the processor's cache.
_DECODED_FRAMES: Final = 4_096
_SWEEPS_PER_HEARTBEAT: Final = 4
_SHOWN_BYTES: Final = 200

Mark = Gap | Disconnect | Heartbeat


class TurnHandler(Protocol):
    """Who acts on what a turn finds."""

    def renew(self, socket: VenueSocket, reason: str) -> None:
        """The connection should be replaced."""
        ...

    def in_step(self, socket: VenueSocket, instrument: str) -> None:
        """A book delivers."""
        ...

    def out_of_step(self, socket: VenueSocket, instrument: str, reason: str) -> None:
        """A book is void until its next snapshot."""
        ...

    def suspect(self, socket: VenueSocket, state: StreamState) -> None:
        """A stream is silent beyond belief on a connection that lives."""
        ...


class Turns:
    """The open connections of a source and what they say.

    filtered: per stream. refused, violations, unknown: frames, of all connections so far.
    """

    def __init__(
        self,
        venue: Venue,
        *,
        clock: Clock,
        options: ConnectionOptions,
        handler: TurnHandler,
        recorder: FrameRecorder | None,
    ) -> None:
        self.sockets: dict[int, VenueSocket] = {}
        self.intake = Intake()
        self.streams = Streams(options)
        self.filtered: dict[Stream, int] = {}
        self.refused = 0
        self.violations = 0
        self.unknown = 0
        self._venue = venue
        self._clock = clock
        self._options = options
        self._handler = handler
        self._recorder = recorder
        self._newcomers: set[int] = set()
        # By the number of the connection that they replace.
        self._successors: dict[int, VenueSocket] = {}
        self._pending: list[Mark] = []
        self._swept_us = 0

    def opened(self, socket: VenueSocket, replacing: VenueSocket | None) -> None:
        """A connection opened; it takes over from `replacing` later, if that is still open."""
        self.sockets[socket.number] = socket
        self._newcomers.add(socket.number)
        if replacing is not None and not replacing.inbox.ended:
            self._successors[replacing.number] = socket
        else:
            socket.promoted.set()

    def lost(self, streams: Iterable[Stream], *, last_alive_us: int, reason: str) -> None:
        """These streams are not delivered; the next turn says so. last_alive_us: 0 where each knows it itself."""
        now_us = self._clock.now_us()
        self._pending += self.streams.lost(streams, at_us=now_us, last_alive_us=last_alive_us, reason=reason)

    def speaker(self, stream: Stream) -> VenueSocket | None:
        """The connection that speaks for a stream."""
        number = self.intake.speaker(stream)
        return None if number is None else self.sockets.get(number)

    def drain(self) -> list[Event]:
        """One turn."""
        now_us = self._clock.now_us()
        rows: list[Event] = []
        marks: list[Mark] = []
        for socket in list(self.sockets.values()):
            if socket.number in self._newcomers:
                self._introduce(socket, now_us, rows)
            frames, local_us = socket.inbox.take()
            for start in range(0, len(frames), _DECODED_FRAMES):
                part = slice(start, start + _DECODED_FRAMES)
                self._take(socket, frames[part], local_us[part], rows, marks)
        for number in list(self._successors):
            self._hand_over(number, now_us, rows, marks)
        for socket in list(self.sockets.values()):
            if socket.inbox.ended:
                marks += self._bury(socket, now_us)
        self._pass_time(now_us, marks)
        if self._recorder is not None:
            for mark in marks:
                self._recorder.mark(mark)
            self._recorder.turn(now_us)
        return [*rows, *marks]

    def _introduce(self, socket: VenueSocket, now_us: int, rows: list[Event]) -> None:
        """A new connection, before its first frames: what ended before it opened ends here, its outage included."""
        self._newcomers.discard(socket.number)
        for number, older in list(self.sockets.items()):
            if number < socket.number and older.inbox.ended and number not in self._successors:
                for mark in self._bury(older, now_us):
                    rows.append(mark)
                    if self._recorder is not None:
                        self._recorder.mark(mark)
        streams = sorted(socket.subscription.streams)
        if self._recorder is not None:
            self._recorder.opened(socket.number, socket.opened_us, streams)
        self.intake.opened(socket.number, streams)
        if socket.promoted.is_set() and socket.acknowledged_us:
            self.streams.works_since(streams, socket.acknowledged_us)

    def _take(
        self, socket: VenueSocket, frames: list[bytes], local_us: Array, rows: list[Event], marks: list[Mark]
    ) -> None:
        if self._recorder is not None:
            self._recorder.frames(socket.number, frames, local_us)
        decoded = socket.decoder.decode(frames, local_us)
        socket.note(decoded, len(frames))
        for each in self.intake.take(socket.number, decoded):
            rows.append(each)
            if isinstance(each, Rows):
                marks += self.streams.rows(each)
            else:
                self.streams.broke(each.instrument)
        for numbers in decoded.numbers:
            marks += self.streams.numbers(numbers)
        for at in decoded.control:
            self._obey(socket, self._venue.control(frames[at]))
        self._note_books(socket, decoded, int(local_us[-1]))
        self._count(socket, decoded)

    def _note_books(self, socket: VenueSocket, decoded: Decoded, at_us: int) -> None:
        speaks = self.intake.speaker
        for instrument in {name for name, _ in decoded.changes} | {
            rows.instrument for rows in decoded.rows if rows.data_type is DataType.BOOK
        }:
            if instrument not in decoded.resync:
                self._handler.in_step(socket, instrument)
        for instrument, reason in decoded.resync.items():
            if speaks((instrument, DataType.BOOK)) == socket.number:
                self.streams.broken((instrument, DataType.BOOK), at_us, reason)
            self._handler.out_of_step(socket, instrument, reason)

    def _count(self, socket: VenueSocket, decoded: Decoded) -> None:
        for stream, count in decoded.filtered.items():
            self.filtered[stream] = self.filtered.get(stream, 0) + count
        for violation in decoded.violations:
            self.violations += 1
            if _worth_a_line(self.violations):
                log.warning(
                    "violation of the protocol: %s", violation,
                    extra={"connection": socket.number, "raw": violation.raw[:_SHOWN_BYTES], "count": self.violations},
                )  # fmt: skip

    def _obey(self, socket: VenueSocket, control: Control) -> None:
        match control.meaning:
            case Meaning.ANSWER:
                socket.send(control.reply)
            case Meaning.ACKNOWLEDGED:
                if socket.acknowledge():
                    self.streams.works_since(self.intake.speaks(socket.number), socket.acknowledged_us)
            case Meaning.REFUSED:
                socket.refused += 1
                self.refused += 1
                log.error("subscription refused: %s", control.text, extra={"connection": socket.number})
            case Meaning.RECONNECT:
                self._handler.renew(socket, f"the venue asks for it: {control.text}")
            case Meaning.UNKNOWN:
                socket.unknown += 1
                self.unknown += 1
                if _worth_a_line(self.unknown):
                    log.warning("message not understood: %s", control.text, extra={"connection": socket.number})
            case Meaning.ALIVE:
                pass

    def _hand_over(self, number: int, now_us: int, rows: list[Event], marks: list[Mark]) -> None:
        old, new = self.sockets[number], self._successors[number]
        if new.inbox.ended:
            del self._successors[number]
        elif old.inbox.ended or self._is_ready(old, new):
            del self._successors[number]
            self._promote(old, new, now_us, rows, marks)
            if old.inbox.ended:
                unproven = [stream for stream in self.intake.speaks(new.number) if not new.works_for(stream)]
                marks += self._lost(old, unproven, now_us)
        elif self._clock.monotonic_s() - new.opened_s > self._options.handover_s + new.subscription_s:
            new.drop(f"did not know after {self._options.handover_s} s what the connection it replaces knows")

    def _is_ready(self, old: VenueSocket, new: VenueSocket) -> bool:
        age_s = self._clock.monotonic_s() - new.opened_s
        if age_s < self._options.overlap_s or not (new.acknowledged_us or new.seen >= new.subscription.streams):
            return False
        return age_s > self._options.handover_s + new.subscription_s or not self.intake.lacks(old.number, new.number)

    def _promote(self, old: VenueSocket, new: VenueSocket, now_us: int, rows: list[Event], marks: list[Mark]) -> None:
        if self._recorder is not None:
            self._recorder.promoted(old.number, new.number, now_us)
        for each in self.intake.promoted(old.number, new.number, now_us):
            rows.append(each)
            marks += self.streams.rows(each)
        self.streams.works_since(self.intake.speaks(new.number), now_us)
        new.promoted.set()

    def _bury(self, socket: VenueSocket, now_us: int) -> list[Disconnect]:
        """Forget a connection that ended and whose frames are decoded; the outages that this is."""
        number = socket.number
        del self.sockets[number]
        self._successors.pop(number, None)
        lost = self._lost(socket, () if socket.retired else self.intake.speaks(number), now_us)
        self.intake.closed(number)
        if self._recorder is not None:
            self._recorder.closed(number, now_us, socket.proof_us, socket.inbox.reason)
        log.info("connection ended", extra={"connection": number, "reason": socket.inbox.reason})
        return lost

    def _lost(self, socket: VenueSocket, streams: Collection[Stream], now_us: int) -> list[Disconnect]:
        return self.streams.lost(
            streams,
            at_us=now_us,
            last_alive_us=min(socket.proof_us, now_us),
            reason=socket.inbox.reason,
            connection=socket.number,
        )

    def _pass_time(self, now_us: int, marks: list[Mark]) -> None:
        pending, self._pending = self._pending, []
        marks += pending
        marks += self.streams.expire(now_us)
        period_us = int(self._options.heartbeat_s * SECOND_US) // _SWEEPS_PER_HEARTBEAT
        # A clock that was set back must not silence the proofs of life.
        if 0 <= now_us - self._swept_us < period_us:
            return
        self._swept_us = now_us
        beats, suspects = self.streams.heartbeats(now_us, self.speaker)
        marks += beats
        for state in [*suspects, *self.streams.dead_books()]:
            socket = self.speaker(state.stream)
            if socket is not None and not socket.inbox.ended:
                self._handler.suspect(socket, state)


def _worth_a_line(count: int) -> bool:
    """The first, second, fourth, eighth...: bad weather must not fill the log."""
    return count & (count - 1) == 0

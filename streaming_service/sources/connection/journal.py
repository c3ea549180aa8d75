"""Replays a raw journal: the same decoders, turns and marks, hence the same rows, gaps and candles as live."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from market_data_tick_handler.core.events import Disconnect, Event, Gap, Heartbeat, Rows
from market_data_tick_handler.core.instruments import InstrumentDefinition, parse_instrument_key
from market_data_tick_handler.errors import ConfigError
from streaming_service.clock import Clock
from streaming_service.sources.connection.intake import Intake, decoder_for
from streaming_service.sources.connection.recording import (
    Closed,
    Frames,
    Opened,
    Promoted,
    Record,
    RecordedFrames,
    Session,
    Turn,
    Wanted,
)
from streaming_service.sources.exchanges.protocol import Decoder, Stream, Venue
from streaming_service.sources.recording import Chunk, RecordedSource, chunk_of

_STOPPED: Final = "the writer of the journal ended"


class JournalReplay:
    """One journal as a recording (`sources.recording.Recording`): each chunk is what one turn of the feed gave.

    venues: by Tardis id. resolve: instrument of a key. filtered, violations, unknown_frames: what did not become rows;
    the last came over connections whose opening is not in the files.

    Raises:
        NotFound: no such journal.
    """

    def __init__(
        self,
        path: str | Path,
        venues: Mapping[str, Venue],
        *,
        resolve: Callable[[str], InstrumentDefinition] = parse_instrument_key,
    ) -> None:
        self.recorded = RecordedFrames(path)
        self.filtered: dict[Stream, int] = {}
        self.violations = 0
        self.unknown_frames = 0
        self._venues = venues
        self._resolve = resolve
        self._intake = Intake()
        self._decoders: dict[int, Decoder] = {}
        self._open: dict[int, Opened] = {}
        self._session_us = 0
        self._reached_us = 0

    async def chunks(self, *, step_us: int) -> AsyncIterator[Chunk]:
        """The turns of the journal, however short they were; `step_us` is longer than any.

        Raises:
            CorruptObject: a file is damaged before its end.
            ConfigError: a venue of the journal is not among `venues`.
        """
        for events, at_us in self._turns():
            self._reached_us = max(self._reached_us, at_us)
            if events:
                yield chunk_of(events, until_us=self._reached_us)

    def _turns(self) -> Iterator[tuple[list[Event], int]]:
        events: list[Event] = []
        for record in self.recorded:
            if isinstance(record, Turn):
                yield events, record.at_us
                events = []
            else:
                events += self._take(record)

    def _take(self, record: Record) -> list[Event]:
        match record:
            case Frames():
                return list(self._decode(record))
            case Gap() | Disconnect() | Heartbeat():
                return [record]
            case Opened():
                if not record.again or record.connection not in self._decoders:
                    self._begin(record)
            case Promoted():
                return list(self._intake.promoted(record.old, record.new, record.at_us))
            case Closed():
                self._intake.closed(record.connection)
                self._decoders.pop(record.connection, None)
                self._open.pop(record.connection, None)
            case Wanted():
                self._intake.want(record.instruments)
            case Session():
                return list(self._new_session(record))
        return []

    def _new_session(self, session: Session) -> Iterator[Event]:
        """Another run of the writer: what was open when the one before ended is an outage until rows come."""
        if session.started_us == self._session_us:
            return
        self._session_us = session.started_us
        instruments = sorted({name for opened in self._open.values() for name, _ in opened.streams})
        for connection in list(self._decoders):
            self._intake.closed(connection)
        self._decoders.clear()
        self._open.clear()
        for instrument in instruments:
            yield Disconnect(instrument, session.started_us, self._reached_us, _STOPPED)

    def _begin(self, opened: Opened) -> None:
        venue = self._venues.get(opened.exchange)
        if venue is None:
            raise ConfigError(
                f"the journal holds frames of {opened.exchange!r}; known are {', '.join(sorted(self._venues))}",
                path=str(self.recorded.files[0]),
            )
        self._decoders[opened.connection] = decoder_for(
            venue, opened.streams, resolve=self._resolve, connection=opened.connection
        )
        self._open[opened.connection] = opened
        self._intake.opened(opened.connection, opened.streams)

    def _decode(self, record: Frames) -> list[Rows | Disconnect]:
        decoder = self._decoders.get(record.connection)
        if decoder is None:
            self.unknown_frames += len(record.frames)
            return []
        decoded = decoder.decode(record.frames, record.local_us)
        for stream, count in decoded.filtered.items():
            self.filtered[stream] = self.filtered.get(stream, 0) + count
        self.violations += len(decoded.violations)
        return self._intake.take(record.connection, decoded)


class JournalSource:
    """A journal as a paced source, at any speed; `replay` counts what did not become rows.

    speed: None = as fast as possible, else seconds of data per second of `clock`. The rest: see `JournalReplay`.
    """

    def __init__(
        self,
        path: str | Path,
        venues: Mapping[str, Venue],
        *,
        clock: Clock,
        speed: float | None = None,
        resolve: Callable[[str], InstrumentDefinition] = parse_instrument_key,
    ) -> None:
        self.replay = JournalReplay(path, venues, resolve=resolve)
        self._source = RecordedSource(self.replay, speed=speed, clock=clock)

    @property
    def fed_until_us(self) -> int:
        """Every row received before this was yielded."""
        return self._source.fed_until_us

    def events(self) -> AsyncIterator[list[Event]]:
        """What each turn of the recorded feed gave; raises as `JournalReplay.chunks` does."""
        return self._source.events()

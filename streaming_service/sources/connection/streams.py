"""What is known of each stream of a source, and the gaps, disconnects and heartbeats that follow from it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from market_data_tick_handler.core.events import Disconnect, Gap, Heartbeat, Rows
from market_data_tick_handler.core.liveness import PaceLimits, StreamLiveness, Verdict
from market_data_tick_handler.core.sequence import Hole, SequenceWatch
from market_data_tick_handler.core.ticks import ID_INTEGER, DataType, TickBatch
from streaming_service.clock import SECOND_US
from streaming_service.sources.connection.options import ConnectionOptions
from streaming_service.sources.connection.venue_socket import VenueSocket
from streaming_service.sources.exchanges.protocol import Numbers, Stream, TradeRange

# What decides whether an instrument is alive: the first of these that is subscribed to.
_PRIMARY: Final = (DataType.TRADES, DataType.OPTIONS, DataType.BOOK, DataType.DERIVATIVE, DataType.LIQUIDATIONS)
_HOLES_KEPT: Final = 256


@dataclass(slots=True)
class StreamState:
    """One stream. last_*: of its newest row. broken_us, broken_reason: since when it is void, 0 while it is whole;
    only streams that are not primary. down: the instrument's outage was told, and no proof of life came since.
    resumed_us: when a heartbeat, and not a row, ended its last outage."""

    stream: Stream
    primary: bool
    since_us: int
    liveness: StreamLiveness
    watch: SequenceWatch
    last_row_us: int = 0
    last_timestamp_us: int = 0
    last_id: int | None = None
    broken_us: int = 0
    broken_reason: str = ""
    down: bool = False
    resumed_us: int = 0
    beat_us: int = 0
    asked_s: float = float("-inf")
    holes: deque[Hole] = field(default_factory=lambda: deque(maxlen=_HOLES_KEPT))

    @property
    def alive_us(self) -> int:
        """The last time at which it was certainly delivered."""
        return max(self.last_row_us, self.since_us)


class Streams:
    """The streams of one source."""

    def __init__(self, options: ConnectionOptions) -> None:
        self._limits: PaceLimits = options.stream_silence
        self._patience_us = options.patience_us
        self._heartbeat_us = int(options.heartbeat_s * SECOND_US)
        self._states: dict[Stream, StreamState] = {}
        self._primaries: dict[str, StreamState] = {}
        self._waiting: set[Stream] = set()

    def __iter__(self) -> Iterator[StreamState]:
        return iter(self._states.values())

    def primary(self, instrument: str) -> StreamState | None:
        """The stream that decides whether `instrument` is alive."""
        return self._primaries.get(instrument)

    def set(self, streams: Collection[Stream], now_us: int) -> None:
        """Watch exactly these streams."""
        wanted = frozenset(streams)
        for stream in [stream for stream in self._states if stream not in wanted]:
            del self._states[stream]
            self._waiting.discard(stream)
        by_instrument: dict[str, set[DataType]] = {}
        for instrument, data_type in wanted:
            by_instrument.setdefault(instrument, set()).add(data_type)
        self._primaries.clear()
        for instrument, data_types in by_instrument.items():
            first = next(data_type for data_type in _PRIMARY if data_type in data_types)
            for data_type in data_types:
                state = self._state((instrument, data_type), now_us)
                state.primary = data_type is first
            self._primaries[instrument] = self._states[instrument, first]

    def rows(self, rows: Rows) -> list[Gap]:
        """Note rows; return the gap that they end, where their stream was void."""
        state = self._states.get((rows.instrument, rows.data_type))
        if state is None:
            return []
        times = rows.batch["local_timestamp"]
        first_us, last_us = int(times[0]), int(times[-1])
        state.liveness.saw(first_us, last_us)
        state.last_row_us = last_us
        state.down = False
        if state.primary:
            self._remember_newest(state, rows.batch)
        if not state.broken_us:
            return []
        from_us, state.broken_us = state.broken_us, 0
        return [Gap(*state.stream, from_us, max(first_us, from_us + 1), state.broken_reason)]

    def numbers(self, numbers: Numbers) -> list[Gap]:
        """Note numbers; return gaps that are certain already."""
        state = self._states.get((numbers.instrument, numbers.data_type))
        if state is None or not len(numbers.numbers):
            return []
        holes = state.watch.observe(numbers.numbers, numbers.local_us)
        if state.watch.waits:
            self._waiting.add(state.stream)
        return self._gaps(state, holes)

    def expire(self, now_us: int) -> list[Gap]:
        """Gaps whose missing numbers nobody waits for any longer."""
        gaps: list[Gap] = []
        for stream in list(self._waiting):
            state = self._states[stream]
            gaps += self._gaps(state, state.watch.expire(now_us))
            if not state.watch.waits:
                self._waiting.discard(stream)
        return gaps

    def broken(self, stream: Stream, from_us: int, reason: str) -> None:
        """A stream is void from `from_us` until its next row."""
        state = self._states.get(stream)
        if state is not None and not state.primary and not state.broken_us:
            state.broken_us, state.broken_reason = from_us, reason

    def lost(
        self, streams: Iterable[Stream], *, at_us: int, last_alive_us: int, reason: str, connection: int = 0
    ) -> list[Disconnect]:
        """A connection with these streams is gone. The outage of an instrument is told once, until it lives again.

        last_alive_us: the last proof of life; 0 where there never was any.
        """
        out: list[Disconnect] = []
        for stream in sorted(streams):
            state = self._states.get(stream)
            if state is None:
                continue
            alive_us = min(at_us, last_alive_us or state.alive_us)
            state.watch.interrupted()
            if not state.primary:
                self.broken(stream, alive_us, reason)
            elif not state.down:
                state.down, state.resumed_us = True, 0
                out.append(Disconnect(stream[0], at_us, alive_us, reason, connection))
        return out

    def broke(self, instrument: str) -> None:
        """The other side told an outage of its own, which was passed on as a Disconnect."""
        for data_type in DataType:
            state = self._states.get((instrument, data_type))
            if state is not None:
                state.watch.interrupted()
        primary = self._primaries.get(instrument)
        if primary is not None:
            primary.down = True

    def works_since(self, streams: Iterable[Stream], at_us: int) -> None:
        """These streams are delivered from now on: their silence counts from here."""
        for stream in streams:
            state = self._states.get(stream)
            if state is not None:
                state.liveness.began(at_us)
                state.since_us = max(state.since_us, at_us)

    def heartbeats(
        self, now_us: int, speaker: Callable[[Stream], VenueSocket | None]
    ) -> tuple[list[Heartbeat], list[StreamState]]:
        """Proofs of life of the instruments that had no rows lately, and the streams that are silent beyond belief."""
        beats: list[Heartbeat] = []
        suspects: list[StreamState] = []
        for instrument, state in self._primaries.items():
            if now_us - max(state.last_row_us, state.beat_us) < self._heartbeat_us and not state.down:
                continue
            socket = speaker(state.stream)
            if socket is None or socket.ended.is_set() or not socket.works_for(state.stream):
                continue
            if state.liveness.judge(now_us) is Verdict.SUSPECT:
                suspects.append(state)
            elif self._beats(state, socket.proof_us):
                state.beat_us = socket.proof_us
                state.resumed_us = socket.proof_us if state.down else state.resumed_us
                state.down = False
                beats.append(Heartbeat(instrument, socket.proof_us, socket.number))
        return beats, suspects

    def dead_books(self) -> list[StreamState]:
        """Books without a change for unbelievably long, while trades of the instrument came, which change books."""
        dead: list[StreamState] = []
        for (instrument, data_type), state in self._states.items():
            primary = self._primaries[instrument]
            if data_type is not DataType.BOOK or state is primary or not state.last_row_us or state.broken_us:
                continue
            traded_us = primary.last_row_us
            if traded_us > state.last_row_us and state.liveness.judge(traded_us) is Verdict.SUSPECT:
                dead.append(state)
        return dead

    def missing(self, gap: Gap) -> TradeRange:
        """What to ask history for: the gap's interval, and the numbers that are missing in it where they are known."""
        state = self._states.get((gap.instrument, gap.data_type))
        holes = [] if state is None else [hole for hole in state.holes if _overlaps(hole, gap)]
        if not holes:
            return TradeRange(gap.from_us, gap.to_us)
        first, last = min(hole.first for hole in holes), max(hole.last for hole in holes)
        return TradeRange(gap.from_us, gap.to_us, first, last)

    def _state(self, stream: Stream, now_us: int) -> StreamState:
        state = self._states.get(stream)
        if state is None:
            watch = SequenceWatch(patience_us=self._patience_us)
            state = StreamState(stream, False, now_us, StreamLiveness(self._limits), watch)
            self._states[stream] = state
        return state

    def _beats(self, state: StreamState, proof_us: int) -> bool:
        if state.down:
            # The first row is the better proof of a subscription that has just been made.
            return proof_us - max(state.beat_us, state.since_us) >= self._heartbeat_us
        return proof_us - max(state.beat_us, state.last_row_us) >= self._heartbeat_us

    def _gaps(self, state: StreamState, holes: list[Hole]) -> list[Gap]:
        state.holes.extend(holes)
        gaps: list[Gap] = []
        for hole in holes:
            from_us = hole.from_us
            if hole.across_outage:
                # The outage is told. That it was over when a heartbeat said so is not: these numbers may be from later.
                from_us, state.resumed_us = state.resumed_us, 0
                if not from_us or from_us >= hole.to_us:
                    continue
            gaps.append(Gap(*state.stream, from_us, max(hole.to_us, from_us + 1), _missing_text(hole)))
        return gaps

    @staticmethod
    def _remember_newest(state: StreamState, batch: TickBatch) -> None:
        at = int(np.argmax(batch["timestamp"]))
        state.last_timestamp_us = max(state.last_timestamp_us, int(batch["timestamp"][at]))
        kinds = batch.columns.get("id_kind")
        if kinds is not None and kinds[-1] == ID_INTEGER:
            newest = int(batch["id"].max())
            state.last_id = newest if state.last_id is None else max(state.last_id, newest)


def _missing_text(hole: Hole) -> str:
    return f"{len(hole)} missing: {hole.first}" + (f"..{hole.last}" if len(hole) > 1 else "")


def _overlaps(hole: Hole, gap: Gap) -> bool:
    return hole.from_us <= gap.to_us and gap.from_us <= hole.to_us

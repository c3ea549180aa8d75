"""Durable state of the pipelines: each turn is journaled before anything of it leaves, checkpoints let a restart go on.

Theory of operation. After the turn of a pipeline its rows as stored, and what changed in its gaps, go to the tick
journal; then what it publishes passes the output journal, which knows every content ever published and numbers
revisions for good; only then do sinks see it. A restart restores the newest checkpoint, feeds the rest of the tick
journal again, and passes what comes out through the same output journal: equal rows are not published again, so that a
crash at any point gives no identity two contents. Rows that a sink had taken and not yet written are delivered again.
A repair is the same thing with more rows: from the checkpoint before the gap, with the fetched rows merged in.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, Protocol, TypeVar

import numpy as np

from market_data_tick_handler.core.candle_batch import CandleBatch, concat_candles, newest_rows
from market_data_tick_handler.core.events import Gap, Rows
from market_data_tick_handler.core.pipeline import Pipeline
from market_data_tick_handler.core.seen_ids import NEVER_US, LoggedIds
from market_data_tick_handler.core.ticks import DataType, TickBatch, concat
from market_data_tick_handler.core.timeframes import DAY_US, Timeframe, floor_us
from market_data_tick_handler.storage.recovery.output_journal import Journaled, OutputJournal
from market_data_tick_handler.storage.recovery.segment_files import Position
from market_data_tick_handler.storage.recovery.state_store import State, StateStore
from market_data_tick_handler.storage.recovery.tick_journal import TickJournal
from market_data_tick_handler.storage.recovery.tick_records import Note, OutageOpened, Remark
from streaming_service.clock import SECOND_US, Clock
from streaming_service.missing_rows import missing_rows
from streaming_service.sink import Outlet
from streaming_service.threads import to_its_end

log = logging.getLogger(__name__)

# Rows fed at once when a journal is replayed.
_REPLAYED_ROWS: Final = 65_536
_MAX_MARKS: Final = 256
_SYNC_S: Final = 1.0
# A quiet feed leaves word at least this often that it is alive, so that a restart does not take its silence for a stop.
_ALIVE_US: Final = SECOND_US

PipelineMaker = Callable[[], Pipeline]
T = TypeVar("T")


class BetweenTurns(Protocol):
    """`Ingest.between_turns`."""

    def __call__(self, change: Callable[[], T]) -> Awaitable[T]: ...


@dataclass(frozen=True, slots=True)
class RecoveryOptions:
    """checkpoint_us: time between two checkpoints of a pipeline. window_us: how far back a repair may reach."""

    checkpoint_us: int = 5 * SECOND_US
    window_us: int = DAY_US


@dataclass(slots=True)
class Rebuilt:
    """A pipeline that began at `origin` and replayed the journal up to `position`, and what it published on the way."""

    pipeline: Pipeline
    origin: State
    position: Position
    published: list[CandleBatch]


@dataclass(frozen=True, slots=True)
class Captured:
    """A state to be saved, and the ids seen since the one before it."""

    state: State
    ids: Mapping[DataType, Sequence[LoggedIds]]


@dataclass(slots=True)
class _Kept:
    """What one instrument leaves on disk, and how far it is up to date."""

    make: PipelineMaker
    journal: TickJournal
    outputs: OutputJournal
    states: StateStore
    gaps: list[Gap] = field(default_factory=list)
    open_us: int = NEVER_US
    noted_us: int = 0
    saved_us: int = 0
    saved_at: Position | None = None
    logged: Mapping[DataType, tuple[int, int]] = field(default_factory=dict)
    pending: list[CandleBatch] = field(default_factory=list)
    numbered: Sequence[Rows] | None = None
    resumed_at: Position | None = None
    alone: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(frozen=True, slots=True)
class _Delivered:
    """A sink has been given `put` rows in all when the output journals had got to `positions`."""

    sink: str
    put: int
    positions: Mapping[str, Position]


class Recovery:
    """Journals and checkpoints under `root`, one directory per instrument: the `TurnKeeper` of ingest.

    failures: writes that a disk refused; last_failure says which. restored: seconds that each instrument was away.
    on_began: told of every pipeline before it goes on, and whether it is a restored one; on_fetched: of the rows of
    every repair. Both in a thread.
    outlets: of the sinks that must end with every candle, by name. Methods belong to the event loop, between turns;
    `add_missing`, `rebuild`, `sync` and `save` are for threads.
    """

    def __init__(
        self, root: Path, *, clock: Clock, options: RecoveryOptions, outlets: Mapping[str, Outlet] | None = None
    ) -> None:
        self.options = options
        self.root = root
        self.restored: dict[str, float] = {}
        self.failures = 0
        self.last_failure = ""
        self.on_began: Callable[[Pipeline, bool], None] | None = None
        self.on_fetched: Callable[[Gap, TickBatch], None] | None = None
        self._clock = clock
        self._kept: dict[str, _Kept] = {}
        self._outlets = dict(outlets or {})
        self._delivered: deque[_Delivered] = deque()

    # Starting and stopping

    def open(self, key: str, make: PipelineMaker, *, warm: Callable[[Pipeline], None]) -> Pipeline:
        """The pipeline of an instrument as it was at the end of its journal and gone on to now; else a new one, which
        `warm` may feed stored candles. What a restart has to publish comes with the first turn.

        make: an empty pipeline of the instrument with `keep_rows` and `identify`.
        """
        folder = self.root / key
        states = StateStore(folder, key, window_us=self.options.window_us)
        outputs = OutputJournal(folder, key, sinks=tuple(self._outlets), window_us=self.options.window_us)
        kept = _Kept(make, TickJournal(folder, key), outputs, states)
        self._kept[key] = kept
        for finding in (*kept.journal.findings, *kept.outputs.findings, *kept.states.findings):
            log.warning("journal was not whole", extra={"instrument": key, "found": str(finding)})
        now_us = self._clock.now_us()
        recent = kept.journal.last_us > now_us - self.options.window_us
        rebuilt = self._restart(kept) if recent else None
        if rebuilt is None:
            pipeline = make()
            warm(pipeline)
            pipeline.start(now_us)
            self._tell_of(pipeline, restored=False)
        else:
            pipeline, kept.logged = rebuilt.pipeline, rebuilt.origin.logged
            kept.resumed_at = rebuilt.origin.position
            self._tell_of(pipeline, restored=True)
            away_s = (now_us - pipeline.clock_us) / SECOND_US
            self.restored[key] = away_s
            pipeline.resume(now_us)
            kept.pending = _final([*rebuilt.published, *pipeline.outputs()])
            log.info("restored", extra={"instrument": key, "away_s": round(away_s, 3)})
        pipeline.doubt(now_us)
        pipeline.keep_rows = True
        self.keep(key, pipeline)
        self.save(key, self.capture(key, pipeline))
        return pipeline

    def _tell_of(self, pipeline: Pipeline, *, restored: bool) -> None:
        if self.on_began is not None:
            self.on_began(pipeline, restored)

    def close(self, key: str, pipeline: Pipeline) -> None:
        """A last checkpoint; then the files of the instrument are released."""
        self.save(key, self.capture(key, pipeline))
        self.note_deliveries()
        kept = self._kept.pop(key)
        kept.journal.close()
        kept.outputs.close()

    @property
    def size_bytes(self) -> int:
        """Bytes of all journals."""
        return sum(kept.journal.size_bytes + kept.outputs.size_bytes for kept in self._kept.values())

    def release(self) -> None:
        """Let go of all files without a last checkpoint, as after a failure."""
        for kept in self._kept.values():
            kept.journal.close()
            kept.outputs.close()
        self._kept.clear()

    def journal(self, key: str) -> TickJournal:
        """The tick journal of an instrument."""
        return self._kept[key].journal

    def resumed_at(self, key: str) -> Position | None:
        """Where in the journal of an instrument the state lies that it was restored from; None if it is new."""
        return self._kept[key].resumed_at

    # A turn

    def keep(self, key: str, pipeline: Pipeline) -> list[CandleBatch]:
        """Journal what the turn fed; what a restart or a repair has left to publish before the turn's own candles."""
        kept = self._kept[key]
        rows = pipeline.stored
        notes = self._news(kept, pipeline, quiet=not rows)
        kept.numbered = None
        if rows or notes:
            try:
                kept.numbered = kept.journal.append(rows, notes, pipeline.clock_us)
                kept.noted_us = pipeline.clock_us
            except OSError as error:
                self._fail("tick journal", key, error)
                # Only a state taken from now on has these rows.
                kept.saved_us, kept.saved_at = 0, None
        pending, kept.pending = kept.pending, []
        return pending

    def kept_rows(self, key: str, stored: Sequence[TickBatch]) -> Sequence[Rows]:
        """The rows of the last turn; those that the disk did not take have no numbers."""
        kept = self._kept[key]
        numbered, kept.numbered = kept.numbered, None
        return [Rows(key, batch) for batch in stored] if numbered is None else numbered

    def admit(self, batch: CandleBatch) -> CandleBatch | None:
        """What of `batch` was not published before, numbered for good and journaled. A disk that fails costs the
        numbers, not the candles: those who trade on them need them now."""
        try:
            admitted = self._kept[batch.instrument.key].outputs.admit(batch)
        except OSError as error:
            self._fail("output journal", batch.instrument.key, error)
            return batch
        return None if admitted is None else _numbered(admitted)

    def _fail(self, what: str, key: str, error: OSError) -> None:
        """The disk is full or broken: told of the first, the second, the fourth, ... time."""
        self.failures += 1
        self.last_failure = f"{what} of {key}: {error.strerror or error}"
        if self.failures.bit_count() == 1:
            told = {"instrument": key, "error": str(error), "failures": self.failures}
            log.error("%s failed: a restart would lose what came since", what, extra=told)

    # Delivery

    def undelivered(self, sink: str) -> Iterator[CandleBatch]:
        """What was published before this start and not written by a sink, in order, instrument by instrument. Nothing
        for a sink that need not end with every candle."""
        if sink not in self._outlets:
            return
        for kept in self._kept.values():
            for journaled in kept.outputs.unacknowledged(sink):
                yield _numbered(journaled)

    def note_deliveries(self) -> None:
        """Remember how far each sink has been given what was published, and acknowledge what it has settled since."""
        for name, outlet in self._outlets.items():
            positions = {key: kept.outputs.position for key, kept in self._kept.items()}
            mark = _Delivered(name, outlet.counters.put, positions)
            if len(self._delivered) >= _MAX_MARKS and self._delivered[-1].sink == name:
                # A sink that is stuck: the later mark stands for both.
                self._delivered.pop()
            self._delivered.append(mark)
        waiting: deque[_Delivered] = deque()
        for delivered in self._delivered:
            if self._outlets[delivered.sink].settled < delivered.put:
                waiting.append(delivered)
                continue
            for key, position in delivered.positions.items():
                if key in self._kept:
                    self._kept[key].outputs.acknowledge(delivered.sink, position)
        self._delivered = waiting

    def _news(self, kept: _Kept, pipeline: Pipeline, *, quiet: bool) -> list[Note]:
        notes: list[Note] = []
        gaps = pipeline.gaps
        if gaps != kept.gaps:
            known = set(kept.gaps)
            notes += [gap for gap in gaps if gap not in known]
            kept.gaps = list(gaps)
        if pipeline.open_outage_us != kept.open_us:
            kept.open_us = pipeline.open_outage_us
            notes.append(OutageOpened(kept.open_us))
        if not notes and quiet and pipeline.clock_us - kept.noted_us >= _ALIVE_US:
            notes.append(Remark("alive", None))
        return notes

    # Checkpoints

    @asynccontextmanager
    async def alone(self, key: str) -> AsyncIterator[bool]:
        """One at a time per instrument: a checkpoint, a repair, the writing of its files, its dismissal. A state
        without the repaired rows must not appear behind them, and nobody closes files that another one writes.

        Yields whether the instrument is there. One that was dismissed, and perhaps admitted again, while this waited
        for its turn is not.
        """
        kept = self._kept.get(key)
        if kept is None:
            yield False
            return
        async with kept.alone:
            yield self._kept.get(key) is kept

    def due(self) -> list[str]:
        """Instruments whose checkpoint is older than the interval and whose journal has grown since."""
        now_us = self._clock.now_us()
        return [
            key
            for key, kept in self._kept.items()
            if now_us - kept.saved_us >= self.options.checkpoint_us and kept.journal.position != kept.saved_at
        ]

    def capture(self, key: str, pipeline: Pipeline) -> Captured:
        """The state of a pipeline whose turns are all journaled, for `save`."""
        kept = self._kept[key]
        ids = pipeline.ids_log(kept.logged)
        state = State(
            clock_us=pipeline.clock_us,
            snapshot=pipeline.snapshot(),
            ids=pipeline.ids_mark(),
            position=kept.journal.position,
        )
        kept.saved_us = self._clock.now_us()
        return Captured(state, ids)

    def save(self, key: str, captured: Captured) -> None:
        """Write a checkpoint, and let go of what is older than a repair may reach."""
        kept = self._kept[key]
        kept.journal.sync()
        kept.states.save(captured.state, captured.ids)
        kept.saved_at, kept.logged = captured.state.position, captured.state.logged
        now_us = captured.state.clock_us
        kept.states.thin(now_us)
        # Whole days, so that a day file can still be written from its first row on.
        oldest_us = floor_us(now_us - self.options.window_us, DAY_US)
        kept.journal.forget(oldest_us)
        kept.outputs.forget(oldest_us)

    def sync(self) -> None:
        """Make the journals outlive the machine, not only this process."""
        for kept in list(self._kept.values()):
            kept.journal.sync()
            kept.outputs.sync()

    async def run(self, pipelines: Mapping[str, Pipeline], between_turns: BetweenTurns) -> None:
        """Sync once a second, and take checkpoints as they come due, until cancelled."""
        while True:
            await self._clock.sleep(_SYNC_S)
            await self._off_the_loop("sync", "all instruments", self.sync)
            await between_turns(self.note_deliveries)
            for key in self.due():
                async with self.alone(key) as there:
                    if there:
                        captured = await between_turns(partial(self.capture, key, pipelines[key]))
                        await self._off_the_loop("checkpoint", key, partial(self.save, key, captured))

    async def _off_the_loop(self, what: str, key: str, work: Callable[[], None]) -> None:
        try:
            await to_its_end(work)
        except OSError as error:
            self._fail(what, key, error)

    # Replay

    def _restart(self, kept: _Kept) -> Rebuilt | None:
        state = self._newest(kept, None)
        if state is None:
            return None
        pipeline = self._restored(kept, state)
        gaps, open_us = {(gap.from_us, gap.kind): gap for gap in pipeline.gaps}, pipeline.open_outage_us
        for turn in kept.journal.read(state.position):
            for note in turn.notes:
                if isinstance(note, Gap):
                    gaps[note.from_us, note.kind] = note
                elif isinstance(note, OutageOpened):
                    open_us = note.open_us
        pipeline.know(list(gaps.values()))
        rebuilt = self._replay(kept, pipeline, state)
        pipeline.know(list(gaps.values()), open_us)
        pipeline.advance(kept.journal.last_us)
        return rebuilt

    def rebuild(self, key: str, ledger: Sequence[Gap], from_us: int) -> Rebuilt | None:
        """The pipeline as it would be had the repaired rows come in their time: from the newest checkpoint before
        `from_us`. None where none is left.

        ledger: the gaps as they stand after the repair.
        """
        kept = self._kept[key]
        state = self._newest(kept, from_us)
        if state is None:
            return None
        pipeline = self._restored(kept, state)
        pipeline.know(ledger)
        return self._replay(kept, pipeline, state)

    def take_place(self, key: str, rebuilt: Rebuilt, live: Pipeline, settled: Sequence[Gap]) -> Pipeline:
        """Bring the rebuilt pipeline up to `live`, whose turns are all journaled, and return it as the live one."""
        kept, pipeline = self._kept[key], rebuilt.pipeline
        for batches in _in_pieces(turn.batches for turn in kept.journal.read(rebuilt.position)):
            pipeline.feed([Rows(key, batch) for batch in batches])
        pipeline.succeed(live, settled)
        kept.pending = _final([*kept.pending, *rebuilt.published, *pipeline.outputs()])
        kept.saved_us, kept.logged = 0, rebuilt.origin.logged
        return pipeline

    def _newest(self, kept: _Kept, before_us: int | None) -> State | None:
        state = kept.states.newest(before_us)
        return state if state is not None and kept.journal.covers(state.position) else None

    def _restored(self, kept: _Kept, state: State) -> Pipeline:
        pipeline = kept.make()
        pipeline.keep_rows = False
        pipeline.restore(state.snapshot)
        pipeline.restore_ids(state.ids, state.id_keys)
        return pipeline

    def _replay(self, kept: _Kept, pipeline: Pipeline, state: State) -> Rebuilt:
        """Feed everything behind `state`. Only the last content of each candle counts."""
        key = kept.journal.instrument_key
        until = kept.journal.position
        published: list[CandleBatch] = []
        turns = kept.journal.read_merged(state.position, from_us=state.clock_us, until=until)
        for batches in _in_pieces(turn.batches for turn in turns):
            pipeline.feed([Rows(key, batch) for batch in batches])
            published = _final([*published, *pipeline.outputs()])
        return Rebuilt(pipeline, state, until, published)

    # Repair

    def add_missing(self, key: str, gap: Gap, fetched: TickBatch, margin_us: int) -> int:
        """Put those of the fetched trades that the journal lacks into it, received within the gap, and return how
        many. Checkpoints from within or after the gap go: they lack them."""
        kept = self._kept[key]
        state = self._newest(kept, gap.from_us - margin_us)
        start = None if state is None else state.position
        known = (batch for turn in kept.journal.read_merged(start) for batch in turn.batches)
        rows = missing_rows(fetched, (batch for batch in known if batch.data_type is DataType.TRADES), gap)
        if len(rows):
            kept.journal.add_repair(rows)
            if self.on_fetched is not None:
                self.on_fetched(gap, rows)
        kept.states.discard_after(gap.from_us)
        return len(rows)


def _numbered(journaled: Journaled) -> CandleBatch:
    first = journaled.first_sequence
    return journaled.batch.numbered(np.arange(first, first + len(journaled.batch), dtype=np.int64))


def _in_pieces(turns: Iterable[Sequence[TickBatch]]) -> Iterator[list[TickBatch]]:
    """Batches of many turns, joined by data type into turns that are worth feeding."""
    gathered: dict[DataType, list[TickBatch]] = {}
    rows = 0
    for batches in turns:
        for batch in batches:
            gathered.setdefault(batch.data_type, []).append(batch)
            rows += len(batch)
        if rows >= _REPLAYED_ROWS:
            yield [concat(group) for group in gathered.values()]
            gathered, rows = {}, 0
    if gathered:
        yield [concat(group) for group in gathered.values()]


def _final(batches: Iterable[CandleBatch]) -> list[CandleBatch]:
    """Per timeframe the last row of each candle, shortest timeframe first."""
    groups: dict[Timeframe, list[CandleBatch]] = {}
    for batch in batches:
        groups.setdefault(batch.timeframe, []).append(batch)
    ordered = sorted(groups.items(), key=lambda item: item[0].us)
    return [newest_rows(concat_candles(group)) for _, group in ordered]

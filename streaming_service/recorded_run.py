"""A recording as a service left it: the frames of all its sources in one order of arrival, and what it told besides.

A directory with the frames of one source, or of several, is a recording too; then nothing is known but the frames.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np

from market_data_tick_handler.core import venues as venue_table
from market_data_tick_handler.core.events import Event, Gap, GapEnding, GapKind, Rows
from market_data_tick_handler.core.instruments import InstrumentDefinition, parse_instrument_key
from market_data_tick_handler.core.ticks import Array, TickBatch, concat
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.errors import NotFound
from streaming_service.failover import is_identified
from streaming_service.run_log import (
    FOLDER,
    GapKnown,
    InstrumentBegan,
    InstrumentEnded,
    RecordedSource,
    RowsFetched,
    RunBegan,
    RunRecord,
    SourceSwitched,
    TimeframesChanged,
    read_runs,
)
from streaming_service.sources.connection.journal import JournalReplay
from streaming_service.sources.connection.recording import PACKED_SUFFIX, SUFFIX
from streaming_service.sources.exchanges.protocol import Stream, Venue
from streaming_service.sources.recording import Chunk

MACHINE: Final = "tardis_realtime"


@dataclass(slots=True)
class Life:
    """One pipeline from its beginning to its end: restarts that went on with what was there do not part it.

    gaps: as last told, by start and kind. fetched: rows of repairs in the order of fetching; restored: how many of them
    a restart found, whatever had become of their gaps.
    """

    began: InstrumentBegan
    gaps: dict[tuple[int, GapKind], Gap] = field(default_factory=dict)
    fetched: list[RowsFetched] = field(default_factory=list)
    restored: int = 0
    changes: list[TimeframesChanged] = field(default_factory=list)
    ended: InstrumentEnded | None = None

    @property
    def timeframes(self) -> tuple[Timeframe, ...]:
        """Those that it has last."""
        return self.changes[-1].timeframes if self.changes else self.began.options.timeframes

    def goes_on_as(self, began: InstrumentBegan) -> bool:
        """Whether a pipeline that began again with what this one left computes the same."""
        same = replace(began.options, timeframes=self.began.options.timeframes) == self.began.options
        finished = self.ended is not None and self.ended.finished
        return same and not finished and began.contract_size == self.began.contract_size

    def repairs(self) -> TickBatch | None:
        """The fetched rows that the pipeline was fed in their canonical order: by time of receipt, then as fetched. A
        service that stops in the middle of a repair has fetched rows that its candles lack."""
        fed = [
            each.rows
            for number, each in enumerate(self.fetched)
            if number < self.restored or self.ended is None or self._is_repaired(each.gap)
        ]
        if not fed:
            return None
        rows = concat(fed)
        return rows.take(np.argsort(rows["local_timestamp"], kind="stable"))

    def _is_repaired(self, gap: Gap) -> bool:
        known = self.gaps.get((gap.from_us, gap.kind))
        return known is not None and known.ending is GapEnding.REPAIRED


@dataclass(slots=True)
class Told:
    """What the run logs of a recording say. lives: by instrument, in order. switches: by feed."""

    sources: list[RecordedSource] = field(default_factory=list)
    lives: dict[str, list[Life]] = field(default_factory=dict)
    switches: dict[str, list[tuple[int, str]]] = field(default_factory=dict)

    def take(self, record: RunRecord) -> None:
        """Add one record."""
        match record:
            case RunBegan():
                self._begin_run(record)
            case InstrumentBegan():
                self._begin(record)
            case TimeframesChanged():
                self._life(record.instrument).changes.append(record)
            case SourceSwitched():
                self.switches[record.feed].append((record.at_us, record.source))
            case GapKnown():
                gap = record.gap
                self._life(gap.instrument).gaps[gap.from_us, gap.kind] = gap
            case RowsFetched():
                self._life(record.gap.instrument).fetched.append(record)
            case InstrumentEnded():
                self._life(record.instrument).ended = record

    def _begin_run(self, began: RunBegan) -> None:
        known = {source.folder for source in self.sources}
        self.sources += [source for source in began.sources if source.folder not in known]
        first: dict[str, str] = {}
        for source in began.sources:
            first.setdefault(source.feed, source.name)
        for feed, name in first.items():
            self.switches.setdefault(feed, []).append((began.at_us, name))

    def _begin(self, began: InstrumentBegan) -> None:
        lives = self.lives.setdefault(began.instrument, [])
        life = lives[-1] if lives else None
        if life is None or not began.resumed or not life.goes_on_as(began):
            lives.append(Life(began))
            return
        stopped_us = began.at_us if life.ended is None else life.ended.clock_us
        if began.options.timeframes != life.timeframes:
            life.changes.append(TimeframesChanged(began.instrument, stopped_us, began.options.timeframes))
        life.ended, life.restored = None, len(life.fetched)

    def _life(self, instrument: str) -> Life:
        return self.lives[instrument][-1]


class RecordedRun:
    """A recording (`sources.recording.Recording`) of a whole service. Each chunk is what arrived up to one instant.

    path: `record.path` of the service, or the journal of a single source. venues: by Tardis id. machine: how
    tardis-machine is decoded. resolve: instrument of a key. told: what is known besides the frames.

    Raises:
        NotFound: nothing is recorded there. CorruptObject: a run log is damaged.
    """

    def __init__(
        self,
        path: str | Path,
        venues: Mapping[str, Venue],
        *,
        machine: Venue,
        resolve: Callable[[str], InstrumentDefinition] = parse_instrument_key,
    ) -> None:
        root = Path(path)
        self.told = Told()
        for record in read_runs(root / FOLDER):
            self.told.take(record)
        sources = self.told.sources or _sources_in(root)
        # A source that never got a connection left no frames.
        self.sources = [source for source in sources if _has_frames(root / source.folder)]
        if not self.sources:
            raise NotFound(f"{root}: expected the recording of a service, or a journal ({SUFFIX}); found none")
        machines = {venue.exchange: machine for venue in venue_table.VENUES}
        self.replays = [
            JournalReplay(root / each.folder, machines if each.name == MACHINE else venues, resolve=resolve)
            for each in self.sources
        ]

    @property
    def filtered(self) -> dict[Stream, int]:
        """What looked like data and was none of ours, per stream."""
        total: dict[Stream, int] = {}
        for replay in self.replays:
            for stream, count in replay.filtered.items():
                total[stream] = total.get(stream, 0) + count
        return total

    async def chunks(self, *, step_us: int) -> AsyncIterator[Chunk]:
        """Events of all sources, in order of arrival; `step_us` is longer than any.

        Raises:
            CorruptObject: a file is damaged before its end. ConfigError: a venue is not known.
        """
        async with AsyncExitStack() as stack:
            streams = [
                await stack.enter_async_context(aclosing(replay.chunks(step_us=step_us)))  # type: ignore[type-var]
                for replay in self.replays
            ]
            heads = [await anext(stream, None) for stream in streams]
            while waiting := [(head.until_us, place) for place, head in enumerate(heads) if head is not None]:
                until_us, first = min(waiting)
                events: list[Event] = []
                for place, head in enumerate(heads):
                    if head is None:
                        continue
                    if place == first:
                        events += self._used(place, head.events, until_us)
                        heads[place] = await anext(streams[place], None)
                        continue
                    before, after = _split(head.events, until_us)
                    if before:
                        events += self._used(place, before, until_us)
                        heads[place] = Chunk(after, head.first_us, head.last_us, head.until_us)
                if events:
                    yield Chunk(events, until_us, until_us, until_us)

    def _used(self, place: int, events: Sequence[Event], until_us: int) -> Sequence[Event]:
        """Those of a source that its feed let through: all while it was in use, else what ids tell apart."""
        source = self.sources[place]
        active = source.name
        for at_us, name in self.told.switches.get(source.feed, ()):
            if at_us <= until_us:
                active = name
        return events if active == source.name else [event for event in events if is_identified(event)]


def _sources_in(root: Path) -> list[RecordedSource]:
    """What lies there without a run log: one journal, or one per directory."""
    if root.is_file() or _has_frames(root):
        return [RecordedSource("", "", "")]
    folders = sorted(each.name for each in root.iterdir() if each.is_dir()) if root.is_dir() else []
    return [RecordedSource(name, MACHINE if name.startswith(f"{MACHINE}-") else name, name) for name in folders]


def _has_frames(path: Path) -> bool:
    return path.is_file() or any(next(path.glob(f"*{suffix}"), None) for suffix in (SUFFIX, PACKED_SUFFIX))


def _split(events: Sequence[Event], until_us: int) -> tuple[list[Event], list[Event]]:
    """Rows that arrived before `until_us`, and everything else."""
    before: list[Event] = []
    after: list[Event] = []
    for event in events:
        if not isinstance(event, Rows):
            after.append(event)
            continue
        times: Array = np.maximum.accumulate(event.batch["local_timestamp"])
        stop = int(np.searchsorted(times, until_us, "left"))
        if stop:
            before.append(Rows(event.instrument, event.batch.slice(0, stop), event.connection))
        if stop < len(times):
            after.append(Rows(event.instrument, event.batch.slice(stop, len(times)), event.connection))
    return before, after

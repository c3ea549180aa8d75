"""Durable state of the pipelines: what was fed and published is journaled at each turn, checkpoints let a restart go on.

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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from market_data_tick_handler.core.candle_batch import CandleBatch, concat_candles, newest_rows
from market_data_tick_handler.core.events import Gap, Rows
from market_data_tick_handler.core.pipeline import Pipeline
from market_data_tick_handler.core.ticks import Array, DataType, TickBatch, concat
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.storage.recovery.output_journal import OutputJournal
from market_data_tick_handler.storage.recovery.state_store import State, StateStore
from market_data_tick_handler.storage.recovery.tick_journal import JournalTurn, TickJournal
from streaming_service.clock import SECOND_US, Clock

log = logging.getLogger(__name__)

# Rows fed at once when a journal is replayed: one turn of a busy second.
_REPLAYED_ROWS: Final = 65_536
_SYNC_S: Final = 1.0
# A quiet feed says at least this often that it is alive, so that a restart does not take its silence for a stop.
_CLOCK_NOTE_US: Final = SECOND_US

PipelineMaker = Callable[[], Pipeline]


@dataclass(frozen=True, slots=True)
class RecoveryOptions:
    """checkpoint_s: time between two checkpoints of a pipeline. window_us: how far back a repair may reach."""

    checkpoint_s: float = 5.0
    window_us: int = 86_400 * SECOND_US


@dataclass(slots=True)
class Rebuilt:
    """A pipeline that replayed the journal up to `position`, and what it published on the way, per timeframe."""

    pipeline: Pipeline
    position: Position
    published: dict[Timeframe, list[CandleBatch]]


@dataclass(slots=True)
class _Kept:
    """What one instrument leaves on disk, and what of it is up to date."""

    make: PipelineMaker
    journal: TickJournal
    outputs: OutputJournal
    states: StateStore
    gaps: list[Gap] = field(default_factory=list)
    open_us: int = NEVER_US
    noted_us: int = 0
    saved_us: int = 0
    pending: list[CandleBatch] = field(default_factory=list)


class Recovery:
    """Journals and checkpoints under `root`, one directory per instrument.

    A `TurnKeeper` of ingest. All methods but `add_missing`, `rebuild`, `sync` and `save` belong to the event loop.
    """

    def __init__(self, root: Path, *, clock: Clock, options: RecoveryOptions) -> None:
        self.options = options
        self._root = root
        self._clock = clock
        self._kept: dict[str, _Kept] = {}

    def open(self, key: str, make: PipelineMaker, *, cold: Callable[[Pipeline], None]) -> Pipeline:
        """The pipeline of an instrument as it was at the end of its journal, gone on to now, or a new one, which
        `cold` may warm. What a restart has to publish is published with the first turn."""
        folder = self._root / key.replace(":", "_")
        kept = _Kept(make, TickJournal(folder, key), OutputJournal(folder, key), StateStore(folder, key))
        self._kept[key] = kept
        now_us = self._clock.now_us()
        rebuilt = self._replay(kept, None, None) if kept.journal.last_us > now_us - self.options.window_us else None
        if rebuilt is None:
            pipeline = make()
            cold(pipeline)
            pipeline.start(now_us)
            kept.gaps = list(pipeline.gaps)
            self._checkpoint(kept, pipeline)
            return pipeline
        pipeline = rebuilt.pipeline
        stopped_us = pipeline.clock_us
        pipeline.resume(now_us)
        self._take_published(kept, rebuilt)
        log.info("restored", extra={"instrument": key, "away_s": round((now_us - stopped_us) / SECOND_US, 3)})
        return pipeline

"""What a live service leaves on disk and mends by itself: journals, checkpoints, repairs, day files, the gap ledger."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, Final

from market_data_tick_handler.config.settings import Settings
from market_data_tick_handler.core.events import Gap, GapKind
from market_data_tick_handler.core.instruments import InstrumentDefinition, data_types_for
from market_data_tick_handler.core.pipeline import Pipeline
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.core.timeframes import DAY_US, ceil_us
from market_data_tick_handler.storage.gap_ledger import replace_gaps
from market_data_tick_handler.storage.paths import day_of
from streaming_service.clock import Clock
from streaming_service.day_archive import archive_day
from streaming_service.ingest import Ingest
from streaming_service.recovery import Recovery, RecoveryOptions
from streaming_service.repair import Repairer, RepairOptions, TradeFetcher
from streaming_service.sink import Outlet
from streaming_service.threads import to_its_end
from streaming_service.tick_delivery import TickDelivery
from streaming_service.warm_start import stored_candles

log = logging.getLogger(__name__)

_LOOK_S: Final = 5.0
# A day file is written this long after midnight, when the gaps of the evening are usually repaired.
_DAY_ENDED_US: Final = 120_000_000


class Durability:
    """Journals, repairs and archives of one live service.

    pipelines: filled by `restore`, and where repaired pipelines take their places. make: an empty pipeline.
    outlets: of the sinks that must end with every candle. tick_outlets: of those for ticks.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock,
        pipelines: dict[str, Pipeline],
        make: Callable[[InstrumentDefinition], Pipeline],
        fetchers: Mapping[str, Sequence[TradeFetcher]],
        outlets: Mapping[str, Outlet],
        tick_outlets: Sequence[Outlet] = (),
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._pipelines = pipelines
        self._make = make
        self._fetchers = fetchers
        self._outlets = outlets
        recovery = settings.recovery
        self.recovery = Recovery(
            Path(recovery.path),
            clock=clock,
            options=RecoveryOptions(recovery.checkpoint_interval.us, recovery.repair_window.us),
            outlets=outlets,
        )
        self.ticks = TickDelivery(tick_outlets, clock=clock)
        self.repairer: Repairer | None = None
        self._days: dict[str, set[date]] = {}
        self._ledgers: dict[str, tuple[Gap, ...]] = {}

    def restore(self, instruments: Sequence[InstrumentDefinition]) -> None:
        """Give every instrument its pipeline, with what its journal knows, or warmed with stored candles."""
        for instrument in instruments:
            self.admit(instrument)

    def admit(self, instrument: InstrumentDefinition) -> None:
        """One more instrument."""
        key = instrument.key
        self._pipelines[key] = self.recovery.open(
            key, lambda: self._make(instrument), warm=lambda pipeline: self._warm(instrument, pipeline)
        )
        enabled = self._settings.data_types.enabled()
        data_types = [name for name in data_types_for(instrument.instrument_type) if name in enabled]
        self.ticks.admit(self.recovery.journal(key), data_types, self.recovery.resumed_at(key))
        self._days.setdefault(key, set()).add(day_of(self._clock.now_us()))

    def dismiss(self, key: str) -> None:
        """The instrument is not run any more: a last checkpoint, its day files and ledger. To be called undisturbed."""
        pipeline = self._pipelines.pop(key)
        self._archive(key, list(self._days.pop(key, ())))
        self._write_ledger(key, pipeline, stopped=True)
        self.ticks.dismiss(key)
        self.recovery.close(key, pipeline)

    @asynccontextmanager
    async def undisturbed(self, keys: Iterable[str]) -> AsyncIterator[None]:
        """No checkpoint, repair or writing of files of these instruments is under way in the block."""
        async with AsyncExitStack() as held:
            for key in sorted(keys):
                await held.enter_async_context(self.recovery.alone(key))
            yield

    def begin(self, ingest: Ingest) -> None:
        """Repairs happen between the turns of `ingest`."""
        recovery = self._settings.recovery
        self.repairer = Repairer(
            self._pipelines,
            self.recovery,
            clock=self._clock,
            fetchers=self._fetchers,
            between_turns=ingest.between_turns,
            options=RepairOptions(
                settle_us=recovery.settle_time.us,
                window_us=recovery.repair_window.us,
                attempts=recovery.fetch_attempts,
            ),
            on_settled=self._note_settled,
            on_put_back=self.ticks.deliver_fetched,
        )

    async def run_checkpoints(self, ingest: Ingest) -> None:
        """Background job: journals to disk, checkpoints."""
        await self.recovery.run(self._pipelines, ingest.between_turns)

    async def run_repairs(self) -> None:
        """Background job: gaps."""
        if self.repairer is not None:
            await self.repairer.run()

    async def run_archive(self) -> None:
        """Background job: the gap ledger as it changes, and the files of days that are over."""
        while True:
            await self._clock.sleep(_LOOK_S)
            for key in list(self._pipelines):
                async with self.recovery.alone(key) as there:
                    if there:
                        await self._bring_up_to_date(key)

    async def _bring_up_to_date(self, key: str) -> None:
        now_us, pipeline = self._clock.now_us(), self._pipelines[key]
        if self._ledgers.get(key) != tuple(pipeline.gaps):
            await to_its_end(partial(self._write_ledger, key, pipeline, stopped=False))
        days = self._days.setdefault(key, set())
        over = sorted(day for day in days if day < day_of(now_us - _DAY_ENDED_US))
        if over:
            await to_its_end(self._archive, key, over)
            days.difference_update(over)
        days.add(day_of(now_us))

    async def aclose(self) -> None:
        """After the last turn: last checkpoints, day files, the ledger with the end of the run."""
        for key in list(self._pipelines):
            pipeline = self._pipelines[key]
            await asyncio.to_thread(self._archive, key, sorted(self._days.get(key, ())))
            await asyncio.to_thread(self._write_ledger, key, pipeline, stopped=True)
            await asyncio.to_thread(self.recovery.close, key, pipeline)

    def repairing(self, key: str) -> bool:
        """Whether a gap of the instrument is being repaired, so that what is published now will be revised."""
        return self.repairer is not None and bool(self.repairer.pending.get(key))

    def report(self) -> dict[str, Any]:
        """For /health: restarts, repairs under way and done."""
        repairer = self.repairer
        return {
            "restored_after_s": {key: round(away_s, 3) for key, away_s in self.recovery.restored.items()},
            "repairs": {} if repairer is None else {**asdict(repairer.counters), "pending": repairer.pending},
            "journal_bytes": self.recovery.size_bytes,
            "disk_failures": self.recovery.failures,
            "last_disk_failure": self.recovery.last_failure,
            "ticks_delivered_again": self.ticks.again,
            "ticks_lost": self.ticks.lost,
        }

    def _warm(self, instrument: InstrumentDefinition, pipeline: Pipeline) -> None:
        candles = stored_candles(
            self._settings.persist.path,
            instrument,
            pipeline.options.timeframes,
            self._clock.now_us(),
            limit=self._settings.recovery.warm_candles,
        )
        pipeline.warm(candles)
        if candles:
            fed = {str(timeframe): len(records) for timeframe, records in candles.items()}
            log.info("indicators warmed from stored candles", extra={"instrument": instrument.key, "candles": fed})

    def _note_settled(self, gap: Gap) -> None:
        """A repair changes the days it touches."""
        days = self._days.setdefault(gap.instrument, set())
        days.add(day_of(gap.from_us))
        days.add(day_of(max(gap.from_us, gap.to_us - 1)))

    def _archive(self, key: str, days: Sequence[date]) -> None:
        if self._settings.keeps_ticks:
            for day in days:
                archive_day(self._settings.persist.path, self.recovery.journal(key), key, day)

    def _write_ledger(self, key: str, pipeline: Pipeline, *, stopped: bool) -> None:
        gaps = tuple(pipeline.gaps)
        self._ledgers[key] = gaps
        at_us = pipeline.clock_us
        end = [Gap(key, DataType.TRADES, at_us, ceil_us(at_us, DAY_US), "service stopped", GapKind.NOT_RUNNING)]
        replace_gaps(self._settings.persist.path, [*gaps, *(end if stopped and at_us % DAY_US else ())])

"""Gaps become bounded work: fetch the missing trades, replay with them, publish what changed.

Theory of operation. A gap that ended is work for its instrument. Once it is `settle_us` old, the sources of missing
trades are asked in their order (the exchange's REST interface, Tardis). What they give and the journal does not have
goes into the journal as repair rows, and the pipeline is built again from the newest checkpoint before the gap and the
journal after it (`Recovery.rebuild`, in a thread, while the live pipeline goes on). Between two turns the built
pipeline takes in what came meanwhile and takes the live one's place; what it publishes differently is a revision.
No source that has the trades, after so many attempts: the gap is lost, said in the ledger, and left to the batch run.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from market_data_tick_handler.core.events import Gap, GapEnding, GapKind
from market_data_tick_handler.core.instruments import InstrumentDefinition
from market_data_tick_handler.core.pipeline import Pipeline
from market_data_tick_handler.core.ticks import DataType, TickBatch
from market_data_tick_handler.errors import DataError, SourceError
from streaming_service.clock import SECOND_US, Clock
from streaming_service.recovery import Rebuilt, Recovery
from streaming_service.threads import to_its_end

log = logging.getLogger(__name__)

# How often the ledgers are looked through.
_LOOK_S: Final = 0.25
_RETRY_BASE_S: Final = 2.0
_RETRY_CAP_S: Final = 120.0
# Trades around a gap are asked for too: a trade's own time lies before its receipt, and clocks differ.
MARGIN_US: Final = 2 * SECOND_US


class TradeFetcher(Protocol):
    """One place that may have the missing trades of an instrument."""

    @property
    def name(self) -> str: ...

    async def fetch_trades(self, instrument: InstrumentDefinition, gap: Gap, margin_us: int) -> tuple[TickBatch, bool]:
        """Trades stamped in the gap and the margin around it (their local_timestamp is not ours), and whether that is
        all of them.

        Raises:
            SourceError: not now.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairOptions:
    """margin_us: how far around a gap trades are asked for. settle_us: wait behind that. window_us: older
    gaps are lost. attempts: per gap."""

    settle_us: int = SECOND_US
    window_us: int = 86_400 * SECOND_US
    attempts: int = 8
    margin_us: int = MARGIN_US


@dataclass(slots=True)
class RepairCounters:
    """What became of gaps so far, and how many rows were put back."""

    repaired: int = 0
    explained: int = 0
    lost: int = 0
    failed_attempts: int = 0
    rows: int = 0
    last_repair_us: int = 0


@dataclass(slots=True)
class _Work:
    """One gap on its way: attempts made, and when the next one is due."""

    gap: Gap
    due_us: int
    attempts: int = 0
    last_error: str = ""


@dataclass(slots=True)
class _Found:
    """A gap with what was fetched for it."""

    gap: Gap
    rows: TickBatch
    fetcher: str


def is_work(gap: Gap) -> bool:
    """Whether trades may be missing that can be fetched: not before the first start of the service."""
    ran_before = gap.kind is GapKind.OUTAGE or gap.reason == "service restarted"
    return gap.ending is GapEnding.OPEN and ran_before and gap.data_type is DataType.TRADES


class Repairer:
    """Repairs the gaps of all pipelines of a service.

    fetchers: per instrument key, in the order in which they are asked.
    between_turns: runs a change of pipelines when no turn is under way (`Ingest.between_turns`).
    on_settled: told of every gap that came to an end.
    on_put_back: awaited when missing rows are in the journal of an instrument, and in its pipeline if that can be.
    """

    def __init__(
        self,
        pipelines: dict[str, Pipeline],
        recovery: Recovery,
        *,
        clock: Clock,
        fetchers: Mapping[str, Sequence[TradeFetcher]],
        between_turns: Callable[[Callable[[], None]], Awaitable[None]],
        options: RepairOptions,
        on_settled: Callable[[Gap], None] = lambda gap: None,
        on_put_back: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        self.counters = RepairCounters()
        # Not a copy: instruments come and go.
        self.fetchers = fetchers
        self._pipelines = pipelines
        self._recovery = recovery
        self._clock = clock
        self._between_turns = between_turns
        self._options = options
        self._on_settled = on_settled
        self._on_put_back = on_put_back
        self._work: dict[str, dict[tuple[int, GapKind], _Work]] = {}

    @property
    def pending(self) -> dict[str, int]:
        """Gaps under repair, by instrument."""
        return {key: len(work) for key, work in self._work.items() if work}

    async def run(self) -> None:
        """Look for gaps and repair them, one instrument after the other, until cancelled."""
        while True:
            await self._clock.sleep(_LOOK_S)
            for key in self._work.keys() - self._pipelines.keys():
                # Dismissed; its gaps are in its journal, for when it comes again.
                del self._work[key]
            for key in list(self._pipelines):
                if key not in self._pipelines:
                    continue
                self._look(key)
                due = self._due(key)
                if due:
                    await self._repair(key, due)

    def _look(self, key: str) -> None:
        known = self._work.setdefault(key, {})
        for gap in self._pipelines[key].gaps:
            if is_work(gap) and (gap.from_us, gap.kind) not in known:
                # Trades up to the margin behind the gap are asked for: those that come by themselves must be here.
                due_us = gap.to_us + self._options.margin_us + self._options.settle_us
                known[gap.from_us, gap.kind] = _Work(gap, due_us)

    def _due(self, key: str) -> list[_Work]:
        now_us = self._clock.now_us()
        return [work for work in self._work[key].values() if work.due_us <= now_us]

    async def _repair(self, key: str, due: Sequence[_Work]) -> None:
        instrument = self._pipelines[key].instrument
        found: list[_Found] = []
        for work in due:
            if self._clock.now_us() - work.gap.from_us > self._options.window_us:
                await self._lose(key, work, "it is older than the repair window")
                continue
            rows = await self._fetch(instrument, work)
            if rows is not None:
                found.append(rows)
        if found:
            async with self._recovery.alone(key) as there:
                if there:
                    await self._put_back(key, found)

    async def _fetch(self, instrument: InstrumentDefinition, work: _Work) -> _Found | None:
        gap = work.gap
        errors: list[str] = []
        for fetcher in self.fetchers.get(instrument.key, ()):
            try:
                rows, complete = await fetcher.fetch_trades(instrument, gap, self._options.margin_us)
            except (SourceError, DataError) as error:
                errors.append(f"{fetcher.name}: {error}")
                continue
            if complete:
                return _Found(gap, rows, fetcher.name)
            errors.append(f"{fetcher.name} does not reach back to the gap")
        work.attempts += 1
        work.last_error = "; ".join(errors) or "no source has its trades"
        self.counters.failed_attempts += 1
        if work.attempts >= self._options.attempts or not self.fetchers.get(instrument.key):
            await self._lose(instrument.key, work, work.last_error)
        else:
            ceiling_s = min(_RETRY_CAP_S, _RETRY_BASE_S * 2.0 ** (work.attempts - 1))
            work.due_us = self._clock.now_us() + int(random.uniform(0.0, ceiling_s) * SECOND_US)
        return None

    async def _put_back(self, key: str, found: Sequence[_Found]) -> None:
        added = [
            await to_its_end(self._recovery.add_missing, key, one.gap, one.rows, self._options.margin_us)
            for one in found
        ]
        endings = [GapEnding.REPAIRED if rows else GapEnding.EXPLAINED for rows in added]
        settled = [replace(one.gap, ending=ending) for one, ending in zip(found, endings, strict=True)]
        live = self._pipelines[key]
        ledger = [next((gap for gap in settled if _same(gap, known)), known) for known in live.gaps]
        rebuilt = await asyncio.to_thread(self._recovery.rebuild, key, ledger, min(gap.from_us for gap in settled))
        if rebuilt is not None:
            await self._exchange(key, rebuilt, settled)
        if self._on_put_back is not None:
            await self._on_put_back(key)
        if rebuilt is None:
            for one in found:
                work = self._work[key][one.gap.from_us, one.gap.kind]
                await self._lose(key, work, "no checkpoint before it is kept any more")
            return
        for gap, one, rows in zip(settled, found, added, strict=True):
            self.counters.rows += rows
            self._end(key, gap, f"{rows} trades from {one.fetcher}")

    async def _exchange(self, key: str, rebuilt: Rebuilt, settled: Sequence[Gap]) -> None:
        def take_place() -> None:
            self._pipelines[key] = self._recovery.take_place(key, rebuilt, self._pipelines[key], settled)

        await self._between_turns(take_place)

    async def _lose(self, key: str, work: _Work, why: str) -> None:
        lost = replace(work.gap, ending=GapEnding.LOST)

        def tell() -> None:
            if key in self._pipelines:
                self._pipelines[key].settle(lost)

        await self._between_turns(tell)
        self._end(key, lost, why)

    def _end(self, key: str, gap: Gap, how: str) -> None:
        self._work[key].pop((gap.from_us, gap.kind), None)
        name = str(gap.ending)
        setattr(self.counters, name, getattr(self.counters, name) + 1)
        self.counters.last_repair_us = self._clock.now_us()
        level = logging.ERROR if gap.ending is GapEnding.LOST else logging.INFO
        length_s = (gap.to_us - gap.from_us) / SECOND_US
        told = {"instrument": key, "length_s": length_s, "reason": gap.reason, "how": how}
        log.log(level, "gap %s", name, extra=told)
        self._on_settled(gap)


def _same(one: Gap, other: Gap) -> bool:
    return (one.from_us, one.kind) == (other.from_us, other.kind)

"""Every row of the tick journals reaches the sinks that count ticks, once, whenever the service or a repair ended.

Theory of operation. Rows go to the journal first and to the sinks then, with the numbers that they have there. A sink
that counts remembers, durably, which number it has got to, and takes nothing up to it again. So before the first turn
the rows behind that number are given to it once more; to a sink that has never heard of the journal none, but it writes
down, before the first turn, that what comes from now on is its own. Fetched rows have numbers of their own, and go out
when their repair is done. Numbers that are missing on the way are rows that are lost to the sink: counted and told.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.errors import NotFound, SinkError
from market_data_tick_handler.storage.recovery.row_numbers import Counts, NumberedRows
from market_data_tick_handler.storage.recovery.segment_files import Position
from market_data_tick_handler.storage.recovery.tick_journal import TickJournal
from streaming_service.clock import Clock
from streaming_service.sink import BUSY_BASE_S, BUSY_CAP_S, CountsTicks, Outlet, TickChannel

log = logging.getLogger(__name__)

_MAX_DOUBLINGS: Final = 16


@dataclass(slots=True)
class _Series:
    """Rows of a journal, as fed or as fetched. ends, until: where they ended before the first turn; near: a place from
    which it is not far to that. given: the newest numbers that each outlet was given, or need not be."""

    rows: NumberedRows
    ends: Counts
    until: Position | None
    near: Position | None
    given: dict[str, dict[DataType, int]] = field(default_factory=dict)

    def channels(self, instrument: str, *, fetched: bool) -> dict[TickChannel, int]:
        birth = self.rows.numbering.birth
        return {TickChannel(instrument, name, birth, fetched): end for name, end in self.ends.items()}


@dataclass(slots=True)
class _Journal:
    fed: _Series
    fetched: _Series
    begun: bool = False


class TickDelivery:
    """Gives the rows of journals to those of the outlets whose sinks count ticks.

    again: rows that were delivered again after a restart, by outlet. lost: rows that a sink did not get before their
    journal was forgotten or damaged, by outlet.
    """

    def __init__(self, outlets: Sequence[Outlet], *, clock: Clock) -> None:
        self._outlets = [outlet for outlet in outlets if isinstance(outlet.sink, CountsTicks)]
        self.again = dict.fromkeys((outlet.name for outlet in self._outlets), 0)
        self.lost = dict(self.again)
        self._clock = clock
        self._journals: dict[str, _Journal] = {}
        self._alone = asyncio.Lock()

    def admit(self, journal: TickJournal, data_types: Collection[DataType], near: Position | None) -> None:
        """A journal that was opened and has not had a turn. near: where the state lies that it was restored from."""
        fed, fetched = journal.fed, journal.fetched
        ends, ends_fetched = ({name: rows.numbering.counts[name] for name in data_types} for rows in (fed, fetched))
        self._journals[journal.instrument_key] = _Journal(
            _Series(fed, ends, fed.position, near), _Series(fetched, ends_fetched, None, None)
        )

    def dismiss(self, instrument: str) -> None:
        """The journal is closed."""
        self._journals.pop(instrument, None)

    async def begin(self) -> None:
        """Deliver again what sinks of journals admitted since the last call lack. To be awaited before their first
        turn."""
        async with self._alone:
            new = {key: journal for key, journal in self._journals.items() if not journal.begun}
            for outlet in self._outlets if new else ():
                await self._begin(outlet, new)
            for journal in new.values():
                journal.begun = True

    async def deliver_fetched(self, instrument: str) -> None:
        """Give out what a repair added to a journal."""
        async with self._alone:
            journal = self._journals.get(instrument)
            if journal is None or not journal.begun:
                return
            for outlet in self._outlets:
                await self._give(outlet, instrument, journal.fetched)

    async def finish(self) -> None:
        """Give out what a repair was interrupted at."""
        for instrument in list(self._journals):
            await self.deliver_fetched(instrument)

    async def _begin(self, outlet: Outlet, journals: Mapping[str, _Journal]) -> None:
        ends: dict[TickChannel, int] = {}
        for key, journal in journals.items():
            ends |= journal.fed.channels(key, fetched=False) | journal.fetched.channels(key, fetched=True)
        reached = await self._resume(outlet, ends)
        if reached is None:
            return
        for key, journal in journals.items():
            for series, fetched in ((journal.fed, False), (journal.fetched, True)):
                channels = series.channels(key, fetched=fetched)
                series.given[outlet.name] = {channel.data_type: reached[channel] for channel in channels}
                # A machine that lost power may have lost the end of a journal that the sink has.
                series.rows.numbering.raise_to(series.given[outlet.name])
                self.again[outlet.name] += await self._give(outlet, key, series)

    async def _resume(self, outlet: Outlet, ends: Mapping[TickChannel, int]) -> Mapping[TickChannel, int] | None:
        """How far the sink is, as soon as it can say; None if it never will."""
        attempt = 0
        sink = cast(CountsTicks, outlet.sink)
        abandoned = asyncio.create_task(outlet.abandoned.wait(), name=f"{outlet.name} abandoned")
        try:
            while not abandoned.done():
                asked = asyncio.create_task(_asked(sink, ends), name=f"{outlet.name}: resume ticks")
                try:
                    await asyncio.wait([asked, abandoned], return_when=asyncio.FIRST_COMPLETED)
                    if asked.done():
                        return asked.result()
                except SinkError as error:
                    log.warning("ticks wait for a sink", extra={"sink": outlet.name, "error": str(error)})
                    await self._clock.sleep(random.uniform(0.0, min(BUSY_CAP_S, BUSY_BASE_S * 2.0**attempt)))
                    attempt = min(attempt + 1, _MAX_DOUBLINGS)
                finally:
                    asked.cancel()
        finally:
            abandoned.cancel()
        return None

    async def _give(self, outlet: Outlet, instrument: str, series: _Series) -> int:
        """Put what is behind the newest numbers given to an outlet; how many rows."""
        given = series.given.get(outlet.name)
        if given is None:
            return 0
        ends = series.ends if series.until is not None else series.rows.numbering.counts
        if all(ends[name] <= number for name, number in given.items()):
            return 0
        count, here = 0, series.rows.position
        pieces = series.rows.behind(dict(given), near=series.near, until=series.until)
        try:
            while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
                await outlet.put(piece)
                count += len(piece.batch)
                self._note(outlet, instrument, given, piece)
        except NotFound as error:
            log.warning(
                "journal forgotten while it was delivered", extra={"instrument": instrument, "error": str(error)}
            )
        for name, number in given.items():
            self._lose(outlet, instrument, name, ends[name] - number)
            given[name] = max(number, ends[name])
        if series.until is None:
            series.near = here
        return count

    def _note(self, outlet: Outlet, instrument: str, given: dict[DataType, int], piece: Rows) -> None:
        assert piece.numbers is not None
        first, name = piece.numbers.first, piece.data_type
        self._lose(outlet, instrument, name, first - given[name] - 1)
        given[name] = first + len(piece.batch) - 1

    def _lose(self, outlet: Outlet, instrument: str, data_type: DataType, rows: int) -> None:
        if rows <= 0:
            return
        self.lost[outlet.name] += rows
        told = {"sink": outlet.name, "instrument": instrument, "data_type": str(data_type), "rows": rows}
        log.error("rows lost to a sink: they are not in the journal any more", extra=told)


async def _asked(sink: CountsTicks, ends: Mapping[TickChannel, int]) -> Mapping[TickChannel, int]:
    return await sink.resume_ticks(ends)

"""Recorded ticks as a live feed: Tardis CSV and our Parquet day files, merged by local_timestamp, at any speed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Iterable, Iterator
from pathlib import Path
from typing import Final

from market_data_tick_handler.core.events import Event, Rows
from market_data_tick_handler.core.instruments import InstrumentDefinition, chain_of, instrument_from_venue_symbol
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.errors import InstrumentError, MarketDataError
from market_data_tick_handler.storage.tardis_csv import BLOCK_BYTES
from streaming_service.clock import SECOND_US, Clock
from streaming_service.sources.tick_files import UNRESOLVED, FileReader, TickFile, open_tick_file

log = logging.getLogger(__name__)

# What is yielded at once when paced, in seconds of the clock: short against `grace`, long against a loop turn.
_PACE_S: Final = 0.02


class FilesSource:
    """Merges any number of tick files by local_timestamp across files.

    speed: None = as fast as possible, else seconds of data per second of `clock` (1 = real time).
    instruments, data_types: what to read; other rows are counted in `filtered`.

    Rows keep their order within a file; a block out of arrival order is sorted stably first. Every list is complete: it
    holds all rows of all files up to `fed_until_us`, and the next one none of them. A file that fails is in `errors`
    with its typed error, its rows before the failure are used, and the other files go on.
    """

    def __init__(
        self,
        paths: Iterable[str | Path],
        *,
        speed: float | None,
        clock: Clock,
        instruments: Collection[str] | None = None,
        data_types: Collection[DataType] | None = None,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        self.errors: list[tuple[Path, MarketDataError]] = []
        self.filtered: dict[tuple[str, DataType], int] = {}
        self._speed = speed
        self._clock = clock
        self._wanted = None if instruments is None else frozenset(instruments)
        self._wanted_types = None if data_types is None else frozenset(data_types)
        self._block_bytes = block_bytes
        self._instruments: dict[str, InstrumentDefinition] = {}
        self._keys: dict[tuple[str, str, DataType], str] = {}
        self._files = [file for path in paths if (file := self._look(Path(path))) is not None]
        self._window: tuple[int, int] | None = None
        self._fed_until_us = 0
        self._pace: tuple[float, int, int] | None = None

    @property
    def files(self) -> tuple[TickFile, ...]:
        """The files that could be opened; their reports tell of rows and unreadable cells."""
        return tuple(self._files)

    @property
    def instruments(self) -> tuple[InstrumentDefinition, ...]:
        """Instruments found: before the run those of the first rows of every file, after it all of them."""
        return tuple(self._instruments[key] for key in sorted(self._instruments))

    @property
    def start_us(self) -> int:
        """The earliest local_timestamp at the head of a file; 0 where no file has rows."""
        return min((file.start_us for file in self._files if file.start_us is not None), default=0)

    @property
    def window(self) -> tuple[int, int] | None:
        """First and last local_timestamp yielded so far."""
        return self._window

    @property
    def fed_until_us(self) -> int:
        """Every row with a `local_timestamp` below this was yielded; in a paced silence it moves on with the clock."""
        if self._pace is None:
            return self._fed_until_us
        origin_s, origin_us, next_us = self._pace
        return max(self._fed_until_us, min(next_us, self._data_time_us(origin_s, origin_us)))

    async def events(self) -> AsyncIterator[list[Event]]:
        """Lists of rows of all files, each list later than the one before."""
        origin: tuple[float, int] | None = None
        for rows, until_us in self._merge():
            if self._speed is None:
                self._note(rows, until_us)
                yield list(rows)
                # A source that never waits must not keep the rest of the loop from running.
                await asyncio.sleep(0)
                continue
            origin = origin or (self._clock.monotonic_s(), _first_us(rows))
            for part, part_until_us in self._windows(rows, until_us):
                self._pace = (*origin, _first_us(part))
                await self._wait(origin, _last_us(part))
                self._note(part, part_until_us)
                yield list(part)
        self._pace = None

    def _look(self, path: Path) -> TickFile | None:
        try:
            file = open_tick_file(path)
        except MarketDataError as error:
            self._fail(path, error)
            return None
        if file.instrument is not None and self._is_wanted(file.instrument.key, file.data_type):
            self._instruments[file.instrument.key] = file.instrument
        if file.start_us is None:
            log.info("file has no rows", extra={"path": str(path)})
        return file

    def _fail(self, path: Path, error: MarketDataError) -> None:
        self.errors.append((path, error))
        log.error("file failed, the others go on: %s", error, extra={"path": str(path)})

    def _is_wanted(self, key: str, data_type: DataType | None) -> bool:
        return (self._wanted is None or key in self._wanted) and (
            self._wanted_types is None or data_type in self._wanted_types
        )

    def _key_of(self, exchange: str, venue_symbol: str, data_type: DataType) -> str:
        cached = self._keys.get((exchange, venue_symbol, data_type))
        if cached is not None:
            return cached
        try:
            found = instrument_from_venue_symbol(exchange, venue_symbol)
            found = chain_of(found) if data_type is DataType.OPTIONS else found
        except InstrumentError as error:
            key = UNRESOLVED
            log.error("rows of an unknown symbol are left out: %s", error)
        else:
            key = found.key
            if self._is_wanted(key, data_type):
                self._instruments[key] = found
        self._keys[exchange, venue_symbol, data_type] = key
        return key

    def _merge(self) -> Iterator[tuple[list[Rows], int]]:
        """(rows of all files up to a time, that time), times increasing."""
        readers = [
            FileReader(file, key_of=self._key_of, on_error=self._fail, block_bytes=self._block_bytes)
            for file in self._files
            if file.start_us is not None
        ]
        while readers:
            reading = [reader for reader in readers if not reader.ended]
            cut = min((reader.reached_us for reader in reading), default=None)
            if cut is not None:
                for reader in reading:
                    reader.read_to(cut)
            rows = [part for reader in readers for part in reader.take(cut) if self._keep(part)]
            if rows:
                yield rows, cut if cut is not None else _last_us(rows)
            readers = [reader for reader in readers if reader.waiting or not reader.ended]

    def _keep(self, rows: Rows) -> bool:
        if rows.instrument == UNRESOLVED or not self._is_wanted(rows.instrument, rows.data_type):
            name = (rows.instrument or "unknown symbol", rows.data_type)
            self.filtered[name] = self.filtered.get(name, 0) + len(rows.batch)
            return False
        return True

    def _note(self, rows: list[Rows], until_us: int) -> None:
        first, last = _first_us(rows), _last_us(rows)
        known = self._window or (first, last)
        self._window = (min(known[0], first), max(known[1], last))
        self._fed_until_us = max(self._fed_until_us, until_us + 1)

    def _windows(self, rows: list[Rows], until_us: int) -> Iterator[tuple[list[Rows], int]]:
        """`rows` cut into pieces as long as is yielded at once when paced."""
        step_us = max(1, int(_PACE_S * (self._speed or 1.0) * SECOND_US))
        last_us = _last_us(rows)
        while rows:
            stop_us = _first_us(rows) + step_us
            if stop_us > last_us:
                yield rows, until_us
                return
            yield _before(rows, stop_us), stop_us - 1
            rows = _from(rows, stop_us)

    async def _wait(self, origin: tuple[float, int], data_us: int) -> None:
        """Until the clock has reached a time of the data: no row comes before its own."""
        missing_us = data_us - self._data_time_us(*origin)
        if missing_us > 0:
            await self._clock.sleep(missing_us / SECOND_US / (self._speed or 1.0))
        else:
            await asyncio.sleep(0)

    def _data_time_us(self, origin_s: float, origin_us: int) -> int:
        passed_s = (self._clock.monotonic_s() - origin_s) * (self._speed or 1.0)
        return origin_us + int(passed_s * SECOND_US)


def _first_us(rows: list[Rows]) -> int:
    return min(int(part.batch["local_timestamp"][0]) for part in rows)


def _last_us(rows: list[Rows]) -> int:
    return max(int(part.batch["local_timestamp"][-1]) for part in rows)


def _before(rows: list[Rows], time_us: int) -> list[Rows]:
    cut = [(part, int(part.batch["local_timestamp"].searchsorted(time_us))) for part in rows]
    return [Rows(part.instrument, part.batch.slice(0, stop)) for part, stop in cut if stop]


def _from(rows: list[Rows], time_us: int) -> list[Rows]:
    cut = [(part, int(part.batch["local_timestamp"].searchsorted(time_us))) for part in rows]
    return [
        Rows(part.instrument, part.batch.slice(start, len(part.batch)))
        for part, start in cut
        if start < len(part.batch)
    ]

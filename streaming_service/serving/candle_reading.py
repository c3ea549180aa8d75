"""Candles of a time range: the newest from memory, the rest from day files, read in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final

import orjson
import pyarrow as pa

from market_data_tick_handler.core.instruments import InstrumentType, parse_instrument_key
from market_data_tick_handler.core.timeframes import DAY_US, Timeframe
from market_data_tick_handler.errors import NotFound, NotInstalled
from market_data_tick_handler.storage.candle_files import read_candles
from market_data_tick_handler.storage.local_files import local_root
from market_data_tick_handler.storage.paths import (
    CANDLES,
    CHAIN_CANDLES,
    candles_path,
    day_start_us,
    parse_day,
)
from market_data_tick_handler.wire import channels, flatten, selected_features
from market_data_tick_handler.wire.selection import CONSTANTS, top_level_columns
from streaming_service.serving.frames import payload_of
from streaming_service.serving.history import NEVER_US
from streaming_service.serving.problems import Problem
from streaming_service.serving.sink import ServingSink

Row = dict[str, Any]

MEMORY: Final = "memory"
PARQUET: Final = "parquet"
# Reading holds the interpreter for parts of the time, so not more of it at once.
_READERS: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class CandleRange:
    """Candles that open in [from_us, to_us), as many as `limit`: the first ones, or without `from_us` the last ones.
    words: columns as `wire.check_columns` knows them."""

    key: str
    timeframe: Timeframe
    from_us: int | None
    to_us: int
    words: tuple[str, ...]
    limit: int


@dataclass(frozen=True, slots=True)
class FoundCandles:
    """Rows in time order, each candle once as it stands now. next_us: where the range goes on; None at its end.
    sources: where rows came from."""

    columns: tuple[str, ...]
    rows: list[Row]
    next_us: int | None
    sources: tuple[str, ...]


class CandleReader:
    """store: the root of the day files; None where none are kept."""

    def __init__(self, sink: ServingSink, store: str | None) -> None:
        self._sink = sink
        self._root = _root_of(store)
        self._reading = asyncio.Semaphore(_READERS)

    async def read(self, wanted: CandleRange) -> FoundCandles:
        """What there is of a range.

        Raises:
            Problem: 404; only files can have the columns, and there are none.
            CorruptObject: a file is damaged.
        """
        features = selected_features(wanted.words)
        published = set(features) <= set(self._sink.features)
        if not published and self._root is None:
            unknown = sorted(set(features) - set(self._sink.features))
            raise Problem(
                404,
                f"candles in memory do not have {' '.join(unknown[:5])}, and this service keeps no files",
                expected="columns that are published",
                hint="publish more with serve.columns, or keep candles with persist",
            )
        names = tuple(name for name in top_level_columns() if name not in CONSTANTS) + features
        frames, complete_from_us = self._remembered(wanted) if published else ({}, NEVER_US)
        memory = await asyncio.to_thread(_parse, frames, names) if frames else {}
        if self._root is None or _suffices(wanted, memory, complete_from_us):
            return _cut(wanted, names, memory, (MEMORY,))
        async with self._reading:
            stored = await asyncio.to_thread(_read_files, self._root, wanted, names)
        sources = tuple(name for name, rows in ((PARQUET, stored), (MEMORY, memory)) if rows)
        # What is in memory was published after it, or together with it.
        return _cut(wanted, names, _newest(stored, memory), sources)

    def _remembered(self, wanted: CandleRange) -> tuple[dict[int, bytes], int]:
        channel = self._sink.hub.channels.get(channels.candles(wanted.key, wanted.timeframe))
        if channel is None:
            return {}, NEVER_US
        newest = {
            entry.timestamp_us: entry.frame
            for entry in channel.entries
            if (wanted.from_us or 0) <= entry.timestamp_us < wanted.to_us
        }
        times = sorted(newest)
        # One more than asked for tells whether there is more.
        kept = times[: wanted.limit + 1] if wanted.from_us is not None else times[-wanted.limit - 1 :]
        return {time_us: newest[time_us] for time_us in kept}, channel.complete_from_us


def _suffices(wanted: CandleRange, memory: dict[int, Row], complete_from_us: int) -> bool:
    """Whether no file can have anything to add."""
    if wanted.from_us is not None:
        return wanted.from_us >= complete_from_us
    return sum(time_us >= complete_from_us for time_us in memory) >= wanted.limit


def _newest(stored: dict[int, Row], memory: dict[int, Row]) -> dict[int, Row]:
    rows = dict(stored)
    for time_us, row in memory.items():
        if time_us not in rows or row["revision"] >= rows[time_us]["revision"]:
            rows[time_us] = row
    return rows


def _cut(wanted: CandleRange, names: tuple[str, ...], rows: dict[int, Row], sources: tuple[str, ...]) -> FoundCandles:
    times = sorted(rows)
    next_us = None
    if wanted.from_us is None:
        times = times[-wanted.limit :]
    elif len(times) > wanted.limit:
        next_us = times[wanted.limit]
        times = times[: wanted.limit]
    return FoundCandles(names, [rows[time_us] for time_us in times], next_us, sources)


def _parse(frames: dict[int, bytes], names: Sequence[str]) -> dict[int, Row]:
    return {time_us: _row(flatten(orjson.loads(payload_of(frame))), names) for time_us, frame in frames.items()}


def _row(values: Row, names: Sequence[str]) -> Row:
    return {name: values.get(name) for name in names}


def _root_of(store: str | None) -> Path | None:
    try:
        return None if store is None else local_root(store)
    except NotInstalled:
        return None


def _read_files(root: Path, wanted: CandleRange, names: Sequence[str]) -> dict[int, Row]:
    """Rows of day files by open time: a few more than asked for, as many as the last file has."""
    rows: dict[int, Row] = {}
    for day in _days(root, wanted):
        try:
            table = _read_day(root, wanted, day, names)
        except NotFound:
            # The file of that day is gone since it was listed.
            continue
        rows |= {row["timestamp"]: row for row in _within(table, wanted, names)}
        if len(rows) > wanted.limit:
            break
    return rows


def _read_day(root: Path, wanted: CandleRange, day: date, names: Sequence[str]) -> pa.Table:
    # Columns that a file does not have are left out by the reader.
    return read_candles(root, wanted.key, wanted.timeframe, day, day, columns=names, table=_table_of(wanted.key))


def _within(table: pa.Table, wanted: CandleRange, names: Sequence[str]) -> list[Row]:
    for place, column in enumerate(table.schema):
        if pa.types.is_timestamp(column.type):
            table = table.set_column(place, column.name, table[column.name].cast(pa.int64()))
    times = table["timestamp"].to_numpy()
    first, after = times.searchsorted([wanted.from_us or 0, wanted.to_us]).tolist()
    if wanted.from_us is None:
        first = max(first, after - wanted.limit)
    else:
        after = min(after, first + wanted.limit + 1)
    return [_row(row, names) for row in table.slice(first, after - first).to_pylist()]


def _days(root: Path, wanted: CandleRange) -> Iterator[date]:
    """Days that have a file for the range, in the order in which rows are wanted."""
    table = _table_of(wanted.key)
    folder = root / table / "by_date"
    if not folder.is_dir():
        return
    first_us = (wanted.from_us or 0) // DAY_US * DAY_US
    days = [parse_day(entry.name.removeprefix("day-")) for entry in folder.iterdir() if entry.name.startswith("day-")]
    for day in sorted(days, reverse=wanted.from_us is None):
        if first_us <= day_start_us(day) < wanted.to_us:
            path = root / candles_path(day, wanted.timeframe, wanted.key, table=table)
            if path.is_file():
                yield day


def _table_of(key: str) -> str:
    chain = parse_instrument_key(key).instrument_type is InstrumentType.OPTION_CHAIN
    return CHAIN_CANDLES if chain else CANDLES

"""The raw files of one instrument and day as turns: each holds what arrived in one interval, of every type at once.

Across types the order of arrival is (local_timestamp, rank), and rows of one microsecond must reach the pipeline
together. So a turn ends where the first of the pieces in memory ends, and leaves rows of that very time to the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Final

import numpy as np

from market_data_tick_handler.core.events import Gap
from market_data_tick_handler.core.features.groups import select
from market_data_tick_handler.core.instruments import InstrumentDefinition
from market_data_tick_handler.core.options import PipelineOptions
from market_data_tick_handler.core.seen_ids import NEVER_US
from market_data_tick_handler.core.ticks import DataType, TickBatch, concat
from market_data_tick_handler.storage.local_files import require
from market_data_tick_handler.storage.paths import raw_ticks_path
from market_data_tick_handler.storage.raw_ticks import read_raw_ticks
from market_data_tick_handler.storage.read_ahead import ahead

# What groups read of a trade; of the other types they read everything.
_COLUMNS: Final = ("timestamp", "local_timestamp", "id", "side", "price", "amount")
_COLUMNS_OF: Final = {DataType.TRADES: _COLUMNS, DataType.LIQUIDATIONS: _COLUMNS}
_NOTHING: Final = TickBatch.build(DataType.TRADES, {"timestamp": [], "local_timestamp": []})


def inputs(instrument: InstrumentDefinition, options: PipelineOptions) -> tuple[DataType, ...]:
    """The types that the selected groups read, first the one whose rows make candles; none if no group applies."""
    selection = select(options.groups, instrument.instrument_type)
    return tuple(dict.fromkeys(data_type for group in selection.ticks for data_type in group.inputs))


def day_file(root: Path, day: date, data_type: DataType, key: str) -> Path:
    """Where the rows of a day are."""
    return root / raw_ticks_path(day, data_type, key)


def stored(root: Path, day: date, types: Iterable[DataType], key: str) -> tuple[DataType, ...]:
    """Those of the types that have a file of the day."""
    return tuple(data_type for data_type in types if day_file(root, day, data_type, key).is_file())


def require_primary(
    root: Path, day: date, types: Sequence[DataType], key: str, gaps: Sequence[Gap]
) -> tuple[DataType, ...]:
    """Those of the types that have a file of the day.

    The first of them must be there, or nobody knows whether nothing happened. Only where the ledger shows that a
    service was there that day, and it stored rows of another type, did nothing happen.

    Raises:
        NotFound: the file of the first type is not there.
    """
    found = stored(root, day, types, key)
    if not (found and gaps):
        require(day_file(root, day, types[0], key), f"{types[0]} day file")
    return found


def turns(root: Path, day: date, types: Sequence[DataType], key: str) -> Iterator[list[TickBatch]]:
    """All rows of the day's files of `types`, which must be there; memory holds a few pieces of each file."""
    return merged([ahead(_pieces(root, day, data_type, key)) for data_type in types])


def first_turns(root: Path, day: date, types: Sequence[DataType], key: str, until_us: int) -> Iterator[list[TickBatch]]:
    """The rows of the day's files that arrived before `until_us`."""
    return merged([_until(_pieces(root, day, data_type, key), until_us) for data_type in types])


def _pieces(root: Path, day: date, data_type: DataType, key: str) -> Iterator[TickBatch]:
    return read_raw_ticks(root, day, data_type, key, columns=_COLUMNS_OF.get(data_type))


def _until(pieces: Iterator[TickBatch], until_us: int) -> Iterator[TickBatch]:
    for rows in pieces:
        stop = int(np.searchsorted(rows["local_timestamp"], until_us, "left"))
        yield rows.slice(0, stop)
        if stop < len(rows):
            return


def merged(files: Sequence[Iterator[TickBatch]]) -> Iterator[list[TickBatch]]:
    """Turns of files that each come in pieces, rows of each in order of arrival; one file is passed on as it comes."""
    if len(files) == 1:
        yield from ([rows] for rows in files[0])
        return
    held = [_Held(pieces) for pieces in files]
    until_us = 0
    while until_us < NEVER_US:
        for file in held:
            while file.known_until_us == until_us:
                file.fill()
        until_us = min((file.known_until_us for file in held), default=NEVER_US)
        if turn := [rows for file in held if len(rows := file.take(until_us))]:
            yield turn


class _Held:
    """Rows of one file that are in memory and in no turn yet. All that arrived before `known_until_us` are."""

    __slots__ = ("_pieces", "_rows", "known_until_us")

    def __init__(self, pieces: Iterator[TickBatch]) -> None:
        self._pieces = pieces
        self._rows: TickBatch | None = None
        self.known_until_us = 0

    def fill(self) -> None:
        """Read the next piece."""
        piece = next(self._pieces, None)
        if piece is None:
            self.known_until_us = NEVER_US
        elif len(piece):
            rows = piece if self._rows is None else concat([self._rows, piece])
            self._rows = _ordered(rows)
            self.known_until_us = max(self.known_until_us, int(self._rows["local_timestamp"][-1]))

    def take(self, until_us: int) -> TickBatch:
        """The rows that arrived before `until_us`; what is left stays."""
        rows = self._rows
        if rows is None:
            return _NOTHING
        stop = int(np.searchsorted(rows["local_timestamp"], until_us, "left"))
        self._rows = rows.slice(stop, len(rows)) if stop < len(rows) else None
        return rows.slice(0, stop)


def _ordered(rows: TickBatch) -> TickBatch:
    """By arrival, which a file of ours is anyway."""
    lt = rows["local_timestamp"]
    return rows if bool((lt[1:] >= lt[:-1]).all()) else rows.take(np.argsort(lt, kind="stable"))

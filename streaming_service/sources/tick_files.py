"""One file of ticks as blocks in arrival order: what the files source merges."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.instruments import (
    InstrumentDefinition,
    chain_of,
    instrument_from_venue_symbol,
    parse_instrument_key,
)
from market_data_tick_handler.core.ticks import DataType, TickBatch
from market_data_tick_handler.errors import DataError, InstrumentError, MarketDataError
from market_data_tick_handler.storage.paths import parse_path
from market_data_tick_handler.storage.raw_ticks import read_tick_file, tick_file_identity
from market_data_tick_handler.storage.tardis_csv import CsvReport, peek_tardis_csv, read_tardis_blocks

UNRESOLVED = ""


@dataclass(slots=True)
class TickFile:
    """A file that was looked into: its data type, first instrument and first local_timestamp (None = no rows)."""

    path: Path
    data_type: DataType | None
    instrument: InstrumentDefinition | None
    start_us: int | None
    report: CsvReport = field(default_factory=CsvReport)


def open_tick_file(path: Path) -> TickFile:
    """Look into a file.

    Raises:
        MarketDataError: it does not exist, is no tick file, or its first rows are in no known layout.
    """
    if path.suffix == ".parquet":
        key, data_type = _parquet_identity(path)
        first = next(read_tick_file(path, data_type, columns=(), batch_rows=1), None)
        start_us = int(first["local_timestamp"][0]) if first is not None and len(first) else None
        return TickFile(path, data_type, parse_instrument_key(key), start_us)
    seen = peek_tardis_csv(path)
    instrument = None
    if seen.exchange and seen.first_local_us is not None:
        try:
            instrument = instrument_from_venue_symbol(seen.exchange, seen.venue_symbols[0])
        except InstrumentError:
            if len(seen.venue_symbols) == 1:
                raise
            # In a file of many symbols the rows of the unknown ones are counted as they come.
            instrument = None
    if instrument is not None and seen.data_type is DataType.OPTIONS:
        instrument = chain_of(instrument)
    return TickFile(path, seen.data_type, instrument, seen.first_local_us)


def _parquet_identity(path: Path) -> tuple[str, DataType]:
    identity = tick_file_identity(path)
    if identity is not None:
        return identity
    parts = parse_path(path.as_posix())
    if parts.data_type is None:
        raise DataError(
            f"{path}: expected .../data_type-TYPE/INSTRUMENT_KEY.parquet; move the file there, or read its CSV"
        )
    return parts.name, parts.data_type


class FileReader:
    """Reads one file block by block and hands its rows out up to a given arrival time.

    `reached_us`: every row up to it is in memory. `ended`: all rows are. Its error, if it ends with one, goes to
    `on_error` after the rows before it were taken in.
    """

    __slots__ = ("_blocks", "_pending", "ended", "file", "on_error", "reached_us")

    def __init__(
        self,
        file: TickFile,
        *,
        key_of: Callable[[str, str, DataType], str],
        on_error: Callable[[Path, MarketDataError], None],
        block_bytes: int,
    ) -> None:
        self.file = file
        self.on_error = on_error
        self.ended = False
        self.reached_us = (file.start_us or 0) - 1
        self._pending: list[tuple[str, TickBatch]] = []
        self._blocks = self._read(key_of, block_bytes)

    @property
    def waiting(self) -> bool:
        """True while it has rows that were not taken."""
        return bool(self._pending)

    def read_to(self, time_us: int) -> None:
        """Read until every row up to `time_us` is in memory."""
        while not self.ended and self.reached_us <= time_us:
            self._fill()

    def take(self, time_us: int | None) -> Iterator[Rows]:
        """The rows in memory up to `time_us` (None = all), block by block in file order."""
        kept: list[tuple[str, TickBatch]] = []
        for key, batch in self._pending:
            local = batch["local_timestamp"]
            stop = len(local) if time_us is None else int(np.searchsorted(local, time_us, side="right"))
            if stop:
                yield Rows(key, batch if stop == len(local) else batch.slice(0, stop))
            if stop < len(local):
                kept.append((key, batch.slice(stop, len(local))))
        self._pending = kept

    def _fill(self) -> None:
        try:
            block = next(self._blocks, None)
        except MarketDataError as error:
            self.ended = True
            self.on_error(self.file.path, error)
            return
        if block is None:
            self.ended = True
            return
        for key, rows in block:
            batch = by_arrival(rows)
            if len(batch):
                self._pending.append((key, batch))
                self.reached_us = max(self.reached_us, int(batch["local_timestamp"][-1]))

    def _read(
        self, key_of: Callable[[str, str, DataType], str], block_bytes: int
    ) -> Iterator[list[tuple[str, TickBatch]]]:
        file = self.file
        if file.data_type is None:
            return
        data_type = file.data_type
        if file.path.suffix == ".parquet":
            key = file.instrument.key if file.instrument else UNRESOLVED
            for batch in read_tick_file(file.path, data_type):
                yield [(key, batch)]
            return
        blocks = read_tardis_blocks(
            file.path,
            data_type=data_type,
            block_bytes=block_bytes,
            group=lambda exchange, symbol: key_of(exchange, symbol, data_type),
            report=file.report,
        )
        for block in blocks:
            yield [(part.symbol, part.batch) for part in block]


def by_arrival(batch: TickBatch) -> TickBatch:
    """The rows in order of local_timestamp; equal times keep their order."""
    local = batch["local_timestamp"]
    if len(local) < 2 or (local[1:] >= local[:-1]).all():
        return batch
    return batch.take(np.argsort(local, kind="stable"))

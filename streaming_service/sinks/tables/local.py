"""Tables as Parquet files on local disk, as what keeps the rows of a sink of tables.

Each batch of the spool becomes one file whose name is the place of the batch: written again after a crash, it is the
same file. Which files of a table are read, storage.local_tables says.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from market_data_tick_handler.config.outputs import PersistSettings, PriceSettings, WriteMethod
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.errors import ConfigError, SinkBusy, SinkError
from market_data_tick_handler.storage.local_files import local_root
from market_data_tick_handler.storage.local_tables import TABLES, FileRange, parse_file_name
from market_data_tick_handler.storage.paths import day_of
from market_data_tick_handler.storage.recovery.segment_files import lock_file
from streaming_service.clock import Clock
from streaming_service.sinks.parquet import in_thread
from streaming_service.sinks.spool_records import Assignment
from streaming_service.sinks.tables.answers import AlreadyWritten
from streaming_service.sinks.tables.backend import Place
from streaming_service.sinks.tables.cost import CostMeter
from streaming_service.sinks.tables.definitions import TableDefinition, live_tables, wire_schema
from streaming_service.sinks.tables.options import SinkOptions
from streaming_service.sinks.tables.sender import RetryPolicy
from streaming_service.sinks.tables.sink import TableSink
from streaming_service.sinks.tables.table_files import TableFiles
from streaming_service.sinks.tables.upkeep import Upkeep

_FREE: Final = PriceSettings(write_api_usd_per_gib=0.0, insert_rows_usd_per_200mb=0.0)


class LocalTableSink(TableSink):
    """Candles and raw ticks into the tables of `settings.path`: those of BigQuery, in their batches, kept as long.

    groups: of columns of candles; default: all. service: who writes; two services with one directory need two names.
    """

    def __init__(
        self,
        settings: PersistSettings,
        *,
        groups: Sequence[str] | None = None,
        clock: Clock,
        service: str = "tick-handler",
        retry: RetryPolicy | None = None,
        files: TableFiles | None = None,
        upkeep: Upkeep | None = None,
    ) -> None:
        shared = settings.bigquery
        root = local_root(settings.path) / TABLES
        spool = root / f".spool-{service}"
        files = TableFiles() if files is None else files
        self.upkeep = Upkeep(files) if upkeep is None else upkeep
        every = live_tables(
            timeframes=list(Timeframe),
            data_types=list(DataType),
            chains=True,
            groups=groups,
            ttl_days=shared.live_partitioning.ttl_days,
        )
        super().__init__(
            _LocalTables(
                root / shared.dataset_live,
                every,
                files,
                self.upkeep,
                clock=clock,
                max_rows=shared.max_batch_rows,
                max_bytes=shared.max_batch_bytes,
                spool=spool,
            ),
            SinkOptions(spool, shared.spool.max_bytes, shared.batch_timeouts, shared.max_batch_rows),
            clock=clock,
            meter=CostMeter(WriteMethod.COMMITTED, _FREE),
            service=service,
            retry=RetryPolicy(attempts=shared.attempts) if retry is None else retry,
        )


class _LocalTables:
    """The tables of one dataset. Directories come with their first file, and views with the query."""

    name = "tables"
    method = "parquet"

    def __init__(
        self,
        root: Path,
        every: Sequence[TableDefinition],
        files: TableFiles,
        upkeep: Upkeep,
        *,
        clock: Clock,
        max_rows: int,
        max_bytes: int,
        spool: Path,
    ) -> None:
        self.definitions: Mapping[str, TableDefinition] = {definition.name: definition for definition in every}
        self.upkeep_s = upkeep.every_s
        self._root = root
        self._files = files
        self._upkeep = upkeep
        self._clock = clock
        self._max_rows, self._max_bytes = max_rows, max_bytes
        self._spool = spool
        self._lock = -1

    async def open(self) -> None:
        """Raises:
        ConfigError: another process writes here under the same name.
        """
        try:
            self._lock = await asyncio.to_thread(lock_file, self._spool / "lock")
        except ConfigError as error:
            raise ConfigError(
                "another process writes tables here under the same name of service",
                path=str(self._spool),
                hint="give this one another serve.service, or another persist.path",
            ) from error

    async def prepare(self) -> None:
        """There is nothing to make before the first row."""

    async def ensure(self, definition: TableDefinition) -> None:
        """A file has the columns of its own version; readers unite them by name."""

    async def count_like(self, definition: TableDefinition, values: Mapping[str, Any]) -> int:
        raise SinkError(f"{definition.name}: nobody asks a directory for rows: it answers by the names of its files")

    def writer(self, definition: TableDefinition) -> LocalWriter:
        return LocalWriter(
            self._root / definition.name, definition, self._files, max_rows=self._max_rows, max_bytes=self._max_bytes
        )

    async def maintain(self) -> None:
        stop = Event()
        running = asyncio.ensure_future(in_thread(self._look_after, stop))
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            stop.set()
            await asyncio.wait([running])
            raise

    def _look_after(self, stop: Event) -> None:
        for name, definition in self.definitions.items():
            table, cut = self._root / name, definition.partitioning
            if table.is_dir() and not stop.is_set():
                ttl_days = None if cut is None else cut.ttl_days
                self._upkeep.run(table, ttl_days=ttl_days, now_us=self._clock.now_us(), stop=stop)

    async def aclose(self) -> None:
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)


class LocalWriter:
    """One file per batch, in the partition of its newest row, so that no row goes before its time.

    A stream is what one service wrote; its name is chosen once and kept in the spool.
    """

    def __init__(
        self, table: Path, definition: TableDefinition, files: TableFiles, *, max_rows: int, max_bytes: int
    ) -> None:
        self.max_rows, self.max_bytes = max_rows, max_bytes
        self.calls = 0
        self._table = table
        self._schema = wire_schema(definition.schema)
        cut = definition.partitioning
        self._months = cut is None or cut.ttl_days is None
        self._files = files

    async def place(self, stream: str, offset: int) -> Place:
        return (stream, offset) if stream else (secrets.token_hex(6), 0)

    async def write(self, batch: Assignment, rows: pa.Table, numbers: Sequence[int]) -> None:
        self.calls += 1
        await asyncio.to_thread(self._write, batch, rows)

    def _write(self, batch: Assignment, rows: pa.Table) -> None:
        found = FileRange(batch.stream, batch.offset, batch.offset + batch.count)
        partition = self._table / self._partition(rows)
        try:
            there = _file_with(partition, found)
            if there is not None:
                # An earlier try may have ended before the name was sure to last.
                self._files.keep_name(there)
                raise AlreadyWritten(f"{there}: written before")
            self._files.write(partition / str(found), self._schema, [rows.cast(self._schema)])
        except OSError as error:
            what = f"{error.filename or partition}: {error.strerror or error}"
            raise SinkBusy(f"cannot write {what}; free space or fix access") from error

    def _partition(self, rows: pa.Table) -> str:
        newest = pc.max(rows["timestamp_out"]).cast(pa.int64()).as_py()
        day = day_of(newest).isoformat()
        return f"month={day[:7]}" if self._months else f"day={day}"

    async def find(self, batch: Assignment) -> bool | None:
        """A place on disk is never gone, so nobody has to look for its rows."""
        return None

    def after(self, batch: Assignment) -> Place:
        return batch.stream, batch.offset + batch.count


def _file_with(partition: Path, wanted: FileRange) -> Path | None:
    """The file that has all rows of a range."""
    if not partition.is_dir():
        return None
    for path in partition.iterdir():
        found = parse_file_name(path.name)
        if found is not None and found.contains(wanted):
            return path
    return None

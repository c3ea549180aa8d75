"""Few files instead of many, and none that are too old: what tables on local disk need from time to time."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import groupby
from pathlib import Path
from threading import Event
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from market_data_tick_handler.core.timeframes import DAY_US
from market_data_tick_handler.errors import ConfigError, SinkBusy, SinkError
from market_data_tick_handler.storage.local_tables import FileRange, files_to_read, partition_day, table_files
from market_data_tick_handler.storage.paths import day_start_us
from market_data_tick_handler.storage.recovery.segment_files import lock_file
from streaming_service.sinks.tables.table_files import TableFiles, unfinished_merges

log = logging.getLogger(__name__)

# An hour of one-minute batches.
MERGED_AT: Final = 60
# No merged file gets larger than this, unless a batch alone is.
MERGED_BYTES: Final = 256 << 20
_ROW_GROUP_BYTES: Final = 32 << 20
_READ_ROWS: Final = 65_536
# Letting go of hundreds of columns of many files takes the interpreter, and so the event loop, tens of milliseconds.
_JOINED_AT: Final = 8
# A partition is left alone as long after its end: the last batches of its rows are on their way.
_SETTLED_US: Final = 3_600_000_000
_NEVER: Final = date(1970, 1, 1)


@dataclass(slots=True)
class UpkeepCounters:
    """Since the sink was made. expired_*: deleted with partitions older than allowed."""

    merged_files: int = 0
    merged_rows: int = 0
    expired_partitions: int = 0
    expired_rows: int = 0


class Upkeep:
    """Looks after one table at a time; of several services with the same tables, one does.

    merged_at: as many adjacent batches of a partition that still grows become one file. merged_bytes: see above.
    every_s: how often this is done.
    """

    def __init__(
        self,
        files: TableFiles,
        *,
        merged_at: int = MERGED_AT,
        merged_bytes: int = MERGED_BYTES,
        every_s: float = 60.0,
    ) -> None:
        self.counters = UpkeepCounters()
        self.every_s = every_s
        self._files = files
        self._merged_at = merged_at
        self._merged_bytes = merged_bytes

    def run(self, table: Path, *, ttl_days: int | None, now_us: int, stop: Event) -> None:
        """Delete partitions that ended more than `ttl_days` ago, and merge files. For a thread; `stop` ends it early.

        Age is counted from the newest partition where the clock says more, so that replaying old days deletes none.

        Raises:
            SinkBusy: the disk. SinkError: a file is none of ours.
        """
        with _holding(table) as held:
            if not held:
                return
            try:
                self._look_after(table, ttl_days, now_us, stop)
            except OSError as error:
                raise SinkBusy(f"{error.filename or table}: {error.strerror or error}; free space or access") from error
            except _Stopped:
                return

    def _look_after(self, table: Path, ttl_days: int | None, now_us: int, stop: Event) -> None:
        files = table_files(table)
        days = {path: day for path in table.iterdir() if (day := partition_day(path.name)) is not None}
        newest = max(days.values(), default=_NEVER)
        if ttl_days is not None:
            before_us = min(now_us, day_start_us(newest)) - ttl_days * DAY_US
            for path in sorted(path for path, day in days.items() if _end_us(day) <= before_us):
                self._expire(path, sum(found.rows for at, found in files.items() if at.parent == path))
                files = {at: found for at, found in files.items() if at.parent != path}
        kept = set(files_to_read(files))
        self._forget_repeated(path for path in files if path not in kept)
        for partition, group in groupby(sorted(kept), key=lambda path: path.parent):
            day = days[partition]
            over = day < newest and now_us >= _end_us(day) + _SETTLED_US
            self._merge(partition, {path: files[path] for path in group}, stop, whole=over)

    def _expire(self, partition: Path, rows: int) -> None:
        self._files.delete_directory(partition)
        self.counters.expired_partitions += 1
        self.counters.expired_rows += rows
        log.info("partition deleted", extra={"table": partition.parent.name, "partition": partition.name, "rows": rows})

    def _forget_repeated(self, paths: Iterable[Path]) -> None:
        """Delete files whose rows another one has, once that one's name is sure to last."""
        for _, group in groupby(sorted(paths), key=lambda path: path.parent):
            found = list(group)
            self._files.keep_name(found[0])
            self._files.delete(found)

    def _merge(self, partition: Path, files: dict[Path, FileRange], stop: Event, *, whole: bool) -> None:
        """Merge runs of files; whole: however few, and merged ones too."""
        self._files.delete(unfinished_merges(partition))
        for run in self._runs(files, whole):
            if len(run) >= (2 if whole else self._merged_at):
                self._merge_run(partition, run, stop)

    def _runs(self, files: dict[Path, FileRange], whole: bool) -> Iterator[list[tuple[Path, FileRange]]]:
        """Files that follow each other in their stream, within the limit of a merged one."""
        taken = sorted(files.items(), key=lambda item: item[1])
        for _, group in groupby(taken, key=lambda item: (item[1].stream, item[1].merged and not whole)):
            run: list[tuple[Path, FileRange]] = []
            size = 0
            for path, found in group:
                if found.merged and not whole:
                    continue
                more = path.stat().st_size
                if run and (found.first != run[-1][1].end or size + more > self._merged_bytes):
                    yield run
                    run, size = [], 0
                run.append((path, found))
                size += more
            if run:
                yield run

    def _merge_run(self, partition: Path, run: list[tuple[Path, FileRange]], stop: Event) -> None:
        first, last = run[0][1], run[-1][1]
        merged = FileRange(first.stream, first.first, last.end, merged=True)
        paths = [path for path, _ in run]
        try:
            schema = _schema_of(paths)
            self._files.write(partition / str(merged), schema, _pieces(paths, schema, stop))
        except pa.ArrowException as error:
            raise SinkError(f"{partition}: cannot merge {first} .. {last}: {error}; move the bad file away") from error
        self._files.delete(path for path in paths if path.name != str(merged))
        self.counters.merged_files += len(paths)
        self.counters.merged_rows += merged.rows
        log.debug("files merged", extra={"file": str(partition / str(merged)), "files": len(paths)})


def _end_us(day: date) -> int:
    return day_start_us(day + timedelta(days=1))


def _schema_of(paths: Iterable[Path]) -> pa.Schema:
    """Columns of all files; those that a file lacks may be null."""
    whole, common = pa.schema([]), set[str]()
    for number, path in enumerate(paths):
        schema = pq.read_schema(path)
        common = common & set(schema.names) if number else set(schema.names)
        if not schema.equals(whole):
            whole = pa.unify_schemas([whole, schema])
    return pa.schema([field if field.name in common else field.with_nullable(True) for field in whole])


def _pieces(paths: Iterable[Path], schema: pa.Schema, stop: Event) -> Iterator[pa.Table]:
    """The rows of files in order, as row groups of a good size; columns that a file lacks are null."""
    held: list[pa.Table] = []
    few: list[pa.Table] = []
    size = 0
    for path in paths:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_READ_ROWS, use_threads=False):
                if stop.is_set():
                    raise _Stopped
                few.append(_fitted(batch, schema))
                size += batch.nbytes
                if len(few) >= _JOINED_AT:
                    held.append(_joined(few))
                    few = []
                if size >= _ROW_GROUP_BYTES:
                    yield _joined([*held, *few])
                    held, few, size = [], [], 0
    if held or few:
        yield _joined([*held, *few])


def _joined(tables: list[pa.Table]) -> pa.Table:
    return pa.concat_tables(tables).combine_chunks()


class _Stopped(Exception):
    """There is no time to finish; what is unfinished is done again."""


def _fitted(batch: pa.RecordBatch, schema: pa.Schema) -> pa.Table:
    there = set(batch.schema.names)
    columns = [
        batch.column(field.name) if field.name in there else pa.nulls(batch.num_rows, field.type) for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


@contextmanager
def _holding(table: Path) -> Iterator[bool]:
    """Whether this process alone looks after a table now."""
    try:
        held = lock_file(table / ".upkeep")
    except ConfigError:
        yield False
        return
    try:
        yield True
    finally:
        os.close(held)

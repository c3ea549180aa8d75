"""A crash between any two steps on disk costs no row and doubles none, whoever reads at that moment."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path
from threading import Event

import numpy as np
import pyarrow as pa
import pytest

from market_data_tick_handler.core.schemas import TIMESTAMP
from market_data_tick_handler.core.timeframes import DAY_US, Timeframe
from market_data_tick_handler.errors import SinkBusy
from market_data_tick_handler.storage.local_tables import parse_file_name, read_table, readable_files, table_files
from market_data_tick_handler.storage.recovery.segment_files import lock_file
from market_data_tick_handler.testing.ticks import START_US
from streaming_service.sinks.spool_records import Assignment
from streaming_service.sinks.tables.answers import AlreadyWritten
from streaming_service.sinks.tables.definitions import TableDefinition, live_tables, wire_schema
from streaming_service.sinks.tables.local import LocalWriter
from streaming_service.sinks.tables.table_files import TableFiles
from streaming_service.sinks.tables.upkeep import Upkeep
from tests.streaming_service.sinks.numbered_rows import GROUPS

STREAM = "5eaf00d5"
MINUTES_A_DAY = 1_440


class Crash(BaseException):
    """The process is gone."""


def crash_at(number: int) -> Callable[[str], None]:
    """Crash before step `number`."""
    left = [number]

    def step(what: str) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Crash(what)

    return step


def definition() -> TableDefinition:
    return live_tables(timeframes=[Timeframe.M1], groups=GROUPS)[0]


def writer(table: Path, files: TableFiles | None = None) -> LocalWriter:
    return LocalWriter(table, definition(), files or TableFiles(), max_rows=1_000, max_bytes=1 << 20)


def rows(first: int, end: int) -> pa.Table:
    """Candles of minutes [first, end), every column filled."""
    index = np.arange(first, end)
    made = {
        pa.string(): pa.array(["text"] * len(index)),
        pa.bool_(): pa.array([False] * len(index)),
        pa.int64(): pa.array(index),
        pa.float64(): pa.array(index + 0.5),
        TIMESTAMP: pa.array(START_US + index * Timeframe.M1.us).cast(TIMESTAMP),
    }
    schema = wire_schema(definition().schema)
    return pa.Table.from_arrays([made[field.type] for field in schema], schema=schema)


def write(table: Path, first: int, end: int, files: TableFiles | None = None) -> None:
    asyncio.run(writer(table, files).write(Assignment(first, end, STREAM, first), rows(first, end), range(first, end)))


def numbers(table: Path) -> list[float]:
    return sorted(read_table(table, ["open"])["open"].to_pylist())


def expected(count: int) -> list[float]:
    return [index + 0.5 for index in range(count)]


def look_after(table: Path, files: TableFiles | None = None, **options: int) -> Upkeep:
    upkeep = Upkeep(files or TableFiles(), **{"merged_at": 3, **options})
    upkeep.run(table, ttl_days=30, now_us=START_US + 3 * DAY_US, stop=Event())
    return upkeep


def test_a_batch_written_again_is_the_same_file(tmp_path: Path) -> None:
    write(tmp_path, 0, 5)
    (path,) = table_files(tmp_path)
    content = path.read_bytes()
    with pytest.raises(AlreadyWritten):
        write(tmp_path, 0, 5)
    path.unlink()
    write(tmp_path, 0, 5)
    assert path.read_bytes() == content and numbers(tmp_path) == expected(5)


def test_a_crash_at_any_step_of_writing_leaves_all_rows_of_a_batch_or_none(tmp_path: Path) -> None:
    outcomes = set()
    for number in range(20):
        table = tmp_path / f"{number}"
        write(table, 0, 5)
        try:
            write(table, 5, 9, TableFiles(crash_at(number)))
        except Crash:
            outcomes.add(len(numbers(table)))
            assert numbers(table) in (expected(5), expected(9))
            try:
                write(table, 5, 9)
            except AlreadyWritten:
                assert len(numbers(table)) == 9
        else:
            break
        finally:
            assert numbers(table) == expected(9)
    assert outcomes == {5, 9} and 4 <= number < 19


def test_a_crash_at_any_step_of_merging_changes_nothing_that_is_read(tmp_path: Path) -> None:
    """And the next time it is finished, and what was left over is gone."""
    number = 0
    while True:
        table = tmp_path / f"{number}"
        for first in range(0, 12, 3):
            write(table, first, first + 3)
        try:
            look_after(table, TableFiles(crash_at(number)))
        except Crash:
            assert numbers(table) == expected(12)
            # A batch may be written again by a service that did not hear that it was.
            with pytest.raises(AlreadyWritten):
                write(table, 6, 9)
            write(table, 12, 15)
            look_after(table)
            assert numbers(table) == expected(15)
            assert len(table_files(table)) <= 3 and not list(table.glob("*/.*.tmp"))
            number += 1
        else:
            break
    assert number >= 8
    assert [path.name for path in readable_files(table)] == [f"{STREAM}-000000000000-000000000012.merged.parquet"]


def test_a_crash_at_any_step_of_deleting_old_partitions_is_made_good(tmp_path: Path) -> None:
    number = 0
    while True:
        table = tmp_path / f"{number}"
        for day in (0, 1, 40):
            write(table, day * MINUTES_A_DAY, day * MINUTES_A_DAY + 2)
            write(table, day * MINUTES_A_DAY + 2, day * MINUTES_A_DAY + 4)
        upkeep = Upkeep(TableFiles(crash_at(number)))
        try:
            upkeep.run(table, ttl_days=30, now_us=START_US + 41 * DAY_US, stop=Event())
        except Crash:
            upkeep = Upkeep(TableFiles())
            upkeep.run(table, ttl_days=30, now_us=START_US + 41 * DAY_US, stop=Event())
            assert numbers(table) == [40 * MINUTES_A_DAY + index + 0.5 for index in range(4)]
            number += 1
        else:
            break
    assert number >= 6
    assert (upkeep.counters.expired_partitions, upkeep.counters.expired_rows) == (2, 8)


def test_age_counts_from_the_newest_partition(tmp_path: Path) -> None:
    """A replay of days long past is not deleted while it is written, whatever the clock says."""
    write(tmp_path, 0, 2)
    write(tmp_path, MINUTES_A_DAY, MINUTES_A_DAY + 2)
    upkeep = Upkeep(TableFiles())
    upkeep.run(tmp_path, ttl_days=30, now_us=START_US + 900 * DAY_US, stop=Event())
    assert len(numbers(tmp_path)) == 4 and not upkeep.counters.expired_rows


def test_a_day_that_is_over_becomes_one_file_and_a_day_that_grows_becomes_few(tmp_path: Path) -> None:
    for first in [*range(0, 8, 2), *range(MINUTES_A_DAY, MINUTES_A_DAY + 4, 2)]:
        write(tmp_path, first, first + 2)
    look_after(tmp_path)
    found = sorted(path.name for path in table_files(tmp_path))
    assert [name.partition("-")[2] for name in found] == [
        "000000000000-000000000008.merged.parquet",
        "000000001440-000000001442.parquet",
        "000000001442-000000001444.parquet",
    ]
    write(tmp_path, MINUTES_A_DAY + 4, MINUTES_A_DAY + 6)
    look_after(tmp_path)
    assert len(table_files(tmp_path)) == 2
    # What was merged before is not merged with what came after it, as long as the day goes on.
    for first in range(MINUTES_A_DAY + 6, MINUTES_A_DAY + 12, 2):
        write(tmp_path, first, first + 2)
    look_after(tmp_path)
    assert len(table_files(tmp_path)) == 3 and len(numbers(tmp_path)) == 20


def test_files_between_which_rows_are_elsewhere_are_not_merged(tmp_path: Path) -> None:
    """Rows of another day stand between them in their stream: a merged range would seem to have those too."""
    write(tmp_path, 0, 2)
    asyncio.run(writer(tmp_path).write(Assignment(2, 4, STREAM, 2), rows(MINUTES_A_DAY, MINUTES_A_DAY + 2), range(2)))
    asyncio.run(writer(tmp_path).write(Assignment(4, 6, STREAM, 4), rows(4, 6), range(2)))
    look_after(tmp_path, merged_at=2)
    assert len(table_files(tmp_path)) == 3 and len(numbers(tmp_path)) == 6


def test_merged_files_are_bounded(tmp_path: Path) -> None:
    for first in range(0, 12, 2):
        write(tmp_path, first, first + 2)
    size = next(iter(table_files(tmp_path))).stat().st_size
    look_after(tmp_path, merged_bytes=3 * size + size // 2)
    found = [parse_file_name(path.name) for path in readable_files(tmp_path)]
    assert [each.rows for each in found if each is not None] == [6, 6]


def test_another_version_with_more_columns_is_merged_by_name(tmp_path: Path) -> None:
    write(tmp_path, 0, 2)
    fields = wire_schema(definition().schema).append(pa.field("added", pa.float64()))
    wider = rows(2, 4).append_column(fields.field("added"), pa.array([1.0, 2.0]))
    found = parse_file_name(f"{STREAM}-000000000002-000000000004.parquet")
    (first,) = table_files(tmp_path)
    TableFiles().write(first.with_name(str(found)), fields, [wider])
    look_after(tmp_path, merged_at=2)
    assert len(readable_files(tmp_path)) == 1
    assert read_table(tmp_path)["added"].to_pylist() == [None, None, 1.0, 2.0]


def test_of_two_services_one_looks_after_a_table(tmp_path: Path) -> None:
    for first in range(0, 12, 2):
        write(tmp_path, first, first + 2)
    held = lock_file(tmp_path / ".upkeep")
    assert look_after(tmp_path).counters.merged_files == 0
    os.close(held)
    assert look_after(tmp_path).counters.merged_files == 6


def test_merging_that_is_told_to_stop_stops_and_is_done_later(tmp_path: Path) -> None:
    for first in range(0, 12, 2):
        write(tmp_path, first, first + 2)
    stop = Event()
    upkeep = Upkeep(TableFiles(lambda what: stop.set() if what == "write" else None), merged_at=3)
    upkeep.run(tmp_path, ttl_days=30, now_us=START_US, stop=stop)
    assert upkeep.counters.merged_files == 0 and numbers(tmp_path) == expected(12)
    look_after(tmp_path)
    assert len(readable_files(tmp_path)) == 1 and not list(tmp_path.glob("*/.*.tmp"))


@pytest.mark.parametrize("failing", ["make directory", "write", "sync", "rename", "sync directory"])
def test_a_disk_that_fails_is_tried_again(tmp_path: Path, failing: str) -> None:
    """The batch has the place it had; nothing is left over."""
    trouble = [OSError(errno.ENOSPC, "No space left on device")]

    def step(what: str) -> None:
        if what == failing and trouble:
            raise trouble.pop()

    files = TableFiles(step)
    with pytest.raises(SinkBusy, match="No space left"):
        write(tmp_path, 0, 5, files)
    try:
        write(tmp_path, 0, 5, files)
    except AlreadyWritten:
        assert failing == "sync directory"
    assert numbers(tmp_path) == expected(5) and not list(tmp_path.glob("*/.*.tmp"))

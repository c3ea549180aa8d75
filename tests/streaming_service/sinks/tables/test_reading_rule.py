"""Whatever has been merged, written again and deleted so far: the files that are read have every row once."""

from __future__ import annotations

import logging
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_data_tick_handler.errors import CorruptObject, NotFound
from market_data_tick_handler.storage import local_tables
from market_data_tick_handler.storage.local_tables import (
    FileRange,
    files_to_read,
    parse_file_name,
    partition_day,
    read_table,
    readable_files,
    stored_tables,
    table_files,
)

DAY = "day=2024-01-01"


def put(table: Path, stream: str, first: int, end: int, *, merged: bool = False, day: str = DAY) -> Path:
    path = table / day / str(FileRange(stream, first, end, merged))
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"n": list(range(first, end))}), path)
    return path


def test_names_say_their_range_both_ways() -> None:
    for found in (FileRange("3f", 0, 7), FileRange("3f", 10**13, 10**13 + 1, merged=True)):
        assert parse_file_name(str(found)) == found
    assert str(FileRange("ab12", 5, 60)) == "ab12-000000000005-000000000060.parquet"
    for name in ("x.parquet", "ab-000000000005-000000000005.parquet", ".ab-000000000005-000000000006.parquet.tmp"):
        assert parse_file_name(name) is None


def test_partitions_are_days_or_months() -> None:
    assert str(partition_day("day=2024-02-29")) == "2024-02-29" and str(partition_day("month=2024-02")) == "2024-02-01"
    assert [partition_day(name) for name in ("day=2023-02-29", "hour=2024-01-01", "2024-01-01")] == [None] * 3


@given(st.data())
def test_every_row_is_read_once_whatever_was_merged_and_written_again(data: st.DataObject) -> None:
    """Merges happen on top of merges; of what was merged, any part may be there still, or again."""
    cuts = sorted(data.draw(st.sets(st.integers(1, 60), min_size=1, max_size=12)))
    whole = [FileRange("s", first, end) for first, end in zip([0, *cuts], [*cuts, 61], strict=True)]
    gone: list[FileRange] = []
    for _ in range(data.draw(st.integers(0, 4))):
        start = data.draw(st.integers(0, len(whole) - 1))
        stop = data.draw(st.integers(start + 1, len(whole)))
        gone += whole[start:stop]
        whole[start:stop] = [FileRange("s", whole[start].first, whole[stop - 1].end, merged=True)]
    there = whole + [each for each in gone if data.draw(st.booleans())]
    other = [FileRange("t", 0, 10)]
    files = {Path(f"{number}") / str(each): each for number, each in enumerate(there + other)}
    read = [files[path] for path in files_to_read(files)]
    rows = [(each.stream, row) for each in read for row in range(each.first, each.end)]
    assert rows == [("s", row) for row in range(61)] + [("t", row) for row in range(10)]


def test_files_that_share_some_rows_are_an_error_that_names_them(tmp_path: Path) -> None:
    put(tmp_path, "s", 0, 10)
    bad = put(tmp_path, "s", 5, 15)
    with pytest.raises(CorruptObject, match=f"{bad.name}.*s-000000000000-000000000010"):
        readable_files(tmp_path)


def test_foreign_files_are_left_out_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path, "s", 0, 10)
    (tmp_path / DAY / "notes.txt").write_text("mine")
    (tmp_path / DAY / ".s-000000000010-000000000020.parquet.tmp").write_text("half")
    (tmp_path / "lost+found").mkdir()
    with caplog.at_level(logging.WARNING):
        assert read_table(tmp_path).num_rows == 10
    assert {record.__dict__["file"] for record in caplog.records} == {str(tmp_path / DAY / "notes.txt")}


def test_a_file_that_is_no_parquet_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = put(tmp_path, "s", 0, 10)
    path.write_bytes(b"PAR1 but not to its end")
    with pytest.raises(CorruptObject, match=str(path)):
        read_table(tmp_path)


def test_columns_of_other_versions_are_null(tmp_path: Path) -> None:
    put(tmp_path, "s", 0, 2)
    pq.write_table(pa.table({"n": [2], "added": [1.5]}), tmp_path / DAY / str(FileRange("s", 2, 3)))
    assert read_table(tmp_path).to_pydict() == {"n": [0, 1, 2], "added": [None, None, 1.5]}
    assert read_table(tmp_path, ["added"]).column_names == ["added"]


def test_no_files_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="run a service"):
        read_table(tmp_path / "none")
    assert stored_tables(tmp_path) == {}


def test_a_file_that_is_merged_while_one_reads_is_read_from_the_merged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files of the first listing are gone when they are opened: the table is listed again."""
    small = [put(tmp_path, "s", 0, 5), put(tmp_path, "s", 5, 9)]
    listed = [small]

    def listing(table: Path) -> list[Path]:
        if listed:
            put(tmp_path, "s", 0, 9, merged=True)
            for path in small:
                path.unlink()
            return listed.pop()
        return readable_files(table)

    monkeypatch.setattr(local_tables, "readable_files", listing)
    assert read_table(tmp_path)["n"].to_pylist() == list(range(9))


def test_a_listing_that_misses_both_the_merged_file_and_its_parts_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Directories that change while they are read may do that: a second listing tells."""
    put(tmp_path, "s", 9, 12)
    before = table_files(tmp_path)
    put(tmp_path, "s", 0, 9, merged=True)
    listings = [before]
    monkeypatch.setattr(local_tables, "table_files", lambda table: listings.pop() if listings else table_files(table))
    assert read_table(tmp_path)["n"].to_pylist() == list(range(12))

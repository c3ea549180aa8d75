"""Tables as Parquet files on local disk: how files are named, and which of them are read.

Theory of operation. `{store}/tables/{dataset}/{table}/{partition}/{stream}-{first}-{end}.parquet` has rows [first, end)
of a stream, a stream being what one service wrote into one table: a batch written again is the same file. Files that
are adjacent in a stream are merged now and then: the merged file `{stream}-{first}-{end}.merged.parquet` takes its
place first, then the others are deleted. So there are moments, and after a crash hours, when rows are in two files; the
reading rule leaves out every file whose range lies within that of another one of its stream.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from market_data_tick_handler.errors import CorruptObject, NotFound

log = logging.getLogger(__name__)

TABLES: Final = "tables"
_FILE: Final = re.compile(
    r"(?P<stream>[A-Za-z0-9_]+)-(?P<first>\d{12,})-(?P<end>\d{12,})(?P<merged>\.merged)?\.parquet"
)
_PARTITION: Final = re.compile(r"(?:day=(\d{4}-\d{2}-\d{2})|month=(\d{4}-\d{2}))")
_NAME: Final = re.compile(r"\w+")
# Merging goes on while somebody looks; it does not go on as fast as somebody looks.
TRIES: Final = 20


@dataclass(frozen=True, slots=True, order=True)
class FileRange:
    """What a file name says: rows [first, end) of a stream, and whether it was made of others."""

    stream: str
    first: int
    end: int
    merged: bool = False

    def __str__(self) -> str:
        return f"{self.stream}-{self.first:012d}-{self.end:012d}{'.merged' if self.merged else ''}.parquet"

    @property
    def rows(self) -> int:
        """Rows of the file."""
        return self.end - self.first

    def contains(self, other: FileRange) -> bool:
        """Whether every row of `other` is in this file too."""
        return self.stream == other.stream and self.first <= other.first and other.end <= self.end


def parse_file_name(name: str) -> FileRange | None:
    """The range of a file; None: it is no file of a table."""
    match = _FILE.fullmatch(name)
    if match is None or int(match["first"]) >= int(match["end"]):
        return None
    return FileRange(match["stream"], int(match["first"]), int(match["end"]), match["merged"] is not None)


def partition_day(name: str) -> date | None:
    """First day of a partition `day=YYYY-MM-DD` or `month=YYYY-MM`; None: it is none."""
    match = _PARTITION.fullmatch(name)
    if match is None:
        return None
    try:
        return date.fromisoformat(match[1] or f"{match[2]}-01")
    except ValueError:
        return None


def files_to_read(files: Mapping[Path, FileRange]) -> list[Path]:
    """The reading rule: files that together have every row once, by stream and row.

    Raises:
        CorruptObject: two files share some of their rows, which no service writes.
    """
    kept: list[Path] = []
    last: FileRange | None = None
    # Of files that begin with the same row the longest comes first, and of equal ones the merged one.
    for path, found in sorted(files.items(), key=lambda item: (item[1].stream, item[1].first, -item[1].end)):
        if last is None or last.stream != found.stream or found.first >= last.end:
            kept.append(path)
            last = found
        elif not last.contains(found):
            raise CorruptObject(
                f"{path}: expected rows that no other file has, but {kept[-1].name} has some of them; move one away"
            )
    return kept


def table_files(table: Path) -> dict[Path, FileRange]:
    """Every file of a table, whether read or not. Hidden ones are not whole yet; others that are none of ours are
    named in the log and left alone."""
    found: dict[Path, FileRange] = {}
    for path in sorted(table.glob("*/*")):
        if path.name.startswith(".") or partition_day(path.parent.name) is None:
            continue
        parsed = parse_file_name(path.name)
        if parsed is None:
            log.warning("no file of a table, not read", extra={"file": str(path)})
        else:
            found[path] = parsed
    return found


def readable_files(table: Path) -> list[Path]:
    """What to read of a table at this moment; each file may be merged and deleted right after.

    Raises:
        CorruptObject: as `files_to_read`.
    """
    seen: set[Path] = set()
    for _ in range(TRIES):
        files = table_files(table)
        # A directory that changes while it is listed may show neither the merged file nor those it was made of. Then
        # the next listing shows the merged one; files of an earlier listing that are gone say that it happened again.
        if seen and seen <= files.keys():
            return files_to_read(files)
        if not files:
            return []
        seen = set(files)
    raise CorruptObject(f"{table}: its files change faster than they can be listed; is it a directory of ours?")


def read_table(table: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a table, columns united by name; a column that a file lacks is null there.

    Raises:
        NotFound: there are no rows. CorruptObject: a file cannot be read, or as `files_to_read`.
    """
    for _ in range(TRIES):
        files = readable_files(table)
        if not files:
            raise NotFound(f"{table}: expected files of a table, found none; run a service with persist.tables first")
        try:
            return pa.concat_tables([_read_file(path, columns) for path in files], promote_options="default")
        except FileNotFoundError:
            continue
    raise CorruptObject(f"{table}: its files vanish faster than they can be read; is it a directory of ours?")


def _read_file(path: Path, columns: Sequence[str] | None) -> pa.Table:
    try:
        with pq.ParquetFile(path) as file:
            there = set(file.schema_arrow.names)
            return file.read(columns=None if columns is None else [name for name in columns if name in there])
    except pa.ArrowInvalid as error:
        raise CorruptObject(f"{path}: expected a whole Parquet file, got: {error}; move it away") from error


def stored_tables(store_root: Path) -> dict[str, list[Path]]:
    """Directories of the tables in a store, by dataset."""
    found: dict[str, list[Path]] = {}
    for dataset in _directories([store_root / TABLES]):
        tables = _directories([dataset])
        if tables:
            found[dataset.name] = tables
    return found


def _directories(roots: Iterable[Path]) -> list[Path]:
    found = (path for root in roots if root.is_dir() for path in root.iterdir())
    return sorted(path for path in found if path.is_dir() and _NAME.fullmatch(path.name))

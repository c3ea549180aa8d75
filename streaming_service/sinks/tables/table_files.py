"""The steps by which files of tables come and go: each lasts once it has returned, whatever happens after."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from market_data_tick_handler.storage.recovery.segment_files import sync_directory

# Those that queries choose rows by; for three hundred columns they would be most of a small file.
_STATISTICS: Final = ("timestamp", "timestamp_out", "instrument_id", "exchange", "symbol", "revision")


class TableFiles:
    """Writes, replaces and deletes. `step` is told before each change of the disk, for tests that crash there.

    Raises (all methods): OSError: the disk.
    """

    def __init__(self, step: Callable[[str], None] = lambda what: None) -> None:
        self._step = step

    def write(self, path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
        """Make `path` the file with these rows, whole or not at all. What an earlier try left is overwritten."""
        self._make_directory(path.parent)
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            self._step("write")
            with table_writer(temporary, schema) as writer:
                for table in tables:
                    writer.write_table(table)
                    self._step("write more")
            self._step("sync")
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            self._step("rename")
            temporary.replace(path)
        except OSError:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        self.keep_name(path)

    def keep_name(self, path: Path) -> None:
        """Make the name of a file, which is there, outlive the machine."""
        self._step("sync directory")
        sync_directory(path.parent)

    def delete(self, paths: Iterable[Path]) -> None:
        """Delete files; somebody else may have."""
        for path in paths:
            self._step("delete")
            path.unlink(missing_ok=True)

    def delete_directory(self, path: Path) -> None:
        """Delete a directory and the files in it."""
        self.delete(sorted(path.iterdir()))
        self._step("delete directory")
        path.rmdir()

    def _make_directory(self, path: Path) -> None:
        if path.is_dir():
            return
        self._make_directory(path.parent)
        self._step("make directory")
        path.mkdir(exist_ok=True)
        sync_directory(path.parent)


def unfinished_merges(directory: Path) -> list[Path]:
    """Files that a crash left in the middle of merging."""
    return sorted(directory.glob(".*.merged.parquet.tmp"))


def table_writer(target: Path | BinaryIO, schema: pa.Schema) -> pq.ParquetWriter:
    """A writer of small files with many columns: without the Arrow schema, which says nothing that Parquet does not,
    and with dictionaries only for text, they take a third."""
    text = [field.name for field in schema if field.type in (pa.string(), pa.bool_())]
    return pq.ParquetWriter(
        target,
        schema,
        compression="zstd",
        use_dictionary=text,
        write_statistics=[name for name in _STATISTICS if name in schema.names],
        store_schema=False,
    )

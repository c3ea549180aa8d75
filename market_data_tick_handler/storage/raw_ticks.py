"""Raw day files: ticks as stored, cut by the UTC day of local_timestamp, in arrival order.

Integers are delta-packed and floats byte-split under LZ4: 14 bytes per trade, and a single thread decodes them three
times as fast as plain LZ4 pages and faster than the folds consume them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from market_data_tick_handler.core.schemas import tick_schema
from market_data_tick_handler.core.ticks import LAYOUTS, DataType, TickBatch, concat
from market_data_tick_handler.core.timeframes import DAY_US
from market_data_tick_handler.errors import CorruptObject
from market_data_tick_handler.storage.local_files import commit, local_root, require, temporary_path
from market_data_tick_handler.storage.paths import day_of, raw_ticks_path
from market_data_tick_handler.storage.tick_tables import file_names, needs_id_texts, to_batch, to_table

ROW_GROUP_ROWS: Final = 131_072
# A live feed writes a few rows at a time, and a batch object weighs as much as a hundred rows.
_MAX_SMALL_BATCHES: Final = 256
_SMALL_BATCH_ROWS: Final = 128
_KEY: Final = b"instrument_key"
_TYPE: Final = b"data_type"


def read_raw_ticks(
    store_root: str | Path,
    day: date,
    data_type: DataType,
    instrument_key: str,
    *,
    columns: Collection[str] | None = None,
    with_ids: bool = True,
    batch_rows: int = ROW_GROUP_ROWS,
) -> Iterator[TickBatch]:
    """Batches of one day file in file order; memory holds one row group at a time.

    columns: only these are decoded, the others hold their missing value; None is all. Times are always decoded.
    with_ids: False leaves `id` out.

    Raises:
        NotFound: no such day file. CorruptObject, SchemaMismatch: it cannot be read, or lacks columns.
    """
    path = require(local_root(store_root) / raw_ticks_path(day, data_type, instrument_key), f"{data_type} day file")
    return read_tick_file(path, data_type, columns=columns, with_ids=with_ids, batch_rows=batch_rows)


def read_tick_file(
    path: Path,
    data_type: DataType,
    *,
    columns: Collection[str] | None = None,
    with_ids: bool = True,
    batch_rows: int = ROW_GROUP_ROWS,
) -> Iterator[TickBatch]:
    """Batches of a Parquet file of ticks, wherever it lies and whoever wrote it. As read_raw_ticks."""
    wanted = set(columns) if columns is not None else {spec.name for spec in LAYOUTS[data_type]}
    wanted |= {"timestamp", "local_timestamp"}
    if not with_ids:
        wanted.discard("id")
    try:
        with pq.ParquetFile(path, memory_map=True, pre_buffer=False) as file:
            present = file.schema_arrow.names
            names = file_names(data_type, present, str(path))
            selected = [source for ours, source in names.items() if ours in wanted]
            if data_type is DataType.OPTIONS:
                selected += [name for name in ("symbol", "symbol_hash") if name in present]
            for part in file.iter_batches(batch_rows, columns=selected, use_threads=False):
                yield to_batch(data_type, part, names, wanted)
    except (pa.ArrowInvalid, OSError) as error:
        raise CorruptObject(
            f"{path}: expected a whole Parquet file, got: {error}; write or download it again"
        ) from error


def tick_file_rows(path: Path) -> int:
    """Number of rows of a Parquet file, from its footer."""
    return int(pq.read_metadata(path).num_rows)


def tick_file_identity(path: Path) -> tuple[str, DataType] | None:
    """(instrument key, data type) that the file's metadata names; None where it names none."""
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (pa.ArrowInvalid, OSError) as error:
        raise CorruptObject(
            f"{path}: expected a whole Parquet file, got: {error}; write or download it again"
        ) from error
    if _KEY not in metadata or _TYPE not in metadata:
        return None
    return metadata[_KEY].decode(), DataType(metadata[_TYPE].decode())


def encoding_of(schema: pa.Schema) -> dict[str, Any]:
    """Parquet options under which `schema` decodes fastest (measured, see the module)."""
    packed = {f.name: "DELTA_BINARY_PACKED" for f in schema if f.type == pa.int64() and f.name != "symbol_hash"}
    split = {f.name: "BYTE_STREAM_SPLIT" for f in schema if pa.types.is_floating(f.type)}
    repeated = [f.name for f in schema if f.name in ("side", "option_type", "symbol", "symbol_hash")]
    return {"compression": "lz4", "use_dictionary": repeated or False, "column_encoding": {**packed, **split}}


@dataclass(slots=True)
class _DayFile:
    """One day file being written: buffered batches, and the temporary file that holds the row groups before them."""

    path: Path
    instrument_key: str
    data_type: DataType
    integer_ids: bool = True
    rows: int = 0
    buffered: list[TickBatch] = field(default_factory=list)
    buffered_rows: int = 0
    small_batches: int = 0
    writer: pq.ParquetWriter | None = None

    @property
    def temporary(self) -> Path:
        return temporary_path(self.path)

    def add(self, batch: TickBatch, row_group_rows: int) -> None:
        if self.integer_ids and needs_id_texts(batch):
            self._turn_to_texts()
        self.buffered.append(batch)
        self.buffered_rows += len(batch)
        self.rows += len(batch)
        if self.buffered_rows >= row_group_rows:
            self.flush(row_group_rows)
        else:
            self._compact(batch)

    def flush(self, row_group_rows: int) -> None:
        if not self.buffered:
            return
        table = to_table(concat(self.buffered), self._schema())
        self.buffered.clear()
        self.buffered_rows = self.small_batches = 0
        self._open().write_table(table, row_group_size=row_group_rows)

    def close(self, row_group_rows: int) -> None:
        self.flush(row_group_rows)
        if self.writer is not None:
            self.writer.close()
            commit(self.temporary, self.path)

    def abandon(self) -> None:
        if self.writer is not None:
            self.writer.close()
        self.temporary.unlink(missing_ok=True)

    def _schema(self) -> pa.Schema:
        schema = tick_schema(self.data_type, self.integer_ids)
        names = {_KEY: self.instrument_key.encode(), _TYPE: str(self.data_type).encode()}
        return schema.with_metadata({**(schema.metadata or {}), **names})

    def _open(self) -> pq.ParquetWriter:
        if self.writer is None:
            schema = self._schema()
            self.writer = pq.ParquetWriter(self.temporary, schema, **encoding_of(schema))
        return self.writer

    def _compact(self, batch: TickBatch) -> None:
        """Put the small batches at the end together once they are many."""
        self.small_batches = self.small_batches + 1 if len(batch) < _SMALL_BATCH_ROWS else 0
        if self.small_batches == _MAX_SMALL_BATCHES:
            self.buffered[-_MAX_SMALL_BATCHES:] = [concat(self.buffered[-_MAX_SMALL_BATCHES:])]
            self.small_batches = 0

    def _turn_to_texts(self) -> None:
        """Write the row groups that have integer ids again with texts, one at a time."""
        self.integer_ids = False
        if self.writer is None:
            return
        self.writer.close()
        self.writer = None
        before = self.temporary.with_suffix(".ids")
        self.temporary.rename(before)
        for batch in read_tick_file(before, self.data_type):
            self._open().write_table(to_table(batch, self._schema()))
        before.unlink()


class RawTickWriter:
    """Writes day files under a local store root; each takes its place when its day or the writer is closed.

    existing: `replace` a day file that is there, or `append` to it (its rows come first).
    A day file of an instrument is closed as soon as a row of a later day comes; rows that still come for it
    are appended.
    """

    def __init__(
        self,
        store_root: str | Path,
        *,
        existing: Literal["replace", "append"] = "replace",
        row_group_rows: int = ROW_GROUP_ROWS,
    ) -> None:
        self._root = local_root(store_root)
        self._append = existing == "append"
        self._row_group_rows = row_group_rows
        self._open: dict[Path, _DayFile] = {}
        self._written: dict[Path, int] = {}

    def write(self, instrument_key: str, batch: TickBatch) -> None:
        """Rows of one instrument, in arrival order."""
        for day, part in _by_day(batch):
            path = self._root / raw_ticks_path(day_of(day * DAY_US), batch.data_type, instrument_key)
            self._file(path, instrument_key, batch.data_type).add(part, self._row_group_rows)

    def close(self) -> None:
        """Put every day file in its place."""
        for path in list(self._open):
            self._close(path)

    def abandon(self) -> None:
        """Drop what is not in its place yet; files that were there before stay as they were."""
        for file in self._open.values():
            file.abandon()
        self._open.clear()

    @property
    def files(self) -> dict[Path, int]:
        """Rows of every day file that this writer has put in its place."""
        return dict(self._written)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    def _file(self, path: Path, instrument_key: str, data_type: DataType) -> _DayFile:
        if path in self._open:
            return self._open[path]
        for other in [
            other for other in self._open if other.name == path.name and other.parent.name == path.parent.name
        ]:
            if other < path:
                self._close(other)
        file = self._open[path] = _DayFile(path, instrument_key, data_type)
        if path.is_file() and (self._append or path in self._written):
            for batch in read_tick_file(path, data_type):
                file.add(batch, self._row_group_rows)
        return file

    def _close(self, path: Path) -> None:
        file = self._open.pop(path)
        file.close(self._row_group_rows)
        self._written[path] = file.rows


def _by_day(batch: TickBatch) -> Iterator[tuple[int, TickBatch]]:
    """(days since 1970, rows of that day), rows in their order."""
    if not len(batch):
        return
    days = batch["local_timestamp"] // DAY_US
    if days[0] == days[-1] and (days == days[0]).all():
        yield int(days[0]), batch
        return
    for day in np.unique(days).tolist():
        yield day, batch.take(days == day)

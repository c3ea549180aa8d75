"""Candle day files: one row per candle, the highest revision of each, rewritten whole whenever candles are added."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.instruments import InstrumentType
from market_data_tick_handler.core.parity import Kind, compare
from market_data_tick_handler.core.schemas import CONFIG_HASH, candles_to_arrow
from market_data_tick_handler.core.ticks import Array
from market_data_tick_handler.core.timeframes import DAY_US, Timeframe
from market_data_tick_handler.errors import CorruptObject, NotFound
from market_data_tick_handler.storage.local_files import local_root, replacing
from market_data_tick_handler.storage.paths import CANDLES, CHAIN_CANDLES, candles_path, day_of, days_between

# A file is rewritten at most this often while its candles come in one by one.
REWRITE_INTERVAL_US: Final = 5_000_000
_COPIED_ROWS: Final = 1_024


class CandleWriter:
    """Collects candles per day file and rewrites the files on `flush`; content that is there stays unless revised.

    Before `flush` candles are in memory only; `pending_rows` says how many.
    """

    def __init__(self, store_root: str | Path, *, rewrite_interval_us: int = REWRITE_INTERVAL_US) -> None:
        self._root = local_root(store_root)
        self._rewrite_interval_us = rewrite_interval_us
        self._pending: dict[Path, list[pa.Table]] = {}
        self._rewritten_us: dict[Path, int] = {}
        self._written_rows: dict[Path, int] = {}

    @property
    def pending_rows(self) -> int:
        """Candles that are not in a file yet."""
        return sum(table.num_rows for tables in self._pending.values() for table in tables)

    @property
    def files(self) -> dict[Path, int]:
        """Rows of every file as last written."""
        return dict(self._written_rows)

    def write(self, batch: CandleBatch) -> None:
        """Take in candles of one instrument and timeframe; a candle that is known already is replaced if not older."""
        if not len(batch):
            return
        table = candles_to_arrow(batch)
        name = CHAIN_CANDLES if batch.instrument.instrument_type is InstrumentType.OPTION_CHAIN else CANDLES
        days = batch["timestamp"].astype(np.int64, copy=False) // DAY_US
        for day in np.unique(days).tolist():
            part = table if days[0] == days[-1] else table.filter(pa.array(days == day))
            path = candles_path(day_of(day * DAY_US), batch.timeframe, batch.instrument.key, table=name)
            self._pending.setdefault(self._root / path, []).append(part)

    def flush(self, now_us: int | None = None) -> int:
        """Rewrite the files that have new candles and return how many.

        now_us: with a time, files that were rewritten less than the interval ago wait for a later flush.
        """
        due = [path for path in self._pending if now_us is None or self._is_due(path, now_us)]
        for path in due:
            self._rewrite(path)
            if now_us is not None:
                self._rewritten_us[path] = now_us
        return len(due)

    def close(self) -> None:
        """Write everything."""
        self.flush()

    def _is_due(self, path: Path, now_us: int) -> bool:
        last_us = self._rewritten_us.get(path)
        return last_us is None or now_us - last_us >= self._rewrite_interval_us

    def _rewrite(self, path: Path) -> None:
        new = newest_revisions(self._pending[path])
        with replacing(path) as temporary:
            self._written_rows[path] = _write_after(path, new, temporary)
        del self._pending[path]


def _write_after(path: Path, new: pa.Table, target: Path) -> int:
    """Write the rows of `path`, if there is such a file, and `new` to `target`; return the number of rows.

    What lies before the first new candle is copied a piece at a time, so that rewriting a file in the evening takes
    no more memory than in the morning.
    """
    if not path.is_file():
        pq.write_table(new, target, compression="zstd")
        return int(new.num_rows)
    first_us = int(_times(new)[0])
    written, held = 0, []
    try:
        with pq.ParquetFile(path) as file:
            new = _with_hashes_of(file.schema_arrow, new)
            if not file.schema_arrow.equals(new.schema):
                merged = newest_revisions([file.read(), new])
                pq.write_table(merged, target, compression="zstd")
                return int(merged.num_rows)
            with pq.ParquetWriter(target, new.schema, compression="zstd") as writer:
                for part in file.iter_batches(_COPIED_ROWS, use_threads=False):
                    held.append(pa.Table.from_batches([part]))
                    together = pa.concat_tables(held)
                    # Whole pieces only: row groups must not get smaller with every rewrite.
                    if together.num_rows > _COPIED_ROWS and _times(together)[_COPIED_ROWS] < first_us:
                        writer.write_table(together.slice(0, _COPIED_ROWS))
                        written += _COPIED_ROWS
                        held = [together.slice(_COPIED_ROWS)]
                tail = newest_revisions([*held, new])
                writer.write_table(tail)
                return written + int(tail.num_rows)
    except (pa.ArrowInvalid, OSError) as error:
        raise _corrupt(path, error) from error


def _with_hashes_of(old: pa.Schema, new: pa.Table) -> pa.Table:
    """A file that several runs wrote to names the settings of all of them."""
    before, own = (schema.metadata or {} for schema in (old, new.schema))
    hashes = [text for held in (before, own) for text in held.get(CONFIG_HASH, b"").split(b",") if text]
    if not hashes:
        return new
    return new.replace_schema_metadata({**own, CONFIG_HASH: b",".join(dict.fromkeys(hashes))})


def newest_revisions(tables: list[pa.Table]) -> pa.Table:
    """One row per timestamp in time order: the highest revision, and of equal ones the last given."""
    together = pa.concat_tables(tables, promote_options="default") if len(tables) > 1 else tables[0]
    times = _times(together)
    revisions = together["revision"].to_numpy().astype(np.int64)
    order = np.lexsort((np.arange(len(times)), revisions, times))
    ordered = times[order]
    last = np.append(ordered[1:] != ordered[:-1], True)
    kept = order[last]
    if len(kept) == len(times) and (kept == np.arange(len(times))).all():
        return together.combine_chunks()
    return together.take(pa.array(kept)).combine_chunks()


def replace_candles(store_root: str | Path, batch: CandleBatch, day: date, *, table: str | None = None) -> int:
    """Make `batch` the content of its day file, and return how many candles are new or changed.

    table: the one of candles by default.

    A candle that equals the stored one keeps that row; one that replaces another has its revision + 1 (features.md
    9.0); stored candles that the batch does not have go.
    """
    chain = batch.instrument.instrument_type is InstrumentType.OPTION_CHAIN
    name = table or (CHAIN_CANDLES if chain else CANDLES)
    path = local_root(store_root) / candles_path(day, batch.timeframe, batch.instrument.key, table=name)
    batch, changed = _next_revisions(path, batch)
    if changed:
        with replacing(path) as temporary:
            pq.write_table(candles_to_arrow(batch), temporary, compression="zstd")
    return changed


def _next_revisions(path: Path, batch: CandleBatch) -> tuple[CandleBatch, int]:
    if not path.is_file():
        return batch, len(batch)
    old = candle_columns(_read(path, None))
    constants = {old[name][0] == value for name, value in batch.constants.items() if name in old and len(old[name])}
    told = {name: old[name] for name in old if name not in batch.constants and name not in batch.absent}
    report = compare(told, batch.columns)
    row_of = dict(zip(old["timestamp"].tolist(), range(len(old["timestamp"])), strict=True))
    everywhere = False in constants or any(item.kind is Kind.COLUMN_MISSING for item in report.differences)
    differing = {item.timestamp for item in report.differences if item.column}
    revision, published = batch["revision"].copy(), batch["timestamp_out"].copy()
    changed = len(row_of.keys() - set(batch["timestamp"].tolist()))
    for index, timestamp in enumerate(batch["timestamp"].tolist()):
        at = row_of.get(timestamp)
        if at is None:
            changed += 1
        elif everywhere or timestamp in differing:
            changed += 1
            revision[index] = old["revision"][at] + 1
        else:
            revision[index], published[index] = old["revision"][at], old["timestamp_out"][at]
    return batch.replace(revision=revision, timestamp_out=published), changed


def candle_columns(table: pa.Table) -> dict[str, Array]:
    """Columns of a table of candles as arrays: times in us, null floats as NaN."""
    return {name: _as_array(table[name]) for name in table.column_names}


def _as_array(column: pa.ChunkedArray) -> Array:
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    if pa.types.is_string(column.type) or pa.types.is_boolean(column.type):
        return np.array(column.to_pylist())
    array: Array = column.to_numpy()
    return array


def read_candles(
    store_root: str | Path,
    instrument_key: str,
    timeframe: Timeframe,
    start_date: date,
    end_date: date,
    *,
    columns: Collection[str] | None = None,
    table: str = CANDLES,
) -> pa.Table:
    """Candles of the days from start_date to end_date, both included, in time order; days without a file are left out.

    Raises:
        NotFound: no day has a file. CorruptObject: one cannot be read.
    """
    days = days_between(start_date, end_date)
    paths = [local_root(store_root) / candles_path(day, timeframe, instrument_key, table=table) for day in days]
    found = [path for path in paths if path.is_file()]
    if not found:
        raise NotFound(
            f"{store_root}: no {timeframe} candles of {instrument_key} from {start_date} to {end_date}; "
            "expected e.g. " + (str(paths[0]) if paths else "a start date before the end date")
        )
    tables = [_read(path, columns) for path in found]
    return pa.concat_tables(tables, promote_options="default") if len(tables) > 1 else tables[0]


def _read(path: Path, columns: Collection[str] | None) -> pa.Table:
    try:
        with pq.ParquetFile(path) as file:
            return file.read(columns=list(columns) if columns is not None else None)
    except (pa.ArrowInvalid, OSError) as error:
        raise _corrupt(path, error) from error


def _corrupt(path: Path, error: Exception) -> CorruptObject:
    return CorruptObject(f"{path}: expected a whole Parquet file, got: {error}; delete it and compute the day again")


def _times(table: pa.Table) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    column = table["timestamp"].combine_chunks()
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return np.asarray(array.cast(pa.int64()))

"""The gap ledger: when which feed was not provably alive, kept per instrument in every day that a gap touches."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from market_data_tick_handler.core.events import Gap, GapEnding, GapKind
from market_data_tick_handler.core.schemas import GAP_LEDGER
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.errors import CorruptObject
from market_data_tick_handler.storage.local_files import local_root, replacing
from market_data_tick_handler.storage.paths import day_of, days_between, gap_ledger_path

_Identity = tuple[str, DataType, int, GapKind]
_RANK: Final = {GapEnding.OPEN: 0, GapEnding.LOST: 1, GapEnding.EXPLAINED: 2, GapEnding.REPAIRED: 3}
_TIME: Final = pa.timestamp("us", tz="UTC")


def write_gaps(store_root: str | Path, gaps: Iterable[Gap]) -> list[Path]:
    """Add gaps to the ledger and return the files written.

    A gap with the instrument, data type, start and kind of a stored one replaces it: it has ended or was back-filled.
    """
    return _write(local_root(store_root), gaps, keep=True)


def replace_gaps(store_root: str | Path, gaps: Iterable[Gap]) -> list[Path]:
    """Write the whole ledger of these gaps' instruments for the days that they touch: what is stored there and not
    among `gaps` goes. For whoever knows everything that happened on those days."""
    return _write(local_root(store_root), gaps, keep=False)


def _write(root: Path, gaps: Iterable[Gap], *, keep: bool) -> list[Path]:
    """A file takes the place of the one before at once: somebody may be reading."""
    paths: dict[Path, list[Gap]] = {}
    for gap in gaps:
        last = day_of(max(gap.from_us, gap.to_us - 1))
        for day in days_between(day_of(gap.from_us), last):
            paths.setdefault(root / gap_ledger_path(day, gap.instrument), []).append(gap)
    for path, own in paths.items():
        merged = _merge([*(_read(path) if keep else ()), *own])
        with replacing(path) as temporary:
            pq.write_table(_to_table(merged), temporary, compression="zstd")
    return list(paths)


def read_gaps(store_root: str | Path, instrument_key: str, from_date: date, to_date: date) -> list[Gap]:
    """Gaps that touch the days from from_date to to_date, both included, each once, in order of their start.

    No ledger means no known gap.
    """
    root = local_root(store_root)
    files = (root / gap_ledger_path(day, instrument_key) for day in days_between(from_date, to_date))
    return _merge([gap for path in files for gap in _read(path)])


def _merge(gaps: Iterable[Gap]) -> list[Gap]:
    newest: dict[_Identity, Gap] = {}
    for gap in gaps:
        identity = (gap.instrument, gap.data_type, gap.from_us, gap.kind)
        known = newest.get(identity)
        # A day file written before the gap ended does not undo what a later one knows.
        if known is None or (gap.to_us, _RANK[gap.ending]) >= (known.to_us, _RANK[known.ending]):
            newest[identity] = gap
    return sorted(newest.values(), key=lambda gap: (gap.from_us, gap.to_us, gap.data_type))


def _to_table(gaps: list[Gap]) -> pa.Table:
    columns = {
        "instrument_id": pa.array([gap.instrument for gap in gaps], pa.string()),
        "data_type": pa.array([str(gap.data_type) for gap in gaps], pa.string()),
        "from_time": pa.array([gap.from_us for gap in gaps], pa.int64()).view(_TIME),
        "to_time": pa.array([gap.to_us for gap in gaps], pa.int64()).view(_TIME),
        "kind": pa.array([str(gap.kind) for gap in gaps], pa.string()),
        "reason": pa.array([gap.reason for gap in gaps], pa.string()),
        "backfilled": pa.array([gap.backfilled for gap in gaps], pa.bool_()),
        "ending": pa.array([str(gap.ending) for gap in gaps], pa.string()),
    }
    return pa.table([columns[name] for name in GAP_LEDGER.names], schema=GAP_LEDGER)


def _read(path: Path) -> list[Gap]:
    if not path.is_file():
        return []
    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
        for name in ("from_time", "to_time"):
            table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(_TIME).cast(pa.int64()))
        rows = table.to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise CorruptObject(
            f"{path}: expected a gap ledger in Parquet, got: {error}; restore or delete the file"
        ) from error
    return [
        Gap(
            instrument=row["instrument_id"],
            data_type=DataType(row["data_type"]),
            from_us=row["from_time"],
            to_us=row["to_time"],
            reason=row["reason"],
            kind=GapKind(row["kind"]),
            ending=_ending_of(row),
        )
        for row in rows
    ]


def _ending_of(row: dict[str, Any]) -> GapEnding:
    """Ledgers of version 0.1 say only whether a gap was back-filled."""
    if "ending" in row:
        return GapEnding(row["ending"])
    return GapEnding.REPAIRED if row["backfilled"] else GapEnding.OPEN

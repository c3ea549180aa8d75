"""Tardis CSV headers and file names: which data type a file holds and which of its columns become which of ours."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final

from market_data_tick_handler.core.ticks import BOOK_LEVELS, LAYOUTS, DataType
from market_data_tick_handler.errors import SchemaMismatch

_BOOK_NAMES: Final = {
    f"{side}_{ours}_{level}": f"{side}s[{level - 1}].{theirs}"
    for level in range(1, BOOK_LEVELS + 1)
    for side in ("ask", "bid")
    for ours, theirs in (("price", "price"), ("volume", "amount"))
}
# Ours -> Tardis, where the names differ. id_kind and symbol_hash are computed.
_RENAMED: Final[Mapping[str, str]] = {**_BOOK_NAMES, "option_type": "type"}
_COMPUTED: Final = frozenset({"id_kind", "symbol_hash"})
_IDENTITY: Final = ("exchange", "symbol")
_NAME: Final = re.compile(
    r"(?P<exchange>[a-z0-9-]+?)_(?P<type>trades|liquidations|derivative_ticker|options_chain|book_snapshot_(?:5|25))"
    r"(?:_(?P<date>\d{4}-\d{2}-\d{2}))?_(?P<symbol>[^/]+?)\.csv(?:\.gz)?"
)


@dataclass(frozen=True, slots=True)
class TardisName:
    """What a file name says: `{exchange}_{data_type}_{YYYY-MM-DD}_{SYMBOL}.csv.gz`; parts it does not say are None."""

    exchange: str | None = None
    data_type: DataType | None = None
    day: date | None = None
    venue_symbol: str | None = None


def parse_name(path: Path) -> TardisName:
    """The parts of a file name in Tardis' own form; all None for any other name."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        return TardisName()
    kind = "book_snapshot_5" if match["type"].startswith("book_snapshot") else match["type"]
    day = date.fromisoformat(match["date"]) if match["date"] else None
    return TardisName(match["exchange"], DataType(kind), day, match["symbol"])


def source_columns(data_type: DataType) -> dict[str, str]:
    """Our column name -> the file's column name, for every column that is read from the file."""
    return {
        field.name: _RENAMED.get(field.name, field.name) for field in LAYOUTS[data_type] if field.name not in _COMPUTED
    }


def expected_columns(data_type: DataType) -> tuple[str, ...]:
    """Columns that a file of this type must have."""
    return (*_IDENTITY, *source_columns(data_type).values())


def recognise(header: Sequence[str], declared: DataType | None, path: Path) -> DataType:
    """Data type of a header; `declared` (by the caller or the file name) decides where headers are equal.

    Raises:
        SchemaMismatch: the header lacks columns of every type, or of the declared one.
    """
    present = frozenset(header)
    fitting = [data_type for data_type in DataType if present.issuperset(expected_columns(data_type))]
    if declared in fitting:
        return declared
    if fitting and (declared is None or DataType.LIQUIDATIONS not in fitting):
        return fitting[0]
    nearest = declared or max(DataType, key=lambda data_type: len(present.intersection(expected_columns(data_type))))
    missing = [name for name in expected_columns(nearest) if name not in present]
    raise SchemaMismatch(
        f"{path}: expected the columns of {nearest}: {','.join(expected_columns(nearest))}; "
        f"missing {','.join(missing)}; "
        f"came {','.join(header)}; use a {nearest} file in Tardis CSV layout, or name the data type it has"
    )

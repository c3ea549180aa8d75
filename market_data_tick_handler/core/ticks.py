"""Row layout, units and null rule of each data type: the only place they are written.

Ticks travel as columns: one contiguous NumPy array per field. Arrow buffers become kernel arguments without a copy
that way, which a record layout would not allow. Times are int64 microseconds since the epoch, UTC; a missing time is 0.
A missing float is NaN. Source of names and meanings: Tardis.dev CSV datasets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from market_data_tick_handler.errors import SchemaMismatch

Array = npt.NDArray[Any]


class DataType(StrEnum):
    """A kind of tick. The value is the name in paths, settings and documents."""

    TRADES = "trades"
    BOOK = "book_snapshot_5"
    DERIVATIVE = "derivative_ticker"
    LIQUIDATIONS = "liquidations"
    OPTIONS = "options_chain"


# Order of rows of different types with equal local_timestamp (features.md 2.2): state before the trades that meet it.
RANK: Final[Mapping[DataType, int]] = {
    DataType.BOOK: 0,
    DataType.DERIVATIVE: 1,
    DataType.OPTIONS: 2,
    DataType.LIQUIDATIONS: 3,
    DataType.TRADES: 4,
}

BUY: Final = 1
SELL: Final = -1
UNKNOWN_SIDE: Final = 0

# What `id` holds: nothing, the venue's integer, or a 64-bit hash of the venue's text.
ID_NONE: Final = 0
ID_INTEGER: Final = 1
ID_HASH: Final = 2

BOOK_LEVELS: Final = 5


@dataclass(frozen=True, slots=True)
class Field:
    """One column of a tick layout: NumPy dtype, unit, what a missing value is, and whether it must be there."""

    name: str
    dtype: str
    unit: str
    missing: float | int
    doc: str


_NAN: Final = float("nan")
_TIMES: Final = (
    Field("timestamp", "i8", "us", 0, "exchange time"),
    Field("local_timestamp", "i8", "us", 0, "time of receipt"),
)
_TRADE: Final = (
    *_TIMES,
    Field("id", "i8", "-", 0, "venue id: integer, or 64-bit hash of its text"),
    Field("id_kind", "u1", "-", ID_NONE, "0 none, 1 integer, 2 hash"),
    Field("side", "i1", "-", UNKNOWN_SIDE, "taker: 1 buy, -1 sell, 0 unknown"),
    Field("price", "f8", "quote/base", _NAN, "price"),
    Field("amount", "f8", "venue units", _NAN, "amount: base units, or contracts where the venue quotes contracts"),
)
_BOOK: Final = (
    *_TIMES,
    *(
        Field(f"{side}_{what}_{level}", "f8", unit, _NAN, f"level {level}, 1 is best")
        for level in range(1, BOOK_LEVELS + 1)
        for side in ("ask", "bid")
        for what, unit in (("price", "quote/base"), ("volume", "venue units"))
    ),
)
_DERIVATIVE: Final = (
    *_TIMES,
    Field("funding_timestamp", "i8", "us", 0, "next funding event"),
    *(
        Field(name, "f8", unit, _NAN, name.replace("_", " "))
        for name, unit in (
            ("funding_rate", "fraction"),
            ("predicted_funding_rate", "fraction"),
            ("open_interest", "venue units"),
            ("last_price", "quote/base"),
            ("index_price", "quote/base"),
            ("mark_price", "quote/base"),
        )
    ),
)
_OPTIONS: Final = (
    *_TIMES,
    Field("symbol_hash", "i8", "-", 0, "64-bit hash of the option's venue symbol"),
    Field("option_type", "i1", "-", 0, "1 call, -1 put"),
    Field("strike_price", "f8", "quote", _NAN, "strike"),
    Field("expiration", "i8", "us", 0, "expiry"),
    *(
        Field(name, "f8", "venue units", _NAN, name.replace("_", " "))
        for name in (
            "open_interest", "last_price", "bid_price", "bid_amount", "bid_iv", "ask_price", "ask_amount", "ask_iv",
            "mark_price", "mark_iv", "underlying_price", "delta", "gamma", "vega", "theta", "rho",
        )
    ),
)  # fmt: skip

LAYOUTS: Final[Mapping[DataType, tuple[Field, ...]]] = {
    DataType.TRADES: _TRADE,
    DataType.LIQUIDATIONS: _TRADE,
    DataType.BOOK: _BOOK,
    DataType.DERIVATIVE: _DERIVATIVE,
    DataType.OPTIONS: _OPTIONS,
}

# Text that the folds never read, kept so that stored ticks are what the venue sent: the id of a trade or liquidation
# where it is no integer, the venue symbol of an option row.
TEXT_COLUMNS: Final[Mapping[DataType, str]] = {
    DataType.TRADES: "id_text",
    DataType.LIQUIDATIONS: "id_text",
    DataType.OPTIONS: "symbol",
}


class TickBatch:
    """Rows of one data type of one instrument, in arrival order, as columns.

    `columns` maps every field of `LAYOUTS[data_type]` to a contiguous 1-D array of its dtype, all of one length, and
    optionally `TEXT_COLUMNS[data_type]` to an object array of `str` (empty string = missing). Arrays are not copied.
    """

    __slots__ = ("columns", "data_type")

    def __init__(self, data_type: DataType, columns: Mapping[str, Array]) -> None:
        self.data_type = data_type
        self.columns: dict[str, Array] = dict(columns)

    @classmethod
    def build(cls, data_type: DataType, columns: Mapping[str, Any]) -> TickBatch:
        """Batch from array-likes: converts dtypes, fills absent optional fields with their missing value.

        Raises:
            SchemaMismatch: a time column is absent, a column is unknown, or lengths differ.
        """
        layout = LAYOUTS[data_type]
        text = TEXT_COLUMNS.get(data_type)
        known = {field.name for field in layout} | ({text} if text else set())
        unknown = sorted(set(columns) - known)
        if unknown:
            raise SchemaMismatch(f"{data_type}: unknown columns {unknown}; expected {sorted(known)}")
        missing = [field.name for field in _TIMES if field.name not in columns]
        if missing:
            raise SchemaMismatch(f"{data_type}: columns {missing} are required; got {sorted(columns)}")
        length = len(columns["local_timestamp"])
        out: dict[str, Array] = {}
        for field in layout:
            if field.name in columns:
                out[field.name] = np.ascontiguousarray(columns[field.name], dtype=field.dtype)
            else:
                out[field.name] = np.full(length, field.missing, dtype=field.dtype)
        if text and text in columns:
            out[text] = np.asarray(columns[text], dtype=object)
        lengths = {name: len(column) for name, column in out.items() if len(column) != length}
        if lengths:
            raise SchemaMismatch(f"{data_type}: columns must have one length, {length}; got {lengths}")
        return cls(data_type, out)

    def __len__(self) -> int:
        return len(self.columns["local_timestamp"])

    def __getitem__(self, name: str) -> Array:
        return self.columns[name]

    def slice(self, start: int, stop: int) -> TickBatch:
        """Rows [start, stop) as views."""
        return TickBatch(self.data_type, {name: column[start:stop] for name, column in self.columns.items()})

    def take(self, rows: Array) -> TickBatch:
        """The rows at indices (or under the boolean mask) `rows`, copied."""
        return TickBatch(self.data_type, {name: column[rows] for name, column in self.columns.items()})

    def with_column(self, name: str, values: Array) -> TickBatch:
        """The same rows with one column replaced."""
        return TickBatch(self.data_type, {**self.columns, name: values})


def concat(batches: Sequence[TickBatch]) -> TickBatch:
    """Batches of one data type, end to end. A text column that only some have is filled with empty strings."""
    first = batches[0]
    if len(batches) == 1:
        return first
    names = list(dict.fromkeys(name for batch in batches for name in batch.columns))
    out = {
        name: np.concatenate([batch.columns.get(name, np.full(len(batch), "", dtype=object)) for batch in batches])
        for name in names
    }
    return TickBatch(first.data_type, out)

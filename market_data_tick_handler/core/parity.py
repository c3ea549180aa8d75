"""Compare two series of candles bit for bit and say of every difference what kind it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np

from market_data_tick_handler.core.candle_batch import PUBLICATION_COLUMNS
from market_data_tick_handler.core.ticks import Array


class Kind(StrEnum):
    """What differs: a candle or column that only one side has, a null against a value, or the value itself."""

    ONLY_LEFT = "only left"
    ONLY_RIGHT = "only right"
    COLUMN_MISSING = "column missing"
    NULL = "null"
    VALUE = "value"


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference; `timestamp` is the candle's open in us, `left` and `right` the two values."""

    kind: Kind
    timestamp: int
    column: str = ""
    left: Any = None
    right: Any = None


@dataclass(slots=True)
class ParityReport:
    """Outcome over the candles that both sides have: `equal` of `compared` are the same in every column."""

    compared: int = 0
    equal: int = 0
    differences: list[Difference] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """True if nothing differs."""
        return not self.differences

    def by_kind(self) -> dict[str, int]:
        """Number of differences of each kind and column."""
        counts = Counter(f"{item.kind}: {item.column}" if item.column else str(item.kind) for item in self.differences)
        return dict(counts)

    def add(self, other: ParityReport) -> None:
        """Take in the outcome of another series."""
        self.compared += other.compared
        self.equal += other.equal
        self.differences += other.differences


def compare(left: Mapping[str, Array], right: Mapping[str, Array]) -> ParityReport:
    """Compare two series given as columns (or CandleBatch.columns), each matched on `timestamp` at its last revision.

    Floats are equal when their bits are; two nulls (NaN) are equal. `revision` and `timestamp_out` take no part.
    """
    report = ParityReport()
    rows_left, rows_right = _last_revisions(left), _last_revisions(right)
    for timestamp in sorted(rows_left.keys() ^ rows_right.keys()):
        kind = Kind.ONLY_LEFT if timestamp in rows_left else Kind.ONLY_RIGHT
        report.differences.append(Difference(kind, timestamp))
    both = sorted(rows_left.keys() & rows_right.keys())
    at_left = np.array([rows_left[timestamp] for timestamp in both], np.int64)
    at_right = np.array([rows_right[timestamp] for timestamp in both], np.int64)
    same = np.ones(len(both), bool)
    for name in sorted((left.keys() | right.keys()) - set(PUBLICATION_COLUMNS)):
        if name not in left or name not in right:
            report.differences.append(Difference(Kind.COLUMN_MISSING, 0, name, name in left, name in right))
            same[:] = False
            continue
        a, b = left[name][at_left], right[name][at_right]
        differs = _differs(a, b)
        same &= ~differs
        for index in np.flatnonzero(differs):
            report.differences.append(_difference(both[index], name, a[index].item(), b[index].item()))
    report.compared = len(both)
    report.equal = int(same.sum())
    return report


def _last_revisions(columns: Mapping[str, Array]) -> dict[int, int]:
    timestamps = columns["timestamp"].tolist()
    revisions = columns["revision"].tolist() if "revision" in columns else [0] * len(timestamps)
    best: dict[int, int] = {}
    for index, timestamp in enumerate(timestamps):
        held = best.get(timestamp)
        if held is None or revisions[index] >= revisions[held]:
            best[timestamp] = index
    return best


def _differs(a: Array, b: Array) -> Array:
    if a.dtype.kind == "f" and b.dtype.kind == "f":
        a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
        nulls = np.isnan(a) & np.isnan(b)
        return (a.view(np.int64) != b.view(np.int64)) & ~nulls
    return np.asarray(a != b)


def _difference(timestamp: int, column: str, left: Any, right: Any) -> Difference:
    null_left = isinstance(left, float) and left != left
    null_right = isinstance(right, float) and right != right
    return Difference(Kind.NULL if null_left != null_right else Kind.VALUE, timestamp, column, left, right)

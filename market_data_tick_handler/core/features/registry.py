"""Name, unit, dtype, roll-up and null rule of every published column; documents and all schemas derive from it.

A further group is one module in `columns/` and one line in `_GROUPS`. Groups are published in that order, so a new one
goes last: columns that are already published keep their places.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Final

from market_data_tick_handler.core.features.column import Column
from market_data_tick_handler.core.features.columns import (
    book,
    book_delays,
    delays,
    derivative_ratios,
    derivatives,
    flow,
    identity,
    indicators,
    liquidations,
    mft,
    ohlcv,
    options,
    returns,
    spread,
)

__all__ = ["FEATURE_VERSION", "Column", "checked", "column", "columns", "group_names"]

# Semantic version of the feature specification that the columns follow.
FEATURE_VERSION: Final = "1.0.0"

IDENTITY: Final = "identity"
_REQUIRED: Final = ("formula", "unit", "null_when", "source", "input", "rollup", "numerics", "edge")


def checked(groups: Mapping[str, tuple[Column, ...]]) -> Mapping[str, tuple[Column, ...]]:
    """The groups, if every column is fully declared, sits in its own group and has a name of its own.

    Raises:
        ValueError: names the column and what is missing.
    """
    seen: set[str] = set()
    for group, members in groups.items():
        for member in members:
            missing = [field for field in _REQUIRED if not getattr(member, field).strip()]
            if missing:
                raise ValueError(f"column {member.name!r}: expected {', '.join(missing)} to be declared, got nothing")
            if member.group != group:
                raise ValueError(f"column {member.name!r} says group {member.group!r} but is listed under {group!r}")
            if member.name in seen:
                raise ValueError(f"column {member.name!r} is declared twice; rename or remove one")
            seen.add(member.name)
    return groups


_GROUPS: Final = checked(
    {
        IDENTITY: identity.COLUMNS,
        "ohlcv": ohlcv.COLUMNS,
        "flow": flow.COLUMNS,
        "delays": delays.COLUMNS,
        "returns": returns.COLUMNS,
        "indicators": indicators.COLUMNS,
        "derivatives": derivatives.COLUMNS,
        "liquidations": liquidations.COLUMNS,
        "spread": spread.COLUMNS,
        "book_delays": book_delays.COLUMNS,
        "derivative_ratios": derivative_ratios.COLUMNS,
        "mft": mft.COLUMNS,
        "book": book.COLUMNS,
        "options": options.COLUMNS,
    }
)
_BY_NAME: Final = {member.name: member for members in _GROUPS.values() for member in members}


def group_names() -> tuple[str, ...]:
    """Every group in published order, identity first."""
    return tuple(_GROUPS)


def columns(groups: Sequence[str] | None = None) -> tuple[Column, ...]:
    """Columns in published order: identity, then the selected groups (None: all), whatever order they are named in.

    Raises:
        ValueError: a group is unknown.
    """
    return _selected(None if groups is None else frozenset(groups))


def column(name: str) -> Column:
    """One column by name.

    Raises:
        KeyError: not registered.
    """
    return _BY_NAME[name]


@cache
def _selected(groups: frozenset[str] | None) -> tuple[Column, ...]:
    unknown = sorted((groups or frozenset()) - set(_GROUPS))
    if unknown:
        raise ValueError(f"unknown feature groups {unknown}, expected some of: {' '.join(_GROUPS)}")
    chosen = [group for group in _GROUPS if groups is None or group == IDENTITY or group in groups]
    return tuple(member for group in chosen for member in _GROUPS[group])

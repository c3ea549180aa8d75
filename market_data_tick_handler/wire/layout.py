"""How a batch with certain columns becomes documents: prepared once per set of columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import Any

import msgspec

from market_data_tick_handler.core.features.registry import columns
from market_data_tick_handler.core.ticks import Array
from market_data_tick_handler.wire.names import FEATURES
from market_data_tick_handler.wire.selection import CONSTANTS, top_level_columns

# The first fields are those of `messages.Head`.
_FIRST = ("is_final", *CONSTANTS)


@dataclass(frozen=True, slots=True)
class Layout:
    """Structs are made and written in half of the time of dicts, as their names are prepared for writing once.

    top: columns of the top level that have an array. pick: the arrays of these and then of the features, out of the
    columns of a batch. whole: places among them of whole numbers that may be null, which travel as floats inside.
    document: made of `is_final`, the constants of a batch, the values of `top` and a `features`, which is made of the
    values behind them; features that are null in every row need none.
    """

    top: tuple[str, ...]
    pick: Callable[[Mapping[str, Array]], Sequence[Array]]
    whole: tuple[int, ...]
    document: Callable[..., msgspec.Struct]
    features: Callable[..., msgspec.Struct]
    fields: int


@lru_cache(maxsize=256)
def make_layout(selected: tuple[str, ...], present: tuple[str, ...], absent: tuple[str, ...]) -> Layout:
    """The layout of batches that have the columns `present`, and `absent` in every row."""
    here, nowhere = frozenset(present), frozenset(absent)
    top = tuple(name for name in top_level_columns() if name in here)
    features = tuple(name for name in selected if name in here)
    missing = tuple(name for name in selected if name in nowhere)
    whole = frozenset(
        member.name for member in columns() if member.nullable and member.dtype.startswith(("int", "timestamp"))
    )
    names = (*_FIRST, *top, FEATURES)
    return Layout(
        top=top,
        pick=_picker((*top, *features)),
        whole=tuple(place for place, name in enumerate((*top, *features)) if name in whole),
        document=msgspec.defstruct("Candle", [(name, Any) for name in names], gc=False),
        features=msgspec.defstruct(
            "Features", [*((name, Any) for name in features), *((name, Any, None) for name in missing)], gc=False
        ),
        fields=len(names),
    )


def _picker(names: tuple[str, ...]) -> Callable[[Mapping[str, Array]], Sequence[Array]]:
    # Three times as fast as a comprehension, but of one name it returns no tuple.
    return itemgetter(*names) if len(names) > 1 else lambda present: [present[name] for name in names]

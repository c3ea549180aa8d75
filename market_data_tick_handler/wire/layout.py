"""How a batch with certain columns becomes documents: prepared once per set of columns."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final

import msgspec
import numpy as np

from market_data_tick_handler.core.features.registry import columns
from market_data_tick_handler.core.ticks import Array
from market_data_tick_handler.wire.names import FEATURES
from market_data_tick_handler.wire.selection import CONSTANTS, top_level_columns

# Types of the fields of a record, as `struct` writes them.
_CODES: Final = {"f8": "d", "f4": "f", "i8": "q", "i4": "i", "b1": "?"}
_NO_RECORD: Final[np.dtype[Any]] = np.dtype([])
# The first fields are those of `messages.Head`.
_FIRST = ("is_final", *CONSTANTS)


@dataclass(frozen=True, slots=True)
class Layout:
    """Structs are made and written in half of the time of dicts, as their names are prepared for writing once.

    top: columns of the top level that have an array. pick: the arrays of these and then of the features, out of the
    columns of a batch. unpack: the tuple that a record's bytes are, for each of several end to end. pick_values: the
    same values out of such a tuple, but for `texts`: places and names of those that a record does not have as they are
    published. whole: places of whole numbers that may be null, which travel as floats inside. document: made of
    `is_final`, the constants of a batch, the values of `top` and a `features`, which is made of the values behind them;
    features that are null in every row need none.
    """

    top: tuple[str, ...]
    pick: Callable[[Mapping[str, Array]], Sequence[Array]]
    unpack: Callable[[bytes], Iterator[tuple[Any, ...]]]
    pick_values: Callable[[tuple[Any, ...]], tuple[Any, ...]]
    texts: tuple[tuple[int, str], ...]
    whole: tuple[int, ...]
    document: Callable[..., msgspec.Struct]
    features: Callable[..., msgspec.Struct]
    fields: int


@lru_cache(maxsize=256)
def make_layout(
    selected: tuple[str, ...],
    present: tuple[str, ...],
    absent: tuple[str, ...],
    record: np.dtype[Any] = _NO_RECORD,
    texts: tuple[str, ...] = (),
) -> Layout:
    """The layout of batches that have the columns `present`, and `absent` in every row. record: of a batch that has
    records; texts: columns that are none of its fields."""
    here, nowhere = frozenset(present), frozenset(absent)
    top = tuple(name for name in top_level_columns() if name in here)
    features = tuple(name for name in selected if name in here)
    missing = tuple(name for name in selected if name in nowhere)
    whole = frozenset(
        member.name for member in columns() if member.nullable and member.dtype.startswith(("int", "timestamp"))
    )
    names = (*_FIRST, *top, FEATURES)
    picked = (*top, *features)
    fixed = {name: place for place, name in enumerate(record.names or ()) if name not in texts}
    return Layout(
        top=top,
        pick=_picker(picked),
        unpack=struct.Struct("=" + "".join(_CODES[record[name].str[1:]] for name in record.names or ())).iter_unpack,
        pick_values=_picker([fixed.get(name, 0) for name in picked]),
        texts=tuple((place, name) for place, name in enumerate(picked) if name in texts),
        whole=tuple(place for place, name in enumerate(picked) if name in whole),
        document=msgspec.defstruct("Candle", [(name, Any) for name in names], gc=False),
        features=msgspec.defstruct(
            "Features", [*((name, Any) for name in features), *((name, Any, None) for name in missing)], gc=False
        ),
        fields=len(names),
    )


def _picker(keys: Sequence[Any]) -> Callable[[Any], Any]:
    # Three times as fast as a comprehension, but of one key it returns no tuple.
    return itemgetter(*keys) if len(keys) > 1 else lambda present: tuple(present[key] for key in keys)

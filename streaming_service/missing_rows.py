"""Which fetched trades are missing, and when they count as received."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np

from market_data_tick_handler.core.events import Gap
from market_data_tick_handler.core.ticks import ID_NONE, Array, TickBatch

_ID: Final = ("id_kind", "id")
# What tells trades without ids apart.
_CONTENT: Final = ("timestamp", "price", "amount", "side")


def missing_rows(fetched: TickBatch, known: Iterable[TickBatch], gap: Gap) -> TickBatch:
    """Rows of `fetched` that are not among `known`, each once, in the order in which they count as received.

    They are received when they were stamped, and not before the gap began (DESIGN: repair is replay).
    """
    rows = fetched.take(np.argsort(fetched["timestamp"], kind="stable"))
    absent = ~_seen(rows, known)
    rows = rows.take(absent)
    local = np.maximum(rows["timestamp"], gap.from_us)
    return rows.with_column("local_timestamp", local)


def _seen(rows: TickBatch, known: Iterable[TickBatch]) -> Array:
    """Which rows came before: in `known`, or earlier in `rows`."""
    named = rows["id_kind"] != ID_NONE
    ids, contents = _keys(rows, _ID), _keys(rows, _CONTENT)
    _, first = np.unique(ids, return_index=True)
    seen: Array = named.copy()
    seen[first] = False
    for batch in known:
        seen |= named & np.isin(ids, _keys(batch, _ID))
        if not named.all():
            seen |= ~named & np.isin(contents, _keys(batch, _CONTENT))
    return seen


def _keys(rows: TickBatch, names: tuple[str, ...]) -> Array:
    """One opaque value per row, equal where all the columns are."""
    fields = [np.ascontiguousarray(rows[name]).astype(rows[name].dtype.str) for name in names]
    width = sum(column.dtype.itemsize for column in fields)
    joined = np.concatenate(
        [column.view(np.uint8).reshape(len(rows), column.dtype.itemsize) for column in fields], axis=1
    )
    keys: Array = np.ascontiguousarray(joined).view(np.dtype((np.void, width))).reshape(-1)
    return keys

"""Plain-Python rules of acceptance and time, written from the specification and sharing no code with the kernels."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.ticks import ID_NONE, TickBatch

GRACE_US = 500_000
YEAR_2010_US = 1_262_304_000_000_000
Row = dict[str, Any]


def every(rows: TickBatch) -> Iterator[Row]:
    """The rows in order of arrival."""
    names = list(rows.columns)
    for values in zip(*(rows[name].tolist() for name in names), strict=True):
        yield dict(zip(names, values, strict=True))


def timely(row: Row) -> bool:
    """Whether the timestamp can be believed."""
    return bool(YEAR_2010_US <= row["timestamp"] <= row["local_timestamp"] + 60_000_000)


def effective(rows: TickBatch) -> list[Row]:
    """Rows of state with the time `e` at which each takes effect."""
    out: list[Row] = []
    clock = 0
    for row in filter(timely, every(rows)):
        clock = max(clock, row["timestamp"], row["local_timestamp"] - GRACE_US)
        out.append({**row, "e": clock})
    return out


def accepted(rows: TickBatch) -> list[Row]:
    """Trades or liquidations that are neither invalid nor duplicates, with `sign` after the tick rule."""
    out: list[Row] = []
    seen: set[int] = set()
    price, direction = math.nan, 0
    for row in filter(timely, every(rows)):
        if not all(0.0 < row[name] < math.inf for name in ("price", "amount")):
            continue
        if row["id_kind"] != ID_NONE:
            if row["id"] in seen:
                continue
            seen.add(row["id"])
        if row["price"] != price and price == price:
            direction = 1 if row["price"] > price else -1
        price = row["price"]
        out.append({**row, "sign": row["side"] or direction})
    return out


@dataclass(frozen=True, slots=True)
class Candle:
    """A finished candle that a pipeline published: its interval and its columns."""

    t0: int
    t1: int
    row: Row


def finished(candles: CandleBatch, stop_us: int) -> list[Candle]:
    """Last revisions of the candles that closed before the stop."""
    final = {row["timestamp"]: row for row in candles.rows()}
    step = candles.timeframe.us
    return [Candle(t0, t0 + step, row) for t0, row in sorted(final.items()) if t0 + step + GRACE_US <= stop_us]


def same(value: float | None, expected: float | None, relative: float = 0.0) -> bool:
    """Equal, both null, or within the relative tolerance."""
    if value is None or expected is None:
        return value is expected
    return value == expected or abs(value - expected) <= relative * abs(expected) + 1e-12 * bool(relative)

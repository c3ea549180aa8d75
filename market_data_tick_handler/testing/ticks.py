"""Short ways to write ticks down in a test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.ticks import (
    BOOK_LEVELS,
    BUY,
    ID_INTEGER,
    ID_NONE,
    DataType,
    TickBatch,
)

BTC: Final = "BINANCE:SPOT_PAIR:BTC-USDT"
# 2024-01-01 00:00 UTC, a border of every timeframe.
START_US: Final = 1_704_067_200_000_000

Floats = Sequence[float] | npt.NDArray[Any]
Ints = Sequence[int] | npt.NDArray[Any]


def trades(
    prices: Floats,
    amounts: Floats | float = 1.0,
    *,
    sides: Ints | int = BUY,
    timestamps: Ints | None = None,
    start_us: int = START_US,
    step_us: int = 1_000_000,
    delay_us: int = 1_000,
    local_timestamps: Ints | None = None,
    ids: Ints | None = None,
    first_id: int = 1,
) -> TickBatch:
    """Trades, one per price. Unless given: one every `step_us` from `start_us`, received `delay_us` later, numbered
    from `first_id` on. Scalars hold for every trade; an id of 0 is no id."""
    columns = _stamped(len(prices), timestamps, start_us, step_us, delay_us, local_timestamps)
    number = np.asarray(first_id + np.arange(len(prices)) if ids is None else ids, dtype=np.int64)
    return TickBatch.build(DataType.TRADES, {**columns, **_fills(prices, amounts, sides, number)})


def liquidations(
    prices: Floats,
    amounts: Floats | float = 1.0,
    *,
    sides: Ints | int = BUY,
    timestamps: Ints | None = None,
    start_us: int = START_US,
    step_us: int = 1_000_000,
    delay_us: int = 1_000,
    local_timestamps: Ints | None = None,
) -> TickBatch:
    """Liquidations without ids; arguments as in `trades`. Side 1: a short was liquidated by buying."""
    columns = _stamped(len(prices), timestamps, start_us, step_us, delay_us, local_timestamps)
    number = np.zeros(len(prices), dtype=np.int64)
    return TickBatch.build(DataType.LIQUIDATIONS, {**columns, **_fills(prices, amounts, sides, number)})


def books(
    mids: Floats,
    *,
    spread: float = 1.0,
    level_step: float = 1.0,
    volume: float = 1.0,
    timestamps: Ints | None = None,
    start_us: int = START_US,
    step_us: int = 1_000_000,
    delay_us: int = 1_000,
    local_timestamps: Ints | None = None,
) -> TickBatch:
    """Full 5-level snapshots around mids, `level_step` between levels, `volume` on each; times as in `trades`."""
    columns = _stamped(len(mids), timestamps, start_us, step_us, delay_us, local_timestamps)
    mid = np.asarray(mids, dtype=np.float64)
    for level in range(BOOK_LEVELS):
        distance = 0.5 * spread + level * level_step
        columns[f"ask_price_{level + 1}"] = mid + distance
        columns[f"bid_price_{level + 1}"] = mid - distance
        columns[f"ask_volume_{level + 1}"] = columns[f"bid_volume_{level + 1}"] = np.full(len(mid), volume)
    return TickBatch.build(DataType.BOOK, columns)


def derivative_tickers(
    count: int,
    *,
    timestamps: Ints | None = None,
    start_us: int = START_US,
    step_us: int = 1_000_000,
    delay_us: int = 1_000,
    local_timestamps: Ints | None = None,
    **values: Any,
) -> TickBatch:
    """Derivative ticker rows; `values` are columns by name, scalars hold for every row, absent ones are missing."""
    columns = _stamped(count, timestamps, start_us, step_us, delay_us, local_timestamps)
    columns.update({name: np.broadcast_to(np.asarray(value), (count,)) for name, value in values.items()})
    return TickBatch.build(DataType.DERIVATIVE, columns)


def rows(batch: TickBatch, instrument: str = BTC, *, connection: int = 0) -> Rows:
    """The batch as an event."""
    return Rows(instrument, batch, connection)


def chunks(batch: TickBatch, sizes: Sequence[int]) -> Iterator[TickBatch]:
    """The batch in pieces of these sizes, the last size again and again to the end."""
    if not sizes or min(sizes) < 1:
        raise ValueError(f"sizes must be 1 or more, came {list(sizes)}")
    start = index = 0
    while start < len(batch):
        stop = min(start + sizes[min(index, len(sizes) - 1)], len(batch))
        yield batch.slice(start, stop)
        start, index = stop, index + 1


def _stamped(
    count: int, timestamps: Ints | None, start_us: int, step_us: int, delay_us: int, local_timestamps: Ints | None
) -> dict[str, Any]:
    chosen = start_us + step_us * np.arange(count) if timestamps is None else timestamps
    timestamp = np.asarray(chosen, dtype=np.int64)
    local = timestamp + delay_us if local_timestamps is None else np.asarray(local_timestamps, dtype=np.int64)
    return {"timestamp": timestamp, "local_timestamp": local}


def _fills(prices: Floats, amounts: Floats | float, sides: Ints | int, ids: npt.NDArray[np.int64]) -> dict[str, Any]:
    count = len(prices)
    return {
        "id": ids,
        "id_kind": np.where(ids != 0, ID_INTEGER, ID_NONE),
        "side": np.broadcast_to(np.asarray(sides), (count,)),
        "price": prices,
        "amount": np.broadcast_to(np.asarray(amounts, dtype=np.float64), (count,)),
    }

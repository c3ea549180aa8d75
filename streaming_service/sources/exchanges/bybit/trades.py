"""Bybit trades and liquidations as tick columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Final

import numpy as np

from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.ids import encode_id_texts
from market_data_tick_handler.core.ticks import BUY, ID_HASH, SELL, UNKNOWN_SIDE, Array, DataType, TickBatch
from streaming_service.sources.exchanges.bybit.frames import (
    UNREADABLE,
    Arrivals,
    Decode,
    Liquidation,
    RowsFrame,
    T,
    Trade,
    by_name,
    decode_liquidation,
    decode_liquidations,
    decode_old_liquidation,
    decode_rows,
    decode_trade,
    decode_trades,
)
from streaming_service.sources.exchanges.bybit.topics import symbol_of

Keys = Mapping[str, str]

# Other parties' instruments: option trades come for all options of a coin.
OTHERS: Final = ""
_TAKER: Final = {"Buy": BUY, "Sell": SELL}
# The side that a liquidation reports is that of the position; the trade that closes it is on the other.
_CLOSING: Final = {"Buy": SELL, "Sell": BUY}
_NOT_FINITE: Final = "price or size is not finite"


def read_trades(arrivals: Arrivals, at: list[int], keys: Keys, connection: int) -> None:
    """Rows of the `publicTrade` frames at `at`. `keys`: instrument key by venue symbol of those that are wanted."""
    heads, kept = _decode(arrivals, at, decode_trades, decode_trade)
    _count_empty(arrivals, heads, DataType.TRADES, keys)
    rows = list(chain.from_iterable([head.data for head in heads]))
    places = _places(kept, [len(head.data) for head in heads])
    for symbol, members in by_name([row.s for row in rows]).items():
        chosen = rows if members is None else [rows[index] for index in members.tolist()]
        if symbol not in keys:
            arrivals.filter((OTHERS, DataType.TRADES), len(chosen))
            continue
        own = places if members is None else places[members]
        _emit(arrivals, keys[symbol], _trade_columns(chosen, arrivals.local_us[own]), own, connection)


def read_liquidations(arrivals: Arrivals, at: list[int], keys: Keys, connection: int) -> None:
    """Rows of the `allLiquidation` frames at `at`."""
    heads, kept = _decode(arrivals, at, decode_liquidations, decode_liquidation)
    _count_empty(arrivals, heads, DataType.LIQUIDATIONS, keys)
    rows = list(chain.from_iterable([head.data for head in heads]))
    _liquidations(arrivals, rows, _places(kept, [len(head.data) for head in heads]), keys, connection)


def read_old_liquidations(arrivals: Arrivals, at: list[int], keys: Keys, connection: int) -> None:
    """Rows of the `liquidation` frames at `at`: one each, stamped with the time of the message."""
    heads, kept = arrivals.decode(decode_old_liquidation, at)
    rows = [
        Liquidation(T=head.ts, s=head.data.symbol, S=head.data.side, v=head.data.size, p=head.data.price)
        for head in heads
    ]
    _liquidations(arrivals, rows, np.array(kept, np.int64), keys, connection)


def trade_batch(
    stamps_ms: Sequence[int],
    local_us: Array,
    ids: Sequence[str],
    takers: Sequence[str],
    price: Sequence[float],
    amount: Sequence[float],
) -> TickBatch:
    """Trades whose columns are in the venue's terms."""
    values, kinds = encode_id_texts(ids)
    columns: dict[str, Array] = {
        "timestamp": np.array(stamps_ms, np.int64) * 1_000,
        "local_timestamp": local_us,
        "id": values,
        "id_kind": kinds,
        "side": np.array([_TAKER.get(side, UNKNOWN_SIDE) for side in takers], np.int8),
        "price": np.array(price, np.float64),
        "amount": np.array(amount, np.float64),
    }
    hashed = kinds == ID_HASH
    if hashed.any():
        texts = np.array(ids, dtype=object)
        columns["id_text"] = texts if hashed.all() else np.where(hashed, texts, "")
    return TickBatch(DataType.TRADES, columns)


def _trade_columns(rows: Sequence[Trade], local_us: Array) -> TickBatch:
    return trade_batch(
        [row.T for row in rows],
        local_us,
        [row.i for row in rows],
        [row.S for row in rows],
        [row.p for row in rows],
        [row.v for row in rows],
    )


def _liquidations(arrivals: Arrivals, rows: Sequence[Liquidation], places: Array, keys: Keys, connection: int) -> None:
    for symbol, members in by_name([row.s for row in rows]).items():
        chosen = rows if members is None else [rows[index] for index in members.tolist()]
        if symbol not in keys:
            arrivals.filter((OTHERS, DataType.LIQUIDATIONS), len(chosen))
            continue
        own = places if members is None else places[members]
        batch = TickBatch.build(
            DataType.LIQUIDATIONS,
            {
                "timestamp": np.array([row.T for row in chosen], np.int64) * 1_000,
                "local_timestamp": arrivals.local_us[own],
                "side": [_CLOSING.get(row.S, UNKNOWN_SIDE) for row in chosen],
                "price": [row.p for row in chosen],
                "amount": [row.v for row in chosen],
            },
        )
        _emit(arrivals, keys[symbol], batch, own, connection)


def _emit(arrivals: Arrivals, key: str, batch: TickBatch, places: Array, connection: int) -> None:
    """Add the rows; those with a price or an amount that is no number are violations."""
    good = np.isfinite(batch["price"]) & np.isfinite(batch["amount"])
    if not good.all():
        for index in places[~good].tolist():
            arrivals.violate(arrivals.frames[index], _NOT_FINITE)
        batch = batch.take(good)
    if len(batch):
        arrivals.out.rows.append(Rows(key, batch, connection))


def _decode(
    arrivals: Arrivals, at: list[int], decode: Decode[RowsFrame[T]], decode_row: Decode[T]
) -> tuple[list[RowsFrame[T]], list[int]]:
    """Frames with their good rows, in order, and where they were. A bad row or frame is a violation."""
    heads, kept, broken = arrivals.try_decode(decode, at)
    if not broken:
        return heads, kept
    found = dict(zip(kept, heads, strict=True))
    for index, why in broken:
        try:
            loose = decode_rows(arrivals.frames[index])
        except UNREADABLE:
            arrivals.violate(arrivals.frames[index], why)
            continue
        good: list[T] = []
        for raw in loose.data:
            try:
                good.append(decode_row(bytes(raw)))
            except UNREADABLE as error:
                arrivals.violate(arrivals.frames[index], str(error))
        if good:
            found[index] = RowsFrame(loose.topic, good)
    order = sorted(found)
    return [found[index] for index in order], order


def _places(kept: list[int], counts: list[int]) -> Array:
    """The index of its frame for every row."""
    return np.repeat(np.array(kept, np.int64), counts)


def _count_empty(arrivals: Arrivals, heads: Sequence[RowsFrame[T]], data_type: DataType, keys: Keys) -> None:
    """A frame without rows is accounted for, too."""
    for head in heads:
        if not head.data:
            arrivals.filter((keys.get(symbol_of(head.topic), OTHERS), data_type))

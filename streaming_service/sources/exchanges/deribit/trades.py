"""Trades of Deribit as columns: trades, the liquidations among them, and their sequence numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from market_data_tick_handler.core.ids import encode_id_texts
from market_data_tick_handler.core.ticks import BUY, ID_HASH, SELL, Array, DataType, TickBatch
from streaming_service.sources.exchanges.deribit.frames import Trade

INCOMPLETE: Final = "trade_seq, trade_id, timestamp, price, amount or direction is missing or no number"
UNKNOWN_LIQUIDATION: Final = "expected liquidation T, M or MT"

_TAKER: Final = "T"
_LIQUIDATIONS: Final = frozenset({_TAKER, "M", "MT"})
_TEXT: Final = "id_text"


def complete_trades(trades: Sequence[Trade]) -> list[int]:
    """Indices of the trades that have all of their parts."""
    return [
        index
        for index, trade in enumerate(trades)
        if trade.trade_seq >= 0
        and trade.trade_id
        and trade.timestamp
        and trade.direction is not None
        and abs(trade.price) < np.inf
        and abs(trade.amount) < np.inf
    ]


def trade_rows(trades: Sequence[Trade], local_us: Array) -> TickBatch:
    """Rows of complete trades, which arrived at `local_us` (int64, one per trade)."""
    ids, kinds = encode_id_texts([trade.trade_id for trade in trades])
    columns: dict[str, Array] = {
        "timestamp": np.array([trade.timestamp for trade in trades], np.int64) * 1_000,
        "local_timestamp": local_us,
        "id": ids,
        "id_kind": kinds,
        "side": np.where([trade.direction == "buy" for trade in trades], np.int8(BUY), np.int8(SELL)),
        "price": np.array([trade.price for trade in trades], np.float64),
        "amount": np.array([trade.amount for trade in trades], np.float64),
    }
    hashed = kinds == ID_HASH
    if hashed.any():
        texts = np.array([trade.trade_id for trade in trades], dtype=object)
        texts[~hashed] = ""
        columns[_TEXT] = texts
    return TickBatch(DataType.TRADES, columns)


def liquidation_rows(trades: Sequence[Trade], rows: TickBatch) -> tuple[TickBatch, list[int]]:
    """The rows that liquidate somebody, and which of `trades` say so in an unknown way.

    rows: `trade_rows` of `trades`. The side of a liquidation is that of the order that was forced: the taker's for T,
    the other one for M, where the maker was liquidated, and, as the vendor has it, for MT, where both were.
    """
    marked = [index for index, trade in enumerate(trades) if trade.liquidation]
    unknown = [index for index in marked if trades[index].liquidation not in _LIQUIDATIONS]
    chosen = [index for index in marked if trades[index].liquidation in _LIQUIDATIONS]
    taken = rows.take(np.array(chosen, np.int64))
    taker = np.array([trades[index].liquidation == _TAKER for index in chosen], np.bool_)
    columns = {**taken.columns, "side": np.where(taker, taken["side"], -taken["side"]).astype(np.int8)}
    return TickBatch(DataType.LIQUIDATIONS, columns), unknown


def trade_numbers(trades: Sequence[Trade], local_us: Array) -> tuple[Array, Array]:
    """(numbers, local_us) of every trade that has a number: Deribit counts the trades of each instrument by one."""
    numbers = np.array([trade.trade_seq for trade in trades], np.int64)
    counted = numbers >= 0
    return (numbers, local_us) if counted.all() else (numbers[counted], local_us[counted])

"""OKX trades and liquidations as rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from market_data_tick_handler.core.ids import encode_id_texts
from market_data_tick_handler.core.ticks import BUY, ID_INTEGER, SELL, Array, DataType, TickBatch
from streaming_service.sources.exchanges.okx.frames import Read, at_rows
from streaming_service.sources.exchanges.okx.messages import Fill, Liquidation, Trade

MILLISECOND_US: Final = 1_000


def read_trades(read: Read[Trade], local_us: Array) -> TickBatch:
    """The trades of one subscription; `local_us` is that of all frames of the batch."""
    trades = [trade for frame in read.frames for trade in frame.data]
    return trade_rows(trades, at_rows(read.at, [len(frame.data) for frame in read.frames], local_us))


def trade_rows(trades: Sequence[Trade], local_us: Array) -> TickBatch:
    """Columns of `trades`, each of which arrived at its `local_us`."""
    texts = [trade.tradeId for trade in trades]
    ids, kinds = encode_id_texts(texts)
    columns = {**_columns(trades, [trade.px for trade in trades], local_us), "id": ids, "id_kind": kinds}
    if not (kinds == ID_INTEGER).all():
        columns["id_text"] = np.array(texts, dtype=object)
    return TickBatch(DataType.TRADES, columns)


def liquidation_rows(fills: Sequence[Fill], local_us: Array) -> TickBatch:
    """Columns of `fills`, each of which arrived at its `local_us`. The side of the order that closed the position is
    the vendor's side: buy where a short position was liquidated."""
    return TickBatch.build(DataType.LIQUIDATIONS, _columns(fills, [fill.bkPx for fill in fills], local_us))


class MarketLiquidations:
    """Liquidations of all instruments of a kind of contract, as the channel `liquidation-orders` brings them.

    Its first message repeats what happened before the subscription, so it is left out, as the vendor leaves it out.
    """

    __slots__ = ("_began",)

    def __init__(self) -> None:
        self._began = False

    def read(self, read: Read[Liquidation]) -> tuple[dict[str, tuple[list[Fill], list[int]]], dict[str, int]]:
        """By venue symbol: the liquidations with the index of the frame of each; and how many were left out."""
        found: dict[str, tuple[list[Fill], list[int]]] = {}
        old: dict[str, int] = {}
        for frame, index in zip(read.frames, read.at, strict=True):
            for each in frame.data:
                if not self._began:
                    old[each.instId] = old.get(each.instId, 0) + len(each.details)
                    continue
                fills, at = found.setdefault(each.instId, ([], []))
                fills += each.details
                at += [index] * len(each.details)
            self._began = True
        return found, old


def _columns(rows: Sequence[Trade] | Sequence[Fill], prices: list[float], local_us: Array) -> dict[str, Array]:
    buys = np.array([row.side == "buy" for row in rows], np.bool_)
    return {
        "timestamp": np.array([row.ts for row in rows], np.int64) * MILLISECOND_US,
        "local_timestamp": local_us,
        "side": np.where(buys, np.int8(BUY), np.int8(SELL)),
        "price": np.array(prices, np.float64),
        "amount": np.array([row.sz for row in rows], np.float64),
    }

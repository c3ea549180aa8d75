"""Binance liquidation orders (`@forceOrder`) as `liquidations` rows.

The venue pushes the latest liquidation order of a symbol in each second, not all of them. Side is that of the order:
SELL closes a long position. Price is that of the order, amount what was filled of it.
https://developers.binance.com/docs/derivatives/usds-margined-futures/websocket-market-streams/Liquidation-Order-Streams
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Annotated, Final, Literal

import msgspec
import numpy as np

from market_data_tick_handler.core.ticks import BUY, SELL, Array, DataType, TickBatch
from streaming_service.sources.exchanges.binance.times import to_us

_FILLED: Final = "FILLED"
_SELL: Final = "SELL"


class Order(msgspec.Struct, gc=False, eq=False):
    """`p` price, `z` filled amount, `X` status, `T` time of the trade."""

    S: Literal["BUY", "SELL"]
    p: float
    z: float
    X: str
    T: Annotated[int, msgspec.Meta(gt=0)]


class ForceOrder(msgspec.Struct, gc=False, eq=False):
    """The order stands in `o`."""

    o: Order

    def is_sound(self) -> bool:
        return isfinite(self.o.p) and isfinite(self.o.z)


def liquidation_rows(messages: Sequence[ForceOrder], local_us: Array) -> TickBatch:
    """A row for each order that was filled."""
    filled = np.array([message.o.X == _FILLED for message in messages], np.bool_)
    orders = [message.o for message in messages if message.o.X == _FILLED]
    return TickBatch.build(
        DataType.LIQUIDATIONS,
        {
            "timestamp": to_us(np.array([order.T for order in orders], np.int64)),
            "local_timestamp": local_us[filled],
            "side": [SELL if order.S == _SELL else BUY for order in orders],
            "price": [order.p for order in orders],
            "amount": [order.z for order in orders],
        },
    )

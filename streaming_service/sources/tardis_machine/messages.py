"""The normalised messages of tardis-machine as typed structs.

Fields that are not ours are skipped by the decoder. A field that JavaScript had as `undefined` is absent, one that it
had as NaN is null; both are missing here. Names follow the wire.
https://docs.tardis.dev/api/tardis-machine#data-types
"""

from __future__ import annotations

from math import nan
from typing import Final, Literal

import msgspec

Number = float | None


class Level(msgspec.Struct, gc=False, eq=False):
    """One level of a book; a book with fewer levels has `{}` in their place."""

    price: float = nan
    amount: float = nan


class _Message(msgspec.Struct, eq=False, tag_field="type", rename="camel"):
    """What every message has."""

    exchange: str
    symbol: str
    timestamp: str
    local_timestamp: str


class Trade(_Message, gc=False, tag="trade"):
    price: float
    amount: float
    side: Literal["buy", "sell", "unknown"]
    id: str | None = ""


class Liquidation(_Message, gc=False, tag="liquidation"):
    price: float
    amount: float
    side: Literal["buy", "sell", "unknown"]
    id: str | None = ""


class BookSnapshot(_Message, tag="book_snapshot"):
    name: str
    bids: list[Level]
    asks: list[Level]


class DerivativeTicker(_Message, gc=False, tag="derivative_ticker"):
    last_price: Number = nan
    open_interest: Number = nan
    funding_rate: Number = nan
    predicted_funding_rate: Number = nan
    index_price: Number = nan
    mark_price: Number = nan
    funding_timestamp: str | None = ""


class OptionSummary(_Message, gc=False, tag="option_summary"):
    option_type: Literal["call", "put"]
    strike_price: float
    expiration_date: str
    best_bid_price: Number = nan
    best_bid_amount: Number = nan
    best_bid_iv: Number = msgspec.field(default=nan, name="bestBidIV")
    best_ask_price: Number = nan
    best_ask_amount: Number = nan
    best_ask_iv: Number = msgspec.field(default=nan, name="bestAskIV")
    last_price: Number = nan
    open_interest: Number = nan
    mark_price: Number = nan
    mark_iv: Number = msgspec.field(default=nan, name="markIV")
    delta: Number = nan
    gamma: Number = nan
    vega: Number = nan
    theta: Number = nan
    rho: Number = nan
    underlying_price: Number = nan


class Disconnect(msgspec.Struct, eq=False, tag_field="type", tag="disconnect", rename="camel"):
    """The machine lost its connection to `exchange`; live it names the symbols that it carried."""

    exchange: str
    symbols: list[str] | None = None
    local_timestamp: str = ""
    symbol: str = ""


class MachineError(msgspec.Struct, eq=False, tag_field="type", tag="error", rename="camel"):
    """The machine could not connect to `exchange`, or understand it; the machine itself tries again."""

    exchange: str = ""
    details: str = ""
    sub_sequent_errors_count: int = 0
    symbol: str = ""


class _NotOurs(msgspec.Struct, eq=False, tag_field="type"):
    exchange: str = ""
    symbol: str = ""


class BookChange(_NotOurs, tag="book_change"):
    """Level changes; books come as snapshots."""


class BookTicker(_NotOurs, tag="book_ticker"):
    """Best bid and ask."""


class TradeBar(_NotOurs, tag="trade_bar"):
    """Bars."""


Row = Trade | Liquidation | BookSnapshot | DerivativeTicker | OptionSummary
Message = Row | Disconnect | MachineError | BookChange | BookTicker | TradeBar

decode_message: Final = msgspec.json.Decoder(Message).decode


class _Head(msgspec.Struct, gc=False):
    type: str


_decode_head: Final = msgspec.json.Decoder(_Head).decode
_KNOWN: Final = frozenset(
    str(kind.__struct_config__.tag)
    for kind in (Trade, Liquidation, BookSnapshot, DerivativeTicker, OptionSummary, Disconnect, MachineError,
                 BookChange, BookTicker, TradeBar)
)  # fmt: skip


def unknown_type(frame: bytes) -> str | None:
    """The type of a message of a kind that is not listed here; None where it is listed, or is no message."""
    try:
        name = _decode_head(frame).type
    except msgspec.DecodeError:
        return None
    return None if name in _KNOWN else name

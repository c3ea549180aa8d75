"""What Deribit's frames look like: typed layouts, and how a frame that does not fit is taken apart.

One layout holds the data of every channel, so that a batch of mixed frames goes through one decoder. A field that did
not come keeps a value that none has. A frame that does not fit is looked at again: it may be about something else, or a
list of trades of which one is broken.
https://docs.deribit.com/#subscriptions
"""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from typing import Annotated, Final, Literal

import msgspec

from market_data_tick_handler.errors import ProtocolViolation

SUBSCRIPTION: Final = "subscription"
TRADES: Final = "trades"
BOOK: Final = "book"
TICKER: Final = "ticker"
CHANNELS: Final = frozenset({TRADES, BOOK, TICKER})
_SHOWN_BYTES: Final = 200

# Milliseconds that still fit into 64 bits as microseconds.
_Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_Sequence = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
# Neither NaN nor infinity, which text fields could spell.
_Quantity = Annotated[float, msgspec.Meta(ge=0.0, le=1e300)]


class Trade(msgspec.Struct, gc=False, eq=False):
    """One trade, in a channel or over REST. liquidation: who was liquidated, T taker, M maker, MT both, none nobody."""

    trade_seq: _Sequence = -1
    trade_id: str = ""
    timestamp: _Milliseconds = 0
    price: float = nan
    amount: float = nan
    direction: Literal["buy", "sell"] | None = None
    liquidation: str | None = None


class Level(msgspec.Struct, array_like=True, gc=False, eq=False):
    action: Literal["new", "change", "delete"]
    price: _Quantity
    amount: _Quantity


class Greeks(msgspec.Struct, gc=False, eq=False):
    delta: float | None = None
    gamma: float | None = None
    vega: float | None = None
    theta: float | None = None
    rho: float | None = None


class Data(msgspec.Struct, gc=False, eq=False):
    """The data of a book or of a ticker."""

    timestamp: _Milliseconds = 0
    # Books.
    type: str = ""
    change_id: _Sequence = -1
    prev_change_id: _Sequence | None = None
    bids: list[Level] | None = None
    asks: list[Level] | None = None
    # Tickers.
    instrument_name: str = ""
    current_funding: float | None = None
    open_interest: float | None = None
    last_price: float | None = None
    index_price: float | None = None
    mark_price: float | None = None
    # Tickers of options.
    best_bid_price: float | None = None
    best_bid_amount: float | None = None
    bid_iv: float | None = None
    best_ask_price: float | None = None
    best_ask_amount: float | None = None
    ask_iv: float | None = None
    mark_iv: float | None = None
    underlying_price: float | None = None
    greeks: Greeks | None = None


class Params(msgspec.Struct, gc=False, eq=False):
    channel: str = ""
    data: list[Trade] | Data | None = None


class Frame(msgspec.Struct, gc=False, eq=False):
    method: str = ""
    params: Params | None = None


class _RawParams(msgspec.Struct, gc=False, eq=False):
    channel: str = ""
    data: msgspec.Raw = msgspec.Raw(b"null")


class _RawFrame(msgspec.Struct, gc=False, eq=False):
    """Enough of any frame to tell what it is about."""

    method: str = ""
    params: _RawParams | None = None


# Numbers may come as text.
_decode: Final = msgspec.json.Decoder(Frame, strict=False).decode
_decode_head: Final = msgspec.json.Decoder(_RawFrame).decode
_decode_list: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_trade: Final = msgspec.json.Decoder(Trade, strict=False).decode


def read_frames(frames: Sequence[bytes], violations: list[ProtocolViolation]) -> list[Frame | None]:
    """One entry per frame; None where it cannot be read, which is then among `violations`."""
    try:
        return list(map(_decode, frames))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return [_read_carefully(raw, violations) for raw in frames]


def channel_kind(channel: str) -> str:
    """TRADES, BOOK or TICKER of a channel of one instrument, `kind.INSTRUMENT.interval`; empty for any other."""
    kind, _, rest = channel.partition(".")
    return kind if kind in CHANNELS and rest.count(".") == 1 else ""


def violation(raw: bytes, why: str) -> ProtocolViolation:
    """What is wrong with a frame."""
    shown = raw[:_SHOWN_BYTES].decode("utf-8", "replace")
    return ProtocolViolation(
        f"expected a Deribit frame, got {shown!r} ({why}); left out; if it repeats, the format has changed", raw=raw
    )


def _read_carefully(raw: bytes, violations: list[ProtocolViolation]) -> Frame | None:
    try:
        return _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        why = str(error)
    try:
        head = _decode_head(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        violations.append(violation(raw, why))
        return None
    channel = head.params.channel if head.params is not None else ""
    kind = channel_kind(channel)
    if head.method != SUBSCRIPTION or not kind:
        return Frame(head.method, Params(channel))
    if kind == TRADES and head.params is not None:
        return _good_trades(raw, head.params, violations)
    violations.append(violation(raw, why))
    return None


def _good_trades(raw: bytes, params: _RawParams, violations: list[ProtocolViolation]) -> Frame | None:
    """The frame without its broken trades; None where no trade is left."""
    try:
        parts = _decode_list(params.data)
    except msgspec.DecodeError as error:
        violations.append(violation(raw, str(error)))
        return None
    trades: list[Trade] = []
    for part in parts:
        try:
            trades.append(_decode_trade(part))
        except msgspec.DecodeError as error:
            violations.append(violation(raw, str(error)))
    return Frame(SUBSCRIPTION, Params(params.channel, trades)) if trades else None

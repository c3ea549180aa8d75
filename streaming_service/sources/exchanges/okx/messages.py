"""What OKX says, field by field: the items in the `data` of frames and of answers over REST."""

from __future__ import annotations

from math import nan
from typing import Annotated, Final, Literal

import msgspec

# Numbers come as text, and as an empty one where there is none.
Number = float | str
# Milliseconds that still fit once they are microseconds.
_LAST_MS: Final = (2**63 - 1) // 1_000
Stamp = Annotated[int, msgspec.Meta(ge=1, le=_LAST_MS)]
# Where a time may be absent.
_StampOrNone = Annotated[int, msgspec.Meta(ge=0, le=_LAST_MS)]
# Prices and amounts; the bound keeps out infinities and what is no number.
_Finite = Annotated[float, msgspec.Meta(ge=0, le=1e300)]
_Sequence = Annotated[int, msgspec.Meta(ge=-1, le=2**63 - 1)]

UNNUMBERED: Final = -2
_LARGEST: Final = 1.7976931348623157e308


class Trade(msgspec.Struct, gc=False, eq=False):
    """One of `trades`, `trades-all`, and of the answers about trades over REST."""

    tradeId: str
    px: _Finite
    sz: _Finite
    side: Literal["buy", "sell"]
    ts: Stamp


class Level(msgspec.Struct, array_like=True, gc=False, eq=False):
    """Price and amount of a book level; a number that is always "0" and the number of orders follow."""

    px: _Finite
    sz: _Finite


class Book(msgspec.Struct, gc=False, eq=False):
    """One of `books`, `books-l2-tbt`, `books50-l2-tbt`. Recordings of 2023 have no sequence ids yet."""

    asks: list[Level]
    bids: list[Level]
    ts: _StampOrNone
    seqId: _Sequence = UNNUMBERED
    prevSeqId: _Sequence = UNNUMBERED


class Ticker(msgspec.Struct, gc=False, eq=False):
    """One of `tickers`, `open-interest`, `mark-price`, `index-tickers`, `funding-rate`: each has fields of its own."""

    instId: str
    ts: _StampOrNone = 0
    last: Number = ""
    bidPx: Number = ""
    bidSz: Number = ""
    askPx: Number = ""
    askSz: Number = ""
    oi: Number = ""
    markPx: Number = ""
    idxPx: Number = ""
    fundingRate: Number = ""
    nextFundingRate: Number = ""
    fundingTime: Number = ""


class Summary(msgspec.Struct, gc=False, eq=False):
    """One of `opt-summary`: greeks and volatilities of one option."""

    instId: str
    ts: Stamp
    uly: str = ""
    bidVol: Number = ""
    askVol: Number = ""
    markVol: Number = ""
    delta: Number = ""
    gamma: Number = ""
    vega: Number = ""
    theta: Number = ""


class Fill(msgspec.Struct, gc=False, eq=False):
    """One liquidation: `bkPx` is the bankruptcy price, `side` that of the order that closed the position."""

    bkPx: _Finite
    sz: _Finite
    side: Literal["buy", "sell"]
    ts: Stamp


class Liquidation(msgspec.Struct, gc=False, eq=False):
    """One of `liquidation-orders`: liquidations of one instrument."""

    instId: str
    details: list[Fill]


def number(value: Number) -> float:
    """A number that may be written as text; NaN for an empty text, for what is no number, and for an infinity."""
    if value == "":
        return nan
    try:
        found = float(value)
    except ValueError:
        return nan
    return found if -_LARGEST <= found <= _LARGEST else nan

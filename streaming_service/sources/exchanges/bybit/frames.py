"""Bybit v5 frames as structs: the layouts, which channel a frame is of, and decoding that survives a bad frame.

https://bybit-exchange.github.io/docs/v5/ws/connect
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Final, Generic, Literal, TypeVar

import msgspec
import numpy as np

from market_data_tick_handler.core.ticks import Array
from market_data_tick_handler.errors import ProtocolViolation
from streaming_service.sources.exchanges.protocol import Decoded, Stream

_SHOWN_BYTES: Final = 200

# Milliseconds until the year 2255: more would not fit into int64 microseconds after arithmetic with them.
Milliseconds = Annotated[int, msgspec.Meta(ge=1, le=9_000_000_000_000)]
UpdateId = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
Levels = list[tuple[float, float]]
T = TypeVar("T")
Decode = Callable[[bytes], T]

# Text that is no UTF-8 and endless nesting are not wrapped by msgspec.
UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Channel(StrEnum):
    """First part of a topic. OLD_LIQUIDATIONS was in force until 2025-02-26; CHAIN is ours, for the answers of REST."""

    TRADES = "publicTrade"
    BOOK = "orderbook"
    TICKERS = "tickers"
    LIQUIDATIONS = "allLiquidation"
    OLD_LIQUIDATIONS = "liquidation"
    CHAIN = "chain"


class Trade(msgspec.Struct, gc=False, eq=False):
    """Of `publicTrade`: `S` is the side of the taker, `i` a UUID (contracts, options) or a number (spot)."""

    T: Milliseconds
    s: str
    S: str
    v: float
    p: float
    i: str


class Liquidation(msgspec.Struct, gc=False, eq=False):
    """Of `allLiquidation`: `S` is the side of the position, `Buy` a long one; `p` the bankruptcy price."""

    T: Milliseconds
    s: str
    S: str
    v: float
    p: float


class OldLiquidation(msgspec.Struct, gc=False, eq=False):
    symbol: str
    side: str
    size: float
    price: float


class Book(msgspec.Struct, gc=False, eq=False):
    b: Levels
    a: Levels
    u: UpdateId


class Ticker(msgspec.Struct, gc=False, eq=False):
    """Of a contract; in a delta an absent field has not changed."""

    fundingRate: float | None = None
    nextFundingTime: float | None = None
    openInterest: float | None = None
    lastPrice: float | None = None
    indexPrice: float | None = None
    markPrice: float | None = None


class OptionTicker(msgspec.Struct, gc=False, eq=False):
    """Of an option, over the socket; always complete, 0 where there is nothing."""

    symbol: str
    openInterest: float | None = None
    lastPrice: float | None = None
    bidPrice: float | None = None
    bidSize: float | None = None
    bidIv: float | None = None
    askPrice: float | None = None
    askSize: float | None = None
    askIv: float | None = None
    markPrice: float | None = None
    markPriceIv: float | None = None
    underlyingPrice: float | None = None
    delta: float | None = None
    gamma: float | None = None
    vega: float | None = None
    theta: float | None = None


class ListedOption(OptionTicker, gc=False, eq=False):
    """The ticker of an option, over REST."""

    bidPrice: float | None = msgspec.field(default=None, name="bid1Price")
    bidSize: float | None = msgspec.field(default=None, name="bid1Size")
    bidIv: float | None = msgspec.field(default=None, name="bid1Iv")
    askPrice: float | None = msgspec.field(default=None, name="ask1Price")
    askSize: float | None = msgspec.field(default=None, name="ask1Size")
    askIv: float | None = msgspec.field(default=None, name="ask1Iv")
    markPriceIv: float | None = msgspec.field(default=None, name="markIv")


class ListedOptions(msgspec.Struct, gc=False, eq=False, rename={"options": "list"}):
    options: list[ListedOption]


class OptionList(msgspec.Struct, gc=False, eq=False):
    """Answer of `/v5/market/tickers?category=option`."""

    time: Milliseconds
    result: ListedOptions


class ChainFrame(msgspec.Struct, gc=False, eq=False):
    data: OptionList


class RowsFrame(msgspec.Struct, Generic[T], gc=False, eq=False):
    """A frame of several rows."""

    topic: str
    data: list[T]


class OldLiquidationFrame(msgspec.Struct, gc=False, eq=False):
    topic: str
    ts: Milliseconds
    data: OldLiquidation


class BookFrame(msgspec.Struct, gc=False, eq=False):
    topic: str
    type: Literal["snapshot", "delta"]
    ts: Milliseconds
    data: Book


class TickerFrame(msgspec.Struct, gc=False, eq=False):
    topic: str
    ts: Milliseconds
    data: Ticker


class OptionTickerFrame(msgspec.Struct, gc=False, eq=False):
    topic: str
    ts: Milliseconds
    data: OptionTicker


class _Head(msgspec.Struct, gc=False):
    """Enough of any frame to tell what it is about."""

    topic: str | None = None


# Numbers come as text.
decode_trade: Final = msgspec.json.Decoder(Trade, strict=False).decode
decode_trades: Final = msgspec.json.Decoder(RowsFrame[Trade], strict=False).decode
decode_liquidation: Final = msgspec.json.Decoder(Liquidation, strict=False).decode
decode_liquidations: Final = msgspec.json.Decoder(RowsFrame[Liquidation], strict=False).decode
decode_old_liquidation: Final = msgspec.json.Decoder(OldLiquidationFrame, strict=False).decode
decode_rows: Final = msgspec.json.Decoder(RowsFrame[msgspec.Raw]).decode
decode_book: Final = msgspec.json.Decoder(BookFrame, strict=False).decode
_decode_ticker: Final = msgspec.json.Decoder(TickerFrame, strict=False).decode
_decode_option: Final = msgspec.json.Decoder(OptionTickerFrame, strict=False).decode
_decode_chain: Final = msgspec.json.Decoder(ChainFrame, strict=False).decode
_decode_head: Final = msgspec.json.Decoder(_Head).decode

# Most frames begin with the topic; those of options with an id that begins with the topic.
_AFTER_TOPIC: Final = slice(10, 14)
_AFTER_ID: Final = slice(7, 11)
_BEGINNINGS: Final = {channel.value[:4].encode(): channel for channel in Channel}
_CHANNELS: Final = {channel.value: channel for channel in Channel}


def decode_ticker(frame: bytes) -> TickerFrame:
    """Empty text is how Bybit writes that a field has no value."""
    return _decode_ticker(frame.replace(b'""', b"null"))


def decode_option(frame: bytes) -> OptionTickerFrame:
    return _decode_option(frame.replace(b'""', b"null"))


def decode_chain(frame: bytes) -> ChainFrame:
    return _decode_chain(frame.replace(b'""', b"null"))


def wrap_chain(base: str, body: bytes) -> bytes:
    """The answer of REST about all options of a coin as a frame."""
    return b'{"topic":"chain.%s","generated":true,"data":%s}' % (base.encode(), body)


@dataclass(slots=True)
class Arrivals:
    """One batch on its way through the decoder: the frames, when they arrived, and what became of them so far."""

    frames: Sequence[bytes]
    local_us: Array
    out: Decoded = field(default_factory=Decoded)

    def sort(self) -> dict[Channel, list[int]]:
        """Indices of the frames of each channel. All others go to `out`: what has no topic or one of no known channel
        is control, what cannot be read a violation."""
        found: dict[Channel, list[int]] = {}
        for index, frame in enumerate(self.frames):
            channel = _BEGINNINGS.get(frame[_AFTER_TOPIC]) or _BEGINNINGS.get(frame[_AFTER_ID])
            if channel is None:
                channel = self._channel_of(index)
                if channel is None:
                    continue
            found.setdefault(channel, []).append(index)
        return found

    def decode(self, decode: Decode[T], at: list[int]) -> tuple[list[T], list[int]]:
        """The frames at `at` that are good, and where they were; the others are violations."""
        decoded, kept, broken = self.try_decode(decode, at)
        for index, why in broken:
            self.violate(self.frames[index], why)
        return decoded, kept

    def try_decode(self, decode: Decode[T], at: list[int]) -> tuple[list[T], list[int], list[tuple[int, str]]]:
        """The frames at `at` that are good, where they were, and where the others were and why they are not."""
        try:
            return list(map(decode, [self.frames[index] for index in at])), at, []
        except UNREADABLE:
            decoded: list[T] = []
            kept: list[int] = []
            broken: list[tuple[int, str]] = []
            for index in at:
                try:
                    decoded.append(decode(self.frames[index]))
                    kept.append(index)
                except UNREADABLE as error:
                    broken.append((index, str(error)))
            return decoded, kept, broken

    def filter(self, stream: Stream, count: int = 1) -> None:
        self.out.filtered[stream] = self.out.filtered.get(stream, 0) + count

    def violate(self, raw: bytes, why: str) -> None:
        shown = raw[:_SHOWN_BYTES].decode("utf-8", "replace")
        self.out.violations.append(
            ProtocolViolation(
                f"expected a Bybit v5 frame, got {shown!r} ({why}); left out; if it repeats, the format has changed",
                raw=raw,
            )
        )

    def _channel_of(self, index: int) -> Channel | None:
        try:
            topic = _decode_head(self.frames[index]).topic
        except UNREADABLE as error:
            self.violate(self.frames[index], str(error))
            return None
        channel = _CHANNELS.get(topic.partition(".")[0]) if topic else None
        if channel is None:
            self.out.control.append(index)
        return channel


def by_name(names: Sequence[str]) -> dict[str, Array | None]:
    """Indices by name in order of appearance; None stands for all of them."""
    distinct = dict.fromkeys(names)
    if len(distinct) < 2:
        return dict.fromkeys(distinct)
    codes = {name: code for code, name in enumerate(distinct)}
    each = np.fromiter(map(codes.__getitem__, names), np.int64, len(names))
    order = np.argsort(each, kind="stable")
    starts = np.searchsorted(each[order], np.arange(1, len(codes)))
    return dict(zip(codes, np.split(order, starts), strict=True))

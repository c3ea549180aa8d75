"""Binance option summaries as `options_chain` rows, with last prices and open interest from the streams beside them.

A summary (`@optionMarkPrice`, until 2025-12-17 `@ticker`) gives a row; the other streams only change what the next row
of an option says. Zeros where a price, amount, volatility or Greek should be mean that there is none, and so does a
volatility of -1. The old summary has a volatility of the mark price that the vendor leaves out; so is it here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import nan
from typing import Annotated, Final, Generic, TypeVar

import msgspec
import numpy as np

from market_data_tick_handler.core.ids import hash_text
from market_data_tick_handler.core.instruments import instrument_from_venue_symbol
from market_data_tick_handler.core.ticks import BUY, SELL, Array, DataType, TickBatch
from market_data_tick_handler.errors import InstrumentError
from streaming_service.sources.exchanges.binance.frames import (
    UNREADABLE,
    Channel,
    count_filtered,
    violation,
)
from streaming_service.sources.exchanges.binance.times import to_us
from streaming_service.sources.exchanges.protocol import Decoded

_EXCHANGE: Final = "binance-european-options"
_QUOTE: Final = "USDT"
_NO_VOLATILITY: Final = -1.0
# Fields of a summary that are columns as they stand; 0 in them means none.
_FIELDS: Final[Mapping[str, str]] = {
    "bo": "bid_price",
    "bq": "bid_amount",
    "b": "bid_iv",
    "ao": "ask_price",
    "aq": "ask_amount",
    "a": "ask_iv",
    "mp": "mark_price",
    "d": "delta",
    "g": "gamma",
    "v": "vega",
    "t": "theta",
}


_Data = TypeVar("_Data")


class Summary(msgspec.Struct, gc=False, eq=False):
    """Prices `bo ao mp`, amounts `bq aq`, volatilities `b a vo`, Greeks `d g v t`; `i` index price in the new layout,
    `c` last price in the old one."""

    s: str
    E: Annotated[int, msgspec.Meta(gt=0)]
    bo: float = nan
    bq: float = nan
    b: float = nan
    ao: float = nan
    aq: float = nan
    a: float = nan
    mp: float = nan
    vo: float = nan
    d: float = nan
    g: float = nan
    v: float = nan
    t: float = nan
    i: float = nan
    c: float = nan


class LastPrice(msgspec.Struct, gc=False):
    """Of `@optionTicker`."""

    s: str
    c: float


class RestTicker(msgspec.Struct, gc=False):
    """Of GET /eapi/v1/ticker."""

    symbol: str
    lastPrice: float


class OpenInterest(msgspec.Struct, gc=False):
    """`o`: contracts."""

    s: str
    o: float


class Index(msgspec.Struct, gc=False):
    """Index price of a pair."""

    s: str
    p: float


class _Frame(msgspec.Struct, Generic[_Data], gc=False):
    data: _Data


_decode_summaries: Final = msgspec.json.Decoder(_Frame[list[Summary]], strict=False).decode
_decode_summary: Final = msgspec.json.Decoder(_Frame[Summary], strict=False).decode
_decode_last_price: Final = msgspec.json.Decoder(_Frame[LastPrice], strict=False).decode
_decode_tickers: Final = msgspec.json.Decoder(_Frame[list[RestTicker]], strict=False).decode
_decode_open_interests: Final = msgspec.json.Decoder(_Frame[list[OpenInterest]], strict=False).decode
_decode_index: Final = msgspec.json.Decoder(_Frame[Index], strict=False).decode


@dataclass(frozen=True, slots=True)
class _Option:
    """What the symbol of an option says."""

    symbol_hash: int
    option_type: int
    strike_price: float
    expiration: int


@dataclass(slots=True)
class _Gathered:
    """Summaries of one chain with what the streams beside them last said of each option."""

    summaries: list[Summary] = field(default_factory=list)
    options: list[_Option] = field(default_factory=list)
    local_us: list[int] = field(default_factory=list)
    last_price: list[float] = field(default_factory=list)
    open_interest: list[float] = field(default_factory=list)
    underlying_price: list[float] = field(default_factory=list)
    mark_iv: list[float] = field(default_factory=list)

    def rows(self) -> TickBatch:
        columns = {
            name: _or_nan(np.array([getattr(summary, letters) for summary in self.summaries], np.float64))
            for letters, name in _FIELDS.items()
        }
        for side in ("bid", "ask"):
            volatility, price = columns[f"{side}_iv"], columns[f"{side}_price"]
            columns[f"{side}_iv"] = np.where((volatility == _NO_VOLATILITY) | np.isnan(price), nan, volatility)
        return TickBatch.build(
            DataType.OPTIONS,
            {
                "timestamp": to_us(np.array([summary.E for summary in self.summaries], np.int64)),
                "local_timestamp": self.local_us,
                "symbol": [summary.s for summary in self.summaries],
                "symbol_hash": [option.symbol_hash for option in self.options],
                "option_type": [option.option_type for option in self.options],
                "strike_price": [option.strike_price for option in self.options],
                "expiration": [option.expiration for option in self.options],
                "open_interest": self.open_interest,
                "last_price": _or_nan(np.array(self.last_price)),
                "underlying_price": _or_nan(np.array(self.underlying_price)),
                "mark_iv": _or_nan(np.array(self.mark_iv)),
                **columns,
            },
        )


class ChainFeed:
    """The chains of one connection. symbols: options that are wanted, by key of their chain; None: all."""

    __slots__ = ("_index", "_last", "_open_interest", "_options", "_symbols")

    def __init__(self, symbols: Mapping[str, Collection[str] | None]) -> None:
        self._symbols = symbols
        self._options: dict[str, _Option | None] = {}
        self._last: dict[str, float] = {}
        self._open_interest: dict[str, float] = {}
        self._index: dict[str, float] = {}

    def decode(
        self, frames: Sequence[bytes], local_us: Array, found: Mapping[Channel, Mapping[str, Array]], decoded: Decoded
    ) -> list[tuple[str, TickBatch]]:
        """Rows by key of the chain. found: where the frames of each channel and chain are."""
        gathered: dict[str, _Gathered] = {}
        order = sorted(
            (place, channel, chain)
            for channel, chains in found.items()
            for chain, places in chains.items()
            for place in places.tolist()
        )
        for place, channel, chain in order:
            try:
                summaries = self._read(frames[place], channel)
            except UNREADABLE as error:
                decoded.violations.append(violation(frames[place], str(error)))
                continue
            if summaries:
                whose = gathered.setdefault(chain, _Gathered())
                before = len(whose.summaries)
                unknown = self._gather(summaries, chain, whose, old=channel is Channel.TICKER)
                whose.local_us.extend([int(local_us[place])] * (len(whose.summaries) - before))
                decoded.violations.extend(
                    violation(frames[place], f"{symbol!r} is no symbol of an option") for symbol in unknown
                )
                unwanted = len(summaries) - len(unknown) - (len(whose.summaries) - before)
                count_filtered(decoded, (chain, DataType.OPTIONS), unwanted)
        return [(chain, whose.rows()) for chain, whose in gathered.items() if whose.summaries]

    def _read(self, frame: bytes, channel: Channel) -> list[Summary]:
        """The summaries in a frame; of any other frame what it says is remembered."""
        match channel:
            case Channel.OPTION_MARK_PRICE:
                return _decode_summaries(frame).data
            case Channel.TICKER:
                return [_decode_summary(frame).data]
            case Channel.OPTION_TICKER:
                last = _decode_last_price(frame).data
                self._last.update({last.s: last.c} if last.c > 0.0 else {})
            case Channel.ARRAY:
                tickers = _decode_tickers(frame).data
                self._last.update({ticker.symbol: ticker.lastPrice for ticker in tickers if ticker.lastPrice > 0.0})
            case Channel.INDEX:
                index = _decode_index(frame).data
                self._index.update({index.s: index.p} if index.p > 0.0 else {})
            case _:
                interests = _decode_open_interests(frame).data
                self._open_interest.update({each.s: each.o for each in interests if each.o >= 0.0})
        return []

    def _gather(self, summaries: Sequence[Summary], chain: str, whose: _Gathered, *, old: bool) -> list[str]:
        """Take the summaries of options that are wanted; symbols that are none come back."""
        symbols = self._symbols[chain]
        unknown = []
        for summary in summaries:
            option = self._option(summary.s)
            if option is None:
                unknown.append(summary.s)
                continue
            if symbols is not None and summary.s not in symbols:
                continue
            whose.summaries.append(summary)
            whose.options.append(option)
            whose.open_interest.append(self._open_interest.get(summary.s, nan))
            if old:
                whose.last_price.append(summary.c)
                whose.underlying_price.append(self._index.get(f"{summary.s.partition('-')[0]}{_QUOTE}", nan))
                whose.mark_iv.append(nan)
            else:
                whose.last_price.append(self._last.get(summary.s, nan))
                whose.underlying_price.append(summary.i)
                whose.mark_iv.append(summary.vo)
        return unknown

    def _option(self, symbol: str) -> _Option | None:
        if symbol not in self._options:
            try:
                found = instrument_from_venue_symbol(_EXCHANGE, symbol)
                kind = BUY if found.option_type == "CALL" else SELL
                self._options[symbol] = _Option(hash_text(symbol), kind, found.strike, found.expiry_us)
            except InstrumentError:
                self._options[symbol] = None
        return self._options[symbol]


def _or_nan(values: Array) -> Array:
    """Numbers that are there; what the venue writes where there is none becomes NaN."""
    return np.where((values == 0.0) | ~np.isfinite(values), nan, values)

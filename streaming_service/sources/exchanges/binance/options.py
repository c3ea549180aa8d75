"""Frames of one connection to Binance European options as tick columns, in both layouts since 2023.

Until 2025-12-17 streams had upper-case names and a summary of an option came in its `@ticker`, the index price and the
open interest apart from it; since then `@optionMarkPrice` has all options of an underlying at once with everything but
the last price and the open interest. Books are whole in each message. Rows of `options_chain` belong to the chain.
https://developers.binance.com/docs/derivatives/options-trading/websocket-market-streams
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Final, Literal

import msgspec
import numpy as np

from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.instruments import (
    InstrumentDefinition,
    InstrumentType,
    instrument_from_venue_symbol,
    parse_instrument_key,
)
from market_data_tick_handler.core.order_book import OrderBook
from market_data_tick_handler.core.ticks import BUY, ID_INTEGER, SELL, Array, DataType, TickBatch
from market_data_tick_handler.errors import InstrumentError
from streaming_service.sources.exchanges.binance.chains import ChainFeed
from streaming_service.sources.exchanges.binance.decoder import take_trades
from streaming_service.sources.exchanges.binance.frames import Channel, Reader, Route, Routes, Wrapped
from streaming_service.sources.exchanges.binance.times import to_us
from streaming_service.sources.exchanges.binance.trades import decode_trades, trade_routes
from streaming_service.sources.exchanges.binance.updates import Level, Levels
from streaming_service.sources.exchanges.protocol import Decoded

EXCHANGE: Final = "binance-european-options"
ALL_TICKERS: Final = "!optionTicker"

DATA_TYPES: Final[Mapping[Channel, DataType]] = {
    Channel.TRADE: DataType.TRADES,
    Channel.OPTION_TRADE: DataType.TRADES,
    Channel.DEPTH_20: DataType.BOOK,
    Channel.DEPTH_100: DataType.BOOK,
    Channel.TICKER: DataType.OPTIONS,
    Channel.INDEX: DataType.OPTIONS,
    Channel.MARK_PRICE: DataType.OPTIONS,
    Channel.OPEN_INTEREST: DataType.OPTIONS,
    Channel.OPTION_TICKER: DataType.OPTIONS,
    Channel.OPTION_MARK_PRICE: DataType.OPTIONS,
    Channel.OPTION_OPEN_INTEREST: DataType.OPTIONS,
    Channel.ARRAY: DataType.OPTIONS,
}
_ENDINGS: Final[Mapping[Channel, tuple[str, ...]]] = {
    Channel.DEPTH_20: ("@100ms", "@500ms"),
    Channel.DEPTH_100: ("@100ms", "@500ms"),
}
_UPPER: Final = (Channel.TRADE, Channel.DEPTH_100, Channel.TICKER)
_LOWER: Final = (Channel.OPTION_TRADE, Channel.DEPTH_20, Channel.OPTION_TICKER)
_OF_CHAINS: Final = frozenset(DATA_TYPES) - {
    Channel.TRADE, Channel.OPTION_TRADE, Channel.DEPTH_20, Channel.DEPTH_100, Channel.MARK_PRICE,
}  # fmt: skip
_SOLD: Final = frozenset({"-1", "SELL"})
_OF_OPTIONS: Final = frozenset({Channel.TICKER, Channel.OPTION_TICKER})
_ByChannel = Mapping[Channel, Mapping[str, Array]]

_Stamp = Annotated[int, msgspec.Meta(gt=0)]


class OldTrade(msgspec.Struct, gc=False, eq=False):
    """A trade as it was until 2025-12-17: `S` is -1 where the taker sold."""

    t: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    p: float
    q: float
    T: _Stamp
    S: Literal["1", "-1", "BUY", "SELL"]

    def is_sound(self) -> bool:
        return self.p == self.p and self.q == self.q


class WholeBook(msgspec.Struct, gc=False, eq=False):
    """The best levels of an option; `T` when they were so, `E` when they were sent."""

    E: _Stamp
    T: _Stamp
    b: list[Level]
    a: list[Level]

    def is_sound(self) -> bool:
        return not Levels.of([self.b, self.a]).broken()


_OLD_TRADES: Final = Reader(msgspec.json.Decoder(Wrapped[OldTrade], strict=False))
_BOOKS: Final = Reader(msgspec.json.Decoder(Wrapped[WholeBook], strict=False))


def underlying_of(instrument: InstrumentDefinition) -> str:
    """What streams of an option or chain call its underlying: BTCUSDT."""
    return instrument.base + instrument.quote


def chain_key_of(instrument: InstrumentDefinition) -> str:
    """Key of the chain of an option, or of a chain itself."""
    return f"{instrument.venue}:{InstrumentType.OPTION_CHAIN}:{instrument.base}-{instrument.quote}"


class OptionsDecoder:
    """Trades and books of options, and rows of chains. Of a chain that is among the instruments every option is
    wanted, of any other those options that are."""

    def __init__(
        self, instruments: Sequence[InstrumentDefinition], data_types: Collection[DataType], *, connection: int = 0
    ) -> None:
        self._wanted = frozenset(data_types)
        self._connection = connection
        options = [i for i in instruments if i.instrument_type is InstrumentType.OPTION]
        self._symbols: dict[str, set[str] | None] = {}
        for option in options:
            self._symbols.setdefault(chain_key_of(option), set()).add(option.venue_symbol)  # type: ignore[union-attr]
        for instrument in instruments:
            if instrument.instrument_type is InstrumentType.OPTION_CHAIN:
                self._symbols[instrument.key] = None
        self._chains = {name: key for key in self._symbols for name in _names_of(parse_instrument_key(key))}
        self._trade_routes = trade_routes(options, Channel.OPTION_TRADE)
        self._routes = Routes(self._named_routes(options), foreign=DATA_TYPES, endings=_ENDINGS, find=self._find)
        self.reset()

    def reset(self) -> None:
        """Forget books and states."""
        self._books: dict[str, OrderBook] = {}
        self._feed = ChainFeed(self._symbols)

    def decode(self, frames: Sequence[bytes], local_us: Array) -> Decoded:
        """See `protocol.Decoder`."""
        decoded = Decoded()
        if not frames:
            return decoded
        found = self._routes.sort(frames, np.arange(len(frames)), decoded)
        self._decode_trades(frames, local_us, found, decoded)
        self._decode_books(frames, local_us, found, decoded)
        of_chains = {channel: subjects for channel, subjects in found.items() if channel in _OF_CHAINS}
        for key, rows in self._feed.decode(frames, local_us, of_chains, decoded):
            decoded.rows.append(Rows(key, rows, self._connection))
        return decoded

    def _named_routes(self, options: Sequence[InstrumentDefinition]) -> dict[tuple[str, Channel], Route]:
        routes: dict[tuple[str, Channel], Route] = {}
        for option in options:
            for symbol, channels in ((option.venue_symbol, _UPPER), (option.venue_symbol.lower(), _LOWER)):
                for channel in channels:
                    key = chain_key_of(option) if channel in _OF_OPTIONS else option.key
                    routes[symbol, channel] = self._route(channel, key, DATA_TYPES[channel])
        if DataType.OPTIONS in self._wanted:
            routes[ALL_TICKERS, Channel.ARRAY] = Route(Channel.ARRAY, "", ("", DataType.OPTIONS))
        return routes

    def _route(self, channel: Channel, key: str, data_type: DataType) -> Route:
        return Route(channel if data_type in self._wanted else Channel.OTHER, key, (key, data_type))

    def _find(self, subject: str, channel: Channel) -> Route | None:
        if channel in _OF_OPTIONS:
            try:
                chain = chain_key_of(instrument_from_venue_symbol(EXCHANGE, subject))
            except InstrumentError:
                return None
        elif channel in _OF_CHAINS:
            chain = self._chains.get(subject, "")
        else:
            return None
        return self._route(channel, chain, DataType.OPTIONS) if chain in self._symbols else None

    def _decode_trades(self, frames: Sequence[bytes], local_us: Array, found: _ByChannel, decoded: Decoded) -> None:
        if by_instrument := found.get(Channel.OPTION_TRADE):
            places = np.sort(np.concatenate(list(by_instrument.values())))
            chosen = [frames[place] for place in places.tolist()]
            trades = decode_trades(chosen, local_us[places], self._trade_routes, connection=self._connection)
            # Nobody documents that ids of options have no holes.
            take_trades(replace(trades, numbers=[]), places, decoded)
        for key, places in found.get(Channel.TRADE, {}).items():
            kept, messages = _OLD_TRADES.read(frames, places, decoded)
            if messages:
                decoded.rows.append(Rows(key, _old_trade_rows(messages, local_us[kept]), self._connection))

    def _decode_books(self, frames: Sequence[bytes], local_us: Array, found: _ByChannel, decoded: Decoded) -> None:
        for channel in (Channel.DEPTH_100, Channel.DEPTH_20):
            for key, places in found.get(channel, {}).items():
                kept, messages = _BOOKS.read(frames, places, decoded)
                if not messages:
                    continue
                # What the vendor takes as the time of a book.
                stamps = [message.T if channel is Channel.DEPTH_20 else message.E for message in messages]
                changes = Levels.of([side for message in messages for side in (message.b, message.a)]).changes(
                    to_us(np.array(stamps, np.int64)), local_us[kept], np.ones(len(messages), np.bool_)
                )
                decoded.changes.append((key, changes))
                rows = self._books.setdefault(key, OrderBook()).apply(changes)
                if len(rows):
                    decoded.rows.append(Rows(key, rows, self._connection))


def _names_of(chain: InstrumentDefinition) -> tuple[str, str]:
    """What streams call an underlying: BTCUSDT, and BTC in the open interest of the old layout."""
    return underlying_of(chain), chain.base


def _old_trade_rows(trades: Sequence[OldTrade], local_us: Array) -> TickBatch:
    return TickBatch.build(
        DataType.TRADES,
        {
            "timestamp": to_us(np.array([trade.T for trade in trades], np.int64)),
            "local_timestamp": local_us,
            "id": [trade.t for trade in trades],
            "id_kind": np.full(len(trades), ID_INTEGER, np.uint8),
            "side": [SELL if trade.S in _SOLD else BUY for trade in trades],
            "price": [trade.p for trade in trades],
            "amount": [trade.q for trade in trades],
        },
    )

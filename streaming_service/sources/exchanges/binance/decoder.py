"""Frames of one connection to Binance spot, USD-M or COIN-M as tick columns."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import compress
from typing import Final

import msgspec
import numpy as np

from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.instruments import InstrumentDefinition
from market_data_tick_handler.core.ticks import Array, DataType
from streaming_service.sources.exchanges.binance.depth import BookFeed, Taken
from streaming_service.sources.exchanges.binance.frames import (
    Channel,
    Reader,
    Route,
    Routes,
    Wrapped,
    count_filtered,
    violation,
)
from streaming_service.sources.exchanges.binance.joining import Joining
from streaming_service.sources.exchanges.binance.liquidations import ForceOrder, liquidation_rows
from streaming_service.sources.exchanges.binance.tickers import (
    IndexPrice,
    MarkPrice,
    OpenInterest,
    PairIndex,
    Ticker,
    TickerFeed,
    Updates,
)
from streaming_service.sources.exchanges.binance.trades import (
    DecodedTrades,
    decode_plain_trades,
    decode_trades,
    trade_routes,
)
from streaming_service.sources.exchanges.binance.updates import Difference, Levels, Snapshot, sides_of
from streaming_service.sources.exchanges.protocol import Decoded

DATA_TYPES: Final[Mapping[Channel, DataType]] = {
    Channel.TRADE: DataType.TRADES,
    Channel.DEPTH: DataType.BOOK,
    Channel.DEPTH_SNAPSHOT: DataType.BOOK,
    Channel.MARK_PRICE: DataType.DERIVATIVE,
    Channel.INDEX_PRICE: DataType.DERIVATIVE,
    Channel.TICKER: DataType.DERIVATIVE,
    Channel.OPEN_INTEREST: DataType.DERIVATIVE,
    Channel.FORCE_ORDER: DataType.LIQUIDATIONS,
}
_ENDINGS: Final[Mapping[Channel, tuple[str, ...]]] = {
    Channel.DEPTH: ("@100ms", "@0ms"),
    Channel.MARK_PRICE: ("@1s",),
    Channel.INDEX_PRICE: ("@1s",),
}
_PLAIN_TRADE: Final = b'@trade"'
# No name of a stream is longer.
_HEAD_BYTES: Final = 64

_DIFFERENCES: Final = Reader(msgspec.json.Decoder(Wrapped[Difference], strict=False))
_SNAPSHOTS: Final = Reader(msgspec.json.Decoder(Wrapped[Snapshot], strict=False))
_MARK_PRICES: Final = Reader(msgspec.json.Decoder(Wrapped[MarkPrice], strict=False))
_TICKERS: Final = Reader(msgspec.json.Decoder(Wrapped[Ticker], strict=False))
_OPEN_INTEREST: Final = Reader(msgspec.json.Decoder(Wrapped[OpenInterest], strict=False))
_INDEX_PRICES: Final = Reader(msgspec.json.Decoder(Wrapped[IndexPrice], strict=False))
_FORCE_ORDERS: Final = Reader(msgspec.json.Decoder(Wrapped[ForceOrder], strict=False))

_NONE: Final = np.empty(0, np.int64)
_ByChannel = Mapping[Channel, Mapping[str, Array]]


class MarketDecoder:
    """Trades, books, tickers and liquidations of the instruments of one connection.

    pair_of: which index price an instrument takes from `@indexPrice`; None where mark prices carry it.
    """

    def __init__(
        self,
        instruments: Sequence[InstrumentDefinition],
        data_types: Collection[DataType],
        *,
        joining: Joining,
        pair_of: Callable[[InstrumentDefinition], str] | None = None,
        connection: int = 0,
    ) -> None:
        self._instruments = {instrument.key: instrument for instrument in instruments}
        self._wanted = frozenset(data_types)
        self._joining = joining
        self._pairs = {} if pair_of is None else {i.key: pair_of(i) for i in instruments}
        self._connection = connection
        self._trade_routes = trade_routes(instruments)
        self._routes = Routes(self._named_routes(), foreign=DATA_TYPES, endings=_ENDINGS)
        self.reset()

    def reset(self) -> None:
        """Forget books and states."""
        self._books: dict[str, BookFeed] = {}
        self._tickers: dict[str, TickerFeed] = {}
        self._indexes = {pair: PairIndex() for pair in self._pairs.values()}

    def decode(self, frames: Sequence[bytes], local_us: Array) -> Decoded:
        """See `protocol.Decoder`."""
        decoded = Decoded()
        if not frames:
            return decoded
        plain = self._nothing_but_trades(frames, local_us)
        if plain is not None:
            decoded.rows, decoded.numbers = plain.rows, plain.numbers
            return decoded
        rest = self._take_plain_trades(frames, local_us, decoded)
        found = self._routes.sort(frames, rest, decoded)
        if Channel.TRADE in found and len(rest) < len(frames):
            # Among the rest is a trade that does not look like one: together again, for the order of the rows.
            decoded = Decoded()
            found = self._routes.sort(frames, np.arange(len(frames)), decoded)
        self._decode_trades(frames, local_us, found, decoded)
        self._decode_books(frames, local_us, found, decoded)
        self._decode_tickers(frames, local_us, found, decoded)
        self._decode_liquidations(frames, local_us, found, decoded)
        return decoded

    def _named_routes(self) -> dict[tuple[str, Channel], Route]:
        routes: dict[tuple[str, Channel], Route] = {}
        for instrument in self._instruments.values():
            for channel, data_type in DATA_TYPES.items():
                wanted = data_type in self._wanted and channel is not Channel.INDEX_PRICE
                routes[instrument.venue_symbol.lower(), channel] = Route(
                    channel if wanted else Channel.OTHER, instrument.key, (instrument.key, data_type)
                )
            routes[instrument.venue_symbol.lower(), Channel.BOOK_TICKER] = Route(
                Channel.OTHER, instrument.key, (instrument.key, DataType.BOOK)
            )
        if DataType.DERIVATIVE in self._wanted:
            for pair in self._pairs.values():
                routes[pair.lower(), Channel.INDEX_PRICE] = Route(
                    Channel.INDEX_PRICE, pair, (pair, DataType.DERIVATIVE)
                )
        return routes

    def _nothing_but_trades(self, frames: Sequence[bytes], local_us: Array) -> DecodedTrades | None:
        """A batch of nothing but plain trades, which is common; where it is something else after all, that shows
        early."""
        if DataType.TRADES in self._wanted and _PLAIN_TRADE in frames[0][:_HEAD_BYTES]:
            return decode_plain_trades(frames, local_us, self._trade_routes, connection=self._connection)
        return None

    def _take_plain_trades(self, frames: Sequence[bytes], local_us: Array, decoded: Decoded) -> Array:
        """Decode the trades among `frames` if all of them are plain; the indices of what is left to do."""
        everything = np.arange(len(frames))
        if DataType.TRADES not in self._wanted:
            return everything
        trades = np.array([frame.find(_PLAIN_TRADE, 0, _HEAD_BYTES) for frame in frames]) >= 0
        if not trades.any():
            return everything
        chosen = list(compress(frames, trades.tolist()))
        plain = decode_plain_trades(chosen, local_us[trades], self._trade_routes, connection=self._connection)
        if plain is None:
            return everything
        take_trades(plain, np.flatnonzero(trades), decoded)
        return np.flatnonzero(~trades)

    def _decode_trades(self, frames: Sequence[bytes], local_us: Array, found: _ByChannel, decoded: Decoded) -> None:
        by_instrument = found.get(Channel.TRADE)
        if not by_instrument:
            return
        places = np.sort(np.concatenate(list(by_instrument.values())))
        chosen = [frames[place] for place in places.tolist()]
        trades = decode_trades(chosen, local_us[places], self._trade_routes, connection=self._connection)
        take_trades(trades, places, decoded)

    def _decode_books(self, frames: Sequence[bytes], local_us: Array, found: _ByChannel, decoded: Decoded) -> None:
        differences, snapshots = found.get(Channel.DEPTH, {}), found.get(Channel.DEPTH_SNAPSHOT, {})
        for key in {**differences, **snapshots}:
            places, messages, levels = _read_differences(frames, differences.get(key, _NONE), decoded)
            at, bodies = _SNAPSHOTS.read(frames, snapshots.get(key, _NONE), decoded)
            before = np.searchsorted(places, at).tolist()
            feed = self._books.get(key)
            if feed is None:
                feed = self._books[key] = BookFeed(self._joining)
            taken = feed.take(
                messages, levels, local_us[places], list(zip(before, local_us[at].tolist(), bodies, strict=True))
            )
            self._take_book(key, taken, decoded)

    def _take_book(self, key: str, taken: Taken, decoded: Decoded) -> None:
        decoded.changes.extend((key, changes) for changes in taken.changes)
        decoded.rows.extend(Rows(key, rows, self._connection) for rows in taken.rows)
        count_filtered(decoded, (key, DataType.BOOK), taken.dropped)
        if taken.broken:
            decoded.resync[key] = taken.broken

    def _decode_tickers(self, frames: Sequence[bytes], local_us: Array, found: _ByChannel, decoded: Decoded) -> None:
        for pair, places in found.get(Channel.INDEX_PRICE, {}).items():
            self._indexes[pair].take(*_INDEX_PRICES.read(frames, places, decoded))
        updates: dict[str, list[Updates]] = {}
        for key, places in found.get(Channel.MARK_PRICE, {}).items():
            updates.setdefault(key, []).append(Updates.of_marks(*_MARK_PRICES.read(frames, places, decoded)))
        for key, places in found.get(Channel.TICKER, {}).items():
            updates.setdefault(key, []).append(Updates.of_tickers(*_TICKERS.read(frames, places, decoded)))
        for key, places in found.get(Channel.OPEN_INTEREST, {}).items():
            read = _OPEN_INTEREST.read(frames, places, decoded)
            updates.setdefault(key, []).append(Updates.of_open_interest(*read))
        for key, parts in updates.items():
            if not any(len(part.places) for part in parts):
                continue
            feed = self._tickers.setdefault(key, TickerFeed())
            rows = feed.take(parts, local_us, self._indexes.get(self._pairs.get(key, "")))
            if len(rows):
                decoded.rows.append(Rows(key, rows, self._connection))
        for index in self._indexes.values():
            index.close()

    def _decode_liquidations(
        self, frames: Sequence[bytes], local_us: Array, found: _ByChannel, decoded: Decoded
    ) -> None:
        for key, places in found.get(Channel.FORCE_ORDER, {}).items():
            kept, messages = _FORCE_ORDERS.read(frames, places, decoded)
            rows = liquidation_rows(messages, local_us[kept])
            count_filtered(decoded, (key, DataType.LIQUIDATIONS), len(messages) - len(rows))
            if len(rows):
                decoded.rows.append(Rows(key, rows, self._connection))


def take_trades(trades: DecodedTrades, places: Array, decoded: Decoded) -> None:
    """Add what became of the frames at `places` to what became of the batch."""
    decoded.rows.extend(trades.rows)
    decoded.numbers.extend(trades.numbers)
    decoded.violations.extend(trades.violations)
    decoded.control.extend(places[np.array(trades.others, np.int64)].tolist())
    for key, count in trades.filtered.items():
        count_filtered(decoded, (key, DataType.TRADES), count)


def _read_differences(
    frames: Sequence[bytes], places: Array, decoded: Decoded
) -> tuple[Array, list[Difference], Levels]:
    """Differences whose levels make sense, and their places. The lack of one that does not shows in the next."""
    places, messages = _DIFFERENCES.read(frames, places, decoded)
    levels = Levels.of(sides_of(messages))
    broken = levels.broken()
    if not broken:
        return places, messages, levels
    for index in broken:
        decoded.violations.append(violation(frames[int(places[index])], "a price or an amount is none"))
    kept = np.delete(np.arange(len(messages)), broken)
    messages = [messages[index] for index in kept.tolist()]
    return places[kept], messages, Levels.of(sides_of(messages))

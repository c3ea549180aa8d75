"""Bybit frames of one connection to tick columns: sorts them by channel and instrument and keeps books and tickers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

import numpy as np

from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.instruments import (
    InstrumentDefinition,
    InstrumentType,
    chain_of,
    instrument_from_venue_symbol,
)
from market_data_tick_handler.core.ticks import Array, DataType
from market_data_tick_handler.errors import InstrumentError
from streaming_service.sources.exchanges.bybit.books import Book
from streaming_service.sources.exchanges.bybit.frames import (
    Arrivals,
    BookFrame,
    Channel,
    OptionTicker,
    by_name,
    decode_book,
    decode_chain,
    decode_option,
    decode_ticker,
)
from streaming_service.sources.exchanges.bybit.options import Option, option_rows
from streaming_service.sources.exchanges.bybit.tickers import TickerState
from streaming_service.sources.exchanges.bybit.topics import book_topic, symbol_of, ticker_topic
from streaming_service.sources.exchanges.bybit.trades import (
    OTHERS,
    read_liquidations,
    read_old_liquidations,
    read_trades,
)
from streaming_service.sources.exchanges.protocol import Decoded

_NO_NUMBERS: Final = "a value is no number, or one that it cannot be"


class BybitDecoder:
    """Decoder of all three Bybit exchanges: what a frame is, it says itself.

    A chain among `instruments` stands for all of its options. Frames of other instruments and of data types that are
    not wanted are filtered; so are deltas that change nothing, and those without a book to change.
    """

    def __init__(
        self, instruments: Sequence[InstrumentDefinition], data_types: Collection[DataType], *, connection: int = 0
    ) -> None:
        self._connection = connection
        self._exchange = instruments[0].exchange if instruments else ""
        wanted = {
            data_type: [each for each in instruments if data_type in each.data_types and data_type in data_types]
            for data_type in DataType
        }
        self._names = {each.venue_symbol: each.key for each in instruments}
        self._trades = {each.venue_symbol: each.key for each in wanted[DataType.TRADES]}
        self._liquidations = {each.venue_symbol: each.key for each in wanted[DataType.LIQUIDATIONS]}
        self._books = {book_topic(each): (each.key, Book()) for each in wanted[DataType.BOOK]}
        self._tickers = {ticker_topic(each): (each.key, TickerState()) for each in wanted[DataType.DERIVATIVE]}
        chains = [each for each in wanted[DataType.OPTIONS] if each.instrument_type is InstrumentType.OPTION_CHAIN]
        self._chains = {each.key for each in chains}
        self._options = {
            each.venue_symbol: Option.of(each)
            for each in wanted[DataType.OPTIONS]
            if each.instrument_type is InstrumentType.OPTION
        }
        # Options of wanted chains, as they are met.
        self._found: dict[str, Option] = {}

    def decode(self, frames: Sequence[bytes], local_us: Array) -> Decoded:
        """Everything in `frames`, which arrived at `local_us` (int64 microseconds, one per frame, increasing)."""
        arrivals = Arrivals(frames, local_us)
        for channel, at in arrivals.sort().items():
            match channel:
                case Channel.TRADES:
                    read_trades(arrivals, at, self._trades, self._connection)
                case Channel.BOOK:
                    self._read_books(arrivals, at)
                case Channel.TICKERS if self._exchange == "bybit-options":
                    self._read_options(arrivals, at)
                case Channel.CHAIN:
                    self._read_chains(arrivals, at)
                case Channel.TICKERS:
                    self._read_tickers(arrivals, at)
                case Channel.LIQUIDATIONS:
                    read_liquidations(arrivals, at, self._liquidations, self._connection)
                case Channel.OLD_LIQUIDATIONS:
                    read_old_liquidations(arrivals, at, self._liquidations, self._connection)
        return arrivals.out

    def reset(self) -> None:
        """The connection ended: books and tickers are void."""
        for _, book in self._books.values():
            book.clear()
        for _, ticker in self._tickers.values():
            ticker.clear()
        self._found.clear()

    def _read_books(self, arrivals: Arrivals, at: list[int]) -> None:
        heads, kept = arrivals.decode(decode_book, at)
        places = np.array(kept, np.int64)
        for topic, members in by_name([head.topic for head in heads]).items():
            chosen = heads if members is None else [heads[index] for index in members.tolist()]
            if topic in self._books:
                self._update_book(arrivals, topic, chosen, places if members is None else places[members])
            else:
                self._filter(arrivals, topic, DataType.BOOK, len(chosen))

    def _update_book(self, arrivals: Arrivals, topic: str, messages: Sequence[BookFrame], places: Array) -> None:
        key, book = self._books[topic]
        update = book.update(messages, arrivals.local_us[places])
        arrivals.out.changes.extend((key, changes) for changes in update.changes)
        arrivals.out.rows.extend(Rows(key, rows, self._connection) for rows in update.rows)
        for index in update.bad:
            arrivals.violate(arrivals.frames[int(places[index])], _NO_NUMBERS)
        if update.skipped:
            arrivals.filter((key, DataType.BOOK), update.skipped)
        if update.broken:
            arrivals.out.resync[key] = update.broken

    def _read_tickers(self, arrivals: Arrivals, at: list[int]) -> None:
        heads, kept = arrivals.decode(decode_ticker, at)
        places = np.array(kept, np.int64)
        for topic, members in by_name([head.topic for head in heads]).items():
            chosen = heads if members is None else [heads[index] for index in members.tolist()]
            if topic not in self._tickers:
                self._filter(arrivals, topic, DataType.DERIVATIVE, len(chosen))
                continue
            own = places if members is None else places[members]
            key, state = self._tickers[topic]
            rows, bad = state.update(chosen, arrivals.local_us[own])
            for index in own[bad].tolist():
                arrivals.violate(arrivals.frames[index], _NO_NUMBERS)
            if len(rows):
                arrivals.out.rows.append(Rows(key, rows, self._connection))
            if unchanged := len(chosen) - len(rows) - int(bad.sum()):
                arrivals.filter((key, DataType.DERIVATIVE), unchanged)

    def _read_options(self, arrivals: Arrivals, at: list[int]) -> None:
        heads, kept = arrivals.decode(decode_option, at)
        stamps = np.array([head.ts for head in heads], np.int64) * 1_000
        self._add_options(arrivals, [head.data for head in heads], stamps, arrivals.local_us[kept])

    def _read_chains(self, arrivals: Arrivals, at: list[int]) -> None:
        heads, kept = arrivals.decode(decode_chain, at)
        for index, head in zip(kept, heads, strict=True):
            listed = head.data.result.options
            stamps = np.full(len(listed), head.data.time * 1_000, np.int64)
            self._add_options(arrivals, listed, stamps, np.repeat(arrivals.local_us[index], len(listed)))

    def _add_options(
        self, arrivals: Arrivals, tickers: Sequence[OptionTicker], stamps_us: Array, local_us: Array
    ) -> None:
        options = [self._option(ticker.symbol) for ticker in tickers]
        for chain, members in by_name([OTHERS if option is None else option.chain for option in options]).items():
            own = np.arange(len(tickers)) if members is None else members
            if chain == OTHERS:
                arrivals.filter((OTHERS, DataType.OPTIONS), len(own))
                continue
            found = [option for index in own.tolist() if (option := options[index]) is not None]
            rows = option_rows(found, [tickers[index] for index in own.tolist()], stamps_us[own], local_us[own])
            arrivals.out.rows.append(Rows(chain, rows, self._connection))

    def _option(self, symbol: str) -> Option | None:
        """What rows of this option share; None where neither it nor its chain is wanted."""
        found = self._options.get(symbol) or self._found.get(symbol)
        if found is None and self._chains:
            try:
                definition = instrument_from_venue_symbol(self._exchange, symbol)
            except InstrumentError:
                return None
            if chain_of(definition).key in self._chains:
                found = self._found[symbol] = Option.of(definition)
        return found

    def _filter(self, arrivals: Arrivals, topic: str, data_type: DataType, count: int) -> None:
        arrivals.filter((self._names.get(symbol_of(topic), OTHERS), data_type), count)

"""OKX frames to tick columns: which frames go where, and that each is accounted for."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.instruments import InstrumentDefinition, instrument_from_venue_symbol
from market_data_tick_handler.core.ticks import ID_INTEGER, Array, DataType
from market_data_tick_handler.core.venues import find_venue
from market_data_tick_handler.errors import InstrumentError
from streaming_service.sources.exchanges.okx.books import FollowedBook
from streaming_service.sources.exchanges.okx.frames import Read, Reader, Sorter, T, Topic, at_rows
from streaming_service.sources.exchanges.okx.messages import Book, Fill, Liquidation, Summary, Ticker, Trade
from streaming_service.sources.exchanges.okx.options import MEMBER_CHANNELS, SUMMARY_CHANNEL, OptionChains
from streaming_service.sources.exchanges.okx.tickers import CHANNELS as TICKER_CHANNELS
from streaming_service.sources.exchanges.okx.tickers import FUNDING_CHANNEL, INDEX_CHANNEL, Tickers
from streaming_service.sources.exchanges.okx.trades import MarketLiquidations, liquidation_rows, read_trades
from streaming_service.sources.exchanges.protocol import Decoded, Numbers

ALL_TRADES: Final = "trades-all"
BOOKS: Final = "books"
LIQUIDATION_ORDERS: Final = "liquidation-orders"
_ANY_VENUE: Final = {
    ALL_TRADES: DataType.TRADES,
    # One message for all fills of an order at one price, under the id of the last: those ids have holes. Recorded until
    # October 2023.
    "trades": DataType.TRADES,
    BOOKS: DataType.BOOK,
    # Every change at once; for accounts that trade much. Recorded until May 2026.
    "books-l2-tbt": DataType.BOOK,
    "books50-l2-tbt": DataType.BOOK,
}
_DERIVATIVES: Final = {
    LIQUIDATION_ORDERS: DataType.LIQUIDATIONS,
    # The vendor's poll of a REST interface that ended in 2023, one instrument a frame.
    "liquidations": DataType.LIQUIDATIONS,
    **dict.fromkeys((*TICKER_CHANNELS, FUNDING_CHANNEL, INDEX_CHANNEL), DataType.DERIVATIVE),
}
_OPTIONS: Final = dict.fromkeys((*MEMBER_CHANNELS, INDEX_CHANNEL, SUMMARY_CHANNEL), DataType.OPTIONS)
CHANNELS: Final[Mapping[str, Mapping[str, DataType]]] = {
    "okex": _ANY_VENUE,
    "okex-swap": {**_ANY_VENUE, **_DERIVATIVES},
    "okex-futures": {**_ANY_VENUE, **_DERIVATIVES},
    "okex-options": {**_ANY_VENUE, **_OPTIONS},
}


class OkxDecoder:
    """Frames of one connection to tick columns: books, states and sequence ids of it."""

    def __init__(
        self,
        exchange: str,
        instruments: Sequence[InstrumentDefinition],
        data_types: Collection[DataType],
        *,
        connection: int = 0,
    ) -> None:
        self._exchange = exchange
        self._connection = connection
        self._channels = CHANNELS[exchange]
        self._wanted: dict[DataType, dict[str, InstrumentDefinition]] = {
            kind: {each.venue_symbol: each for each in instruments if kind in each.data_types}
            for kind in DataType
            if kind in data_types
        }
        # Chains share one venue symbol.
        self._of_chains = [each for each in instruments if DataType.OPTIONS in each.data_types]
        self._sorter = Sorter()
        self._trades, self._books, self._tickers = Reader(Trade), Reader(Book), Reader(Ticker)
        self._summaries, self._liquidations, self._fills = Reader(Summary), Reader(Liquidation), Reader(Fill)
        self.reset()

    def reset(self) -> None:
        """The connection ended: what was learned from it is void."""
        self._follow = {symbol: FollowedBook() for symbol in self._wanted.get(DataType.BOOK, ())}
        self._states = Tickers(self._wanted.get(DataType.DERIVATIVE, {}).values())
        self._chains = OptionChains(self._exchange, self._of_chains)
        self._market = MarketLiquidations()

    def decode(self, frames: Sequence[bytes], local_us: Array) -> Decoded:
        """Everything in `frames`, which arrived at `local_us` (int64 microseconds, one per frame, increasing)."""
        out = Decoded()
        found = self._sorter.sort(frames)
        out.control += found.control
        out.violations += found.violations
        states: list[int] = []
        summaries: list[int] = []
        for topic, places in found.topics.items():
            kind = self._channels.get(topic.channel)
            if kind is None:
                out.control += places
            elif kind not in self._wanted:
                self._count(out, self._key_of(topic.instId), kind, len(places))
            elif topic.channel == SUMMARY_CHANNEL:
                summaries += places
            elif kind in (DataType.DERIVATIVE, DataType.OPTIONS):
                states += self._ours(topic, kind, places, out)
            elif topic.channel == LIQUIDATION_ORDERS:
                self._decode_market(frames, places, local_us, out)
            elif instrument := self._wanted[kind].get(topic.instId):
                self._decode_topic(topic, kind, instrument, (frames, places, local_us), out)
            else:
                self._count(out, self._key_of(topic.instId), kind, len(places))
        if states or summaries:
            self._decode_states(frames, sorted(states), sorted(summaries), local_us, out)
        out.control.sort()
        return out

    def _decode_topic(
        self,
        topic: Topic,
        kind: DataType,
        instrument: InstrumentDefinition,
        batch: tuple[Sequence[bytes], list[int], Array],
        out: Decoded,
    ) -> None:
        """Frames of one subscription about one instrument: trades, a book, or liquidations of a recorder's poll."""
        frames, places, local_us = batch
        if kind is DataType.BOOK:
            books = self._accept(self._books.read(frames, places), (instrument.key, kind), out)
            self._decode_book(instrument, books, local_us, out)
        elif kind is DataType.TRADES:
            trades = self._accept(self._trades.read(frames, places), (instrument.key, kind), out)
            self._decode_trades(topic, instrument, trades, local_us, out)
        else:
            polled = self._accept(self._fills.read(frames, places), (instrument.key, kind), out)
            at = at_rows(polled.at, [len(frame.data) for frame in polled.frames], local_us)
            fills = [fill for frame in polled.frames for fill in frame.data]
            if fills:
                out.rows.append(Rows(instrument.key, liquidation_rows(fills, at), self._connection))

    def _decode_trades(
        self, topic: Topic, instrument: InstrumentDefinition, read: Read[Trade], local_us: Array, out: Decoded
    ) -> None:
        batch = read_trades(read, local_us)
        if not len(batch):
            return
        out.rows.append(Rows(instrument.key, batch, self._connection))
        if topic.channel == ALL_TRADES and (batch["id_kind"] == ID_INTEGER).all():
            out.numbers.append(Numbers(instrument.key, DataType.TRADES, batch["id"], batch["local_timestamp"]))

    def _decode_book(self, instrument: InstrumentDefinition, read: Read[Book], local_us: Array, out: Decoded) -> None:
        found = self._follow[instrument.venue_symbol].follow(read, local_us)
        if found.rows is not None and len(found.rows):
            out.rows.append(Rows(instrument.key, found.rows, self._connection))
        if found.changes is not None and len(found.changes):
            out.changes.append((instrument.key, found.changes))
        if found.lost:
            out.resync[instrument.key] = found.lost
        self._count(out, instrument.key, DataType.BOOK, found.dropped)

    def _decode_market(self, frames: Sequence[bytes], places: list[int], local_us: Array, out: Decoded) -> None:
        """Liquidations of every instrument of a kind: ours, and the rest, which is counted."""
        wanted = self._wanted[DataType.LIQUIDATIONS]
        anyone = next(iter(wanted.values())).key if wanted else self._key_of("")
        read = self._accept(self._liquidations.read(frames, places), (anyone, DataType.LIQUIDATIONS), out)
        found, old = self._market.read(read)
        for symbol, count in old.items():
            self._count(out, self._key_of(symbol), DataType.LIQUIDATIONS, count)
        for symbol, (fills, at) in found.items():
            if symbol not in wanted:
                self._count(out, self._key_of(symbol), DataType.LIQUIDATIONS, len(fills))
            elif fills:
                batch = liquidation_rows(fills, local_us[at])
                out.rows.append(Rows(wanted[symbol].key, batch, self._connection))

    def _ours(self, topic: Topic, kind: DataType, places: list[int], out: Decoded) -> list[int]:
        """`places`, if their topic is about a derivative that was asked for."""
        if kind is DataType.OPTIONS or topic.instId in self._states.keys:
            return places
        self._count(out, self._key_of(topic.instId), kind, len(places))
        return []

    def _decode_states(
        self, frames: Sequence[bytes], states: list[int], summaries: list[int], local_us: Array, out: Decoded
    ) -> None:
        """All frames that bring a part of a state, together and in the order in which they came."""
        kind = DataType.OPTIONS if DataType.OPTIONS in self._channels.values() else DataType.DERIVATIVE
        anyone = self._of_chains[0].key if self._of_chains else next(iter(self._states.keys.values()), "")
        parts = self._accept(self._tickers.read(frames, states), (anyone, kind), out)
        if kind is DataType.DERIVATIVE:
            rows, silent = self._states.follow(parts, local_us, self._connection)
        else:
            named = self._accept(self._summaries.read(frames, summaries), (anyone, kind), out)
            chains = self._chains.follow(parts, named, local_us, self._connection)
            rows, silent = chains.rows, chains.silent
            out.violations += chains.violations
        out.rows += rows
        for key, count in silent.items():
            self._count(out, key, kind, count)

    def _accept(self, read: Read[T], stream: tuple[str, DataType], out: Decoded) -> Read[T]:
        """`read`, after what is no data in it was accounted for, frames without items under `stream`."""
        out.control += read.control
        out.violations += read.violations
        broken = set(read.broken)
        empty = sum(not frame.data and at not in broken for frame, at in zip(read.frames, read.at, strict=True))
        self._count(out, *stream, empty)
        return read

    def _key_of(self, symbol: str) -> str:
        """The instrument under which a message about anything is counted."""
        try:
            return instrument_from_venue_symbol(self._exchange, symbol).key
        except InstrumentError:
            return f"{find_venue(self._exchange).name}:UNKNOWN:{symbol}"

    @staticmethod
    def _count(out: Decoded, key: str, kind: DataType, count: int) -> None:
        if count:
            out.filtered[key, kind] = out.filtered.get((key, kind), 0) + count

"""The decoders of the live service, fed by the simulated exchange, give back its truth: two independent readings of
each venue's protocol agree."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import aiohttp
import numpy as np
import pytest

from market_data_tick_handler.core.instruments import (
    InstrumentDefinition,
    instrument_from_venue_symbol,
    parse_instrument_key,
)
from market_data_tick_handler.core.ticks import ID_INTEGER, DataType, TickBatch, concat
from market_data_tick_handler.testing import ManualClock
from market_data_tick_handler.testing.exchange import SILENT, BookBreak, Rates, SimulatedExchange
from streaming_service.sources.exchanges.protocol import Decoded, Decoder, Request, TradeRange, Venue
from tests.testing.exchange_client import START_US, Client, client_of

PACKAGES = {
    "binance": "binance",
    "binance-futures": "binance",
    "binance-delivery": "binance",
    "deribit": "deribit",
    "bybit": "bybit",
    "bybit-spot": "bybit",
    "okex": "okx",
    "okex-swap": "okx",
    "okex-futures": "okx",
}
SYMBOLS = {
    "binance": ["BTCUSDT", "ETHUSDT"],
    "binance-futures": ["BTCUSDT", "ETHUSDT"],
    "binance-delivery": ["BTCUSD_PERP", "ETHUSD_PERP"],
    "deribit": ["BTC-PERPETUAL", "ETH-PERPETUAL"],
    "bybit": ["BTCUSDT", "BTCUSD"],
    "bybit-spot": ["BTCUSDT", "ETHUSDT"],
    "okex": ["BTC-USDT", "ETH-USDT"],
    "okex-swap": ["BTC-USDT-SWAP", "ETH-USD-SWAP"],
    "okex-futures": ["BTC-USD-240628", "ETH-USD-240628"],
}
RATES = Rates(orders=5.0, tickers=2.0, liquidations=0.5)
SLICES, SLICE_S = 12, 0.5


@dataclass
class Feed:
    """One connection with its decoder and what came of it."""

    client: Client
    decoder: Decoder
    streams: frozenset[tuple[str, DataType]]
    rows: dict[tuple[str, DataType], list[TickBatch]] = field(default_factory=dict)
    resync: dict[str, str] = field(default_factory=dict)
    violations: list[Any] = field(default_factory=list)
    control: list[bytes] = field(default_factory=list)

    def decode(self, frames: Sequence[bytes], at_us: int) -> Decoded:
        decoded = self.decoder.decode(frames, np.full(len(frames), at_us, np.int64))
        for rows in decoded.rows:
            self.rows.setdefault((rows.instrument, rows.batch.data_type), []).append(rows.batch)
        self.resync.update(decoded.resync)
        self.violations += decoded.violations
        self.control += [frames[index] for index in decoded.control]
        return decoded


@dataclass
class Session:
    """A venue of the live service against a simulated exchange."""

    exchange: SimulatedExchange
    clock: ManualClock
    venue: Venue
    instruments: list[InstrumentDefinition]
    feeds: list[Feed]
    http: aiohttp.ClientSession

    async def run(self, slices: int = SLICES) -> None:
        for _ in range(slices):
            await self.clock.advance(SLICE_S)
            for feed in self.feeds:
                feed.decode(await feed.client.settle(), self.clock.now_us())

    async def get(self, request: Request) -> bytes:
        async with self.http.get(self.exchange.rest + request.path) as response:
            assert response.status == 200, (request.path, await response.text())
            return await response.read()

    async def snapshot(self, instrument: InstrumentDefinition) -> None:
        """What the connection shell does for a book: ask over REST, or subscribe anew."""
        [feed] = [feed for feed in self.feeds if (instrument.key, DataType.BOOK) in feed.streams]
        by_rest = self.venue.snapshot(instrument)
        if by_rest is not None:
            request, frame = by_rest
            body = await self.get(request)
            feed.decode([frame(body)], self.clock.now_us())
        else:
            for message in self.venue.resubscribe(instrument):
                await feed.client.socket.send(message.decode())

    async def poll(self) -> None:
        types = {data_type for feed in self.feeds for _, data_type in feed.streams}
        for poll in self.venue.polls(self.instruments, types):
            frame = poll.frame(await self.get(poll.request))
            for feed in self.feeds:
                if any(data_type is DataType.DERIVATIVE for _, data_type in feed.streams):
                    feed.decode([frame], self.clock.now_us())

    def rows(self, key: str, data_type: DataType) -> TickBatch | None:
        found = [batch for feed in self.feeds for batch in feed.rows.get((key, data_type), [])]
        return concat(found) if found else None


def venue_of(exchange: str) -> Venue:
    venue: Venue = import_module(f"streaming_service.sources.exchanges.{PACKAGES[exchange]}").VENUES[exchange]
    return venue


class Opened:
    """Every connection the venue wants for these symbols, subscribed, with its first frames decoded."""

    def __init__(self, exchange: str, symbols: Sequence[str], types: Sequence[DataType], rates: Rates = RATES) -> None:
        self.clock = ManualClock(START_US)
        self.exchange = SimulatedExchange(exchange, symbols, clock=self.clock, seed=11, rates=rates)
        self.venue = venue_of(exchange)
        self.instruments = [instrument_from_venue_symbol(exchange, symbol) for symbol in symbols]
        self.types = types

    async def __aenter__(self) -> Session:
        self.stack = AsyncExitStack()
        await self.stack.enter_async_context(self.exchange)
        http = await self.stack.enter_async_context(aiohttp.ClientSession())
        feeds = []
        for number, subscription in enumerate(self.venue.subscriptions(self.instruments, self.types)):
            client = await self.stack.enter_async_context(client_of(self.exchange.sockets + subscription.path))
            decoder = self.venue.decoder(self.instruments, self.types, connection=number)
            for message in subscription.messages:
                await client.socket.send(message.decode())
            feed = Feed(client, decoder, subscription.streams)
            feed.decode(await client.settle(), self.clock.now_us())
            feeds.append(feed)
        return Session(self.exchange, self.clock, self.venue, self.instruments, feeds, http)

    async def __aexit__(self, *error: Any) -> None:
        await self.stack.aclose()


def assert_trades(rows: TickBatch, truth: TickBatch) -> None:
    assert len(truth) > 10
    for name in ("timestamp", "id", "id_kind", "side", "price", "amount"):
        np.testing.assert_array_equal(rows[name], truth[name], err_msg=name)
    if (truth["id_kind"] != ID_INTEGER).any():
        assert rows["id_text"].tolist() == truth["id_text"].tolist()


def assert_book(rows: TickBatch, exchange: SimulatedExchange, symbol: str) -> None:
    bids, asks = exchange.book(symbol, 5)
    for side, levels in (("bid", bids), ("ask", asks)):
        for level, (price, amount) in enumerate(levels, 1):
            assert rows[f"{side}_price_{level}"][-1] == price
            assert rows[f"{side}_volume_{level}"][-1] == amount


@pytest.mark.parametrize("exchange", PACKAGES)
async def test_the_decoder_gives_back_every_trade_and_the_book(exchange: str) -> None:
    async with Opened(exchange, SYMBOLS[exchange], [DataType.TRADES, DataType.BOOK]) as session:
        await session.run(4)
        if session.venue.snapshot(session.instruments[0]) is not None:
            for instrument in session.instruments:
                await session.snapshot(instrument)
        await session.run()
        for instrument in session.instruments:
            symbol = instrument.venue_symbol
            trades, book = (session.rows(instrument.key, kind) for kind in (DataType.TRADES, DataType.BOOK))
            assert trades is not None and book is not None
            assert_trades(trades, session.exchange.truth(symbol))
            assert len(book) > 20
            assert_book(book, session.exchange, symbol)
        for feed in session.feeds:
            assert not feed.violations and not feed.resync
            meanings = {session.venue.control(frame).meaning.value for frame in feed.control}
            assert meanings <= {"acknowledged", "alive"}, meanings


@pytest.mark.parametrize("exchange", PACKAGES)
async def test_the_decoder_notices_a_missing_book_update_and_recovers(exchange: str) -> None:
    [symbol, other] = SYMBOLS[exchange]
    async with Opened(exchange, [symbol, other], [DataType.TRADES, DataType.BOOK]) as session:
        broken, whole = session.instruments
        if session.venue.snapshot(broken) is not None:
            await session.run(2)
            await session.snapshot(broken)
            await session.snapshot(whole)
        await session.run(2)
        session.exchange.inject(BookBreak(symbol=symbol))
        await session.run(2)
        assert {key for feed in session.feeds for key in feed.resync} == {broken.key}
        await session.snapshot(broken)
        await session.run(4)
        for instrument in (broken, whole):
            book = session.rows(instrument.key, DataType.BOOK)
            assert book is not None
            assert_book(book, session.exchange, instrument.venue_symbol)


@pytest.mark.parametrize("exchange", [name for name in PACKAGES if name not in ("binance", "bybit-spot", "okex")])
async def test_the_decoder_gives_back_ticker_and_liquidations(exchange: str) -> None:
    types = [DataType.TRADES, DataType.DERIVATIVE, DataType.LIQUIDATIONS]
    async with Opened(exchange, SYMBOLS[exchange], types) as session:
        await session.run(24)
        await session.poll()
        for instrument in session.instruments:
            symbol = instrument.venue_symbol
            rows, truth = (
                session.rows(instrument.key, DataType.LIQUIDATIONS),
                session.exchange.liquidation_truth(symbol),
            )
            assert rows is not None and len(truth) > 0
            for name in ("timestamp", "side", "price", "amount"):
                np.testing.assert_array_equal(rows[name], truth[name], err_msg=name)
            ticker = session.rows(instrument.key, DataType.DERIVATIVE)
            assert ticker is not None
            assert_ticker(ticker, session.exchange, symbol, perpetual=instrument.expiry_us == 0)
        assert not [violation for feed in session.feeds for violation in feed.violations]


def assert_ticker(rows: TickBatch, exchange: SimulatedExchange, symbol: str, *, perpetual: bool) -> None:
    state, listing = exchange.ticker(symbol), exchange.listing(symbol)
    assert rows["mark_price"][-1] == listing.price(state.mark)
    assert rows["index_price"][-1] == listing.price(state.index)
    assert rows["last_price"][-1] == listing.price(state.last)
    assert rows["open_interest"][-1] == listing.amount(state.open_interest)
    if perpetual:
        assert rows["funding_rate"][-1] == state.funding_rate / 10**8


@pytest.mark.parametrize("exchange", PACKAGES)
async def test_history_gives_back_lost_trades(exchange: str) -> None:
    symbol = SYMBOLS[exchange][0]
    async with Opened(exchange, [symbol], [DataType.TRADES]) as session:
        await session.run()
        history = session.venue.history
        assert history is not None
        [instrument] = session.instruments
        truth = session.exchange.truth(symbol)
        first, last = 5, len(truth) - 5
        dense = exchange not in ("bybit", "bybit-spot", "deribit")
        missing = TradeRange(
            from_us=int(truth["timestamp"][first]),
            to_us=int(truth["timestamp"][last]) + 1,
            first=int(truth["id"][first]) if dense else None,
            last=int(truth["id"][last]) if dense else None,
        )
        pages: list[TickBatch] = []
        request: Request | None = history.first(instrument, missing)
        while request is not None:
            page = history.read(instrument, missing, await session.get(request))
            pages.append(page.trades)
            request = page.next
        rows = concat(pages)
        found = {identity: values for identity, *values in described(rows)}
        for identity, *values in described(truth.slice(first, last + 1)):
            assert found[identity] == values


def described(rows: TickBatch) -> list[tuple[Any, ...]]:
    """Id, milliseconds (REST has no more), side, price and amount of each trade."""
    columns = (rows["id"], rows["timestamp"] // 1_000, rows["side"], rows["price"], rows["amount"])
    return list(zip(*(column.tolist() for column in columns), strict=True))


async def test_a_chain_gives_its_greeks() -> None:
    clock = ManualClock(START_US)
    chain = "DERIBIT:OPTION_CHAIN:BTC-USD"
    exchange = SimulatedExchange("deribit", [chain], clock=clock, seed=3, rates=Rates(tickers=2.0))
    venue, instrument = venue_of("deribit"), parse_instrument_key(chain)
    async with exchange:
        options = [instrument_from_venue_symbol("deribit", symbol) for symbol in exchange.symbols]
        names = [f"ticker.{symbol}.100ms" for symbol in exchange.symbols]
        async with client_of(exchange.sockets + "/ws/api/v2") as client:
            message = {"jsonrpc": "2.0", "id": 1, "method": "public/subscribe", "params": {"channels": names}}
            await client.socket.send(json.dumps(message))
            await client.settle()
            await clock.advance(2.0)
            frames = await client.settle()
            decoder = venue.decoder([instrument, *options], [DataType.OPTIONS])
            decoded = decoder.decode(frames, np.full(len(frames), clock.now_us(), np.int64))
    assert not decoded.violations
    rows = concat([rows.batch for rows in decoded.rows if rows.batch.data_type is DataType.OPTIONS])
    assert {int(kind) for kind in rows["option_type"]} == {1, -1}
    calls = rows["option_type"] == 1
    assert ((rows["delta"][calls] > 0) & (rows["delta"][calls] <= 1)).all()
    assert (rows["delta"][~calls] < 0).all()
    assert (rows["gamma"] > 0).all() and (rows["mark_iv"] > rows["bid_iv"]).all()
    assert len(set(rows["symbol_hash"].tolist())) == len(exchange.symbols) == 12


async def test_a_burst_is_read_completely() -> None:
    async with Opened("binance", ["BTCUSDT"], [DataType.TRADES], SILENT) as session:
        burst = session.exchange.encode_burst("BTCUSDT", 5_000)
        sent = asyncio.create_task(session.exchange.burst(burst), name="burst")
        [feed] = session.feeds
        while not sent.done():
            feed.decode(await feed.client.settle(), session.clock.now_us())
        feed.decode(await feed.client.settle(), session.clock.now_us())
        rows = session.rows(session.instruments[0].key, DataType.TRADES)
        assert rows is not None and sent.result() == 5_000
        assert_trades(rows, session.exchange.truth("BTCUSDT"))

"""Books of the simulated exchange: updates chain as each venue has it, and rebuild what the exchange knows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest

from market_data_tick_handler.testing import ManualClock
from market_data_tick_handler.testing.exchange import Rates, SimulatedExchange
from tests.testing.exchange_client import START_US, client_of, get, silent

BOOKS = Rates(orders=0.0, tickers=0.0, liquidations=0.0, book_changes=60.0, books=10.0)
Levels = list[tuple[float, float]]


@dataclass
class Rebuilt:
    """The simplest book there is."""

    bids: dict[float, float] = field(default_factory=dict)
    asks: dict[float, float] = field(default_factory=dict)

    def take(self, bids: list[Any], asks: list[Any], *, snapshot: bool = False) -> None:
        for side, levels in ((self.bids, bids), (self.asks, asks)):
            if snapshot:
                side.clear()
            for price, amount in levels:
                if float(amount):
                    side[float(price)] = float(amount)
                else:
                    # A level that is not there cannot go: an update was lost.
                    del side[float(price)]

    def sides(self, depth: int | None = None) -> tuple[Levels, Levels]:
        return sorted(self.bids.items(), reverse=True)[:depth], sorted(self.asks.items())[:depth]


BINANCE = [
    ("binance", "BTCUSDT", "/stream", "btcusdt@depth@100ms", "/api/v3/depth?symbol=BTCUSDT&limit=1000"),
    ("binance-futures", "BTCUSDT", "/public/stream", "btcusdt@depth@0ms", "/fapi/v1/depth?symbol=BTCUSDT&limit=1000"),
    (
        "binance-delivery",
        "BTCUSD_PERP",
        "/stream",
        "btcusd_perp@depth@0ms",
        "/dapi/v1/depth?symbol=BTCUSD_PERP&limit=1000",
    ),
]


@pytest.mark.parametrize(("name", "symbol", "path", "stream", "rest"), BINANCE, ids=lambda value: str(value)[:16])
@pytest.mark.parametrize("seed", range(4))
async def test_a_rest_snapshot_of_binance_overlaps_the_updates(
    name: str, symbol: str, path: str, stream: str, rest: str, seed: int
) -> None:
    clock = ManualClock(START_US)
    async with (
        SimulatedExchange(name, [symbol], clock=clock, rates=BOOKS, seed=seed) as exchange,
        client_of(exchange.sockets + path) as client,
    ):
        await client.ask({"method": "SUBSCRIBE", "params": [stream], "id": 1})
        await clock.advance(1.0)
        snapshot = (await get(exchange, rest)).body
        await clock.advance(3.0)
        updates = [message["data"] for message in await client.news()]
    last = snapshot["lastUpdateId"]
    if name == "binance":
        chain = [update for update in updates if update["u"] > last]
        assert chain[0]["U"] <= last + 1 <= chain[0]["u"]
        assert all(late["U"] == early["u"] + 1 for early, late in pairwise(updates))
    else:
        chain = [update for update in updates if update["u"] >= last]
        assert chain[0]["U"] <= last <= chain[0]["u"]
        assert all(late["pu"] == early["u"] for early, late in pairwise(updates))
    book = Rebuilt()
    book.take(snapshot["bids"], snapshot["asks"], snapshot=True)
    for side in ("b", "a"):
        # The first update repeats changes that are in the snapshot: a level may be gone already.
        known = book.bids if side == "b" else book.asks
        chain[0][side] = [level for level in chain[0][side] if float(level[1]) or float(level[0]) in known]
    for update in chain:
        book.take(update["b"], update["a"])
    assert book.sides() == exchange.book(symbol)


@pytest.mark.parametrize(("name", "symbol", "path", "stream", "rest"), BINANCE, ids=lambda value: str(value)[:16])
async def test_a_rest_snapshot_may_lie_inside_the_numbers_of_an_update(
    name: str, symbol: str, path: str, stream: str, rest: str
) -> None:
    exchange, _ = silent(name, symbol)
    async with exchange, client_of(exchange.sockets + path) as client:
        await client.ask({"method": "SUBSCRIBE", "params": [stream], "id": 1})
        exchange.set_level(symbol, 1, 59_990, 3)
        snapshot = (await get(exchange, rest)).body
        exchange.set_level(symbol, -1, 60_010, 4)
        exchange.publish_book(symbol)
        [message] = await client.news()
    assert message["data"]["U"] <= snapshot["lastUpdateId"] < message["data"]["u"]
    assert [float(number) for number in snapshot["bids"][-1]] == [59_990, 3]
    assert [[float(number) for number in level] for level in message["data"]["b"]] == [[59_990, 3]]
    assert [[float(number) for number in level] for level in message["data"]["a"]] == [[60_010, 4]]


def bybit_book(data: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    return data["data"]["b"], data["data"]["a"]


def okx_book(data: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    [row] = data["data"]
    return [level[:2] for level in row["bids"]], [level[:2] for level in row["asks"]]


def deribit_book(data: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    row = data["params"]["data"]
    return [level[1:] for level in row["bids"]], [level[1:] for level in row["asks"]]


def bybit_chain(early: dict[str, Any], late: dict[str, Any]) -> bool:
    return bool(late["data"]["u"] == early["data"]["u"] + 1 and late["data"]["seq"] > early["data"]["seq"])


def okx_chain(early: dict[str, Any], late: dict[str, Any]) -> bool:
    return bool(late["data"][0]["prevSeqId"] == early["data"][0]["seqId"])


def deribit_chain(early: dict[str, Any], late: dict[str, Any]) -> bool:
    return bool(late["params"]["data"]["prev_change_id"] == early["params"]["data"]["change_id"])


Read = Callable[[dict[str, Any]], tuple[list[Any], list[Any]]]
Chain = Callable[[dict[str, Any], dict[str, Any]], bool]
OKX_BOOKS = {"op": "subscribe", "args": [{"channel": "books", "instId": "BTC-USDT-SWAP"}]}
DERIBIT_BOOK = {"id": 1, "method": "public/subscribe", "params": {"channels": ["book.BTC-PERPETUAL.100ms"]}}
IN_BAND: list[tuple[str, str, str, dict[str, Any], Read, Chain, int | None]] = [
    (
        "bybit",
        "BTCUSDT",
        "/v5/public/linear",
        {"op": "subscribe", "args": ["orderbook.50.BTCUSDT"]},
        bybit_book,
        bybit_chain,
        50,
    ),
    (
        "bybit-spot",
        "BTCUSDT",
        "/v5/public/spot",
        {"op": "subscribe", "args": ["orderbook.50.BTCUSDT"]},
        bybit_book,
        bybit_chain,
        50,
    ),
    ("okex-swap", "BTC-USDT-SWAP", "/ws/v5/public", OKX_BOOKS, okx_book, okx_chain, None),
    ("deribit", "BTC-PERPETUAL", "/ws/api/v2", DERIBIT_BOOK, deribit_book, deribit_chain, None),
]


@pytest.mark.parametrize(
    ("name", "symbol", "path", "subscribe", "read", "chain", "depth"), IN_BAND, ids=lambda value: str(value)[:16]
)
async def test_a_snapshot_in_the_stream_continues_with_the_updates(
    name: str, symbol: str, path: str, subscribe: Any, read: Read, chain: Chain, depth: int | None
) -> None:
    clock = ManualClock(START_US)
    async with (
        SimulatedExchange(name, [symbol], clock=clock, rates=BOOKS) as exchange,
        client_of(exchange.sockets + path) as early,
        client_of(exchange.sockets + path) as late,
    ):
        feeds = [(early, await early.ask(subscribe))]
        # The second one subscribes in the middle of an update.
        await clock.advance(2.27)
        feeds.append((late, await late.ask(subscribe)))
        await clock.advance(5.0)
        for client, messages in feeds:
            messages += await client.news()
            frames = [message for message in messages if "data" in message or "params" in message]
            assert len(frames) > 30
            assert all(chain(*pair) for pair in pairwise(frames))
            book = Rebuilt()
            for index, frame in enumerate(frames):
                bids, asks = read(frame)
                book.take(bids, asks, snapshot=index == 0)
            bids, asks = exchange.book(symbol, depth)
            assert book.sides() == (bids, asks)
            assert len(bids) >= 20 and bids[0][0] < asks[0][0]


async def test_levels_that_leave_the_best_fifty_are_deleted_and_come_back() -> None:
    exchange, _ = silent("bybit", "BTCUSDT")
    async with exchange, client_of(exchange.sockets + "/v5/public/linear") as client:
        await client.ask({"op": "subscribe", "args": ["orderbook.50.BTCUSDT"]})
        bids, _ = exchange.book("BTCUSDT")
        exchange.set_level("BTCUSDT", 1, 60_000.0, 1.5)
        exchange.publish_book("BTCUSDT")
        [update] = await client.news()
        assert update["data"]["b"] == [["60000.0", "1.5"], [f"{bids[49][0]:.1f}", "0"]]
        exchange.set_level("BTCUSDT", 1, 60_000.0, 0)
        exchange.publish_book("BTCUSDT")
        [update] = await client.news()
        assert update["data"]["b"] == [["60000.0", "0"], [f"{bids[49][0]:.1f}", f"{bids[49][1]:.3f}".rstrip("0")]]


async def test_a_second_subscription_to_a_book_brings_no_second_snapshot() -> None:
    for name, symbol, path, subscribe, *_ in IN_BAND:
        exchange, _ = silent(name, symbol)
        async with exchange, client_of(exchange.sockets + path) as client:
            assert len(await client.ask(subscribe)) == 2
            assert len(await client.ask(subscribe)) == 1, name


async def test_deribit_says_whether_a_level_is_new() -> None:
    exchange, _ = silent("deribit", "BTC-PERPETUAL")
    async with exchange, client_of(exchange.sockets + "/ws/api/v2") as client:
        await client.ask(DERIBIT_BOOK)
        bids, asks = exchange.book("BTC-PERPETUAL")
        exchange.set_level("BTC-PERPETUAL", 1, bids[0][0], 70)
        exchange.set_level("BTC-PERPETUAL", 1, 60_000.0, 30)
        exchange.set_level("BTC-PERPETUAL", -1, asks[0][0], 0)
        exchange.publish_book("BTC-PERPETUAL")
        [update] = await client.news()
    data = update["params"]["data"]
    assert data["bids"] == [["new", 60_000.0, 30.0], ["change", bids[0][0], 70.0]]
    assert data["asks"] == [["delete", asks[0][0], 0.0]]


@pytest.mark.parametrize("name", ["binance", "bybit", "okex", "deribit"])
async def test_books_change_around_the_middle_and_are_never_crossed(name: str) -> None:
    symbol = {"okex": "BTC-USDT", "deribit": "BTC-PERPETUAL"}.get(name, "BTCUSDT")
    clock = ManualClock(START_US)
    mids = set()
    async with SimulatedExchange(name, [symbol], clock=clock, rates=BOOKS, seed=5) as exchange:
        for _ in range(20):
            await clock.advance(1.0)
            bids, asks = exchange.book(symbol)
            assert bids[0][0] < asks[0][0] and min(len(bids), len(asks)) >= 20
            mids.add(bids[0][0] + asks[0][0])
    assert len(mids) > 5

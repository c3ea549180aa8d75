"""REST of the simulated exchange: pages of trades cover the truth under each venue's rules, errors are the venue's."""

from __future__ import annotations

from typing import Any

import pytest

from market_data_tick_handler.testing import ManualClock
from market_data_tick_handler.testing.exchange import Rates, SimulatedExchange
from tests.testing.exchange_client import START_US, get, silent

START_MS = START_US // 1_000
TRADES = Rates(orders=200.0, tickers=0.0, liquidations=0.0, book_changes=0.0, books=0.0)
KEY = {"X-MBX-APIKEY": "any"}


def traded(name: str, symbol: str) -> tuple[SimulatedExchange, ManualClock]:
    clock = ManualClock(START_US)
    return SimulatedExchange(name, [symbol], clock=clock, rates=TRADES), clock


@pytest.mark.parametrize(
    ("name", "symbol", "base"),
    [
        ("binance", "BTCUSDT", "/api/v3"),
        ("binance-futures", "BTCUSDT", "/fapi/v1"),
        ("binance-delivery", "BTCUSD_PERP", "/dapi/v1"),
    ],
)
async def test_binance_pages_forward_by_id(name: str, symbol: str, base: str) -> None:
    exchange, clock = traded(name, symbol)
    async with exchange:
        await clock.advance(5.0)
        truth = exchange.truth(symbol)
        rows: list[Any] = []
        at = int(truth["id"][0])
        while True:
            reply = await get(exchange, f"{base}/historicalTrades?symbol={symbol}&fromId={at}&limit=300", KEY)
            if not reply.body:
                break
            rows += reply.body
            at = rows[-1]["id"] + 1
    assert len(truth) > 900
    assert [row["id"] for row in rows] == truth["id"].tolist()
    assert [float(row["price"]) for row in rows] == truth["price"].tolist()
    assert [float(row["qty"]) for row in rows] == truth["amount"].tolist()
    assert [-1 if row["isBuyerMaker"] else 1 for row in rows] == truth["side"].tolist()
    assert [row["time"] for row in rows] == (truth["timestamp"] // 1_000).tolist()


async def test_binance_aggregates_cover_every_trade_once() -> None:
    exchange, clock = traded("binance-futures", "BTCUSDT")
    async with exchange:
        await clock.advance(5.0)
        truth = exchange.truth("BTCUSDT")
        rows: list[Any] = []
        at = 1
        while page := (await get(exchange, f"/fapi/v1/aggTrades?symbol=BTCUSDT&fromId={at}&limit=250")).body:
            rows += page
            at = rows[-1]["a"] + 1
        from_ms = START_MS + 2_000
        path = f"/fapi/v1/aggTrades?symbol=BTCUSDT&startTime={from_ms}&endTime={from_ms + 999}&limit=1000"
        second = (await get(exchange, path)).body
    covered = [number for row in rows for number in range(row["f"], row["l"] + 1)]
    assert covered == truth["id"].tolist() and len(rows) < len(covered)
    assert sum(float(row["q"]) for row in rows) == pytest.approx(truth["amount"].sum())
    assert [row["a"] for row in second] == [row["a"] for row in rows if from_ms <= row["T"] < from_ms + 1_000]


async def test_futures_of_binance_look_old_trades_up_for_key_holders_only() -> None:
    exchange, _ = silent("binance-futures", "BTCUSDT")
    async with exchange:
        exchange.trade("BTCUSDT", 60_000, 1, 1)
        path = "/fapi/v1/historicalTrades?symbol=BTCUSDT"
        refused, served = await get(exchange, path), await get(exchange, path, KEY)
        recent = await get(exchange, "/fapi/v1/trades?symbol=BTCUSDT&limit=1")
    assert refused.status == 401 and refused.body["code"] == -2014
    assert served.body == recent.body and len(served.body) == 1


async def test_binance_weighs_calls_and_refuses_too_many_for_the_rest_of_the_minute() -> None:
    exchange, clock = silent("binance", "BTCUSDT")
    path = "/api/v3/depth?symbol=BTCUSDT&limit=5000"
    async with exchange:
        first = await get(exchange, path)
        assert first.headers["X-MBX-USED-WEIGHT-1M"] == "250"
        for _ in range(23):
            assert (await get(exchange, path)).status == 200
        await clock.advance(20.0)
        refused = await get(exchange, path)
        assert (refused.status, refused.body["code"], refused.headers["Retry-After"]) == (429, -1003, "40")
        await clock.advance(40.0)
        assert (await get(exchange, path)).status == 200
    assert exchange.counters.requests["/api/v3/depth"] == 26


@pytest.mark.parametrize(("name", "symbol"), [("okex", "BTC-USDT"), ("okex-swap", "BTC-USDT-SWAP")])
async def test_okx_pages_backward_by_id_and_by_time(name: str, symbol: str) -> None:
    exchange, clock = traded(name, symbol)
    async with exchange:
        await clock.advance(2.0)
        truth = exchange.truth(symbol)
        rows = (await get(exchange, f"/api/v5/market/trades?instId={symbol}&limit=1")).body["data"]
        while True:
            path = f"/api/v5/market/history-trades?instId={symbol}&type=1&after={rows[-1]['tradeId']}&limit=100"
            page = (await get(exchange, path)).body["data"]
            if not page:
                break
            assert len(page) <= 100
            rows += page
        at_ms = START_MS + 1_000
        path = f"/api/v5/market/history-trades?instId={symbol}&type=2&after={at_ms}&limit=100"
        before = (await get(exchange, path)).body["data"]
    assert [int(row["tradeId"]) for row in reversed(rows)] == truth["id"].tolist() and len(truth) > 300
    assert [float(row["sz"]) for row in reversed(rows)] == truth["amount"].tolist()
    assert all(int(row["ts"]) < at_ms for row in before)
    assert before[0]["tradeId"] == str(truth["id"][truth["timestamp"] < at_ms * 1_000][-1])


async def test_deribit_pages_by_sequence_and_by_time() -> None:
    exchange, clock = traded("deribit", "BTC-PERPETUAL")
    base = "/api/v2/public/get_last_trades_by_instrument"
    async with exchange:
        await clock.advance(10.0)
        truth = exchange.truth("BTC-PERPETUAL")
        rows: list[Any] = []
        newest = (await get(exchange, f"{base}?instrument_name=BTC-PERPETUAL&count=1")).body["result"]
        at, more = newest["trades"][0]["trade_seq"] - len(truth) + 1, newest["has_more"]
        while more:
            path = f"{base}?instrument_name=BTC-PERPETUAL&start_seq={at}&count=1000&sorting=asc"
            result = (await get(exchange, path)).body["result"]
            rows, more = rows + result["trades"], result["has_more"]
            at = rows[-1]["trade_seq"] + 1
        window = f"start_timestamp={START_MS + 3_000}&end_timestamp={START_MS + 3_999}"
        path = f"{base}_and_time?instrument_name=BTC-PERPETUAL&{window}&count=1000&sorting=desc"
        second = (await get(exchange, path)).body["result"]["trades"]
    assert len(truth) > 2_000
    assert [int(row["trade_id"]) for row in rows] == truth["id"].tolist()
    assert [row["trade_seq"] for row in rows] == list(range(rows[0]["trade_seq"], rows[0]["trade_seq"] + len(rows)))
    inside = truth["timestamp"] // 1_000_000 == START_US // 1_000_000 + 3
    assert [int(row["trade_id"]) for row in reversed(second)] == truth["id"][inside].tolist()


@pytest.mark.parametrize(
    ("name", "symbol", "category", "most"),
    [
        ("bybit", "BTCUSDT", "linear", 1_000),
        ("bybit", "BTCUSD", "inverse", 1_000),
        ("bybit-spot", "BTCUSDT", "spot", 60),
    ],
)
async def test_bybit_knows_the_last_trades_only(name: str, symbol: str, category: str, most: int) -> None:
    exchange, clock = traded(name, symbol)
    async with exchange:
        await clock.advance(8.0)
        truth = exchange.truth(symbol)
        path = f"/v5/market/recent-trade?category={category}&symbol={symbol}&limit=5000"
        rows = (await get(exchange, path)).body["result"]["list"]
        other = await get(exchange, f"/v5/market/recent-trade?category=option&symbol={symbol}")
    assert len(truth) > most == len(rows)
    assert [row["execId"] for row in reversed(rows)] == truth["id_text"][-most:].tolist()
    assert [float(row["price"]) for row in reversed(rows)] == truth["price"][-most:].tolist()
    assert other.body["retCode"] == 10001


async def test_errors_are_the_venue_s() -> None:
    cases: list[tuple[str, str, str, int, dict[str, Any]]] = [
        ("binance", "BTCUSDT", "/api/v3/depth?symbol=NOPE", 400, {"code": -1121, "msg": "Invalid symbol."}),
        ("okex", "BTC-USDT", "/api/v5/market/books?instId=NOPE", 200, {"code": "51001"}),
        ("deribit", "BTC-PERPETUAL", "/api/v2/public/ticker?instrument_name=NOPE", 400, {"jsonrpc": "2.0"}),
        ("bybit", "BTCUSDT", "/v5/market/orderbook?category=linear&symbol=NOPE", 200, {"retCode": 10001}),
    ]
    for name, symbol, path, status, part in cases:
        exchange, _ = silent(name, symbol)
        async with exchange:
            reply = await get(exchange, path)
        assert reply.status == status and part.items() <= reply.body.items(), name


async def test_open_interest_and_instruments_are_served() -> None:
    exchange, _ = silent("binance-delivery", "BTCUSD_PERP", "BTCUSD_240628")
    async with exchange:
        body = (await get(exchange, "/dapi/v1/openInterest?symbol=BTCUSD_240628")).body
        assert set(body) == {"symbol", "pair", "openInterest", "contractType", "time"}
        assert float(body["openInterest"]) == exchange.ticker("BTCUSD_240628").open_interest
        assert len((await get(exchange, "/dapi/v1/exchangeInfo")).body["symbols"]) == 2
    exchange, _ = silent("okex-swap", "BTC-USDT-SWAP", "ETH-USDT-SWAP")
    async with exchange:
        rows = (await get(exchange, "/api/v5/public/instruments?instType=SWAP")).body["data"]
        assert [row["instId"] for row in rows] == ["BTC-USDT-SWAP", "ETH-USDT-SWAP"]
        [row] = (await get(exchange, "/api/v5/public/open-interest?instType=SWAP&instId=BTC-USDT-SWAP")).body["data"]
        assert int(row["oi"]) == exchange.ticker("BTC-USDT-SWAP").open_interest
    exchange, _ = silent("deribit", "DERIBIT:OPTION_CHAIN:ETH-USD", "ETH-PERPETUAL")
    async with exchange:
        path = "/api/v2/public/get_instruments?currency=ETH&kind=option&expired=false"
        rows = (await get(exchange, path)).body["result"]
        assert [row["instrument_name"] for row in rows] == [
            name for name in exchange.symbols if name != "ETH-PERPETUAL"
        ]
        assert {row["option_type"] for row in rows} == {"call", "put"}
        assert all(row["expiration_timestamp"] % 86_400_000 == 8 * 3_600_000 for row in rows)

"""Each venue of the simulated exchange: acknowledgements, frames and snapshots are what the venue documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from market_data_tick_handler.core.ticks import BUY, SELL
from market_data_tick_handler.errors import InstrumentError
from market_data_tick_handler.testing import ManualClock
from market_data_tick_handler.testing.exchange import EXCHANGES, Rates, SimulatedExchange
from tests.testing.exchange_client import START_US, client_of, get, silent

START_MS = START_US // 1_000
BUSY = Rates(orders=5.0, tickers=2.0, liquidations=2.0)


def rpc(number: int, method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


def okx(*args: dict[str, str], op: str = "subscribe") -> dict[str, Any]:
    return {"op": op, "args": list(args)}


# exchange, symbols, path, what to send, channels that must come and the keys of their data.
LAYOUTS: list[tuple[str, list[str], str, Any, dict[str, str]]] = [
    (
        "binance",
        ["BTCUSDT"],
        "/stream?timeUnit=microsecond",
        {"method": "SUBSCRIBE", "params": ["btcusdt@trade", "btcusdt@depth@100ms", "btcusdt@bookTicker"], "id": 1},
        {
            "btcusdt@trade": "e E s t p q T m M",
            "btcusdt@depth@100ms": "e E s U u b a",
            "btcusdt@bookTicker": "u s b B a A",
        },
    ),
    (
        "binance-futures",
        ["BTCUSDT"],
        "/public/stream",
        {"method": "SUBSCRIBE", "params": ["btcusdt@trade", "btcusdt@depth@0ms"], "id": 1},
        {"btcusdt@trade": "e E T s t p q X m", "btcusdt@depth@0ms": "e E T s U u pu b a"},
    ),
    (
        "binance-futures",
        ["BTCUSDT"],
        "/market/stream",
        {"method": "SUBSCRIBE", "params": ["btcusdt@markPrice@1s", "btcusdt@ticker", "btcusdt@forceOrder"], "id": 1},
        {
            "btcusdt@markPrice@1s": "e E s p P i r T",
            "btcusdt@ticker": "e E s p P w c Q o h l v q O C F L n",
            "btcusdt@forceOrder": "e E o",
        },
    ),
    (
        "binance-delivery",
        ["BTCUSD_PERP"],
        "/stream",
        {
            "method": "SUBSCRIBE",
            "params": [
                "btcusd_perp@trade",
                "btcusd_perp@depth@0ms",
                "btcusd_perp@markPrice@1s",
                "btcusd@indexPrice@1s",
            ],
            "id": 1,
        },
        {
            "btcusd_perp@trade": "e E T s t p q X m",
            "btcusd_perp@depth@0ms": "e E T s ps U u pu b a",
            "btcusd_perp@markPrice@1s": "e E s p P r T",
            "btcusd@indexPrice@1s": "e E i p",
        },
    ),
    (
        "bybit",
        ["BTCUSDT"],
        "/v5/public/linear",
        {
            "op": "subscribe",
            "args": ["publicTrade.BTCUSDT", "orderbook.50.BTCUSDT", "tickers.BTCUSDT", "allLiquidation.BTCUSDT"],
        },
        {
            "publicTrade.BTCUSDT": "T s S v p L i BT RPI seq",
            "orderbook.50.BTCUSDT": "s b a u seq",
            "tickers.BTCUSDT": "symbol lastPrice prevPrice24h price24hPcnt markPrice indexPrice openInterest "
            "nextFundingTime fundingRate bid1Price bid1Size ask1Price ask1Size",
            "allLiquidation.BTCUSDT": "T s S v p",
        },
    ),
    (
        "bybit-spot",
        ["BTCUSDT"],
        "/v5/public/spot",
        {"op": "subscribe", "args": ["publicTrade.BTCUSDT", "orderbook.50.BTCUSDT"]},
        {"publicTrade.BTCUSDT": "T s S v p i BT RPI seq", "orderbook.50.BTCUSDT": "s b a u seq"},
    ),
    (
        "okex",
        ["BTC-USDT"],
        "/ws/v5/business",
        okx({"channel": "trades-all", "instId": "BTC-USDT"}),
        {"trades-all": "instId tradeId px sz side ts source"},
    ),
    (
        "okex-swap",
        ["BTC-USDT-SWAP"],
        "/ws/v5/public",
        okx(
            {"channel": "books", "instId": "BTC-USDT-SWAP"},
            {"channel": "tickers", "instId": "BTC-USDT-SWAP"},
            {"channel": "mark-price", "instId": "BTC-USDT-SWAP"},
            {"channel": "open-interest", "instId": "BTC-USDT-SWAP"},
            {"channel": "funding-rate", "instId": "BTC-USDT-SWAP"},
            {"channel": "index-tickers", "instId": "BTC-USDT"},
            {"channel": "liquidation-orders", "instType": "SWAP"},
        ),
        {
            "books": "asks bids ts checksum prevSeqId seqId",
            "tickers": "instType instId last lastSz askPx askSz bidPx bidSz open24h high24h low24h sodUtc0 sodUtc8 "
            "volCcy24h vol24h ts",
            "mark-price": "instId instType markPx ts",
            "open-interest": "instId instType oi oiCcy ts",
            "funding-rate": "instId instType fundingRate fundingTime nextFundingRate nextFundingTime method ts",
            "index-tickers": "instId idxPx open24h high24h low24h sodUtc0 sodUtc8 ts",
            "liquidation-orders": "details instFamily instId instType uly",
        },
    ),
    (
        "okex-futures",
        ["BTC-USD-240628"],
        "/ws/v5/public",
        okx(
            {"channel": "books", "instId": "BTC-USD-240628"},
            {"channel": "mark-price", "instId": "BTC-USD-240628"},
            {"channel": "liquidation-orders", "instType": "FUTURES"},
        ),
        {
            "books": "asks bids ts checksum prevSeqId seqId",
            "mark-price": "instId instType markPx ts",
            "liquidation-orders": "details instFamily instId instType uly",
        },
    ),
    (
        "deribit",
        ["BTC-PERPETUAL"],
        "/ws/api/v2",
        rpc(
            3,
            "public/subscribe",
            channels=["trades.BTC-PERPETUAL.100ms", "book.BTC-PERPETUAL.100ms", "ticker.BTC-PERPETUAL.100ms"],
        ),
        {
            "trades.BTC-PERPETUAL.100ms": "trade_seq trade_id timestamp tick_direction price mark_price "
            "instrument_name index_price direction amount contracts",
            "book.BTC-PERPETUAL.100ms": "type timestamp instrument_name change_id bids asks",
            "ticker.BTC-PERPETUAL.100ms": "timestamp state stats open_interest mark_price last_price instrument_name "
            "index_price best_bid_price best_bid_amount best_ask_price best_ask_amount funding_8h current_funding "
            "interest_value",
        },
    ),
]


def channel_of(message: Any) -> str:
    """Name of the stream of a frame of data; empty for any other."""
    params = message.get("params") or {}
    has_data = "data" in message or "data" in params
    name = (
        message.get("stream") or message.get("topic") or message.get("arg", {}).get("channel") or params.get("channel")
    )
    return name if has_data and name else ""


def data_of(message: Any) -> dict[str, Any]:
    """The data, the first row of it where there are several."""
    data = (message.get("params") or {}).get("data") or message["data"]
    first: dict[str, Any] = data[0] if isinstance(data, list) else data
    return first


@pytest.mark.parametrize(
    ("exchange", "symbols", "path", "request_", "wanted"), LAYOUTS, ids=lambda value: str(value)[:24]
)
async def test_a_subscription_is_acknowledged_before_frames_of_the_documented_layout(
    exchange: str, symbols: list[str], path: str, request_: Any, wanted: dict[str, str]
) -> None:
    clock = ManualClock(START_US)
    async with (
        SimulatedExchange(exchange, symbols, clock=clock, rates=BUSY) as simulated,
        client_of(simulated.sockets + path) as client,
    ):
        messages = await client.ask(request_)
        assert channel_of(messages[0]) == "", "an acknowledgement comes first"
        assert not ({"error", "code"} & set(messages[0])) and messages[0].get("success", True)
        await clock.advance(5.0)
        messages += await client.news()
    first: dict[str, Any] = {}
    for message in messages:
        if name := channel_of(message):
            first.setdefault(name, message)
    # Only some trades of Deribit are liquidations.
    assert {name: set(data_of(message)) - {"liquidation"} for name, message in first.items()} == {
        name: set(keys.split()) for name, keys in wanted.items()
    }


# Fields that venues added or dropped over the years, or that carry nothing of ours: per exchange.
_ELSEWHERE = {
    "binance": {"b", "a"},
    # Only changes have the number before them, only some trades are liquidations.
    "deribit": {"settlement_price", "min_price", "max_price", "estimated_delivery_price", "prev_change_id"}
    | {"liquidation"},
    "okex": {"formulaType", "impactValue", "interestRate", "maxFundingRate", "minFundingRate", "premium"}
    | {"prevFundingTime", "settFundingRate", "settState"},
    "bybit": {"tickDirection", "highPrice24h", "lowPrice24h", "prevPrice1h", "openInterestValue", "turnover24h"}
    | {"volume24h"},
}


@pytest.mark.parametrize(
    ("exchange", "symbols", "path", "request_", "wanted"), LAYOUTS, ids=lambda value: str(value)[:24]
)
async def test_frames_have_the_fields_and_types_of_recorded_ones(
    exchange: str, symbols: list[str], path: str, request_: Any, wanted: dict[str, str], samples_dir: Path
) -> None:
    recorded = recorded_frames(samples_dir / "mappers" / f"{exchange}.json")
    clock = ManualClock(START_US)
    async with (
        SimulatedExchange(exchange, symbols, clock=clock, rates=BUSY) as simulated,
        client_of(simulated.sockets + path) as client,
    ):
        messages = await client.ask(request_)
        await clock.advance(5.0)
        messages += await client.news()
    compared = 0
    for message in messages:
        theirs = recorded.get(kind_of(channel_of(message)))
        if theirs is None or message.get("type") == "delta":
            continue
        ours, compared = data_of(message), compared + 1
        missing = set(theirs) - set(ours) - _ELSEWHERE.get(exchange.split("-")[0], set())
        assert not missing, (message, theirs)
        for name in set(theirs) & set(ours):
            if name != "P" and None not in (theirs[name], ours[name]):
                assert kind(theirs[name]) == kind(ours[name]), name
    assert compared > 0


def recorded_frames(path: Path) -> dict[str, dict[str, Any]]:
    """The last recorded frame of each kind of stream, the one with the newest layout."""
    found = {}
    for case in json.loads(path.read_text())["cases"]:
        for step in case["steps"]:
            raw = step["raw"]
            if isinstance(raw, dict) and "table" not in raw and not raw.get("generated") and channel_of(raw):
                name = kind_of(channel_of(raw))
                data = data_of(raw)
                if raw.get("type") != "delta" and not {"greeks", "combo_state"} & set(data):
                    found[name] = data
    return found


def kind_of(channel: str) -> str:
    """A stream without its symbol and speed."""
    if "@" in channel:
        return channel.split("@")[1]
    return channel.split(".")[0]


def kind(value: Any) -> str:
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


async def test_binance_counts_in_microseconds_only_where_asked() -> None:
    exchange, _ = silent("binance", "BTCUSDT")
    async with (
        exchange,
        client_of(exchange.sockets + "/stream?timeUnit=microsecond&streams=btcusdt@trade") as micro,
        client_of(exchange.sockets + "/ws/btcusdt@trade") as raw,
    ):
        await micro.settle(), await raw.settle()
        exchange.trade("BTCUSDT", 60_000.5, 0.25, SELL, at_us=START_US + 123_456)
        [message], [plain] = await micro.news(), await raw.news()
    assert message["stream"] == "btcusdt@trade" and message["data"]["T"] == START_US + 123_456
    assert plain["T"] == START_MS + 123 and plain["p"] == "60000.50000000" and plain["m"] is True


async def test_binance_answers_commands_and_refuses_what_it_does_not_know() -> None:
    exchange, _ = silent("binance", "BTCUSDT")
    async with exchange, client_of(exchange.sockets + "/stream") as client:
        assert await client.ask({"method": "SUBSCRIBE", "params": ["btcusdt@trade"], "id": 7}) == [
            {"result": None, "id": 7}
        ]
        assert await client.ask({"method": "LIST_SUBSCRIPTIONS", "id": 8}) == [{"result": ["btcusdt@trade"], "id": 8}]
        [error] = await client.ask({"method": "NOTHING", "id": 9})
        assert error["error"]["code"] == 2 and error["id"] == 9
        [error] = await client.ask("{")
        assert error["error"]["code"] == 3
        await client.ask({"method": "UNSUBSCRIBE", "params": ["btcusdt@trade"], "id": 10})
        exchange.trade("BTCUSDT", 60_000, 1, BUY)
        assert await client.news() == []


async def test_a_futures_socket_of_binance_is_silent_about_streams_of_the_other() -> None:
    exchange, _ = silent("binance-futures", "BTCUSDT")
    subscribe = {"method": "SUBSCRIBE", "params": ["btcusdt@trade", "btcusdt@markPrice@1s"], "id": 1}
    async with (
        exchange,
        client_of(exchange.sockets + "/public/stream") as public,
        client_of(exchange.sockets + "/market/stream") as market,
    ):
        await public.ask(subscribe), await market.ask(subscribe)
        exchange.trade("BTCUSDT", 60_000, 1, BUY)
        exchange.set_ticker("BTCUSDT", mark=600_001)
        [trade], [mark] = await public.news(), await market.news()
    assert trade["stream"] == "btcusdt@trade"
    assert mark["data"]["p"] == "60000.1"


async def test_binance_ends_a_connection_that_talks_too_much() -> None:
    exchange, _ = silent("binance", "BTCUSDT")
    async with exchange, client_of(exchange.sockets + "/stream") as client:
        for number in range(6):
            await client.socket.send(json.dumps({"method": "LIST_SUBSCRIPTIONS", "id": number}))
        await client.ended()
        assert client.socket.close_code == 1008
    assert exchange.counters.ended == {"messages": 1}


async def test_binance_pings_and_ends_a_connection_after_a_day() -> None:
    exchange, clock = silent("binance", "BTCUSDT")
    async with exchange, client_of(exchange.sockets + "/stream") as client:
        await client.settle()
        for _ in range(5):
            await clock.advance(19.0)
            await client.settle()
        assert not client.closed.is_set()
        clock.move(86_400.0)
        await client.ended()
    assert exchange.counters.ended == {"age": 1}


async def test_bybit_answers_pings_and_refuses_a_message_with_an_unknown_topic() -> None:
    exchange, _ = silent("bybit", "BTCUSDT", "BTCUSD")
    async with exchange, client_of(exchange.sockets + "/v5/public/linear") as client:
        [pong] = await client.ask({"op": "ping", "req_id": "3"})
        assert (pong["ret_msg"], pong["op"], pong["success"], pong["req_id"]) == ("pong", "ping", True, "3")
        # A contract of the other socket is unknown here, and nothing of the message is subscribed.
        [refusal] = await client.ask({"op": "subscribe", "args": ["publicTrade.BTCUSDT", "publicTrade.BTCUSD"]})
        assert refusal["success"] is False and "publicTrade.BTCUSD" in refusal["ret_msg"]
        assert exchange.subscribed == set()


async def test_bybit_spot_takes_ten_topics_a_message() -> None:
    exchange, _ = silent("bybit-spot", "BTCUSDT")
    async with exchange, client_of(exchange.sockets + "/v5/public/spot") as client:
        [refusal] = await client.ask({"op": "subscribe", "args": ["publicTrade.BTCUSDT"] * 11})
        assert refusal == {"success": False, "ret_msg": "args size >10", "conn_id": "sim-1", "op": "subscribe"}


async def test_a_bybit_ticker_sends_what_changed() -> None:
    exchange, _ = silent("bybit", "BTCUSDT")
    async with exchange, client_of(exchange.sockets + "/v5/public/linear") as client:
        [_, snapshot] = await client.ask({"op": "subscribe", "args": ["tickers.BTCUSDT"]})
        assert snapshot["type"] == "snapshot" and snapshot["data"]["markPrice"] == "60000.0"
        exchange.set_ticker("BTCUSDT", mark=600_005)
        [delta] = await client.news()
    assert delta["type"] == "delta" and delta["data"] == {"symbol": "BTCUSDT", "markPrice": "60000.5"}


async def test_bybit_names_the_side_of_the_position_in_a_liquidation() -> None:
    exchange, _ = silent("bybit", "BTCUSDT")
    async with exchange, client_of(exchange.sockets + "/v5/public/linear") as client:
        await client.ask({"op": "subscribe", "args": ["allLiquidation.BTCUSDT"]})
        exchange.liquidate("BTCUSDT", 59_990.5, 0.5, SELL)
        [message] = await client.news()
    assert message["data"] == [{"T": START_MS, "s": "BTCUSDT", "S": "Buy", "v": "0.5", "p": "59990.5"}]
    assert exchange.liquidation_truth("BTCUSDT")["side"].tolist() == [SELL]


async def test_fills_of_one_order_are_one_frame_or_several_as_the_venue_has_it() -> None:
    subscriptions: dict[str, tuple[str, str, Any, int]] = {
        "bybit": ("BTCUSDT", "/v5/public/linear", {"op": "subscribe", "args": ["publicTrade.BTCUSDT"]}, 1),
        "deribit": (
            "BTC-PERPETUAL",
            "/ws/api/v2",
            rpc(1, "public/subscribe", channels=["trades.BTC-PERPETUAL.100ms"]),
            1,
        ),
        "binance-futures": (
            "BTCUSDT",
            "/public/stream",
            {"method": "SUBSCRIBE", "params": ["btcusdt@trade"], "id": 1},
            3,
        ),
        "okex-swap": (
            "BTC-USDT-SWAP",
            "/ws/v5/business",
            okx({"channel": "trades-all", "instId": "BTC-USDT-SWAP"}),
            3,
        ),
    }
    for name, (symbol, path, subscribe, frames) in subscriptions.items():
        exchange, _ = silent(name, symbol)
        async with exchange, client_of(exchange.sockets + path) as client:
            await client.ask(subscribe)
            exchange.order(symbol, [(60_000, 10), (60_000, 20), (60_001, 30)], BUY)
            assert len(await client.news()) == frames, name
            assert exchange.truth(symbol)["amount"].tolist() == [10, 20, 30]


async def test_okx_answers_ping_refuses_wrong_channels_and_hangs_up_on_silence() -> None:
    exchange, clock = silent("okex-futures", "BTC-USD-240628")
    dated = {"channel": "trades-all", "instId": "BTC-USD-240628"}
    async with exchange, client_of(exchange.sockets + "/ws/v5/public") as client:
        assert await client.ask("ping") == ["pong"]
        [wrong_socket, no_funding] = await client.ask(okx(dated, {**dated, "channel": "funding-rate"}))
        assert wrong_socket["event"] == no_funding["event"] == "error" and wrong_socket["code"] == "60018"
        assert "doesn't exist" in no_funding["msg"]
        [bad] = await client.ask({"op": "dance"})
        assert bad["code"] == "60012"
        await clock.advance(31.0)
        await client.ended()
        assert client.socket.close_code == 4004


async def test_the_first_liquidation_of_okx_is_an_old_one() -> None:
    exchange, _ = silent("okex-swap", "BTC-USDT-SWAP")
    async with exchange, client_of(exchange.sockets + "/ws/v5/public") as client:
        [_, old] = await client.ask(okx({"channel": "liquidation-orders", "instType": "SWAP"}))
        assert int(old["data"][0]["details"][0]["ts"]) == START_MS - 3_600_000
        exchange.liquidate("BTC-USDT-SWAP", 60_010, 3, BUY)
        [new] = await client.news()
    assert new["data"][0]["details"] == [
        {"bkLoss": "0", "bkPx": "60010", "ccy": "", "posSide": "short", "side": "buy", "sz": "3", "ts": str(START_MS)}
    ]
    assert len(exchange.liquidation_truth("BTC-USDT-SWAP")) == 1


async def test_deribit_beats_and_hangs_up_on_who_does_not_answer() -> None:
    exchange, clock = silent("deribit", "BTC-PERPETUAL")
    async with exchange, client_of(exchange.sockets + "/ws/api/v2") as client:
        [answer] = await client.ask(rpc(1, "public/set_heartbeat", interval=10))
        assert answer["result"] == "ok" and answer["usIn"] >= START_US
        for _ in range(3):
            await clock.advance(11.0)
            beats = await client.news()
            assert [beat["params"]["type"] for beat in beats] == ["heartbeat", "test_request"]
            [test] = await client.ask(rpc(2, "public/test"))
            assert "version" in test["result"]
        await clock.advance(22.0)
        await client.ended()
    assert exchange.counters.ended == {"heartbeat": 1}


async def test_deribit_leaves_out_unknown_channels_and_keeps_raw_for_members() -> None:
    exchange, _ = silent("deribit", "BTC-PERPETUAL")
    async with exchange, client_of(exchange.sockets + "/ws/api/v2") as client:
        [answer, *_] = await client.ask(
            rpc(1, "public/subscribe", channels=["ticker.BTC-PERPETUAL.100ms", "ticker.DOGE.100ms", "nonsense"])
        )
        assert answer["result"] == ["ticker.BTC-PERPETUAL.100ms"]
        [refusal] = await client.ask(rpc(2, "public/subscribe", channels=["trades.BTC-PERPETUAL.raw"]))
        assert refusal["error"]["code"] == 13778
        await client.ask(rpc(3, "public/auth", grant_type="client_credentials", client_id="a", client_secret="b"))
        [answer] = await client.ask(rpc(4, "private/subscribe", channels=["trades.BTC-PERPETUAL.raw"]))
        assert answer["result"] == ["trades.BTC-PERPETUAL.raw"]
        [error] = await client.ask(rpc(5, "public/dance"))
        assert error["error"]["code"] == -32601


async def test_a_deribit_liquidation_is_a_trade_with_a_flag() -> None:
    exchange, _ = silent("deribit", "BTC-PERPETUAL")
    async with exchange, client_of(exchange.sockets + "/ws/api/v2") as client:
        await client.ask(rpc(1, "public/subscribe", channels=["trades.future.BTC.100ms"]))
        exchange.liquidate("BTC-PERPETUAL", 59_990, 100, SELL)
        [message] = await client.news()
    [trade] = message["params"]["data"]
    assert (trade["liquidation"], trade["direction"], trade["amount"]) == ("T", "sell", 100.0)
    assert len(exchange.truth("BTC-PERPETUAL")) == len(exchange.liquidation_truth("BTC-PERPETUAL")) == 1


@pytest.mark.parametrize("exchange", EXCHANGES)
async def test_unknown_paths_are_not_found(exchange: str) -> None:
    symbols = {"okex": "BTC-USDT", "okex-swap": "BTC-USDT-SWAP", "okex-futures": "BTC-USD-240628"}
    others = {"deribit": "BTC-PERPETUAL", "binance-delivery": "BTCUSD_PERP"}
    simulated, _ = silent(exchange, {**symbols, **others}.get(exchange, "BTCUSDT"))
    async with simulated:
        assert (await get(simulated, "/nowhere")).status == 404
        with pytest.raises(Exception, match="404"):
            async with client_of(simulated.sockets + "/nowhere"):
                raise AssertionError("connected")
    assert simulated.counters.requests == {"/nowhere": 1} and simulated.counters.refused == 1


NONSENSE = [
    "",
    "null",
    "[]",
    "{",
    '"text"',
    '{"op":"subscribe","args":[{}]}',
    '{"op":"subscribe","args":["","a","orderbook..X","orderbook.7.BTCUSDT","a.b.c.d"]}',
    '{"op":"subscribe","args":[{"channel":"books","instId":""},{"channel":"liquidation-orders"},{"channel":"tickers"}]}',
    '{"op":"unsubscribe","args":["never"]}',
    '{"method":"SUBSCRIBE","params":["",null,5,"@","x@trade","BTCUSDT@trade","btcusd@indexPrice@1s"],"id":null}',
    '{"method":"public/subscribe","params":{"channels":["",1,null,"trades","book.a.b.c.100ms","trades.x.y.100ms"]}}',
    '{"method":"public/subscribe","params":{"channels":5},"id":2}',
    '{"method":"public/set_heartbeat","params":{"interval":"soon"}}',
    '{"method":"public/get_last_trades_by_instrument_and_time","params":{"instrument_name":"BTC-PERPETUAL"}}',
    '{"method":5}',
]
SOCKETS = {
    "binance": ("BTCUSDT", "/stream"),
    "binance-futures": ("BTCUSDT", "/market/stream"),
    "binance-delivery": ("BTCUSD_PERP", "/ws"),
    "bybit": ("BTCUSDT", "/v5/public/linear"),
    "bybit-spot": ("BTCUSDT", "/v5/public/spot"),
    "okex": ("BTC-USDT", "/ws/v5/public"),
    "okex-swap": ("BTC-USDT-SWAP", "/ws/v5/public"),
    "okex-futures": ("BTC-USD-240628", "/ws/v5/public"),
    "deribit": ("BTC-PERPETUAL", "/ws/api/v2"),
}


@pytest.mark.parametrize("name", EXCHANGES)
async def test_nonsense_of_a_client_does_not_end_its_connection(name: str, caplog: pytest.LogCaptureFixture) -> None:
    symbol, path = SOCKETS[name]
    exchange, clock = silent(name, symbol)
    async with exchange, client_of(exchange.sockets + path) as client:
        for text in NONSENSE:
            await client.ask(text)
            await clock.advance(1.0)
        await client.socket.send(b"\xff\xfe")
        await client.settle()
        exchange.trade(symbol, 60_000, 1, BUY)
        exchange.publish_book(symbol)
        exchange.set_ticker(symbol, mark=600_001)
        await client.settle()
        assert exchange.open_connections == 1
        weird = f"limit=-5&count=0&fromId={'9' * 40}&start_seq=x&symbol=&instId=&sz=&after=&category="
        for reply_path in ("/api/v3/trades", "/api/v5/market/history-trades", "/v5/market/recent-trade"):
            assert (await get(exchange, f"{reply_path}?{weird}")).status in (200, 400, 404)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_an_exchange_that_cannot_be_simulated_is_an_error() -> None:
    with pytest.raises(InstrumentError, match="kraken"):
        silent("kraken", "BTC-USD")


async def test_a_symbol_of_another_exchange_is_an_error() -> None:
    exchange, _ = silent("binance", "DERIBIT:PERPETUAL:BTC-USD")
    with pytest.raises(InstrumentError, match="binance"):
        async with exchange:
            raise AssertionError("opened")

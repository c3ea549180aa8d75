"""How we talk to Bybit: the vendor's subscriptions, the venue's limits, what its answers mean, and trades over REST."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from market_data_tick_handler.core.instruments import (
    InstrumentDefinition,
    instrument_from_venue_symbol,
    parse_instrument_key,
)
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.errors import ProtocolViolation, SourceUnavailable
from streaming_service.sources.exchanges.bybit import VENUES
from streaming_service.sources.exchanges.protocol import Meaning, Subscription, TradeHistory, TradePage, TradeRange

BYBIT: Final = VENUES["bybit"]
SPOT: Final = VENUES["bybit-spot"]
OPTIONS: Final = VENUES["bybit-options"]
LINEAR = instrument_from_venue_symbol("bybit", "BTCUSDT")
INVERSE = instrument_from_venue_symbol("bybit", "BTCUSD")
SPOT_PAIR = instrument_from_venue_symbol("bybit-spot", "BTCUSDT")
CALL = instrument_from_venue_symbol("bybit-options", "BTC-26DEC25-100000-C")
PUT = instrument_from_venue_symbol("bybit-options", "BTC-26DEC25-100000-P-USDT")
CHAIN = parse_instrument_key("BYBIT-OPTIONS:OPTION_CHAIN:BTC-USDC")
TETHER_CHAIN = parse_instrument_key("BYBIT-OPTIONS:OPTION_CHAIN:BTC-USDT")
NAMES: Final = {
    "trade": DataType.TRADES,
    "book_change": DataType.BOOK,
    "derivative_ticker": DataType.DERIVATIVE,
    "liquidation": DataType.LIQUIDATIONS,
    "option_summary": DataType.OPTIONS,
}
T0: Final = 1_700_000_000_000


def topics(subscription: Subscription) -> list[str]:
    found = []
    for message in subscription.messages:
        document = json.loads(message)
        assert document.keys() == {"op", "args"} and document["op"] == "subscribe"
        found += document["args"]
    return found


@pytest.mark.parametrize(
    ("exchange", "instruments"),
    [("bybit", [LINEAR, INVERSE]), ("bybit-spot", [SPOT_PAIR]), ("bybit-options", [CALL])],
)
def test_subscriptions_are_those_of_the_vendor(
    exchange: str, instruments: list[InstrumentDefinition], samples_dir: Path
) -> None:
    venue = VENUES[exchange]
    document = json.loads((samples_dir / "subscriptions_realtime.json").read_text())[exchange]
    compared = {name: NAMES[name] for name in document if name in NAMES}
    assert len(compared) >= 2
    for name, data_type in compared.items():
        ours = venue.subscriptions(instruments, [data_type])
        theirs = [(each["url"], [json.dumps(m) for m in each["subscribe"]]) for each in document[name]["connections"]]
        assert [
            (venue.endpoints.sockets + own.path, [json.dumps(json.loads(m)) for m in own.messages]) for own in ours
        ] == theirs


@pytest.mark.parametrize(
    ("symbol", "path"),
    [
        ("BTCUSDT", "linear"), ("BTCPERP", "linear"), ("BTC-26DEC25", "linear"), ("BTCUSDT-26DEC25", "linear"),
        ("BTCUSD", "inverse"), ("BTCUSDZ25", "inverse"),
    ],
)  # fmt: skip
def test_contracts_in_dollars_have_a_socket_of_their_own(symbol: str, path: str) -> None:
    instrument = instrument_from_venue_symbol("bybit", symbol)
    (own,) = BYBIT.subscriptions([instrument], [DataType.TRADES])
    assert own.path == f"/v5/public/{path}"
    assert topics(own) == [f"publicTrade.{symbol}"]


def test_streams_say_what_a_connection_carries() -> None:
    linear, inverse = BYBIT.subscriptions([LINEAR, INVERSE], tuple(DataType))
    kinds = (DataType.TRADES, DataType.BOOK, DataType.DERIVATIVE, DataType.LIQUIDATIONS)
    assert linear.streams == {(LINEAR.key, kind) for kind in kinds}
    assert inverse.streams == {(INVERSE.key, kind) for kind in kinds}
    (spot,) = SPOT.subscriptions([SPOT_PAIR], tuple(DataType))
    assert spot.streams == {(SPOT_PAIR.key, DataType.TRADES), (SPOT_PAIR.key, DataType.BOOK)}


def test_trades_of_all_options_of_a_coin_are_one_topic_and_tickers_belong_to_the_chain() -> None:
    (own,) = OPTIONS.subscriptions([CALL, PUT], tuple(DataType))
    assert topics(own) == [
        f"orderbook.25.{CALL.venue_symbol}", "publicTrade.BTC", f"tickers.{CALL.venue_symbol}",
        f"orderbook.25.{PUT.venue_symbol}", f"tickers.{PUT.venue_symbol}",
    ]  # fmt: skip
    assert own.streams == {
        *((each.key, kind) for each in (CALL, PUT) for kind in (DataType.TRADES, DataType.BOOK)),
        (CHAIN.key, DataType.OPTIONS),
        (TETHER_CHAIN.key, DataType.OPTIONS),
    }


def test_a_chain_alone_is_polled_and_has_a_connection_to_belong_to() -> None:
    (own,) = OPTIONS.subscriptions([CHAIN], tuple(DataType))
    assert own.messages == () and own.streams == {(CHAIN.key, DataType.OPTIONS)}
    (poll,) = OPTIONS.polls([CHAIN, TETHER_CHAIN], tuple(DataType))
    assert poll.request.path == "/v5/market/tickers?category=option&baseCoin=BTC"
    listed = {"symbol": CALL.venue_symbol, "bid1Price": "5", "markIv": "0.5"}
    body = json.dumps({"retCode": 0, "result": {"list": [listed]}, "time": T0}).encode()
    frame = poll.frame(body)
    assert json.loads(frame)["generated"] is True
    decoded = OPTIONS.decoder([CHAIN], tuple(DataType)).decode([frame], np.array([5], np.int64))
    assert [(rows.instrument, rows.batch["bid_price"].tolist()) for rows in decoded.rows] == [(CHAIN.key, [5.0])]


def test_a_chain_whose_options_are_subscribed_to_is_not_polled() -> None:
    assert OPTIONS.polls([CHAIN, CALL], tuple(DataType)) == []
    assert [poll.request.path for poll in OPTIONS.polls([CHAIN, PUT], tuple(DataType))] != []
    assert OPTIONS.polls([CHAIN], [DataType.TRADES]) == []
    assert BYBIT.polls([LINEAR], tuple(DataType)) == []


def test_subscriptions_stay_within_the_limits_of_messages_and_connections() -> None:
    contracts = [instrument_from_venue_symbol("bybit", f"COIN{index}USDT") for index in range(700)]
    found = BYBIT.subscriptions(contracts, tuple(DataType))
    assert len(found) > 1
    for own in found:
        assert all(len(json.loads(message)["args"]) <= 10 for message in own.messages)
        assert len(json.dumps(topics(own), separators=(",", ":"))) <= 21_000
        assert own.path == "/v5/public/linear" and own.pause_s > 0
    every = [topic for own in found for topic in topics(own)]
    assert len(every) == len(set(every)) == 4 * 700
    assert frozenset[Any]().union(*(own.streams for own in found)) == {
        (each.key, kind) for each in contracts for kind in each.data_types
    }


def test_options_have_a_limit_on_topics_too() -> None:
    short = [instrument_from_venue_symbol("bybit-options", f"X-1JAN26-{strike}-C") for strike in range(1, 2_500)]
    found = OPTIONS.subscriptions(short, [DataType.OPTIONS])
    assert all(len(topics(own)) <= 2_000 and sum(len(t) + 3 for t in topics(own)) <= 21_000 for own in found)
    assert sum(len(topics(own)) for own in found) == len(short)


@pytest.mark.parametrize(
    ("frame", "meaning"),
    [
        (b'{"success":true,"ret_msg":"pong","conn_id":"x","req_id":"","op":"ping"}', Meaning.ALIVE),
        (b'{"req_id":"test","op":"pong","args":["1675418560633"],"conn_id":"x"}', Meaning.ALIVE),
        (b'{"success":true,"ret_msg":"","conn_id":"x","req_id":"","op":"subscribe"}', Meaning.ACKNOWLEDGED),
        (b'{"success":true,"ret_msg":"subscribe","conn_id":"x","op":"subscribe"}', Meaning.ACKNOWLEDGED),
        (b'{"success":true,"ret_msg":"","conn_id":"x","op":"unsubscribe"}', Meaning.ACKNOWLEDGED),
        (
            b'{"success":true,"ret_msg":null,"topic":null,"type":null,"data":null,"op":"subscribe"}',
            Meaning.ACKNOWLEDGED,
        ),
        (
            b'{"success":true,"conn_id":"x","data":{"failTopics":[],"successTopics":["tickers.A"]},"type":"COMMAND_RESP"}',
            Meaning.ACKNOWLEDGED,
        ),
        (
            b'{"success":false,"ret_msg":"error:topic already subscribed","conn_id":"x","op":"subscribe"}',
            Meaning.ACKNOWLEDGED,
        ),
        (b'{"success":false,"ret_msg":"error:handler not found","conn_id":"x","op":"subscribe"}', Meaning.REFUSED),
        (b'{"success":false,"ret_msg":"args size \\u003e10","conn_id":"x","op":"subscribe"}', Meaning.REFUSED),
        (
            b'{"success":true,"data":{"failTopics":["tickers.A"],"successTopics":[]},"type":"COMMAND_RESP"}',
            Meaning.REFUSED,
        ),
        (b'{"success":false,"ret_msg":"","op":"unsubscribe"}', Meaning.UNKNOWN),
        (b'{"success":false,"ret_msg":"Request not authorized","op":"auth"}', Meaning.UNKNOWN),
        (b'{"topic":"kline.1.BTCUSDT","type":"snapshot","data":[]}', Meaning.UNKNOWN),
        (b"[]", Meaning.UNKNOWN),
        (b"\xff", Meaning.UNKNOWN),
    ],
)
def test_frames_without_data_are_understood(frame: bytes, meaning: Meaning) -> None:
    assert BYBIT.control(frame).meaning is meaning


def test_a_refusal_says_why() -> None:
    refused = OPTIONS.control(b'{"success":false,"ret_msg":"no","data":{"failTopics":["a","b"]},"type":"COMMAND_RESP"}')
    assert refused.text == "no a b"
    assert BYBIT.control(b'{"success":false,"ret_msg":"bad topic","op":"subscribe"}').text == "bad topic"


def test_a_ping_is_sent_and_a_connection_has_no_end() -> None:
    for venue in VENUES.values():
        assert json.loads(venue.keep_alive.message) == {"op": "ping"}
        assert venue.keep_alive.interval_s == 5.0
        assert venue.max_age_s is None
        assert venue.endpoints.rest == "https://api.bybit.com"


def test_a_book_comes_afresh_when_its_topic_is_left_and_taken_again() -> None:
    assert BYBIT.snapshot(LINEAR) is None
    assert [json.loads(message) for message in BYBIT.resubscribe(LINEAR)] == [
        {"op": "unsubscribe", "args": ["orderbook.50.BTCUSDT"]},
        {"op": "subscribe", "args": ["orderbook.50.BTCUSDT"]},
    ]
    assert json.loads(OPTIONS.resubscribe(CALL)[1])["args"] == [f"orderbook.25.{CALL.venue_symbol}"]


MISSING = TradeRange(T0 * 1_000, (T0 + 10) * 1_000)


def listed(time: int, **fields: Any) -> dict[str, Any]:
    return {
        "execId": f"id-{time}", "symbol": "BTCUSDT", "price": "2", "size": "3", "side": "Sell", "time": str(time),
        "isBlockTrade": False,
    } | fields  # fmt: skip


def answer(*rows: dict[str, Any], **fields: Any) -> bytes:
    document = {"retCode": 0, "retMsg": "OK", "result": {"category": "linear", "list": rows}, "time": T0 + 99} | fields
    return json.dumps(document).encode()


def history() -> TradeHistory:
    assert BYBIT.history is not None
    return BYBIT.history


def read(*rows: dict[str, Any]) -> TradePage:
    return history().read(LINEAR, MISSING, answer(*rows))


@pytest.mark.parametrize(
    ("instrument", "path"),
    [
        (LINEAR, "category=linear&symbol=BTCUSDT&limit=1000"),
        (INVERSE, "category=inverse&symbol=BTCUSD&limit=1000"),
        (SPOT_PAIR, "category=spot&symbol=BTCUSDT&limit=60"),
        (CALL, f"category=option&symbol={CALL.venue_symbol}&limit=1000"),
    ],
)
def test_history_is_the_largest_page_of_recent_trades(instrument: InstrumentDefinition, path: str) -> None:
    assert history().first(instrument, MISSING).path == f"/v5/market/recent-trade?{path}"
    last = VENUES[instrument.exchange].last_trade(instrument)
    assert last is not None and last.path.endswith("&limit=1")


def test_a_chain_has_no_last_trade() -> None:
    assert OPTIONS.last_trade(CHAIN) is None


def test_missing_trades_come_oldest_first_and_those_around_them_are_left_out() -> None:
    page = read(listed(T0 + 10), listed(T0 + 9, execId="b"), listed(T0 + 9, execId="a", side="Buy"), listed(T0 - 1))
    assert page.trades["id_text"].tolist() == ["a", "b"]
    assert page.trades["side"].tolist() == [1, -1]
    assert page.trades["price"].tolist() == [2.0, 2.0]
    assert page.trades["timestamp"].tolist() == page.trades["local_timestamp"].tolist() == [(T0 + 9) * 1_000] * 2
    assert page.next is None
    assert page.complete


def test_a_page_that_does_not_reach_back_before_the_range_is_incomplete() -> None:
    assert not read(listed(T0 + 5)).complete
    # Trades of the same millisecond may be on the page that there is not.
    assert not read(listed(T0 + 5), listed(T0)).complete
    assert not read().complete
    assert len(read().trades) == 0


def test_a_trade_is_the_same_over_rest_and_socket() -> None:
    text = "a9188a0a-82bc-50de-be60-03eedbe3cdd7"
    row = {"T": T0 + 3, "s": "BTCUSDT", "S": "Sell", "v": "3", "p": "2", "i": text}
    frame = json.dumps({"topic": "publicTrade.BTCUSDT", "data": [row]}).encode()
    pushed = BYBIT.decoder([LINEAR], tuple(DataType)).decode([frame], np.array([(T0 + 3) * 1_000], np.int64)).rows[0]
    fetched = read(listed(T0 + 3, execId=text)).trades
    assert fetched.columns.keys() == pushed.batch.columns.keys()
    for name, values in pushed.batch.columns.items():
        np.testing.assert_array_equal(values, fetched[name], err_msg=name)
        assert values.dtype == fetched[name].dtype


def test_the_answer_to_the_last_trade_is_read_like_history() -> None:
    everything = TradeRange(0, 2**62)
    assert history().read(LINEAR, everything, answer(listed(T0))).trades["timestamp"].tolist() == [T0 * 1_000]


def test_trades_of_another_instrument_are_left_out() -> None:
    assert read(listed(T0 + 1, symbol="ETHUSDT"), listed(T0 + 1)).trades["id_text"].tolist() == [f"id-{T0 + 1}"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        answer(result={}),
        answer(retCode=10001, retMsg="params error"),
        answer(listed(T0, price="x")),
        answer(listed(T0, price="nan")),
        answer({"execId": "a"}),
    ],
)
def test_an_answer_that_is_not_documented_is_a_violation(body: bytes) -> None:
    with pytest.raises(ProtocolViolation, match="recent-trade") as caught:
        history().read(LINEAR, MISSING, body)
    assert caught.value.raw == body


def test_an_answer_that_asks_to_come_back_later_is_no_violation() -> None:
    body = answer(retCode=10006, retMsg="Too many visits!", result={})
    with pytest.raises(SourceUnavailable, match="Too many visits"):
        history().read(LINEAR, MISSING, body)

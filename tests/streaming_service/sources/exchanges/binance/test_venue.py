"""Connections and messages that the venue allows, and what its own frames mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from market_data_tick_handler.core.instruments import (
    InstrumentDefinition,
    instrument_from_venue_symbol,
    parse_instrument_key,
)
from market_data_tick_handler.core.ticks import DataType
from streaming_service.sources.exchanges.binance import VENUES
from streaming_service.sources.exchanges.binance.venue import BinanceVenue
from streaming_service.sources.exchanges.protocol import Meaning, Subscription
from tests.streaming_service.sources.exchanges.binance.messages import arrivals
from tests.streaming_service.sources.exchanges.vectors import TICKER, messages

SPOT = instrument_from_venue_symbol("binance", "BTCUSDT")
FUTURE = instrument_from_venue_symbol("binance-futures", "BTCUSDT")
COINS = [instrument_from_venue_symbol("binance-delivery", name) for name in ("BTCUSD_PERP", "BTCUSD_250328")]
OPTION = instrument_from_venue_symbol("binance-european-options", "BTC-251226-100000-C")
CHAIN = parse_instrument_key("BINANCE-OPTIONS:OPTION_CHAIN:BTC-USDT")
ALL = list(DataType)


def names(subscription: Subscription) -> list[str]:
    sent = [json.loads(message) for message in subscription.messages]
    assert [message["method"] for message in sent] == ["SUBSCRIBE"] * len(sent)
    assert len({message["id"] for message in sent}) == len(sent)
    return [name for message in sent for name in message["params"]]


def many(exchange: str, count: int) -> list[InstrumentDefinition]:
    quote = {"binance": "USDT", "binance-futures": "USDT", "binance-delivery": "USD_PERP"}
    if exchange in quote:
        return [instrument_from_venue_symbol(exchange, f"C{n}{quote[exchange]}") for n in range(count)]
    return [instrument_from_venue_symbol(exchange, f"BTC-251226-{n + 1}000-C") for n in range(count)]


def test_there_is_a_venue_for_each_market() -> None:
    assert list(VENUES) == ["binance", "binance-futures", "binance-delivery", "binance-european-options"]
    assert all(venue.exchange == exchange for exchange, venue in VENUES.items())


def test_spot_has_one_socket() -> None:
    (only,) = VENUES["binance"].subscriptions([SPOT], ALL)
    assert only.path == "/stream?timeUnit=microsecond"
    assert names(only) == ["btcusdt@trade", "btcusdt@depth@100ms"]
    assert only.streams == {(SPOT.key, DataType.TRADES), (SPOT.key, DataType.BOOK)}


def test_futures_have_a_socket_for_trading_and_one_for_the_market() -> None:
    public, market = VENUES["binance-futures"].subscriptions([FUTURE], ALL)
    assert (public.path, names(public)) == ("/public/stream", ["btcusdt@trade", "btcusdt@depth@0ms"])
    assert (market.path, names(market)) == (
        "/market/stream", ["btcusdt@markPrice@1s", "btcusdt@ticker", "btcusdt@forceOrder"],
    )  # fmt: skip
    assert public.streams == {(FUTURE.key, DataType.TRADES), (FUTURE.key, DataType.BOOK)}
    assert market.streams == {(FUTURE.key, DataType.DERIVATIVE), (FUTURE.key, DataType.LIQUIDATIONS)}


def test_what_is_not_wanted_is_not_subscribed() -> None:
    (only,) = VENUES["binance-futures"].subscriptions([FUTURE], [DataType.LIQUIDATIONS])
    assert names(only) == ["btcusdt@forceOrder"]
    assert VENUES["binance"].subscriptions([SPOT], [DataType.DERIVATIVE]) == []
    assert VENUES["binance"].subscriptions([], ALL) == []


def test_the_index_price_of_a_pair_is_subscribed_once() -> None:
    (only,) = VENUES["binance-delivery"].subscriptions(COINS, [DataType.DERIVATIVE])
    assert names(only).count("btcusd@indexPrice@1s") == 1
    assert {"btcusd_perp@markPrice@1s", "btcusd_250328@ticker"} <= set(names(only))


def test_options_come_one_by_one_and_summaries_per_underlying() -> None:
    public, market = VENUES["binance-european-options"].subscriptions([CHAIN, OPTION], ALL)
    symbol = "btc-251226-100000-c"
    assert (public.path, names(public)) == ("/public/stream", [f"{symbol}@optionTrade", f"{symbol}@depth20@100ms"])
    assert market.path == "/market/stream"
    assert names(market) == ["btcusdt@optionMarkPrice", "btcusdt@optionOpenInterest@251226"]
    assert market.streams == {(CHAIN.key, DataType.OPTIONS)}


@pytest.mark.parametrize("exchange", list(VENUES))
def test_names_are_those_that_the_vendor_subscribes(exchange: str, samples_dir: Path) -> None:
    """Except what we do not use: the best bid and ask, and the option ticker, which a poll stands in for."""
    vendor = json.loads((samples_dir / "subscriptions_realtime.json").read_text())[exchange]
    wanted: set[tuple[str, str]] = set()
    for kind, entry in vendor.items():
        for connection in entry["connections"] if kind != "book_ticker" else ():
            wanted |= {(connection["url"], name) for sent in connection.get("subscribe", ()) for name in sent["params"]}
    wanted = {(url, name) for url, name in wanted if not name.endswith("@optionTicker")}
    instruments = {"binance": [SPOT], "binance-futures": [FUTURE], "binance-delivery": COINS}.get(exchange, [OPTION])
    venue = VENUES[exchange]
    ours = {
        (venue.endpoints.sockets + subscription.path, name)
        for subscription in venue.subscriptions(instruments, ALL)
        for name in names(subscription)
    }
    assert ours == wanted


@pytest.mark.parametrize(
    ("exchange", "streams", "per_second"),
    [("binance", 1_024, 5), ("binance-futures", 200, 10), ("binance-delivery", 200, 10),
     ("binance-european-options", 200, 10)],
)  # fmt: skip
def test_connections_and_messages_stay_within_the_limits(exchange: str, streams: int, per_second: int) -> None:
    instruments = many(exchange, 700)
    found = VENUES[exchange].subscriptions(instruments, ALL)
    assert len(found) > 1
    for subscription in found:
        assert 0 < len(names(subscription)) <= streams
        assert len(set(names(subscription))) == len(names(subscription))
        assert all(len(message) < 8_192 for message in subscription.messages)
        # A ping in the same second counts, too.
        assert 1 / subscription.pause_s < per_second
    expected = {
        (instrument.key, each) for instrument in instruments for each in instrument.data_types
        if each is not DataType.OPTIONS
    }  # fmt: skip
    carried = [stream for subscription in found for stream in subscription.streams if stream[0] != CHAIN.key]
    assert len(carried) == len(set(carried)) and set(carried) == expected


def test_trades_and_book_of_an_instrument_share_a_connection() -> None:
    for subscription in VENUES["binance"].subscriptions(many("binance", 700), ALL):
        by_type = {each: {key for key, data_type in subscription.streams if data_type is each} for each in ALL}
        assert by_type[DataType.TRADES] == by_type[DataType.BOOK]


@pytest.mark.parametrize(
    ("frame", "meaning"),
    [
        (b'{"result":null,"id":1}', Meaning.ACKNOWLEDGED),
        (b'{"error":{"code":2,"msg":"Invalid request: unknown variant"},"id":1}', Meaning.REFUSED),
        (b'{"code":2,"msg":"Invalid request","id":1}', Meaning.REFUSED),
        (b'{"e":"serverShutdown","E":1770123456789}', Meaning.RECONNECT),
        (b'{"event":{"e":"serverShutdown","E":1770123456789}}', Meaning.RECONNECT),
        (b"{}", Meaning.UNKNOWN),
        (b"[]", Meaning.UNKNOWN),
        (b"pong", Meaning.UNKNOWN),
        (b"\xff", Meaning.UNKNOWN),
    ],
)
def test_control_frames_are_understood(frame: bytes, meaning: Meaning) -> None:
    for venue in VENUES.values():
        control = venue.control(frame)
        assert control.meaning is meaning
        assert control.text
        assert not control.reply


@pytest.mark.parametrize(
    ("instrument", "path", "weight"),
    [
        (SPOT, "/api/v3/depth?symbol=BTCUSDT&limit=1000", 50),
        (FUTURE, "/fapi/v1/depth?symbol=BTCUSDT&limit=1000", 20),
        (COINS[0], "/dapi/v1/depth?symbol=BTCUSD_PERP&limit=1000", 20),
    ],
)
def test_a_snapshot_is_wrapped_as_the_vendor_of_raw_history_does(
    instrument: InstrumentDefinition, path: str, weight: int
) -> None:
    asked = VENUES[instrument.exchange].snapshot(instrument)
    assert asked is not None
    request, wrap = asked
    assert (request.path, request.weight) == (path, weight)
    body: dict[str, Any] = {"lastUpdateId": 7, "bids": [["1", "2"]], "asks": []}
    assert json.loads(wrap(json.dumps(body).encode())) == {
        "stream": f"{instrument.venue_symbol.lower()}@depthSnapshot",
        "generated": True,
        "data": body,
    }


def test_books_of_options_are_in_band() -> None:
    assert VENUES["binance-european-options"].snapshot(OPTION) is None
    assert all(venue.resubscribe(SPOT) == () for venue in VENUES.values())


def test_open_interest_is_polled_for_contracts_alone() -> None:
    venue = VENUES["binance-futures"]
    (poll,) = venue.polls([FUTURE], ALL)
    assert (poll.request.path, poll.every_s) == ("/fapi/v1/openInterest?symbol=BTCUSDT", 5.0)
    frame = poll.frame(b'{"symbol":"BTCUSDT","openInterest":"26286.181","time":1}')
    (row,) = messages(venue.decoder([FUTURE], ALL).decode([frame], arrivals(1)), [TICKER])
    assert row["openInterest"] == 26_286.181
    assert venue.polls([FUTURE], [DataType.TRADES]) == []
    assert VENUES["binance"].polls([SPOT], ALL) == []


def test_polls_leave_half_of_the_weight() -> None:
    for exchange in ("binance-futures", "binance-delivery"):
        venue = VENUES[exchange]
        polls = venue.polls(many(exchange, 700), ALL)
        assert len(polls) == 700
        assert sum(60 / poll.every_s * poll.request.weight for poll in polls) <= venue.weight_per_minute / 2


def test_a_day_is_the_age_of_a_connection() -> None:
    for venue in VENUES.values():
        assert venue.max_age_s == 86_400.0
        assert venue.keep_alive.message == b"" and 0 < venue.keep_alive.interval_s < 60


def test_the_used_weight_is_read_from_the_headers() -> None:
    venue = VENUES["binance"]
    assert isinstance(venue, BinanceVenue)
    assert venue.used_weight({"X-MBX-USED-WEIGHT-1M": "117", "Date": "x"}) == 117
    assert venue.used_weight({"x-mbx-used-weight": "117"}) is None
    assert venue.used_weight({"x-mbx-used-weight-1m": "many"}) is None


def test_a_chain_has_no_last_trade() -> None:
    assert VENUES["binance-european-options"].last_trade(CHAIN) is None
    assert VENUES["binance-european-options"].last_trade(OPTION) is not None

"""How one talks to OKX: subscriptions within its limits, what its control frames mean, chains and REST."""

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
from market_data_tick_handler.errors import ProtocolViolation
from streaming_service.sources.exchanges.okx import VENUES
from streaming_service.sources.exchanges.okx.venue import (
    BUSINESS,
    CHANNELS_PER_CONNECTION,
    PUBLIC,
    OkxVenue,
)
from streaming_service.sources.exchanges.protocol import Meaning, Subscription
from tests.streaming_service.sources.exchanges.okx.feed import (
    CALL,
    CHAIN,
    DOLLAR,
    ETHER,
    FUTURE,
    PUT,
    SPOT,
    START_MS,
    SWAP,
    decode,
    make_decoder,
    rows_of,
    summary,
)

ALL = tuple(DataType)
OPTIONS = DataType.OPTIONS
# The vendor's name of what is subscribed, ours.
KINDS = {
    "trade": DataType.TRADES,
    "book_change": DataType.BOOK,
    "derivative_ticker": DataType.DERIVATIVE,
    "liquidation": DataType.LIQUIDATIONS,
    "option_summary": OPTIONS,
}


def args_of(subscriptions: list[Subscription]) -> list[dict[str, str]]:
    found = []
    for subscription in subscriptions:
        for message in subscription.messages:
            document = json.loads(message)
            assert document["op"] == "subscribe"
            found += document["args"]
    return found


def in_order(args: list[dict[str, str]]) -> list[list[tuple[str, str]]]:
    return sorted(sorted(each.items()) for each in args)


@pytest.mark.parametrize("exchange", sorted(VENUES))
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_subscriptions_are_the_vendors(exchange: str, kind: str, samples_dir: Path) -> None:
    documents = json.loads((samples_dir / "subscriptions_realtime.json").read_text())[exchange]
    symbol = {"okex": "BTC-USDT", "okex-swap": "BTC-USDT-SWAP", "okex-futures": "BTC-USD-251226"}.get(exchange)
    instrument = instrument_from_venue_symbol(exchange, symbol or "BTC-USD-251226-100000-C")
    venue = VENUES[exchange]
    found = venue.subscriptions([instrument], [KINDS[kind]])
    if kind not in documents:
        assert not found
        return
    (theirs,) = documents[kind]["connections"]
    expected = [arg for message in theirs["subscribe"] for arg in message["args"]]
    if exchange == "okex-futures":
        # A dated future has no funding rate: the venue answers that there is no such channel.
        expected = [arg for arg in expected if arg["channel"] != "funding-rate"]
    (subscription,) = found
    assert venue.endpoints.sockets + subscription.path == theirs["url"]
    assert in_order(args_of(found)) == in_order(expected)


def test_trades_and_the_rest_come_over_two_sockets() -> None:
    found = VENUES["okex-swap"].subscriptions([SWAP, ETHER], ALL)
    assert [subscription.path for subscription in found] == [BUSINESS, PUBLIC]
    business, public = found
    assert business.streams == {(SWAP.key, DataType.TRADES), (ETHER.key, DataType.TRADES)}
    others = (DataType.BOOK, DataType.DERIVATIVE, DataType.LIQUIDATIONS)
    assert public.streams == {(each.key, kind) for each in (SWAP, ETHER) for kind in others}


def test_an_index_and_the_liquidations_of_a_market_are_subscribed_once() -> None:
    named = [parse_instrument_key(f"OKX-FUTURES:FUTURE:BTC-USD-{day}") for day in ("251226", "260327")]
    args = args_of(VENUES["okex-futures"].subscriptions(named, ALL))
    channels = [arg["channel"] for arg in args]
    assert channels.count("index-tickers") == 1 and channels.count("liquidation-orders") == 1
    assert channels.count("mark-price") == 2


def test_a_future_that_never_expires_has_funding() -> None:
    lasting = instrument_from_venue_symbol("okex-futures", "BTC-USD_UM_XPERP-310404")
    args = args_of(VENUES["okex-futures"].subscriptions([lasting], [DataType.DERIVATIVE]))
    assert {"channel": "funding-rate", "instId": "BTC-USD_UM_XPERP-310404"} in args
    assert {"channel": "index-tickers", "instId": "BTC-USD"} in args


def test_many_instruments_stay_within_the_venues_limits() -> None:
    many = [parse_instrument_key(f"OKX-SWAP:PERPETUAL:COIN{number}-USDT") for number in range(300)]
    found = VENUES["okex-swap"].subscriptions(many, ALL)
    assert len(found) > 2
    for subscription in found:
        assert len(subscription.messages) < 480
        assert all(len(message) <= 64 * 1024 for message in subscription.messages)
        assert len(args_of([subscription])) <= CHANNELS_PER_CONNECTION
    args = in_order(args_of(found))
    assert len(args) == 300 * 7 + 1
    assert all(args[k] != args[k + 1] for k in range(len(args) - 1))
    streams = [stream for subscription in found for stream in subscription.streams]
    assert sorted(streams) == sorted((each.key, kind) for each in many for kind in each.data_types)
    # All that makes up the state of an instrument comes over one connection.
    states = {"tickers", "open-interest", "mark-price", "funding-rate"}
    for subscription in found:
        names = [arg["instId"] for arg in args_of([subscription]) if arg["channel"] in states]
        assert all(names.count(name) == len(states) for name in names)


def test_only_what_an_instrument_has_is_subscribed() -> None:
    assert not VENUES["okex"].subscriptions([SPOT], [DataType.DERIVATIVE, DataType.LIQUIDATIONS])
    assert [arg["channel"] for arg in args_of(VENUES["okex"].subscriptions([SPOT], ALL))] == ["trades-all", "books"]
    assert not VENUES["okex-swap"].subscriptions([], ALL)


def test_a_chain_has_a_connection_of_its_own_and_its_quotes_are_polled() -> None:
    venue = VENUES["okex-options"]
    (subscription,) = venue.subscriptions([CHAIN], ALL)
    assert args_of([subscription]) == [
        {"channel": "opt-summary", "instFamily": "BTC-USD"}, {"channel": "index-tickers", "instId": "BTC-USD"},
    ]  # fmt: skip
    assert subscription.streams == {(CHAIN.key, OPTIONS)}
    paths = [poll.request.path for poll in venue.polls([CHAIN], ALL)]
    assert paths == [
        "/api/v5/market/tickers?instType=OPTION&instFamily=BTC-USD",
        "/api/v5/public/open-interest?instType=OPTION&instFamily=BTC-USD",
        "/api/v5/public/mark-price?instType=OPTION&instFamily=BTC-USD",
    ]


def test_what_is_polled_for_a_chain_is_in_its_rows() -> None:
    quotes, interest, marks = VENUES["okex-options"].polls([CHAIN], [OPTIONS])
    name = CALL.venue_symbol

    def body(**fields: str) -> bytes:
        return json.dumps({"code": "0", "msg": "", "data": [{"instId": name, "ts": str(START_MS), **fields}]}).encode()

    frames = [
        quotes.frame(body(last="5", bidPx="4", bidSz="3", askPx="6", askSz="2")),
        interest.frame(body(oi="7")),
        marks.frame(body(markPx="5.5")),
        summary(name),
    ]
    assert all(json.loads(frame)["arg"]["generated"] for frame in frames[:3])
    decoded = decode(make_decoder(CHAIN), *frames)
    (batch,) = rows_of(decoded, CHAIN, OPTIONS)
    columns = ["last_price", "bid_price", "bid_amount", "ask_price", "ask_amount", "open_interest", "mark_price"]
    assert [batch[name].tolist() for name in columns] == [[5], [4], [3], [6], [2], [7], [5.5]]


@pytest.mark.parametrize("body", [b'{"code":"50011","msg":"Too Many Requests","data":[]}', b"<html>", b'{"msg":"x"}'])
def test_a_refused_poll_is_no_data(body: bytes) -> None:
    poll = VENUES["okex-options"].polls([CHAIN], [OPTIONS])[0]
    decoded = decode(make_decoder(CHAIN), poll.frame(body))
    assert not decoded.rows and not decoded.filtered
    assert len(decoded.control) + len(decoded.violations) == 1


def test_nothing_is_polled_where_the_options_are_subscribed() -> None:
    venue = OkxVenue("okex-options")
    assert not venue.polls([CHAIN, CALL], [OPTIONS])
    assert not venue.polls([CHAIN], [DataType.TRADES])
    assert not venue.with_chains({CHAIN.key: [CALL.venue_symbol]}).polls([CHAIN], [OPTIONS])
    assert not VENUES["okex-swap"].polls([SWAP], ALL)


def test_the_options_of_a_chain_are_listed_and_then_subscribed_one_by_one() -> None:
    venue = OkxVenue("okex-options")
    assert venue.chain_request(CHAIN).path == "/api/v5/public/instruments?instType=OPTION&instFamily=BTC-USD"
    listed = [
        (CALL.venue_symbol, "live"), (PUT.venue_symbol, "live"), ("BTC-USD-251226-95000-C", "expired"),
        ("ETH-USD-251226-5000-C", "live"), ("BTC-USD-SOON", "live"), ("BTC-USD-250926-200000-C", "preopen"),
    ]  # fmt: skip
    body = {"code": "0", "msg": "", "data": [{"instId": name, "state": state} for name, state in listed]}
    names = venue.read_chain(CHAIN, json.dumps(body).encode())
    assert names == ("BTC-USD-250926-200000-C", PUT.venue_symbol, CALL.venue_symbol)
    (subscription,) = venue.with_chains({CHAIN.key: names}).subscriptions([CHAIN], [OPTIONS])
    args = args_of([subscription])
    assert len(args) == 2 + 3 * 3
    assert {"channel": "open-interest", "instId": PUT.venue_symbol} in args
    assert subscription.streams == {(CHAIN.key, OPTIONS)}


def test_a_whole_chain_is_one_connection_within_the_limits_on_messages() -> None:
    names = [f"BTC-USD-2512{day:02}-{strike}-C" for day in range(10, 30) for strike in range(10_000, 10_080)]
    venue = OkxVenue("okex-options").with_chains({CHAIN.key: names})
    (subscription,) = venue.subscriptions([CHAIN], [OPTIONS])
    assert len(args_of([subscription])) == 2 + 3 * 1_600
    assert 1 < len(subscription.messages) < 48
    assert all(len(message) <= 64 * 1024 for message in subscription.messages)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"code":"51001","msg":"no","data":[]}', b'{"data":[{}]}', b"\xff"])
def test_a_listing_that_is_none_is_a_violation(body: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        OkxVenue("okex-options").read_chain(CHAIN, body)


@pytest.mark.parametrize("instrument", [SWAP, SPOT, FUTURE, CALL])
def test_a_book_comes_afresh_after_its_subscription_was_given_up_and_taken_again(
    instrument: InstrumentDefinition,
) -> None:
    venue = VENUES[instrument.exchange]
    messages = [json.loads(message) for message in venue.resubscribe(instrument)]
    assert [message["op"] for message in messages] == ["unsubscribe", "subscribe"]
    assert all(message["args"] == [{"channel": "books", "instId": instrument.venue_symbol}] for message in messages)
    assert venue.snapshot(instrument) is None


def test_a_chain_has_no_book_and_no_last_trade() -> None:
    assert VENUES["okex-options"].resubscribe(CHAIN) == ()
    assert VENUES["okex-options"].last_trade(CHAIN) is None


EVENTS: list[tuple[bytes, Meaning, str]] = [
    (b"pong", Meaning.ALIVE, ""),
    (
        b'{"event":"subscribe","arg":{"channel":"books","instId":"BTC-USDT"},"connId":"a4d3ae55"}',
        Meaning.ACKNOWLEDGED, "books BTC-USDT",
    ),
    (b'{"event":"unsubscribe","arg":{"channel":"books","instId":"BTC-USDT"}}', Meaning.ACKNOWLEDGED, "books BTC-USDT"),
    (
        b'{"event":"error","code":"60018","msg":"Wrong URL or channel:books,instId:X doesn\'t exist.","connId":"a"}',
        Meaning.REFUSED, "60018 Wrong URL or channel:books,instId:X doesn't exist.",
    ),
    (
        b'{"event":"error","code":"60014","msg":"Requests too frequent"}',
        Meaning.RECONNECT, "60014 Requests too frequent",
    ),
    (
        b'{"event":"notice","code":"64008","msg":"The connection will soon be closed for a service upgrade."}',
        Meaning.RECONNECT, "64008 The connection will soon be closed for a service upgrade.",
    ),
    (b'{"event":"channel-conn-count","channel":"orders","connCount":"2"}', Meaning.UNKNOWN, "channel-conn-count"),
    (b'{"arg":{"channel":"price-limit"},"data":[]}', Meaning.UNKNOWN, "price-limit"),
    (b"\xff", Meaning.UNKNOWN, ""),
    (b"[]", Meaning.UNKNOWN, "[]"),
]  # fmt: skip


@pytest.mark.parametrize(("frame", "meaning", "text"), EVENTS)
def test_control_frames_mean_what_the_venue_says(frame: bytes, meaning: Meaning, text: str) -> None:
    control = VENUES["okex"].control(frame)
    assert control.meaning is meaning
    assert text in control.text
    assert not control.reply


def test_a_ping_is_sent_before_the_venue_gives_up_an_idle_connection() -> None:
    for venue in VENUES.values():
        assert venue.keep_alive.message == b"ping" and venue.keep_alive.interval_s < 30
        assert venue.max_age_s is None


def test_every_exchange_of_okx_has_its_venue() -> None:
    names: dict[str, Any] = {exchange: venue.exchange for exchange, venue in VENUES.items()}
    assert names == {name: name for name in ("okex", "okex-swap", "okex-futures", "okex-options")}
    assert {DOLLAR.exchange, SPOT.exchange, FUTURE.exchange, CALL.exchange} == set(names)

"""How one talks to Deribit: subscriptions within its limits, control frames, chains, REST history."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_data_tick_handler.core.instruments import InstrumentDefinition, parse_instrument_key
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.errors import InstrumentError, ProtocolViolation
from streaming_service.sources.exchanges.deribit import VENUES, DeribitVenue
from streaming_service.sources.exchanges.deribit.history import MAX_COUNT, DeribitTradeHistory
from streaming_service.sources.exchanges.deribit.venue import CHANNELS_PER_CONNECTION, CHANNELS_PER_MESSAGE
from streaming_service.sources.exchanges.protocol import Chains, Meaning, Request, Subscription, TradeRange, Venue
from tests.streaming_service.sources.exchanges.deribit.feed import (
    CHAIN,
    ETHER,
    OPTION,
    PERPETUAL,
    SMALL,
    SPOT,
    START_MS,
    decode,
    trade,
)

ALL = tuple(DataType)
VENUE = DeribitVenue()


def channels(subscription: Subscription) -> list[str]:
    requests = [json.loads(message) for message in subscription.messages]
    return [name for request in requests for name in request["params"].get("channels", [])]


class TestSubscriptions:
    def test_the_venue_is_there_under_its_id_and_knows_chains(self) -> None:
        venue: Venue = VENUES["deribit"]
        chains: Chains = DeribitVenue()
        assert venue.exchange == "deribit" and chains.chain_request(CHAIN).path
        assert venue.endpoints.sockets == "wss://streams.deribit.com" and venue.max_age_s is None
        assert venue.snapshot(PERPETUAL) is None and venue.polls([PERPETUAL], ALL) == []

    def test_channels_are_those_of_the_data_types_and_heartbeats_are_asked_for_first(self) -> None:
        (subscription,) = VENUE.subscriptions([PERPETUAL], ALL)
        assert subscription.path == "/ws/api/v2" and subscription.pause_s > 0.3
        assert json.loads(subscription.messages[0]) == {
            "jsonrpc": "2.0", "id": 1, "method": "public/set_heartbeat", "params": {"interval": 10},
        }  # fmt: skip
        assert json.loads(subscription.messages[1])["method"] == "public/subscribe"
        assert channels(subscription) == [
            "trades.BTC-PERPETUAL.100ms", "book.BTC-PERPETUAL.100ms", "ticker.BTC-PERPETUAL.100ms",
        ]  # fmt: skip
        assert subscription.streams == {(PERPETUAL.key, data_type) for data_type in PERPETUAL.data_types}

    @pytest.mark.parametrize(
        ("instrument", "data_types", "expected"),
        [
            (PERPETUAL, [DataType.LIQUIDATIONS], ["trades.BTC-PERPETUAL.100ms"]),
            (PERPETUAL, [DataType.DERIVATIVE], ["ticker.BTC-PERPETUAL.100ms"]),
            (SPOT, ALL, ["trades.BTC_USDC.100ms", "book.BTC_USDC.100ms"]),
            (SMALL, [DataType.OPTIONS], ["ticker.MATIC_USDC-9MAR24-1d02-C.100ms"]),
            (OPTION, [DataType.BOOK], ["book.BTC-26JAN24-45000-C.100ms"]),
        ],
    )
    def test_only_what_is_wanted_is_subscribed_under_the_names_of_the_venue(
        self, instrument: InstrumentDefinition, data_types: Sequence[DataType], expected: list[str]
    ) -> None:
        (subscription,) = VENUE.subscriptions([instrument], data_types)
        assert channels(subscription) == expected

    def test_nothing_wanted_needs_no_connection(self) -> None:
        assert VENUE.subscriptions([SPOT], [DataType.DERIVATIVE]) == []
        assert VENUE.subscriptions([CHAIN], [DataType.TRADES]) == []

    def test_the_ticker_of_one_option_is_a_stream_of_its_chain(self) -> None:
        (subscription,) = VENUE.subscriptions([OPTION], [DataType.OPTIONS, DataType.TRADES])
        assert subscription.streams == {(CHAIN.key, DataType.OPTIONS), (OPTION.key, DataType.TRADES)}

    @given(st.integers(1, 700))
    def test_limits_hold_and_no_instrument_is_torn_apart(self, count: int) -> None:
        instruments = [
            parse_instrument_key(f"DERIBIT:OPTION:BTC-USD-{1_000 + strike}-240126-PUT") for strike in range(count)
        ]
        found = VENUE.subscriptions(instruments, ALL)
        for subscription in found:
            requests = [json.loads(message)["params"].get("channels", []) for message in subscription.messages]
            assert max(map(len, requests)) <= CHANNELS_PER_MESSAGE
            assert sum(map(len, requests)) <= CHANNELS_PER_CONNECTION
            keys = {key for key, data_type in subscription.streams if data_type is DataType.BOOK}
            assert len(keys) * 3 == len(channels(subscription))
        everything = [name for subscription in found for name in channels(subscription)]
        assert len(set(everything)) == len(everything) == 3 * count

    def test_a_book_is_sent_afresh_after_its_channel_was_left_and_joined(self) -> None:
        leave, join = (json.loads(message) for message in VENUE.resubscribe(SMALL))
        names = ["book.MATIC_USDC-9MAR24-1d02-C.100ms"]
        assert (leave["method"], leave["params"]) == ("public/unsubscribe", {"channels": names})
        assert (join["method"], join["params"]) == ("public/subscribe", {"channels": names})
        assert VENUE.resubscribe(CHAIN) == ()


class TestChains:
    @staticmethod
    def _body(*names: str, **fields: Any) -> bytes:
        listed = [{"instrument_name": name, "is_active": True, "kind": "option", **fields} for name in names]
        return json.dumps({"jsonrpc": "2.0", "result": listed, "usIn": 1}).encode()

    @pytest.mark.parametrize(("key", "currency"), [("BTC-USD", "BTC"), ("MATIC-USDC", "USDC"), ("SOL-USD", "SOL")])
    def test_options_are_asked_for_by_the_currency_they_settle_in(self, key: str, currency: str) -> None:
        request = VENUE.chain_request(parse_instrument_key(f"DERIBIT:OPTION_CHAIN:{key}"))
        query = parse_qs(urlsplit(request.path).query)
        assert query == {"currency": [currency], "kind": ["option"], "expired": ["false"]} and request.weight > 1

    def test_a_chain_takes_its_own_live_options_by_expiry_and_strike(self) -> None:
        body = self._body(
            "BTC-26JAN24-50000-C", "BTC-26JAN24-9000-P", "BTC-5JAN24-60000-C", "BTC_USDC-5JAN24-60000-C",
            "ETH-5JAN24-2000-C", "BTC-5JAN24", "BTC-SOMETHING-NEW",
        )  # fmt: skip
        assert VENUE.read_chain(CHAIN, body) == ("BTC-5JAN24-60000-C", "BTC-26JAN24-9000-P", "BTC-26JAN24-50000-C")
        assert VENUE.read_chain(CHAIN, self._body("BTC-5JAN24-60000-C", is_active=False)) == ()
        small = parse_instrument_key("DERIBIT:OPTION_CHAIN:MATIC-USDC")
        assert VENUE.read_chain(small, self._body("MATIC_USDC-9MAR24-1d02-C")) == ("MATIC_USDC-9MAR24-1d02-C",)

    @pytest.mark.parametrize(
        "body", [b"", b"{}", b"<html>", b'{"result":[{"kind":"option"}]}', b'{"error":{"code":10028,"message":"x"}}']
    )
    def test_a_body_that_lists_nothing_is_a_violation(self, body: bytes) -> None:
        with pytest.raises(ProtocolViolation) as caught:
            VENUE.read_chain(CHAIN, body)
        assert caught.value.raw == body

    def test_a_chain_whose_options_are_unknown_cannot_be_subscribed(self) -> None:
        with pytest.raises(InstrumentError, match="chain_request"):
            VENUE.subscriptions([CHAIN], ALL)

    def test_a_known_chain_is_subscribed_option_by_option_on_connections_of_its_own(self) -> None:
        names = [f"BTC-26JAN24-{strike}-C" for strike in range(1_000, 2_100)]
        venue = VENUE.with_chains({CHAIN.key: names})
        perpetual, *chain = venue.subscriptions([CHAIN, PERPETUAL], ALL)
        assert len(channels(perpetual)) == 3
        assert [name for subscription in chain for name in channels(subscription)] == [
            f"ticker.{name}.100ms" for name in names
        ]
        assert {stream for subscription in chain for stream in subscription.streams} == {(CHAIN.key, DataType.OPTIONS)}
        assert max(len(channels(subscription)) for subscription in chain) <= CHANNELS_PER_CONNECTION
        assert VENUE.chains == {}, "the venue that everybody has stays as it is"

    def test_chains_are_added_to_those_that_are_known(self) -> None:
        ether = parse_instrument_key("DERIBIT:OPTION_CHAIN:ETH-USD")
        venue = VENUE.with_chains({CHAIN.key: ["BTC-26JAN24-1000-C"]}).with_chains({ether.key: ["ETH-26JAN24-1000-C"]})
        assert len(venue.subscriptions([CHAIN, ether], [DataType.OPTIONS])) == 2


class TestControl:
    @pytest.mark.parametrize(
        ("frame", "meaning"),
        [
            ({"method": "heartbeat", "params": {"type": "heartbeat"}}, Meaning.ALIVE),
            ({"id": 1, "result": "ok"}, Meaning.ACKNOWLEDGED),
            ({"id": 2, "result": {"version": "1.2.26"}}, Meaning.ALIVE),
            ({"id": 3, "result": ["book.A.100ms"]}, Meaning.ACKNOWLEDGED),
            ({"id": 1_000_002, "result": ["a", "b"]}, Meaning.ACKNOWLEDGED),
            ({"id": 1_000_002, "result": ["a"]}, Meaning.REFUSED),
            ({"id": 1_000_001, "result": []}, Meaning.REFUSED),
            ({"id": 1_000_002, "error": {"code": 11050, "message": "bad_request"}}, Meaning.REFUSED),
            ({"id": 1_000_002, "error": {"code": 13028, "message": "temporarily_unavailable"}}, Meaning.RECONNECT),
            ({"id": 1_000_002, "error": {"code": 10028, "message": "too_many_requests"}}, Meaning.RECONNECT),
            ({"error": {"code": 11051, "message": "system_maintenance"}}, Meaning.RECONNECT),
            ({"id": 1, "error": {"code": -32602, "message": "Invalid params"}}, Meaning.UNKNOWN),
            ({"method": "subscription", "params": {"channel": "quote.A", "data": {}}}, Meaning.UNKNOWN),
            ({"method": "subscription", "params": {"channel": "quote.A", "data": []}}, Meaning.UNKNOWN),
            ({"id": 99, "result": "ok"}, Meaning.UNKNOWN),
            ([], Meaning.UNKNOWN),
        ],
    )
    def test_frames_without_data_are_understood(self, frame: object, meaning: Meaning) -> None:
        assert VENUE.control(json.dumps(frame).encode()).meaning is meaning

    def test_what_is_no_json_is_unknown(self) -> None:
        assert VENUE.control(b"\xff{").meaning is Meaning.UNKNOWN

    def test_a_test_request_is_answered_and_the_answer_to_that_proves_life(self) -> None:
        control = VENUE.control(b'{"jsonrpc":"2.0","method":"heartbeat","params":{"type":"test_request"}}')
        reply = json.loads(control.reply)
        assert control.meaning is Meaning.ANSWER and reply["method"] == "public/test"
        assert VENUE.control(json.dumps({"id": reply["id"], "result": {}}).encode()).meaning is Meaning.ALIVE

    def test_an_acknowledgement_of_everything_that_was_asked_is_recognised(self) -> None:
        (subscription,) = VENUE.subscriptions([PERPETUAL, ETHER, SPOT], ALL)
        for message in subscription.messages:
            request = json.loads(message)
            result: object = request["params"].get("channels", "ok")
            answer = json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result, "usIn": 1}).encode()
            assert VENUE.control(answer).meaning is Meaning.ACKNOWLEDGED
            decoded = decode(VENUE.decoder([PERPETUAL], ALL), answer)
            assert decoded.control == [0], "acknowledgements reach control"


class _Server:
    """Trades `oldest`..`count` of one instrument, five to a stamp, stamps 10 ms apart, given out as documented."""

    def __init__(self, count: int, oldest: int = 1, now_us: int = 0) -> None:
        self.trades = [trade(seq, timestamp=START_MS + 10 * (seq // 5)) for seq in range(oldest, count + 1)]
        self.now_us = now_us or START_MS * 1_000 + 3_600_000_000
        self.requests = 0

    def get(self, request: Request) -> bytes:
        self.requests += 1
        path, query = urlsplit(request.path).path, parse_qs(urlsplit(request.path).query)
        given = {name: values[0] for name, values in query.items()}
        assert given.pop("instrument_name") == "BTC-PERPETUAL" and path.startswith("/api/v2/public/")
        assert given.pop("sorting") == "desc"
        count = int(given.pop("count"))
        by_time = path.endswith("_and_time")
        assert given.keys() <= ({"start_timestamp", "end_timestamp"} if by_time else {"start_seq", "end_seq"})
        field = "timestamp" if by_time else "trade_seq"
        low, high = (int(given.get(f"{end}_{field.removeprefix('trade_')}", edge)) for end, edge in
                     (("start", 0), ("end", 2**60)))  # fmt: skip
        found = [entry for entry in self.trades if low <= entry[field] <= high]
        chosen = found[::-1][:count]
        page = {"trades": chosen, "has_more": len(found) > len(chosen)}
        return json.dumps({"jsonrpc": "2.0", "result": page, "usIn": self.now_us}).encode()

    def fetch(self, missing: TradeRange) -> tuple[list[int], bool]:
        """Ids of all pages, oldest page first, and whether every page was complete."""
        history = DeribitTradeHistory()
        request: Request | None = history.first(PERPETUAL, missing)
        pages: list[list[int]] = []
        complete = True
        while request is not None:
            page = history.read(PERPETUAL, missing, self.get(request))
            assert page.trades["local_timestamp"].tolist() == page.trades["timestamp"].tolist()
            pages.insert(0, page.trades["id"].tolist())
            complete, request = complete and page.complete, page.next
            assert self.requests < 20, "paging ends"
        return [number for page in pages for number in page], complete


def _ids(first: int, last: int) -> list[int]:
    return [9_000 + number for number in range(first, last + 1)]


def _stamp(number: int) -> int:
    return (START_MS + 10 * (number // 5)) * 1_000


class TestHistory:
    def test_a_range_of_numbers_is_fetched_page_by_page(self) -> None:
        server = _Server(5_000)
        found = server.fetch(TradeRange(_stamp(1_000), _stamp(3_500), first=1_001, last=3_456))
        assert found == (_ids(1_001, 3_456), True) and server.requests == 3

    def test_numbers_decide_where_the_times_of_the_neighbours_would_leave_trades_out(self) -> None:
        assert _Server(100).fetch(TradeRange(_stamp(11), _stamp(11), first=11, last=13)) == (_ids(11, 13), True)

    def test_a_range_of_time_is_fetched_page_by_page_and_its_end_is_exclusive(self) -> None:
        server = _Server(5_000)
        first = parse_qs(urlsplit(VENUE.history.first(PERPETUAL, TradeRange(_stamp(500), _stamp(3_000))).path).query)
        assert int(first["end_timestamp"][0]) == _stamp(3_000) // 1_000 - 1, "the venue's end is inclusive"
        found = server.fetch(TradeRange(_stamp(500), _stamp(3_000)))
        assert found == (_ids(500, 2_999), True) and server.requests == 3

    @given(st.integers(1, 3_000), st.integers(0, 2_500))
    def test_ranges_of_time_and_of_numbers_bring_the_same_trades(self, first: int, count: int) -> None:
        start, stop = first - first % 5, first + count - (first + count) % 5
        by_time = _Server(4_000).fetch(TradeRange(_stamp(start), _stamp(stop)))
        assert by_time == (_ids(max(start, 1), min(stop - 1, 4_000)), True)
        if stop > start >= 1:
            by_number = _Server(4_000).fetch(TradeRange(0, 0, first=start, last=min(stop - 1, 4_000)))
            assert by_number == by_time

    def test_a_server_that_has_no_older_trades_says_so_by_number(self) -> None:
        assert _Server(2_000, oldest=600).fetch(TradeRange(0, 0, first=500, last=700)) == (_ids(600, 700), False)
        assert _Server(2_000, oldest=600).fetch(TradeRange(0, 0, first=500, last=550)) == ([], False)

    @pytest.mark.parametrize(("hours", "complete"), [(1, True), (30, False)])
    def test_by_time_only_what_the_venue_keeps_is_complete(self, hours: int, complete: bool) -> None:
        server = _Server(2_000, oldest=600, now_us=START_MS * 1_000 + hours * 3_600_000_000)
        assert server.fetch(TradeRange(_stamp(500), _stamp(700))) == (_ids(600, 699), complete)

    def test_the_first_trade_of_an_instrument_has_nothing_before_it(self) -> None:
        server = _Server(20, now_us=START_MS * 1_000 + 90 * 3_600_000_000)
        assert server.fetch(TradeRange(_stamp(0) - 10_000_000, _stamp(10))) == (_ids(1, 9), True)

    def test_the_last_trade_is_read_like_a_page(self) -> None:
        request = VENUE.last_trade(PERPETUAL)
        assert request is not None and VENUE.last_trade(CHAIN) is None
        page = VENUE.history.read(PERPETUAL, TradeRange(0, 2**62), _Server(77).get(request))
        assert page.trades["id"].tolist() == [9_077]

    def test_pages_ask_for_as_many_trades_as_the_venue_gives_under_the_name_it_writes(self) -> None:
        request = VENUE.history.first(SMALL, TradeRange(0, 0, first=1, last=2))
        query = parse_qs(urlsplit(request.path).query)
        assert query["count"] == [str(MAX_COUNT)] == ["1000"]
        assert query["instrument_name"] == ["MATIC_USDC-9MAR24-1d02-C"]

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{}",
            b"<html>502</html>",
            b'{"jsonrpc":"2.0","error":{"code":10028,"message":"too_many_requests"}}',
            json.dumps({"result": {"trades": [trade(1, price=None)]}}).encode(),
            json.dumps({"result": {"trades": [trade(1, trade_seq="one")]}}).encode(),
        ],
    )
    def test_a_body_that_is_no_page_is_a_violation(self, body: bytes) -> None:
        with pytest.raises(ProtocolViolation) as caught:
            VENUE.history.read(PERPETUAL, TradeRange(0, 1), body)
        assert caught.value.raw == body

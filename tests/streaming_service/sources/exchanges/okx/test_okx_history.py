"""Trades of OKX over REST: every page is asked for once, and nothing outside the gap comes in."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_data_tick_handler.core.ticks import BUY, SELL
from market_data_tick_handler.errors import ProtocolViolation
from streaming_service.sources.exchanges.okx import VENUES
from streaming_service.sources.exchanges.okx.history import OkxTradeHistory
from streaming_service.sources.exchanges.protocol import Request, TradeRange
from tests.streaming_service.sources.exchanges.okx.feed import START_MS, SWAP, trade

HISTORY = OkxTradeHistory()


class Exchange:
    """Trades numbered `first` to `last`, three in every millisecond, answered as the venue does: newest first."""

    def __init__(self, first: int, last: int) -> None:
        self.trades = [self.made(number) for number in range(first, last + 1)]
        self.requests: list[str] = []

    @staticmethod
    def ms(number: int) -> int:
        return START_MS + number // 3

    def made(self, number: int) -> dict[str, Any]:
        return trade(number, ts=str(self.ms(number)), side="buy" if number % 2 else "sell", px=str(100 + number))

    def answer(self, request: Request) -> bytes:
        self.requests.append(request.path)
        parts = urlsplit(request.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        assert query["instId"] == SWAP.venue_symbol
        found = self.trades[::-1]
        if parts.path == "/api/v5/market/history-trades":
            key = {"1": "tradeId", "2": "ts"}[query["type"]]
            found = [each for each in found if int(each[key]) < int(query["after"])]
        else:
            assert parts.path == "/api/v5/market/trades"
        return json.dumps({"code": "0", "msg": "", "data": found[: int(query["limit"])]}).encode()

    def repair(self, missing: TradeRange) -> tuple[list[int], bool]:
        """Ids in the order of their times, and whether the venue reached back."""
        request: Request | None = HISTORY.first(SWAP, missing)
        ids: list[int] = []
        complete = False
        while request is not None:
            page = HISTORY.read(SWAP, missing, self.answer(request))
            ids = page.trades["id"].tolist() + ids
            request, complete = page.next, page.complete
            assert len(self.requests) < 100
        return ids, complete


def at(number: int) -> int:
    return Exchange.ms(number) * 1_000


def test_missing_numbers_are_fetched_page_by_page_and_no_others() -> None:
    exchange = Exchange(1, 1_000)
    ids, complete = exchange.repair(TradeRange(at(500), at(830), first=501, last=823))
    assert ids == list(range(501, 824)) and complete
    assert exchange.requests[0] == "/api/v5/market/history-trades?instId=BTC-USDT-SWAP&type=1&after=824&limit=100"
    assert len(exchange.requests) == 4


def test_a_page_that_holds_all_that_is_missing_is_the_last() -> None:
    exchange = Exchange(1, 1_000)
    assert exchange.repair(TradeRange(0, at(900), first=724, last=823)) == (list(range(724, 824)), True)
    assert len(exchange.requests) == 1


def test_a_range_of_time_is_fetched_whole_though_pages_end_within_a_millisecond() -> None:
    exchange = Exchange(1, 1_000)
    # From the middle of a millisecond to the middle of another: what is stamped with the first one is before it.
    ids, complete = exchange.repair(TradeRange(at(300) + 1, at(900) + 1))
    assert ids == list(range(303, 903)) and complete
    assert "type=2" in exchange.requests[0]
    assert all("type=1" in request for request in exchange.requests[1:])


def test_a_range_that_is_open_at_one_end_goes_by_time_there() -> None:
    ids, complete = Exchange(1, 600).repair(TradeRange(0, at(300), first=150))
    assert ids == list(range(150, 300)) and complete
    ids, complete = Exchange(1, 600).repair(TradeRange(at(150), at(600), last=200))
    assert ids == list(range(150, 201)) and complete


def test_a_range_before_what_the_venue_keeps_is_not_complete() -> None:
    ids, complete = Exchange(700, 1_000).repair(TradeRange(at(500), at(830), first=600, last=820))
    assert ids == list(range(700, 821)) and not complete
    ids, complete = Exchange(700, 1_000).repair(TradeRange(at(500), at(810)))
    assert ids == list(range(700, 810)) and not complete


def test_a_range_in_which_nobody_traded_is_complete() -> None:
    assert Exchange(1, 10).repair(TradeRange(at(900), at(930))) == ([], True)


def test_a_range_from_before_the_first_trade_ever_is_complete() -> None:
    assert Exchange(1, 10).repair(TradeRange(0, at(6))) == ([1, 2, 3, 4, 5], True)


def test_rows_are_those_of_the_stream_and_arrive_when_they_happened() -> None:
    body = Exchange(4, 5).answer(Request("/api/v5/market/trades?instId=BTC-USDT-SWAP&limit=100"))
    rows = HISTORY.read(SWAP, TradeRange(0, at(100)), body).trades
    assert rows["id"].tolist() == [4, 5]
    assert rows["timestamp"].tolist() == [at(4), at(5)] == rows["local_timestamp"].tolist()
    assert rows["side"].tolist() == [SELL, BUY]
    assert rows["price"].tolist() == [104, 105]
    assert rows["amount"].tolist() == [3, 3]


def test_the_last_trade_is_the_newest_row_of_its_answer() -> None:
    request = VENUES["okex-swap"].last_trade(SWAP)
    assert request is not None
    rows = HISTORY.read(SWAP, TradeRange(0, 2**62), Exchange(1, 50).answer(request)).trades
    assert rows["id"].tolist() == [50]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"<html>", b"[]", b"\xff", b'{"code":"0"}',
        b'{"code":"51001","msg":"Instrument ID does not exist","data":[]}',
        json.dumps({"code": "0", "data": [trade(1, px="")]}).encode(),
        json.dumps({"code": "0", "data": [trade("x1")]}).encode(),
    ],
)  # fmt: skip
def test_an_answer_that_is_none_is_a_violation(body: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        HISTORY.read(SWAP, TradeRange(0, 10, first=1, last=2), body)


@given(
    oldest=st.integers(1, 50), count=st.integers(0, 400), first=st.integers(1, 300), length=st.integers(1, 300),
    by_number=st.booleans(),
)  # fmt: skip
def test_whatever_is_missing_comes_exactly_once(
    oldest: int, count: int, first: int, length: int, by_number: bool
) -> None:
    exchange = Exchange(oldest, oldest + count - 1)
    last = first + length - 1
    numbers = {"first": first, "last": last} if by_number else {}
    ids, complete = exchange.repair(TradeRange(at(first), at(last) + 1_000, **numbers))
    had = [int(each["tradeId"]) for each in exchange.trades]
    wanted = [
        n
        for n in had
        if (first <= n <= last if by_number else Exchange.ms(first) <= Exchange.ms(n) <= Exchange.ms(last))
    ]
    assert ids == wanted
    if complete:
        # Nothing of the range can lie before what the venue has.
        assert had and (had[0] <= 1 or (had[0] <= first if by_number else Exchange.ms(had[0]) < Exchange.ms(first)))

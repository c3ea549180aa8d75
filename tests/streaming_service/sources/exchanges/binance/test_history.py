"""Missing trades come page by page from what the venue's REST interface gives without a key."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_data_tick_handler.core.instruments import InstrumentDefinition, instrument_from_venue_symbol
from market_data_tick_handler.core.ticks import DataType, TickBatch, concat
from market_data_tick_handler.errors import ProtocolViolation
from streaming_service.sources.exchanges.binance import VENUES
from streaming_service.sources.exchanges.protocol import Request, TradeRange

SPOT = instrument_from_venue_symbol("binance", "BTCUSDT")
FUTURE = instrument_from_venue_symbol("binance-futures", "BTCUSDT")
COIN = instrument_from_venue_symbol("binance-delivery", "BTCUSD_PERP")
OPTION = instrument_from_venue_symbol("binance-european-options", "BTC-251219-89000-C")
START_MS = 1_723_161_255_000
STEP_MS = 10
EVER = TradeRange(0, 2**62)


def stored(number: int) -> dict[str, Any]:
    return {
        "id": number, "price": f"{60_000 + number}.50", "qty": "0.25", "quoteQty": "1",
        "time": START_MS + STEP_MS * number, "isBuyerMaker": number % 2 == 0, "isBestMatch": True,
    }  # fmt: skip


def venue_with(trades: int) -> Callable[[Request], bytes]:
    """Answers requests as a venue does that has trades 0, 1, ... one every 10 ms."""

    def answer(request: Request) -> bytes:
        url = urlsplit(request.path)
        query = dict(parse_qsl(url.query))
        limit = int(query["limit"])
        if url.path.endswith("/aggTrades"):
            first = max(0, -(-(int(query["startTime"]) - START_MS) // STEP_MS))
            found = [{"a": n // 2, "p": "1", "q": "1", "f": n, "l": n, "T": 1, "m": True} for n in range(first, trades)]
            return json.dumps(found[:limit]).encode()
        if url.path.endswith("/historicalTrades"):
            first = int(query["fromId"])
            return json.dumps([stored(n) for n in range(first, min(first + limit, trades))]).encode()
        assert url.path.endswith("/trades")
        return json.dumps([stored(n) for n in range(max(0, trades - limit), trades)]).encode()

    return answer


def repair(
    instrument: InstrumentDefinition, missing: TradeRange, answer: Callable[[Request], bytes]
) -> tuple[TickBatch, bool, int]:
    """Rows, whether they are complete, and how many requests it took."""
    history = VENUES[instrument.exchange].history
    assert history is not None
    request: Request | None = history.first(instrument, missing)
    parts, complete, requests = [], True, 0
    while request is not None:
        page = history.read(instrument, missing, answer(request))
        parts.append(page.trades)
        complete &= page.complete
        request = page.next
        requests += 1
        assert requests < 20
    return concat(parts), complete, requests


def us(number: int) -> int:
    return (START_MS + STEP_MS * number) * 1_000


def test_spot_reads_numbers_page_by_page() -> None:
    missing = TradeRange(us(500), us(3_000), first=501, last=2_990)
    rows, complete, requests = repair(SPOT, missing, venue_with(10_000))
    assert rows["id"].tolist() == list(range(501, 2_991))
    assert complete and requests == 3
    first = rows.slice(0, 2)
    assert first["timestamp"].tolist() == first["local_timestamp"].tolist() == [us(501), us(502)]
    assert first["side"].tolist() == [1, -1]
    assert first["price"].tolist() == [60_501.5, 60_502.5]
    assert rows.data_type is DataType.TRADES


def test_spot_finds_the_first_number_of_a_time() -> None:
    rows, complete, requests = repair(SPOT, TradeRange(us(1_500) - 3, us(3_000)), venue_with(10_000))
    assert rows["id"].tolist() == list(range(1_500, 3_000))
    assert complete and requests == 3


def test_spot_reads_to_the_present_where_no_last_number_is_known() -> None:
    rows, complete, _ = repair(SPOT, TradeRange(us(900), us(9_999), first=900), venue_with(1_950))
    assert rows["id"].tolist() == list(range(900, 1_950))
    assert complete


def test_a_time_in_which_nothing_traded_is_complete_and_empty() -> None:
    rows, complete, requests = repair(SPOT, TradeRange(us(10_000), us(10_100)), venue_with(10_000))
    assert len(rows) == 0 and complete and requests == 1


@given(st.integers(0, 5_000), st.integers(0, 3_000), st.booleans(), st.booleans())
def test_spot_gives_exactly_what_is_missing(first: int, count: int, with_first: bool, with_last: bool) -> None:
    missing = TradeRange(
        us(first), us(first + count), first=first if with_first else None, last=first + count - 1 if with_last else None
    )
    rows, complete, _ = repair(SPOT, missing, venue_with(6_000))
    assert rows["id"].tolist() == list(range(first, min(first + count, 6_000)))
    assert complete


@pytest.mark.parametrize("instrument", [FUTURE, COIN, OPTION], ids=lambda each: each.exchange)
def test_derivatives_reach_as_far_back_as_the_latest_trades(instrument: InstrumentDefinition) -> None:
    limit = 500 if instrument is OPTION else 1_000
    oldest = 5_000 - limit
    answer = venue_with(5_000)
    rows, complete, requests = repair(instrument, TradeRange(us(0), us(9_999), oldest, oldest + 99), answer)
    assert rows["id"].tolist() == list(range(oldest, oldest + 100))
    assert complete and requests == 1
    rows, complete, _ = repair(instrument, TradeRange(us(0), us(9_999), oldest - 1, oldest + 99), answer)
    assert rows["id"].tolist() == list(range(oldest, oldest + 100))
    assert not complete


def test_a_range_of_time_is_complete_where_something_older_is_there() -> None:
    answer = venue_with(5_000)
    assert repair(FUTURE, TradeRange(us(4_000) + 1, us(4_010)), answer)[1]
    assert not repair(FUTURE, TradeRange(us(4_000), us(4_010)), answer)[1]
    assert repair(FUTURE, TradeRange(us(0), us(4_010)), venue_with(999))[1]


def test_an_option_trade_is_known_by_the_number_of_its_stream() -> None:
    history = VENUES["binance-european-options"].history
    assert history is not None
    body = (
        b'[{"id":2323857420768529130,"tradeId":1,"symbol":"BTC-251219-89000-C","price":"1300","qty":"-0.1",'
        b'"quoteQty":"-130","side":-1,"time":1762780453623},{"id":"7","price":"1300","qty":"0.1","side":1,"time":1762780453624}]'
    )
    trades = history.read(OPTION, EVER, body).trades
    assert trades["id"].tolist() == [1, 7]
    assert trades["side"].tolist() == [-1, 1]
    assert trades["amount"].tolist() == [0.1, 0.1]


@pytest.mark.parametrize("instrument", [SPOT, FUTURE, COIN, OPTION], ids=lambda each: each.exchange)
def test_the_last_trade_is_the_newest_row(instrument: InstrumentDefinition) -> None:
    venue = VENUES[instrument.exchange]
    request = venue.last_trade(instrument)
    assert request is not None and venue.history is not None
    page = venue.history.read(instrument, EVER, venue_with(77)(request))
    assert page.trades["id"].tolist() == [76]
    assert page.next is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b'{"code":-1121,"msg":"Invalid symbol."}',
        b'[{"id":1,"price":"1","qty":"1"}]',
        b'[{"id":1,"price":"nan","qty":"1","time":1,"isBuyerMaker":true}]',
        b'[{"id":1,"price":"1","qty":"1","time":1}]',
    ],
)
@pytest.mark.parametrize("instrument", [SPOT, FUTURE, OPTION], ids=lambda each: each.exchange)
def test_an_answer_that_is_no_list_of_trades_is_a_violation(instrument: InstrumentDefinition, body: bytes) -> None:
    history = VENUES[instrument.exchange].history
    assert history is not None
    with pytest.raises(ProtocolViolation, match="a list of Binance trades") as raised:
        history.read(instrument, EVER, body)
    assert raised.value.raw == body


def test_weights_stay_within_a_minute_of_the_venue() -> None:
    for instrument in (SPOT, FUTURE, COIN, OPTION):
        venue = VENUES[instrument.exchange]
        assert venue.history is not None
        request = venue.history.first(instrument, EVER)
        assert 0 < request.weight < venue.weight_per_minute
        assert np.isfinite(request.weight)

"""Options in the layouts before and since 2025-12-17: trades, whole books, and summaries that belong to a chain."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from market_data_tick_handler.core.ids import hash_text
from market_data_tick_handler.core.instruments import chain_of, instrument_from_venue_symbol, parse_instrument_key
from market_data_tick_handler.core.ticks import ID_INTEGER, LAYOUTS, DataType
from streaming_service.sources.exchanges.binance import VENUES
from streaming_service.sources.exchanges.protocol import Decoded, Decoder
from tests.streaming_service.sources.exchanges.binance.messages import EVENT_MS, START_US, arrivals, frame, trade
from tests.streaming_service.sources.exchanges.vectors import BOOK_SNAPSHOT, OPTION, TRADE, Message, messages

VENUE = VENUES["binance-european-options"]
CALL, PUT = "BTC-251219-89000-C", "BTC-251218-89000-P"
OPTION_CALL = instrument_from_venue_symbol("binance-european-options", CALL)
CHAIN = parse_instrument_key("BINANCE-OPTIONS:OPTION_CHAIN:BTC-USDT")
SUMMARY = {
    "mp": "1450.5", "E": EVENT_MS, "e": "markPrice", "i": "104334.5", "bo": "1440.0", "ao": "1460.0", "bq": "5.00",
    "aq": "3.50", "b": "0.85", "a": "0.88", "vo": "0.86", "d": "0.75", "t": "-0.05", "g": "0.002", "v": "0.15",
}  # fmt: skip


def chain() -> Decoder:
    return VENUE.decoder([CHAIN], [DataType.OPTIONS])


def single() -> Decoder:
    return VENUE.decoder([OPTION_CALL], list(DataType))


def feed(decoder: Decoder, *frames: bytes) -> Decoded:
    return decoder.decode(frames, arrivals(len(frames)))


def summaries(*symbols: str, underlying: str = "btcusdt", **changes: Any) -> bytes:
    return frame(f"{underlying}@optionMarkPrice", [{"s": symbol, **SUMMARY, **changes} for symbol in symbols])


def last_price(symbol: str, price: str) -> bytes:
    return frame(f"{symbol.lower()}@optionTicker", {"e": "24hrTicker", "E": EVENT_MS, "s": symbol, "c": price})


def interest(symbol: str, contracts: str) -> bytes:
    rows = [{"e": "openInterest", "E": EVENT_MS, "s": symbol, "o": contracts, "h": "1"}]
    return frame(f"btcusdt@optionOpenInterest@{symbol.split('-')[1]}", rows)


def values(decoded: Decoded, *names: str) -> list[tuple[object, ...]]:
    return [tuple(message.get(name) for name in names) for message in messages(decoded, [OPTION])]


def test_a_chain_has_a_row_for_each_option_of_its_underlying() -> None:
    decoded = feed(chain(), summaries(CALL, PUT))
    (rows,) = decoded.rows
    assert rows.instrument == CHAIN.key == chain_of(OPTION_CALL).key
    assert rows.batch["symbol"].tolist() == [CALL, PUT]
    assert rows.batch["symbol_hash"].tolist() == [hash_text(CALL), hash_text(PUT)]
    for field in LAYOUTS[DataType.OPTIONS]:
        assert rows.batch[field.name].dtype == np.dtype(field.dtype)
    call: Message = {
        "type": "option_summary", "symbol": CALL, "exchange": "binance-european-options", "optionType": "call",
        "strikePrice": 89_000.0, "expirationDate": OPTION_CALL.expiry_us, "bestBidPrice": 1_440.0,
        "bestBidAmount": 5.0, "bestBidIV": 0.85, "bestAskPrice": 1_460.0, "bestAskAmount": 3.5, "bestAskIV": 0.88,
        "markPrice": 1_450.5, "markIV": 0.86, "delta": 0.75, "gamma": 0.002, "vega": 0.15, "theta": -0.05,
        "underlyingPrice": 104_334.5, "timestamp": EVENT_MS * 1_000, "localTimestamp": START_US,
    }  # fmt: skip
    assert messages(decoded, [OPTION])[0] == call


def test_last_price_and_open_interest_show_in_the_next_row_of_the_option() -> None:
    decoded = feed(
        chain(),
        summaries(CALL),
        last_price(CALL, "1420.000"),
        interest(CALL, "123.45"),
        last_price(PUT, "600.000"),
        summaries(CALL, PUT),
        last_price(CALL, "0.000"),
        interest(CALL, "0"),
        summaries(CALL),
    )
    assert values(decoded, "symbol", "lastPrice", "openInterest", "localTimestamp") == [
        (CALL, None, None, START_US),
        (CALL, 1_420.0, 123.45, START_US + 4),
        (PUT, 600.0, None, START_US + 4),
        # A price of 0 is none, an open interest of 0 is one.
        (CALL, 1_420.0, 0.0, START_US + 7),
    ]
    assert not decoded.filtered and not decoded.violations


def test_last_prices_of_all_options_come_from_the_poll() -> None:
    (poll,) = VENUE.polls([CHAIN], [DataType.OPTIONS])
    body = b'[{"symbol":"BTC-251219-89000-C","lastPrice":"1420.000"},{"symbol":"ETH-251219-3100-C","lastPrice":"5"}]'
    decoded = feed(chain(), poll.frame(body), summaries(CALL, PUT))
    assert values(decoded, "symbol", "lastPrice") == [(CALL, 1_420.0), (PUT, None)]


def test_zeros_and_minus_one_are_nothing() -> None:
    empty = summaries(CALL, bo="0.0000", bq="0.00", b="-1.0", ao="1460.0", a="-1.0", d="0.0", i="0", vo="0")
    (message,) = messages(feed(chain(), empty), [OPTION])
    absent = {"bestBidPrice", "bestBidAmount", "bestBidIV", "bestAskIV", "delta", "underlyingPrice", "markIV"}
    assert absent.isdisjoint(message)
    assert message["bestAskPrice"] == 1_460.0


def test_a_volatility_without_a_price_is_none() -> None:
    (message,) = messages(feed(chain(), summaries(CALL, bo="0", b="0.5")), [OPTION])
    assert "bestBidIV" not in message


def test_the_old_layout_has_index_and_open_interest_apart() -> None:
    ticker = {**SUMMARY, "e": "24hrTicker", "c": "1420", "i": "1"}
    decoded = feed(
        chain(),
        frame(f"{CALL}@ticker", {"s": CALL, **ticker}),
        frame("BTCUSDT@index", {"e": "index", "E": EVENT_MS, "s": "BTCUSDT", "p": "26963.13461538"}),
        frame("BTC@openInterest@251219", [{"e": "openInterest", "E": EVENT_MS, "s": CALL, "o": "7.0", "h": "0.0"}]),
        frame(f"{CALL}@ticker", {"s": CALL, **ticker}),
        frame("BTC@markPrice", [{"e": "markPrice", "E": EVENT_MS, "s": CALL, "mp": "7.949"}]),
    )
    assert values(decoded, "lastPrice", "openInterest", "underlyingPrice", "markIV") == [
        (1_420.0, None, None, None),
        (1_420.0, 7.0, 26_963.13461538, None),
    ]
    assert decoded.filtered == {("BTC", DataType.OPTIONS): 1}


def test_of_an_option_without_its_chain_only_its_own_rows_are_taken() -> None:
    decoded = feed(single(), summaries(CALL, PUT))
    assert values(decoded, "symbol") == [(CALL,)]
    assert decoded.rows[0].instrument == CHAIN.key
    assert decoded.filtered == {(CHAIN.key, DataType.OPTIONS): 1}


def test_another_underlying_is_filtered() -> None:
    decoded = feed(chain(), summaries("ETH-251219-3100-C", underlying="ethusdt"))
    assert decoded.filtered == {("ETHUSDT", DataType.OPTIONS): 1}
    assert not decoded.rows


def test_a_symbol_that_is_none_is_a_violation_and_the_other_rows_stay() -> None:
    decoded = feed(chain(), summaries(CALL, "BTC-SOON", PUT))
    assert values(decoded, "symbol") == [(CALL,), (PUT,)]
    assert len(decoded.violations) == 1 and "BTC-SOON" in str(decoded.violations[0])


@pytest.mark.parametrize(
    "garbage",
    [
        summaries(CALL)[:-3],
        summaries(CALL, E=None),
        summaries(CALL, bo="much"),
        frame("btcusdt@optionMarkPrice", {"s": CALL}),
        frame(f"{CALL.lower()}@optionTicker", {"s": CALL, "c": ""}),
        frame("!optionTicker@arr", {"code": -1, "msg": "no"}, generated=True),
        b"",
    ],
)
def test_a_garbage_frame_is_a_violation_and_the_others_stay(garbage: bytes) -> None:
    decoded = feed(chain(), summaries(CALL), garbage, summaries(PUT))
    assert [violation.raw for violation in decoded.violations] == [garbage]
    assert values(decoded, "symbol") == [(CALL,), (PUT,)]


def test_trades_of_both_layouts_are_rows_without_numbers() -> None:
    old = {"e": "trade", "E": EVENT_MS, "s": CALL, "t": "144", "p": "5", "q": "0.1", "T": EVENT_MS, "S": "-1"}
    decoded = feed(
        single(),
        trade(200, CALL, channel="optionTrade", m=False),
        trade(201, CALL, channel="optionTrade", m=True, X="BLOCK"),
        frame(f"{CALL}@trade", old),
        frame(f"{CALL}@trade", {**old, "S": "1", "t": "145"}),
        frame(f"{CALL}@trade", {**old, "S": "0"}),
        trade(9, PUT, channel="optionTrade"),
    )
    found = messages(decoded, [TRADE])
    assert [(each["id"], each["side"]) for each in found] == [
        ("200", "buy"), ("201", "sell"), ("144", "sell"), ("145", "buy"),
    ]  # fmt: skip
    assert all((rows.batch["id_kind"] == ID_INTEGER).all() for rows in decoded.rows)
    assert not decoded.numbers
    assert len(decoded.violations) == 1
    assert decoded.filtered == {(PUT, DataType.TRADES): 1}


@pytest.mark.parametrize(
    ("stream", "stamp"), [(f"{CALL.lower()}@depth20@100ms", EVENT_MS), (f"{CALL}@depth100@100ms", EVENT_MS + 8)]
)
def test_each_message_is_a_whole_book(stream: str, stamp: int) -> None:
    def book(bid: str, *rest: list[str]) -> bytes:
        bids = [[bid, "150.23"], *rest]
        return frame(stream, {"T": EVENT_MS, "E": EVENT_MS + 8, "s": CALL, "U": 1, "u": 2, "b": bids, "a": []})

    decoded = feed(single(), book("16.6", ["16.4", "10.00"]), book("16.5"), book("16.5"), book("nan"))
    found = messages(decoded, [BOOK_SNAPSHOT])
    assert [[level["price"] for level in each["bids"] if level] for each in found] == [[16.6, 16.4], [16.5]]
    assert {each["timestamp"] for each in found} == {stamp * 1_000}
    assert all(changes.is_snapshot.all() for _, changes in decoded.changes)
    assert len(decoded.violations) == 1


def test_a_reset_forgets_the_state() -> None:
    decoder = chain()
    feed(decoder, last_price(CALL, "1420"), interest(CALL, "5"))
    decoder.reset()
    assert values(feed(decoder, summaries(CALL)), "lastPrice", "openInterest") == [(None, None)]


def test_batches_may_be_cut_anywhere() -> None:
    frames = [
        summaries(CALL, PUT),
        last_price(CALL, "1420"),
        summaries(CALL),
        interest(PUT, "5"),
        b"?",
        summaries(PUT, mp="7"),
        b'{"result":null,"id":1}',
    ]
    whole, one_by_one = chain(), chain()
    together = messages(feed(whole, *frames), [OPTION])
    apart = [
        message
        for place, text in enumerate(frames)
        for message in messages(one_by_one.decode([text], arrivals(1, START_US + place)), [OPTION])
    ]
    assert together == apart
    assert len(together) == 4

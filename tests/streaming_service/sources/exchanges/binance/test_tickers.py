"""Derivative tickers carry forward what each stream says; liquidations are orders that were filled."""

from __future__ import annotations

import pytest

from market_data_tick_handler.core.instruments import instrument_from_venue_symbol
from market_data_tick_handler.core.ticks import DataType
from streaming_service.sources.exchanges.binance import VENUES
from streaming_service.sources.exchanges.protocol import Decoded, Decoder
from tests.streaming_service.sources.exchanges.binance.messages import (
    EVENT_MS,
    START_US,
    arrivals,
    force_order,
    frame,
    index_price,
    mark_price,
    open_interest,
    ticker,
)
from tests.streaming_service.sources.exchanges.vectors import LIQUIDATION, TICKER, Message, messages

FUTURE = instrument_from_venue_symbol("binance-futures", "BTCUSDT")
COIN = instrument_from_venue_symbol("binance-delivery", "BTCUSD_PERP")
COIN_DATED = instrument_from_venue_symbol("binance-delivery", "BTCUSD_250328")
EVENT_US = EVENT_MS * 1_000
FUNDING_US = (EVENT_MS + 1_000) * 1_000


def futures() -> Decoder:
    return VENUES["binance-futures"].decoder([FUTURE], [DataType.DERIVATIVE, DataType.LIQUIDATIONS])


def coins() -> Decoder:
    return VENUES["binance-delivery"].decoder([COIN, COIN_DATED], [DataType.DERIVATIVE])


def feed(decoder: Decoder, *frames: bytes) -> Decoded:
    return decoder.decode(frames, arrivals(len(frames)))


def rows(decoded: Decoded, *names: str) -> list[tuple[object, ...]]:
    return [tuple(message.get(name) for name in names) for message in messages(decoded, [TICKER])]


def test_a_row_is_the_whole_state_and_comes_when_a_value_changed() -> None:
    decoded = feed(
        futures(),
        mark_price(61_800.5, i="61801.25"),
        ticker(61_799.0, EVENT_MS + 10),
        ticker(61_799.0, EVENT_MS + 20),
        open_interest(26_286.181),
        mark_price(61_800.5, EVENT_MS + 30, i="61801.25", r="0.0002"),
    )
    state: Message = {
        "type": "derivative_ticker",
        "symbol": "BTCUSDT",
        "exchange": "binance-futures",
        "markPrice": 61_800.5,
        "indexPrice": 61_801.25,
        "fundingRate": 0.0001,
        "fundingTimestamp": FUNDING_US,
    }
    second = {**state, "lastPrice": 61_799.0}
    third = {**second, "openInterest": 26_286.181}
    assert messages(decoded, [TICKER]) == [
        {**state, "timestamp": EVENT_US, "localTimestamp": START_US},
        {**second, "timestamp": EVENT_US + 10_000, "localTimestamp": START_US + 1},
        # The time of the ticker that changed nothing.
        {**third, "timestamp": EVENT_US + 20_000, "localTimestamp": START_US + 3},
        {**third, "fundingRate": 0.0002, "timestamp": EVENT_US + 30_000, "localTimestamp": START_US + 4},
    ]


def test_the_timestamp_never_goes_back() -> None:
    decoder = futures()
    first = feed(decoder, mark_price(1.0, EVENT_MS + 50), ticker(2.0, EVENT_MS))
    second = feed(decoder, ticker(3.0, EVENT_MS + 10), ticker(4.0, EVENT_MS + 60))
    stamps = [stamp for decoded in (first, second) for (stamp,) in rows(decoded, "timestamp")]
    assert stamps == [EVENT_US + 50_000, EVENT_US + 50_000, EVENT_US + 50_000, EVENT_US + 60_000]


def test_open_interest_before_anything_else_has_the_time_of_its_arrival() -> None:
    decoder = futures()
    first = feed(decoder, open_interest(5), open_interest(6))
    second = feed(decoder, open_interest(7), mark_price(1.0, EVENT_MS + 5_000))
    assert rows(first, "openInterest", "timestamp") == [(5.0, START_US), (6.0, START_US)]
    assert rows(second, "openInterest", "timestamp") == [(7.0, START_US), (7.0, EVENT_US + 5_000_000)]


@pytest.mark.parametrize("funding", [{"r": "", "T": 0}, {"r": "0.00000000", "T": 0}, {"r": "", "T": EVENT_MS}])
def test_contracts_without_funding_have_none(funding: dict[str, object]) -> None:
    assert rows(feed(futures(), mark_price(1.0, **funding)), "fundingRate", "fundingTimestamp") == [(None, None)]


def test_a_rate_of_zero_is_a_rate() -> None:
    assert rows(feed(futures(), mark_price(1.0, r="0.00000000")), "fundingRate") == [(0.0,)]


def test_an_index_price_shows_in_the_next_row_of_each_contract_of_its_pair() -> None:
    decoder = coins()
    silent = feed(decoder, index_price(9_429.5))
    assert not silent.rows and not silent.filtered and not silent.violations
    decoded = feed(
        decoder,
        mark_price(9_500.0, symbol="BTCUSD_PERP"),
        index_price(9_430.5),
        mark_price(9_501.0, symbol="BTCUSD_250328"),
        index_price(9_431.5),
        mark_price(9_500.0, symbol="BTCUSD_PERP"),
        open_interest(15_279, symbol="BTCUSD_250328"),
    )
    assert sorted(rows(decoded, "symbol", "indexPrice", "localTimestamp")) == [
        ("BTCUSD_250328", 9_430.5, START_US + 2),
        ("BTCUSD_250328", 9_431.5, START_US + 5),
        ("BTCUSD_PERP", 9_429.5, START_US),
        ("BTCUSD_PERP", 9_431.5, START_US + 4),
    ]


def test_the_index_price_in_a_mark_price_wins() -> None:
    decoded = feed(coins(), index_price(9_429.5), mark_price(9_500.0, symbol="BTCUSD_PERP", i="9430.0"))
    assert rows(decoded, "indexPrice") == [(9_430.0,)]


def test_a_reset_forgets_the_state() -> None:
    decoder = coins()
    feed(decoder, index_price(9_429.5), mark_price(9_500.0, symbol="BTCUSD_PERP"))
    decoder.reset()
    decoded = feed(decoder, ticker(9_501.0, symbol="BTCUSD_PERP"))
    assert rows(decoded, "lastPrice", "markPrice", "indexPrice") == [(9_501.0, None, None)]


@pytest.mark.parametrize(
    "garbage",
    [
        mark_price(1.0, p="nan"),
        mark_price(1.0, p=None),
        mark_price(1.0, r="much"),
        mark_price(1.0, E=0),
        ticker(1.0, c=""),
        ticker(1.0, c="inf"),
        open_interest("none"),
        frame("btcusdt@openInterest", {"code": -1121, "msg": "Invalid symbol."}, generated=True),
        frame("btcusdt@markPrice@1s", None),
        mark_price(1.0)[:-3],
    ],
)
def test_a_garbage_frame_is_a_violation_and_the_others_stay(garbage: bytes) -> None:
    decoded = feed(futures(), mark_price(1.0), garbage, ticker(2.0), open_interest(3))
    assert [violation.raw for violation in decoded.violations] == [garbage]
    assert rows(decoded, "markPrice", "lastPrice", "openInterest") == [
        (1.0, None, None), (1.0, 2.0, None), (1.0, 2.0, 3.0),
    ]  # fmt: skip


def test_a_batch_of_garbage_alone_changes_nothing() -> None:
    decoder = futures()
    feed(decoder, mark_price(1.0))
    assert not feed(decoder, ticker(1.0, c=""), mark_price(1.0, p="")).rows
    assert rows(feed(decoder, ticker(2.0)), "markPrice", "lastPrice") == [(1.0, 2.0)]


def test_a_liquidation_is_an_order_that_was_filled() -> None:
    decoded = feed(
        futures(),
        force_order(4_793.91, 0.014),
        force_order(4_793.91, 0.01, X="NEW"),
        force_order(4_800.0, 0.5, S="BUY", T=EVENT_MS + 3),
    )
    shared = {"type": "liquidation", "symbol": "BTCUSDT", "exchange": "binance-futures"}
    assert messages(decoded, [LIQUIDATION]) == [
        {
            **shared, "price": 4_793.91, "amount": 0.014, "side": "sell", "timestamp": EVENT_US,
            "localTimestamp": START_US,
        },
        {
            **shared, "price": 4_800.0, "amount": 0.5, "side": "buy", "timestamp": EVENT_US + 3_000,
            "localTimestamp": START_US + 2,
        },
    ]  # fmt: skip
    assert decoded.filtered == {(FUTURE.key, DataType.LIQUIDATIONS): 1}


@pytest.mark.parametrize("change", [{"p": "nan"}, {"z": None}, {"S": "LONG"}, {"T": 0}])
def test_a_garbage_liquidation_is_a_violation(change: dict[str, object]) -> None:
    garbage = force_order(1.0, 1.0, **change)
    decoded = feed(futures(), force_order(1.0, 1.0), garbage)
    assert [violation.raw for violation in decoded.violations] == [garbage]
    assert len(messages(decoded, [LIQUIDATION])) == 1

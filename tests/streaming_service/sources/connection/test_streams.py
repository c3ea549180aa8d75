"""An outage is told once and in one way; what is void is told when it is whole again."""

from __future__ import annotations

import numpy as np
import pytest

from market_data_tick_handler.core.events import Disconnect, Gap, Rows
from market_data_tick_handler.core.liveness import PaceLimits
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.testing.ticks import BTC, START_US, books, trades
from streaming_service.sources.connection.options import ConnectionOptions
from streaming_service.sources.connection.streams import Streams
from streaming_service.sources.exchanges.protocol import Numbers, TradeRange

S = 1_000_000
CHAIN = "DERIBIT:OPTION_CHAIN:BTC-USD"
TRADES, BOOK = (BTC, DataType.TRADES), (BTC, DataType.BOOK)


@pytest.fixture
def streams() -> Streams:
    limits = PaceLimits(floor_us=S, ceiling_us=10 * S)
    it = Streams(ConnectionOptions(stream_silence=limits, patience_us=S))
    it.set([TRADES, BOOK], START_US)
    return it


def trade(streams: Streams, number: int, at_us: int) -> list[Gap]:
    """One trade, received at once; the gaps that it shows."""
    batch = trades([1.0], first_id=number, start_us=at_us, delay_us=0)
    numbers = Numbers(BTC, DataType.TRADES, np.array([number]), np.array([at_us]))
    return streams.rows(Rows(BTC, batch)) + streams.numbers(numbers)


def book(streams: Streams, at_us: int) -> list[Gap]:
    return streams.rows(Rows(BTC, books([1.0], start_us=at_us, delay_us=0)))


def lost(streams: Streams, at_us: int, alive_us: int, *, reason: str = "cut") -> list[Disconnect]:
    return streams.lost([TRADES, BOOK], at_us=at_us, last_alive_us=alive_us, reason=reason, connection=3)


def test_the_primary_stream_is_trades_and_of_a_chain_its_rows() -> None:
    it = Streams(ConnectionOptions())
    it.set([TRADES, BOOK, (CHAIN, DataType.OPTIONS)], START_US)
    assert it.primary(BTC) is not None and it.primary(CHAIN) is not None
    assert {state.stream for state in it if state.primary} == {TRADES, (CHAIN, DataType.OPTIONS)}
    it.set([BOOK], START_US)
    assert {state.stream for state in it if state.primary} == {BOOK}


def test_an_outage_is_told_once_however_often_reconnecting_fails(streams: Streams) -> None:
    trade(streams, 1, START_US)
    assert lost(streams, START_US + 9, START_US + 5) == [Disconnect(BTC, START_US + 9, START_US + 5, "cut", 3)]
    assert lost(streams, START_US + S, 0, reason="no connection") == []
    trade(streams, 2, START_US + 2 * S)
    assert len(lost(streams, START_US + 3 * S, START_US + 2 * S)) == 1


def test_an_outage_before_the_first_connection_begins_where_watching_began(streams: Streams) -> None:
    (said,) = lost(streams, START_US + 5 * S, 0)
    assert said.last_alive_us == START_US


def test_numbers_missing_over_an_outage_are_no_second_gap_but_are_known_to_the_repair(streams: Streams) -> None:
    trade(streams, 1, START_US)
    lost(streams, START_US + 10, START_US + 5)
    assert trade(streams, 7, START_US + S) == []
    assert trade(streams, 9, START_US + 2 * S) == []
    (gap,) = streams.expire(START_US + 60 * S)
    assert (gap.from_us, gap.to_us) == (START_US + S, START_US + 2 * S)
    outage = Gap(BTC, DataType.TRADES, START_US + 5, START_US + S - 1, "cut")
    assert streams.missing(outage) == TradeRange(START_US + 5, START_US + S - 1, 2, 6)


def test_a_gap_without_numbers_is_asked_for_by_its_times(streams: Streams) -> None:
    gap = Gap(BTC, DataType.TRADES, START_US, START_US + S, "cut")
    assert streams.missing(gap) == TradeRange(START_US, START_US + S)


def test_a_void_book_is_a_gap_from_its_break_to_its_next_row(streams: Streams) -> None:
    book(streams, START_US)
    streams.broken(BOOK, START_US + 100, "expected 3, came 7")
    streams.broken(BOOK, START_US + 200, "again")
    assert book(streams, START_US + 900) == [Gap(*BOOK, START_US + 100, START_US + 900, "expected 3, came 7")]
    assert book(streams, START_US + 1_000) == []


def test_a_lost_connection_voids_the_book_from_the_last_proof_of_life(streams: Streams) -> None:
    book(streams, START_US)
    lost(streams, START_US + 10, START_US + 5)
    assert book(streams, START_US + S) == [Gap(*BOOK, START_US + 5, START_US + S, "cut")]


def test_a_book_that_does_not_change_while_trades_come_is_dead(streams: Streams) -> None:
    for tenth in range(50):
        book(streams, START_US + tenth * S // 10)
    last_us = START_US + 49 * S // 10
    trade(streams, 1, last_us + S // 2)
    assert streams.dead_books() == []
    # Without trades nothing says that the book should have changed.
    trade(streams, 2, last_us + 30 * S)
    assert [state.stream for state in streams.dead_books()] == [BOOK]
    streams.broken(BOOK, last_us, "dead")
    assert streams.dead_books() == []


def test_streams_that_are_no_longer_watched_are_forgotten(streams: Streams) -> None:
    trade(streams, 1, START_US)
    trade(streams, 5, START_US + 1)
    streams.set([BOOK], START_US + 2)
    assert streams.expire(START_US + 60 * S) == []
    assert trade(streams, 9, START_US + 3) == []

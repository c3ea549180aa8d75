"""While a connection is replaced, every row counts exactly once, and states go on where they were."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from market_data_tick_handler.core.events import Disconnect, Rows
from market_data_tick_handler.core.ticks import DataType, TickBatch
from market_data_tick_handler.testing.ticks import BTC, START_US, books, derivative_tickers, liquidations, trades
from streaming_service.sources.connection.intake import Intake
from streaming_service.sources.exchanges.protocol import Break, Decoded

ETH = "BINANCE:SPOT_PAIR:ETH-USDT"
TRADES, BOOK = (BTC, DataType.TRADES), (BTC, DataType.BOOK)
TICKER, LIQUIDATIONS = (BTC, DataType.DERIVATIVE), (BTC, DataType.LIQUIDATIONS)
OLD, NEW = 0, 1


def decoded(*batches: TickBatch, instrument: str = BTC) -> Decoded:
    return Decoded(rows=[Rows(instrument, batch) for batch in batches])


def take(intake: Intake, connection: int, *batches: TickBatch) -> list[TickBatch]:
    return [each.batch for each in intake.take(connection, decoded(*batches)) if isinstance(each, Rows)]


def overlap(*streams: tuple[str, DataType]) -> Intake:
    """Two connections for these streams; the old one speaks."""
    intake = Intake()
    intake.opened(OLD, streams)
    intake.opened(NEW, streams)
    return intake


def stamps(batches: Sequence[TickBatch | Rows]) -> list[int]:
    return [
        int(time_us) - START_US
        for each in batches
        for time_us in (each.batch if isinstance(each, Rows) else each)["timestamp"]
    ]


def at(*times: int, local: int = 1_000) -> TickBatch:
    """Liquidations with these times."""
    stamped = [START_US + time_us for time_us in times]
    return liquidations(
        [1.0 + index for index in range(len(times))],
        timestamps=stamped,
        local_timestamps=[START_US + local] * len(times),
    )


def test_a_single_connection_is_let_through_untouched() -> None:
    intake = Intake()
    intake.opened(OLD, [TRADES, BOOK])
    batch, book = trades([1.0, 2.0]), books([1.0])
    assert take(intake, OLD, batch, book) == [batch, book]
    assert intake.repeated == {}


def test_trades_with_ids_count_from_both_connections() -> None:
    intake = overlap(TRADES)
    assert len(take(intake, OLD, trades([1.0, 2.0]))) == 1
    assert len(take(intake, NEW, trades([1.0, 2.0]))) == 1
    intake.promoted(OLD, NEW, START_US)
    assert len(take(intake, OLD, trades([3.0], first_id=3))) == 1


def test_trades_without_ids_count_once() -> None:
    intake = overlap(TRADES)
    batch = trades([1.0, 2.0], ids=[0, 0])
    assert take(intake, OLD, batch) == [batch]
    assert take(intake, NEW, batch) == []
    assert intake.promoted(OLD, NEW, START_US) == []
    assert intake.repeated == {TRADES: 2}


def test_the_new_book_is_held_back_until_the_handover_and_goes_on_with_its_newest_row() -> None:
    intake = overlap(BOOK)
    take(intake, OLD, books([100.0, 101.0], start_us=START_US, step_us=10))
    assert take(intake, NEW, books([100.0, 101.0, 102.0], start_us=START_US, step_us=10)) == []
    at_us = START_US + 5_000_000
    (rows,) = intake.promoted(OLD, NEW, at_us)
    assert stamps([rows]) == [20]
    assert rows.batch["local_timestamp"].tolist() == [at_us]
    assert take(intake, OLD, books([103.0], start_us=START_US + 30)) == []
    assert stamps(take(intake, NEW, books([103.0], start_us=START_US + 30))) == [30]


def test_a_new_book_that_lags_behind_the_old_one_does_not_step_back() -> None:
    intake = overlap(BOOK)
    take(intake, OLD, books([1.0] * 5, start_us=START_US, step_us=10))
    take(intake, NEW, books([1.0] * 3, start_us=START_US, step_us=10))
    assert intake.promoted(OLD, NEW, START_US) == []
    assert stamps(take(intake, NEW, books([1.0] * 3, start_us=START_US + 30, step_us=10))) == [50]
    assert stamps(take(intake, NEW, books([1.0], start_us=START_US + 45))) == [45]


def test_liquidations_of_one_moment_are_counted_not_guessed() -> None:
    """The old connection delivered two of the three with the same time; exactly the third goes out."""
    intake = overlap(LIQUIDATIONS)
    take(intake, OLD, at(10, 20, 20))
    take(intake, NEW, at(10, 20, 20, 20, 30))
    rows = intake.promoted(OLD, NEW, START_US)
    assert stamps(rows) == [20, 30]


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=40),
    st.integers(0, 40),
    st.integers(0, 40),
    st.integers(1, 7),
    st.integers(1, 7),
)
def test_wherever_the_two_stand_at_the_handover_every_liquidation_counts_once(
    gaps: list[int], old_has: int, new_has: int, old_size: int, new_size: int
) -> None:
    """Both connections deliver the same series; the handover comes when each has delivered any part of it."""
    times = np.cumsum(gaps).tolist()
    old_part, intake = times[:old_has], overlap(LIQUIDATIONS)
    got: list[int] = []
    for start in range(0, len(old_part), old_size):
        got += stamps(take(intake, OLD, at(*old_part[start : start + old_size])))
    for start in range(0, len(times[:new_has]), new_size):
        got += stamps(take(intake, NEW, at(*times[:new_has][start : start + new_size])))
    got += stamps(intake.promoted(OLD, NEW, START_US))
    for start in range(new_has, len(times), new_size):
        got += stamps(take(intake, NEW, at(*times[start : start + new_size])))
    assert got == times


def test_a_replacement_is_ready_when_it_knows_the_states_that_the_old_one_knows() -> None:
    intake = overlap(TRADES, BOOK, TICKER, LIQUIDATIONS)
    assert intake.lacks(OLD, NEW) == []
    take(intake, OLD, trades([1.0]), books([1.0]), derivative_tickers(1, funding_rate=0.1, open_interest=5.0))
    assert set(intake.lacks(OLD, NEW)) == {BOOK, TICKER}
    take(intake, NEW, books([1.0]), derivative_tickers(1, funding_rate=0.1))
    assert intake.lacks(OLD, NEW) == [TICKER]
    take(intake, NEW, derivative_tickers(1, funding_rate=0.1, open_interest=5.0, mark_price=1.0))
    assert intake.lacks(OLD, NEW) == []


def test_a_replacement_that_ends_before_the_handover_changes_nothing() -> None:
    intake = overlap(BOOK)
    take(intake, OLD, books([1.0]))
    take(intake, NEW, books([1.0, 2.0]))
    intake.closed(NEW)
    assert stamps(take(intake, OLD, books([2.0], start_us=START_US + 10))) == [10]
    assert intake.repeated == {BOOK: 2}
    assert intake.speaker(BOOK) == OLD


def test_after_a_break_the_next_connection_speaks_at_once() -> None:
    intake = Intake()
    intake.opened(OLD, [BOOK])
    take(intake, OLD, books([1.0], start_us=START_US + 100))
    intake.closed(OLD)
    assert intake.speaker(BOOK) is None
    intake.opened(NEW, [BOOK])
    # Older than what the connection before said, and still true: it begins with its own snapshot.
    assert stamps(take(intake, NEW, books([1.0], start_us=START_US + 50))) == [50]


def test_rows_of_instruments_nobody_asks_for_are_counted() -> None:
    intake = Intake()
    intake.opened(OLD, [TRADES, (ETH, DataType.TRADES)])
    intake.want([BTC])
    both = Decoded(rows=[Rows(ETH, trades([1.0, 2.0])), Rows(BTC, trades([1.0]))])
    assert [each.instrument for each in intake.take(OLD, both)] == [BTC]
    assert intake.unwanted == {(ETH, DataType.TRADES): 2}


def test_an_outage_that_the_other_side_tells_stands_between_the_rows_before_and_after_it() -> None:
    intake = Intake()
    intake.opened(OLD, [TRADES])
    batch = trades([1.0, 2.0, 3.0, 4.0], start_us=START_US, step_us=1_000, delay_us=0)
    break_us = START_US + 1_500
    other = Rows(ETH, trades([1.0, 2.0], start_us=START_US, step_us=3_000, delay_us=0))
    said = Decoded(rows=[Rows(BTC, batch), other], breaks=[Break((BTC,), break_us, "machine lost its feed")])
    first, eth, lost, second = intake.take(OLD, said)
    assert isinstance(first, Rows) and stamps([first]) == [0, 1_000]
    assert isinstance(eth, Rows) and eth.instrument == ETH and len(eth.batch) == 2
    assert lost == Disconnect(BTC, break_us, START_US + 1_000, "machine lost its feed", OLD)
    assert isinstance(second, Rows) and stamps([second]) == [2_000, 3_000]


def test_an_outage_without_rows_before_it_begins_where_the_last_row_came_earlier() -> None:
    intake = Intake()
    intake.opened(OLD, [TRADES])
    take(intake, OLD, trades([1.0], start_us=START_US, delay_us=0))
    (lost,) = intake.take(OLD, Decoded(breaks=[Break((BTC,), START_US + 9_000, "lost")]))
    assert lost == Disconnect(BTC, START_US + 9_000, START_US, "lost", OLD)

"""The builders of ticks: defaults that are valid, everything else as written."""

from __future__ import annotations

import numpy as np
import pytest

from market_data_tick_handler import testing
from market_data_tick_handler.core.ticks import BOOK_LEVELS, ID_INTEGER, ID_NONE, LAYOUTS, DataType, TickBatch, concat
from market_data_tick_handler.testing import books, chunks, derivative_tickers, liquidations, rows, trades
from market_data_tick_handler.testing.ticks import BTC, START_US


def test_the_public_names_are_these() -> None:
    assert sorted(testing.__all__) == [
        "ManualClock",
        "ScriptedSource",
        "books",
        "chunks",
        "derivative_tickers",
        "liquidations",
        "rows",
        "trades",
    ]


@pytest.mark.parametrize(
    ("batch", "data_type"),
    [
        (trades([1.0, 2.0]), DataType.TRADES),
        (liquidations([1.0, 2.0]), DataType.LIQUIDATIONS),
        (books([1.0, 2.0]), DataType.BOOK),
        (derivative_tickers(2, mark_price=[1.0, 2.0], open_interest=5.0), DataType.DERIVATIVE),
    ],
)
def test_a_batch_has_every_column_of_its_layout_in_its_type(batch: TickBatch, data_type: DataType) -> None:
    assert (batch.data_type, len(batch)) == (data_type, 2)
    for field in LAYOUTS[data_type]:
        assert batch[field.name].dtype == np.dtype(field.dtype), field.name


def test_trades_are_spaced_numbered_and_received() -> None:
    batch = trades([10.0, 11.0, 12.0], step_us=500, delay_us=7, first_id=40)
    np.testing.assert_array_equal(batch["timestamp"], START_US + np.array([0, 500, 1_000]))
    np.testing.assert_array_equal(batch["local_timestamp"], batch["timestamp"] + 7)
    np.testing.assert_array_equal(batch["id"], [40, 41, 42])
    assert (batch["id_kind"] == ID_INTEGER).all()


def test_an_id_of_zero_is_no_id() -> None:
    np.testing.assert_array_equal(trades([1.0, 2.0], ids=[0, 5])["id_kind"], [ID_NONE, ID_INTEGER])


def test_books_are_full_and_not_crossed() -> None:
    book = books([100.0], spread=2.0, level_step=0.5, volume=3.0)
    assert book["ask_price_1"][0] - book["bid_price_1"][0] == 2.0
    assert book[f"ask_price_{BOOK_LEVELS}"][0] == 103.0
    assert book["bid_volume_3"][0] == 3.0


def test_chunks_lose_nothing() -> None:
    batch = trades(np.arange(1.0, 11.0))
    pieces = list(chunks(batch, [1, 4]))
    assert [len(piece) for piece in pieces] == [1, 4, 4, 1]
    np.testing.assert_array_equal(concat(pieces)["id"], batch["id"])
    with pytest.raises(ValueError, match="1 or more"):
        list(chunks(batch, [0]))


def test_rows_make_an_event() -> None:
    event = rows(trades([1.0]))
    assert (event.instrument, event.data_type, event.connection) == (BTC, DataType.TRADES, 0)

"""Ticks are columns of one length in the declared layout, whatever they were built from."""

from __future__ import annotations

import numpy as np
import pytest

from market_data_tick_handler.core.ticks import LAYOUTS, RANK, DataType, TickBatch, concat
from market_data_tick_handler.errors import SchemaMismatch


def trades(n: int = 3, **columns: object) -> TickBatch:
    return TickBatch.build(DataType.TRADES, {"timestamp": np.arange(n), "local_timestamp": np.arange(n) + 5, **columns})


@pytest.mark.parametrize("data_type", DataType)
def test_absent_columns_are_filled_with_their_missing_value(data_type: DataType) -> None:
    batch = TickBatch.build(data_type, {"timestamp": [1], "local_timestamp": [2]})
    for field in LAYOUTS[data_type][2:]:
        assert batch[field.name].dtype == field.dtype
        np.testing.assert_array_equal(batch[field.name], [field.missing])


def test_columns_are_converted_to_contiguous_arrays_of_the_layout() -> None:
    batch = trades(price=[1, 2, 3], side=[1, -1, 0], id=np.arange(6)[::2])
    assert (batch["price"].dtype, batch["side"].dtype) == (np.dtype("f8"), np.dtype("i1"))
    assert batch["id"].flags.c_contiguous
    assert len(batch) == 3


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"local_timestamp": [1]}, "required"),
        ({"timestamp": [1], "local_timestamp": [1], "volume": [1.0]}, "unknown columns"),
        ({"timestamp": [1, 2], "local_timestamp": [1]}, "one length"),
        ({"timestamp": [1], "local_timestamp": [1], "price": [1.0, 2.0]}, "one length"),
        ({"timestamp": [1], "local_timestamp": [1], "id_text": ["a", "b"]}, "one length"),
    ],
)
def test_columns_that_fit_no_layout_are_refused(columns: dict[str, list[object]], said: str) -> None:
    with pytest.raises(SchemaMismatch, match=said):
        TickBatch.build(DataType.TRADES, columns)


def test_a_slice_shares_memory_and_a_selection_does_not() -> None:
    batch = trades(price=[1.0, 2.0, 3.0])
    batch.slice(1, 3)["price"][0] = 9.0
    assert batch["price"].tolist() == [1.0, 9.0, 3.0]
    batch.take(np.array([True, False, True]))["price"][0] = 7.0
    assert batch["price"][0] == 1.0


def test_replacing_a_column_leaves_the_batch_as_it_was() -> None:
    batch = trades()
    assert batch.with_column("price", np.ones(3))["price"].tolist() == [1.0] * 3
    assert np.isnan(batch["price"]).all()


def test_batches_are_joined_end_to_end_and_absent_text_becomes_empty() -> None:
    whole = concat([trades(1, id_text=["a"]), trades(2)])
    assert whole["id_text"].tolist() == ["a", "", ""]
    assert whole["local_timestamp"].tolist() == [5, 5, 6]
    one = trades()
    assert concat([one]) is one


def test_state_comes_before_the_trades_that_meet_it() -> None:
    assert sorted(DataType, key=RANK.__getitem__) == [
        DataType.BOOK, DataType.DERIVATIVE, DataType.OPTIONS, DataType.LIQUIDATIONS, DataType.TRADES,
    ]  # fmt: skip

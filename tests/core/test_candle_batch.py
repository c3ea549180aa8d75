"""Rows in records are the rows in columns, whatever is done with them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from market_data_tick_handler.core.candle_batch import CandleBatch, concat_candles, newest_rows
from tests.storage.recovery.candle_rows import assert_same, in_columns, pipeline_candles

BATCHES = [batch for batch in pipeline_candles() if len(batch) > 5]


@pytest.mark.parametrize(
    "change",
    [
        lambda batch: batch,
        lambda batch: batch.slice(1, 4),
        lambda batch: batch.take(np.array([3, 0])),
        lambda batch: batch.take(np.arange(len(batch)) % 2 == 0),
        lambda batch: batch.numbered(np.arange(len(batch))).slice(2, 3),
        lambda batch: batch.replace(revision=batch["revision"] + 2, close=batch["close"] * 2.0).slice(0, 2),
        lambda batch: newest_rows(batch.take(np.array([0, 1, 1]))),
    ],
)
@pytest.mark.parametrize("batch", BATCHES, ids=lambda batch: str(batch.timeframe))
def test_what_is_done_with_records_is_what_is_done_with_columns(
    batch: CandleBatch, change: Callable[[CandleBatch], CandleBatch]
) -> None:
    found, wanted = change(batch), change(in_columns(batch))
    assert found.records is not None and wanted.records is None
    assert len(found) == len(wanted) and found.names == tuple(wanted.columns)
    assert_same(wanted, found)
    assert [repr(row) for row in found.rows()] == [repr(row) for row in wanted.rows()]
    for one, other in ((found.digests, wanted.digests), (found.sequences, wanted.sequences)):
        assert (one is None) == (other is None)
        assert one is None or np.array_equal(one, other)


def test_what_is_replaced_is_replaced_in_these_rows_alone() -> None:
    batch = BATCHES[0]
    before = batch["close"].copy()
    assert float(batch.replace(close=np.zeros(len(batch)))["close"].max()) == 0.0
    assert np.array_equal(batch["close"], before)


def test_columns_of_another_type_or_name_make_them_columns() -> None:
    batch = BATCHES[0]
    for more in ({"close": batch["close"].astype("f4")}, {"mine": batch["close"]}, {"quality": batch["quality"]}):
        changed = batch.replace(**more)
        assert changed.records is None
        assert all(np.array_equal(changed[name], column) for name, column in more.items())


def test_records_have_the_columns_that_are_published_and_no_others() -> None:
    batch = BATCHES[0]
    assert "quality" in batch.names and "vwap_base_volume" not in batch.names
    with pytest.raises(KeyError, match="nonsense"):
        batch["nonsense"]


def test_batches_end_to_end_have_the_rows_of_all() -> None:
    batch = BATCHES[0]
    assert_same(in_columns(batch), concat_candles([batch.slice(0, 2), batch.slice(2, len(batch))]))


def test_all_instruments_with_the_same_columns_have_one_type_of_record() -> None:
    """So that it is compared at no cost."""
    first, second = (batch.records for batch in BATCHES[:2])
    assert first is not None and second is not None
    one = next(batch.records for batch in pipeline_candles.__wrapped__() if len(batch) > 5)
    assert one is not None and one.rows.dtype is first.rows.dtype and one.names is first.names

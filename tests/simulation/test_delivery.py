"""The fault script: every effect is counted, exactly, and no effect depends on the step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market_data_tick_handler.core.ticks import DataType, TickBatch, concat
from market_data_tick_handler.errors import ConfigError
from market_data_tick_handler.testing import chunks, trades
from market_data_tick_handler.testing.ticks import START_US
from streaming_service.sources.simulated import (
    Delay,
    Disconnected,
    Drop,
    Duplicate,
    Fault,
    Invalid,
    Late,
    Reorder,
    SkewClock,
    demo_faults,
    fault_from_mapping,
    fault_to_mapping,
)
from streaming_service.sources.simulation.delivery import Delivery

COUNT = 4_000
STEP_US = 50_000
CLEAN = trades(100.0 + np.arange(COUNT) % 7, step_us=STEP_US)
END_US = START_US + COUNT * STEP_US + 600_000_000

EVERYTHING: tuple[Fault, ...] = (
    Drop(from_s=3, to_s=4),
    SkewClock(offset_s=-2.0, from_s=20, to_s=22),
    Delay(delay_s=1.5, from_s=10, to_s=11),
    Late(rate=0.05, up_to_s=30),
    Reorder(rate=0.1, within_s=0.2),
    Disconnected(at_s=50, for_s=5),
    Duplicate(rate=0.1, after_s=0.1),
    Duplicate(at_s=(7.0, 9.0)),
    Invalid(rate=0.02, defects=("negative_price", "nan_price", "zero_amount", "nan_amount", "ancient_timestamp")),
)


def _deliver(faults: Sequence[Fault], sizes: Sequence[int] = (COUNT,)) -> tuple[TickBatch, Delivery]:
    delivery = Delivery(DataType.TRADES, faults, START_US, "test")
    parts = []
    for piece in chunks(CLEAN, sizes):
        delivery.offer(piece)
        # Rows of equal time may not be split from the promise that all older ones were offered.
        batch = delivery.release(int(piece["local_timestamp"][-1]) + 1)
        parts += [batch] if batch is not None else []
    batch = delivery.release(END_US)
    parts += [batch] if batch is not None else []
    return concat(parts), delivery


def _bad(batch: TickBatch) -> npt.NDArray[np.bool_]:
    bad: npt.NDArray[np.bool_] = ~(batch["price"] > 0) | ~(batch["amount"] > 0) | (batch["timestamp"] == 0)
    return bad


@settings(max_examples=25)
@given(sizes=st.lists(st.integers(1, 700), min_size=1, max_size=5))
def test_the_step_changes_nothing(sizes: list[int]) -> None:
    sizes = [*sizes, max(sizes[-1], 20)]
    whole, delivery = _deliver(EVERYTHING)
    stepped, other = _deliver(EVERYTHING, sizes)
    for name, column in whole.columns.items():
        np.testing.assert_array_equal(column, stepped[name], err_msg=name)
    assert delivery.counts == other.counts


def test_the_counts_add_up_and_say_what_came() -> None:
    batch, delivery = _deliver(EVERYTHING)
    counts = delivery.counts
    assert delivery.pending == 0
    assert counts.clean == COUNT
    assert counts.delivered == len(batch)
    assert counts.delivered == counts.clean - counts.dropped - counts.lost + counts.duplicate + counts.invalid
    bad = _bad(batch)
    assert counts.invalid == bad.sum() > 0
    ids = batch["id"][~bad]
    assert counts.duplicate == len(ids) - len(np.unique(ids)) > 0
    assert counts.dropped + counts.lost == COUNT - len(np.unique(ids))
    assert min(counts.late, counts.delayed, counts.reordered, counts.skewed) > 0


def test_rows_arrive_in_the_order_of_their_time_of_receipt() -> None:
    batch, _ = _deliver(EVERYTHING)
    assert (np.diff(batch["local_timestamp"]) >= 0).all()


def test_no_faults_change_nothing() -> None:
    batch, delivery = _deliver((), (100, 7))
    np.testing.assert_array_equal(batch["id"], CLEAN["id"])
    assert delivery.counts.delivered == delivery.counts.clean == COUNT


def test_rows_not_due_yet_wait_without_faults_too() -> None:
    delivery = Delivery(DataType.TRADES, (), START_US, "test")
    delivery.offer(CLEAN)
    batch = delivery.release(START_US + 10 * STEP_US)
    assert batch is not None
    assert len(batch) == 10
    assert delivery.pending == COUNT - 10
    assert delivery.counts.clean == 10


def test_drop_takes_an_interval() -> None:
    batch, delivery = _deliver([Drop(from_s=10, to_s=12)])
    assert delivery.counts.dropped == 40
    gap = np.diff(batch["local_timestamp"]).max()
    assert gap == 41 * STEP_US


def test_delay_holds_an_interval_up_and_later_rows_overtake() -> None:
    batch, delivery = _deliver([Delay(delay_s=3, from_s=10, to_s=12)])
    assert delivery.counts.delayed == 40
    delays = batch["local_timestamp"] - batch["timestamp"]
    assert (delays == 3_001_000).sum() == 40
    assert (delays == 1_000).sum() == COUNT - 40
    assert (np.diff(batch["timestamp"]) < 0).any()


def test_late_rows_are_a_share_and_never_later_than_said() -> None:
    batch, delivery = _deliver([Late(rate=0.05, up_to_s=30)])
    delays = batch["local_timestamp"] - batch["timestamp"] - 1_000
    assert delivery.counts.late == (delays > 0).sum()
    assert delivery.counts.late == pytest.approx(0.05 * COUNT, rel=0.3)
    assert delays.max() <= 30_000_000


def test_reorder_only_swaps_near_rows() -> None:
    batch, delivery = _deliver([Reorder(rate=0.2, within_s=0.2)])
    places = np.abs(batch["id"] - CLEAN["id"])
    assert 0 < places.max() <= 5
    assert delivery.counts.reordered == (batch["local_timestamp"] - batch["timestamp"] > 1_000).sum()
    np.testing.assert_array_equal(np.sort(batch["id"]), CLEAN["id"])


def test_a_disconnect_loses_what_would_have_arrived() -> None:
    batch, delivery = _deliver([Disconnected(at_s=10, for_s=5)])
    assert delivery.counts.lost == 100
    local = (batch["local_timestamp"] - START_US) / 1e6
    assert not ((local >= 10) & (local < 15)).any()


def test_a_delayed_row_can_be_lost_too() -> None:
    _, delivery = _deliver([Delay(delay_s=5, from_s=6, to_s=7), Disconnected(at_s=11, for_s=0.5)])
    assert delivery.counts.lost == 20
    assert delivery.counts.delayed == 10


def test_duplicates_come_directly_behind_or_later() -> None:
    batch, delivery = _deliver([Duplicate(at_s=(5.0,)), Duplicate(at_s=(20.0,), after_s=1.0)])
    assert delivery.counts.duplicate == 2
    ids, places, times = np.unique(batch["id"], return_index=True, return_counts=True)
    near, far = places[times == 2]
    assert batch["id"][near] == batch["id"][near + 1]
    again = np.flatnonzero(batch["id"] == batch["id"][far])
    assert batch["local_timestamp"][again[1]] - batch["local_timestamp"][again[0]] == 1_000_000
    assert len(ids) == COUNT


def test_no_copy_comes_without_its_original() -> None:
    batch, delivery = _deliver([Duplicate(rate=1.0), Disconnected(at_s=10, for_s=5)])
    assert delivery.counts.duplicate == COUNT - 100
    assert len(batch) == 2 * (COUNT - 100)


def test_invalid_rows_come_on_top_with_every_defect() -> None:
    defects = ("negative_price", "nan_price", "zero_amount", "nan_amount", "ancient_timestamp")
    batch, delivery = _deliver([Invalid(rate=0.1, defects=defects)])
    assert delivery.counts.invalid == len(batch) - COUNT
    assert (batch["price"] < 0).any()
    assert np.isnan(batch["price"]).any()
    assert (batch["amount"] == 0).any()
    assert np.isnan(batch["amount"]).any()
    assert (batch["timestamp"] == 0).any()


def test_skew_moves_one_clock_only() -> None:
    batch, delivery = _deliver([SkewClock(offset_s=90, from_s=10, to_s=12)])
    assert delivery.counts.skewed == 40
    assert (batch["timestamp"] > batch["local_timestamp"]).sum() == 40
    ours, _ = _deliver([SkewClock(offset_s=-90, which="local_timestamp", from_s=10, to_s=12)])
    np.testing.assert_array_equal(ours["timestamp"], CLEAN["timestamp"])
    assert (np.diff(ours["local_timestamp"]) < 0).sum() == 1


@pytest.mark.parametrize("fault", [*EVERYTHING, *demo_faults()])
def test_a_fault_survives_the_way_through_settings(fault: Fault) -> None:
    assert fault_from_mapping(fault_to_mapping(fault)) == fault


@pytest.mark.parametrize(
    ("entry", "key"),
    [
        ({"kind": "earthquake"}, "faults.kind"),
        ({"rate": 0.1}, "faults.kind"),
        ({"kind": "late", "rate": 0.1}, "up_to_s"),
        ({"kind": "drop", "form_s": 1}, "form_s"),
        ({"kind": "duplicate", "rate": 1.5}, "faults.duplicate.rate"),
        ({"kind": "duplicate", "rate": "often"}, "faults.duplicate.rate"),
        ({"kind": "disconnect", "at_s": -1, "for_s": 2}, "faults.disconnect.at_s"),
        ({"kind": "skew_clock", "offset_s": "much"}, "faults.skew_clock.offset_s"),
        ({"kind": "drop", "data_types": ["quotes"]}, "faults.drop.data_types"),
        ({"kind": "skew_clock", "offset_s": 1, "which": "wall"}, "faults.skew_clock.which"),
        ({"kind": "invalid", "rate": 0.1, "defects": ["rust"]}, "faults.invalid.defects"),
        ({"kind": "invalid", "rate": 0.1, "data_types": ["book_snapshot_5"]}, "faults.invalid.data_types"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused_by_name(entry: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        fault_from_mapping(entry)


def test_a_single_value_stands_for_a_list() -> None:
    assert fault_from_mapping({"kind": "duplicate", "at_s": 5, "data_types": "trades"}) == Duplicate(at_s=(5,))

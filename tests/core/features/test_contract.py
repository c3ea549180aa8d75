"""What every tick group gets from `TickState`: rings, absent bins, roll-up in any grouping, state in and out."""

from __future__ import annotations

import numpy as np
import pytest

from market_data_tick_handler.core.continuity import Continuity, Judged
from market_data_tick_handler.core.features import delays, flow, ohlcv
from market_data_tick_handler.core.features.contract import RunShape, TickState, record
from market_data_tick_handler.core.options import FeatureParameters
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.testing.ticks import START_US, trades

S = 1_000_000
MINUTE_US = 60 * S
GROUPS = [ohlcv.GROUP, flow.GROUP, delays.GROUP]
every_group = pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)


def opened(group: ohlcv.OhlcvGroup, slots: int = 60) -> TickState:
    return group.open(RunShape(slots, slots, 500_000, 0, False, 1.0, FeatureParameters(vpin_bucket_volume=5.0)))


def segment(seed: int = 1, minutes: int = 10) -> dict[DataType, Judged]:
    rng = np.random.default_rng(seed)
    stamped = START_US + np.sort(rng.integers(0, minutes * MINUTE_US, 60 * minutes))
    prices, sides = 100 + rng.integers(-30, 30, len(stamped)) / 8, rng.integers(-1, 2, len(stamped))
    received = np.maximum.accumulate(stamped + rng.integers(0, 400_000, len(stamped)))
    amounts = rng.integers(1, 50, len(stamped)) / 8
    rows = trades(prices, amounts, timestamps=stamped, local_timestamps=received, sides=sides)
    return {DataType.TRADES: Continuity(refuse_after_us=120 * S, skew_us=0, grace_us=500_000).judge(rows)}


def columns_of(state: TickState, children: list[tuple[int, int]]) -> bytes:
    """A 5 m candle rolled up from (first minute, number of minutes)."""
    parent = state.parent()
    for first, count in children:
        state.roll([parent], START_US + first * MINUTE_US, count)
    out = np.zeros(1, type(state).OUT)
    state.finish_parents(np.zeros(1, type(state).MEMORY), 5 * MINUTE_US, [parent], out)
    return out.tobytes()


def test_a_record_is_written_as_types_and_names() -> None:
    assert record("i8", "a b", "f8", "c") == np.dtype([("a", "i8"), ("b", "i8"), ("c", "f8")])


@every_group
def test_a_parent_is_the_same_in_whatever_steps_it_is_rolled_up(group: ohlcv.OhlcvGroup) -> None:
    state = opened(group)
    state.fold(segment())
    state.settle(START_US + 10 * MINUTE_US)
    whole = columns_of(state, [(0, 5)])
    assert columns_of(state, [(k, 1) for k in range(5)]) == whole
    assert columns_of(state, [(0, 2), (2, 0), (2, 3)]) == whole
    assert columns_of(state, [(5, 5)]) != whole


@every_group
def test_a_copied_parent_does_not_follow_the_original(group: ohlcv.OhlcvGroup) -> None:
    state = opened(group)
    state.fold(segment())
    parent = state.parent()
    state.roll([parent], START_US, 2)
    copied = parent.copy()
    before = copied.bin.tobytes(), [keys.tolist() for keys, _ in copied.sketches]
    state.roll([parent], START_US + 2 * MINUTE_US, 3)
    assert (copied.bin.tobytes(), [keys.tolist() for keys, _ in copied.sketches]) == before


@every_group
def test_a_bin_that_saw_nothing_or_left_the_ring_is_empty(group: ohlcv.OhlcvGroup) -> None:
    state = opened(group, slots=8)
    state.fold(segment(minutes=4))
    opens = START_US - MINUTE_US + 15 * S * np.arange(4)
    bins = state.bins(15 * S, START_US - MINUTE_US, 4)
    assert bins["t0"].tolist() == opens.tolist()
    expected = np.repeat(state.empty, 4)
    expected["t0"] = opens
    assert bins.tobytes() == expected.tobytes()
    assert state.bins(15 * S, START_US, 1).tobytes() != state.bins15[:1].tobytes(), "the ring has gone on"


@every_group
def test_bins_are_copies(group: ohlcv.OhlcvGroup) -> None:
    state = opened(group)
    state.fold(segment())
    taken = state.bins(MINUTE_US, START_US, 1)
    taken["t0"] = 7
    assert state.bins(MINUTE_US, START_US, 1)["t0"].tolist() == [START_US]


@every_group
def test_folding_in_pieces_gives_the_bits_of_folding_at_once(group: ohlcv.OhlcvGroup) -> None:
    one, other = opened(group), opened(group)
    whole = segment()[DataType.TRADES]
    one.fold({DataType.TRADES: whole})
    for start in range(0, len(whole.rows), 7):
        other.fold({DataType.TRADES: whole.slice(start, min(start + 7, len(whole.rows)))})
    for state in (one, other):
        state.fold({})
        state.settle(START_US + 10 * MINUTE_US)
    assert columns_of(one, [(0, 5)]) == columns_of(other, [(0, 5)])


@every_group
@pytest.mark.parametrize("slots", [41, 60, 500])
def test_state_goes_into_a_ring_of_any_sufficient_length(group: ohlcv.OhlcvGroup, slots: int) -> None:
    state, other = opened(group), opened(group, slots)
    state.fold(segment())
    other.load(state.state())
    for held in (state, other):
        held.settle(START_US + 10 * MINUTE_US)
    assert columns_of(other, [(5, 5)]) == columns_of(state, [(5, 5)])
    kept = opened(group, slots)
    kept.load(state.state(START_US + 5 * MINUTE_US))
    assert columns_of(kept, [(5, 5)]) == columns_of(state, [(5, 5)])
    assert columns_of(kept, [(0, 5)]) != columns_of(state, [(0, 5)]), "bins before the limit are left out"

"""Every row gets exactly one verdict; ids are remembered for today and yesterday, whatever they look like."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market_data_tick_handler.core import continuity
from market_data_tick_handler.core.continuity import (
    ACCEPTED,
    DUPLICATE,
    FOREIGN,
    INVALID,
    INVALID_OLD,
    INVALID_TIME,
    REFUSED,
    Continuity,
    StreamCounters,
    in_arrival_order,
)
from market_data_tick_handler.core.seen_ids import MAX_SCATTERED, NEVER_US
from market_data_tick_handler.core.ticks import ID_HASH, ID_INTEGER, ID_NONE, DataType, TickBatch
from market_data_tick_handler.core.timeframes import DAY_US

T = 1_704_067_200_000_000 + 3_600_000_000
S = 1_000_000


def stream(**changes: Any) -> Continuity:
    chosen = {"refuse_after_us": 120 * S, "skew_us": 60 * S, "grace_us": 500_000, **changes}
    return Continuity(**chosen)


def rows(n: int = 1, **columns: Any) -> TickBatch:
    """Valid trades without ids at T, changed as named."""
    given_columns = {"timestamp": T, "local_timestamp": T, "price": 1.0, "amount": 1.0, "side": 1, **columns}
    filled = {name: np.broadcast_to(np.asarray(value), (n,)) for name, value in given_columns.items()}
    return TickBatch.build(DataType.TRADES, filled)


def with_ids(ids: Any, kind: int = ID_INTEGER, at: int = T) -> TickBatch:
    return rows(len(ids), id=np.asarray(ids, np.int64), id_kind=kind, timestamp=at, local_timestamp=at)


def verdicts(of: Continuity, batch: TickBatch) -> list[int]:
    out: list[int] = of.judge(batch).code.tolist()
    return out


# Verdicts


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, ACCEPTED),
        ({"price": np.nan}, INVALID),
        ({"price": np.inf}, INVALID),
        ({"price": 0.0}, INVALID),
        ({"price": -1.0}, INVALID),
        ({"amount": np.nan}, INVALID),
        ({"amount": np.inf}, INVALID),
        ({"amount": 0.0}, INVALID),
        ({"amount": -0.0}, INVALID),
        ({"amount": 1e-30}, ACCEPTED),
        ({"amount": 5e-324}, INVALID),
        ({"price": 1e31}, INVALID),
        ({"timestamp": 0}, INVALID_TIME),
        ({"timestamp": -T}, INVALID_TIME),
        ({"timestamp": T * 1_000}, INVALID_TIME),
        ({"timestamp": T // 1_000}, INVALID_TIME),
        ({"timestamp": T + 60 * S}, ACCEPTED),
        ({"timestamp": T + 60 * S + 1}, INVALID_TIME),
        ({"timestamp": T - 120 * S}, ACCEPTED),
        ({"timestamp": T - 120 * S - 1}, REFUSED),
        ({"timestamp": T - 120 * S - 1, "price": np.nan}, INVALID_OLD),
        ({"timestamp": 0, "price": np.nan}, INVALID_TIME),
    ],
)
def test_verdict(changes: dict[str, Any], verdict: int) -> None:
    assert verdicts(stream(), rows(**changes)) == [verdict]


def test_rows_of_another_day_are_set_apart_but_advance_sequence_state() -> None:
    of = stream(floor_us=T, refuse_after_us=NEVER_US)
    judged = of.judge(rows(3, timestamp=[T - 1, T - 1, T], price=[5.0, np.nan, 6.0], side=0))
    assert judged.code.tolist() == [FOREIGN, INVALID_OLD, ACCEPTED]
    assert judged.sign.tolist() == [0, 0, 1]
    assert judged.earliest_accepted() == T


def test_the_tick_rule_carries_the_last_change_over_equal_prices_and_over_rows_that_do_not_count() -> None:
    prices = [10.0, 10.0, 11.0, 11.0, 9.0, -1.0, 9.0, 9.5]
    judged = stream().judge(rows(8, price=prices, side=[0, 0, 0, -1, 0, 0, 0, 0]))
    assert judged.sign.tolist() == [0, 0, 1, -1, -1, 0, -1, 1]


def test_a_duplicate_moves_neither_the_tick_rule_nor_a_second_count() -> None:
    of = stream()
    batch = rows(3, id=[1, 1, 2], id_kind=ID_INTEGER, price=[10.0, 99.0, 9.0], side=0)
    judged = of.judge(batch)
    assert judged.code.tolist() == [ACCEPTED, DUPLICATE, ACCEPTED]
    assert judged.sign.tolist() == [0, 0, -1]


def test_an_invalid_row_does_not_use_up_its_id() -> None:
    batch = rows(2, id=[7, 7], id_kind=ID_INTEGER, price=[np.nan, 1.0])
    assert verdicts(stream(), batch) == [INVALID, ACCEPTED]


def test_rows_without_id_are_never_duplicates() -> None:
    assert verdicts(stream(), rows(3, id=[5, 5, 5], id_kind=ID_NONE)) == [ACCEPTED] * 3


def test_late_counts_rows_that_came_after_their_15_s_candle_was_due() -> None:
    of = stream()
    end = T + 15 * S + 500_000
    of.judge(rows(3, timestamp=T, local_timestamp=[end - 1, end, end + 1]))
    assert of.counts["late"][0] == 2


def test_earliest_changed_looks_at_rows_that_enter_a_candle_of_their_own_time() -> None:
    judged = stream().judge(rows(4, timestamp=[T, T - 5, T - 9, T - 200 * S], price=[1.0, 1.0, np.nan, 1.0]))
    assert judged.earliest_changed() == T - 9
    assert judged.earliest_accepted() == T - 5
    assert stream().judge(rows(timestamp=0)).earliest_changed() == NEVER_US


# Order of arrival


def test_ordered_rows_are_passed_through_as_they_are() -> None:
    batch = rows(3, local_timestamp=[T, T, T + 1])
    same, moved = in_arrival_order(batch, T)
    assert same is batch and moved == 0


def test_rows_behind_the_clock_or_in_no_plausible_time_are_moved_to_it() -> None:
    batch = rows(5, local_timestamp=[T - 1, T + 5, T + 3, T * 1_000, T + 9])
    ordered, moved = in_arrival_order(batch, T)
    assert (ordered["local_timestamp"] - T).tolist() == [0, 5, 5, 5, 9]
    assert moved == 3


# Ids


SHAPES = {
    "dense": lambda n: np.arange(n) + 1_000,
    "sparse": lambda n: np.arange(n) * 7 + 1_000,
    "descending": lambda n: 10_000_000 - np.arange(n),
    "negative": lambda n: np.arange(n) - n // 2,
    "pairs swapped": lambda n: np.arange(n).reshape(-1, 2)[:, ::-1].ravel(),
    "random": lambda n: np.random.default_rng(1).permutation(1_000_000)[:n],
    "extremes": lambda n: np.random.default_rng(2).permutation(np.linspace(-(2**63), 2**63 - 1025, n).astype(np.int64)),
}


@pytest.mark.parametrize("chunk", [1, 37, 4_000])
@pytest.mark.parametrize("kind", [ID_INTEGER, ID_HASH])
@pytest.mark.parametrize("shape", SHAPES)
def test_an_id_is_accepted_once(shape: str, kind: int, chunk: int) -> None:
    ids = SHAPES[shape](2_000 if chunk > 1 else 200)
    of = stream()
    for _ in range(2):
        for start in range(0, len(ids), chunk):
            of.judge(with_ids(ids[start : start + chunk], kind))
    assert of.counts["accepted"][0] == len(ids)
    assert of.counts["duplicate"][0] == len(ids)


@pytest.mark.parametrize("room", [0, 1, 10, 150])
def test_integers_in_no_order_move_to_the_hash_table_when_the_intervals_are_frozen(room: int) -> None:
    """Also in the middle of a batch, for which the table must have room before."""
    ids = SHAPES["random"](3_000)
    of = stream()
    of.judge(with_ids([-5, 2_000_000]))
    of.state["scattered"] = MAX_SCATTERED - room
    for _ in range(2):
        for start in range(0, len(ids), 500):
            of.judge(with_ids(ids[start : start + 500]))
    assert of.counts["accepted"][0] == len(ids) + 2
    assert of.counts["duplicate"][0] == len(ids)
    assert of.state["hashes"][0] > 0
    assert verdicts(of, with_ids([-5, 2_000_000, 2_000_001, 2_000_001])) == [DUPLICATE, DUPLICATE, ACCEPTED, DUPLICATE]


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("kind", [ID_INTEGER, ID_HASH])
def test_ids_of_yesterday_are_known_and_those_of_the_day_before_are_not(kind: int, frozen: bool) -> None:
    of = stream()
    of.judge(with_ids([0]))
    if frozen:
        of.state["scattered"] = MAX_SCATTERED
    days = [[10, 20, 500], [30, 600], [700]]
    for day, ids in enumerate(days):
        assert verdicts(of, with_ids(ids, kind, T + day * DAY_US)) == [ACCEPTED] * len(ids)
    at = T + 2 * DAY_US
    assert verdicts(of, with_ids([30, 600, 700], kind, at)) == [DUPLICATE] * 3
    # What is older may be remembered, but need not be; it is gone for good a few days later.
    assert verdicts(of, with_ids([10, 20], kind, at + 3 * DAY_US)) == [ACCEPTED] * 2


def test_midnight_inside_a_batch_rotates_between_its_rows() -> None:
    midnight = T - 3_600 * S + DAY_US
    of = stream()
    batch = rows(4, id=[1, 2, 2, 3], id_kind=ID_HASH, local_timestamp=midnight + np.array([-2, -1, 0, 1]),
                 timestamp=midnight)  # fmt: skip
    assert verdicts(of, batch) == [ACCEPTED, ACCEPTED, DUPLICATE, ACCEPTED]
    assert of.ids.day == midnight // DAY_US


def test_memory_of_a_dense_stream_does_not_grow_with_it() -> None:
    of = stream()
    for start in range(0, 100_000, 100):
        of.judge(with_ids(np.arange(start, start + 100)))
    assert of.state["intervals"][0] == 1
    assert len(of.ids.lows) < 1_000 and len(of.ids.table) == 64


@settings(max_examples=25)
@given(st.data())
def test_ids_are_remembered_like_a_set_across_export_and_load(data: st.DataObject) -> None:
    of = stream()
    seen: set[tuple[int, int]] = set()
    number = st.integers(-20, 20) | st.integers(-(2**63), 2**63 - 1)
    if data.draw(st.booleans()):
        of.judge(with_ids([-(2**60), 2**60]))
        seen |= {(ID_INTEGER, -(2**60)), (ID_INTEGER, 2**60)}
        of.state["scattered"] = MAX_SCATTERED - data.draw(st.integers(0, 20))
    for kind, ids in data.draw(
        st.lists(st.tuples(st.sampled_from([ID_INTEGER, ID_HASH]), st.lists(number)), max_size=8)
    ):
        if kind == ID_HASH:
            ids = [value ^ 0x5555 for value in ids]
        expected = []
        for value in ids:
            expected.append(DUPLICATE if (kind, value) in seen else ACCEPTED)
            seen.add((kind, value))
        if expected and not any((3 - kind, value) in seen for value in ids):
            assert verdicts(of, with_ids(ids, kind)) == expected
        else:
            of.judge(with_ids(ids, kind))
        other = stream()
        other.state = of.state.copy()
        other.ids.load(other.state, of.ids.export(of.state))
        of = other


def test_yesterdays_ids_survive_export_and_load() -> None:
    of = stream()
    of.judge(with_ids(np.arange(100) * 3, ID_HASH))
    of.judge(with_ids(np.arange(100) * 3 + 1, ID_HASH, T + DAY_US))
    other = stream()
    other.state = of.state.copy()
    other.ids.load(other.state, of.ids.export(of.state))
    again = with_ids(np.concatenate([np.arange(100) * 3, np.arange(100) * 3 + 1, [2]]), ID_HASH, T + DAY_US)
    assert Counter(verdicts(other, again)) == {DUPLICATE: 200, ACCEPTED: 1}


def test_counters_balance_only_while_every_row_has_one_outcome() -> None:
    counters = StreamCounters(received=15, accepted=1, duplicate=2, invalid=3, refused=4, filtered=5)
    assert counters.balanced()
    counters.received += 1
    assert not counters.balanced()


def test_codes_are_in_the_order_the_folds_rely_on() -> None:
    advancing = [code for code in (ACCEPTED, REFUSED, FOREIGN, DUPLICATE, INVALID) if code <= continuity.FOREIGN]
    assert advancing == [ACCEPTED, REFUSED, FOREIGN]

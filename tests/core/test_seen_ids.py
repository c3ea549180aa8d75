"""Marks and logs of ids: whatever state is restored, it judges as the stream that went on did from there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market_data_tick_handler.core.continuity import Continuity
from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.instruments import parse_instrument_key
from market_data_tick_handler.core.options import PipelineOptions
from market_data_tick_handler.core.pipeline import Pipeline
from market_data_tick_handler.core.seen_ids import MAX_SCATTERED, log_end
from market_data_tick_handler.core.ticks import ID_HASH, ID_INTEGER, Array, DataType, TickBatch
from market_data_tick_handler.core.timeframes import DAY_US
from market_data_tick_handler.errors import CorruptObject

T = 1_704_067_200_000_000
S = 1_000_000
Logs = dict[int, list[int]]


def stream() -> Continuity:
    return Continuity(refuse_after_us=120 * S, skew_us=60 * S, grace_us=500_000)


def batch(ids: list[int], kinds: list[int], at_us: int) -> TickBatch:
    n = len(ids)
    filled = {"timestamp": [at_us] * n, "local_timestamp": [at_us] * n, "price": [1.0] * n, "amount": [1.0] * n}
    return TickBatch.build(DataType.TRADES, {**filled, "id": np.array(ids, np.int64), "id_kind": kinds})


def add(logs: Logs, of: Continuity, since: tuple[int, int]) -> tuple[int, int]:
    """Append to the logs what came since, as a store does; where the next part begins."""
    for day, start, keys in of.ids.log_since(of.state, *since):
        known = logs.setdefault(day, [])
        assert start <= len(known)
        known[start:] = keys.tolist()
    return log_end(of.ids.mark(of.state))


def keys(logs: Logs, day: int) -> Array:
    return np.array(logs.get(day, []), np.uint64)


def restored(of_state: Array, mark: dict[str, Any], logs: Logs) -> Continuity:
    other = stream()
    other.state = of_state.copy()
    other.ids.restore(other.state, mark, keys(logs, mark["day"]), keys(logs, mark["day"] - 1))
    return other


IDS = st.lists(st.tuples(st.integers(-8, 8) | st.integers(-(2**63), 2**63 - 1), st.sampled_from([ID_INTEGER, ID_HASH])))
TURNS = st.lists(st.tuples(st.integers(0, 40), IDS), min_size=1, max_size=12)


@settings(max_examples=60)
@given(turns=TURNS, frozen=st.integers(0, 12) | st.none(), data=st.data())
def test_any_older_mark_with_logs_that_went_on_judges_as_the_stream_did(
    turns: list[tuple[int, list[tuple[int, int]]]], frozen: int | None, data: st.DataObject
) -> None:
    of, logs, since, now = stream(), {}, (-1, 0), T
    if frozen is not None:
        of.judge(batch([-(2**62), 2**62], [ID_INTEGER] * 2, now))
        of.state["scattered"] = MAX_SCATTERED - frozen
    states, verdicts, batches = [], [], []
    for hours, rows in turns:
        now += hours * 3_600 * S
        since = add(logs, of, since)
        states.append((of.state.copy(), of.ids.mark(of.state)))
        batches.append(batch([value for value, _ in rows], [kind for _, kind in rows], now))
        verdicts.append(of.judge(batches[-1]).code.tolist())
        if data.draw(st.booleans()):
            # Not every turn ends with a checkpoint.
            since = add(logs, of, since)
    add(logs, of, since)
    for index in range(len(turns)):
        other = restored(*states[index], logs)
        assert [other.judge(rows).code.tolist() for rows in batches[index:]] == verdicts[index:]


def test_only_new_keys_are_logged_and_midnight_ends_a_log() -> None:
    of = stream()
    of.judge(batch([1, 2, 3], [ID_HASH] * 3, T))
    day = T // DAY_US
    first = log_end(of.ids.mark(of.state))
    assert first == (day, 3)
    of.judge(batch([3, 4], [ID_HASH] * 2, T))
    of.judge(batch([5, 4], [ID_HASH] * 2, T + DAY_US))
    yesterday, today = of.ids.log_since(of.state, *first)
    assert (yesterday.day, yesterday.start, len(yesterday.keys)) == (day, 3, 1)
    assert (today.day, today.start, len(today.keys)) == (day + 1, 0, 1)
    assert [len(part.keys) for part in of.ids.log_since(of.state, day - 7, 99)] == [4, 1]


def test_a_log_given_out_stays_as_it_is_while_the_stream_goes_on() -> None:
    of = stream()
    of.judge(batch([1, 2], [ID_HASH] * 2, T))
    (part,) = of.ids.log_since(of.state, -1, 0)
    before = part.keys.copy()
    for day in range(4):
        of.judge(batch(list(range(100 * day, 100 * day + 90)), [ID_HASH] * 90, T + day * DAY_US))
    assert part.keys.tolist() == before.tolist()


def test_integers_are_in_the_mark_and_cost_no_log() -> None:
    of = stream()
    of.judge(batch(list(range(1_000)), [ID_INTEGER] * 1_000, T))
    mark = of.ids.mark(of.state)
    assert (mark["lows"].tolist(), mark["highs"].tolist(), log_end(mark)[1]) == ([0], [999], 0)


def test_a_log_that_is_too_short_is_refused() -> None:
    of = stream()
    of.judge(batch([1, 2], [ID_HASH] * 2, T))
    mark = of.ids.mark(of.state)
    with pytest.raises(CorruptObject, match="expected logs of 2 keys"):
        of.ids.restore(of.state, mark, np.zeros(1, np.uint64), np.zeros(0, np.uint64))


def test_a_checkpoint_without_the_length_of_yesterdays_log_takes_all_of_it() -> None:
    of = stream()
    of.judge(batch([1, 2], [ID_HASH] * 2, T))
    of.judge(batch([3], [ID_HASH], T + DAY_US))
    content = of.ids.export(of.state)
    del content["previous_count"]
    other = stream()
    other.state = of.state.copy()
    other.ids.load(other.state, content)
    again = batch([1, 2, 3, 4], [ID_HASH] * 4, T + DAY_US)
    assert other.judge(again).code.tolist() == of.judge(again).code.tolist()


def test_a_pipeline_restored_from_mark_and_logs_is_the_one_restored_from_its_ids() -> None:
    spot = parse_instrument_key("BINANCE:SPOT_PAIR:BTC-USDT")
    pipeline = Pipeline(spot, PipelineOptions())
    logs: dict[DataType, Logs] = {}

    def log(since: dict[DataType, tuple[int, int]]) -> None:
        for data_type, parts in pipeline.ids_log(since).items():
            for day, start, part in parts:
                logs.setdefault(data_type, {}).setdefault(day, [])[start:] = part.tolist()

    at = T + DAY_US - 60 * S
    pipeline.feed(Rows(spot.key, batch([7, 8, 9], [ID_HASH] * 3, at)))
    log({})
    since = {DataType.TRADES: (at // DAY_US, 3)}
    pipeline.feed(Rows(spot.key, batch([10, 11], [ID_HASH] * 2, at + 120 * S)))
    log(since)
    state, ids, mark = pipeline.snapshot(), pipeline.ids_snapshot(), pipeline.ids_mark()
    pipeline.feed(Rows(spot.key, batch([12], [ID_HASH], at + 121 * S)))
    log({})
    day = (at + 120 * S) // DAY_US
    by_type = {data_type: (keys(held, day), keys(held, day - 1)) for data_type, held in logs.items()}
    whole, marked = (Pipeline(spot, PipelineOptions()) for _ in range(2))
    for other in (whole, marked):
        other.restore(state)
    whole.restore_ids(ids)
    marked.restore_ids(mark, by_type)
    assert marked.ids_snapshot() == whole.ids_snapshot() == ids
    for other in (whole, marked):
        other.feed(Rows(spot.key, batch([7, 11, 12, 12], [ID_HASH] * 4, at + 122 * S)))
        assert (other.trades().duplicate, other.trades().accepted) == (3, 6)

"""States come back whole with the ids they had, the newest that can be read first; old ones thin out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market_data_tick_handler.core.continuity import Continuity
from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.instruments import parse_instrument_key
from market_data_tick_handler.core.pipeline import Pipeline
from market_data_tick_handler.core.seen_ids import LoggedIds, log_end
from market_data_tick_handler.core.snapshot import pack
from market_data_tick_handler.core.ticks import ID_HASH, DataType, TickBatch
from market_data_tick_handler.core.timeframes import DAY_US
from market_data_tick_handler.errors import OutOfRange
from market_data_tick_handler.storage.recovery.segment_files import Position
from market_data_tick_handler.storage.recovery.state_store import State, StateStore
from tests.parity.streams import NOON_US, SPOT, options

KEY = SPOT.key
MINUTE = 60_000_000
T = 1_704_067_200_000_000


def state(clock_us: int, content: bytes = b"") -> State:
    return State(clock_us=clock_us, snapshot=content or str(clock_us).encode(), position=Position(1, clock_us % 1_000))


def saved(store: StateStore, *clocks: int) -> None:
    for clock in clocks:
        store.save(state(clock))


def clock_of(found: State | None) -> int | None:
    return None if found is None else found.clock_us


def hashed(ids: list[int], at_us: int) -> TickBatch:
    n = len(ids)
    filled = {"timestamp": [at_us] * n, "local_timestamp": [at_us] * n, "price": [1.0] * n, "amount": [1.0] * n}
    return TickBatch.build(DataType.TRADES, {**filled, "id": np.array(ids, np.int64), "id_kind": [ID_HASH] * n})


# What was saved comes back


def test_a_state_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    given = State(
        clock_us=T,
        snapshot=bytes(range(256)) * 1_000,
        position=Position(7, 123_456),
        extra={"gaps": [1, "two", None], "open": {"x": 1.5}},
    )
    StateStore(tmp_path, KEY).save(given)
    found = StateStore(tmp_path, KEY).newest()
    assert found == given and found is not None and isinstance(found.position, Position)
    (path,) = tmp_path.glob("*.state")
    assert path.stat().st_size < len(given.snapshot) / 10


def test_the_newest_state_at_or_before_a_time_is_found(tmp_path: Path) -> None:
    store = StateStore(tmp_path, KEY)
    assert store.newest() is None
    saved(store, 10, 30, 20)
    assert [clock_of(store.newest(before)) for before in (None, 35, 30, 29, 10, 9)] == [30, 30, 30, 20, 10, None]


def test_a_state_of_the_same_clock_is_replaced(tmp_path: Path) -> None:
    store = StateStore(tmp_path, KEY)
    store.save(state(10, b"one"))
    store.save(state(10, b"two"))
    found = store.newest()
    assert found is not None and found.snapshot == b"two" and store.clocks() == [10]


def test_a_file_cut_or_changed_anywhere_is_passed_over_and_told(tmp_path: Path) -> None:
    store = StateStore(tmp_path, KEY)
    saved(store, 10, 20)
    path = max(tmp_path.glob("*.state"))
    whole = path.read_bytes()
    spoiled = [whole[:size] for size in range(len(whole))]
    spoiled += [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(len(whole))]
    for content in spoiled:
        path.write_bytes(content)
        fresh = StateStore(tmp_path, KEY)
        assert clock_of(fresh.newest()) == 10
        assert fresh.newest() is not None and [finding.path for finding in fresh.findings] == [path]


def test_a_state_of_another_instrument_is_passed_over(tmp_path: Path) -> None:
    saved(StateStore(tmp_path, "BINANCE:SPOT_PAIR:ETH-USDT"), 10)
    store = StateStore(tmp_path, KEY)
    assert store.newest() is None and KEY in str(store.findings[0])


def test_what_a_dying_process_left_half_written_is_no_state_and_goes_away(tmp_path: Path) -> None:
    left = tmp_path / ".state-00000000000000000099.state.4711.tmp"
    left.write_bytes(b"half")
    store = StateStore(tmp_path, KEY)
    assert store.newest() is None and store.clocks() == [] and not left.exists()


# Which states are kept


def test_thinning_keeps_the_last_three_one_a_minute_and_one_a_quarter(tmp_path: Path) -> None:
    now = T + DAY_US
    store = StateStore(tmp_path, KEY)
    last = [now - 5, now - 3, now - 1]
    minutes = [now - k * MINUTE for k in range(1, 16)]
    quarters = [now - k * 15 * MINUTE for k in range(2, 97)]
    unwanted = [now - MINUTE + 7, now - 10 * MINUTE + 1, now - 40 * MINUTE, T - 1, T - DAY_US]
    saved(store, *last, *minutes, *quarters, *unwanted)
    store.thin(now)
    assert store.clocks() == sorted({*last, *minutes, *quarters})
    store.thin(now)
    assert len(store.clocks()) == len({*last, *minutes, *quarters})


def test_the_last_states_are_kept_however_old_they_are(tmp_path: Path) -> None:
    store = StateStore(tmp_path, KEY)
    saved(store, T, T + 1, T + 2, T + 3)
    store.thin(T + 10 * DAY_US)
    assert store.clocks() == [T + 1, T + 2, T + 3]


@settings(max_examples=30)
@given(steps=st.lists(st.integers(1, 20 * MINUTE), min_size=1, max_size=80))
def test_thinning_again_and_again_leaves_a_state_near_every_time_of_the_window(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int]
) -> None:
    store = StateStore(tmp_path_factory.mktemp("thin"), KEY, window_us=4 * 60 * MINUTE)
    clocks, now = [], T
    for step in steps:
        now += step
        clocks.append(now)
        saved(store, now)
        store.thin(now)
    kept = store.clocks()
    for clock in clocks:
        if now - clock > 4 * 60 * MINUTE:
            continue
        # A gap that begins at any saved state has one to begin from, at most a quarter before it.
        grain = MINUTE if now - clock <= 15 * MINUTE else 15 * MINUTE
        near = [other for other in kept if other <= clock and other // grain == clock // grain]
        edge = clock // (15 * MINUTE) * 15 * MINUTE < now - 4 * 60 * MINUTE or now - clock > 15 * MINUTE - MINUTE
        assert near or edge
    assert len(kept) <= 3 + 16 + 17


def test_states_after_a_time_are_discarded(tmp_path: Path) -> None:
    store = StateStore(tmp_path, KEY)
    saved(store, 10, 20, 30)
    store.discard_after(20)
    assert store.clocks() == [10, 20]


# Ids


def test_only_new_keys_are_written_with_each_state(tmp_path: Path) -> None:
    pipeline, store = Pipeline(SPOT, options()), StateStore(tmp_path, KEY)
    since: dict[DataType, tuple[int, int]] = {}
    sizes = []
    for turn in range(5):
        ids = list(range(1_000 * turn, 1_000 * turn + 1_000))
        pipeline.feed(Rows(KEY, hashed(ids, NOON_US + turn)))
        one = State(
            clock_us=pipeline.clock_us,
            snapshot=b"small",
            position=Position(1, 0),
            ids=pipeline.ids_mark(),
        )
        store.save(one, pipeline.ids_log(since))
        since = one.logged
        sizes.append(sum(path.stat().st_size for path in tmp_path.glob("ids-*")))
    assert len(set(np.diff(sizes).tolist())) == 1 and sizes[-1] < 5 * 8_100
    assert max(path.stat().st_size for path in tmp_path.glob("*.state")) < 3_000


@settings(max_examples=40)
@given(data=st.data())
def test_ids_go_on_from_any_state_as_they_did_whatever_was_saved_later(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("ids")
    store, of, since, now = StateStore(directory, KEY), stream(), (-1, 0), T
    known: dict[int, bytes] = {}
    for _ in range(data.draw(st.integers(1, 10))):
        action = data.draw(st.sampled_from(["go on", "go on", "set back", "reopen", "all keys"]))
        if action == "set back" and known:
            now = data.draw(st.sampled_from(sorted(known)))
            store.discard_after(now)
            known = {at: ids for at, ids in known.items() if at <= now}
            of, since = restored(store, now)
        elif action == "reopen":
            store = StateStore(directory, KEY)
        now += data.draw(st.sampled_from([1, 3_600, 30_000, 200_000])) * 1_000_000
        of.judge(hashed(data.draw(st.lists(st.integers(0, 60), min_size=1, max_size=30)), now))
        first = (-1, 0) if action == "all keys" else since
        store.save(logged_state(of, now), {DataType.TRADES: of.ids.log_since(of.state, *first)})
        since, known[now] = log_end(of.ids.mark(of.state)), pack(of.ids.export(of.state))
    fresh = StateStore(directory, KEY)
    for clock, ids_then in known.items():
        other, _ = restored(fresh, clock)
        assert pack(other.ids.export(other.state)) == ids_then
    assert fresh.findings == []


def stream() -> Continuity:
    return Continuity(refuse_after_us=1, skew_us=1, grace_us=1)


def restored(store: StateStore, clock_us: int) -> tuple[Continuity, tuple[int, int]]:
    """The stream of the state of this clock, and where its log goes on."""
    found = store.newest(clock_us)
    assert found is not None and found.clock_us == clock_us
    of = stream()
    of.ids.restore(of.state, found.id_marks[DataType.TRADES], *found.id_keys[DataType.TRADES])
    return of, found.logged[DataType.TRADES]


def logged_state(of: Continuity, clock_us: int) -> State:
    mark = of.ids.mark(of.state)
    return State(clock_us=clock_us, snapshot=b"s", position=Position(1, 0), ids=pack({"trades": mark}))


def test_keys_that_do_not_follow_what_is_stored_are_refused(tmp_path: Path) -> None:
    of, store = stream(), StateStore(tmp_path, KEY)
    of.judge(hashed([1, 2, 3], T))
    one = logged_state(of, T)
    (part,) = of.ids.log_since(of.state, -1, 0)
    with pytest.raises(OutOfRange, match=r"from number 0 on, got them from 1 on.*ids_log\(\{\}\)"):
        store.save(one, {DataType.TRADES: [LoggedIds(part.day, 1, part.keys[1:])]})
    with pytest.raises(OutOfRange, match="the state has 3 keys of trades ids"):
        store.save(one, {DataType.TRADES: [LoggedIds(part.day, 0, part.keys[:2])]})
    assert store.newest() is None
    store.save(one, {DataType.TRADES: [part]})
    assert store.newest() is not None


def test_a_torn_id_log_costs_the_states_that_need_it_and_no_other(tmp_path: Path) -> None:
    of, store = stream(), StateStore(tmp_path, KEY)
    since, ends = (-1, 0), []
    for turn in range(3):
        of.judge(hashed([3 * turn, 3 * turn + 1, 3 * turn + 2], T))
        one = logged_state(of, T + turn)
        store.save(one, {DataType.TRADES: of.ids.log_since(of.state, *since)})
        since = log_end(of.ids.mark(of.state))
        (path,) = tmp_path.glob("ids-*.log")
        ends.append(path.stat().st_size)
    whole = path.read_bytes()
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        fresh = StateStore(tmp_path, KEY)
        found = fresh.newest()
        assert clock_of(found) == max((T + k for k in range(3) if ends[k] <= size), default=None)
    # The log goes on from the state that was restored.
    path.write_bytes(whole[: ends[1] + 5])
    fresh = StateStore(tmp_path, KEY)
    found = fresh.newest()
    assert found is not None
    of.ids.restore(of.state, found.id_marks[DataType.TRADES], *found.id_keys[DataType.TRADES])
    of.judge(hashed([50, 51], T))
    later = logged_state(of, T + 9)
    fresh.save(later, {DataType.TRADES: of.ids.log_since(of.state, *found.logged[DataType.TRADES])})
    again = StateStore(tmp_path, KEY).newest()
    assert again is not None and again.clock_us == T + 9 and len(again.id_keys[DataType.TRADES][0]) == 8


def test_id_logs_go_with_the_states_that_need_them(tmp_path: Path) -> None:
    of, store = stream(), StateStore(tmp_path, KEY)
    since = (-1, 0)
    for day in range(5):
        of.judge(hashed([10 * day, 10 * day + 1], T + day * DAY_US))
        store.save(logged_state(of, T + day * DAY_US), {DataType.TRADES: of.ids.log_since(of.state, *since)})
        since = log_end(of.ids.mark(of.state))
    store.thin(T + 4 * DAY_US)
    assert len(list(tmp_path.glob("ids-*.log"))) == 4
    # A quiet stream: states go on, its ids are of long ago.
    for day in range(5, 9):
        store.save(logged_state(of, T + day * DAY_US), {DataType.TRADES: of.ids.log_since(of.state, *since)})
    fresh = StateStore(tmp_path, KEY)
    fresh.thin(T + 8 * DAY_US)
    assert fresh.clocks() == [T + day * DAY_US for day in (6, 7, 8)]
    assert len(list(tmp_path.glob("ids-*.log"))) == 2
    found = fresh.newest()
    assert found is not None and [len(keys) for keys in found.id_keys[DataType.TRADES]] == [2, 2]


def test_an_instrument_of_another_kind_has_ids_of_its_own(tmp_path: Path) -> None:
    perpetual = parse_instrument_key("BINANCE-FUTURES:PERPETUAL:BTC-USDT")
    pipeline, store = Pipeline(perpetual, options()), StateStore(tmp_path, perpetual.key)
    batch = hashed([1, 2, 3], NOON_US)
    pipeline.feed([Rows(perpetual.key, batch), Rows(perpetual.key, TickBatch(DataType.LIQUIDATIONS, batch.columns))])
    one = State(clock_us=1, snapshot=pipeline.snapshot(), position=Position(1, 0), ids=pipeline.ids_mark())
    store.save(one, pipeline.ids_log({}))
    found = store.newest()
    assert found is not None
    assert {key: len(keys[0]) for key, keys in found.id_keys.items()} == {DataType.TRADES: 3, DataType.LIQUIDATIONS: 3}
    told = json.loads((tmp_path / "state-00000000000000000001.state").read_bytes()[20:].split(b"}}", 1)[0] + b"}}")
    assert set(told["ids"]) == {"trades", "liquidations"}

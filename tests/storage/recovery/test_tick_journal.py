"""The tick journal gives back what was fed, in order; fetched rows stand where they belong; each row is there once."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market_data_tick_handler.core.events import Disconnect, Gap, GapEnding, GapKind, Heartbeat
from market_data_tick_handler.core.seen_ids import NEVER_US
from market_data_tick_handler.core.ticks import LAYOUTS, RANK, TEXT_COLUMNS, DataType, TickBatch, concat
from market_data_tick_handler.core.timeframes import DAY_US
from market_data_tick_handler.core.watermark import Watermark
from market_data_tick_handler.errors import CorruptObject, NotFound, SchemaMismatch
from market_data_tick_handler.storage.recovery import merged_turns, tick_journal
from market_data_tick_handler.storage.recovery.merged_turns import JournalTurn
from market_data_tick_handler.storage.recovery.tick_journal import TickJournal
from market_data_tick_handler.storage.recovery.tick_records import Note, OutageOpened, Remark

KEY = "BINANCE:SPOT_PAIR:BTC-USDT"
MIDNIGHT_US = 1_704_067_200_000_000
DAY = datetime.fromtimestamp(MIDNIGHT_US // 1_000_000, UTC).date()
TYPES = (DataType.TRADES, DataType.BOOK, DataType.DERIVATIVE)
# A column of each layout that the tests number their rows in.
TAG = {DataType.TRADES: "price", DataType.BOOK: "ask_price_1", DataType.DERIVATIVE: "mark_price"}


def rows(data_type: DataType, times: Sequence[int], first_tag: int = 0) -> TickBatch:
    tags = first_tag + np.arange(len(times), dtype=float)
    return TickBatch.build(data_type, {"timestamp": times, "local_timestamp": times, TAG[data_type]: tags})


def trades(*times: int, tag: int = 0) -> TickBatch:
    return rows(DataType.TRADES, times, tag)


def told(batches: Iterable[TickBatch]) -> dict[DataType, list[tuple[int, int]]]:
    """(local_timestamp, tag) of every row, per data type."""
    out: dict[DataType, list[tuple[int, int]]] = {}
    for batch in batches:
        tags = batch[TAG[batch.data_type]].astype(int).tolist()
        out.setdefault(batch.data_type, []).extend(zip(batch["local_timestamp"].tolist(), tags, strict=True))
    return out


def of_turns(turns: Iterable[JournalTurn]) -> dict[DataType, list[tuple[int, int]]]:
    return told(batch for turn in turns for batch in turn.batches)


def assert_same(one: TickBatch, other: TickBatch) -> None:
    assert one.data_type is other.data_type and one.columns.keys() == other.columns.keys()
    for name, column in one.columns.items():
        found = other[name]
        assert found.dtype == column.dtype and found.flags.writeable and found.flags.aligned
        assert found.tolist() == column.tolist() if column.dtype == object else found.tobytes() == column.tobytes()


def random_batch(data_type: DataType, count: int, seed: int, texts: list[str] | None) -> TickBatch:
    rng = np.random.default_rng(seed)
    columns: dict[str, Any] = {}
    for field in LAYOUTS[data_type]:
        # Any bits: NaN with a payload, infinities and negative zeros must come back too.
        width = np.dtype(field.dtype).itemsize
        columns[field.name] = rng.integers(0, 256, count * width).astype(np.uint8).view(field.dtype)
    columns["local_timestamp"] = MIDNIGHT_US + np.arange(count)
    if texts is not None and data_type in TEXT_COLUMNS:
        columns[TEXT_COLUMNS[data_type]] = np.array([texts[i % len(texts)] for i in range(count)], object)
    return TickBatch(data_type, columns)


# What was fed comes back


@settings(max_examples=60)
@given(
    turns=st.lists(
        st.lists(
            st.tuples(
                st.sampled_from(DataType),
                st.integers(1, 30),
                st.none() | st.lists(st.text(max_size=8) | st.just("\ud800\n\x00"), min_size=1, max_size=4),
            ),
            max_size=4,
        ),
        max_size=5,
    )
)
def test_every_bit_of_every_column_comes_back(
    tmp_path_factory: pytest.TempPathFactory, turns: list[list[tuple[DataType, int, list[str] | None]]]
) -> None:
    directory = tmp_path_factory.mktemp("bits")
    made = [[random_batch(*one[:2], index, one[2]) for one in turn] for index, turn in enumerate(turns)]
    journal = TickJournal(directory, KEY)
    for index, batches in enumerate(made):
        journal.append(batches, (), MIDNIGHT_US + 1_000 * (index + 1))
    expected = [(MIDNIGHT_US + 1_000 * (index + 1), batches) for index, batches in enumerate(made) if batches]
    for _ in range(2):
        found = list(journal.read())
        assert [turn.clock_us for turn in found] == [clock for clock, _ in expected]
        for turn, (_, batches) in zip(found, expected, strict=True):
            for one, other in zip(batches, turn.batches, strict=True):
                assert_same(one, other)
        journal.close()
        journal = TickJournal(directory, KEY)
    journal.close()


def test_views_of_columns_are_stored_by_their_values(tmp_path: Path) -> None:
    journal = TickJournal(tmp_path, KEY)
    every_other = trades(*range(10)).take(slice(None, None, 2))  # type: ignore[arg-type]
    assert not every_other["price"].flags.c_contiguous
    journal.append([every_other], (), 9)
    assert of_turns(journal.read()) == {DataType.TRADES: [(0, 0), (2, 2), (4, 4), (6, 6), (8, 8)]}
    journal.close()


def test_notes_come_back_as_what_they_were(tmp_path: Path) -> None:
    gap = Gap(KEY, DataType.TRADES, 5, 9, "socket closed", GapKind.NOT_RUNNING, ending=GapEnding.REPAIRED)
    notes: list[Note] = [
        gap,
        OutageOpened(17),
        Disconnect(KEY, 20, 19, "reset", 3),
        Heartbeat(KEY, 21),
        Remark("anything", {"depth": [1, 2.5, None, "ü"]}),
    ]
    journal = TickJournal(tmp_path, KEY)
    journal.append((), notes, 30)
    journal.append([trades(31)], [gap], 31)
    first, second = journal.read()
    assert list(first.notes) == notes and first.batches == () and first.clock_us == 30
    assert second.notes == (gap,) and isinstance(second.notes[0], Gap)
    assert second.notes[0].ending is GapEnding.REPAIRED and second.notes[0].data_type is DataType.TRADES
    journal.close()


def test_a_turn_of_nothing_is_not_written(tmp_path: Path) -> None:
    journal = TickJournal(tmp_path, KEY)
    journal.append([trades()], (), 5)
    journal.append((), (), 6)
    assert list(journal.read()) == [] and (journal.first_us, journal.last_us) == (NEVER_US, 0)
    journal.close()


def test_a_column_that_is_not_as_laid_out_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    journal = TickJournal(tmp_path, KEY)
    good = trades(1, 2)
    for bad in (
        good.with_column("price", good["price"].astype(np.float32)),
        good.with_column("amount", good["amount"][:1]),
        TickBatch(DataType.TRADES, {name: col for name, col in good.columns.items() if name != "side"}),
    ):
        with pytest.raises(SchemaMismatch, match=r"trades: expected column (price|amount|side)"):
            journal.append([bad], (), 2)
    assert list(journal.read()) == []
    journal.close()


def test_rows_of_an_earlier_layout_are_read_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from market_data_tick_handler.core import ticks
    from market_data_tick_handler.storage.recovery import tick_records

    layouts = {**LAYOUTS, DataType.TRADES: tuple(f for f in LAYOUTS[DataType.TRADES] if f.name != "side")}
    layouts[DataType.TRADES] += (ticks.Field("dropped_later", "f4", "-", 0, "a column of an earlier version"),)
    older = {key: tuple(np.dtype(field.dtype) for field in fields) for key, fields in layouts.items()}
    monkeypatch.setattr(tick_records, "LAYOUTS", layouts)
    monkeypatch.setattr(tick_records, "_DTYPES", older)
    journal = TickJournal(tmp_path, KEY)
    batch = trades(1, 2, 3)
    journal.append([batch.with_column("dropped_later", np.ones(3, np.float32))], (), 3)
    journal.close()
    monkeypatch.undo()
    journal = TickJournal(tmp_path, KEY)
    (turn,) = journal.read()
    assert_same(batch.with_column("side", np.zeros(3, np.int8)), turn.batches[0])
    journal.close()


def test_reading_from_the_position_of_a_turn_gives_the_turns_behind_it(tmp_path: Path) -> None:
    journal = TickJournal(tmp_path, KEY, segment_bytes=2_000)
    positions = []
    for index in range(20):
        journal.append([trades(index, tag=index)], (), index)
        positions.append(journal.position)
    assert [turn.position for turn in journal.read()] == positions
    for index, position in enumerate(positions):
        expected = [(i, i) for i in range(index + 1, 20)]
        assert of_turns(journal.read(position)).get(DataType.TRADES, []) == expected
        assert len(list(journal.read(until=position))) == index + 1
        assert journal.covers(position)
    journal.forget(10)
    assert not journal.covers(positions[0]) and journal.covers(positions[-1])
    with pytest.raises(NotFound, match="was forgotten"):
        list(journal.read(positions[0]))
    # The end of the last file that was forgotten is as good as the beginning of the first one left.
    first = journal.first_us
    assert first > 0 and journal.covers(positions[first - 1]) and not journal.covers(positions[first - 2])
    assert of_turns(journal.read(positions[first - 1]))[DataType.TRADES] == [(i, i) for i in range(first, 20)]
    journal.close()


def test_the_journal_goes_on_where_it_ended_when_the_process_died_in_a_write(tmp_path: Path) -> None:
    source = tmp_path / "source"
    journal = TickJournal(source, KEY)
    ends = []
    for index in range(4):
        journal.append([trades(index, index, tag=2 * index)], [OutageOpened(index)], index)
        ends.append(journal.position.offset)
    journal.close()
    (path,) = source.glob("ticks-*.log")
    whole = path.read_bytes()
    for size in range(ends[1], len(whole)):
        copy = tmp_path / "copy"
        shutil.copytree(source, copy)
        (copy / path.name).write_bytes(whole[:size])
        journal = TickJournal(copy, KEY)
        kept = sum(end <= size for end in ends)
        assert len(list(journal.read())) == kept and journal.last_us == kept - 1
        assert [finding.damaged for finding in journal.findings] == ([] if size in ends else [False])
        journal.append([trades(9, tag=99)], (), 9)
        assert of_turns(journal.read())[DataType.TRADES][-1] == (9, 99)
        journal.close()
        shutil.rmtree(copy)


# Fetched rows at their places


def test_fetched_rows_stand_behind_rows_as_fed_of_the_same_time(tmp_path: Path) -> None:
    journal = TickJournal(tmp_path, KEY)
    journal.append([trades(10, 20, 20, tag=0)], (), 20)
    journal.append([trades(20, 40, tag=3)], (), 40)
    journal.add_repair(trades(40, 20, 30, 5, tag=100))
    journal.add_repair(trades(20, 50, tag=200))
    expected = [(5, 103), (10, 0), (20, 1), (20, 2), (20, 3), (20, 101), (20, 200), (30, 102), (40, 4), (40, 100)]
    for _ in range(2):
        assert of_turns(journal.read_merged())[DataType.TRADES] == [*expected, (50, 201)]
        assert of_turns(journal.read())[DataType.TRADES] == [(10, 0), (20, 1), (20, 2), (20, 3), (40, 4)]
        journal.close()
        journal = TickJournal(tmp_path, KEY)
    journal.close()


Turns = list[tuple[dict[DataType, list[int]], int]]


@st.composite
def fed(draw: st.DrawFn) -> Turns:
    """Turns as a pipeline stores them: no row before the arrival clock, and the clock after each."""
    watermark, turns = Watermark(0), []
    watermark.promise(MIDNIGHT_US)
    for _ in range(draw(st.integers(0, 12))):
        by_type = {}
        for data_type in draw(st.lists(st.sampled_from(TYPES), unique=True)):
            at = max(watermark.floor_for(RANK[data_type]), MIDNIGHT_US)
            steps = draw(st.lists(st.integers(0, 2), min_size=1, max_size=4))
            by_type[data_type] = (at + np.cumsum(steps)).tolist()
        for data_type in sorted(by_type, key=lambda key: RANK[key]):
            watermark.saw(by_type[data_type][-1], RANK[data_type])
        if draw(st.booleans()):
            watermark.promise(watermark.us + draw(st.integers(0, 3)))
        turns.append((by_type, watermark.us))
    return turns


FETCHED = st.lists(
    st.tuples(st.sampled_from(TYPES), st.lists(st.integers(-3, 40), min_size=1, max_size=12)), max_size=5
)


def filled(directory: Path, turns: Turns, fetched: list[tuple[DataType, list[int]]], **options: Any) -> TickJournal:
    journal = TickJournal(directory, KEY, **options)
    tag = 0
    for by_type, clock_us in turns:
        batches = [rows(data_type, times, tag + 10 * at) for at, (data_type, times) in enumerate(by_type.items())]
        journal.append(batches, (), clock_us)
        tag += 100
    for index, (data_type, offsets) in enumerate(fetched):
        journal.add_repair(rows(data_type, [MIDNIGHT_US + offset for offset in offsets], 1_000_000 + 100 * index))
    return journal


def in_canonical_order(
    turns: Turns, fetched: list[tuple[DataType, list[int]]]
) -> dict[DataType, list[tuple[int, int]]]:
    """Every row per data type: by time, as fed before fetched, then in the order of appending."""
    found: dict[DataType, list[tuple[int, bool, int, int]]] = {}
    for index, (by_type, _) in enumerate(turns):
        for at, (data_type, times) in enumerate(by_type.items()):
            for k, time in enumerate(times):
                found.setdefault(data_type, []).append((time, False, index, 100 * index + 10 * at + k))
    for index, (data_type, offsets) in enumerate(fetched):
        for k, offset in enumerate(offsets):
            found.setdefault(data_type, []).append((MIDNIGHT_US + offset, True, index, 1_000_000 + 100 * index + k))
    return {key: [(time, tag) for time, _, _, tag in sorted(every)] for key, every in found.items()}


def assert_arrival_order(turns: Iterable[JournalTurn]) -> None:
    """No turn has a row that belongs before a row of an earlier turn, so that a pipeline moves none of them."""
    latest = (0, 0)
    for turn in turns:
        for batch in turn.batches:
            times = batch["local_timestamp"]
            assert (int(times[0]), RANK[batch.data_type]) >= latest
            assert (times[1:] >= times[:-1]).all()
        places = [(int(batch["local_timestamp"][-1]), RANK[batch.data_type]) for batch in turn.batches]
        latest = max([latest, *places])
        assert len({batch.data_type for batch in turn.batches}) == len(turn.batches)


@settings(max_examples=150)
@given(turns=fed(), fetched=FETCHED, small=st.booleans(), data=st.data())
def test_merged_turns_are_in_the_order_of_arrival_with_every_row_once(
    tmp_path_factory: pytest.TempPathFactory,
    turns: Turns,
    fetched: list[tuple[DataType, list[int]]],
    small: bool,
    data: st.DataObject,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if small:
            patch.setattr(tick_journal, "REPAIR_ROWS", 2)
            patch.setattr(merged_turns, "_RECORDS_AT_ONCE", 1)
        journal = filled(tmp_path_factory.mktemp("merged"), turns, fetched, segment_bytes=2_000)
        expected = in_canonical_order(turns, fetched)
        merged = list(journal.read_merged())
        assert of_turns(merged) == expected
        assert_arrival_order(merged)
        # Cut anywhere, the two halves hold what the whole holds.
        read = list(journal.read())
        if read:
            at = data.draw(st.sampled_from(read)).position
            halves = [*journal.read_merged(until=at), *journal.read_merged(at)]
            assert of_turns(halves) == expected
            assert_arrival_order(halves)
        journal.close()


@settings(max_examples=60)
@given(turns=fed(), fetched=FETCHED, shift=st.integers(-30, 5))
def test_a_day_has_every_row_of_its_own_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory,
    turns: Turns,
    fetched: list[tuple[DataType, list[int]]],
    shift: int,
) -> None:
    end = MIDNIGHT_US + DAY_US
    moved = DAY_US + shift
    late = [({key: [t + moved for t in times] for key, times in by.items()}, us + moved) for by, us in turns]
    missing = [(key, [offset + moved for offset in offsets]) for key, offsets in fetched]
    journal = filled(tmp_path_factory.mktemp("day"), late, missing, segment_bytes=2_000)
    expected = in_canonical_order(late, missing)
    for data_type in TYPES:
        parts = expected.get(data_type, [])
        today = told(journal.day_rows(DAY, data_type)).get(data_type, [])
        tomorrow = told(journal.day_rows(datetime.fromtimestamp(end // 1_000_000, UTC).date(), data_type))
        assert today == [row for row in parts if MIDNIGHT_US <= row[0] < end]
        assert tomorrow.get(data_type, []) == [row for row in parts if row[0] >= end]
    journal.close()


def test_fetched_rows_of_a_long_gap_come_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tick_journal, "REPAIR_ROWS", 100)
    journal = TickJournal(tmp_path, KEY)
    journal.append([trades(0)], (), 0)
    journal.append([trades(100_000)], (), 100_000)
    journal.add_repair(trades(*range(10, 10_010), tag=1))
    turns = list(journal.read_merged())
    assert max(len(batch) for turn in turns for batch in turn.batches) <= 800
    assert of_turns(turns)[DataType.TRADES] == [(0, 0), *((10 + i, 1 + i) for i in range(10_000)), (100_000, 0)]
    journal.close()


def test_fetched_rows_that_a_state_holds_are_not_fed_to_it_again(tmp_path: Path) -> None:
    journal = TickJournal(tmp_path, KEY)
    journal.append([trades(10)], (), 10)
    journal.add_repair(trades(12, 15, tag=50))
    end = journal.position
    assert of_turns(journal.read_merged(end)) == {DataType.TRADES: [(12, 50), (15, 51)]}
    assert list(journal.read_merged(end, from_us=16)) == []
    journal.append([trades(20, tag=1)], (), 20)
    assert of_turns(journal.read_merged(end, from_us=16)) == {DataType.TRADES: [(20, 1)]}
    assert of_turns(journal.read_merged(end)) == {DataType.TRADES: [(12, 50), (15, 51), (20, 1)]}
    journal.close()


def test_merged_rows_are_what_a_pipeline_stores(tmp_path: Path) -> None:
    from market_data_tick_handler.core.events import Rows
    from market_data_tick_handler.core.pipeline import Pipeline
    from tests.parity.streams import NOON_US, SPOT, options, random_trades

    whole = random_trades(5, minutes=3.0)
    live, replay = (Pipeline(SPOT, options(), keep_rows=True) for _ in range(2))
    gap = slice(len(whole) // 3, len(whole) // 2)
    before, missing, after = (
        whole.slice(0, gap.start),
        whole.slice(gap.start, gap.stop),
        whole.slice(gap.stop, len(whole)),
    )
    journal = TickJournal(tmp_path, SPOT.key)
    for part in (before, after):
        for start in range(0, len(part), 7):
            live.feed(Rows(SPOT.key, part.slice(start, min(start + 7, len(part)))))
            journal.append(live.stored, (), live.clock_us)
            live.stored.clear()
    journal.add_repair(missing)
    for turn in journal.read_merged():
        replay.feed([Rows(SPOT.key, batch) for batch in turn.batches])
    assert replay.counters[DataType.TRADES].clamped == 0
    assert len(concat(replay.stored)) == len(whole)
    first_us = min(NOON_US, int(whole["local_timestamp"][0]))
    day = datetime.fromtimestamp(first_us // 1_000_000, UTC).date()
    assert_same(concat(replay.stored), concat(list(journal.day_rows(day, DataType.TRADES))))
    journal.close()


# Forgetting


def test_forgetting_removes_whole_files_and_first_us_says_which_rows_are_left(tmp_path: Path) -> None:
    journal = TickJournal(tmp_path, KEY, segment_bytes=2_500)
    # Times repeat over turns: a file is never begun between two rows of one time.
    times = [MIDNIGHT_US + index // 3 for index in range(60)]
    for index, time in enumerate(times):
        journal.append([trades(time, tag=index)], (), time)
    size = journal.size_bytes
    journal.forget(MIDNIGHT_US + 10)
    assert MIDNIGHT_US < journal.first_us <= MIDNIGHT_US + 10 and journal.size_bytes < size
    expected = [(time, index) for index, time in enumerate(times) if time >= journal.first_us]
    journal.add_repair(trades(MIDNIGHT_US, journal.first_us, tag=900))
    for _ in range(2):
        assert of_turns(journal.read())[DataType.TRADES] == expected
        found = told(journal.day_rows(DAY, DataType.TRADES))[DataType.TRADES]
        assert found == sorted([*expected, (journal.first_us, 901)])
        journal.close()
        journal = TickJournal(tmp_path, KEY, segment_bytes=2_500)
    journal.forget(NEVER_US)
    assert of_turns(journal.read())[DataType.TRADES][-1] == (times[-1], 59)
    journal.close()


def test_a_file_is_never_begun_between_rows_of_one_time(tmp_path: Path) -> None:
    journal = TickJournal(tmp_path, KEY, segment_bytes=1)
    for index in range(12):
        journal.append([trades(MIDNIGHT_US + index // 3)], (), MIDNIGHT_US + index // 3)
    assert len(list(tmp_path.glob("ticks-*.log"))) == 4
    journal.close()


def test_fetched_rows_are_forgotten_with_the_time_they_belong_to(tmp_path: Path) -> None:
    journal = TickJournal(tmp_path, KEY, segment_bytes=1)
    for time in (10, 20, 30):
        journal.append([trades(time)], (), time)
        journal.add_repair(trades(time + 1, tag=time))
    assert len(list(tmp_path.glob("repairs-*.log"))) == 3
    journal.forget(21)
    assert len(list(tmp_path.glob("repairs-*.log"))) == 2
    merged = of_turns(journal.read_merged())[DataType.TRADES]
    assert merged == [(20, 0), (21, 20), (30, 0), (31, 30)]
    journal.forget(NEVER_US)
    assert list(tmp_path.glob("repairs-*.log")) == []
    journal.add_repair(trades(35, tag=7))
    assert of_turns(journal.read_merged())[DataType.TRADES] == [(30, 0), (35, 7)]
    journal.close()
    journal = TickJournal(tmp_path, KEY)
    assert of_turns(journal.read_merged())[DataType.TRADES] == [(30, 0), (35, 7)]
    journal.close()


def test_damage_in_the_middle_is_an_error_and_what_lies_behind_it_can_be_read(tmp_path: Path) -> None:
    journal = TickJournal(tmp_path, KEY)
    positions = []
    for index in range(5):
        journal.append([trades(index, tag=index)], (), index)
        positions.append(journal.position)
    journal.close()
    (path,) = tmp_path.glob("ticks-*.log")
    content = bytearray(path.read_bytes())
    content[positions[1].offset + 40] ^= 1
    path.write_bytes(content)
    journal = TickJournal(tmp_path, KEY)
    assert [finding.damaged for finding in journal.findings] == [True] and journal.last_us == 4
    journal.append([trades(5, tag=5)], (), 5)
    with pytest.raises(CorruptObject, match=f"offset {positions[1].offset}"):
        list(journal.read())
    assert of_turns(journal.read(positions[2]))[DataType.TRADES] == [(3, 3), (4, 4), (5, 5)]
    assert of_turns(journal.read(until=positions[1]))[DataType.TRADES] == [(0, 0), (1, 1)]
    journal.close()

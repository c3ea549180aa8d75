"""The output journal gives every content one identity for good, over crashes too, and every sink each row it lacks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.timeframes import DAY_US, Timeframe
from market_data_tick_handler.errors import NotFound, SchemaMismatch
from market_data_tick_handler.storage.recovery.candle_records import (
    CandleLayout,
    decode_identities,
    decode_rows,
    encode_rows,
)
from market_data_tick_handler.storage.recovery.output_journal import Journaled, OutputJournal
from tests.storage.recovery.candle_rows import KEY, PERPETUAL, START_US, assert_same, candles, digests, pipeline_candles

SINK = "redis"
Row = tuple[str, int, float, int, int]


def opened(directory: Path, **changes: Any) -> OutputJournal:
    return OutputJournal(directory, KEY, **{"sinks": [SINK], **changes})


def told(journaled: Iterable[Journaled | None]) -> list[Row]:
    """(timeframe, number of the candle, content, revision, sequence number) of every row."""
    out: list[Row] = []
    for one in journaled:
        if one is not None:
            batch = one.batch
            numbers = (batch["timestamp"] - START_US) // batch.timeframe.us
            values = zip(numbers.tolist(), batch["close"].tolist(), batch["revision"].tolist(), strict=True)
            out += [(str(batch.timeframe), *row, one.first_sequence + at) for at, row in enumerate(values)]
    return out


def admitted(journal: OutputJournal, *batches: CandleBatch) -> list[Row]:
    return told(journal.admit(batch) for batch in batches)


# One content, one identity


def test_a_row_is_published_once_and_another_content_is_the_next_revision(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    assert admitted(journal, candles([0, 1], [1.0, 2.0])) == [("15s", 0, 1.0, 0, 1), ("15s", 1, 2.0, 0, 2)]
    for _ in range(2):
        assert journal.admit(candles([0, 1], [1.0, 2.0], revisions=7)) is None
        journal.close()
        journal = opened(tmp_path)
    # What a restored pipeline believes of its revisions does not count.
    assert admitted(journal, candles([0, 1, 2], [1.0, 2.5, 3.0])) == [("15s", 1, 2.5, 1, 3), ("15s", 2, 3.0, 0, 4)]
    # A content that was there before, but not last, is a revision too.
    assert admitted(journal, candles([1], [2.0], revisions=9)) == [("15s", 1, 2.0, 2, 5)]
    journal.close()


def test_an_unknown_candle_keeps_the_revision_it_has(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    assert admitted(journal, candles([5], [1.0], revisions=3)) == [("15s", 5, 1.0, 3, 1)]
    assert admitted(journal, candles([5], [2.0], revisions=3)) == [("15s", 5, 2.0, 4, 2)]
    journal.close()


def test_one_batch_may_hold_several_rows_of_a_candle(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    rows = admitted(journal, candles([0, 0, 1, 0, 1], [1.0, 1.0, 5.0, 2.0, 5.0], revisions=[0, 1, 0, 2, 1]))
    assert rows == [("15s", 0, 1.0, 0, 1), ("15s", 1, 5.0, 0, 2), ("15s", 0, 2.0, 1, 3)]
    journal.close()


def test_every_timeframe_has_identities_and_numbers_of_its_own(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    for timeframe in (Timeframe.S15, Timeframe.M1, Timeframe.H24):
        assert admitted(journal, candles([0], [1.0], timeframe)) == [(str(timeframe), 0, 1.0, 0, 1)]
    assert [journal.next_sequence(timeframe) for timeframe in (Timeframe.M1, Timeframe.M5)] == [2, 1]
    journal.close()


def test_digests_may_be_given_beside_the_batch_and_must_fit_it(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    batch = candles([0, 1], [1.0, 2.0])
    bare = CandleBatch(batch.instrument, batch.timeframe, batch.columns, "1.0")
    with pytest.raises(SchemaMismatch, match="digests as uint64 of shape"):
        journal.admit(bare)
    with pytest.raises(SchemaMismatch, match="digests as uint64 of shape"):
        journal.admit(bare, digests([1.0]))
    assert told([journal.admit(bare, digests([1.0, 2.0]))]) == [("15s", 0, 1.0, 0, 1), ("15s", 1, 2.0, 0, 2)]
    assert journal.admit(batch) is None
    journal.close()


@settings(max_examples=80)
@given(data=st.data())
def test_identities_hold_over_reopening_at_any_moment(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("identities")
    size = data.draw(st.sampled_from([1, 3_000, 1 << 20]))
    journal = opened(directory, segment_bytes=size)
    last: dict[tuple[str, int], tuple[float, int]] = {}
    numbers: dict[str, int] = {}
    published: list[Row] = []
    for _ in range(data.draw(st.integers(1, 12))):
        timeframe = data.draw(st.sampled_from([Timeframe.S15, Timeframe.M1]))
        rows = data.draw(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 2)), min_size=1, max_size=6))
        batch = candles([number for number, _ in rows], [float(content) for _, content in rows], timeframe)
        expected: list[Row] = []
        for number, content in rows:
            known = last.get((timeframe, number))
            if known is None or known[0] != content:
                revision = 0 if known is None else known[1] + 1
                last[timeframe, number] = float(content), revision
                numbers[timeframe] = numbers.get(timeframe, 0) + 1
                expected.append((str(timeframe), number, float(content), revision, numbers[timeframe]))
        assert admitted(journal, batch) == expected
        published += expected
        if data.draw(st.booleans()):
            if data.draw(st.booleans()):
                journal.acknowledge(SINK, journal.position)
                published.clear()
                journal.forget(START_US + DAY_US)
            journal.close()
            journal = opened(directory, segment_bytes=size)
        assert journal.admit(batch.slice(len(rows) - 1, len(rows))) is None
    assert told(journal.unacknowledged(SINK)) == published
    assert len({row[:2] + row[3:4] for row in published}) == len(published)
    journal.close()


def test_a_write_cut_at_any_byte_costs_that_row_alone_which_comes_again_as_it_was(tmp_path: Path) -> None:
    source = tmp_path / "source"
    journal = opened(source)
    admitted(journal, candles([0], [1.0]))
    before = journal.position
    admitted(journal, candles([0, 1], [1.5, 2.0]))
    journal.close()
    (path,) = source.glob("outputs-*.log")
    whole = path.read_bytes()
    for size in range(before.offset, len(whole)):
        copy = tmp_path / "copy"
        shutil.copytree(source, copy)
        (copy / path.name).write_bytes(whole[:size])
        journal = opened(copy)
        assert told(journal.unacknowledged(SINK)) == [("15s", 0, 1.0, 0, 1)]
        again = admitted(journal, candles([0, 1], [1.5, 2.0]))
        assert again == [("15s", 0, 1.5, 1, 2), ("15s", 1, 2.0, 0, 3)]
        journal.close()
        shutil.rmtree(copy)


def test_a_damaged_record_costs_its_own_rows_alone_and_is_told(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    ends = [journal.admit(candles([number], [float(number)])) for number in range(4)]
    journal.close()
    (path,) = tmp_path.glob("outputs-*.log")
    content = bytearray(path.read_bytes())
    assert ends[1] is not None
    content[ends[1].position.offset + 30] ^= 1
    path.write_bytes(content)
    journal = opened(tmp_path)
    assert [row[1] for row in told(journal.unacknowledged(SINK))] == [0, 1, 3]
    assert any(finding.damaged for finding in journal.findings)
    assert admitted(journal, candles([0, 1, 3, 4], [0.0, 1.0, 3.0, 4.0])) == [("15s", 4, 4.0, 0, 5)]
    journal.close()


def test_nothing_is_known_of_a_row_that_could_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = opened(tmp_path)
    admitted(journal, candles([0], [1.0]))

    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("market_data_tick_handler.storage.recovery.segment_files.os.write", full)
    for timeframe in (Timeframe.S15, Timeframe.M1):
        with pytest.raises(OSError, match="No space left"):
            journal.admit(candles([1], [2.0], timeframe))
    monkeypatch.undo()
    for timeframe, sequence in ((Timeframe.S15, 2), (Timeframe.M1, 1)):
        assert admitted(journal, candles([1], [2.0], timeframe)) == [(str(timeframe), 1, 2.0, 0, sequence)]
    journal.close()


# Bit for bit


def test_candles_of_a_pipeline_come_back_bit_for_bit(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    given_: list[CandleBatch] = []
    for batch in pipeline_candles():
        assert batch.records is not None and len(batch.columns) > 250
        middle = 1 + len(batch) // 2
        # One row, as live closes them, and views of many, as a restart computes them.
        for part in (batch.slice(0, 1), batch.slice(1, middle), batch.slice(middle, max(middle, len(batch)))):
            if len(part):
                contents = part["timestamp"].astype(float)
                assert journal.admit(part, digests(contents)) is not None
                given_.append(part)
    for _ in range(2):
        found = list(journal.unacknowledged(SINK))
        assert len(found) == len(given_)
        for one, other in zip(given_, found, strict=True):
            assert_same(one, other.batch)
            assert other.batch.records is not None
            assert other.batch.digests is not None and np.array_equal(
                other.batch.digests, digests(one["timestamp"].astype(float))
            )
        journal.close()
        journal = opened(tmp_path)
    journal.close()


def test_the_first_layouts_are_read_as_those_of_arrays() -> None:
    batch = candles(range(3), [1.0, 2.0, 3.0])
    layout = CandleLayout.of(batch)
    tree = {name: part for name, part in layout.tree().items() if name not in ("names", "record")}
    known = CandleLayout.of_tree(json.loads(json.dumps(tree)))
    payload = encode_rows(0, layout, batch, digests([1.0, 2.0, 3.0]), 7)
    assert_same(batch, decode_rows(payload, [known]).batch)
    assert decode_identities(payload, [known]).timestamps.tolist() == batch["timestamp"].tolist()


def test_revised_candles_of_a_pipeline_stay_records_in_the_same_file(tmp_path: Path) -> None:
    """A revision that the journal counts, as after a restart, is no new layout."""
    journal = opened(tmp_path)
    first = pipeline_candles()[0].slice(0, 1)
    again = first.replace(close=first["close"] + 1.0)
    for batch, content in ((first, 1.0), (again, 2.0), (first, 3.0)):
        assert journal.admit(batch, digests([content])) is not None
    found = [journaled.batch for journaled in journal.unacknowledged(SINK)]
    revision = int(first["revision"][0])
    assert [int(batch["revision"][0]) for batch in found] == [revision, revision + 1, revision + 2]
    assert all(batch.records is not None for batch in found)
    closes = [float(batch["close"][0]) for batch in (first, again, first)]
    assert [float(batch["close"][0]) for batch in found] == closes
    assert len(list(tmp_path.rglob("*.log"))) == 1
    journal.close()


def test_columns_that_are_views_of_records_come_back(tmp_path: Path) -> None:
    plain = candles(range(5), np.arange(5.0).tolist())
    record = np.zeros(5, [(name, column.dtype) for name, column in plain.columns.items()])
    for name, column in plain.columns.items():
        record[name] = column
    views = plain.replace(**{name: record[name] for name in plain.columns})
    assert not views["close"].flags.c_contiguous
    journal = opened(tmp_path)
    journal.admit(views.slice(0, 1))
    journal.admit(views.slice(1, 5))
    first, rest = journal.unacknowledged(SINK)
    assert_same(plain.slice(0, 1), first.batch)
    assert_same(plain.slice(1, 5), rest.batch)
    journal.close()


def test_columns_of_every_kind_come_back(tmp_path: Path) -> None:
    odd = {
        "bits": np.array([0x7FF8_0000_0000_1234, 0x8000_0000_0000_0000], np.uint64).view(float),
        "small": np.array([-3, 4], np.int32),
        "flag": np.array([True, False]),
        "text": np.array(["ü", "a longer text"]),
        "object": np.array(["", "any \x00 text \ud800"], object),
        "more": np.array([None, "x"], object),
    }
    journal = opened(tmp_path)
    batch = candles([0, 1], [1.0, 2.0], **odd)
    journal.admit(batch)
    (found,) = journal.unacknowledged(SINK)
    assert_same(batch, found.batch)
    journal.close()


def test_a_change_of_columns_settings_or_instrument_is_read_back_as_it_was(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    sequence = [
        candles([0], [1.0]),
        candles([1], [1.0], extra=np.array([1.5])),
        candles([2], [1.0], extra=np.array([2], np.int32)),
        candles([3], [1.0], config_hash="other"),
        candles([0], [1.0], Timeframe.M1),
        candles([4], [1.0], instrument=replace(PERPETUAL, tick_size=0.1, strike=float("nan"))),
        candles([5], [1.0]),
    ]
    for index, batch in enumerate(sequence):
        journal.admit(batch)
        if index % 2:
            journal.close()
            journal = opened(tmp_path)
    for batch, found in zip(sequence, journal.unacknowledged(SINK), strict=True):
        assert_same(batch, found.batch)
    journal.close()


def test_reopening_alone_begins_no_new_file(tmp_path: Path) -> None:
    for number in range(5):
        journal = opened(tmp_path)
        journal.admit(candles([number], [1.0]))
        journal.close()
    assert len(list(tmp_path.glob("outputs-*.log"))) == 1


# Delivery


def test_a_sink_gets_what_it_has_not_acknowledged_with_its_identity(tmp_path: Path) -> None:
    journal = opened(tmp_path, sinks=[SINK, "big/query"])
    first = journal.admit(candles([0], [1.0]))
    journal.admit(candles([0, 1], [1.5, 2.0]))
    assert first is not None
    journal.acknowledge(SINK, first.position)
    journal.close()
    journal = opened(tmp_path, sinks=[SINK, "big/query"])
    rest = [("15s", 0, 1.5, 1, 2), ("15s", 1, 2.0, 0, 3)]
    assert told(journal.unacknowledged(SINK)) == rest
    assert told(journal.unacknowledged("big/query")) == [("15s", 0, 1.0, 0, 1), *rest]
    for journaled in journal.unacknowledged(SINK):
        journal.acknowledge(SINK, journaled.position)
    journal.acknowledge(SINK, first.position)
    assert told(journal.unacknowledged(SINK)) == []
    journal.close()


def test_a_new_sink_begins_with_what_is_published_from_then_on(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.admit(candles([0], [1.0]))
    journal.register("late")
    with pytest.raises(NotFound, match=r"'unknown' is not registered; known: \['late', 'redis'\]"):
        journal.unacknowledged("unknown")
    journal.admit(candles([1], [1.0]))
    journal.close()
    journal = opened(tmp_path, sinks=["late"])
    assert [row[1] for row in told(journal.unacknowledged("late"))] == [1]
    journal.close()


def test_what_a_lost_sink_holds_can_be_given_up(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.admit(candles([0, 1, 2], [1.0, 1.0, 1.0]))
    assert journal.abandon(SINK) == 3
    assert list(journal.unacknowledged(SINK)) == []
    journal.close()


@pytest.mark.parametrize("spoiled", ["cut", "changed", "empty"])
def test_a_cursor_cut_in_its_write_is_the_one_before_it(tmp_path: Path, spoiled: str) -> None:
    journal = opened(tmp_path)
    positions = [one.position for one in map(journal.admit, (candles([n], [1.0]) for n in range(3))) if one]
    for position in positions[:2]:
        journal.acknowledge(SINK, position)
    journal.close()
    (path,) = tmp_path.glob("*.cursor")
    content = path.read_bytes()
    newest = max((0, 32), key=lambda start: content[start])
    if spoiled == "cut":
        path.write_bytes(content[:newest] + content[newest : newest + 11])
    elif spoiled == "changed":
        path.write_bytes(content[: newest + 8] + b"\xff" + content[newest + 9 :])
    else:
        path.write_bytes(b"")
    journal = opened(tmp_path)
    expected = {"cut": [1, 2], "changed": [1, 2], "empty": []}[spoiled]
    assert [row[1] for row in told(journal.unacknowledged(SINK))] == expected
    journal.close()


def test_rows_published_after_the_log_lost_its_end_are_not_taken_for_acknowledged(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    first = journal.admit(candles([0], [1.0]))
    second = journal.admit(candles([1, 2, 3], [1.0, 1.0, 1.0]))
    assert first is not None and second is not None
    journal.acknowledge(SINK, second.position)
    journal.close()
    (path,) = tmp_path.glob("outputs-*.log")
    path.write_bytes(path.read_bytes()[: first.position.offset])
    journal = opened(tmp_path)
    journal.admit(candles([9], [1.0]))
    assert [row[1] for row in told(journal.unacknowledged(SINK))] == [9]
    journal.close()


# Forgetting


def test_files_go_when_all_sinks_have_them_and_identities_stay(tmp_path: Path) -> None:
    options = {"sinks": [SINK, "slow"], "segment_bytes": 1, "window_us": DAY_US}
    journal = opened(tmp_path, **options)
    journaled = [journal.admit(candles([number], [float(number)])) for number in range(6)]
    journal.admit(candles([0], [1.0], Timeframe.H24))
    middle = journaled[3]
    assert middle is not None
    close_of_5 = START_US + 6 * Timeframe.S15.us
    journal.acknowledge(SINK, journal.position)
    journal.forget(close_of_5)
    assert len(list(tmp_path.glob("outputs-*.log"))) == 7
    journal.acknowledge("slow", middle.position)
    journal.forget(START_US)
    assert len(list(tmp_path.glob("outputs-*.log"))) == 7
    journal.forget(close_of_5)
    assert len(list(tmp_path.glob("outputs-*.log"))) == 3
    assert [row[1] for row in told(journal.unacknowledged("slow"))] == [4, 5, 0]
    for _ in range(2):
        assert journal.admit(candles(range(6), np.arange(6.0).tolist())) is None
        journal.close()
        journal = opened(tmp_path, **options)
    assert admitted(journal, candles([1, 2], [9.0, 2.0])) == [("15s", 1, 9.0, 1, 7)]
    assert admitted(journal, candles([0], [2.0], Timeframe.H24)) == [("24h", 0, 2.0, 1, 2)]
    journal.close()


def test_without_a_readable_index_identities_are_built_from_the_files_left(tmp_path: Path) -> None:
    journal = opened(tmp_path, segment_bytes=1)
    for number in range(4):
        journal.admit(candles([number], [1.0]))
    journal.acknowledge(SINK, journal.position)
    journal.forget(START_US + DAY_US)
    journal.close()
    index = tmp_path / "outputs.index"
    index.write_bytes(index.read_bytes()[:-1])
    journal = opened(tmp_path, segment_bytes=1)
    assert "index is built again" in str(journal.findings[0])
    assert journal.admit(candles([3], [1.0])) is None
    assert journal.next_sequence(Timeframe.S15) == 5
    journal.close()


def test_a_sink_that_comes_back_after_its_rows_were_removed_goes_on_with_what_is_left(tmp_path: Path) -> None:
    journal = opened(tmp_path, segment_bytes=1)
    journal.admit(candles([0], [1.0]))
    journal.close()
    journal = opened(tmp_path, segment_bytes=1, sinks=[])
    for number in range(1, 4):
        journal.admit(candles([number], [1.0]))
    journal.forget(START_US + 3 * Timeframe.S15.us)
    journal.close()
    journal = opened(tmp_path, segment_bytes=1)
    assert "were removed while it was not registered" in str(journal.findings[-1])
    assert [row[1] for row in told(journal.unacknowledged(SINK))] == [2, 3]
    journal.close()


def test_a_candle_older_than_the_window_is_counted_and_does_not_displace_a_newer_one(tmp_path: Path) -> None:
    window = 4 * Timeframe.S15.us
    journal = opened(tmp_path, window_us=window)
    admitted(journal, candles(range(12), [1.0] * 12))
    # Whatever is in the window is known, to its last microsecond.
    assert journal.admit(candles(range(7, 12), [1.0] * 5)) is None
    assert journal.outside_window == 0
    assert admitted(journal, candles([2], [1.0], revisions=4)) == [("15s", 2, 1.0, 4, 13)]
    assert journal.outside_window == 1
    for _ in range(2):
        assert journal.admit(candles(range(7, 12), [1.0] * 5)) is None
        journal.close()
        journal = opened(tmp_path, window_us=window)
    journal.close()

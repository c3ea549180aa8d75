"""Rows in the spool are there after a crash, gone after their confirmation, and bounded in between."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market_data_tick_handler.errors import ConfigError, SinkBusy, SinkError
from market_data_tick_handler.storage.recovery import segments
from streaming_service.sinks.spool import Spool
from streaming_service.sinks.spool_records import (
    Assignment,
    Chunk,
    Confirmed,
    Mark,
    SpoolState,
    StreamLeft,
    decode,
    encode,
)
from streaming_service.sinks.table_spool import TableSpool

SCHEMA = pa.schema([("n", pa.int64()), ("text", pa.string())])
PLENTY = 1 << 30


def rows(start: int, count: int) -> pa.RecordBatch:
    numbers = range(start, start + count)
    return pa.RecordBatch.from_pydict({"n": list(numbers), "text": [f"row {n}" for n in numbers]}, schema=SCHEMA)


def open_table(root: Path, *, max_bytes: int = PLENTY, segment_bytes: int = 1 << 20) -> TableSpool:
    spool = Spool(root, max_bytes=max_bytes, segment_bytes=segment_bytes)
    spool.open()
    return spool.table("trades")


def append(table: TableSpool, start: int, count: int) -> None:
    table.append(rows(start, count), now_us=start, marks={"channel": Mark(start + count, start)})


def pending(table: TableSpool) -> list[int]:
    found = table.read(table.confirmed, table.rows, SCHEMA)
    assert found.table.column("n").to_pylist() == found.numbers
    return found.numbers


@pytest.mark.parametrize(
    "record",
    [
        Chunk(5, 3, 100, {"a": Mark(1, 2)}),
        Assignment(5, 9, "streams/1", 7, {6: "bad"}),
        Confirmed(9, "streams/1", 10),
        StreamLeft(),
    ],
)
def test_a_record_is_what_it_was(record: Chunk | Assignment | Confirmed | StreamLeft) -> None:
    """Encoding and decoding gives the same record, and the body behind it."""
    payload = encode(record, b"body")
    found, body = decode(payload)
    assert found == record and payload[body:] == b"body"


def test_rows_are_there_after_the_process_ended(tmp_path: Path) -> None:
    """What was appended is read again from the files alone, with its numbers and marks."""
    append(table := open_table(tmp_path), 0, 10)
    append(table, 10, 5)
    table.close()
    again = open_table(tmp_path)
    assert pending(again) == list(range(15))
    assert again.mark("channel") == Mark(15, 10) and again.rows == 15
    again.close()


def test_a_batch_keeps_its_identity(tmp_path: Path) -> None:
    """A batch that was sent and not confirmed is the same batch after a restart: rows, stream, offset, refused rows."""
    append(table := open_table(tmp_path), 0, 10)
    sent = Assignment(0, 7, "streams/1", 42, {3: "no"})
    table.assign(sent, now_us=1)
    table.close()
    again = open_table(tmp_path)
    assert again.assignment == sent and sent.count == 6
    again.confirm(7, stream="streams/1", offset=48, now_us=2)
    assert (again.assignment, again.stream, again.offset, pending(again)) == (None, "streams/1", 48, [7, 8, 9])
    again.close()


def test_a_stream_that_was_left_leaves_no_assignment(tmp_path: Path) -> None:
    """Rows of a batch whose stream is gone wait for another one."""
    append(table := open_table(tmp_path), 0, 10)
    table.assign(Assignment(0, 10, "streams/1", 0), now_us=1)
    table.leave_stream(now_us=2)
    assert (table.assignment, table.stream, table.pending_rows) == (None, "", 10)
    table.close()


def test_confirmed_rows_leave_the_disk(tmp_path: Path) -> None:
    """Segments whose rows are all confirmed are removed; the state survives them."""
    table = open_table(tmp_path, segment_bytes=10_000)
    for start in range(0, 3_000, 100):
        append(table, start, 100)
    before = len(list(tmp_path.glob("trades-*.log")))
    table.confirm(2_900, stream="streams/1", offset=2_900, now_us=1)
    after = len(list(tmp_path.glob("trades-*.log")))
    assert before > 4 and after <= 2
    table.close()
    again = open_table(tmp_path)
    assert pending(again) == list(range(2_900, 3_000)) and again.stream == "streams/1"
    assert again.mark("channel") == Mark(3_000, 2_900)
    again.close()


def test_the_budget_is_said_and_frees_itself(tmp_path: Path) -> None:
    """A full spool refuses rows, saying when to come again, and takes them after a confirmation."""
    table = open_table(tmp_path, max_bytes=3_000_000, segment_bytes=1 << 20)
    start = 0
    while table.size_bytes + rows(start, 5_000).nbytes <= 3_000_000:
        append(table, start, 5_000)
        start += 5_000
    with pytest.raises(SinkBusy, match="max_bytes") as caught:
        append(table, start, 5_000)
    assert caught.value.retry_after and table.rows == start > 0
    table.confirm(start, stream="s", offset=start, now_us=1)
    append(table, start, 5_000)
    assert pending(table) == list(range(start, start + 5_000))
    table.close()


def test_a_full_disk_refuses_rows_and_lets_confirmations_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No space left: nothing of the rows remains, the reserved room takes what leads to confirmations."""
    append(table := open_table(tmp_path), 0, 10)
    real = segments.write_all

    def full(fd: int, data: bytes) -> None:
        if (tmp_path / "reserve").exists():
            os.write(fd, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(fd, data)

    monkeypatch.setattr(segments, "write_all", full)
    with pytest.raises(SinkBusy, match="disk is full"):
        append(table, 10, 10)
    assert table.rows == 10
    table.assign(Assignment(0, 10, "s", 0), now_us=1)
    monkeypatch.setattr(segments, "write_all", real)
    table.confirm(10, stream="s", offset=10, now_us=2)
    append(table, 10, 10)
    table.close()
    again = open_table(tmp_path)
    assert pending(again) == list(range(10, 20))
    assert (tmp_path / "reserve").stat().st_size > 0
    again.close()


def test_a_disk_that_fails_is_no_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trying again does not help against a broken disk, so the error says something else."""
    table = open_table(tmp_path)

    def broken(fd: int, data: bytes) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(segments, "write_all", broken)
    with pytest.raises(SinkError) as caught:
        append(table, 0, 1)
    assert not isinstance(caught.value, SinkBusy)
    monkeypatch.undo()
    table.close()


def test_a_torn_tail_costs_what_was_not_durable(tmp_path: Path) -> None:
    """The last record is cut short, as by a machine that died: what came before it is whole."""
    append(table := open_table(tmp_path), 0, 10)
    append(table, 10, 10)
    table.close()
    path = next(tmp_path.glob("trades-*.log"))
    os.truncate(path, path.stat().st_size - 7)
    again = open_table(tmp_path)
    assert pending(again) == list(range(10)) and again.findings and again.lost_rows == 0
    append(again, 10, 3)
    assert pending(again) == list(range(13))
    again.close()


def test_damage_in_the_middle_is_counted_and_the_rest_kept(tmp_path: Path) -> None:
    """A changed byte in the first of three chunks: its rows are lost and said to be, the others are not."""
    append(table := open_table(tmp_path), 0, 10)
    for start in (10, 20):
        append(table, start, 10)
    table.close()
    path = next(tmp_path.glob("trades-*.log"))
    data = bytearray(path.read_bytes())
    at = data.find(b"row 5")
    data[at] ^= 0xFF
    path.write_bytes(bytes(data))
    again = open_table(tmp_path)
    assert again.lost_rows == 10 and again.pending_rows == 30
    assert pending(again) == list(range(10, 30))
    again.close()


def test_two_processes_cannot_share_a_spool(tmp_path: Path) -> None:
    """The second one is told so, instead of writing into the records of the first."""
    first = open_table(tmp_path)
    with pytest.raises(ConfigError, match="open already"):
        open_table(tmp_path)
    first.close()


def test_columns_may_come_and_go_between_versions(tmp_path: Path) -> None:
    """Rows spooled by an earlier version are read with the columns of this one: absent ones are null."""
    append(table := open_table(tmp_path), 0, 2)
    wider = pa.schema([*SCHEMA, ("more", pa.float64())])
    batch = pa.RecordBatch.from_pydict({"n": [2], "text": ["row 2"], "more": [0.5]}, schema=wider)
    table.append(batch, now_us=5, marks={})
    found = table.read(0, 3, wider)
    assert found.table.column("more").to_pylist() == [None, None, 0.5] and found.numbers == [0, 1, 2]
    table.close()
    again = open_table(tmp_path)
    assert again.read(0, 3, wider).table.column("more").to_pylist() == [None, None, 0.5]
    again.close()


def test_batches_are_whole_chunks_within_the_limits(tmp_path: Path) -> None:
    """A batch ends before it would be too large, and has at least one chunk."""
    table = open_table(tmp_path)
    for start in range(0, 100, 10):
        append(table, start, 10)
    size = table.pending_bytes // 10
    assert table.batch_end(max_rows=35, max_bytes=PLENTY) == 30
    assert table.batch_end(max_rows=PLENTY, max_bytes=5 * size + size // 2) == 50
    assert table.batch_end(max_rows=1, max_bytes=1) == 10
    table.confirm(25, stream="s", offset=25, now_us=1)
    assert table.batch_end(max_rows=25, max_bytes=PLENTY) == 50
    assert table.chunk_start(27) == 20
    table.close()


def test_times_of_rows_are_told_apart_whatever_the_clock_does() -> None:
    """Standing still, going on, going back a little: never the same time twice; going back a lot: believed."""
    state = SpoolState()
    given_out = []
    for now_us in (1_000_000_000, 1_000_000_000, 1_000_000_000, 999_999_000, 1_000_000_500):
        out_us = state.stamp(now_us)
        state.apply(Chunk(state.rows, 1, 1, {"c": Mark(1, out_us)}))
        given_out.append(out_us)
    assert len(set(given_out)) == len(given_out)
    assert state.stamp(500) == 500


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.integers(5, 60))
def test_any_history_of_calls_survives_any_cut(tmp_path_factory: pytest.TempPathFactory, seed: int, steps: int) -> None:
    """Random appends, batches, confirmations and restarts agree with a list, row by row."""
    chance, root = random.Random(seed), tmp_path_factory.mktemp("spool")
    table, written, confirmed = open_table(root, segment_bytes=2_000), 0, 0
    for step in range(steps):
        match chance.randrange(4):
            case 0 | 1:
                count = chance.randrange(1, 20)
                append(table, written, count)
                written += count
            case 2 if confirmed < written:
                end = table.batch_end(max_rows=chance.randrange(1, 50), max_bytes=PLENTY)
                table.assign(Assignment(confirmed, end, "s", confirmed), now_us=step)
                if chance.random() < 0.7:
                    table.confirm(end, stream="s", offset=end, now_us=step)
                    confirmed = end
            case 3:
                table.close()
                table = open_table(root, segment_bytes=2_000)
        assert pending(table) == list(range(confirmed, written))
        assert table.offset == (table.assignment.offset if table.assignment else confirmed)
    table.close()

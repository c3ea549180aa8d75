"""A log of segments: grows in whole records, begins new files, is cut where it is torn and says where it is damaged."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market_data_tick_handler.errors import ConfigError, CorruptObject, NotFound, SchemaMismatch
from market_data_tick_handler.storage.recovery import segment_files
from market_data_tick_handler.storage.recovery.segment_files import Position
from market_data_tick_handler.storage.recovery.segments import SegmentLog
from tests.waiting import PATIENCE_S


def opened(directory: Path, **changes: Any) -> SegmentLog:
    chosen: dict[str, Any] = {"identity": {"instrument": "X"}, "segment_bytes": 200, **changes}
    return SegmentLog(directory, "log", lambda: {"told": "at the beginning"}, **chosen)


def payloads(log: SegmentLog, *places: Position | None) -> list[bytes]:
    return [entry.record.payload for entry in log.read(*places)]


def filled(directory: Path, count: int = 12, **changes: Any) -> list[Position]:
    """A closed log of records b"0", b"1", ... stamped 0, 1, ...; the position behind each."""
    log = opened(directory, **changes)
    positions = [log.append(index, str(index).encode()) for index in range(count)]
    log.close()
    return positions


def files(directory: Path) -> list[Path]:
    return sorted(directory.glob("log-*.log"))


def test_records_are_read_in_order_over_all_segments_and_after_reopening(tmp_path: Path) -> None:
    filled(tmp_path)
    assert len(files(tmp_path)) > 1
    log = opened(tmp_path)
    log.append(12, b"12")
    assert payloads(log) == [str(index).encode() for index in range(13)]
    assert log.findings == []
    assert {segment.header["told"] for segment in log.segments} == {"at the beginning"}
    log.close()


def test_reading_goes_on_behind_any_position_and_stops_at_any(tmp_path: Path) -> None:
    positions = filled(tmp_path)
    log = opened(tmp_path)
    for start in range(12):
        for stop in range(start, 12):
            expected = [str(index).encode() for index in range(start + 1, stop + 1)]
            assert payloads(log, positions[start], positions[stop]) == expected
    assert positions == sorted(positions) and positions[-1] == log.position
    log.close()


def test_what_is_appended_while_reading_is_left_for_the_next_reading(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.append(0, b"0")
    reading = log.read()
    end = log.position
    assert next(reading).record.payload == b"0"
    log.append(1, b"1")
    assert list(reading) == []
    assert payloads(log, end) == [b"1"]
    log.close()


def test_a_segment_ends_when_its_first_record_is_old_enough(tmp_path: Path) -> None:
    log = opened(tmp_path, segment_bytes=1 << 20, segment_age_us=10)
    for stamp in (0, 9, 10, 19, 20):
        log.append(stamp, b"x")
    assert [segment.first_us for segment in log.segments] == [0, 10, 20]
    log.close()


def test_a_full_segment_goes_on_while_a_record_may_not_begin_one(tmp_path: Path) -> None:
    log = opened(tmp_path, segment_bytes=1)
    log.append(0, b"0")
    log.append(1, b"1", may_begin=False)
    log.append(2, b"2")
    assert [segment.first_us for segment in log.segments] == [0, 2]
    log.close()


def test_a_file_cut_at_any_byte_opens_with_every_whole_record_and_goes_on(tmp_path: Path) -> None:
    source = tmp_path / "source"
    positions = filled(source, 6)
    last = files(source)[-1]
    ends = [position.offset for position in positions if position.segment == positions[-1].segment]
    whole = last.read_bytes()
    for size in range(len(whole)):
        copy = tmp_path / str(size)
        shutil.copytree(source, copy)
        (copy / last.name).write_bytes(whole[:size])
        log = opened(copy)
        lost = sum(end > size for end in ends)
        kept = [str(index).encode() for index in range(6 - lost)]
        assert payloads(log) == kept
        assert [finding.damaged for finding in log.findings] == ([] if size in ends else [False])
        log.append(99, b"more")
        log.close()
        again = opened(copy)
        assert payloads(again) == [*kept, b"more"] and again.findings == []
        again.close()
        shutil.rmtree(copy)


@settings(max_examples=60)
@given(data=st.data())
def test_a_changed_byte_costs_no_record_before_it_and_is_told(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("changed")
    positions = filled(directory)
    path = data.draw(st.sampled_from(files(directory)))
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= 0xFF
    path.write_bytes(content)
    log = opened(directory)
    log.append(12, b"12")
    number = int(path.stem.removeprefix("log-"))
    first = next(i for i, end in enumerate(positions) if end >= Position(number, at + 1))
    reading, came = log.read(), []
    try:
        for entry in reading:
            came.append(entry.record.payload)
    except CorruptObject:
        assert came == [str(index).encode() for index in range(len(came))] and len(came) <= first
    else:
        # The last record alone was hit: it is a torn tail.
        assert came == [*(str(index).encode() for index in range(11)), b"12"] and log.findings
    if first < 11:
        behind = positions[max(i for i, end in enumerate(positions) if end.segment == number)]
        assert payloads(log, behind)[-1] == b"12"
    saved = [entry.record.payload for entry in log.read(salvage=True)]
    assert saved[-1] == b"12" and log.findings
    log.close()


def test_a_damaged_last_file_is_not_written_to_again(tmp_path: Path) -> None:
    filled(tmp_path, 3, segment_bytes=1 << 20)
    path = files(tmp_path)[0]
    content = path.read_bytes().replace(b"\x001", b"\x009")
    path.write_bytes(content)
    log = opened(tmp_path, segment_bytes=1 << 20)
    assert log.findings[0].damaged and "goes on in a new file" in str(log.findings[0])
    assert log.last is not None and log.last.payload == b"2"
    log.append(3, b"3")
    assert path.read_bytes() == content and len(files(tmp_path)) == 2
    with pytest.raises(CorruptObject):
        payloads(log)
    assert [entry.record.payload for entry in log.read(salvage=True)] == [b"0", b"2", b"3"]
    log.close()


def test_a_file_that_lost_its_end_or_is_gone_is_noticed(tmp_path: Path) -> None:
    positions = filled(tmp_path)
    second = next(path for path in files(tmp_path) if path.name == "log-0000000002.log")
    whole = second.read_bytes()
    in_second = [position.offset for position in positions if position.segment == 2]
    second.write_bytes(whole[: in_second[-2]])
    log = opened(tmp_path)
    with pytest.raises(CorruptObject, match="expected a whole record"):
        payloads(log)
    log.close()
    second.unlink()
    log = opened(tmp_path)
    with pytest.raises(CorruptObject, match="segment 2, which is gone"):
        payloads(log)
    assert payloads(log, Position(3, 0))
    log.close()


def test_positions_that_were_forgotten_or_never_reached_are_not_found(tmp_path: Path) -> None:
    positions = filled(tmp_path)
    log = opened(tmp_path)
    log.forget(3)
    assert log.oldest == (3, 0)
    with pytest.raises(NotFound, match="was forgotten"):
        payloads(log, positions[0])
    with pytest.raises(NotFound, match="ends at"):
        payloads(log, Position(99, 0))
    log.forget(99)
    assert len(log.segments) == 1 and len(files(tmp_path)) == 1
    log.close()


def test_only_segments_with_nothing_from_a_time_on_are_settled_before_it(tmp_path: Path) -> None:
    log = opened(tmp_path, segment_age_us=10, segment_bytes=1 << 20)
    assert log.settled_before(100) == 1
    for stamp in range(0, 40, 5):
        log.append(stamp, b"x")
    assert [log.settled_before(us) for us in (0, 9, 10, 29, 30, 1_000)] == [1, 1, 2, 3, 4, 4]
    log.close()


def test_a_second_writer_is_refused_until_the_first_one_closes(tmp_path: Path) -> None:
    log = opened(tmp_path)
    with pytest.raises(ConfigError, match="open already"):
        opened(tmp_path)
    log.close()
    log.close()
    opened(tmp_path).close()


def test_a_log_of_another_instrument_is_refused_and_released(tmp_path: Path) -> None:
    filled(tmp_path)
    with pytest.raises(SchemaMismatch, match="a directory of its own"):
        opened(tmp_path, identity={"instrument": "Y"})
    opened(tmp_path).close()


@pytest.mark.parametrize("taken", [0, 1, 7])
def test_a_write_that_fails_half_way_leaves_the_log_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    log = opened(tmp_path, segment_bytes=1 << 20)
    log.append(0, b"0")
    real, calls = os.write, []

    def full(fd: int, data: Any) -> int:
        calls.append(len(data))
        if len(calls) > 1 or not taken:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, bytes(data)[:taken])

    monkeypatch.setattr(segment_files.os, "write", full)
    before = log.position
    with pytest.raises(OSError, match="No space left"):
        log.append(1, b"never")
    monkeypatch.undo()
    assert log.position == before
    log.append(1, b"1")
    log.close()
    again = opened(tmp_path)
    assert payloads(again) == [b"0", b"1"] and again.findings == []
    again.close()


def test_a_first_write_that_fails_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = opened(tmp_path)

    def full(fd: int, data: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(segment_files.os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        log.append(0, b"never")
    monkeypatch.undo()
    assert files(tmp_path) == []
    log.append(0, b"0")
    assert payloads(log) == [b"0"]
    log.close()


def test_short_writes_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = opened(tmp_path)
    real = os.write
    monkeypatch.setattr(segment_files.os, "write", lambda fd, data: real(fd, bytes(data)[:5]))
    log.append(0, b"in pieces")
    log.append(1, b"again")
    monkeypatch.undo()
    assert payloads(log) == [b"in pieces", b"again"]
    log.close()


def test_syncing_in_a_thread_while_files_change_loses_and_leaks_nothing(tmp_path: Path) -> None:
    log = opened(tmp_path, segment_bytes=100)
    synced, stop = threading.Event(), threading.Event()
    failures: list[OSError] = []

    def sync() -> None:
        try:
            while not stop.is_set():
                log.sync()
                synced.set()
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=sync)
    thread.start()
    try:
        assert synced.wait(PATIENCE_S), failures
        for index in range(400):
            log.append(index, str(index).encode())
    finally:
        stop.set()
        thread.join()
    assert failures == []
    assert payloads(log) == [str(index).encode() for index in range(400)]
    log.close()
    assert still_open(tmp_path) == []


def still_open(directory: Path) -> list[str]:
    """Files of a directory that this process has open; what else it has open changes as garbage is collected."""
    found = []
    for link in Path("/proc/self/fd").glob("*"):
        with suppress(OSError):
            found.append(os.readlink(link))
    return [path for path in found if path.startswith(str(directory))]

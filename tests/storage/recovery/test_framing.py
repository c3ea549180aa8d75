"""Records: what was appended whole is read whole, and a tail cut anywhere costs the last record alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market_data_tick_handler.errors import CorruptObject, OutOfRange
from market_data_tick_handler.storage.recovery import framing
from market_data_tick_handler.storage.recovery.framing import HEAD, MAGIC, Finding, frame, read_records, survey

STAMPS = st.integers(-(2**63), 2**63 - 1)
# Payloads that hold the mark of a record are the hard ones for whoever looks for the next record.
PAYLOADS = st.binary(max_size=60) | st.binary(max_size=20).map(lambda data: MAGIC + data)


def written(path: Path, records: list[tuple[int, bytes]]) -> list[int]:
    """The file of these records; where each of them ends."""
    framed = [frame(stamp, payload) for stamp, payload in records]
    path.write_bytes(b"".join(framed))
    return [sum(map(len, framed[: index + 1])) for index in range(len(framed))]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("framing") / "log"


@given(records=st.lists(st.tuples(STAMPS, PAYLOADS), max_size=6))
def test_records_come_back_as_they_were_written(path: Path, records: list[tuple[int, bytes]]) -> None:
    ends = written(path, records)
    found = list(read_records(path, 0, path.stat().st_size))
    assert [(record.stamp, record.payload) for record in found] == records
    assert [record.end for record in found] == ends
    seen = survey(path)
    assert (seen.count, seen.end, seen.torn, seen.damaged) == (len(records), sum(ends[-1:]), False, False)
    assert seen.last == (found[-1] if found else None)


@settings(max_examples=20)
@given(records=st.lists(st.tuples(STAMPS, PAYLOADS), min_size=1, max_size=4))
def test_a_tail_cut_at_any_byte_is_torn_and_ends_with_the_last_whole_record(
    path: Path, records: list[tuple[int, bytes]]
) -> None:
    ends = [0, *written(path, records)]
    whole = path.read_bytes()
    for size in range(ends[-2], ends[-1]):
        path.write_bytes(whole[:size])
        seen = survey(path)
        assert (seen.end, seen.count) == (ends[-2], len(records) - 1)
        assert seen.torn == (size > ends[-2]) and not seen.damaged


@settings(max_examples=20)
@given(records=st.lists(st.tuples(STAMPS, PAYLOADS), min_size=1, max_size=4), data=st.data())
def test_a_changed_byte_is_noticed_wherever_it_is(
    path: Path, records: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    ends = [0, *written(path, records)]
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    hit = next(index for index, end in enumerate(ends[1:]) if at < end)
    seen = survey(path)
    assert seen.end == ends[hit] and seen.torn
    assert seen.damaged == (hit < len(records) - 1)
    with pytest.raises(CorruptObject, match=f"offset {ends[hit]}"):
        list(read_records(path, 0, len(content)))
    skipped: list[Finding] = []
    rest = [record.payload for record in read_records(path, 0, len(content), skipped=skipped)]
    assert rest == [payload for index, (_, payload) in enumerate(records) if index != hit]
    assert [(finding.offset, finding.lost_bytes) for finding in skipped] == [(ends[hit], ends[hit + 1] - ends[hit])]


def test_a_tail_of_zeros_is_torn(path: Path) -> None:
    ends = written(path, [(1, b"one")])
    path.write_bytes(path.read_bytes() + bytes(4096))
    seen = survey(path)
    assert seen.end == ends[0] and seen.torn and not seen.damaged


def test_a_length_beyond_the_end_of_the_file_asks_for_no_memory(path: Path) -> None:
    path.write_bytes(HEAD.pack(MAGIC, 0, 2**32 - 1, 0))
    assert survey(path).end == 0


def test_a_payload_larger_than_a_record_may_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "MAX_PAYLOAD", 10)
    assert frame(0, bytes(10))
    with pytest.raises(OutOfRange, match="at most 10 bytes, got 11"):
        frame(0, bytes(11))

"""A process killed at any moment loses nothing that it was told is kept, and goes on without a hole or a repetition."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from market_data_tick_handler.core.continuity import Continuity
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.storage.recovery.output_journal import OutputJournal
from market_data_tick_handler.storage.recovery.state_store import StateStore
from market_data_tick_handler.storage.recovery.tick_journal import TickJournal
from market_data_tick_handler.storage.recovery.tick_records import Remark
from tests.storage.recovery.appending import SEGMENT_BYTES, SINK, candle_of, rows_of
from tests.storage.recovery.candle_rows import KEY, START_US, assert_same
from tests.waiting import PATIENCE_S


def run_until_killed(repository: Path, directory: Path, random_: random.Random) -> dict[str, int]:
    """Let the process write a random number of turns, kill it wherever it is by then; the last it said of each kind."""
    command = [sys.executable, "-m", "tests.storage.recovery.appending", str(directory)]
    process = subprocess.Popen(command, cwd=repository, stdout=subprocess.PIPE)
    said: dict[str, int] = {}
    with process:
        assert process.stdout is not None
        for _ in range(random_.randint(1, 400)):
            line = process.stdout.readline().split()
            assert line, "the process ended by itself"
            said[line[0].decode()] = int(line[1])
        for _ in range(random_.randint(0, 20_000)):
            pass  # A moment that is no border of a line.
        process.send_signal(signal.SIGKILL)
        for line in process.stdout.read().splitlines():
            kind, number = line.split()
            said[kind.decode()] = int(number)
        assert process.wait(PATIENCE_S) == -signal.SIGKILL
    return said


def check_turns(directory: Path, said: int) -> None:
    journal = TickJournal(directory, KEY, segment_bytes=SEGMENT_BYTES)
    turns = -1
    for turns, turn in enumerate(journal.read()):
        assert turn.notes == (Remark("turn", turns),) and turn.clock_us == START_US + turns
        assert {name: column.tobytes() for name, column in turn.batches[0].columns.items()} == {
            name: column.tobytes() for name, column in rows_of(turns).columns.items()
        }
    assert turns >= said
    assert not any(finding.damaged for finding in journal.findings)
    journal.close()


def check_candles(directory: Path, said: int) -> None:
    outputs = OutputJournal(directory, KEY, sinks=[SINK], segment_bytes=SEGMENT_BYTES)
    identities = set()
    published = -1
    for published, journaled in enumerate(outputs.unacknowledged(SINK)):
        expected = candle_of(published)
        revision = int(published % 3 == 2)
        assert_same(journaled.batch, expected.replace(revision=expected["revision"] + revision))
        assert journaled.first_sequence == published + 1
        identities.add((int(journaled.batch["timestamp"][0]), revision))
    assert published >= said and len(identities) == published + 1
    assert outputs.admit(candle_of(published)) is None
    outputs.close()


def check_states(directory: Path, said: int) -> None:
    store = StateStore(directory, KEY)
    found = store.newest()
    assert (
        found is not None
        and found.extra["turn"] >= said
        and found.snapshot == bytes(range(256)) * (found.extra["turn"] % 300)
    )
    assert not any(finding.damaged for finding in store.findings)
    of, whole = (Continuity(refuse_after_us=1, skew_us=1, grace_us=1) for _ in range(2))
    of.ids.restore(of.state, found.id_marks[DataType.TRADES], *found.id_keys[DataType.TRADES])
    for turn in range(found.extra["turn"] + 1):
        whole.judge(rows_of(turn))
    assert (
        of.ids.log_since(of.state, -1, 0)[-1].keys.tolist() == whole.ids.log_since(whole.state, -1, 0)[-1].keys.tolist()
    )
    journal = TickJournal(directory, KEY, segment_bytes=SEGMENT_BYTES)
    behind = [turn.notes[0] for turn in journal.read(found.position)]
    assert behind[:1] in ([], [Remark("turn", found.extra["turn"] + 1)])
    journal.close()


@pytest.mark.parametrize("seed", range(2))
def test_what_was_acknowledged_before_a_kill_is_whole_after_it(repository: Path, tmp_path: Path, seed: int) -> None:
    random_ = random.Random(seed)
    said: dict[str, int] = {}
    for _ in range(3):
        said |= run_until_killed(repository, tmp_path, random_)
        check_turns(tmp_path, said["turn"])
        check_candles(tmp_path, said["turn"])
        if "state" in said:
            check_states(tmp_path, said["state"])


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(2, 12))
def test_what_was_acknowledged_is_whole_after_many_more_kills(repository: Path, tmp_path: Path, seed: int) -> None:
    test_what_was_acknowledged_before_a_kill_is_whole_after_it(repository, tmp_path, seed)

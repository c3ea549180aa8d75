"""Rows keep their numbers over restarts, files that are forgotten, torn tails and damage; none is used twice."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.ticks import DataType, TickBatch
from market_data_tick_handler.storage.recovery.row_numbers import Numbering
from market_data_tick_handler.storage.recovery.segment_files import Position
from market_data_tick_handler.storage.recovery.tick_journal import TickJournal
from market_data_tick_handler.storage.recovery.tick_records import Remark

KEY = "BINANCE:SPOT_PAIR:BTC-USDT"
TRADES, BOOK = DataType.TRADES, DataType.BOOK
ALL = {TRADES: 0, BOOK: 0}


# Where rows say the number that they are to have.
TAG = {TRADES: "price", BOOK: "ask_price_1"}


def rows(data_type: DataType, first: int, count: int, at_us: int | None = None) -> TickBatch:
    """Rows that are to have these numbers, one microsecond apart."""
    tags = np.arange(first, first + count)
    times = tags if at_us is None else at_us + np.arange(count)
    return TickBatch.build(data_type, {"timestamp": times, "local_timestamp": times, TAG[data_type]: tags})


def numbers(pieces: Iterable[Rows], data_type: DataType = TRADES) -> list[int]:
    """Numbers of all rows; each is checked to be that of its row."""
    found: list[int] = []
    for piece in pieces:
        assert piece.numbers is not None and piece.instrument == KEY
        if piece.data_type is data_type:
            here = list(range(piece.numbers.first, piece.numbers.first + len(piece.batch)))
            assert piece.batch[TAG[data_type]].tolist() == here
            found += here
    return found


def filled(journal: TickJournal, turns: int, first: int = 1, each: int = 3) -> int:
    """Feed turns of trades and a book; the number of the next trade."""
    for turn in range(turns):
        at = first + turn * each
        batches = [rows(TRADES, at, each), rows(BOOK, at // each + 1, 1, at)]
        numbered = journal.append(batches, [Remark("turn", turn)], at + each - 1)
        assert numbers(numbered) == list(range(at, at + each)) and numbers(numbered, BOOK) == [at // each + 1]
    return first + turns * each


def test_every_row_has_the_next_number_of_its_type_over_restarts_and_files(tmp_path: Path) -> None:
    at, birth = 1, ""
    for _ in range(3):
        journal = TickJournal(tmp_path, KEY, segment_bytes=600)
        assert birth in ("", journal.fed.numbering.birth)
        birth = journal.fed.numbering.birth
        at = filled(journal, 10, at)
        journal.close()
    journal = TickJournal(tmp_path, KEY)
    assert len(list(tmp_path.glob("ticks-*"))) > 5
    assert journal.fed.numbering.counts[TRADES] == 90 and journal.fed.numbering.counts[BOOK] == 30
    assert numbers(journal.fed.behind(ALL)) == list(range(1, 91))
    assert numbers(journal.fed.behind(ALL), BOOK) == list(range(1, 31))
    assert numbers(journal.fed.behind({TRADES: 0}), BOOK) == []
    journal.close()


@pytest.mark.parametrize("known", [0, 1, 2, 3, 44, 45, 46, 88, 89, 90, 1_000])
def test_rows_behind_a_number_begin_within_a_turn(tmp_path: Path, known: int) -> None:
    """Wherever one looks from, also from a place that is too late."""
    journal = TickJournal(tmp_path, KEY, segment_bytes=600)
    filled(journal, 10)
    middle = journal.position
    filled(journal, 20, 31)
    for near in (None, Position(1, 0), middle, journal.position, Position(99, 0)):
        found = numbers(journal.fed.behind({TRADES: known, BOOK: known}, near=near))
        assert found == list(range(known + 1, 91)), near
    assert numbers(journal.fed.behind({TRADES: known}, until=middle)) == list(range(known + 1, 31))
    journal.close()


def test_files_that_are_forgotten_take_their_numbers_with_them(tmp_path: Path) -> None:
    journal = TickJournal(tmp_path, KEY, segment_bytes=600)
    filled(journal, 30)
    journal.forget(60)
    journal.close()
    journal = TickJournal(tmp_path, KEY, segment_bytes=600)
    left = numbers(journal.fed.behind(ALL))
    assert left == list(range(left[0], 91)) and 30 < left[0] <= 60
    assert numbers(journal.append([rows(TRADES, 91, 2)], (), 93)) == [91, 92]
    journal.close()


def test_a_row_that_was_torn_off_gives_its_number_to_the_next(tmp_path: Path) -> None:
    journal = TickJournal(tmp_path, KEY)
    filled(journal, 10)
    journal.close()
    (path,) = tmp_path.glob("ticks-*")
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1)
    journal = TickJournal(tmp_path, KEY)
    assert journal.fed.numbering.counts[TRADES] == 27
    assert numbers(journal.append([rows(TRADES, 28, 3)], (), 31)) == [28, 29, 30]
    assert numbers(journal.fed.behind(ALL)) == list(range(1, 31))
    journal.close()


def test_damage_in_the_middle_costs_its_rows_and_moves_no_number(tmp_path: Path) -> None:
    journal = TickJournal(tmp_path, KEY)
    filled(journal, 4)
    begin = journal.position.offset
    filled(journal, 6, 13)
    journal.close()
    (path,) = tmp_path.glob("ticks-*")
    content = bytearray(path.read_bytes())
    content[begin + 30] ^= 0xFF
    path.write_bytes(content)
    journal = TickJournal(tmp_path, KEY)
    assert numbers(journal.append([rows(TRADES, 31, 1)], (), 32)) == [31]
    assert numbers(journal.fed.behind(ALL)) == [*range(1, 13), *range(16, 32)]
    journal.close()


def test_numbers_that_somebody_else_has_are_passed_over(tmp_path: Path) -> None:
    """Also after a restart, although nothing was written in between."""
    journal = TickJournal(tmp_path, KEY)
    filled(journal, 10)
    journal.fed.numbering.raise_to({TRADES: 50, BOOK: 3})
    assert numbers(journal.append([rows(TRADES, 51, 1), rows(BOOK, 11, 1)], (), 52)) == [51]
    journal.close()
    journal = TickJournal(tmp_path, KEY)
    assert numbers(journal.fed.behind({TRADES: 29})) == [30, 51]
    journal.close()


def test_a_write_that_fails_uses_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = TickJournal(tmp_path, KEY)
    filled(journal, 2)

    def full(*args: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(journal._ticks, "_write", full)
        with pytest.raises(OSError, match="no space left"):
            journal.append([rows(TRADES, 7, 3)], (), 10)
    assert numbers(journal.append([rows(TRADES, 7, 1)], (), 11)) == [7]
    journal.close()


def test_a_journal_that_began_anew_is_another_numbering(tmp_path: Path) -> None:
    journal = TickJournal(tmp_path, KEY)
    filled(journal, 2)
    birth = journal.fed.numbering.birth
    journal.close()
    for path in tmp_path.glob("ticks-*"):
        path.unlink()
    journal = TickJournal(tmp_path, KEY)
    assert journal.fed.numbering.birth != birth and journal.fed.numbering.counts[TRADES] == 0
    journal.close()


def test_files_of_a_version_without_numbers_are_read_and_numbers_begin_behind_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Numbering, "describe", lambda self: {})
        patched.setattr(Numbering, "counted", lambda self, turn, batches: turn)
        old = TickJournal(tmp_path, KEY)
        for turn in range(3):
            old.append([rows(TRADES, 10 * turn, 2)], [Remark("turn", turn)], 10 * turn + 5)
        old.add_repair(rows(TRADES, 7, 1))
        position = old.position
        old.close()
    for again in range(2):
        journal = TickJournal(tmp_path, KEY)
        assert journal.covers(position)
        assert sum(len(batch) for turn in journal.read_merged() for batch in turn.batches) == 7 + 3 * again
        assert numbers(journal.fed.behind(ALL)) == [1, 2, 3][: 3 * again]
        assert journal.fed.numbering.counts[TRADES] == 3 * again
        if not again:
            # Their times are numbers, and far from where the clock of the journal stands.
            batch = rows(TRADES, 1, 3)
            assert numbers(journal.append([batch], (), 40)) == [1, 2, 3]
        assert numbers(journal.fetched.behind(ALL)) == []
        journal.close()


def test_fetched_rows_have_numbers_of_their_own_in_the_order_of_fetching(tmp_path: Path) -> None:
    journal = TickJournal(tmp_path, KEY)
    filled(journal, 3)
    journal.add_repair(rows(TRADES, 1, 2))
    here = journal.fetched.position
    journal.add_repair(rows(TRADES, 3, 4))
    birth = journal.fetched.numbering.birth
    journal.close()
    journal = TickJournal(tmp_path, KEY)
    assert journal.fetched.numbering.birth == birth != journal.fed.numbering.birth
    assert numbers(journal.fetched.behind(ALL)) == [1, 2, 3, 4, 5, 6]
    assert numbers(journal.fetched.behind({TRADES: 4}, near=here)) == [5, 6]
    journal.add_repair(rows(TRADES, 7, 1))
    pieces = list(journal.fetched.behind({TRADES: 6}))
    assert numbers(pieces) == [7] and all(piece.numbers and piece.numbers.fetched for piece in pieces)
    journal.close()


def test_when_all_fetched_rows_are_forgotten_their_numbers_are_not_used_again_under_the_same_name(
    tmp_path: Path,
) -> None:
    """In the process the count goes on; the next one finds nothing and begins another."""
    journal = TickJournal(tmp_path, KEY)
    filled(journal, 3)
    journal.add_repair(rows(TRADES, 1, 2))
    birth = journal.fetched.numbering.birth
    journal.forget(1_000)
    assert not list(tmp_path.glob("repairs-*"))
    journal.close()
    journal = TickJournal(tmp_path, KEY)
    assert journal.fetched.numbering.birth != birth
    journal.add_repair(rows(TRADES, 1, 1))
    journal.forget(1_000)
    journal.add_repair(rows(TRADES, 2, 2))
    birth = journal.fetched.numbering.birth
    journal.close()
    journal = TickJournal(tmp_path, KEY)
    assert journal.fetched.numbering.birth == birth and numbers(journal.fetched.behind(ALL)) == [2, 3]
    journal.close()


def test_pieces_are_bounded(tmp_path: Path) -> None:
    journal = TickJournal(tmp_path, KEY)
    filled(journal, 3_000)
    pieces = list(journal.fed.behind({TRADES: 1}))
    assert numbers(pieces) == list(range(2, 9_001)) and max(len(piece.batch) for piece in pieces) < 2_100
    journal.close()

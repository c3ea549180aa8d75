"""The gap ledger: what was written is read once, whatever days it spans and however often it was updated."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path
from threading import Event, Thread

from market_data_tick_handler.core.events import Gap, GapEnding, GapKind
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.core.timeframes import DAY_US
from market_data_tick_handler.storage.checkpoints import checkpoint_days, get_checkpoint, put_checkpoint
from market_data_tick_handler.storage.gap_ledger import read_gaps, replace_gaps, write_gaps
from market_data_tick_handler.storage.paths import gap_ledger_path
from tests.waiting import PATIENCE_S

KEY = "BINANCE:SPOT_PAIR:BTC-USDT"
DAY, NEXT = date(2024, 8, 8), date(2024, 8, 9)
T0 = 1_723_075_200_000_000
GAP = Gap(KEY, DataType.TRADES, T0 + 5, T0 + 10, "socket closed")


def test_gaps_come_back_in_order(tmp_path: Path) -> None:
    later = Gap(KEY, DataType.BOOK, T0 + 50, T0 + 60, "stopped", GapKind.NOT_RUNNING, ending=GapEnding.REPAIRED)
    write_gaps(tmp_path, [later, GAP])
    assert read_gaps(tmp_path, KEY, DAY, DAY) == [GAP, later]


def test_no_ledger_means_no_known_gap(tmp_path: Path) -> None:
    assert read_gaps(tmp_path, KEY, DAY, NEXT) == []


def test_a_gap_over_midnight_is_in_both_days_and_read_once(tmp_path: Path) -> None:
    gap = replace(GAP, to_us=T0 + DAY_US + 1)
    assert len(write_gaps(tmp_path, [gap])) == 2
    assert read_gaps(tmp_path, KEY, DAY, NEXT) == read_gaps(tmp_path, KEY, NEXT, NEXT) == [gap]


def test_a_gap_that_ends_at_midnight_does_not_touch_the_next_day(tmp_path: Path) -> None:
    write_gaps(tmp_path, [replace(GAP, to_us=T0 + DAY_US)])
    assert not (tmp_path / gap_ledger_path(NEXT, KEY)).exists()


def test_a_gap_that_went_on_or_was_back_filled_replaces_its_older_self(tmp_path: Path) -> None:
    write_gaps(tmp_path, [GAP])
    write_gaps(tmp_path, [replace(GAP, to_us=T0 + DAY_US + 7)])
    filled = replace(GAP, to_us=T0 + DAY_US + 7, ending=GapEnding.REPAIRED)
    write_gaps(tmp_path, [filled])
    assert read_gaps(tmp_path, KEY, DAY, NEXT) == [filled]


def test_a_ledger_that_is_replaced_is_whole_for_whoever_reads_it(tmp_path: Path) -> None:
    """What is not among the new gaps goes; at no moment is there no ledger."""
    other = replace(GAP, from_us=T0 + 20, to_us=T0 + 30)
    replace_gaps(tmp_path, [GAP, other])
    replaced, enough = Event(), Event()

    def rewrite() -> None:
        while not enough.is_set():
            replace_gaps(tmp_path, [GAP])
            replaced.set()

    writer = Thread(target=rewrite)
    writer.start()
    try:
        for _ in range(200):
            assert read_gaps(tmp_path, KEY, DAY, DAY) in ([GAP], [GAP, other])
        assert replaced.wait(PATIENCE_S)
    finally:
        enough.set()
        writer.join()
    assert read_gaps(tmp_path, KEY, DAY, DAY) == [GAP]


def test_checkpoints_are_found_by_day_and_instrument(tmp_path: Path) -> None:
    assert get_checkpoint(tmp_path, DAY, KEY) is None
    put_checkpoint(tmp_path, NEXT, KEY, b"two")
    put_checkpoint(tmp_path, DAY, KEY, b"one")
    put_checkpoint(tmp_path, DAY, KEY, b"one again")
    assert get_checkpoint(tmp_path, DAY, KEY) == b"one again"
    assert checkpoint_days(tmp_path, KEY) == [DAY, NEXT]
    assert checkpoint_days(tmp_path, "BINANCE:SPOT_PAIR:ETH-USDT") == []

"""The journal of one pipeline: every row and note it was fed, as stored, in order; and the rows fetched later.

A restart restores a state and feeds what follows its position. A repair adds what it fetched (`add_repair`); from then
on `read_merged` gives those rows at their places in the order of arrival, which is what a replay feeds, and what the
raw day file is written from (`day_rows`). Every row has a number (row_numbers), as fed and as fetched.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import Final

import numpy as np

from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.seen_ids import NEVER_US
from market_data_tick_handler.core.ticks import DataType, TickBatch, concat
from market_data_tick_handler.core.timeframes import DAY_US
from market_data_tick_handler.storage.paths import day_start_us
from market_data_tick_handler.storage.recovery.framing import HEAD, Finding
from market_data_tick_handler.storage.recovery.merged_turns import (
    REPAIR_ROWS,
    JournalTurn,
    Repaired,
    RepairRows,
    Turn,
    merge,
)
from market_data_tick_handler.storage.recovery.row_numbers import NumberedRows, Numbering
from market_data_tick_handler.storage.recovery.segment_files import Position, Segment
from market_data_tick_handler.storage.recovery.segments import SEGMENT_AGE_US, SEGMENT_BYTES, SegmentLog
from market_data_tick_handler.storage.recovery.tick_records import (
    END,
    START,
    Note,
    Order,
    decode_order,
    decode_turn,
    describe_layouts,
    encode_turn,
    order_after,
)

# Rows that `day_rows` gathers before it gives them out.
_DAY_BATCH_ROWS: Final = 65_536


class TickJournal:
    """The journal of one instrument: the files `ticks-*` and `repairs-*` of `directory`, for this process alone.

    segment_bytes, segment_age_us: when a new file is begun; whole files are what `forget` removes.
    fed, fetched: the rows by their numbers.
    One thread appends; `sync` and the readers may run in others.

    Raises:
        ConfigError: another process has it open. SchemaMismatch: the files are of another instrument or format.
    """

    def __init__(
        self,
        directory: str | Path,
        instrument_key: str,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        segment_age_us: int = SEGMENT_AGE_US,
    ) -> None:
        self.instrument_key = instrument_key
        root, identity = Path(directory), {"instrument": instrument_key}
        self._order = START
        self._turn_us = 0
        numbers, numbers_fetched = Numbering(instrument_key), Numbering(instrument_key, fetched=True)
        self._numbers, self._numbers_fetched = numbers, numbers_fetched
        self._ticks = SegmentLog(
            root,
            "ticks",
            self._describe,
            identity=identity,
            segment_bytes=segment_bytes,
            segment_age_us=segment_age_us,
        )
        self._last_us = 0
        self._repaired: list[Repaired] = []
        self._repairs_lock = Lock()
        try:
            self._repairs = SegmentLog(
                root,
                "repairs",
                lambda: {**describe_layouts(), **numbers_fetched.describe()},
                identity=identity,
                segment_bytes=segment_bytes,
                segment_age_us=NEVER_US,
            )
        except BaseException:
            self._ticks.close()
            raise
        self.fed, self.fetched = NumberedRows(self._ticks, numbers), NumberedRows(self._repairs, numbers_fetched)
        self._resume()

    def _describe(self) -> dict[str, object]:
        told = {**describe_layouts(), "order": list(self._order), "rows_from_us": self._turn_us}
        return {**told, **self._numbers.describe()}

    def _resume(self) -> None:
        last = self._ticks.last
        if last is not None:
            header = self._ticks.segments[-1].header
            batches, _ = decode_turn(last.payload, header) if header else ([], [])
            self._order = order_after(decode_order(last.payload), batches, last.stamp)
            self._last_us = last.stamp
        self._numbers.resume(self._ticks)
        self._numbers_fetched.resume(self._repairs)
        for entry in self._repairs.read(salvage=True):
            batches, _ = decode_turn(entry.record.payload, entry.segment.header)
            self._remember(batches[0], entry.start)

    def _remember(self, rows: TickBatch, start: Position) -> None:
        times = rows["local_timestamp"]
        number = self._repaired[-1].number + 1 if self._repaired else 0
        self._repaired.append(Repaired(int(times[0]), int(times[-1]), number, rows.data_type, start))

    # Writing

    def append(self, batches: Sequence[TickBatch], notes: Sequence[Note], clock_us: int) -> list[Rows]:
        """Add what one turn fed, in one write; its rows with their numbers.

        batches: rows as stored, each in order of arrival. notes: what else the pipeline was told. clock_us: the arrival
        clock of the pipeline after the turn. A turn without rows and notes is not written: time alone moves no state.

        Raises:
            OSError: the disk is full or broken; the journal is as before. SchemaMismatch: a column is not as laid out.
        """
        batches = [batch for batch in batches if len(batch)]
        if not batches and not notes:
            return []
        self._turn_us = min((int(batch["local_timestamp"][0]) for batch in batches), default=clock_us)
        # Files are parted between two times, so that `first_us` says of each row whether it is still here.
        apart = self._turn_us > self._order.us
        turn = encode_turn(self._order, batches, notes)
        self._ticks.append(clock_us, self._numbers.counted(turn, batches), may_begin=apart)
        self._order = order_after(self._order, batches, clock_us)
        self._last_us = clock_us
        return self._numbers.take(batches)

    def add_repair(self, batch: TickBatch) -> None:
        """Add rows that were fetched for a gap, their `local_timestamp` saying where they belong, in any order. They
        come behind rows as fed, and behind rows added before, with the same local_timestamp. Durable on return.

        Raises:
            OSError, SchemaMismatch: as `append`.
        """
        times = batch["local_timestamp"]
        if len(times) > 1 and bool((times[1:] < times[:-1]).any()):
            batch = batch.take(np.argsort(times, kind="stable"))
        for start in range(0, len(batch), REPAIR_ROWS):
            rows = batch.slice(start, min(start + REPAIR_ROWS, len(batch)))
            turn = encode_turn(START, [rows], ())
            with self._repairs_lock:
                payload = self._numbers_fetched.counted(turn, [rows])
                end = self._repairs.append(int(rows["local_timestamp"][-1]), payload)
                self._numbers_fetched.take([rows])
                self._remember(rows, Position(end.segment, end.offset - HEAD.size - len(payload)))
        self._repairs.sync()

    def sync(self) -> None:
        """Make what was appended outlive the machine, not only this process. For a thread: it takes milliseconds.

        Raises:
            OSError: the disk did not take it.
        """
        self._ticks.sync()

    def close(self) -> None:
        """Sync and release the files."""
        try:
            self._ticks.close()
        finally:
            self._repairs.close()

    # What is there

    @property
    def position(self) -> Position:
        """Behind the last turn: what a state remembers."""
        return self._ticks.position

    @property
    def first_us(self) -> int:
        """Rows as fed with a local_timestamp from here on are all here, and none from before; far in the future while
        there is none."""
        return min((_rows_from(segment) for segment in self._ticks.segments[:1]), default=NEVER_US)

    @property
    def last_us(self) -> int:
        """Arrival clock of the newest turn; 0 before the first."""
        return self._last_us

    @property
    def size_bytes(self) -> int:
        """Bytes on disk."""
        return self._ticks.size_bytes + self._repairs.size_bytes

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Torn tails that were cut, and damage, as found since this was opened."""
        return (*self._ticks.findings, *self._repairs.findings)

    def covers(self, position: Position) -> bool:
        """True if every turn behind `position` is there, so that a state saved at it can be brought up to date."""
        return self._ticks.holds(position)

    # Reading

    def read(self, from_position: Position | None = None, *, until: Position | None = None) -> Iterator[JournalTurn]:
        """The turns as fed from a position (default: the oldest) to another (default: what is there now).

        Raises:
            NotFound: the position was forgotten, or the journal never got there. CorruptObject: a turn is not whole.
        """
        return (turn for _, _, turn in self._turns(from_position, until))

    def read_merged(
        self, from_position: Position | None = None, *, from_us: int | None = None, until: Position | None = None
    ) -> Iterator[JournalTurn]:
        """As `read`, with the fetched rows at their places; turns of fetched rows alone come between the others.

        from_us: the arrival clock of the state saved at `from_position`: fetched rows before it are in that state.
        Choose a state from before the gap. Without `until`, fetched rows later than the last turn come at the end;
        move the clock past them before a state is saved.
        """
        turns = self._turns(from_position, until)
        first = next(turns, None)
        here = self._order if first is None else first.before
        begin = START if from_position is None else here
        if from_us is not None:
            begin = max(begin, Order(from_us, -1))
        end = END if until is None else None
        rest = chain(() if first is None else (first,), turns)
        return merge(rest, self._fetched(begin), end)

    def day_rows(self, day: date, data_type: DataType) -> Iterator[TickBatch]:
        """Every row of the data type with local_timestamp on that UTC day, as fed and as fetched, in order, each once.
        Rows before `first_us` are no longer here, nor are those fetched for that time.

        Raises:
            CorruptObject: a turn is not whole.
        """
        begin_us = max(day_start_us(day), self.first_us if self._forgot else 0)
        end_us = day_start_us(day) + DAY_US
        turns = self._turns(self._segment_of(begin_us), None, data_type, end_us)
        fetched = self._fetched(Order(begin_us, -1), data_type)
        gathered: list[TickBatch] = []
        count = 0
        for turn in merge(turns, fetched, Order(end_us, -1)):
            for batch in turn.batches:
                start, stop = np.searchsorted(batch["local_timestamp"], [begin_us, end_us], "left").tolist()
                gathered.append(batch.slice(start, stop))
                count += stop - start
            if count >= _DAY_BATCH_ROWS:
                yield concat(gathered)
                gathered, count = [], 0
        if count:
            yield concat(gathered)

    @property
    def _forgot(self) -> bool:
        return bool(self._ticks.segments) and self._ticks.segments[0].number > 1

    def _segment_of(self, us: int) -> Position | None:
        """Where the last file begins that all rows from `us` on are in or behind; None is the first."""
        known = [segment.number for segment in self._ticks.segments if segment.header and _rows_from(segment) <= us]
        return Position(known[-1], 0) if known else None

    def _turns(
        self,
        start: Position | None,
        stop: Position | None,
        only: DataType | None = None,
        end_us: int | None = None,
    ) -> Iterator[Turn]:
        for entry in self._ticks.read(start, stop):
            before = decode_order(entry.record.payload)
            if end_us is not None and before.us >= end_us:
                return
            batches, notes = decode_turn(entry.record.payload, entry.segment.header, only)
            turn = JournalTurn(tuple(batches), tuple(notes), entry.record.stamp, entry.position)
            yield Turn(before, entry.start, turn)

    def _fetched(self, begin: Order, only: DataType | None = None) -> RepairRows:
        records = [record for record in self._repaired if only is None or record.data_type is only]
        return RepairRows(records, self._load, begin)

    def _load(self, record: Repaired) -> TickBatch:
        entry = self._repairs.read_at(record.start)
        return decode_turn(entry.record.payload, entry.segment.header)[0][0]

    # Forgetting

    def forget(self, before_us: int) -> None:
        """Remove the files whose rows all arrived before `before_us`."""
        self._ticks.forget(self._ticks.settled_before(before_us))
        with self._repairs_lock:
            self._forget_repairs(before_us)

    def _forget_repairs(self, before_us: int) -> None:
        kept = [record for record in self._repaired if record.last_us >= before_us]
        if len(kept) == len(self._repaired):
            return
        if not kept:
            self._repairs.rotate()
        keep_from = min((record.start.segment for record in kept), default=self._repairs.position.segment)
        self._repairs.forget(keep_from)
        self._repaired = [record for record in self._repaired if record.start.segment >= keep_from]


def _rows_from(segment: Segment) -> int:
    """All rows of a file, and of those behind it, are from here on."""
    return int(segment.header.get("rows_from_us", segment.first_us))

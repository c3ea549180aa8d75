"""Numbers of the rows of a journal, so that whoever takes them can say which ones it has, and be given the others.

The rows of each data type are counted from 1 on since the numbering began, over restarts. The header of a file says how
far the counts were before it; behind the turn of each record stands how far they are with it. So neither files that
are forgotten nor records that are damaged move a number. Files of versions that counted nothing say nothing of it:
their rows have no numbers, and a numbering begins behind them.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from market_data_tick_handler.core.events import RowNumbers, Rows
from market_data_tick_handler.core.ticks import DataType, TickBatch, concat
from market_data_tick_handler.storage.recovery.segment_files import Entry, Position
from market_data_tick_handler.storage.recovery.segments import SegmentLog
from market_data_tick_handler.storage.recovery.tick_records import decode_turn

_HEADER: Final = "numbers"
_TYPES: Final = tuple(DataType)
_COUNTS: Final = struct.Struct(f"<{len(_TYPES)}q")
# Rows that are given out together.
_PIECE_ROWS: Final = 2_048

Counts = Mapping[DataType, int]


class Numbering:
    """The numbers of the rows of one series of files. birth: names them; another one where no file is left.

    fetched: whether the rows are those that repairs fetched.
    """

    def __init__(self, instrument_key: str, *, fetched: bool = False) -> None:
        self.instrument_key = instrument_key
        self.birth = secrets.token_hex(6)
        self._fetched = fetched
        self._counts = dict.fromkeys(_TYPES, 0)

    def resume(self, log: SegmentLog) -> None:
        """Go on where the files end."""
        if not log.segments:
            return
        told = log.segments[-1].header.get(_HEADER)
        if told is None or tuple(told["counts"]) != _TYPES:
            # A file must not have rows of two numberings, or of two versions of it.
            log.rotate()
        if told is not None:
            self.birth = told["birth"]
            self.raise_to(_counts_of(told) if log.last is None else _counts_behind(log.last.payload, told))

    def describe(self) -> dict[str, Any]:
        """For the header of a file that begins now."""
        return {_HEADER: {"birth": self.birth, "counts": {str(name): count for name, count in self._counts.items()}}}

    @property
    def counts(self) -> Counts:
        """The number of the newest row of each data type; 0 before the first."""
        return dict(self._counts)

    def counted(self, turn: bytes, batches: Sequence[TickBatch]) -> bytes:
        """The payload of a record: a turn of these rows, and the counts behind it."""
        counts = dict(self._counts)
        for batch in batches:
            counts[batch.data_type] += len(batch)
        return turn + _COUNTS.pack(*counts.values())

    def take(self, batches: Sequence[TickBatch]) -> list[Rows]:
        """Count rows whose record is written, and number them."""
        numbered = []
        for batch in batches:
            numbered.append(self.rows(batch, self._counts[batch.data_type] + 1))
            self._counts[batch.data_type] += len(batch)
        return numbered

    def rows(self, batch: TickBatch, first: int) -> Rows:
        """Rows with their numbers."""
        return Rows(self.instrument_key, batch, numbers=RowNumbers(self.birth, first, self._fetched))

    def raise_to(self, counts: Counts) -> None:
        """Rows to come have higher numbers than these."""
        for name, count in counts.items():
            self._counts[name] = max(self._counts[name], count)

    def before(self, entry: Entry, batches: Sequence[TickBatch]) -> dict[DataType, int] | None:
        """How far the counts were before a record, which has these rows; None if it is not of this numbering."""
        told = self._told(entry.segment.header)
        if told is None:
            return None
        counts = _counts_behind(entry.record.payload, told)
        for batch in batches:
            counts[batch.data_type] -= len(batch)
        return counts

    def before_file(self, header: Mapping[str, Any]) -> Counts | None:
        """How far the counts were before a file; None if it is not of this numbering."""
        told = self._told(header)
        return None if told is None else _counts_of(told)

    def _told(self, header: Mapping[str, Any]) -> Mapping[str, Any] | None:
        told: Mapping[str, Any] | None = header.get(_HEADER)
        return told if told is not None and told["birth"] == self.birth else None


class NumberedRows:
    """The rows of one series of files by their numbers. For threads, while another one appends."""

    def __init__(self, log: SegmentLog, numbering: Numbering) -> None:
        self._log = log
        self.numbering = numbering

    @property
    def position(self) -> Position:
        """Behind the last record."""
        return self._log.position

    def behind(self, counts: Counts, *, near: Position | None = None, until: Position | None = None) -> Iterator[Rows]:
        """Rows of the data types of `counts` with higher numbers than those, in the order of the numbers of each, in
        pieces of a few thousands. Numbers are missing where files were forgotten or are damaged.

        near: a place to look from, if it is not behind the rows. until: where to end; default: what is there now.

        Raises:
            NotFound: a file was forgotten meanwhile.
        """
        if all(self.numbering.counts[name] <= count for name, count in counts.items()):
            return
        turns = self._turns(self._begin(counts, near), until)
        yield from _joined(_cut(self.numbering, turns, counts), self.numbering)

    def _begin(self, counts: Counts, near: Position | None) -> Position | None:
        if near is not None and self._log.holds(near):
            first = next(self._turns(near, None), None)
            before = self.numbering.counts if first is None else self.numbering.before(*first)
            if before is not None and _reaches(before, counts):
                return near
        begin = None
        for segment in list(self._log.segments):
            here = self.numbering.before_file(segment.header)
            if here is not None and (begin is None or _reaches(here, counts)):
                begin = Position(segment.number, 0)
        return begin

    def _turns(self, start: Position | None, until: Position | None) -> Iterator[tuple[Entry, list[TickBatch]]]:
        for entry in self._log.read(start, until, salvage=True):
            if entry.segment.header:
                yield entry, decode_turn(entry.record.payload, entry.segment.header)[0]


def _reaches(before: Counts, counts: Counts) -> bool:
    """Whether nothing behind `counts` lies before the place where the counts are `before`."""
    return all(before[name] <= count for name, count in counts.items())


class _Piece(NamedTuple):
    first: int
    batch: TickBatch

    @property
    def end(self) -> int:
        return self.first + len(self.batch)


def _cut(numbering: Numbering, turns: Iterable[tuple[Entry, list[TickBatch]]], counts: Counts) -> Iterator[_Piece]:
    """The batches of turns without rows up to `counts`."""
    for entry, batches in turns:
        before = numbering.before(entry, batches)
        if before is None:
            continue
        for batch in batches:
            name, first = batch.data_type, before[batch.data_type] + 1
            before[name] += len(batch)
            if name in counts and before[name] > counts[name]:
                skipped = max(counts[name] + 1 - first, 0)
                yield _Piece(first + skipped, batch.slice(skipped, len(batch)))


def _joined(pieces: Iterable[_Piece], numbering: Numbering) -> Iterator[Rows]:
    """Pieces of one data type without a hole between them end to end."""
    held: dict[DataType, list[_Piece]] = {}
    for piece in pieces:
        name = piece.batch.data_type
        before = held.get(name, [])
        if before and (before[-1].end != piece.first or before[-1].end - before[0].first >= _PIECE_ROWS):
            yield _whole(held.pop(name), numbering)
        held.setdefault(name, []).append(piece)
    for rest in held.values():
        yield _whole(rest, numbering)


def _whole(pieces: Sequence[_Piece], numbering: Numbering) -> Rows:
    return numbering.rows(concat([piece.batch for piece in pieces]), pieces[0].first)


def _counts_of(told: Mapping[str, Any]) -> dict[DataType, int]:
    return {DataType(name): count for name, count in told["counts"].items()}


def _counts_behind(payload: bytes, told: Mapping[str, Any]) -> dict[DataType, int]:
    # The header names the data types in the order in which they are counted.
    names = [DataType(name) for name in told["counts"]]
    counts = struct.unpack_from(f"<{len(names)}q", payload, len(payload) - 8 * len(names))
    return dict(zip(names, counts, strict=True))

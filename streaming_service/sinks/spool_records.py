"""What a spool writes down: rows, where they were sent, and what arrived; and what follows from it.

A payload is a byte that says the kind, then JSON; behind the JSON of rows stands the Arrow record batch. Rows of a
table are numbered from 0 on, over restarts: a batch is a range of these numbers.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from market_data_tick_handler.errors import CorruptObject

_HEAD: Final = struct.Struct("<BI")
_CHUNK: Final = 1
_ASSIGNED: Final = 2
_CONFIRMED: Final = 3
_LEFT: Final = 4
_BEGUN: Final = 5
# A clock that went back by more than this is believed; by less, time is taken to stand still.
_STEP_BACK_US: Final = 1_000_000


class Mark(NamedTuple):
    """How far a channel has got: the number of its last row, and when that row left the service (µs UTC)."""

    sequence: int
    out_us: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows appended at once: number of the first, how many, bytes of their columns, and how far their channels are."""

    first_row: int
    rows: int
    data_bytes: int
    marks: Mapping[str, Mark]

    @property
    def end_row(self) -> int:
        return self.first_row + self.rows


@dataclass(frozen=True, slots=True)
class Assignment:
    """The identity of a batch: rows [begin, end) without the refused ones are at `offset` of `stream`, or nowhere.

    refused: why, by number of the row.
    """

    begin: int
    end: int
    stream: str
    offset: int
    refused: Mapping[int, str] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Rows of the batch."""
        return self.end - self.begin - len(self.refused)


@dataclass(frozen=True, slots=True)
class Confirmed:
    """Rows before `end` are in the table, or among the dead letters; the next batch goes to `offset` of `stream`
    (empty: to a new one)."""

    end: int
    stream: str
    offset: int


@dataclass(frozen=True, slots=True)
class StreamLeft:
    """The stream takes no more rows, and nothing of the batch assigned to it is in the table."""


@dataclass(frozen=True, slots=True)
class Begun:
    """Channels begin behind these marks: rows up to there are somebody else's. Channels that have the same name before
    the last `@` are over."""

    marks: Mapping[str, Mark]


Record = Chunk | Assignment | Confirmed | StreamLeft | Begun


@dataclass(slots=True)
class SpoolState:
    """What the records say when read in order.

    rows: number of the next row. confirmed: rows before it are done with. stream, offset: where the next batch goes;
    empty: a new stream is needed. marks: by channel. out_us: the last time given to rows by `stamp`.
    """

    rows: int = 0
    confirmed: int = 0
    stream: str = ""
    offset: int = 0
    assignment: Assignment | None = None
    marks: dict[str, Mark] = field(default_factory=dict)
    out_us: int = 0

    def apply(self, record: Record) -> None:
        """Go on by one record."""
        match record:
            case Chunk():
                self.rows = record.end_row
                self.marks.update(record.marks)
                self.out_us = max((mark.out_us for mark in record.marks.values()), default=self.out_us)
            case Assignment():
                self.assignment, self.stream, self.offset = record, record.stream, record.offset
            case Confirmed():
                self.assignment, self.confirmed = None, record.end
                self.stream, self.offset = record.stream, record.offset
            case StreamLeft():
                self.assignment, self.stream, self.offset = None, "", 0
            case Begun():
                over = {_series(channel) for channel in record.marks} - {""}
                self.marks = {name: mark for name, mark in self.marks.items() if _series(name) not in over}
                self.marks.update(record.marks)

    def stamp(self, now_us: int) -> int:
        """A time for rows that leave now, which no rows before them have. It goes back only when the clock does so by
        more than a second: that is a clock put right."""
        if self.out_us - _STEP_BACK_US <= now_us <= self.out_us:
            return self.out_us + 1
        return now_us

    def tree(self) -> dict[str, Any]:
        """As JSON, for the header of a segment."""
        return {
            "rows": self.rows,
            "confirmed": self.confirmed,
            "stream": self.stream,
            "offset": self.offset,
            "assignment": None if self.assignment is None else _assignment_tree(self.assignment),
            "marks": _marks_tree(self.marks),
            "out_us": self.out_us,
        }

    @classmethod
    def of_tree(cls, tree: Mapping[str, Any]) -> SpoolState:
        """What `tree` was made from."""
        assigned = tree["assignment"]
        return cls(
            tree["rows"],
            tree["confirmed"],
            tree["stream"],
            tree["offset"],
            None if assigned is None else _assignment_of(assigned),
            _marks_of(tree["marks"]),
            tree["out_us"],
        )


def encode(record: Record, body: bytes | memoryview = b"") -> bytes:
    """The payload of a record; `body`: the record batch of rows."""
    match record:
        case Chunk():
            kind, tree = _CHUNK, [record.first_row, record.rows, record.data_bytes, _marks_tree(record.marks)]
        case Assignment():
            kind, tree = _ASSIGNED, _assignment_tree(record)
        case Confirmed():
            kind, tree = _CONFIRMED, [record.end, record.stream, record.offset]
        case StreamLeft():
            kind, tree = _LEFT, []
        case Begun():
            kind, tree = _BEGUN, [_marks_tree(record.marks)]
    text = json.dumps(tree, separators=(",", ":")).encode()
    return b"".join((_HEAD.pack(kind, len(text)), text, body))


def decode(payload: bytes) -> tuple[Record, int]:
    """The record of a payload, and where its body begins.

    Raises:
        CorruptObject: it is none.
    """
    try:
        kind, length = _HEAD.unpack_from(payload)
        tree = json.loads(payload[_HEAD.size : _HEAD.size + length])
        return _record_of(kind, tree), _HEAD.size + length
    except (struct.error, ValueError, TypeError, LookupError) as error:
        raise CorruptObject(f"spool: expected a record of this version, got: {error}; restore the file") from error


def _record_of(kind: int, tree: Any) -> Record:
    if kind == _CHUNK:
        first_row, rows, data_bytes, marks = tree
        return Chunk(first_row, rows, data_bytes, _marks_of(marks))
    if kind == _ASSIGNED:
        return _assignment_of(tree)
    if kind == _CONFIRMED:
        return Confirmed(*tree)
    if kind == _LEFT:
        return StreamLeft()
    if kind == _BEGUN:
        return Begun(_marks_of(tree[0]))
    raise ValueError(f"kind {kind}")


def _series(channel: str) -> str:
    return channel.rpartition("@")[0]


def _marks_tree(marks: Mapping[str, Mark]) -> dict[str, list[int]]:
    return {channel: list(mark) for channel, mark in marks.items()}


def _marks_of(tree: Mapping[str, Any]) -> dict[str, Mark]:
    return {channel: Mark(*mark) for channel, mark in tree.items()}


def _assignment_tree(record: Assignment) -> list[Any]:
    return [record.begin, record.end, record.stream, record.offset, list(record.refused.items())]


def _assignment_of(tree: list[Any]) -> Assignment:
    begin, end, stream, offset, refused = tree
    return Assignment(begin, end, stream, offset, dict(map(tuple, refused)))

"""Which OKX frame is about what, and how the frames of one kind are decoded.

Every data frame is `{"arg": {"channel": ..., "instId": ...}, "data": [...]}`, and its text up to the first brace that
closes is the same for every frame of one subscription: frames are sorted by that text, which is parsed once, and each
subscription's frames are then decoded by the type of their channel. A frame that this cannot tell is decoded alone.
https://www.okx.com/docs-v5/en/#overview-websocket-overview
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

import msgspec

from market_data_tick_handler.core.ticks import Array
from market_data_tick_handler.errors import ProtocolViolation

# Bytes that are no UTF-8 raise an error of their own.
UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError)
_SHOWN_BYTES: Final = 200
_TEXT_START: Final = b'{"arg":{'
# Far above the number of subscriptions of a connection; what fills it is no OKX feed.
_MOST_TEXTS: Final = 65_536

T = TypeVar("T", bound=msgspec.Struct)


class Topic(msgspec.Struct, frozen=True, gc=False):
    """What a frame is about: the `arg` of its subscription. A field that is not in it is empty."""

    channel: str = ""
    instId: str = ""


class Frame(msgspec.Struct, Generic[T], gc=False, eq=False):
    """A data frame. `action` is there for books only."""

    data: list[T]
    action: str = ""


class _Head(msgspec.Struct, gc=False):
    arg: Topic | None = None
    event: str = ""


class _Loose(msgspec.Struct, gc=False):
    """A frame that is not what its channel says, taken apart as far as it goes."""

    data: list[msgspec.Raw] | None = None
    event: str = ""
    action: str = ""


_decode_head: Final = msgspec.json.Decoder(_Head).decode
_decode_loose: Final = msgspec.json.Decoder(_Loose).decode


@dataclass(slots=True)
class Sorted:
    """Indices of the frames of a batch by what they are about; those without data; those that are no JSON."""

    topics: dict[Topic, list[int]] = field(default_factory=dict)
    control: list[int] = field(default_factory=list)
    violations: list[ProtocolViolation] = field(default_factory=list)


@dataclass(slots=True)
class Read(Generic[T]):
    """Frames of one channel, decoded.

    frames: what could be read. at: the index of each in the batch. broken: indices of frames that lack something; what
    is left of them is among `frames`, perhaps with no data at all. control: indices of frames that are no data.
    """

    frames: list[Frame[T]]
    at: list[int]
    broken: list[int] = field(default_factory=list)
    control: list[int] = field(default_factory=list)
    violations: list[ProtocolViolation] = field(default_factory=list)


class Sorter:
    """Tells what frames are about; remembers the texts that frames begin with."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[bytes, Topic | None] = {}

    def sort(self, frames: Sequence[bytes]) -> Sorted:
        """Every index of `frames` in exactly one place."""
        texts: defaultdict[bytes, list[int]] = defaultdict(list)
        for index, frame in enumerate(frames):
            texts[frame[: frame.find(b"}")]].append(index)
        out = Sorted()
        for text, places in texts.items():
            topic = self._topic(text)
            if topic is None:
                for index in places:
                    _sort_one(index, frames[index], out)
            elif topic in out.topics:
                # The same subscription written differently: back into the order of arrival.
                out.topics[topic] = sorted(out.topics[topic] + places)
            else:
                out.topics[topic] = places
        return out

    def _topic(self, text: bytes) -> Topic | None:
        if text not in self._known:
            if len(self._known) >= _MOST_TEXTS:
                self._known.clear()
            self._known[text] = _parse_text(text)
        return self._known[text]


def _parse_text(text: bytes) -> Topic | None:
    if not text.startswith(_TEXT_START):
        return None
    try:
        return _decode_head(text + b"}}").arg
    except UNREADABLE:
        return None


def _sort_one(index: int, raw: bytes, out: Sorted) -> None:
    if raw == b"pong":
        out.control.append(index)
        return
    try:
        head = _decode_head(raw)
    except UNREADABLE as error:
        out.violations.append(violation(raw, str(error)))
        return
    if head.event or head.arg is None:
        out.control.append(index)
    else:
        places = out.topics.setdefault(head.arg, [])
        places.append(index)
        places.sort()


class Reader(Generic[T]):
    """Decodes the frames of one kind of channel."""

    __slots__ = ("_decode_frame", "_decode_item")

    def __init__(self, kind: type[T]) -> None:
        self._decode_frame = msgspec.json.Decoder(Frame[kind], strict=False).decode  # type: ignore[valid-type]
        self._decode_item = msgspec.json.Decoder(kind, strict=False).decode

    def read(self, frames: Sequence[bytes], places: Sequence[int]) -> Read[T]:
        """The frames at `places`, in that order."""
        try:
            return Read([self._decode_frame(frames[index]) for index in places], list(places))
        except UNREADABLE:
            pass
        out: Read[T] = Read([], [])
        for index in places:
            self._read_one(index, frames[index], out)
        return out

    def _read_one(self, index: int, raw: bytes, out: Read[T]) -> None:
        try:
            frame = self._decode_frame(raw)
        except UNREADABLE as error:
            self._take_apart(index, raw, str(error), out)
        else:
            out.frames.append(frame)
            out.at.append(index)

    def _take_apart(self, index: int, raw: bytes, why: str, out: Read[T]) -> None:
        """The items that can be read; a violation for each of the others, or one for the frame."""
        try:
            loose = _decode_loose(raw)
        except UNREADABLE as error:
            loose, why = _Loose(), str(error)
        if loose.event:
            out.control.append(index)
            return
        items: list[T] = []
        for item in loose.data or ():
            try:
                items.append(self._decode_item(item))
            except UNREADABLE as error:
                out.violations.append(violation(bytes(item), str(error)))
        if loose.data is None:
            out.violations.append(violation(raw, why))
        out.frames.append(Frame(items, loose.action))
        out.at.append(index)
        out.broken.append(index)


def at_rows(at: Sequence[int], counts: Sequence[int], local_us: Array) -> Array:
    """The times of arrival of rows, of which frame `at[k]` has `counts[k]`."""
    if counts.count(1) == len(counts):
        return local_us[list(at)]
    return local_us[[index for index, count in zip(at, counts, strict=True) for _ in range(count)]]


def violation(raw: bytes, why: str) -> ProtocolViolation:
    """The error that `raw` is."""
    shown = raw[:_SHOWN_BYTES].decode("utf-8", "replace")
    return ProtocolViolation(
        f"expected a frame of OKX's API v5, got {shown!r} ({why}); left out; if it repeats, the format has changed",
        raw=raw,
    )

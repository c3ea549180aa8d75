"""Which stream each frame of a batch is of, told from its first bytes, so that each kind is decoded in one go.

Binance writes a frame of a combined stream as `{"stream":"btcusdt@trade","data":...}`: the name stands at a fixed place
and is looked up as it is. A frame that begins in another way, or with a name that is not in the table, is looked at
with a JSON decoder; there are few of them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Generic, Protocol, TypeVar

import msgspec
import numpy as np

from market_data_tick_handler.core.ticks import Array, DataType
from market_data_tick_handler.errors import ProtocolViolation
from streaming_service.sources.exchanges.protocol import Decoded, Stream

_NAME_AT: Final = len('{"stream":"')
_SHOWN_BYTES: Final = 200
# Bounds the table where names are met that were not in it at first.
_MOST_NAMES: Final = 20_000
# A frame outside a stream by which the venue says that it will end the connection.
SHUTDOWN: Final = "serverShutdown"
_TRADE_EVENT: Final = "trade"

_Name = TypeVar("_Name", bound=Hashable)


class Sound(Protocol):
    """What a message has to say whether its numbers make sense."""

    def is_sound(self) -> bool: ...


_Message = TypeVar("_Message", bound=Sound)


class Channel(StrEnum):
    """What the frames of a stream hold. The value is what stands behind the first `@` of its name."""

    TRADE = "trade"
    DEPTH = "depth"
    DEPTH_20 = "depth20"
    DEPTH_100 = "depth100"
    DEPTH_SNAPSHOT = "depthSnapshot"
    BOOK_TICKER = "bookTicker"
    MARK_PRICE = "markPrice"
    INDEX_PRICE = "indexPrice"
    TICKER = "ticker"
    OPEN_INTEREST = "openInterest"
    FORCE_ORDER = "forceOrder"
    OPTION_TRADE = "optionTrade"
    OPTION_MARK_PRICE = "optionMarkPrice"
    OPTION_TICKER = "optionTicker"
    OPTION_OPEN_INTEREST = "optionOpenInterest"
    INDEX = "index"
    ARRAY = "arr"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Route:
    """Where frames of one stream go. subject: an instrument key; a pair or underlying where a stream is about that.
    stream: what they are counted under where they are none of ours, as those of channel OTHER are."""

    channel: Channel
    subject: str
    stream: Stream


class Routes:
    """The table of streams that one decoder knows.

    named: routes by (symbol as it stands in stream names, channel). Everything else is counted as filtered, under the
    data type that `foreign` has for its channel; the best bid and ask, which is what else there is, under books.
    """

    __slots__ = ("_by_name", "_find", "_foreign", "_named")

    def __init__(
        self,
        named: Mapping[tuple[str, Channel], Route],
        *,
        foreign: Mapping[Channel, DataType],
        endings: Mapping[Channel, Sequence[str]],
        find: Callable[[str, Channel], Route | None] = lambda symbol, channel: None,
    ) -> None:
        """`endings`: what may follow a channel in names: `@100ms`. `find`: the route of a symbol (upper case) and
        channel that are not in the table; the table is extended by what it finds."""
        self._named = dict(named)
        self._find = find
        self._foreign = foreign
        self._by_name: dict[bytes, Route] = {}
        for (symbol, channel), route in named.items():
            for ending in ("", *endings.get(channel, ())):
                self._remember(f"{symbol}@{channel}{ending}", route)

    def sort(self, frames: Sequence[bytes], indices: Array, decoded: Decoded) -> dict[Channel, dict[str, Array]]:
        """`indices` of `frames` (increasing) by channel and subject. What is none of ours is noted in `decoded`."""
        found: dict[Channel, dict[str, list[Array]]] = {}
        chosen = [frames[index] for index in indices.tolist()]
        names = [frame[_NAME_AT : frame.find(b'"', _NAME_AT)] for frame in chosen]
        for name, members in by_name(names).items():
            places = indices if members is None else indices[members]
            route = self._by_name.get(name)
            if route is not None:
                _add(found, route, places, decoded)
                continue
            for place in places.tolist():
                strange = self._look_at(frames[place], place, decoded)
                if strange is not None:
                    _add(found, strange, np.array([place]), decoded)
        return {
            channel: {subject: _merged(parts) for subject, parts in subjects.items()}
            for channel, subjects in found.items()
        }

    def _look_at(self, frame: bytes, place: int, decoded: Decoded) -> Route | None:
        """The route of a frame whose first bytes do not tell it; None where it is noted in `decoded` instead."""
        try:
            head = _decode_head(frame)
        except UNREADABLE as error:
            decoded.violations.append(violation(frame, str(error)))
            return None
        name = head.stream or (f"{head.s.lower()}@{_TRADE_EVENT}" if head.e == _TRADE_EVENT else "")
        if "@" not in name and (not head.e or head.e == SHUTDOWN):
            decoded.control.append(place)
            return None
        route = self._resolve(name or f"{head.s}@{head.e}")
        if head.stream and route.channel is not Channel.OTHER and len(self._by_name) < _MOST_NAMES:
            self._remember(head.stream, route)
        return route

    def _remember(self, name: str, route: Route) -> None:
        # Some symbols are not ASCII, and JSON writes them in two ways.
        self._by_name[name.encode()] = route
        self._by_name[name.encode("ascii", "backslashreplace")] = route

    def _resolve(self, name: str) -> Route:
        symbol, _, rest = name.partition("@")
        text = rest.partition("@")[0]
        channel = Channel(text) if text in _CHANNELS else Channel.OTHER
        if route := self._named.get((symbol, channel)):
            return route
        subject = symbol.upper()
        if route := self._find(subject, channel):
            return route
        return Route(Channel.OTHER, subject, (subject, self._foreign.get(channel, DataType.BOOK)))


class Wrapped(msgspec.Struct, Generic[_Message], gc=False, eq=False):
    """A frame of a combined stream."""

    data: _Message


class Reader(Generic[_Message]):
    """Frames of one kind to messages."""

    __slots__ = ("_decode",)

    def __init__(self, decoder: msgspec.json.Decoder[Wrapped[_Message]]) -> None:
        self._decode = decoder.decode

    def read(self, frames: Sequence[bytes], places: Array, decoded: Decoded) -> tuple[Array, list[_Message]]:
        """Messages of the frames at `places`, and their places; those that make no sense go to `decoded`."""
        chosen = [frames[place] for place in places.tolist()]
        try:
            messages = [frame.data for frame in map(self._decode, chosen)]
        except UNREADABLE:
            return self._read_each(chosen, places, decoded)
        if all(message.is_sound() for message in messages):
            return places, messages
        return self._read_each(chosen, places, decoded)

    def _read_each(self, chosen: Sequence[bytes], places: Array, decoded: Decoded) -> tuple[Array, list[_Message]]:
        messages: list[_Message] = []
        kept: list[int] = []
        for place, raw in zip(places.tolist(), chosen, strict=True):
            try:
                message = self._decode(raw).data
            except UNREADABLE as error:
                decoded.violations.append(violation(raw, str(error)))
                continue
            if message.is_sound():
                messages.append(message)
                kept.append(place)
            else:
                decoded.violations.append(violation(raw, "a number is none"))
        return np.array(kept, np.int64), messages


class _Head(msgspec.Struct, gc=False):
    """Enough of any frame to tell what it is about."""

    stream: str = ""
    e: str = ""
    s: str = ""


# The second where a text is not UTF-8.
UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError)
_decode_head: Final = msgspec.json.Decoder(_Head).decode
_CHANNELS: Final = frozenset(Channel)


def by_name(names: Sequence[_Name]) -> dict[_Name, Array | None]:
    """Indices by name, in the order in which names first come; None stands for all of them."""
    distinct = dict.fromkeys(names)
    if len(distinct) < 2:
        return dict.fromkeys(distinct)
    codes = {name: code for code, name in enumerate(distinct)}
    each = np.fromiter(map(codes.__getitem__, names), np.int64, len(names))
    order = np.argsort(each, kind="stable")
    starts = np.searchsorted(each[order], np.arange(1, len(codes)))
    return dict(zip(codes, np.split(order, starts), strict=True))


def violation(raw: bytes, why: str, *, expected: str = "a Binance frame") -> ProtocolViolation:
    """What is wrong with a frame, the frame itself shortened."""
    shown = raw[:_SHOWN_BYTES].decode("utf-8", "replace")
    return ProtocolViolation(
        f"expected {expected}, got {shown!r} ({why}); left out; if it repeats, the format has changed", raw=raw
    )


def count_filtered(decoded: Decoded, stream: Stream, frames: int) -> None:
    """Add to the number of frames of a stream that are none of ours."""
    if frames:
        decoded.filtered[stream] = decoded.filtered.get(stream, 0) + frames


def _add(found: dict[Channel, dict[str, list[Array]]], route: Route, places: Array, decoded: Decoded) -> None:
    if route.channel is Channel.OTHER:
        count_filtered(decoded, route.stream, len(places))
    else:
        found.setdefault(route.channel, {}).setdefault(route.subject, []).append(places)


def _merged(parts: list[Array]) -> Array:
    return parts[0] if len(parts) == 1 else np.sort(np.concatenate(parts))

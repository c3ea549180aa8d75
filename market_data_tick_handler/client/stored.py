"""Candles from the candle files where the live tail has none: the history before it, and what was lost within it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from market_data_tick_handler.client.delivered import Delivered
from market_data_tick_handler.client.items import CandleGap, GapReason, Origin
from market_data_tick_handler.client.messages import Message
from market_data_tick_handler.core.features.registry import columns
from market_data_tick_handler.core.instruments import InstrumentType
from market_data_tick_handler.core.ticks import Array
from market_data_tick_handler.core.timeframes import DAY_US
from market_data_tick_handler.errors import CorruptObject, NotFound
from market_data_tick_handler.storage.candle_files import candle_columns, read_candles
from market_data_tick_handler.storage.local_files import local_root
from market_data_tick_handler.storage.paths import CANDLES, CHAIN_CANDLES, day_of
from market_data_tick_handler.wire import FEATURES, VERSION, MessageType
from market_data_tick_handler.wire.channels import CandleChannel, parse_candle_channel
from market_data_tick_handler.wire.selection import CONSTANTS, top_level_columns

log = logging.getLogger(__name__)

_NEEDED: Final = frozenset({"timestamp", "revision", "timestamp_out"})
# A repair publishes candles up to this age again.
REPAIR_US: Final = DAY_US


@dataclass(frozen=True, slots=True)
class Hole:
    """Numbers `start` to `stop` of a channel, both included, are lost from its live tail.

    delivered: what came before. following: the messages that came after, as far as they are known, in order.
    """

    channel: str
    start: int
    stop: int
    delivered: Delivered
    following: Sequence[Message] = ()

    @property
    def size(self) -> int:
        """How many."""
        return self.stop - self.start + 1

    @property
    def until(self) -> int | None:
        """The open time that was published first after the hole; every earlier one was published before."""
        return next((message.timestamp for message in self.following if message.revision == 0), None)

    @property
    def until_published_us(self) -> int | None:
        """When it ended."""
        return self.following[0].published_us if self.following else None


@dataclass(frozen=True, slots=True)
class _Row:
    timestamp: int
    revision: int
    published_us: int
    index: int


class StoredCandles:
    """The candle files under a directory. Reading blocks.

    now_us: the time, which is where history ends that nothing else bounds.

    Raises:
        NotInstalled: the store is not on local disk.
    """

    def __init__(self, store: str | Path, now_us: Callable[[], int]) -> None:
        self._root = local_root(store)
        self._now_us = now_us

    def before(
        self, channel: str, timestamp: int | None, count: int, features: Sequence[str] | None = None
    ) -> list[Message]:
        """The newest `count` candles that opened before `timestamp` (None: all), oldest first."""
        place = parse_candle_channel(channel)
        until = self._now_us() if timestamp is None else timestamp
        found = self._read(place, until - (count + 1) * place.timeframe.us, until)
        rows = [row for row in _rows(found) if row.timestamp < until][-count:] if count > 0 else []
        return [_message(channel, None, row, found, features) for row in rows]

    def fill(self, hole: Hole, features: Sequence[str] | None = None) -> list[Message | CandleGap]:
        """What the files have of `hole`, in order, and a gap where they do not account for all of it.

        features: those that messages of the channel have under `hft_features`, which these then have too.
        """
        newest, until = hole.delivered.newest, hole.until
        place = parse_candle_channel(hole.channel)
        if newest is None and until is None:
            return [lost(hole)]
        length = place.timeframe.us
        end = self._now_us() if until is None else until
        oldest = hole.delivered.oldest()
        start = end - hole.size * length if newest is None or oldest is None else max(oldest, newest - REPAIR_US)
        found = self._read(place, start, end)
        rows = [row for row in _rows(found) if row.timestamp < end]
        return [
            item if isinstance(item, CandleGap) else _message(hole.channel, item[0], item[1], found, features)
            for item in _fit(hole, rows, length)
        ]

    def _read(self, place: CandleChannel, from_us: int, to_us: int) -> Mapping[str, Array]:
        chain = f":{InstrumentType.OPTION_CHAIN}:" in place.key
        try:
            table = read_candles(
                self._root,
                place.key,
                place.timeframe,
                day_of(max(from_us, 0)),
                day_of(max(to_us, 0)),
                table=CHAIN_CANDLES if chain else CANDLES,
            )
            found = candle_columns(table)
        except (NotFound, CorruptObject, pa.ArrowException) as error:
            # What cannot be read becomes a gap; a subscriber must not end because of it.
            if not isinstance(error, NotFound):
                log.warning("stored candles cannot be read", extra={"channel": place.name, "error": str(error)})
            return {}
        return found if found.keys() >= _NEEDED else {}


def lost(hole: Hole, *, step_us: int | None = None, missing: int | None = None) -> CandleGap:
    """The gap that a whole hole is, or `missing` candles of it."""
    step = parse_candle_channel(hole.channel).timeframe.us if step_us is None else step_us
    first = None if hole.delivered.newest is None else hole.delivered.newest + step
    last = None if hole.until is None else hole.until - step
    if first is not None and last is not None and first > last:
        first = last = None
    return CandleGap(
        channel=hole.channel,
        reason=GapReason.LOST,
        from_sequence=hole.start,
        to_sequence=hole.stop,
        missing=hole.size if missing is None else missing,
        from_timestamp=first,
        to_timestamp=last,
    )


_Fitted = tuple[int | None, _Row]


def _fit(hole: Hole, rows: Sequence[_Row], step_us: int) -> list[_Fitted | CandleGap]:
    """Rows that belong into the hole, with their numbers where these are certain, and what is missing beside them."""
    delivered = hole.delivered
    newest = delivered.newest
    new = [row for row in rows if newest is None or row.timestamp > newest]
    if newest is None or hole.until is None:
        new = new[-hole.size :] if newest is None else new[: hole.size]
    revised = [row for row in rows if newest is not None and row.timestamp <= newest and _is_newer(row, delivered)]
    times = _expected_times(hole, step_us)
    if not revised and len(times) == hole.size and all(row.revision == 0 for row in new):
        return _fit_times(hole, new, times)
    accounted = sum(_messages_of(row, delivered, hole.until_published_us) for row in (*revised, *new))
    exact = accounted == hole.size == len(revised) + len(new)
    fitted: list[_Fitted | CandleGap] = [(None, row) for row in (*revised, *new)]
    if exact and not revised:
        fitted = [(hole.start + place, row) for place, row in enumerate(new)]
    absent = len(set(times) - {row.timestamp for row in new})
    missing = max(hole.size - accounted, absent)
    return [*fitted, lost(hole, step_us=step_us, missing=missing)] if missing > 0 else fitted


def _fit_times(hole: Hole, rows: Sequence[_Row], times: Sequence[int]) -> list[_Fitted | CandleGap]:
    """The hole is one candle per interval, so every number has its open time."""
    by_time = {row.timestamp: row for row in rows}
    fitted: list[_Fitted | CandleGap] = []
    place = 0
    while place < len(times):
        row = by_time.get(times[place])
        if row is not None:
            fitted.append((hole.start + place, row))
            place += 1
            continue
        end = next((at for at in range(place, len(times)) if times[at] in by_time), len(times))
        gap = CandleGap(
            channel=hole.channel,
            reason=GapReason.LOST,
            from_sequence=hole.start + place,
            to_sequence=hole.start + end - 1,
            missing=end - place,
            from_timestamp=times[place],
            to_timestamp=times[end - 1],
        )
        fitted.append(gap)
        place = end
    return fitted


def _expected_times(hole: Hole, step_us: int) -> Sequence[int]:
    """Open times that are in the hole for certain: a series has a candle for every interval."""
    if hole.delivered.newest is None or hole.until is None:
        return ()
    return range(hole.delivered.newest + step_us, hole.until, step_us)


def _is_newer(row: _Row, delivered: Delivered) -> bool:
    known = delivered.revision(row.timestamp)
    return known is not None and row.revision > known


def _messages_of(row: _Row, delivered: Delivered, until_published_us: int | None) -> int:
    """How many of the lost messages a row stands for, at least: a row that was published after the hole replaces one
    that may have been in it."""
    known = delivered.revision(row.timestamp)
    first = known is None
    if until_published_us is not None and row.published_us >= until_published_us:
        return int(first)
    return row.revision + 1 if known is None else row.revision - known


def _rows(found: Mapping[str, Array]) -> list[_Row]:
    if not found:
        return []
    times, revisions, published = (found[name].tolist() for name in ("timestamp", "revision", "timestamp_out"))
    return [
        _Row(int(time), int(revision), int(out), index)
        for index, (time, revision, out) in enumerate(zip(times, revisions, published, strict=True))
    ]


def _message(
    channel: str, number: int | None, row: _Row, found: Mapping[str, Array], features: Sequence[str] | None
) -> Message:
    return Message(
        channel,
        number,
        row.timestamp,
        row.revision,
        row.published_us,
        partial(row_document, found, row.index, number=number, features=features),
        Origin.STORE,
    )


def row_document(
    found: Mapping[str, Any], index: int, *, number: int | None, features: Sequence[str] | None = None
) -> dict[str, Any]:
    """A row of candle columns as a message says it. features: names under `hft_features`; None: all there are."""
    top = (*CONSTANTS, *top_level_columns())
    chosen = [name for name in found if name not in _top()] if features is None else features
    document = {"v": VERSION, "type": str(MessageType.CANDLE), "sequence": number, "is_final": True}
    document |= {name: _value(name, found[name][index]) for name in top if name in found}
    document[FEATURES] = {name: _value(name, found[name][index]) if name in found else None for name in chosen}
    return document


def _value(name: str, value: Any) -> Any:
    plain = value.item() if hasattr(value, "item") else value
    if not isinstance(plain, float):
        return plain
    if not math.isfinite(plain):
        return None
    return int(plain) if name in _whole() else plain


@lru_cache(maxsize=1)
def _top() -> frozenset[str]:
    return frozenset((*CONSTANTS, *top_level_columns()))


@lru_cache(maxsize=1)
def _whole() -> frozenset[str]:
    return frozenset(member.name for member in columns() if member.dtype.startswith(("int", "timestamp")))

"""Keeps the numbers of each stream in step with Redis, whatever it has been through: kept, lost, restored, or shared.

A stream is looked up before the first candle of a connection is sent to it:

* Its end is below what it had acknowledged: Redis lost data. What the sink still remembers is appended again.
* Its end is at or above the number of a candle that was never sent: the candle may have been delivered by an earlier
  run, which died before it could note so, and then the stream has it under some number; the others follow from that
  one. Or the output journal is a new one, or somebody else writes here: then numbers go on behind the stream's end.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from redis.exceptions import ResponseError

from market_data_tick_handler.errors import DataError
from market_data_tick_handler.wire import Head, read_head
from streaming_service.sinks.redis.buffer import SendBuffer
from streaming_service.sinks.redis.commands import CandleCommands, look_up_end, look_up_entry, look_up_tail
from streaming_service.sinks.redis.failures import is_temporary
from streaming_service.sinks.redis.link import Link
from streaming_service.sinks.redis.series import Entry, Series
from streaming_service.sinks.redis.state import RedisCounters

log = logging.getLogger(__name__)

# An earlier run can have delivered at most what it sent between two flushes.
TAIL: Final = 64
_TURN: Final = 256


class Numbering:
    """Settles the numbers of candles before they are sent."""

    def __init__(self, link: Link, buffer: SendBuffer, commands: CandleCommands, counters: RedisCounters) -> None:
        self._link = link
        self._buffer = buffer
        self._commands = commands
        self._counters = counters
        self._connection = 0

    async def settle(self, turn: Sequence[Entry], connection: int) -> None:
        """Make sure of every series of the turn, and after a reconnect of those that Redis may have lost; then number
        the turn.

        Raises:
            FAILURES: Redis does not answer; nothing is changed that cannot be done again.
        """
        pending: dict[Series, list[Entry]] = {}
        for entry in turn:
            pending.setdefault(entry.series, []).append(entry)
        kept = self._buffer.kept() if connection != self._connection else {}
        unsure = [series for series in {**pending, **kept} if series.contact != connection]
        if unsure:
            await self._make_sure(unsure, pending, kept)
            for series in unsure:
                series.contact = connection
        self._connection = connection
        for entry in turn:
            entry.series.number(entry)

    async def holds(self, entries: Sequence[Entry]) -> list[bool]:
        """Whether the stream has each of these under its number."""
        answers = await self._link.call([look_up_entry(entry) for entry in entries])
        return [
            any(head.identity == entry.identity for head in _heads(answer))
            for entry, answer in zip(entries, answers, strict=True)
        ]

    def give_up_number(self, entry: Entry) -> None:
        """Another candle has its number: look the series up again before it is sent."""
        self._counters.renumbered += 1
        entry.number, entry.sent = 0, False
        entry.series.known, entry.series.contact = False, 0
        log.error("another writer's candles in a stream", extra={"channel": entry.series.name.decode()})

    async def _make_sure(
        self, unsure: Sequence[Series], pending: Mapping[Series, list[Entry]], kept: Mapping[Series, list[Entry]]
    ) -> None:
        ends = dict(
            zip(unsure, map(_end, await self._link.call([look_up_end(series) for series in unsure])), strict=True)
        )
        for series, end in ends.items():
            if series.known and end > series.sent:
                for entry in pending.get(series, ()):
                    if not entry.sent:
                        self.give_up_number(entry)
                series.known = False
        await self._refill(
            [entry for series, end in ends.items() for entry in self._lost(series, end, kept.get(series, ()))]
        )
        await self._meet(
            {series: end for series, end in ends.items() if not series.known and series in pending}, pending
        )

    def _lost(self, series: Series, end: int, kept: Iterable[Entry]) -> list[Entry]:
        """What Redis had acknowledged, has no more, and can be given again."""
        if not series.known or end >= series.acknowledged:
            return []
        lost = [entry for entry in kept if entry.number > end]
        first = lost[0].number if lost else series.acknowledged + 1
        self._counters.lost_by_redis += max(first - 1 - end, 0) if end else 0
        return lost

    async def _refill(self, lost: Sequence[Entry]) -> None:
        for at in range(0, len(lost), _TURN):
            part = lost[at : at + _TURN]
            commands = [command for entry in part for command in self._commands.refill(entry)]
            for answer in await self._link.call_together(commands):
                if isinstance(answer, ResponseError) and is_temporary(answer):
                    raise answer
            self._counters.refilled += len(part)
        if lost:
            log.warning("redis lost candles; gave them again", extra={"candles": len(lost)})

    async def _meet(self, ends: Mapping[Series, int], pending: Mapping[Series, list[Entry]]) -> None:
        """The first candles of a series go out: find out where its numbers stand."""
        unclear = [
            series
            for series, end in ends.items()
            if end and (_reaches(end, pending[series][0]) or pending[series][0].revision)
        ]
        tails = await self._link.call([look_up_tail(series, TAIL) for series in unclear]) if unclear else []
        for series, answer in zip(unclear, tails, strict=True):
            tail = list(_heads(answer))
            # A revision of an earlier candle must not become the last value.
            series.newest = max([series.newest, *(head.timestamp for head in tail)])
            if _reaches(ends[series], pending[series][0]):
                self._follow(series, ends[series], pending[series], tail)
        for series, end in ends.items():
            series.numbered = max(series.numbered, end)
            series.known = True

    def _follow(self, series: Series, end: int, entries: Sequence[Entry], tail: Sequence[Head]) -> None:
        there = {head.identity: head.sequence for head in tail}
        for entry in entries:
            if entry.journal is not None and entry.identity in there:
                series.offset = there[entry.identity] - entry.journal
                break
        else:
            first = entries[0]
            series.offset = end + 1 - (first.journal or 0)
            log.warning("a stream goes on with other numbers", extra={"channel": series.name.decode(), "end": end})
        for entry in entries:
            if not entry.number and entry.journal is not None and entry.journal + series.offset <= end:
                # The stream has it, or had it before it was trimmed, so the refusal of XADD is no surprise.
                entry.sent = True


def _reaches(end: int, entry: Entry) -> bool:
    return not entry.number and entry.journal is not None and entry.journal + entry.series.offset <= end


def _end(answer: Any) -> int:
    """The highest number of a stream, 0 where there is none. If something else is there, XADD will be refused."""
    if isinstance(answer, ResponseError):
        if is_temporary(answer):
            raise answer
        return 0
    # A cluster's client gives a dict with names as text, a connection what the server said.
    fields = answer if isinstance(answer, dict) else dict(zip(answer[::2], answer[1::2], strict=False))
    end = fields.get("last-generated-id") or fields[b"last-generated-id"]
    return int((end.decode() if isinstance(end, bytes) else end).partition("-")[0])


def _heads(answer: Any) -> Iterable[Head]:
    if isinstance(answer, ResponseError):
        if is_temporary(answer):
            raise answer
        return
    for _, fields in answer:
        for message in fields.values() if isinstance(fields, dict) else fields[1::2]:
            try:
                yield read_head(message)
            except DataError:
                # Not ours, so it is none of the candles that are looked for.
                continue

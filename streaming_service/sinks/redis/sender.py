"""Takes candles out of the buffer to Redis, in order, until Redis has them; repeats what has no answer."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from typing import Any

from redis.exceptions import ResponseError

from streaming_service.clock import Clock
from streaming_service.sinks.redis.buffer import SendBuffer
from streaming_service.sinks.redis.commands import CandleCommands
from streaming_service.sinks.redis.failures import (
    FAILURES,
    describe,
    is_repeated,
    is_temporary,
    needs_new_connection,
)
from streaming_service.sinks.redis.link import Command, Link
from streaming_service.sinks.redis.marks import Marks, OpenCandles, refusals
from streaming_service.sinks.redis.numbering import Numbering
from streaming_service.sinks.redis.options import RedisOptions
from streaming_service.sinks.redis.series import Entry, Series
from streaming_service.sinks.redis.state import RedisState

log = logging.getLogger(__name__)


class Sender:
    """The only one who talks to Redis. It gives up nothing by itself: the buffer's bounds are its budget."""

    def __init__(
        self,
        link: Link,
        buffer: SendBuffer,
        commands: CandleCommands,
        marks: Marks,
        open_candles: OpenCandles,
        *,
        options: RedisOptions,
        state: RedisState,
        clock: Clock,
    ) -> None:
        self.progress = asyncio.Event()
        self._link = link
        self._buffer = buffer
        self._commands = commands
        self._marks = marks
        self._open_candles = open_candles
        self._options = options
        self._state = state
        self._clock = clock
        self._numbering = Numbering(link, buffer, commands, state.counters)
        self._work = asyncio.Event()
        self._connection = 0
        self._bad: set[Series] = set()

    def wake(self) -> None:
        """There may be something to send."""
        self._work.set()

    async def run(self) -> None:
        """Send whatever there is, for ever."""
        failures = 0
        while True:
            while self._link.connected and not self._has_work():
                self._work.clear()
                await self._work.wait()
            try:
                await self._round()
            except FAILURES as error:
                failures += 1
                await self._fail(error)
                await self._clock.sleep(self._wait_s(failures))
            else:
                failures = 0
                if self._state.succeed():
                    log.info("redis takes candles again", extra={"waiting": self._buffer.rows})

    def _has_work(self) -> bool:
        return bool(self._buffer.rows) or self._marks.has_due(self._buffer.settled) or self._open_candles.has_due()

    def _wait_s(self, failures: int) -> float:
        # The exponent is held: an outage of days must not overflow a float.
        ceiling_s = self._options.backoff_base_s * 2.0 ** min(failures, 32)
        return random.uniform(0.0, min(self._options.backoff_cap_s, ceiling_s))

    async def _round(self) -> None:
        if not self._link.connected:
            await self._link.connect()
            self._connection += 1
            self._state.counters.connects += 1
        self._state.connected = True
        options = self._options
        turn = self._buffer.turn(options.turn_rows, options.turn_bytes, one_per_series=not self._link.all_or_none)
        await self._numbering.settle(turn, self._connection)
        if turn:
            await self._send(turn)
        await self._send_marks()

    async def _fail(self, error: Exception) -> None:
        if self._state.fail(describe(error), self._clock.monotonic_s()):
            log.warning("redis takes no candles", extra={"error": describe(error), "waiting": self._buffer.rows})
        if needs_new_connection(error):
            await self._link.disconnect()
        self._state.connected = self._link.connected
        self.progress.set()

    async def _send(self, turn: Sequence[Entry]) -> None:
        commands, counts = [], []
        for entry in turn:
            own = self._commands.deliver(entry)
            commands += own
            counts.append(len(own))
        repeated = [entry.sent for entry in turn]
        self._mark_sent(turn)
        try:
            # A refused candle must not be overtaken by the next of its series, nor published at each attempt.
            several = len({entry.series for entry in turn}) < len(turn)
            together = several or self._state.trouble_since_s is not None
            answers = await self._timed(commands, together=together)
        except ResponseError:
            # Refused as a whole: nothing of it reached the streams.
            for entry, before in zip(turn, repeated, strict=True):
                entry.sent = before
            raise
        await self._settle(turn, repeated, _grouped(answers, counts))

    def _mark_sent(self, turn: Sequence[Entry]) -> None:
        for entry in turn:
            entry.sent = True
            entry.series.sent = max(entry.series.sent, entry.number)

    async def _settle(self, turn: Sequence[Entry], repeated: Sequence[bool], answers: Sequence[Sequence[Any]]) -> None:
        taken: list[Entry] = []
        there: list[Entry] = []
        doubtful: list[Entry] = []
        rejected: list[Entry] = []
        trouble: ResponseError | None = None
        for entry, before, (added, *rest) in zip(turn, repeated, answers, strict=True):
            refused = next((answer for answer in refusals(rest) if is_temporary(answer)), None)
            if isinstance(added, ResponseError) and not is_repeated(added):
                if is_temporary(added):
                    refused, entry.sent = added, before
                else:
                    self._reject(entry, added)
                    rejected.append(entry)
                    continue
            if refused is not None:
                trouble = trouble or refused
            elif isinstance(added, ResponseError):
                (there if before else doubtful).append(entry)
            else:
                taken.append(entry)
                self._state.receivers = rest[0]
        self._acknowledge(taken, there)
        self._buffer.settle(rejected, keep=False)
        if doubtful:
            await self._resolve(doubtful)
        self.progress.set()
        if trouble is not None:
            raise trouble

    def _acknowledge(self, taken: Sequence[Entry], there: Sequence[Entry]) -> None:
        entries = [*taken, *there]
        for entry in entries:
            series = entry.series
            if entry.number >= series.acknowledged:
                series.acknowledged, series.timestamp = entry.number, entry.timestamp
        self._state.counters.sent += len(taken)
        self._state.counters.already_there += len(there)
        self._buffer.settle(entries)
        self._marks.acknowledged(entries)

    async def _resolve(self, doubtful: Sequence[Entry]) -> None:
        """Refused as repeated although they were never sent before."""
        held = await self._numbering.holds(doubtful)
        self._acknowledge([], [entry for entry, there in zip(doubtful, held, strict=True) if there])
        for entry, there in zip(doubtful, held, strict=True):
            if not there:
                self._numbering.give_up_number(entry)

    def _reject(self, entry: Entry, error: ResponseError) -> None:
        self._state.counters.rejected += 1
        self._state.last_error = describe(error)
        if entry.series not in self._bad:
            self._bad.add(entry.series)
            log.error(
                "redis refuses a series for good",
                extra={"channel": entry.series.name.decode(), "error": describe(error)},
            )

    async def _send_marks(self) -> None:
        settled = self._buffer.settled
        marks = self._marks.commands(settled)
        open_candles = self._open_candles.commands()
        if not marks and not open_candles:
            return
        answers = await self._timed([*open_candles, *marks])
        self._marks.delivered(settled)
        refused = refusals(answers)
        counters = self._state.counters
        counters.open_sent += len(open_candles) - len(refusals(answers[: len(open_candles)]))
        counters.marks_sent += sum(command[0] == b"PUBLISH" for command in marks) - len(refused)
        if refused:
            # Outdated by the time Redis would take them, so they are not sent again, but whoever looks must see it.
            counters.marks_lost += len(refused)
            raise refused[0]

    async def _timed(self, commands: Sequence[Command], *, together: bool = False) -> list[Any]:
        begin_s = self._clock.monotonic_s()
        answers = await (self._link.call_together(commands) if together else self._link.call(commands))
        self._state.round_trip_s = self._clock.monotonic_s() - begin_s
        return answers


def _grouped(answers: Sequence[Any], counts: Sequence[int]) -> list[Sequence[Any]]:
    groups, at = [], 0
    for count in counts:
        groups.append(answers[at : at + count])
        at += count
    return groups

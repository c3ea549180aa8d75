"""Candles from Redis: pub/sub for speed, the kept streams for everything that pub/sub does not promise.

A connection begins with the subscription, and only then reads the streams from where each channel stands, so that what
is published meanwhile is in one of them or in both. Afterwards a message that carries on its channel goes straight to
the subscriber. Everything else is only a hint to read on in the stream: a number left out, a watermark that names a
higher one, or that for a second nothing proved that there is nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

from market_data_tick_handler.client.clock import Clock
from market_data_tick_handler.client.intake import Channel, Intake
from market_data_tick_handler.client.redis_link import FAILURES, Asking, Line, RedisPlace, lasting_error
from market_data_tick_handler.client.redis_streams import StreamReader
from market_data_tick_handler.client.retry import ClientTiming, Retry
from market_data_tick_handler.client.subscription import Subscription, mark_pattern
from market_data_tick_handler.errors import CorruptObject, NotFound
from market_data_tick_handler.wire import Watermark, channels, decode_mark

# Messages taken in before the subscriber gets a turn.
_TURN: Final = 64
_MOST_CHANNELS: Final = 100_000
_SHOWN: Final = 10
_MARKS: Final = "marks:"


class RedisFeed:
    """Fills `intake` with what `subscription` asks for, until cancelled."""

    def __init__(
        self,
        place: RedisPlace,
        subscription: Subscription,
        intake: Intake,
        *,
        history: int,
        timing: ClientTiming,
        retry: Retry,
        clock: Clock,
    ) -> None:
        self._place = place
        self._subscription = subscription
        self._intake = intake
        self._timing = timing
        self._retry = retry
        self._clock = clock
        self._streams = StreamReader(intake, history=history, timing=timing, clock=clock)
        self._names: dict[bytes, str] = {}
        self._begun = False
        self._attempt = 0
        self._wake = asyncio.Event()
        self._needy: set[Channel] = set()
        self._proven: set[Channel] = set()
        self._poll_due = False
        self._heard_s = 0.0
        self._verified_s = 0.0
        self._unknown_since_s: float | None = None
        self._suspected: set[Channel] = set()
        intake.on_need = self._need

    async def run(self) -> None:
        """Follow the channels, over as many connections as it takes.

        Raises:
            ConfigError: the server does not let us in. NotFound: a channel that does not exist, while others do.
            SourceError: it has something else than candles. SourceUnavailable: no connection for too long.
            SchemaMismatch: messages of another version.
        """
        self._retry.begin()
        for name in self._subscription.names:
            self._intake.channel(name)
        while True:
            try:
                await self._session()
            except FAILURES as error:
                self._intake.stats.disconnect(error)
                lasting = lasting_error(error, self._place.name)
                if lasting is not None:
                    raise lasting from error
                await self._retry.pause(error, self._place.name)

    def wake(self) -> None:
        """There is room again."""
        self._wake.set()

    async def _session(self) -> None:
        self._attempt += 1
        # A server that was restarted empty gets its streams again one by one.
        self._unknown_since_s, self._suspected = None, set()
        async with self._place.connect(attempt=self._attempt) as (line, asking):
            await self._subscribe(line)
            # A server that is still loading its data lets us subscribe, and answers nothing.
            await asking.call([(b"EXISTS", b"candles:")])
            self._intake.stats.connect()
            self._retry.succeed()
            await run_together(self._listen(line), self._follow(line, asking), self._tick())

    async def _subscribe(self, line: Line) -> None:
        subscription = self._subscription
        names = [*subscription.names, *map(channels.watermarks, subscription.keys)]
        patterns = [*subscription.patterns, *dict.fromkeys(map(mark_pattern, subscription.patterns))]
        if subscription.include_open:
            names += [f"{name}:open" for name in subscription.names]
            patterns += [f"{pattern}:open" for pattern in subscription.patterns]
        commands = [
            (word, *(text.encode() for text in texts))
            for word, texts in ((b"SUBSCRIBE", names), (b"PSUBSCRIBE", patterns))
            if texts
        ]
        confirmed = 0
        async with asyncio.timeout(self._timing.timeout_s):
            await line.send(commands)
            while confirmed < len(names) + len(patterns):
                response = await line.read()
                confirmed += response[0] in (b"subscribe", b"psubscribe")
                self._hear(response)

    async def _listen(self, line: Line) -> None:
        while True:
            for _ in range(_TURN):
                self._hear(await line.read())
            # A busy connection has always something to read, so that nobody else would get a turn.
            await asyncio.sleep(0)

    def _hear(self, response: Any) -> None:
        self._heard_s = self._clock.monotonic_s()
        kind = response[0]
        if kind == b"message":
            place, body = response[1], response[2]
        elif kind == b"pmessage":
            place, body = response[2], response[3]
        else:
            return
        name = self._names.get(place)
        if name is None:
            name = self._names[place] = place.decode()
        if name.startswith(_MARKS):
            self._hear_mark(body)
        else:
            self._intake.receive(body, channel=name)

    def _hear_mark(self, body: bytes) -> None:
        try:
            mark = decode_mark(body)
        except CorruptObject:
            self._intake.stats.unreadable += 1
            return
        if isinstance(mark, Watermark):
            self._proven.update(self._intake.announce(mark))

    def _need(self, channel: Channel) -> None:
        self._needy.add(channel)
        self._wake.set()

    async def _tick(self) -> None:
        while True:
            await self._clock.sleep(self._timing.poll_s)
            self._poll_due = True
            self._wake.set()

    async def _follow(self, line: Line, asking: Asking) -> None:
        known = [channel for channel in self._intake.channels.values() if channel.order.last is not None]
        await self._streams.verify(asking, known)
        self._verified_s = self._clock.monotonic_s()
        await self._discover(asking)
        self._streams.behind.update(known)
        self._poll_due = True
        while True:
            self._wake.clear()
            polls, self._poll_due = self._poll_due, False
            if polls:
                await line.send([(b"PING",)])
                self._check_heard()
            await self._look_after(asking, polls=polls)
            await self._wake.wait()

    async def _discover(self, asking: Asking) -> None:
        """Find the channels that patterns mean, and begin all that are there before us."""
        for pattern in self._subscription.patterns:
            for name in await asking.streams(pattern, _MOST_CHANNELS):
                self._intake.channel(name)
        if not self._begun:
            fresh = [channel for channel in self._intake.channels.values() if channel.order.last is None]
            await self._streams.position(asking, fresh)
            self._begun = True

    async def _look_after(self, asking: Asking, *, polls: bool) -> None:
        everything = list(self._intake.channels.values())
        now_s = self._clock.monotonic_s()
        needy, self._needy = self._needy, set()
        doubtful = [channel for channel in needy if channel.doubtful]
        if polls and now_s - self._verified_s >= self._timing.verify_s:
            self._verified_s = now_s
            doubtful = everything
        await self._streams.verify(asking, doubtful)
        chosen = needy | self._streams.behind
        if polls:
            chosen |= set(everything) - self._proven
            self._proven = set()
            await self._look_for_unknown(asking, everything)
        await self._streams.catch_up(asking, chosen)

    def _check_heard(self) -> None:
        silent_s = self._clock.monotonic_s() - self._heard_s
        if silent_s > self._timing.timeout_s + self._timing.poll_s:
            raise TimeoutError(f"nothing was heard on the subscription for {silent_s:.1f} s, no answer to PING either")

    async def _look_for_unknown(self, asking: Asking, everything: list[Channel]) -> None:
        """A name that nobody publishes on, where others are published on, is a mistake rather than patience."""
        absent = [channel for channel in everything if channel.order.last is None and not channel.order.known]
        now_s = self._clock.monotonic_s()
        if not absent:
            self._unknown_since_s = None
            return
        self._unknown_since_s = now_s if self._unknown_since_s is None else self._unknown_since_s
        if now_s - self._unknown_since_s < self._timing.unknown_after_s:
            return
        self._unknown_since_s = now_s
        served = await asking.call([(b"EXISTS", channels.watermarks(channel.key).encode()) for channel in absent])
        unknown = [channel for channel, is_served in zip(absent, served, strict=True) if not is_served]
        others = await asking.streams("candles:*", _SHOWN) if unknown else []
        # Others are there for all the time, and not since a moment ago: a service that begins has one channel first.
        suspected, self._suspected = self._suspected, set(unknown) if others else set()
        lasting = [channel for channel in unknown if others and channel in suspected]
        if lasting:
            raise NotFound(
                f"{self._place.name}: nobody publishes on {', '.join(channel.name for channel in lasting[:_SHOWN])}; "
                f"there are, for example: {', '.join(sorted(others))}"
            )


async def run_together(*work: Coroutine[Any, Any, None]) -> None:
    """Run these until one ends, and end the others; what the first one fails with is raised."""
    tasks = [asyncio.create_task(part) for part in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()

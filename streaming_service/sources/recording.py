"""A recording that comes in chunks, as a source: as fast as it can, or at the pace it was made, or a multiple of it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from market_data_tick_handler.core.events import Disconnect, Event, Gap, Heartbeat, Rows
from market_data_tick_handler.errors import ConfigError
from streaming_service.clock import SECOND_US, Clock

# What is yielded at once when paced, in seconds of the clock: short against `grace`, long against a loop turn.
_PACE_S: Final = 0.02
# The same when it is not: few enough rows for a turn, enough to make a turn worth while.
_STEP_US: Final = 5 * SECOND_US


@dataclass(frozen=True, slots=True)
class Chunk:
    """Events that arrived in [first_us, last_us]. Every row before `until_us` is in this chunk or came earlier."""

    events: list[Event]
    first_us: int
    last_us: int
    until_us: int


class Recording(Protocol):
    """Something that can be played once."""

    def chunks(self, *, step_us: int) -> AsyncIterator[Chunk]:
        """All of it, in pieces of at most `step_us` of arrival time, `until_us` never decreasing."""
        ...


class RecordedSource:
    """A `PacedSource` that plays a recording.

    speed: None = as fast as possible, else seconds of data per second of `clock` (1 = real time). Paced, no event comes
    before its own time of arrival.
    """

    def __init__(self, recording: Recording, *, speed: float | None, clock: Clock) -> None:
        if speed is not None and not speed > 0:
            raise ConfigError(f"speed must be above 0, or None for as fast as possible; got {speed}")
        self._recording = recording
        self._speed = speed
        self._clock = clock
        self._fed_until_us = 0
        self._pace: tuple[float, int, int] | None = None

    @property
    def fed_until_us(self) -> int:
        """Every row with a `local_timestamp` below this was yielded; in a paced silence it moves on with the clock."""
        if self._pace is None:
            return self._fed_until_us
        origin_s, origin_us, next_us = self._pace
        return max(self._fed_until_us, min(next_us, self._data_time_us(origin_s, origin_us)))

    async def events(self) -> AsyncIterator[list[Event]]:
        """The recording's events in order of arrival.

        Raises:
            SourceError: the recording fails; what came before was yielded.
        """
        step_us = _STEP_US if self._speed is None else max(1, int(_PACE_S * self._speed * SECOND_US))
        origin: tuple[float, int] | None = None
        async with aclosing(self._recording.chunks(step_us=step_us)) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                if self._speed is not None:
                    origin = origin or (self._clock.monotonic_s(), chunk.first_us)
                    self._pace = (*origin, chunk.first_us)
                    await self._wait(origin, chunk.last_us)
                self._fed_until_us = max(self._fed_until_us, chunk.until_us)
                yield chunk.events
                # A source that never waits must not keep the rest of the loop from running.
                await asyncio.sleep(0)
        self._pace = None

    async def _wait(self, origin: tuple[float, int], data_us: int) -> None:
        missing_us = data_us - self._data_time_us(*origin)
        if missing_us > 0:
            await self._clock.sleep(missing_us / SECOND_US / (self._speed or 1.0))

    def _data_time_us(self, origin_s: float, origin_us: int) -> int:
        return origin_us + int((self._clock.monotonic_s() - origin_s) * (self._speed or 1.0) * SECOND_US)


def in_windows(events: Iterable[Event], step_us: int) -> Iterator[Chunk]:
    """`events`, in order of arrival, cut into the windows [k * step_us, (k + 1) * step_us) of arrival time.

    The last window may go on with what comes next, so it promises no more than its last row.
    """
    windows: dict[int, list[Event]] = {}
    for event in events:
        for window, part in _cut(event, step_us):
            windows.setdefault(window, []).append(part)
    last = max(windows, default=0)
    for window in sorted(windows):
        chunk = chunk_of(windows[window], until_us=(window + 1) * step_us)
        if window == last:
            chunk = chunk_of(windows[window], until_us=chunk.last_us)
        yield chunk


def chunk_of(events: list[Event], *, until_us: int) -> Chunk:
    """A chunk of at least one event."""
    spans = [_span(event) for event in events]
    return Chunk(events, min(first for first, _ in spans), max(last for _, last in spans), until_us)


def _cut(event: Event, step_us: int) -> Iterator[tuple[int, Event]]:
    if not isinstance(event, Rows):
        yield _span(event)[0] // step_us, event
        return
    # A row that arrived out of order stays behind those before it.
    windows = np.maximum.accumulate(event.batch["local_timestamp"] // step_us)
    borders = [0, *(np.flatnonzero(np.diff(windows)) + 1).tolist(), len(windows)]
    for start, stop in itertools.pairwise(borders):
        part = event.batch if stop - start == len(windows) else event.batch.slice(start, stop)
        yield int(windows[start]), Rows(event.instrument, part, event.connection)


def _span(event: Event) -> tuple[int, int]:
    match event:
        case Rows():
            local = event.batch["local_timestamp"]
            return int(local.min()), int(local.max())
        case Disconnect() | Heartbeat():
            return event.at_us, event.at_us
        case Gap():
            return event.to_us, event.to_us

"""One data feed made of several sources: the next one takes over while those before it are down."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, Protocol

from market_data_tick_handler.core.events import Event, Rows
from market_data_tick_handler.core.ticks import ID_NONE, DataType
from streaming_service.clock import Clock
from streaming_service.source import BufferedSource

log = logging.getLogger(__name__)

_LOOK_S: Final = 0.25
# Types whose rows carry ids: what comes twice is told apart, so that rows of a source that waits are welcome.
_IDENTIFIED: Final = (DataType.TRADES, DataType.LIQUIDATIONS)


class LiveSource(BufferedSource, Protocol):
    """A source that knows whether its connections work."""

    @property
    def up(self) -> bool:
        """True while what is subscribed arrives, or is provably quiet."""
        ...


@dataclass(slots=True)
class _Member:
    """One source, since when it has been up or down, and the task that runs it."""

    name: str
    source: LiveSource
    task: asyncio.Task[None] | None = None
    changed_s: float = 0.0
    was_up: bool = False


class FailoverSource:
    """Runs the first source always, and the next one from when all before it were down for `after_s` until one of them
    has been up again for `back_after_s`.

    Rows of state (books, tickers, options) and the signs of life and death are taken from the active source only; what
    the others give of them is counted in `redundant`. on_switch: told which source is in use from now on.
    """

    def __init__(
        self,
        sources: Sequence[tuple[str, LiveSource]],
        *,
        clock: Clock,
        after_s: float,
        back_after_s: float,
        on_switch: Callable[[str], None] = lambda active: None,
    ) -> None:
        self._members = [_Member(name, source) for name, source in sources]
        self._clock = clock
        self._after_s = after_s
        self._back_after_s = back_after_s
        self._on_switch = on_switch
        self._active = 0
        self._full = asyncio.Event()
        self.switches = 0
        self.redundant: dict[tuple[str, DataType], int] = {}

    @property
    def active(self) -> str:
        """Name of the source whose rows are used."""
        return self._members[self._active].name

    @property
    def up(self) -> bool:
        """True while the active source works."""
        return self._members[self._active].source.up

    @property
    def members(self) -> Mapping[str, LiveSource]:
        """Every source by name, in the order of preference."""
        return {member.name: member.source for member in self._members}

    async def events(self) -> AsyncIterator[list[Event]]:
        """Run the sources that are needed; empty lists where a turn should not wait."""
        async with asyncio.TaskGroup() as group:
            self._start(group, self._members[0])
            watch = group.create_task(self._watch(group), name="failover")
            try:
                while True:
                    await self._full.wait()
                    self._full.clear()
                    yield []
            finally:
                watch.cancel()
                for member in self._members:
                    self._stop(member)

    def drain(self) -> list[Event]:
        """What the running sources gathered, as far as it is used."""
        out: list[Event] = []
        for index, member in enumerate(self._members):
            if member.task is None:
                continue
            for event in member.source.drain():
                if index == self._active or self._is_welcome(event):
                    out.append(event)
        return out

    def _is_welcome(self, event: Event) -> bool:
        if is_identified(event):
            return True
        if isinstance(event, Rows):
            key = (event.instrument, event.data_type)
            self.redundant[key] = self.redundant.get(key, 0) + len(event.batch)
        return False

    async def _watch(self, group: asyncio.TaskGroup) -> None:
        while True:
            await self._clock.sleep(_LOOK_S)
            now_s = self._clock.monotonic_s()
            for member in self._members:
                if member.source.up != member.was_up:
                    member.was_up, member.changed_s = member.source.up, now_s
            self._choose(group, now_s)

    def _choose(self, group: asyncio.TaskGroup, now_s: float) -> None:
        """Fall back where the active source is down for long, come back where a better one is up for long."""
        active = self._members[self._active]
        if not active.was_up and now_s - active.changed_s >= self._after_s:
            later = self._members[self._active + 1 :]
            if later:
                self._start(group, later[0])
                self._switch(self._active + 1, now_s)
            return
        for index, member in enumerate(self._members[: self._active]):
            if member.was_up and now_s - member.changed_s >= self._back_after_s:
                self._switch(index, now_s)
                for worse in self._members[index + 1 :]:
                    self._stop(worse)
                return

    def _switch(self, index: int, now_s: float) -> None:
        log.warning("source changes", extra={"from": self.active, "to": self._members[index].name})
        self._active = index
        self._members[index].changed_s = now_s
        self.switches += 1
        self._on_switch(self.active)

    def _start(self, group: asyncio.TaskGroup, member: _Member) -> None:
        if member.task is None:
            member.was_up, member.changed_s = member.source.up, self._clock.monotonic_s()
            member.task = group.create_task(self._run(member.source), name=f"source:{member.name}")

    def _stop(self, member: _Member) -> None:
        if member.task is not None:
            member.task.cancel()
            member.task = None

    async def _run(self, source: LiveSource) -> None:
        async with aclosing(source.events()) as lists:  # type: ignore[type-var]
            async for _ in lists:
                self._full.set()


def is_identified(event: Event) -> bool:
    """Rows that ids tell apart: they do no harm when another source gives them, too."""
    return (
        isinstance(event, Rows) and event.data_type in _IDENTIFIED and bool((event.batch["id_kind"] != ID_NONE).all())
    )

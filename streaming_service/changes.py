"""What changes while the service runs: instruments, timeframes, the level of the log; no tick is lost over it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Protocol

from market_data_tick_handler.core.instruments import InstrumentDefinition
from market_data_tick_handler.core.pipeline import Pipeline
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.errors import ConfigError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What is wanted; None leaves it as it is.

    instruments: all that the service shall run, not only new ones. level: of the log, as `logging` names it.
    """

    instruments: tuple[InstrumentDefinition, ...] | None = None
    timeframes: tuple[Timeframe, ...] | None = None
    level: str | None = None


@dataclass(slots=True)
class Changed:
    """What came of a change."""

    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    timeframes: list[str] = field(default_factory=list)
    level: str = ""


class Adjustable(Protocol):
    """The service, as far as it can be changed."""

    pipelines: dict[str, Pipeline]
    timeframes: tuple[Timeframe, ...]
    # Before this is set there is nothing to change.
    started: asyncio.Event

    async def between_turns(self, change: Callable[[], None]) -> None: ...

    def undisturbed(self, keys: Iterable[str]) -> AbstractAsyncContextManager[None]:
        """Nothing else is being done to these instruments but their turns."""
        ...

    def check_instruments(self, instruments: Sequence[InstrumentDefinition]) -> None:
        """Whether `subscribe` would work.

        Raises:
            ConfigError: it would not.
        """
        ...

    async def subscribe(self, instruments: Sequence[InstrumentDefinition]) -> None:
        """Make the sources carry exactly these instruments."""
        ...

    def admit_instrument(self, instrument: InstrumentDefinition) -> None:
        """Give it a pipeline, with what its journal knows, and a place in health. Between turns."""
        ...

    def dismiss_instrument(self, key: str) -> None:
        """Checkpoint its pipeline and let it go. Between turns, undisturbed."""
        ...

    def change_timeframes(self, timeframes: tuple[Timeframe, ...]) -> None:
        """Go on with pipelines of these timeframes. Between turns, undisturbed."""
        ...


class HotChanges:
    """Carries out one change after the other."""

    def __init__(self, service: Adjustable) -> None:
        self._service = service
        self._one_at_a_time = asyncio.Lock()

    async def apply(self, change: Change) -> Changed:
        """Carry out `change` and return once it is in force.

        A new instrument has its pipeline before its first row comes; one that goes is unsubscribed first, so that its
        last rows still find the pipeline.

        Raises:
            ConfigError: the instruments cannot be run here; then nothing changed at all.
            ServiceEnded: the service stopped before the change was in force.
        """
        done = Changed()
        await self._service.started.wait()
        async with self._one_at_a_time:
            if change.instruments is not None:
                self._check(change.instruments)
            if change.level is not None:
                logging.getLogger().setLevel(change.level.upper())
                done.level = change.level
            if change.timeframes is not None and change.timeframes != self._service.timeframes:
                async with self._service.undisturbed(self._service.pipelines):
                    await self._service.between_turns(partial(self._service.change_timeframes, change.timeframes))
                done.timeframes = [str(timeframe) for timeframe in change.timeframes]
            if change.instruments is not None:
                await self._change_instruments(change.instruments, done)
        log.info("settings changed", extra=asdict(done))
        return done

    def _check(self, wanted: Sequence[InstrumentDefinition]) -> None:
        if not wanted:
            raise ConfigError("a service needs an instrument", key="instruments", hint="stop the service instead")
        if {instrument.key for instrument in wanted} != set(self._service.pipelines):
            self._service.check_instruments(wanted)

    async def _change_instruments(self, wanted: Sequence[InstrumentDefinition], done: Changed) -> None:
        keys = {instrument.key for instrument in wanted}
        new = [instrument for instrument in wanted if instrument.key not in self._service.pipelines]
        gone = [key for key in self._service.pipelines if key not in keys]
        for instrument in new:
            await self._service.between_turns(partial(self._service.admit_instrument, instrument))
        if new or gone:
            await self._service.subscribe(wanted)
        for key in gone:
            async with self._service.undisturbed([key]):
                await self._service.between_turns(partial(self._service.dismiss_instrument, key))
        done.added, done.removed = [instrument.key for instrument in new], gone

"""Which sources the settings ask for, and the clock that suits them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from market_data_tick_handler.config.settings import Settings, SourceName
from market_data_tick_handler.core.instruments import InstrumentDefinition
from market_data_tick_handler.errors import ConfigError, NotInstalled
from streaming_service.clock import SECOND_US, Clock, DataClock, ScaledClock, SystemClock
from streaming_service.ingest import Feed

# How often a simulation looks at the clock, in wall time: what a candle may be late by.
_POLL_S: Final = 0.005
_TICK_FILES: Final = (".csv", ".csv.gz", ".parquet")


@dataclass(frozen=True, slots=True)
class Inputs:
    """The feeds of a service and its clock, which runs `speed` times as fast as the wall clock."""

    feeds: tuple[Feed, ...]
    clock: Clock
    speed: float = 1.0


def make_inputs(
    settings: Settings, instruments: Sequence[InstrumentDefinition], *, wall: Clock | None = None
) -> Inputs:
    """Feeds and clock for `settings`.

    Raises:
        NotInstalled: this version lacks a source that is asked for.
        ConfigError: sources are combined whose clocks differ.
    """
    chosen = {section.source for section in settings.data_types.enabled().values()}
    if not chosen:
        raise ConfigError("no data type is enabled", key="data_types", hint="enable at least trades")
    if len(chosen) > 1:
        names = ", ".join(sorted(chosen))
        raise ConfigError(
            f"sources {names} cannot run together: each brings its own clock",
            key="data_types",
            hint="give every enabled data type the same source",
        )
    (name,) = chosen
    base = SystemClock() if wall is None else wall
    if name is SourceName.SIMULATED:
        return _simulated(settings, instruments, base)
    if name is SourceName.FILES:
        return _files(settings, base)
    raise NotInstalled(f"source {name} is not in this version; use {SourceName.SIMULATED} or {SourceName.FILES}")


def _simulated(settings: Settings, instruments: Sequence[InstrumentDefinition], wall: Clock) -> Inputs:
    from streaming_service.sources.simulated import SimulatedSource

    simulation = settings.simulation
    paced = not math.isinf(simulation.speed)
    start_us = simulation.start_us - simulation.start_us % SECOND_US
    clock: Clock = ScaledClock(start_us=start_us, speed=simulation.speed, base=wall) if paced else wall
    source = SimulatedSource(
        instruments,
        clock=clock,
        start_us=start_us,
        seed=simulation.seed,
        trades_per_second=simulation.rate,
        speed=simulation.speed if paced else None,
        poll_s=_POLL_S,
    )
    feed = Feed("simulated", source, recorded=True)
    if paced:
        return Inputs((feed,), clock, simulation.speed)
    return Inputs((feed,), DataClock(lambda: source.fed_until_us, base=wall))


def _files(settings: Settings, wall: Clock) -> Inputs:
    from streaming_service.sources.files import FilesSource

    files = settings.files
    if not files.paths:
        raise ConfigError("source files has no paths", key="files.paths", hint="name files or directories")
    paced = not math.isinf(files.speed)
    source = FilesSource(tick_files_in(files.paths), speed=files.speed if paced else None, clock=wall)
    speed = files.speed if paced else 1.0
    return Inputs(
        (Feed("files", source, recorded=True),), DataClock(lambda: source.fed_until_us, speed=speed, base=wall), speed
    )


def tick_files_in(paths: Sequence[Path]) -> list[Path]:
    """The files among `paths`, and below those that are directories, in the order of their names."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(each for each in path.rglob("*") if each.is_file() and each.name.endswith(_TICK_FILES))
        else:
            found.append(path)
    return found

"""Which sources the settings ask for, and the clock that suits them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from market_data_tick_handler.config.settings import Settings, SourceName
from market_data_tick_handler.core.instruments import InstrumentDefinition
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.errors import ConfigError
from streaming_service.clock import SECOND_US, Clock, DataClock, ScaledClock, SystemClock
from streaming_service.ingest import Feed

if TYPE_CHECKING:
    from streaming_service.live_sources import LiveSources

# How often a simulation looks at the clock, in wall time: what a candle may be late by.
_POLL_S: Final = 0.005
_TICK_FILES: Final = (".csv", ".csv.gz", ".parquet")


@dataclass(frozen=True, slots=True)
class Inputs:
    """The feeds of a service and its clock, which runs `speed` times as fast as the wall clock. live: what is behind
    feeds that come over the network."""

    feeds: tuple[Feed, ...]
    clock: Clock
    speed: float = 1.0
    live: LiveSources | None = None


def make_inputs(
    settings: Settings, instruments: Sequence[InstrumentDefinition], *, wall: Clock | None = None
) -> Inputs:
    """Feeds and clock for `settings`.

    Raises:
        ConfigError: see `check_sources`; or an exchange has no adapter.
    """
    chosen = check_sources(settings)
    base = SystemClock() if wall is None else wall
    if is_live(settings):
        from streaming_service.live_sources import live_sources

        live = live_sources(settings, instruments, base)
        return Inputs(tuple(live.feeds), base, live=live)
    (name,) = chosen
    return _RECORDED[name](settings, instruments, base)


def check_sources(settings: Settings) -> frozenset[SourceName]:
    """The sources of the enabled data types: one of those that bring their own clock, or any of the wall clock's.

    Raises:
        ConfigError: there is none, they do not go together, or one lacks what it reads.
    """
    sections = settings.data_types.enabled().values()
    # Derived liquidations come from the trades.
    chosen = frozenset(section.source for section in sections) - {SourceName.TRADE_TRANSFORMATION}
    if not chosen:
        raise ConfigError("no data type is enabled", key="data_types", hint="enable at least trades")
    if len(chosen) > 1 and not chosen <= _OF_THE_WALL_CLOCK:
        names = ", ".join(sorted(chosen))
        raise ConfigError(
            f"sources {names} cannot run together: each brings its own clock",
            key="data_types",
            hint="give every enabled data type the same source, or any of tardis_realtime and exchange",
        )
    if SourceName.FILES in chosen and not settings.files.paths:
        raise ConfigError("source files has no paths", key="files.paths", hint="name files or directories")
    return chosen


def is_live(settings: Settings) -> bool:
    """True where the feeds come over the network as things happen."""
    return check_sources(settings) <= _OF_THE_WALL_CLOCK


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


def _files(settings: Settings, instruments: Sequence[InstrumentDefinition], wall: Clock) -> Inputs:
    from streaming_service.sources.files import FilesSource

    files = settings.files
    paced = not math.isinf(files.speed)
    source = FilesSource(tick_files_in(files.paths), speed=files.speed if paced else None, clock=wall)
    speed = files.speed if paced else 1.0
    return Inputs(
        (Feed("files", source, recorded=True),), DataClock(lambda: source.fed_until_us, speed=speed, base=wall), speed
    )


def _tardis_replay(settings: Settings, instruments: Sequence[InstrumentDefinition], wall: Clock) -> Inputs:
    from streaming_service.live_sources import tardis_access
    from streaming_service.sources.exchanges.venues import VENUES
    from streaming_service.sources.recording import RecordedSource
    from streaming_service.sources.tardis_replay.replay import TardisReplay

    tardis = settings.tardis
    if tardis.replay_from is None or tardis.replay_to is None:
        raise ConfigError(
            "source tardis_replay has no range",
            key="tardis.replay_from",
            hint="set tardis.replay_from and tardis.replay_to",
        )
    begin, end = (int(at.timestamp() * SECOND_US) for at in (tardis.replay_from, tardis.replay_to))
    data_types = [DataType(name) for name in settings.data_types.enabled()]
    recording = TardisReplay(VENUES, instruments, data_types, begin, end, access=tardis_access(settings))
    paced = not math.isinf(tardis.replay_speed)
    speed = tardis.replay_speed if paced else 1.0
    source = RecordedSource(recording, speed=speed if paced else None, clock=wall)
    clock = DataClock(lambda: source.fed_until_us, speed=speed, base=wall)
    return Inputs((Feed("tardis_replay", source, recorded=True),), clock, speed)


_OF_THE_WALL_CLOCK: Final = frozenset({SourceName.TARDIS_REALTIME, SourceName.EXCHANGE})
_RECORDED: Final[Mapping[SourceName, Callable[[Settings, Sequence[InstrumentDefinition], Clock], Inputs]]] = {
    SourceName.SIMULATED: _simulated,
    SourceName.FILES: _files,
    SourceName.TARDIS_REPLAY: _tardis_replay,
}


def tick_files_in(paths: Sequence[Path]) -> list[Path]:
    """The files among `paths`, and below those that are directories, in the order of their names."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(each for each in path.rglob("*") if each.is_file() and each.name.endswith(_TICK_FILES))
        else:
            found.append(path)
    return found

"""`replay --journal`: recorded frames in, the candles of the service that recorded them out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from market_data_tick_handler.commands.console import DONE, FAILED, PARTLY, stdout, table
from market_data_tick_handler.commands.replay import (
    CandlePrinter,
    Progress,
    ReplayOptions,
    pace,
    pipeline_maker,
    prepare,
    report_totals,
)
from market_data_tick_handler.errors import CorruptObject

if TYPE_CHECKING:
    from market_data_tick_handler.config import Settings
    from streaming_service.recorded_run import RecordedRun
    from streaming_service.replay import Replay, ReplayTotals
    from streaming_service.sources.recording import RecordedSource


def run_journal(options: ReplayOptions, path: Path) -> int:
    """Replay the recording at `path`; 0: all of it, 3: a part, as files are missing or damaged, 1: nothing.

    A recording of a service is replayed with the settings it ran with, one of a single source with those of now.

    Raises:
        NotFound: nothing is recorded there. ConfigError: settings, speed or timeframes make no sense.
    """
    from streaming_service.clock import SystemClock
    from streaming_service.recorded_run import RecordedRun
    from streaming_service.replay import Replay
    from streaming_service.sources.exchanges.venues import VENUES
    from streaming_service.sources.recording import RecordedSource
    from streaming_service.sources.tardis_machine.venue import TardisMachine

    settings = prepare(options)
    recorded = RecordedRun(path, VENUES, machine=TardisMachine(settings.tardis.machine_url))
    source = RecordedSource(recorded, speed=pace(settings), clock=SystemClock())
    printer = CandlePrinter() if options.show else None
    started_s = time.monotonic()
    with (
        Replay(
            root=options.out,
            make_pipeline=pipeline_maker(settings, keep_rows=options.store_ticks),
            store_ticks=options.store_ticks,
            on_candles=printer,
        ) as replay,
        Progress(enabled=printer is None) as progress,
    ):
        totals, problem = _play(options, settings, recorded, source, replay, progress)
    stdout().print(table("Sources", ("source", "files", "violations", "outcome"), _outcomes(recorded, problem)))
    report_totals(options, totals, time.monotonic() - started_s)
    whole = not problem and not any(each.unknown_frames for each in recorded.replays)
    return DONE if whole else PARTLY if totals.rows else FAILED


def _play(
    options: ReplayOptions,
    settings: Settings,
    recorded: RecordedRun,
    source: RecordedSource,
    replay: Replay,
    progress: Progress,
) -> tuple[ReplayTotals, str]:
    """Replay all of it; what stopped it before its end, or nothing."""
    from streaming_service.run_replay import RunReplay

    timeframes = settings.candles.timeframes if options.timeframes else ()
    player = RunReplay(recorded.told, replay, timeframes=timeframes, keep_rows=options.store_ticks)
    try:
        if recorded.told.lives:
            return asyncio.run(player.run(source, progress.show)), ""
        return asyncio.run(replay.run(source.events(), progress.show)), ""
    except CorruptObject as error:
        return player.finish(), str(error)


def _outcomes(recorded: RecordedRun, problem: str) -> Iterator[tuple[object, ...]]:
    for source, replay in zip(recorded.sources, recorded.replays, strict=True):
        told = []
        if problem and any(str(file) in problem for file in replay.recorded.files):
            told.append(f"FAILED {problem}")
        if replay.unknown_frames:
            told.append(f"{replay.unknown_frames:,} frames of connections whose opening is in none of the files")
        if replay.recorded.torn:
            told.append(f"torn end of {', '.join(file.name for file in replay.recorded.torn)}")
        name = source.folder or replay.recorded.files[0].name
        yield (name, len(replay.recorded.files), replay.violations, "; ".join(told) or "read")

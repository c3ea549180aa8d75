"""Memory over a simulated day through the whole live service, as fast as it goes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import ticks
from benchmarks.measure import in_child, rss_mb
from benchmarks.results import Result

TRADES_PER_SECOND = 50.0
GOAL_SPREAD = 0.05
# The rings and pools are as large as they get after this share of the run.
WARM_UP = 0.1
_SAMPLES = 500
# The sinks flush by the wall clock, every 5 s. A day that takes seconds would never be flushed, so the service gets a
# wall clock that runs faster too: a flush about every half hour of the day.
_WALL_SPEED = 60.0


def run(quick: bool) -> Iterator[Result]:
    """RSS from the end of the warm-up to the end of the day, without and with the files of candles."""
    hours = 4 if quick else 24
    for modes in (["serve"], ["serve", "persist"]):
        with TemporaryDirectory(prefix="benchmark-") as root:
            found = in_child("benchmarks.soak:measure", {"root": root, "hours": hours, "modes": modes})
        yield _result(" and ".join(modes), hours, found)


def _result(modes: str, hours: int, found: dict[str, Any]) -> Result:
    low, high, middle = found["low"], found["high"], (found["low"] + found["high"]) / 2
    speed = hours * 3_600 / found["seconds"]
    spread = (high - low) / 2 / middle
    return Result(
        benchmark="soak",
        what=f"{modes}: {hours} h at {TRADES_PER_SECOND:.0f} trades/s, {found['trades']:,} trades",
        measured=(
            f"{low:.0f} to {high:.0f} MB (+-{spread * 100:.1f} %; {found['after_warm_up']:.0f} MB after warm-up, "
            f"{found['last']:.0f} at the end), {found['candles']:,} candles, {speed:.0f}x real time"
        ),
        goal=f"+-{GOAL_SPREAD * 100:.0f} %",
        ok=spread <= GOAL_SPREAD,
    )


def measure(root: str, hours: int, modes: list[str]) -> dict[str, Any]:
    """Megabytes and counts of a service with trades and book, all features, as `stream` runs it."""
    from market_data_tick_handler.config import Settings
    from market_data_tick_handler.core.ticks import DataType
    from streaming_service.app import Service
    from streaming_service.clock import DataClock, ScaledClock, SystemClock
    from streaming_service.feeds import Inputs
    from streaming_service.ingest import Feed
    from streaming_service.sources.simulated import SimulatedSource

    settings = Settings(
        modes=modes,
        instruments=(ticks.INSTRUMENT.key,),
        persist={"path": root},
        monitoring={"port": 0},
        shutdown={"deadline": 60 * _WALL_SPEED},
    )
    start_us, end_us = ticks.DAY_START_US, ticks.DAY_START_US + hours * 3_600_000_000
    source = SimulatedSource(
        settings.instruments,
        clock=SystemClock(),
        start_us=start_us,
        trades_per_second=TRADES_PER_SECOND,
        speed=None,
        duration_s=hours * 3_600,
    )
    wall = ScaledClock(start_us=start_us, speed=_WALL_SPEED)
    feed = Feed("simulated", source, recorded=True)
    service = Service(settings, inputs=Inputs((feed,), DataClock(lambda: source.fed_until_us)), wall=wall)
    begin_s = time.perf_counter()
    sizes = asyncio.run(_sampled(service, lambda: source.fed_until_us, start_us, end_us))
    return {
        "low": min(sizes),
        "high": max(sizes),
        "after_warm_up": sizes[0],
        "last": sizes[-1],
        "seconds": time.perf_counter() - begin_s,
        "trades": service.accounts[(ticks.INSTRUMENT.key, DataType.TRADES)].received,
        "candles": service.metrics.candles,
    }


async def _sampled(service: Any, reached_us: Any, start_us: int, end_us: int) -> list[float]:
    """RSS at equal steps of simulated time after the warm-up, while the service runs to its end."""
    step_us = (end_us - start_us) // _SAMPLES
    next_us = start_us + int((end_us - start_us) * WARM_UP)
    running = asyncio.ensure_future(service.run())
    sizes: list[float] = []
    while not running.done():
        await asyncio.wait([running], timeout=0.02)
        if reached_us() >= next_us:
            sizes.append(rss_mb())
            next_us = reached_us() + step_us
    await running
    return sizes

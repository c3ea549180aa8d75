"""History: a day of trades from Parquet and from csv.gz, next to the polars cascade."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import ticks
from benchmarks.measure import in_child, medians, peak_rss_mb
from benchmarks.results import Result, million
from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.options import PipelineOptions

ROWS = 5_000_000
GOAL_ALL_M = 4.0
GOAL_RSS_MB = 600
LEAN = ("ohlcv",)
# What trades alone give; the other groups have benchmarks of their own.
TRADE_GROUPS = ("ohlcv", "flow", "delays", "returns", "indicators")


def run_parquet(quick: bool) -> Iterator[Result]:
    """Raw day file -> 7 timeframes."""
    repeats = 3 if quick else 7
    with TemporaryDirectory(prefix="benchmark-") as root:
        in_child("benchmarks.ticks:write_day", {"root": root, "rows": ROWS})
        for one_thread in (True, False):
            found = in_child(
                "benchmarks.history:measure_parquet", {"root": root, "repeats": repeats}, one_thread=one_thread
            )
            threads = "one thread" if one_thread else "all threads"
            yield _against("parquet", threads, ROWS, found)
            if one_thread:
                yield Result(
                    benchmark="parquet",
                    what="all of groups 0-3, one thread",
                    measured=million(ROWS, found["all"]),
                    goal=f">= {GOAL_ALL_M} M/s",
                    ok=ROWS / found["all"] >= GOAL_ALL_M * 1e6,
                )


def run_csv(quick: bool) -> Iterator[Result]:
    """Tardis csv.gz -> 7 timeframes."""
    repeats, rows = (3, 1_000_000) if quick else (5, ROWS)
    with TemporaryDirectory(prefix="benchmark-") as root:
        path = str(Path(root) / ticks.CSV_NAME)
        in_child("benchmarks.ticks:write_csv", {"path": path, "rows": rows})
        for one_thread in (True, False):
            arguments = {"path": path, "repeats": repeats}
            found = in_child("benchmarks.history:measure_csv", arguments, one_thread=one_thread)
            threads = "one thread" if one_thread else "all threads"
            yield _against("csv.gz", threads, rows, found)
            for name, what in (("replay", "the same, as replay computes it"), ("all", "all of groups 0-3")):
                yield Result(
                    benchmark="csv.gz",
                    what=f"{what}, {threads}",
                    measured=million(rows, found[name]),
                    against=f"polars {million(rows, found['polars'])}",
                    ratio=found["polars"] / found[name],
                )


def run_memory(quick: bool) -> Iterator[Result]:
    """Peak of a fresh process that computes one day."""
    with TemporaryDirectory(prefix="benchmark-") as root:
        in_child("benchmarks.ticks:write_day", {"root": root, "rows": ROWS})
        for groups, name in ((LEAN, "OHLCV, flow and counts"), (TRADE_GROUPS, "all of groups 0-3")):
            peak = in_child("benchmarks.history:measure_memory", {"root": root, "groups": list(groups)})
            yield Result(
                benchmark="memory",
                what=f"day of 5 M trades, {name}",
                measured=f"{peak['peak']:.0f} MB (after imports {peak['before']:.0f} MB)",
                goal=f"< {GOAL_RSS_MB} MB",
                ok=peak["peak"] < GOAL_RSS_MB,
            )


def _against(benchmark: str, threads: str, rows: int, found: dict[str, Any]) -> Result:
    ratio = found["polars"] / found["lean"]
    differs = f"; bars differ: {', '.join(found['differences'])}" if found["differences"] else ""
    return Result(
        benchmark=benchmark,
        what=f"OHLCV, flow and counts, {threads}",
        measured=million(rows, found["lean"]) + differs,
        against=f"polars {million(rows, found['polars'])}",
        ratio=ratio,
        goal=">= 1.00, same bars",
        ok=ratio >= 1.0 and not differs,
    )


def measure_parquet(root: str, repeats: int) -> dict[str, Any]:
    """Median seconds of ours with few and with all columns, and of the peer."""
    from benchmarks import polars_cascade

    path = str(ticks.day_file(Path(root)))
    found: dict[str, Any] = dict(
        medians(
            {
                "lean": lambda: _from_parquet(root, LEAN),
                "polars": lambda: polars_cascade.from_parquet(path),
                "all": lambda: _from_parquet(root, TRADE_GROUPS),
            },
            repeats,
        )
    )
    bars = polars_cascade.from_parquet(path)
    return found | {"differences": polars_cascade.differences(_from_parquet(root, LEAN), bars)}


def measure_csv(path: str, repeats: int) -> dict[str, Any]:
    """The same from a Tardis file."""
    from benchmarks import polars_cascade

    found: dict[str, Any] = dict(
        medians(
            {
                "lean": lambda: _from_csv(path, LEAN),
                "polars": lambda: polars_cascade.from_csv(path),
                "replay": lambda: asyncio.run(_replayed(path, LEAN)),
                "all": lambda: _from_csv(path, TRADE_GROUPS),
            },
            repeats,
        )
    )
    bars = polars_cascade.from_csv(path)
    return found | {"differences": polars_cascade.differences(_from_csv(path, LEAN), bars)}


def measure_memory(root: str, groups: list[str]) -> dict[str, float]:
    """Megabytes before and at the peak."""
    import batch.candle_processing  # noqa: F401

    before = peak_rss_mb()
    _from_parquet(root, tuple(groups))
    return {"before": before, "peak": peak_rss_mb()}


def _from_parquet(root: str, groups: tuple[str, ...]) -> list[CandleBatch]:
    from batch.candle_processing import run_day

    return run_day(Path(root), ticks.INSTRUMENT, PipelineOptions(groups=groups), ticks.DAY).candles


async def _replayed(path: str, groups: tuple[str, ...]) -> list[CandleBatch]:
    """As `replay` does it, without its output: a live pipeline that closes every candle at its time."""
    from market_data_tick_handler.core.pipeline import Pipeline
    from streaming_service.clock import SystemClock
    from streaming_service.sources.files import FilesSource

    pipeline = Pipeline(ticks.INSTRUMENT, PipelineOptions(groups=groups))
    candles: list[CandleBatch] = []
    async for events in FilesSource([Path(path)], speed=None, clock=SystemClock()).events():
        pipeline.feed(events)
        candles += pipeline.outputs()
    pipeline.finish(pipeline.clock_us + 1)
    return candles + pipeline.outputs()


def _from_csv(path: str, groups: tuple[str, ...]) -> list[CandleBatch]:
    from market_data_tick_handler.core.events import Rows
    from market_data_tick_handler.core.pipeline import Day, Pipeline
    from market_data_tick_handler.storage.read_ahead import ahead
    from market_data_tick_handler.storage.tardis_csv import read_tardis_csv

    pipeline = Pipeline(ticks.INSTRUMENT, PipelineOptions(groups=groups), day=Day(ticks.DAY_START_US))
    for part in ahead(read_tardis_csv(path)):
        pipeline.feed(Rows(ticks.INSTRUMENT.key, part.batch))
    pipeline.finish_day()
    return pipeline.outputs()

"""Start: how long the kernels compile once, and how long a warm command takes to its first candle."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks import ticks
from benchmarks.measure import REPOSITORY, in_child
from benchmarks.results import Result

GOAL_START_S = 3.0


def run_kernels(quick: bool) -> Iterator[Result]:
    """Numba compile time, which no other number contains."""
    with TemporaryDirectory(prefix="benchmark-") as cache:
        for what in ("compile all kernels, empty cache", "load all kernels, warm cache"):
            seconds = in_child("benchmarks.startup:measure_kernels", {}, NUMBA_CACHE_DIR=cache)
            yield Result(benchmark="kernels", what=what, measured=f"{seconds:.2f} s")


def run_start(quick: bool) -> Iterator[Result]:
    """`replay` of a file of 1,000 trades, from nothing to the first candle on the terminal."""
    repeats = 3 if quick else 5
    with TemporaryDirectory(prefix="benchmark-") as root:
        path = Path(root) / ticks.CSV_NAME
        in_child("benchmarks.ticks:write_csv", {"path": str(path), "rows": 1_000})
        command = [sys.executable, "-m", "market_data_tick_handler", "replay", "--files", str(path), "--print"]
        # The first run may compile.
        seconds = [_first_candle_s([*command, "--out", f"{root}/{number}"]) for number in range(repeats + 1)][1:]
    yield Result(
        benchmark="start",
        what="warm command line to first candle",
        measured=f"{median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f})",
        goal=f"<= {GOAL_START_S:.0f} s",
        ok=median(seconds) <= GOAL_START_S,
    )


def compile_once() -> None:
    """Fill the kernel cache, so that no measured process compiles."""
    in_child("benchmarks.startup:measure_kernels", {})
    with TemporaryDirectory(prefix="benchmark-") as root:
        path = str(Path(root) / ticks.CSV_NAME)
        in_child("benchmarks.ticks:write_csv", {"path": path, "rows": 1_000})
        in_child("benchmarks.history:measure_csv", {"path": path, "repeats": 1})


def measure_kernels() -> float:
    """Seconds of the warm-up after the imports."""
    from market_data_tick_handler.core import warmup

    begin_s = time.perf_counter()
    warmup.compile_kernels()
    return time.perf_counter() - begin_s


def _first_candle_s(command: list[str]) -> float:
    begin_s = time.perf_counter()
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if ticks.INSTRUMENT.key in line and "O=" in line:
                elapsed_s = time.perf_counter() - begin_s
                # Close without reading would break the command's pipe.
                process.stdout.read()
                return elapsed_s
    raise LookupError(f"no candle came out of: {' '.join(command)}")

"""Fair timing: fresh processes with a fixed number of threads, peers taken in turn, medians."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

T = TypeVar("T")
REPOSITORY = Path(__file__).resolve().parent.parent


def in_turn(jobs: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of every run of each job. One run of each that is not timed comes first; then they take turns, so that
    what else the machine does meets all of them alike."""
    for job in jobs.values():
        job()
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(repeats):
        for name, job in jobs.items():
            begin_s = time.perf_counter()
            job()
            seconds[name].append(time.perf_counter() - begin_s)
    return seconds


def medians(jobs: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each job."""
    return {name: median(values) for name, values in in_turn(jobs, repeats).items()}


def in_child(function: str, arguments: Mapping[str, Any], *, one_thread: bool = False, **environment: str) -> Any:
    """What `module:function(**arguments)` returns (JSON) in a fresh process.

    one_thread: one processor for everything in that process, and one thread for polars.
    """
    extra = {"POLARS_MAX_THREADS": "1", "BENCHMARK_ONE_THREAD": "1"} if one_thread else {}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.child", function, json.dumps(arguments)],
        cwd=REPOSITORY,
        env={**os.environ, **extra, **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def on_loop(job: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns, on the event loop that the service uses."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(job)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(job)


def peak_rss_mb() -> float:
    """Most memory this process ever had. Linux; VmHWM starts anew with the program, unlike ru_maxrss."""
    return _status("VmHWM") / 1024


def rss_mb() -> float:
    """Memory of this process now."""
    return _status("VmRSS") / 1024


def _status(field: str) -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return float(line.split()[1])
    raise LookupError(f"/proc/self/status has no {field}")

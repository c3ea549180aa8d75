"""`python -m benchmarks [NAME ...] [--quick]`: prints goal, measured and ratio. It never fails a build."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from benchmarks import (
    book,
    everything,
    history,
    indicators,
    live,
    live_socket,
    persist,
    repair,
    serve_many,
    serve_redis,
    soak,
    startup,
)
from benchmarks.results import Result, table

BENCHMARKS: Final[Mapping[str, Callable[[bool], Iterator[Result]]]] = {
    "kernels": startup.run_kernels,
    "start": startup.run_start,
    "live": live.run,
    "live_socket": live_socket.run,
    "repair": repair.run,
    "book": book.run,
    "everything": everything.run,
    "parquet": history.run_parquet,
    "csv": history.run_csv,
    "memory": history.run_memory,
    "indicators": indicators.run,
    "serve_redis": serve_redis.run,
    "serve_many": serve_many.run,
    "persist": persist.run,
    "soak": soak.run,
}


def main() -> None:
    """Benchmarks by name, all by default."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="docs/benchmarks.md says how to read it.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {' '.join(BENCHMARKS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, and less input where that is fair")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(BENCHMARKS))
    if unknown:
        parser.error(f"expected names of {' '.join(BENCHMARKS)}; got {' '.join(unknown)}")
    load, python = os.getloadavg()[0], platform.python_version()
    print(f"{platform.machine()}, {os.cpu_count()} processors, load {load:.1f}, Python {python}")
    # Compiling costs a process time and 200 MB; only the benchmark `kernels` is about that.
    startup.compile_once()
    results: list[Result] = []
    for name in arguments.names or BENCHMARKS:
        for result in _results(name, arguments.quick):
            print(f"  {result.benchmark}: {result.what}: {result.measured}", flush=True)
            results.append(result)
    print(f"\n{table(results)}")


def _results(name: str, quick: bool) -> Iterator[Result]:
    """The results of one benchmark; one that breaks must not cost those of the others."""
    try:
        yield from BENCHMARKS[name](quick)
    except (subprocess.CalledProcessError, LookupError, OSError) as error:
        yield Result(benchmark=name, what="did not run", measured=str(error), ok=False)


if __name__ == "__main__":
    main()

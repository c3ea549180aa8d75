"""Runs one measurement in a process of its own: `python -m benchmarks.child module:function '{"argument": 1}'`."""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module


def main(function: str, arguments: str) -> None:
    """Before anything starts a thread, the process is held to one processor if it shall have one."""
    if os.environ.get("BENCHMARK_ONE_THREAD"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    module, _, name = function.partition(":")
    result = getattr(import_module(module), name)(**json.loads(arguments))
    print(f"\n{json.dumps(result)}")


if __name__ == "__main__":
    main(*sys.argv[1:])

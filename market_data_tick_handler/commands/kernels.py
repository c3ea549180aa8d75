"""Compiles the kernels before a command needs them, and says so: a silent first minute looks like a hang."""

from __future__ import annotations

import time

from market_data_tick_handler.commands.console import stderr


def prepare_kernels() -> None:
    """Compile what is not in the cache yet, and say so: on a first run that takes a while."""
    from market_data_tick_handler.core import warmup

    if warmup.is_warm():
        return
    console = stderr()
    console.print("First run on this machine: compiling kernels once; later starts take them from the cache.")
    started_s = time.monotonic()
    with console.status("compiling ..."):
        warmup.compile_kernels(lambda name: console.print(f"  {name}", style="dim", markup=False))
    console.print(f"Compiled in {time.monotonic() - started_s:.1f} s.")

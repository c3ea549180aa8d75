"""Compiles the kernels before a command needs them, and says so: a silent first minute looks like a hang."""

from __future__ import annotations

import time
from collections.abc import Callable

from market_data_tick_handler.commands.console import stderr


def prepare_kernels(say: Callable[[str], None] | None = None) -> None:
    """Compile what is not in the cache yet. `say` gets lines of text; the default writes them to stderr."""
    from market_data_tick_handler.core import warmup

    if warmup.is_warm():
        return
    tell = say or (lambda text: stderr().print(text, markup=False))
    tell("First run on this machine: compiling kernels once; later starts take them from the cache.")
    started_s = time.monotonic()
    warmup.compile_kernels(lambda name: tell(f"  {name}"))
    tell(f"Compiled in {time.monotonic() - started_s:.1f} s.")

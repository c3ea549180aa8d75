"""Compiles the kernels before a command needs them, and says so where people look."""

from __future__ import annotations

from collections.abc import Callable

from market_data_tick_handler.commands.console import stderr


def prepare_kernels(say: Callable[[str], None] | None = None) -> None:
    """Compile what is not in the cache yet. `say` gets lines of text; the default writes them to stderr."""
    from market_data_tick_handler.storage.compilation import compile_on_first_run

    compile_on_first_run(say or (lambda text: stderr().print(text, markup=False)))

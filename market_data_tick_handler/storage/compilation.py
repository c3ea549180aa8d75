"""Compiles every kernel, those of the core and of the readers of files, before a program needs them, and says so."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from market_data_tick_handler.core import warmup


def compile_on_first_run(say: Callable[[str], None]) -> None:
    """Compile what is not in the cache yet: a minute on a new machine, nothing afterwards.

    say: gets lines of text, because a silent first minute looks like a hang.
    """
    if warmup.is_warm():
        return
    say("First run on this machine: compiling kernels once; later starts take them from the cache.")
    started_s = time.monotonic()
    warmup.compile_kernels(lambda name: say(f"  {name}"))
    say("  csv files")
    _read_a_csv_file()
    say(f"Compiled in {time.monotonic() - started_s:.1f} s.")


def _read_a_csv_file() -> None:
    from market_data_tick_handler.storage.tardis_csv import read_tardis_csv

    header = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount"
    row = "binance,BTCUSDT,1704067200000000,1704067200002000,1,buy,100.5,0.25"
    with tempfile.TemporaryDirectory(prefix="tick-handler-") as folder:
        path = Path(folder) / "binance_trades_2024-01-01_BTCUSDT.csv"
        path.write_text(f"{header}\n{row}\n", encoding="utf-8")
        for _ in read_tardis_csv(path, read_ahead=False):
            pass

"""Sinks of local tables, and what is in them, for the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from market_data_tick_handler.config.outputs import PersistSettings
from market_data_tick_handler.storage.local_tables import TABLES, read_table
from streaming_service.clock import Clock, SystemClock
from streaming_service.sinks.tables.local import LocalTableSink
from streaming_service.sinks.tables.sender import RetryPolicy
from streaming_service.sinks.tables.table_files import TableFiles
from streaming_service.sinks.tables.upkeep import Upkeep
from tests.streaming_service.sinks.numbered_rows import GROUPS

DATASET = "market_data_streaming_live"
QUICK = RetryPolicy(attempts=4, base_s=0.01, cap_s=0.05)
_KINDS = ("candles", "trades", "book_snapshot_5", "derivative_ticker", "liquidations", "options_chain")


def settings(store: Path, *, timeout: str = "100ms", **options: Any) -> PersistSettings:
    """Settings with the batch timeouts of a test."""
    shared = {"batch_timeouts": dict.fromkeys(_KINDS, timeout), **options}
    return PersistSettings.model_validate({"path": str(store), "bigquery": shared})


def make_sink(
    store: Path,
    *,
    clock: Clock | None = None,
    files: TableFiles | None = None,
    merged_at: int = 3,
    every_s: float = 0.1,
    **options: Any,
) -> LocalTableSink:
    """A sink that is quick to send and to merge."""
    files = TableFiles() if files is None else files
    return LocalTableSink(
        settings(store, **options),
        groups=GROUPS,
        clock=SystemClock() if clock is None else clock,
        service="test",
        retry=QUICK,
        files=files,
        upkeep=Upkeep(files, merged_at=merged_at, every_s=every_s),
    )


def table(store: Path, name: str = "candles_1m") -> Path:
    """Directory of a table."""
    return store / TABLES / DATASET / name


def numbers(store: Path, name: str = "candles_1m", column: str = "open") -> list[float]:
    """The column that tells the rows apart, in order, repetitions included."""
    found: list[float] = read_table(table(store, name), [column])[column].to_pylist()
    return sorted(found)

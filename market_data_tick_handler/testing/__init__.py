"""Public fakes and builders for tests of code that uses this package: manual clock, scripted source, tick builders."""

from __future__ import annotations

from market_data_tick_handler.testing.clock import ManualClock
from market_data_tick_handler.testing.source import ScriptedSource
from market_data_tick_handler.testing.ticks import (
    books,
    chunks,
    derivative_tickers,
    liquidations,
    rows,
    trades,
)

__all__ = [
    "ManualClock",
    "ScriptedSource",
    "books",
    "chunks",
    "derivative_tickers",
    "liquidations",
    "rows",
    "trades",
]

"""A simulated exchange on loopback: real protocols, a known truth, and every way in which a feed can fail.

clock = LoopClock(start_us)
async with SimulatedExchange("binance", ["BTCUSDT"], clock=clock, seed=7) as exchange:
    ...  # connect to exchange.sockets and exchange.rest, with the venue's own paths
    exchange.inject(Cut(duration_s=2.0))
    exchange.truth("BTCUSDT")
"""

from __future__ import annotations

from market_data_tick_handler.testing.exchange.clock import Clock, LoopClock
from market_data_tick_handler.testing.exchange.counters import Counters
from market_data_tick_handler.testing.exchange.dialects import EXCHANGES
from market_data_tick_handler.testing.exchange.exchange import Burst, SimulatedExchange
from market_data_tick_handler.testing.exchange.faults import (
    BookBreak,
    ClockStep,
    Close,
    Cut,
    Drop,
    Duplicate,
    Fault,
    Garbage,
    Maintenance,
    Mute,
    RateLimit,
    Reorder,
    Slow,
    Stall,
)
from market_data_tick_handler.testing.exchange.schedule import SILENT, Rates

__all__ = [
    "EXCHANGES",
    "SILENT",
    "BookBreak",
    "Burst",
    "Clock",
    "ClockStep",
    "Close",
    "Counters",
    "Cut",
    "Drop",
    "Duplicate",
    "Fault",
    "Garbage",
    "LoopClock",
    "Maintenance",
    "Mute",
    "RateLimit",
    "Rates",
    "Reorder",
    "SimulatedExchange",
    "Slow",
    "Stall",
]

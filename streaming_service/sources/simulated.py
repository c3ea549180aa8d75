"""The public names of the simulated exchange."""

from __future__ import annotations

from streaming_service.sources.simulation.delivery import FaultCounts
from streaming_service.sources.simulation.faults import (
    Delay,
    Disconnected,
    Drop,
    Duplicate,
    Fault,
    Invalid,
    Late,
    Reorder,
    SkewClock,
    demo_faults,
    fault_from_mapping,
    fault_to_mapping,
)
from streaming_service.sources.simulation.market import SimulatedMarket
from streaming_service.sources.simulation.settings import MarketSettings
from streaming_service.sources.simulation.source import SimulatedSource

__all__ = [
    "Delay",
    "Disconnected",
    "Drop",
    "Duplicate",
    "Fault",
    "FaultCounts",
    "Invalid",
    "Late",
    "MarketSettings",
    "Reorder",
    "SimulatedMarket",
    "SimulatedSource",
    "SkewClock",
    "demo_faults",
    "fault_from_mapping",
    "fault_to_mapping",
]

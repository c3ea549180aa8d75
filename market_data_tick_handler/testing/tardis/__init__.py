"""Servers on loopback that speak as tardis-machine and as Tardis.dev's API do, from data and faults a test gives them.

async with TardisMachineServer(messages) as machine:
    ... TardisMachine(machine.url) ...
async with TardisApiServer({"binance-futures": lines}) as api:
    ... tardis_dev.replay(..., endpoint=api.endpoint) ...
"""

from __future__ import annotations

from market_data_tick_handler.testing.tardis.api import Fault, TardisApiServer
from market_data_tick_handler.testing.tardis.machine import (
    Asked,
    Close,
    Drop,
    Garbage,
    Stall,
    Step,
    TardisMachineServer,
)

__all__ = ["Asked", "Close", "Drop", "Fault", "Garbage", "Stall", "Step", "TardisApiServer", "TardisMachineServer"]

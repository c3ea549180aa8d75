"""Live and historical ticks through a tardis-machine that somebody runs."""

from __future__ import annotations

from streaming_service.sources.tardis_machine.decoder import MachineDecoder
from streaming_service.sources.tardis_machine.replay import MachineReplay, MachineTrades, Patience, replay_normalized
from streaming_service.sources.tardis_machine.venue import TardisMachine

__all__ = ["MachineDecoder", "MachineReplay", "MachineTrades", "Patience", "TardisMachine", "replay_normalized"]

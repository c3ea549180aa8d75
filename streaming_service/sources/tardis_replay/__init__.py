"""Raw history of the venues from Tardis.dev, through the vendor's client and our adapters."""

from __future__ import annotations

from streaming_service.sources.tardis_replay.client import TardisAccess
from streaming_service.sources.tardis_replay.replay import Account, TardisReplay, TardisTrades

__all__ = ["Account", "TardisAccess", "TardisReplay", "TardisTrades"]

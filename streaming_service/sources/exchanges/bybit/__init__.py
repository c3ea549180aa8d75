"""Bybit v5: contracts, spot and options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from streaming_service.sources.exchanges.bybit.venue import BybitVenue
from streaming_service.sources.exchanges.protocol import Venue

__all__ = ["VENUES"]

VENUES: Final[Mapping[str, Venue]] = {name: BybitVenue(name) for name in ("bybit", "bybit-spot", "bybit-options")}

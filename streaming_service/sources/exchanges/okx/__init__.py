"""OKX: spot, perpetual swaps, dated futures and options, over its API v5."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from streaming_service.sources.exchanges.okx.decoder import CHANNELS
from streaming_service.sources.exchanges.okx.venue import OkxVenue
from streaming_service.sources.exchanges.protocol import Venue

__all__ = ["VENUES"]

VENUES: Final[Mapping[str, Venue]] = {exchange: OkxVenue(exchange) for exchange in CHANNELS}

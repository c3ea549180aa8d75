"""All exchange adapters, by Tardis exchange id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from streaming_service.sources.exchanges import binance, bybit, deribit, okx
from streaming_service.sources.exchanges.protocol import Venue

VENUES: Final[Mapping[str, Venue]] = {**binance.VENUES, **bybit.VENUES, **deribit.VENUES, **okx.VENUES}

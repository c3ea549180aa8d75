"""Deribit: perpetuals, futures, options, option chains and spot pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from streaming_service.sources.exchanges.deribit.channels import EXCHANGE
from streaming_service.sources.exchanges.deribit.venue import DeribitVenue
from streaming_service.sources.exchanges.protocol import Venue

__all__ = ["VENUES", "DeribitVenue"]

VENUES: Final[Mapping[str, Venue]] = {EXCHANGE: DeribitVenue()}

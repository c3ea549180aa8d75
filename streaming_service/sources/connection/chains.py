"""Keeps a venue's list of what its option chains consist of, where it subscribes them option by option."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from market_data_tick_handler.core.instruments import InstrumentDefinition
from market_data_tick_handler.core.venues import InstrumentType
from streaming_service.sources.exchanges.protocol import Chains, Request, Venue


class Rest(Protocol):
    """What is used of `rest.RestClient`."""

    async def get(self, request: Request) -> bytes: ...


class ChainLists:
    """The options of the chains that are asked for."""

    def __init__(self, venue: Venue, rest: Rest) -> None:
        self._venue = venue
        self._rest = rest
        self._members: dict[str, tuple[str, ...]] = {}

    async def refresh(self, instruments: Sequence[InstrumentDefinition]) -> list[str]:
        """Ask for the options of every chain among `instruments`; keys of those that consist of others than before.

        Raises:
            SourceUnavailable, SourceError: see `RestClient.get`. ProtocolViolation: an answer is not as documented.
        """
        venue, changed = self._venue, []
        if not isinstance(venue, Chains) or not venue.chains_first:
            return []
        for chain in instruments:
            if chain.instrument_type is InstrumentType.OPTION_CHAIN:
                members = venue.read_chain(chain, await self._rest.get(venue.chain_request(chain)))
                if members != self._members.get(chain.key):
                    self._members[chain.key] = members
                    changed.append(chain.key)
        return changed

    @property
    def venue(self) -> Venue:
        """The venue, which knows the lists."""
        return self._venue.with_chains(self._members) if isinstance(self._venue, Chains) else self._venue

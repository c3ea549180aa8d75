"""Asks over REST whether a silent trade stream missed something."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from market_data_tick_handler.core.instruments import InstrumentDefinition
from market_data_tick_handler.core.ticks import ID_INTEGER
from market_data_tick_handler.errors import SourceError
from streaming_service.clock import SECOND_US, Clock
from streaming_service.sources.connection.books import Rest
from streaming_service.sources.exchanges.protocol import TradeRange, Venue

_DAY_US: Final = 86_400 * SECOND_US
_GRACE_PARTS: Final = 4


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest trade somebody knows. id: None where ids do not grow; then the venue's time decides."""

    timestamp_us: int
    id: int | None

    def is_older_than(self, other: Newest) -> bool:
        if self.id is not None and other.id is not None:
            return self.id < other.id
        return self.timestamp_us < other.timestamp_us


class LastTradeCheck:
    """Compares what a stream told with the venue's last trade."""

    def __init__(self, venue: Venue, rest: Rest, *, clock: Clock, grace_s: float) -> None:
        self._venue = venue
        self._rest = rest
        self._clock = clock
        self._grace_s = grace_s

    def can_ask(self, instrument: InstrumentDefinition) -> bool:
        """Whether the venue tells its last trade."""
        return self._venue.history is not None and self._venue.last_trade(instrument) is not None

    async def missed(self, instrument: InstrumentDefinition, known: Callable[[], Newest]) -> bool | None:
        """Whether the venue has a trade that the stream did not bring, nor brings soon; None: it did not say."""
        newest = await self._newest(instrument)
        if newest is None:
            return None
        if not known().is_older_than(newest):
            return False
        # In parts: when the process stood still, its timers end all at once, before the turn that takes what came.
        for _ in range(_GRACE_PARTS):
            await self._clock.sleep(self._grace_s / _GRACE_PARTS)
            if not known().is_older_than(newest):
                return False
        return True

    async def _newest(self, instrument: InstrumentDefinition) -> Newest | None:
        request, history = self._venue.last_trade(instrument), self._venue.history
        if request is None or history is None:
            return None
        anything = TradeRange(0, self._clock.now_us() + _DAY_US)
        try:
            trades = history.read(instrument, anything, await self._rest.get(request)).trades
        except SourceError:
            return None
        if not len(trades):
            return None
        at = int(np.argmax(trades["timestamp"]))
        integer = bool((trades["id_kind"] == ID_INTEGER).all())
        return Newest(int(trades["timestamp"][at]), int(trades["id"].max()) if integer else None)

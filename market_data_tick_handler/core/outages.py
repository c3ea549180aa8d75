"""The gaps of one feed: what is known of them, and the outage that has not ended yet."""

from __future__ import annotations

from collections.abc import Sequence

from market_data_tick_handler.core.events import Gap, GapKind
from market_data_tick_handler.core.seen_ids import NEVER_US
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.core.timeframes import DAY_US, ceil_us, floor_us


class Outages:
    """`gaps` is the ledger so far. Methods that change it return the time from which candles change with it.

    A stop of the service is cut at UTC midnight, on either side: no candle is longer than a day.
    """

    __slots__ = ("_data_type", "_instrument", "gaps", "open_us")

    def __init__(self, instrument: str, data_type: DataType, gaps: Sequence[Gap] = ()) -> None:
        self._instrument = instrument
        self._data_type = data_type
        self.gaps: list[Gap] = list(gaps)
        self.open_us = NEVER_US

    def settle(self, gap: Gap) -> int:
        """Put `gap` in the place of the one with its start and kind: it is repaired, explained or lost."""
        self.gaps = [gap if (one.from_us, one.kind) == (gap.from_us, gap.kind) else one for one in self.gaps]
        return gap.from_us

    def known(self) -> list[Gap]:
        """Every gap, an open outage among them."""
        if self.open_us == NEVER_US:
            return self.gaps
        return [*self.gaps, self._gap(self.open_us, NEVER_US, "disconnect", GapKind.OUTAGE)]

    def started(self, at_us: int) -> None:
        """The service runs from `at_us` on."""
        midnight = floor_us(at_us, DAY_US)
        if at_us > midnight:
            self.gaps.append(self._gap(midnight, at_us, "service started", GapKind.NOT_RUNNING))

    def paused(self, from_us: int, to_us: int) -> Gap:
        """The gap of a service that did not run in between, and knows what it knew before."""
        return self._gap(from_us, to_us, "service restarted", GapKind.NOT_RUNNING)

    def stopped(self, at_us: int) -> int:
        """The service does not run from `at_us` on."""
        midnight = ceil_us(at_us, DAY_US)
        if midnight == at_us:
            return NEVER_US
        self.gaps.append(self._gap(at_us, midnight, "service stopped", GapKind.NOT_RUNNING))
        return at_us

    def disconnected(self, last_alive_us: int) -> int:
        """The connection is gone, and the last proof of life was at `last_alive_us`."""
        self.open_us = min(self.open_us, last_alive_us)
        return last_alive_us

    def alive(self, at_us: int) -> Gap | None:
        """Proof of life at `at_us` ends an outage; the gap that it was, None if there was none."""
        if self.open_us >= at_us:
            return None
        gap, self.open_us = self._gap(self.open_us, at_us, "disconnect", GapKind.OUTAGE), NEVER_US
        return gap

    def _gap(self, from_us: int, to_us: int, reason: str, kind: GapKind) -> Gap:
        return Gap(self._instrument, self._data_type, from_us, to_us, reason, kind)

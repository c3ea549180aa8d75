"""How the update ids of Binance order books join: whether a difference continues a snapshot or another difference.

https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams#how-to-manage-a-local-order-book-correctly
https://developers.binance.com/docs/derivatives/usds-margined-futures/websocket-market-streams/How-to-manage-a-local-order-book-correctly
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from streaming_service.sources.exchanges.binance.updates import Difference


class Joining(Protocol):
    """How the ids of one market join."""

    def holds(self, last: int, difference: Difference) -> bool:
        """True where a snapshot up to `last` has all of `difference`."""
        ...

    def joins(self, last: int, difference: Difference) -> bool:
        """True where `difference` may be the first after a snapshot up to `last`."""
        ...

    def follows(self, last: int, difference: Difference) -> bool:
        """True where nothing is missing between the difference that ended with `last` and `difference`."""
        ...

    def follow(self, last: int, differences: Sequence[Difference]) -> bool:
        """True where each of `differences` plainly continues the one before, the first of them `last`."""
        ...


class SpotJoining:
    """Ids of spot: `U` is the `u` before plus one."""

    __slots__ = ()

    def holds(self, last: int, difference: Difference) -> bool:
        return difference.u <= last

    def joins(self, last: int, difference: Difference) -> bool:
        return difference.U <= last + 1 <= difference.u

    def follows(self, last: int, difference: Difference) -> bool:
        # Amounts are absolute: what overlaps does no harm.
        return difference.U <= last + 1 <= difference.u

    def follow(self, last: int, differences: Sequence[Difference]) -> bool:
        expected = [last + 1, *(difference.u + 1 for difference in differences)]
        return [difference.U for difference in differences] == expected[:-1]


class FuturesJoining:
    """Ids of futures count all symbols: `pu` is the `u` before."""

    __slots__ = ()

    def holds(self, last: int, difference: Difference) -> bool:
        return difference.u < last

    def joins(self, last: int, difference: Difference) -> bool:
        return difference.U <= last <= difference.u or difference.pu == last

    def follows(self, last: int, difference: Difference) -> bool:
        return difference.pu == last

    def follow(self, last: int, differences: Sequence[Difference]) -> bool:
        expected = [last, *(difference.u for difference in differences)]
        return [difference.pu for difference in differences] == expected[:-1]

"""Messages about Binance order books, and their levels as columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Final

import msgspec
import numpy as np

from market_data_tick_handler.core.order_book import ASK, BID, BookChanges
from market_data_tick_handler.core.ticks import Array

Level = tuple[float, float]
_Id = Annotated[int, msgspec.Meta(ge=0)]
_Stamp = Annotated[int, msgspec.Meta(gt=0)]


class Difference(msgspec.Struct, gc=False, eq=False):
    """Levels that changed with the updates `U` to `u`, pushed at `E`; `pu`, in futures: `u` of the one before."""

    E: _Stamp
    U: _Id
    u: _Id
    b: list[Level]
    a: list[Level]
    pu: int = -2

    def is_sound(self) -> bool:
        """Levels are checked where they are columns."""
        return self.u >= self.U


class Snapshot(msgspec.Struct, gc=False, eq=False):
    """The best levels after update `lastUpdateId`; `T`, in futures: when that was."""

    lastUpdateId: int
    bids: list[Level]
    asks: list[Level]
    T: int = 0

    def is_sound(self) -> bool:
        return not Levels.of([self.bids, self.asks]).broken()


@dataclass(frozen=True, slots=True)
class Levels:
    """Levels of n messages, bids and then asks of each. price, amount: float64, (m,). counts: int64, (2n,)."""

    price: Array
    amount: Array
    counts: Array

    @classmethod
    def of(cls, sides: Sequence[Sequence[Level]]) -> Levels:
        """Levels of sides: bids of the first message, its asks, bids of the second ..."""
        levels = list(chain.from_iterable(sides))
        counts = np.fromiter(map(len, sides), np.int64, len(sides))
        # A pair of floats is always as wide as any other, packed: columns are views of the bytes.
        size = len(levels)
        header = 1 if size < 2**4 else 3 if size < 2**16 else 5
        packed = np.frombuffer(_pack(levels), _PACKED, size, header)
        return cls(packed["price"].astype(np.float64), packed["amount"].astype(np.float64), counts)

    def broken(self) -> list[int]:
        """Indices of messages with a level that no book has."""
        good = (self.price > 0.0) & (self.price < np.inf) & (self.amount >= 0.0) & (self.amount < np.inf)
        if good.all():
            return []
        stops = np.cumsum(self.counts)[1::2]
        messages = np.searchsorted(stops, np.flatnonzero(~good), side="right")
        return sorted(set(messages.tolist()))

    def changes(self, timestamp: Array, local_us: Array, is_snapshot: Array) -> BookChanges:
        """These levels as changes of a book; the arguments have one value per message."""
        sides = np.tile(np.array([BID, ASK], np.int8), len(timestamp))
        return BookChanges(
            timestamp, local_us, is_snapshot, np.cumsum(self.counts)[1::2],
            np.repeat(sides, self.counts), self.price, self.amount,
        )  # fmt: skip


_PACKED: Final = np.dtype({"names": ["price", "amount"], "formats": [">f8", ">f8"], "offsets": [2, 11], "itemsize": 19})
_pack: Final = msgspec.msgpack.Encoder().encode


def sides_of(differences: Sequence[Difference]) -> list[list[Level]]:
    """Bids and asks of each, as `Levels.of` takes them."""
    return [side for difference in differences for side in (difference.b, difference.a)]

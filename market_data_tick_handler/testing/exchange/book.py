"""An order book that changes by itself, and what a feed of limited depth sees of it.

A dense ladder around a centre: bids below it, asks above it, one tick of room on either side, so it is never crossed.
Every change has a number. A `Window` remembers what its feed published last and says what has changed since: that is
how venues with a feed of the best n levels work, and with unlimited depth it is a difference feed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Final

BID: Final = 1
ASK: Final = -1
LEVELS: Final = 60
# Levels nearer than this are always there.
_STEADY_LEVELS: Final = 5
_MOVES: Final = 0.2
_TOGGLES: Final = 0.35

Levels = list[tuple[int, int]]


class Book:
    """Levels as integers: units of price -> units of amount.

    last_id: number of the last change. first_id: number of the first change since `published`. dense: numbers count by
    one; otherwise other books of the venue use numbers in between.
    """

    __slots__ = ("_centre", "_dense", "_levels", "_rng", "_step", "_tick", "_typical", "first_id", "last_id", "sides")

    def __init__(self, rng: Random, *, centre: int, tick: int, step: int, typical: int, dense: bool) -> None:
        self._rng, self._tick, self._step, self._typical, self._dense = rng, tick, step, typical, dense
        self._centre = centre - centre % tick
        self._levels = min(LEVELS, self._centre // tick - 2)
        self.last_id = 1_000_000 + rng.randrange(1_000_000)
        self.first_id = self.last_id + 1
        self.sides: dict[int, dict[int, int]] = {BID: {}, ASK: {}}
        for k in range(1, self._levels + 1):
            self.sides[BID][self._centre - k * tick] = self._amount()
            self.sides[ASK][self._centre + k * tick] = self._amount()

    @property
    def mid(self) -> int:
        """The centre, in units of price."""
        return self._centre

    def best(self, side: int) -> tuple[int, int]:
        """(price, amount) of the best level."""
        levels = self.sides[side]
        price = max(levels) if side == BID else min(levels)
        return price, levels[price]

    def levels(self, side: int, depth: int | None = None) -> Levels:
        """Best first."""
        return sorted(self.sides[side].items(), reverse=side == BID)[:depth]

    def set(self, side: int, price: int, amount: int) -> None:
        """Put one level; amount 0 removes it. A level that is not there cannot be removed and gets no number."""
        if amount == 0 and price not in self.sides[side]:
            return
        self.last_id += 1 if self._dense else self._rng.randrange(1, 5)
        if amount:
            self.sides[side][price] = amount
        else:
            del self.sides[side][price]

    def change(self) -> None:
        """One random change: a move by a tick, a level that goes or comes back, or another amount."""
        roll = self._rng.random()
        if roll < _MOVES:
            self._move(self._rng.choice((BID, ASK)))
            return
        side = self._rng.choice((BID, ASK))
        k = min(int(self._rng.expovariate(1 / 6)), self._levels - 1) + 1
        price = self._centre - side * k * self._tick
        if roll < _TOGGLES and k > _STEADY_LEVELS and price in self.sides[side]:
            self.set(side, price, 0)
        else:
            self.set(side, price, self._amount())

    def published(self) -> None:
        """What changes from now on belongs to the next message."""
        self.first_id = self.last_id + 1

    def _move(self, direction: int) -> None:
        """Up for BID: the best ask becomes the centre, and the old centre the best bid."""
        new = self._centre + direction * self._tick
        if new < (self._levels + 1) * self._tick:
            return
        old, self._centre = self._centre, new
        self.set(-direction, new, 0)
        self.set(direction, old, self._amount())
        self.set(-direction, new + direction * self._levels * self._tick, self._amount())
        self.set(direction, old - direction * self._levels * self._tick, 0)

    def _amount(self) -> int:
        return max(round(self._rng.expovariate(1 / (4 * self._typical)) / self._step), 1) * self._step


@dataclass(frozen=True, slots=True)
class Delta:
    """One message of a window: (price, amount, was the level there) per side, best first; amount 0: gone.

    first_id, last_id: numbers of the changes in it. previous_id: `last_id` of the message before. count: how many
    messages this window has published.
    """

    bids: list[tuple[int, int, bool]]
    asks: list[tuple[int, int, bool]]
    first_id: int
    last_id: int
    previous_id: int
    count: int


@dataclass(slots=True)
class Window:
    """The best `depth` levels (None: all) as a feed published them last."""

    depth: int | None
    bids: dict[int, int] = field(default_factory=dict)
    asks: dict[int, int] = field(default_factory=dict)
    last_id: int = 0
    count: int = 1
    delta: Delta | None = None

    def start(self, book: Book) -> None:
        """Take the book as it is for published."""
        self.bids, self.asks = dict(book.levels(BID, self.depth)), dict(book.levels(ASK, self.depth))
        self.last_id = book.last_id

    def renew(self, book: Book) -> None:
        """Set `delta` to what changed since; None where nothing did."""
        old_bids, old_asks, previous = self.bids, self.asks, self.last_id
        self.bids, self.asks = dict(book.levels(BID, self.depth)), dict(book.levels(ASK, self.depth))
        bids, asks = _difference(old_bids, self.bids, reverse=True), _difference(old_asks, self.asks, reverse=False)
        if not bids and not asks:
            self.delta = None
            return
        self.last_id = book.last_id
        self.count += 1
        self.delta = Delta(bids, asks, book.first_id, book.last_id, previous, self.count)


def _difference(old: dict[int, int], new: dict[int, int], *, reverse: bool) -> list[tuple[int, int, bool]]:
    changed: Iterable[int] = {price for price in old.keys() | new.keys() if old.get(price) != new.get(price)}
    return [(price, new.get(price, 0), price in old) for price in sorted(changed, reverse=reverse)]

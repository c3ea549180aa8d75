"""When things happen in a simulated market: times drawn in advance, independent of how fast anybody is served."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from random import Random
from typing import Final

_SECOND_US: Final = 1_000_000
# Kinds that come at random times; the others beat.
_RANDOM_KINDS: Final = frozenset({"orders", "liquidations"})


@dataclass(frozen=True, slots=True)
class Rates:
    """How often things happen in each market, per second. 0: never by themselves.

    orders: taker orders, each of one to three trades. book_changes: single changes of a book. books: messages of a
    difference feed. tickers: ticker updates. liquidations: on instruments that have them.
    """

    orders: float = 4.0
    book_changes: float = 40.0
    books: float = 10.0
    tickers: float = 1.0
    liquidations: float = 0.05

    def __post_init__(self) -> None:
        negative = [field.name for field in fields(self) if getattr(self, field.name) < 0]
        if negative:
            raise ValueError(f"rates must be 0 or more per second; {negative} are not")


SILENT: Final = Rates(0.0, 0.0, 0.0, 0.0, 0.0)


class Schedule:
    """Endless: (time in us, kind, symbol), ordered by time; equal for equal arguments."""

    def __init__(self, rates: Rates, symbols: Sequence[tuple[str, bool]], *, seed: int, start_us: int) -> None:
        """symbols: (symbol, whether it has liquidations)."""
        self._order = itertools.count()
        self._heap: list[tuple[int, int, str, str, Iterator[int]]] = []
        for symbol, has_liquidations in symbols:
            for field in fields(rates):
                rate = getattr(rates, field.name)
                if rate > 0 and (field.name != "liquidations" or has_liquidations):
                    rng = Random(f"{seed}/{symbol}/{field.name}/times")
                    times = _times(rng, rate, start_us, random=field.name in _RANDOM_KINDS)
                    heapq.heappush(self._heap, (next(times), next(self._order), field.name, symbol, times))

    def __bool__(self) -> bool:
        return bool(self._heap)

    @property
    def next_us(self) -> int:
        """When the next thing happens."""
        return self._heap[0][0]

    def pop(self) -> tuple[int, str, str]:
        """Take the next thing."""
        at_us, order, kind, symbol, times = self._heap[0]
        heapq.heapreplace(self._heap, (next(times), order, kind, symbol, times))
        return at_us, kind, symbol


def _times(rng: Random, rate: float, start_us: int, *, random: bool) -> Iterator[int]:
    gap_us = _SECOND_US / rate
    at_us = start_us + rng.random() * gap_us
    while True:
        yield round(at_us)
        at_us += rng.expovariate(1 / gap_us) if random else gap_us

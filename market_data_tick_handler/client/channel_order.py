"""Puts what arrives on a channel in the order of its numbers, each once, and says which numbers are missing.

Pure. What is published arrives with losses, repetitions and out of order (`offer`); marks tell how far the channel has
got (`announce`); a read of the kept stream from the number `wanted` on gives everything that is left of it (`fill`).
What such a read passes over does not exist any more: it is `lost`, until whoever looks after the channel has found it
elsewhere or not, and `skip`s it. Every number is popped once or skipped once, in order.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

T = TypeVar("T")
Hole = tuple[int, int]


class ChannelOrder(Generic[T]):
    """held: messages behind a missing one that are kept; more are forgotten, and read again from the stream.

    last: everything up to this number is popped or skipped; None until the first number of interest is known.
    known: the highest number that exists.
    """

    __slots__ = ("_held", "_limit", "_read_to", "known", "last")

    def __init__(self, *, held: int = 64) -> None:
        self.last: int | None = None
        self.known = 0
        self._limit = held
        self._read_to = 0
        self._held: dict[int, T] = {}

    @property
    def wanted(self) -> int:
        """The next number, 0 where none is known."""
        return 0 if self.last is None else self.last + 1

    @property
    def ready(self) -> bool:
        """Whether `pop` has something."""
        return self.last is not None and self.last + 1 in self._held

    @property
    def missing(self) -> Hole | None:
        """The numbers, both included, that are known to exist and stand before everything that is held."""
        if self.last is None or self.known <= self.last or self.last + 1 in self._held:
            return None
        return self.last + 1, min(self._held, default=self.known + 1) - 1

    @property
    def lost(self) -> Hole | None:
        """Those of `missing` that the stream has no more."""
        hole = self.missing
        if hole is None or hole[0] > self._read_to:
            return None
        return hole[0], min(hole[1], self._read_to)

    @property
    def held(self) -> list[T]:
        """What waits, in order."""
        return [self._held[number] for number in self.held_numbers]

    @property
    def held_numbers(self) -> list[int]:
        """The numbers of what waits, in order."""
        return sorted(self._held)

    def start(self, last: int) -> None:
        """Numbers up to `last` are of no interest. Forgets all it knew if it had started before."""
        if self.last is not None:
            self._held.clear()
            self.known = 0
        self.last = self._read_to = last
        self._held = {number: item for number, item in self._held.items() if number > last}
        self.known = max(self.known, last)

    def offer(self, number: int, item: T) -> bool:
        """This arrived. False: it is settled already, or held."""
        if (self.last is not None and number <= self.last) or number in self._held:
            return False
        self.known = max(self.known, number)
        if number == self.wanted or len(self._held) < self._limit:
            self._held[number] = item
        return True

    def announce(self, number: int) -> None:
        """The channel has got that far."""
        self.known = max(self.known, number)

    def fill(self, entries: Iterable[tuple[int, T]]) -> None:
        """All that the stream has from `wanted` up to the last of these; they stand in order."""
        for number, item in entries:
            if self.last is None:
                self.start(min(number, *self._held) - 1 if self._held else number - 1)
            if number > (self.last or 0):
                self._held[number] = item
            self.known = max(self.known, number)
            self._read_to = max(self._read_to, number)

    def give_up(self) -> None:
        """Wait no longer for what is missing: it is lost. Begins with what is held where nothing was read yet."""
        if self.last is None:
            if self._held:
                self.start(min(self._held) - 1)
            self.known = max(self._held, default=0)
        hole = self.missing
        if hole is not None:
            self._read_to = max(self._read_to, hole[1])

    def pop(self) -> T:
        """The next one, which must be `ready`."""
        self.last = self.wanted
        return self._held.pop(self.last)

    def skip(self, to: int) -> None:
        """Numbers up to `to` were dealt with elsewhere."""
        self.last = max(self.last or 0, to)
        self.known = max(self.known, to)
        for number in [number for number in self._held if number <= to]:
            del self._held[number]

"""What a channel has delivered lately: tells repetitions from numbers that began anew. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from market_data_tick_handler.client.messages import Message

# Per channel. A repetition follows what it repeats within moments; a revision, within hours.
REMEMBERED: Final = 512


class Numbering(StrEnum):
    """What a message with a number that was delivered before says about the numbers. SAME: they go on. OTHER: they
    began anew, as this candle is another one. UNSURE: it is too old to tell."""

    SAME = "same"
    OTHER = "other"
    UNSURE = "unsure"


class Delivered:
    """The last candles of a channel, by number and by open time.

    newest: the highest open time. published_us: the latest publication.
    """

    __slots__ = ("_limit", "_numbers", "_revisions", "newest", "published_us")

    def __init__(self, *, remembered: int = REMEMBERED) -> None:
        self.newest: int | None = None
        self.published_us = 0
        self._limit = remembered
        self._numbers: dict[int, tuple[int, int]] = {}
        self._revisions: dict[int, int] = {}

    def note(self, message: Message) -> None:
        """It was delivered."""
        self.newest = message.timestamp if self.newest is None else max(self.newest, message.timestamp)
        self.published_us = max(self.published_us, message.published_us)
        if message.number is not None:
            self._numbers[message.number] = message.identity
            if len(self._numbers) > self._limit:
                del self._numbers[next(iter(self._numbers))]
        revision = max(message.revision, self._revisions.pop(message.timestamp, -1))
        self._revisions[message.timestamp] = revision
        if len(self._revisions) > self._limit:
            del self._revisions[next(iter(self._revisions))]

    def forget_numbers(self) -> None:
        """They began anew."""
        self._numbers.clear()

    def revision(self, timestamp: int) -> int | None:
        """The highest revision of a candle; None where it was not delivered, or is forgotten."""
        return self._revisions.get(timestamp)

    def has(self, message: Message) -> bool:
        """Whether this candle was delivered, or a newer revision of it."""
        return message.revision <= self._revisions.get(message.timestamp, -1)

    def oldest(self) -> int | None:
        """The lowest open time that is remembered."""
        return min(self._revisions, default=None)

    def stands_at(self, number: int, timestamp: int) -> bool:
        """Whether the candle with this number had this open time."""
        known = self._numbers.get(number)
        return known is not None and known[0] == timestamp

    def judge(self, message: Message) -> Numbering:
        """What `message`, whose number was delivered before, says about the numbers."""
        known = None if message.number is None else self._numbers.get(message.number)
        if known is not None:
            return Numbering.SAME if known == message.identity else Numbering.OTHER
        return Numbering.OTHER if self.is_news(message) else Numbering.UNSURE

    def is_news(self, message: Message) -> bool:
        """Whether it was certainly published after everything that was delivered."""
        if self.newest is None or self.has(message):
            return False
        return message.timestamp > self.newest or message.published_us > self.published_us

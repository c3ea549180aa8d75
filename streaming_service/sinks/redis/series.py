"""One series of candles on its way: how far its numbering has got, here and in Redis."""

from __future__ import annotations

from dataclasses import dataclass, field

from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.wire import channels


@dataclass(slots=True, eq=False)
class Series:
    """The final candles of one instrument and timeframe.

    name: of the stream and the channel. last_key: of the newest candle.
    offset: what is added to the number an output journal gave; 0 unless the stream was begun by another journal.
    numbered: the highest number given to a candle. sent: the highest that may have reached Redis. acknowledged: the
    highest that has, and `timestamp` is its open time. newest: the latest open time given to Redis as the last value.
    contact: which connection the stream was looked up on; 0: none, so that its end is not known.
    known: whether its numbering is settled.
    """

    key: str
    timeframe: Timeframe
    name: bytes = field(init=False)
    last_key: bytes = field(init=False)
    offset: int = 0
    numbered: int = 0
    sent: int = 0
    acknowledged: int = 0
    timestamp: int = 0
    newest: int = 0
    contact: int = 0
    known: bool = False

    def __post_init__(self) -> None:
        self.name = channels.candles(self.key, self.timeframe).encode()
        self.last_key = channels.last_candle(self.key, self.timeframe).encode()

    def number(self, entry: Entry) -> int:
        """Give `entry` its number, if it has none."""
        if entry.number == 0:
            entry.number = self.numbered + 1 if entry.journal is None else entry.journal + self.offset
            self.numbered = max(self.numbered, entry.number)
        return entry.number


@dataclass(slots=True, eq=False)
class Entry:
    """A candle that waits for Redis.

    journal: its number in the output journal. number: that on the channel, 0 = none yet.
    sent: it may have reached Redis, although nothing said so. done: Redis has it, or will never take it.
    """

    series: Series
    body: bytes
    timestamp: int
    revision: int
    journal: int | None
    number: int = 0
    sent: bool = False
    done: bool = False

    @property
    def identity(self) -> tuple[int, int]:
        """What no two candles of a series share."""
        return self.timestamp, self.revision

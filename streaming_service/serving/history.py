"""One channel: the last messages on it, and who listens."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final, Protocol

from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.wire import channels
from streaming_service.serving.subscriber import Subscriber

NEVER_US: Final = 2**63 - 1


class Receiver(Protocol):
    """Whoever writes a subscriber's queue to where it goes."""

    @property
    def subscriber(self) -> Subscriber: ...

    def flush(self) -> None:
        """Write what can be written now."""
        ...


@dataclass(frozen=True, slots=True)
class Entry:
    """One message. frame: as it goes to sockets. timestamp_us: the candle's open time."""

    sequence: int
    timestamp_us: int
    revision: int
    frame: bytes


class Channel:
    """Messages of one instrument and timeframe in the order of their numbers, with no hole but those it was told of.

    last: the newest number, None before the first message.
    """

    def __init__(self, key: str, timeframe: Timeframe) -> None:
        self.key = key
        self.timeframe = timeframe
        self.name = channels.candles(key, timeframe)
        self.entries: deque[Entry] = deque()
        self.size = 0
        self.last: int | None = None
        self.receivers: dict[Receiver, None] = {}
        self.open_receivers: dict[Receiver, None] = {}
        self._newest_us = -1
        self._complete_from_us = NEVER_US

    @property
    def open_name(self) -> str:
        """Name of the channel of the candle in progress."""
        return channels.open_candles(self.key, self.timeframe)

    @property
    def complete_from_us(self) -> int:
        """Every candle published that opens at this time or later is among `entries` as it stands now."""
        return self._complete_from_us

    def append(self, entry: Entry, *, max_frames: int, max_bytes: int) -> None:
        """Add the newest message and forget the oldest ones beyond the bounds; one is always kept."""
        self.entries.append(entry)
        self.size += len(entry.frame)
        self.last = entry.sequence
        if entry.revision == 0 and entry.timestamp_us > self._newest_us:
            if entry.timestamp_us != self._newest_us + self.timeframe.us:
                # Nobody here knows what was published between: an earlier run, perhaps.
                self._complete_from_us = entry.timestamp_us
            self._newest_us = entry.timestamp_us
        while len(self.entries) > max_frames or (self.size > max_bytes and len(self.entries) > 1):
            old = self.entries.popleft()
            self.size -= len(old.frame)
            if self._complete_from_us != NEVER_US:
                self._complete_from_us = max(self._complete_from_us, old.timestamp_us + 1)

    def newest(self, candles: int) -> list[Entry]:
        """The last messages, without a hole, among which the newest `candles` candles are as they stand now."""
        if not candles:
            return []
        latest: dict[int, int] = {}
        for place, entry in enumerate(self.entries):
            latest[entry.timestamp_us] = place
        wanted = sorted(latest)[-candles:]
        start = min((latest[timestamp_us] for timestamp_us in wanted), default=0)
        return list(self.entries)[start:]

    def after(self, sequence: int) -> list[Entry]:
        """The messages behind a number."""
        return [entry for entry in self.entries if entry.sequence > sequence]

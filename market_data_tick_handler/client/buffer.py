"""The bounded buffer in front of a subscriber, and what it does when the subscriber is slow."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from enum import StrEnum

from market_data_tick_handler.client.items import CandleGap, GapReason
from market_data_tick_handler.client.messages import Message
from market_data_tick_handler.errors import ConfigError


class Policy(StrEnum):
    """What happens when the buffer is full.

    BLOCK: the feed waits; what is published meanwhile is read from the kept stream later. DROP_OLDEST: the oldest
    candles go, and a `CandleGap` stands where they were. LATEST: there is never more than the newest candle of each
    channel; those in between are counted.
    """

    BLOCK = "block"
    DROP_OLDEST = "drop_oldest"
    LATEST = "latest"


def parse_policy(text: str) -> Policy:
    """The policy named by `text`, in any case.

    Raises:
        ConfigError: no such policy.
    """
    try:
        return Policy(text.strip().lower())
    except ValueError:
        raise ConfigError(f"expected one of {', '.join(Policy)}; got {text!r}", key="policy") from None


class _Entry:
    """A place in the queue; empty where its candle is outdated."""

    __slots__ = ("item",)

    def __init__(self, item: Message | CandleGap) -> None:
        self.item: Message | CandleGap | None = item


class DeliveryBuffer:
    """At most `capacity` items wait, or with LATEST and of candles in progress one per channel.

    on_room: called when a feed that had found no room may go on.
    """

    def __init__(self, policy: Policy, capacity: int, *, on_room: Callable[[], None] = lambda: None) -> None:
        self.policy = policy
        self.dropped = 0
        self.on_room = on_room
        self._capacity = capacity
        self._queue: deque[_Entry] = deque()
        self._slots: dict[str, _Entry] = {}
        self._gaps: dict[str, CandleGap] = {}
        self._filled = asyncio.Event()
        self._starved = False
        self._closed = False
        self._error: BaseException | None = None

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def oldest(self) -> Message | None:
        """The final candle that waits longest."""
        return next((e.item for e in self._queue if isinstance(e.item, Message) and e.item.is_final), None)

    def room(self, *, patient: bool = False) -> int:
        """How many items may be put now. patient: without anything being dropped for them."""
        if self.policy is Policy.LATEST:
            return self._capacity
        left = max(self._capacity - len(self._queue), 0)
        if left or (self.policy is Policy.DROP_OLDEST and not patient):
            return left or self._capacity
        self._starved = True
        return 0

    def put(self, item: Message | CandleGap) -> None:
        """Add it. The caller has asked for room."""
        if self._closed:
            return
        if isinstance(item, Message) and item.is_final:
            self._outdate(item)
        if self.policy is Policy.LATEST:
            # Gaps are what LATEST is about, so only the counters tell of them.
            if isinstance(item, Message):
                self._put_newest(item)
            return
        while self.policy is Policy.DROP_OLDEST and len(self._queue) >= self._capacity:
            self._drop_oldest()
        self._append(item)

    def put_open(self, message: Message) -> None:
        """A candle in progress takes the place of the one that waits."""
        if not self._closed:
            self._put_newest(message)

    async def get(self) -> Message | CandleGap | None:
        """The next item; None after the last one.

        Raises:
            whatever the feed failed with, once everything before was taken.
        """
        while True:
            if self._gaps:
                return self._gaps.pop(next(iter(self._gaps)))
            while self._queue:
                entry = self._queue.popleft()
                self._tell_room()
                item = entry.item
                if item is None:
                    continue
                if isinstance(item, Message) and self._slots.get(item.channel) is entry:
                    del self._slots[item.channel]
                return item
            if self._error is not None:
                raise self._error
            if self._closed:
                return None
            self._filled.clear()
            await self._filled.wait()

    def close(self, error: BaseException | None = None) -> None:
        """Nothing more comes; with the reason, if it is one."""
        self._closed = True
        self._error = self._error or error
        self._filled.set()

    def _append(self, item: Message | CandleGap) -> _Entry:
        entry = _Entry(item)
        self._queue.append(entry)
        self._filled.set()
        return entry

    def _put_newest(self, message: Message) -> None:
        entry = self._slots.get(message.channel)
        waiting = None if entry is None else entry.item
        if entry is None or not isinstance(waiting, Message):
            self._slots[message.channel] = self._append(message)
            return
        self.dropped += message.is_final
        # A late revision of an earlier candle must not push out the newest one.
        if not message.is_final or message.identity >= waiting.identity:
            entry.item = message

    def _outdate(self, final: Message) -> None:
        """The candle in progress that waits is over."""
        entry = self._slots.get(f"{final.channel}:open") if self._slots else None
        waiting = None if entry is None else entry.item
        if entry is not None and isinstance(waiting, Message) and waiting.timestamp <= final.timestamp:
            entry.item = None
            del self._slots[waiting.channel]

    def _drop_oldest(self) -> None:
        item = self._queue.popleft().item
        if item is None:
            return
        if isinstance(item, Message):
            if not item.is_final:
                self._slots.pop(item.channel, None)
                return
            self.dropped += 1
        gap = _gap_of(item)
        before = self._gaps.pop(gap.channel, None)
        self._gaps[gap.channel] = gap if before is None else _joined(before, gap)

    def _tell_room(self) -> None:
        # Not at every item: each refill of the buffer costs a round trip.
        if self._starved and len(self._queue) <= self._capacity // 2:
            self._starved = False
            self.on_room()


def _gap_of(item: Message | CandleGap) -> CandleGap:
    if isinstance(item, CandleGap):
        return item
    return CandleGap(
        channel=item.channel,
        reason=GapReason.DROPPED,
        from_sequence=item.number,
        to_sequence=item.number,
        missing=1,
        from_timestamp=item.timestamp,
        to_timestamp=item.timestamp,
    )


def _joined(first: CandleGap, second: CandleGap) -> CandleGap:
    """One gap over both, which stand one after the other on a channel."""
    times = [time for gap in (first, second) for time in (gap.from_timestamp, gap.to_timestamp) if time is not None]
    start = second.from_sequence if first.from_sequence is None else first.from_sequence
    end = second.to_sequence
    return CandleGap(
        channel=first.channel,
        reason=first.reason if first.reason is second.reason else GapReason.DROPPED,
        # Across numbers that began anew a range says nothing.
        from_sequence=start if start is None or end is None or start <= end else None,
        to_sequence=end,
        missing=None if first.missing is None or second.missing is None else first.missing + second.missing,
        from_timestamp=min(times, default=None),
        to_timestamp=max(times, default=None),
    )

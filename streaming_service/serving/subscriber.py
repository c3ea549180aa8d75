"""What waits for one subscriber: bounded, and when full its policy decides. No socket, no clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from streaming_service.serving.frames import dropped_frame
from streaming_service.sinks.bus import SubscriberPolicy


@dataclass(frozen=True, slots=True)
class Queued:
    """Messages `first` to `last` of a channel as one frame: a candle, or a notice about several."""

    channel: str
    first: int
    last: int
    frame: bytes


@dataclass(slots=True)
class _Dropped:
    first: int
    last: int
    count: int


class Subscriber:
    """The queue of one subscriber.

    `block` loses nothing: when more waits than the bounds allow, `overflowed` is set, and whoever owns the subscriber
    must end it; it can come back and go on from its last number. `drop_oldest` loses the oldest messages, `latest` all
    but the newest one of each channel; both tell the subscriber so, before the next message of the channel.

    States are apart from that (a candle in progress, a watermark): a newer one replaces the one that waits, whatever
    the policy, and comes behind everything else that waits.
    """

    def __init__(self, *, policy: SubscriberPolicy, max_frames: int, max_bytes: int) -> None:
        self.policy = policy
        self.dropped = 0
        self.overflowed = False
        self._max_frames, self._max_bytes = max_frames, max_bytes
        self._snapshot: deque[bytes] = deque()
        self._queue: deque[Queued] = deque()
        self._newest: dict[str, Queued] = {}
        self._size = 0
        self._states: dict[str, tuple[int, bytes]] = {}
        self._lost: dict[str, _Dropped] = {}

    @property
    def waiting(self) -> int:
        """Frames to be written."""
        return len(self._snapshot) + len(self._queue) + len(self._newest) + len(self._states) + len(self._lost)

    @property
    def waiting_bytes(self) -> int:
        """Bytes that count against the bound."""
        return self._size

    def begin(self, frames: Iterable[bytes]) -> None:
        """Frames that come before everything that is offered."""
        self._snapshot.extend(frames)

    def offer(self, queued: Queued) -> None:
        """Queue what comes next on a channel, following the policy when there is no room."""
        if self.policy is SubscriberPolicy.LATEST:
            older = self._newest.pop(queued.channel, None)
            if older is not None:
                self._lose(older)
            self._newest[queued.channel] = queued
            return
        queue = self._queue
        queue.append(queued)
        self._size += len(queued.frame)
        while len(queue) > self._max_frames or (self._size > self._max_bytes and len(queue) > 1):
            if self.policy is SubscriberPolicy.BLOCK:
                self.overflowed = True
                return
            oldest = queue.popleft()
            self._size -= len(oldest.frame)
            self._lose(oldest)

    def offer_state(self, channel: str, timestamp_us: int, frame: bytes) -> None:
        """Queue how something stands now."""
        self._states.pop(channel, None)
        self._states[channel] = (timestamp_us, frame)

    def end_state(self, channel: str, timestamp_us: int) -> None:
        """What waits of that time, or an earlier one, is outdated: the candle that opened then is final."""
        waiting = self._states.get(channel)
        if waiting is not None and waiting[0] <= timestamp_us:
            del self._states[channel]

    def take(self, max_bytes: int) -> list[bytes]:
        """The next frames in order, as many as `max_bytes` holds and at least one; none if nothing waits."""
        taken: list[bytes] = []
        size = 0
        while size < max_bytes and (frame := self._next()) is not None:
            taken.append(frame)
            size += len(frame)
        return taken

    def clear(self) -> None:
        """Forget everything: the subscriber is gone."""
        self._snapshot.clear()
        self._queue.clear()
        self._newest.clear()
        self._states.clear()
        self._lost.clear()
        self._size = 0

    def _next(self) -> bytes | None:
        if self._snapshot:
            return self._snapshot.popleft()
        if self._lost:
            # What was dropped was the oldest of its channel, so this stands before all of it that is still queued.
            channel, lost = self._lost.popitem()
            return dropped_frame(channel, lost.first, lost.last, lost.count)
        if self._queue:
            queued = self._queue.popleft()
            self._size -= len(queued.frame)
            return queued.frame
        if self._newest:
            return self._newest.pop(next(iter(self._newest))).frame
        if self._states:
            return self._states.pop(next(iter(self._states)))[1]
        return None

    def _lose(self, queued: Queued) -> None:
        count = max(queued.last - queued.first + 1, 0)
        self.dropped += count
        lost = self._lost.get(queued.channel)
        if lost is None:
            self._lost[queued.channel] = _Dropped(queued.first, queued.last, count)
        else:
            lost.last, lost.count = queued.last, lost.count + count

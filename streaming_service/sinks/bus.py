"""The in-process bus: candles for code that runs beside the service, each subscriber behind its own bounded queue."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from enum import StrEnum
from types import TracebackType

from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.timeframes import Timeframe
from streaming_service.sink import SinkItem


class SubscriberPolicy(StrEnum):
    """What a full subscriber queue does: hold the bus back, lose the oldest batch, or keep only the newest per key."""

    BLOCK = "block"
    DROP_OLDEST = "drop_oldest"
    LATEST = "latest"


class Subscription:
    """An async iterator over candle batches. Leave it with `async with` or `close()`.

    With `latest` the queue holds at most one batch per instrument and timeframe: a newer one replaces it.
    """

    def __init__(
        self,
        bus: InProcessBus,
        *,
        instrument: str | None,
        timeframe: Timeframe | None,
        policy: SubscriberPolicy,
        capacity: int,
    ) -> None:
        self.dropped = 0
        self.delivered = 0
        self._bus = bus
        self._instrument, self._timeframe = instrument, timeframe
        self._policy, self._capacity = policy, capacity
        self._queue: deque[CandleBatch] = deque()
        self._filled = asyncio.Event()
        self._room = asyncio.Event()
        self._closed = False

    @property
    def lag(self) -> int:
        """Candles published and not yet taken."""
        return sum(len(batch) for batch in self._queue)

    def wants(self, batch: CandleBatch) -> bool:
        """Whether `batch` is what was subscribed to."""
        return self._instrument in (None, batch.instrument.key) and self._timeframe in (None, batch.timeframe)

    async def put(self, batch: CandleBatch) -> None:
        """Queue `batch`, following the policy; a closed subscription takes nothing."""
        if self._policy is SubscriberPolicy.LATEST:
            self._replace(batch)
        while len(self._queue) >= self._capacity and not self._closed:
            if self._policy is SubscriberPolicy.BLOCK:
                self._room.clear()
                await self._room.wait()
            else:
                self.dropped += len(self._queue.popleft())
        if not self._closed:
            self._queue.append(batch)
            self._filled.set()

    def close(self) -> None:
        """Take no more; iteration ends after what is queued."""
        self._closed = True
        self._filled.set()
        self._room.set()
        self._bus.forget(self)

    def __aiter__(self) -> AsyncIterator[CandleBatch]:
        return self

    async def __anext__(self) -> CandleBatch:
        while not self._queue:
            if self._closed:
                raise StopAsyncIteration
            self._filled.clear()
            await self._filled.wait()
        batch = self._queue.popleft()
        self.delivered += len(batch)
        self._room.set()
        return batch

    async def __aenter__(self) -> Subscription:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _replace(self, batch: CandleBatch) -> None:
        key = (batch.instrument.key, batch.timeframe)
        old = [queued for queued in self._queue if (queued.instrument.key, queued.timeframe) == key]
        for queued in old:
            self._queue.remove(queued)
            self.dropped += len(queued)


class InProcessBus:
    """A sink that hands candles to its subscribers, in order."""

    def __init__(self) -> None:
        self._subscriptions: list[Subscription] = []
        self._closed = False
        self._dropped_before = 0

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        """Those that are open."""
        return tuple(self._subscriptions)

    @property
    def dropped(self) -> int:
        """Candles that subscribers lost, those that left included."""
        return self._dropped_before + sum(subscription.dropped for subscription in self._subscriptions)

    def subscribe(
        self,
        *,
        instrument: str | None = None,
        timeframe: Timeframe | None = None,
        policy: SubscriberPolicy = SubscriberPolicy.BLOCK,
        capacity: int = 1_000,
    ) -> Subscription:
        """Candles from now on, of one instrument and timeframe or of all."""
        subscription = Subscription(self, instrument=instrument, timeframe=timeframe, policy=policy, capacity=capacity)
        if self._closed:
            subscription.close()
        else:
            self._subscriptions.append(subscription)
        return subscription

    def forget(self, subscription: Subscription) -> None:
        """Deliver nothing more to `subscription`."""
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)
            self._dropped_before += subscription.dropped

    async def open(self) -> None:
        self._closed = False

    async def write(self, batch: SinkItem) -> None:
        if not isinstance(batch, CandleBatch):
            return
        for subscription in self.subscriptions:
            if subscription.wants(batch):
                await subscription.put(batch)

    async def flush(self) -> None:
        """Nothing is held back."""

    async def aclose(self) -> None:
        self._closed = True
        for subscription in self.subscriptions:
            subscription.close()

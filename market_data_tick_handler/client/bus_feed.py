"""Candles from a bus in the same process: batches of columns, taken apart into candles."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, Protocol

from market_data_tick_handler.client.intake import Intake
from market_data_tick_handler.client.messages import Message
from market_data_tick_handler.client.stored import row_document
from market_data_tick_handler.client.subscription import Subscription
from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.wire import channels


class BusSubscription(AbstractAsyncContextManager["BusSubscription"], Protocol):
    """Batches as they are published, until the bus ends."""

    def __aiter__(self) -> AsyncIterator[CandleBatch]: ...


class CandleBus(Protocol):
    """What hands candles to code of its own process. It holds publishers back while a subscriber has no room."""

    def subscribe(self, *, instrument: str | None = None, timeframe: Timeframe | None = None) -> BusSubscription:
        """Candles from now on, of one instrument and timeframe or of all."""
        ...


class BusFeed:
    """Fills `intake` with what `subscription` asks for, until the bus ends. history: candles from the store."""

    def __init__(self, bus: CandleBus, subscription: Subscription, intake: Intake, *, history: int) -> None:
        self._bus = bus
        self._wanted = subscription
        self._intake = intake
        self._history = history
        self._is_wanted: dict[str, bool] = {}

    def _subscribe(self) -> BusSubscription:
        wanted = self._wanted.channels
        if len(wanted) != 1 or self._wanted.patterns:
            return self._bus.subscribe()
        return self._bus.subscribe(instrument=wanted[0].key, timeframe=wanted[0].timeframe)

    async def run(self) -> None:
        """Take what is published."""
        async with self._subscribe() as batches:
            self._intake.stats.connect()
            for name in self._wanted.names:
                channel = self._intake.channel(name)
                await self._intake.load_history(channel, None, self._history)
                await self._intake.hand_on(channel, patient=True)
            async for batch in batches:
                name = channels.candles(batch.instrument.key, batch.timeframe)
                if name not in self._is_wanted:
                    self._is_wanted[name] = self._wanted.wants(name)
                if self._is_wanted[name]:
                    await self._take(name, batch)

    async def _take(self, name: str, batch: CandleBatch) -> None:
        channel = self._intake.channel(name)
        for message in _messages(name, batch):
            self._intake.stats.received += 1
            if channel.order.last is None and message.number is not None:
                channel.order.start(message.number - 1)
            self._intake.arrive(message)
            if channel.doubtful:
                await self._intake.renumber(channel, message)
                self._intake.arrive(message)
            if channel.order.missing is not None:
                channel.order.give_up()
                await self._intake.settle(channel)
            await self._intake.hand_on(channel)


def _messages(name: str, batch: CandleBatch) -> list[Message]:
    numbers = [None] * len(batch) if batch.sequences is None else batch.sequences.tolist()
    columns: dict[str, Any] = {
        **{column: [value] * len(batch) for column, value in batch.constants.items()},
        **batch.columns,
        **{column: [None] * len(batch) for column in batch.absent},
    }
    times, zeros = batch["timestamp"].tolist(), [0] * len(batch)
    revisions, published = (
        batch[column].tolist() if column in batch.columns else zeros for column in ("revision", "timestamp_out")
    )
    return [
        Message(
            name,
            number,
            times[index],
            revisions[index],
            published[index],
            partial(row_document, columns, index, number=number),
        )
        for index, number in enumerate(numbers)
    ]

"""From whatever a transport hears to the subscriber's buffer: each channel in order, each candle once, gaps named."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from market_data_tick_handler.client.buffer import DeliveryBuffer
from market_data_tick_handler.client.channel_order import ChannelOrder
from market_data_tick_handler.client.delivered import Delivered, Numbering
from market_data_tick_handler.client.items import CandleGap, GapReason, Origin
from market_data_tick_handler.client.messages import Message, read_message
from market_data_tick_handler.client.stats import StreamStats
from market_data_tick_handler.client.stored import Hole, StoredCandles, lost
from market_data_tick_handler.errors import CorruptObject
from market_data_tick_handler.wire import FEATURES, Watermark
from market_data_tick_handler.wire.channels import parse_candle_channel

Arrived = Message | CandleGap
# Messages behind a hole that tell when it ended.
_FOLLOWING: Final = 64


class Channel:
    """One channel of final candles.

    backlog: what goes to the subscriber before everything in `order`. doubtful: something says that the numbers began
    anew. stuck: a missing number that is waited for, and since when on the clock of the transport.
    """

    __slots__ = ("backlog", "delivered", "doubtful", "key", "name", "newest_body", "order", "stuck", "timeframe")

    def __init__(self, name: str) -> None:
        place = parse_candle_channel(name)
        self.name = name
        self.key, self.timeframe = place.key, place.timeframe
        self.order: ChannelOrder[Arrived] = ChannelOrder()
        self.delivered = Delivered()
        self.backlog: deque[Arrived] = deque()
        self.doubtful = False
        self.stuck: tuple[int, float] | None = None
        self.newest_body: bytes | None = None

    @property
    def needs_care(self) -> bool:
        """Whether something is missing, or a first number was seen and nothing read yet."""
        order = self.order
        return self.doubtful or order.missing is not None or (order.last is None and order.known > 0)

    @property
    def waits(self) -> bool:
        """Whether something could be handed on if there were room."""
        return bool(self.backlog) or self.order.ready

    def features(self) -> Sequence[str] | None:
        """Names under `hft_features` in the messages of the channel; None before the first one."""
        bodies = [self.newest_body, *(item.body for item in self.order.held if isinstance(item, Message))]
        for body in bodies:
            if isinstance(body, bytes):
                try:
                    return list(Message("", None, 0, 0, 0, body).document().get(FEATURES, {}))
                except CorruptObject:
                    continue
        return None


class Intake:
    """on_need: called when a channel needs care, which only the transport can give. rereads: the transport can read
    again what there is no room for now."""

    def __init__(
        self,
        buffer: DeliveryBuffer,
        stats: StreamStats,
        store: StoredCandles | None,
        *,
        on_need: Callable[[Channel], None] = lambda channel: None,
        rereads: bool = False,
    ) -> None:
        self.buffer = buffer
        self.stats = stats
        self.store = store
        self.channels: dict[str, Channel] = {}
        self.on_need = on_need
        self._rereads = rereads
        self._room = asyncio.Event()

    def channel(self, name: str) -> Channel:
        """The channel of that name."""
        found = self.channels.get(name)
        if found is None:
            found = self.channels[name] = Channel(name)
        return found

    def receive(self, body: bytes, *, channel: str | None = None) -> Channel | None:
        """A candle was pushed. The channel, if it is of final candles.

        Raises:
            SchemaMismatch: it is of another version of the format.
        """
        self.stats.received += 1
        try:
            message = read_message(body, channel=channel)
        except CorruptObject:
            # Without a number; the next one, or the next look at the stream, tells what it was.
            self.stats.unreadable += 1
            return None
        if not message.is_final:
            self._receive_open(message)
            return None
        return self.arrive(message)

    def arrive(self, message: Message) -> Channel:
        """A final candle was pushed."""
        found = self.channel(message.channel)
        order = found.order
        if message.number is None:
            self._direct(found, message)
        elif order.last is not None and message.number <= order.last:
            if found.delivered.judge(message) is Numbering.OTHER:
                found.doubtful = True
            else:
                self.stats.repeated += 1
        elif self._rereads and not self.buffer.room():
            order.announce(message.number)
        elif not order.offer(message.number, message):
            self.stats.repeated += 1
        elif order.ready:
            self.pump(found)
        if found.needs_care:
            self.on_need(found)
        return found

    def entries(self, name: str, found: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, Arrived]]:
        """Entries of a kept stream as they go into a channel's order.

        Raises:
            SchemaMismatch: one is of another version of the format.
        """
        for number, body in found:
            try:
                yield number, read_message(body, channel=name, origin=Origin.STREAM)
            except CorruptObject:
                self.stats.unreadable += 1
                reason = GapReason.UNREADABLE
                yield (
                    number,
                    CandleGap(channel=name, reason=reason, from_sequence=number, to_sequence=number, missing=1),
                )

    def announce(self, mark: Watermark) -> list[Channel]:
        """The last numbers that a watermark names. The channels that are proven to lack nothing."""
        proven: list[Channel] = []
        for timeframe, newest in mark.channels.items():
            found = self.channels.get(f"candles:{mark.instrument_id}:{timeframe}")
            if found is None:
                continue
            last = found.order.last
            if last is None or newest.sequence > last:
                found.order.announce(newest.sequence)
                self.on_need(found)
            elif found.delivered.stands_at(newest.sequence, newest.timestamp):
                if newest.sequence == last:
                    proven.append(found)
            else:
                found.doubtful = True
                self.on_need(found)
        return proven

    def pump(self, channel: Channel, *, patient: bool = False) -> None:
        """Hand on what can be, in order, as long as there is room. patient: nothing may be dropped for it."""
        buffer = self.buffer
        while channel.waits and buffer.room(patient=patient):
            item = channel.backlog.popleft() if channel.backlog else channel.order.pop()
            if isinstance(item, Message):
                if channel.delivered.has(item):
                    # A newer revision of it came from the stored candles.
                    self.stats.repeated += 1
                    continue
                channel.delivered.note(item)
                if isinstance(item.body, bytes):
                    channel.newest_body = item.body
            buffer.put(item)

    async def hand_on(self, channel: Channel, *, patient: bool = False) -> None:
        """As `pump`, waiting for room until nothing waits any more."""
        while channel.waits:
            self._room.clear()
            self.pump(channel, patient=patient)
            if channel.waits:
                await self._room.wait()

    def room_made(self) -> None:
        """The subscriber has taken so much that it is worth going on."""
        self._room.set()

    async def settle(self, channel: Channel) -> None:
        """Look for what the live tail has lost in the stored candles, and name what is nowhere."""
        while (hole := channel.order.lost) is not None:
            following = [item for item in channel.order.held[:_FOLLOWING] if isinstance(item, Message)]
            whole = Hole(channel.name, *hole, channel.delivered, following)
            found: Sequence[Arrived] = [lost(whole)]
            if self.store is not None:
                found = await asyncio.to_thread(self.store.fill, whole, channel.features())
            channel.backlog.extend(found)
            channel.order.skip(hole[1])
            self.pump(channel)

    async def load_history(self, channel: Channel, timestamp: int | None, count: int) -> None:
        """Put the newest `count` stored candles before `timestamp` in front of everything else."""
        if self.store is not None and count > 0:
            found = await asyncio.to_thread(self.store.before, channel.name, timestamp, count, channel.features())
            channel.backlog.extend(found)

    async def renumber(self, channel: Channel, first: Message) -> None:
        """The numbers of a channel began anew, and `first` is the first candle with one that was not delivered."""
        self.stats.renumbered += 1
        delivered = channel.delivered
        start = (channel.order.last or 0) + 1
        hole = Hole(channel.name, start, start, delivered, [first])
        newest = delivered.newest
        if self.store is not None and newest is not None and first.timestamp > newest:
            step = channel.timeframe.us
            count = (first.timestamp - newest) // step - 1
            if count > 0:
                found = await asyncio.to_thread(
                    self.store.before, channel.name, first.timestamp, count, channel.features()
                )
                channel.backlog.extend(row for row in found if row.timestamp > newest)
        bounds = lost(hole)
        channel.backlog.append(
            CandleGap(
                channel=channel.name,
                reason=GapReason.RENUMBERED,
                from_sequence=start,
                from_timestamp=bounds.from_timestamp,
                to_timestamp=bounds.to_timestamp,
            )
        )
        delivered.forget_numbers()
        channel.doubtful = False
        channel.order.start((first.number or 1) - 1)

    def _direct(self, channel: Channel, message: Message) -> None:
        """Without numbers the order of arrival is all there is."""
        channel.backlog.append(message)
        self.pump(channel)

    def _receive_open(self, message: Message) -> None:
        final = self.channels.get(message.channel.removesuffix(":open"))
        newest = None if final is None else final.delivered.newest
        if newest is None or message.timestamp > newest:
            self.buffer.put_open(message)

    def report(self) -> dict[str, Any]:
        """What the buffer knows better than the counters."""
        return {"dropped": self.stats.dropped + self.buffer.dropped, "buffered": len(self.buffer)}

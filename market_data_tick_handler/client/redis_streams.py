"""Reads the kept streams: the history at the beginning, and later whatever pub/sub did not bring."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, TypeVar

from market_data_tick_handler.client.clock import Clock
from market_data_tick_handler.client.delivered import Numbering
from market_data_tick_handler.client.intake import Channel, Intake
from market_data_tick_handler.client.messages import Message, read_message
from market_data_tick_handler.client.redis_link import Asking, Command
from market_data_tick_handler.client.retry import ClientTiming
from market_data_tick_handler.errors import CorruptObject

T = TypeVar("T")
Entry = tuple[int, bytes]
_PAGE: Final = 256
_LEAST_PAGE: Final = 16
_GROUP: Final = 32
# Messages of one round trip.
_MOST_ANSWERED: Final = 1_024


class StreamReader:
    """history: candles that a subscriber gets from before its time.

    behind: channels that have more in their streams than there was room for.
    """

    def __init__(self, intake: Intake, *, history: int, timing: ClientTiming, clock: Clock) -> None:
        self.behind: set[Channel] = set()
        self._intake = intake
        self._history = history
        self._timing = timing
        self._clock = clock

    async def position(self, asking: Asking, chosen: Sequence[Channel]) -> None:
        """Begin each channel so far back that it has `history` candles, with those of the store where the stream does
        not reach back that far."""
        count = min(max(self._history, 1), _PAGE)
        for group in _parts(chosen, max(1, _MOST_ANSWERED // count)):
            answers = await asking.call([_read_back(channel.name, b"+", count) for channel in group])
            for channel, answer in zip(group, answers, strict=True):
                await self._begin(asking, channel, _entries(answer), count)
        self.behind.update(channel for channel in chosen if channel.order.last is not None)

    async def catch_up(self, asking: Asking, chosen: Iterable[Channel]) -> None:
        """Read what the streams have behind the last number of each channel, as far as there is room."""
        pending = list(chosen)
        self.behind.difference_update(pending)
        while pending:
            room = self._intake.buffer.room()
            if not room:
                self.behind.update(pending)
                return
            group, pending = pending[:_GROUP], pending[_GROUP:]
            count = min(_PAGE, max(_LEAST_PAGE, room // len(group)))
            answers = await asking.call([_read_on(channel.name, channel.order.wanted, count) for channel in group])
            for channel, answer in zip(group, answers, strict=True):
                found = _entries(answer)
                channel.order.fill(self._intake.entries(channel.name, found))
                await self._hand_on(channel)
                if len(found) == count or channel.waits:
                    pending.append(channel)

    async def verify(self, asking: Asking, chosen: Sequence[Channel]) -> None:
        """Make sure that the streams still have, under the numbers that were delivered, the candles that were."""
        begun = [channel for channel in chosen if channel.order.last is not None]
        for group in _parts(begun, _GROUP):
            commands = [_read_back(channel.name, b"%d-0" % (channel.order.last or 0), 1) for channel in group]
            for channel, answer in zip(group, await asking.call(commands), strict=True):
                channel.doubtful = False
                for message in self._messages(channel, _entries(answer)):
                    if channel.delivered.judge(message) is Numbering.OTHER:
                        await self._begin_anew(asking, channel)

    async def _begin(self, asking: Asking, channel: Channel, newest: Sequence[Entry], count: int) -> None:
        if not newest:
            await self._intake.load_history(channel, None, self._history)
            await self._intake.hand_on(channel, patient=True)
            return
        if not self._history:
            # What arrived since the subscription is wanted, even where the stream had it when it answered.
            last = min([newest[0][0], *(number - 1 for number in channel.order.held_numbers)])
            for message in self._messages(channel, [entry for entry in newest if entry[0] <= last]):
                channel.delivered.note(message)
            channel.order.start(last)
            return
        page, found, first, oldest = newest, 0, newest[-1][0], None
        while True:
            for message in self._messages(channel, page):
                if found == self._history:
                    break
                first = message.number or first
                if message.revision == 0:
                    found, oldest = found + 1, message.timestamp
            if found == self._history or len(page) < count:
                break
            (answer,) = await asking.call([_read_back(channel.name, b"%d-0" % (page[-1][0] - 1), count)])
            page = _entries(answer)
        if found < self._history:
            await self._intake.load_history(channel, oldest, self._history - found)
        channel.order.start(first - 1)
        if page is newest:
            channel.order.fill(self._intake.entries(channel.name, [e for e in reversed(newest) if e[0] >= first]))
        await self._intake.hand_on(channel, patient=True)

    async def _hand_on(self, channel: Channel) -> None:
        order = channel.order
        self._intake.pump(channel)
        await self._intake.settle(channel)
        if order.missing is None and (order.last is not None or not order.known):
            channel.stuck = None
            return
        # Announced, but not in the stream: Redis lost it, and whoever wrote it may write it again. Or it was announced
        # after the answer was given; then the next answer has it, whatever is announced by then.
        now_s = self._clock.monotonic_s()
        if channel.stuck is None or channel.stuck[0] != order.wanted:
            channel.stuck = order.wanted, now_s
        elif now_s - channel.stuck[1] >= self._timing.give_up_s:
            channel.stuck = None
            order.give_up()
            self._intake.pump(channel)
            await self._intake.settle(channel)

    async def _begin_anew(self, asking: Asking, channel: Channel) -> None:
        """The stream has other candles under the numbers that were delivered: find the first one that was not."""
        news: Message | None = None
        end = b"+"
        while True:
            (answer,) = await asking.call([_read_back(channel.name, end, _PAGE)])
            page = _entries(answer)
            known = False
            for message in self._messages(channel, page):
                if not channel.delivered.is_news(message):
                    known = True
                    break
                news = message
            if known or len(page) < _PAGE:
                break
            end = b"%d-0" % (page[-1][0] - 1)
        if news is not None:
            await self._intake.renumber(channel, news)
            self.behind.add(channel)

    def _messages(self, channel: Channel, entries: Iterable[Entry]) -> Iterator[Message]:
        for _, body in entries:
            try:
                yield read_message(body, channel=channel.name)
            except CorruptObject:
                continue


def _read_on(name: str, number: int, count: int) -> Command:
    return (b"XRANGE", name.encode(), b"%d-0" % number, b"+", b"COUNT", b"%d" % count)


def _read_back(name: str, end: bytes, count: int) -> Command:
    return (b"XREVRANGE", name.encode(), end, b"-", b"COUNT", b"%d" % count)


def _entries(answer: Any) -> list[Entry]:
    """Number and message of each entry: the id is the number, the value of the one field is the message."""
    return [
        (int(ident.partition(b"-")[0]), (list(fields.values()) if isinstance(fields, dict) else fields)[-1])
        for ident, fields in answer
    ]


def _parts(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[at : at + size] for at in range(0, len(items), size))

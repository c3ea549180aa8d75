"""Reading a kept stream while it grows: what was announced is waited for as long as it makes sense, and no longer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from market_data_tick_handler.client.buffer import DeliveryBuffer, Policy
from market_data_tick_handler.client.intake import Channel, Intake
from market_data_tick_handler.client.items import CandleGap
from market_data_tick_handler.client.messages import Message
from market_data_tick_handler.client.redis_link import Command
from market_data_tick_handler.client.redis_streams import StreamReader
from market_data_tick_handler.client.retry import ClientTiming
from market_data_tick_handler.client.stats import StreamStats
from market_data_tick_handler.testing import ManualClock
from tests.client.made import CHANNEL, encoded
from tests.wire.candles import candles

GIVE_UP_S = 3.0


class Stream:
    """A stream that somebody appends to; `meanwhile` happens between an answer and its arrival."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.meanwhile: Callable[[], None] = lambda: None

    async def call(self, commands: Sequence[Command]) -> list[Any]:
        answers = []
        for word, _, start, _, _, count in commands:
            if word == b"XREVRANGE":
                assert start == b"+"
                found = self.numbers[::-1][: int(count)]
            else:
                assert word == b"XRANGE"
                first = int(start.partition(b"-")[0])
                found = [number for number in self.numbers if number >= first][: int(count)]
            answers.append([(b"%d-0" % number, {b"json": body(number)}) for number in found])
        self.meanwhile()
        return answers

    async def streams(self, pattern: str, most: int) -> list[str]:
        raise AssertionError("nobody asks")


def body(number: int) -> bytes:
    return encoded(candles(number - 1))[0]


class World:
    """One channel of a reader whose subscriber has room for `capacity` candles, and wants all unless not `begun`."""

    def __init__(self, capacity: int = 1_000, *, begun: bool = True) -> None:
        self.clock = ManualClock()
        self.stream = Stream()
        self.buffer = DeliveryBuffer(Policy.BLOCK, capacity)
        self.intake = Intake(self.buffer, StreamStats(), None, rereads=True)
        self.channel: Channel = self.intake.channel(CHANNEL)
        if begun:
            self.channel.order.start(0)
        timing = ClientTiming(give_up_s=GIVE_UP_S)
        self.reader = StreamReader(self.intake, history=0, timing=timing, clock=self.clock)

    async def read(self) -> None:
        await self.reader.catch_up(self.stream, [self.channel])

    async def taken(self) -> list[int | tuple[int | None, int | None] | None]:
        found: list[int | tuple[int | None, int | None] | None] = []
        while len(self.buffer):
            item = await self.buffer.get()
            if isinstance(item, Message):
                found.append(item.number)
            elif isinstance(item, CandleGap):
                found.append((item.from_sequence, item.to_sequence))
        return found


async def test_what_is_announced_while_an_answer_travels_is_in_the_next_one_and_no_gap() -> None:
    world = World()

    def publish() -> None:
        world.stream.numbers.append(len(world.stream.numbers) + 1)
        world.channel.order.announce(len(world.stream.numbers))

    world.stream.meanwhile = publish
    for _ in range(50):
        await world.read()
        world.clock.move(GIVE_UP_S)
    assert await world.taken() == list(range(1, 50))


async def test_a_subscriber_that_takes_hours_to_catch_up_is_not_told_of_gaps_that_are_none() -> None:
    world = World(capacity=4)
    world.stream.numbers = list(range(1, 201))
    world.channel.order.announce(200)
    found: list[Any] = []
    while len(found) < 200:
        await world.read()
        found += await world.taken()
        world.clock.move(10 * GIVE_UP_S)
    assert found == list(range(1, 201))


async def test_what_was_announced_and_is_not_there_is_a_gap_after_a_while() -> None:
    world = World()
    world.stream.numbers = [1, 2]
    world.channel.order.announce(4)
    await world.read()
    world.clock.move(GIVE_UP_S - 0.1)
    await world.read()
    assert await world.taken() == [1, 2]
    world.clock.move(0.2)
    await world.read()
    assert await world.taken() == [(3, 4)]


async def test_what_comes_late_but_in_time_is_no_gap() -> None:
    world = World()
    world.channel.order.announce(2)
    await world.read()
    world.clock.move(GIVE_UP_S - 0.1)
    await world.read()
    world.stream.numbers = [1, 2]
    world.clock.move(60.0)
    await world.read()
    assert await world.taken() == [1, 2]


async def test_a_channel_that_was_read_to_its_end_without_room_for_all_of_it_is_behind() -> None:
    world = World(capacity=4)
    world.stream.numbers = list(range(1, 11))
    await world.read()
    assert world.reader.behind == {world.channel}
    found = await world.taken()
    while world.reader.behind:
        await world.read()
        found += await world.taken()
    assert found == list(range(1, 11))


async def test_without_history_what_came_since_the_subscription_is_delivered_whatever_the_stream_has_by_now() -> None:
    world = World(begun=False)
    world.intake.receive(body(4))
    world.stream.numbers = [1, 2, 3, 4, 5, 6]
    await world.reader.position(world.stream, [world.channel])
    await world.read()
    assert await world.taken() == [4, 5, 6]


async def test_without_history_what_the_stream_had_before_is_not() -> None:
    world = World(begun=False)
    world.stream.numbers = [1, 2, 3]
    await world.reader.position(world.stream, [world.channel])
    world.stream.numbers.append(4)
    await world.read()
    assert await world.taken() == [4]


async def test_numbers_that_a_stream_lacks_in_its_middle_are_a_gap_at_once() -> None:
    world = World()
    world.stream.numbers = [1, 2, 5, 6]
    await world.read()
    assert await world.taken() == [1, 2, (3, 4), 5, 6]

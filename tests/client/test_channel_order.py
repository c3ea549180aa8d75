"""Whatever is lost, repeated or out of order, each number comes out once and in order, or is named as lost."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from market_data_tick_handler.client.channel_order import ChannelOrder


def content(number: int) -> str:
    return f"message {number}"


class World:
    """A channel, its kept stream, what is on its way, and one reader of both, who knows nothing else."""

    def __init__(self, held: int) -> None:
        self.order: ChannelOrder[str] = ChannelOrder(held=held)
        self.order.start(0)
        self.published = 0
        self.kept: set[int] = set()
        self.travelling: list[int] = []
        self.answer: list[tuple[int, str]] | None = None
        self.output: list[int] = []
        self.gaps: list[int] = []

    def publish(self, arrives: bool, kept: bool) -> None:
        self.published += 1
        if kept:
            self.kept.add(self.published)
        if arrives:
            self.travelling.append(self.published)

    def arrive(self, place: int, again: bool) -> None:
        """One of the messages on their way, not always the first, and not always for the last time."""
        if not self.travelling:
            return
        place %= len(self.travelling)
        number = self.travelling[place] if again else self.travelling.pop(place)
        self.order.offer(number, content(number))
        self.take()

    def mark(self) -> None:
        self.order.announce(max(self.kept, default=0))

    def trim(self, count: int) -> None:
        self.kept -= set(sorted(self.kept)[:count])

    def ask(self, count: int) -> None:
        """The answer shows the stream as it is now, and is looked at later."""
        if self.answer is None:
            numbers = sorted(number for number in self.kept if number >= self.order.wanted)[:count]
            self.answer = [(number, content(number)) for number in numbers]

    def read(self) -> None:
        if self.answer is not None:
            self.order.fill(self.answer)
            self.answer = None
            self.take()

    def take(self) -> None:
        while True:
            while self.order.ready:
                self.output.append(self.order.wanted)
                assert self.order.pop() == content(self.output[-1])
            hole = self.order.lost
            if hole is None:
                return
            numbers = range(hole[0], hole[1] + 1)
            # Still being kept would mean that it was not lost.
            assert not self.kept.intersection(numbers), (hole, sorted(self.kept))
            self.gaps += numbers
            self.output += numbers
            self.order.skip(hole[1])

    def finish(self) -> None:
        """Everything that travels may be lost: marks and the stream are enough."""
        self.read()
        for _ in range(self.published + 2):
            self.mark()
            self.ask(7)
            self.read()
        self.order.announce(self.published)
        while self.order.missing is not None:
            self.order.give_up()
            self.take()


step = st.one_of(
    st.builds(
        lambda arrives, kept: lambda world: world.publish(arrives, kept),
        st.booleans(),
        st.sampled_from([True] * 4 + [False]),
    ),
    st.builds(lambda place, again: lambda world: world.arrive(place, again), st.integers(0, 5), st.booleans()),
    st.just(lambda world: world.mark()),
    st.builds(lambda count: lambda world: world.trim(count), st.integers(1, 6)),
    st.builds(lambda count: lambda world: world.ask(count), st.integers(1, 9)),
    st.just(lambda world: world.read()),
)


@given(st.lists(step, max_size=120), st.integers(0, 8))
def test_every_number_comes_out_once_in_order_or_is_named_as_lost(
    steps: list[Callable[[World], None]], held: int
) -> None:
    world = World(held)
    for do in steps:
        do(world)
    world.finish()
    assert world.output == list(range(1, world.published + 1))


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 9))
def test_nothing_is_named_as_lost_while_the_stream_has_it(arrives: list[bool], page: int) -> None:
    world = World(held=4)
    for one in arrives:
        world.publish(one, kept=True)
        world.arrive(0, again=False)
        if len(world.order.held) > 2:
            world.ask(page)
            world.read()
    world.finish()
    assert world.gaps == []
    assert world.output == list(range(1, len(arrives) + 1))


@given(st.permutations(list(range(1, 9))), st.lists(st.integers(0, 7), max_size=8))
def test_out_of_order_and_repeated_messages_need_no_stream(order_of_arrival: list[int], again: list[int]) -> None:
    order: ChannelOrder[str] = ChannelOrder()
    order.start(0)
    out = []
    for number in [*order_of_arrival, *(order_of_arrival[place] for place in again)]:
        order.offer(number, content(number))
        while order.ready:
            out.append(order.pop())
    assert out == [content(number) for number in range(1, 9)]
    assert order.missing is None


def test_a_number_left_out_is_missing_and_once_the_stream_has_passed_it_lost() -> None:
    order: ChannelOrder[str] = ChannelOrder()
    order.start(4)
    order.offer(8, "8")
    assert (order.missing, order.lost, order.ready) == ((5, 7), None, False)
    order.fill([(7, "7"), (8, "8")])
    assert (order.missing, order.lost) == ((5, 6), (5, 6))
    order.skip(6)
    assert [order.pop(), order.pop()] == ["7", "8"]
    assert not order.ready and order.missing is None


def test_an_announced_number_is_missing_until_it_is_given_up() -> None:
    order: ChannelOrder[str] = ChannelOrder()
    order.start(4)
    order.announce(6)
    order.fill([])
    assert (order.missing, order.lost) == ((5, 6), None)
    order.give_up()
    assert order.lost == (5, 6)


def test_the_first_thing_read_is_where_a_channel_begins() -> None:
    order: ChannelOrder[str] = ChannelOrder()
    order.offer(9, "9")
    assert not order.ready and order.missing is None
    order.fill([(8, "8"), (9, "9")])
    assert [order.pop(), order.pop()] == ["8", "9"]


def test_what_arrived_before_the_first_thing_read_is_not_forgotten() -> None:
    order: ChannelOrder[str] = ChannelOrder()
    order.offer(7, "7")
    # Redis has lost it since.
    order.fill([(9, "9")])
    assert order.pop() == "7" and order.lost == (8, 8)


def test_what_arrived_first_is_where_a_channel_begins_if_nothing_can_be_read() -> None:
    order: ChannelOrder[str] = ChannelOrder()
    order.offer(9, "9")
    order.give_up()
    assert order.ready and order.pop() == "9"


def test_a_channel_that_begins_anew_knows_nothing_of_before() -> None:
    order: ChannelOrder[str] = ChannelOrder()
    order.start(100)
    order.offer(103, "old")
    order.start(0)
    assert order.missing is None and order.held == []
    order.offer(1, "new")
    assert order.pop() == "new"

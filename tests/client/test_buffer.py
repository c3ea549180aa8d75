"""A slow subscriber gets what its policy says, and is told what it is not given."""

from __future__ import annotations

import asyncio

import pytest

from market_data_tick_handler.client.buffer import DeliveryBuffer, Policy, parse_policy
from market_data_tick_handler.client.items import CandleGap, GapReason
from market_data_tick_handler.client.messages import Message, read_message
from market_data_tick_handler.errors import ConfigError, DataError, SourceUnavailable
from tests.client.made import CHANNEL, encoded, message
from tests.wire.candles import ETH, candles


def open_message(index: int, close: float) -> Message:
    return read_message(encoded(candles(index, close=close), [1], is_final=False)[0])


async def drain(buffer: DeliveryBuffer) -> list[Message | CandleGap]:
    """What is left in it when it is closed."""
    buffer.close()
    taken = []
    while (item := await buffer.get()) is not None:
        taken.append(item)
    return taken


def numbers(items: list[Message | CandleGap]) -> list[int | None]:
    return [item.number for item in items if isinstance(item, Message)]


async def test_block_has_no_room_until_half_of_it_was_taken() -> None:
    rooms: list[int] = []
    buffer = DeliveryBuffer(Policy.BLOCK, 4)
    buffer.on_room = lambda: rooms.append(len(buffer))
    for index in range(4):
        assert buffer.room() == 4 - index
        buffer.put(message(index))
    assert buffer.room() == 0
    await buffer.get()
    assert rooms == [] and buffer.room() == 1
    await buffer.get()
    assert rooms == [2]
    await buffer.get()
    assert rooms == [2]
    assert buffer.dropped == 0


async def test_drop_oldest_tells_in_its_place_what_was_dropped() -> None:
    buffer = DeliveryBuffer(Policy.DROP_OLDEST, 3)
    for index in range(8):
        assert buffer.room() > 0
        buffer.put(message(index))
    gap, *rest = await drain(buffer)
    assert numbers(rest) == [6, 7, 8]
    assert gap == CandleGap(
        channel=CHANNEL,
        reason=GapReason.DROPPED,
        from_sequence=1,
        to_sequence=5,
        missing=5,
        from_timestamp=message(0).timestamp,
        to_timestamp=message(4).timestamp,
    )
    assert buffer.dropped == 5


async def test_drop_oldest_counts_a_gap_that_is_dropped_into_the_one_that_tells_of_it() -> None:
    buffer = DeliveryBuffer(Policy.DROP_OLDEST, 2)
    buffer.put(message(0))
    buffer.put(CandleGap(channel=CHANNEL, reason=GapReason.LOST, from_sequence=2, to_sequence=4, missing=3))
    for index in (4, 5):
        buffer.put(message(index))
    gap, *rest = await drain(buffer)
    assert isinstance(gap, CandleGap)
    assert (gap.reason, gap.from_sequence, gap.to_sequence, gap.missing) == (GapReason.DROPPED, 1, 4, 4)
    assert numbers(rest) == [5, 6]


async def test_gaps_of_several_channels_are_told_apart() -> None:
    buffer = DeliveryBuffer(Policy.DROP_OLDEST, 2)
    for index in range(3):
        buffer.put(message(index))
        buffer.put(message(index, key=ETH))
    gaps = [item for item in await drain(buffer) if isinstance(item, CandleGap)]
    assert [(gap.channel == CHANNEL, gap.from_sequence, gap.to_sequence) for gap in gaps] == [
        (True, 1, 2),
        (False, 1, 2),
    ]


async def test_drop_oldest_is_asked_for_patience_and_then_has_no_room_either() -> None:
    buffer = DeliveryBuffer(Policy.DROP_OLDEST, 1)
    buffer.put(message(0))
    assert buffer.room() == 1 and buffer.room(patient=True) == 0


async def test_latest_keeps_the_newest_candle_of_each_channel() -> None:
    buffer = DeliveryBuffer(Policy.LATEST, 1)
    for index in range(5):
        buffer.put(message(index))
        buffer.put(message(index, key=ETH))
    assert numbers(await drain(buffer)) == [5, 5]
    assert buffer.dropped == 8


async def test_latest_does_not_lose_the_newest_candle_to_a_revision_of_an_earlier_one() -> None:
    buffer = DeliveryBuffer(Policy.LATEST, 1)
    buffer.put(message(5))
    buffer.put(message(3, number=7, revision=1))
    assert numbers(await drain(buffer)) == [6]


async def test_latest_gives_the_newest_revision_of_the_newest_candle() -> None:
    buffer = DeliveryBuffer(Policy.LATEST, 1)
    buffer.put(message(5))
    buffer.put(message(5, number=8, revision=1))
    assert numbers(await drain(buffer)) == [8]


@pytest.mark.parametrize("policy", list(Policy))
async def test_of_candles_in_progress_only_the_newest_waits(policy: Policy) -> None:
    buffer = DeliveryBuffer(policy, 10)
    for close in (1.0, 2.0, 3.0):
        buffer.put_open(open_message(4, close))
    (only,) = await drain(buffer)
    assert isinstance(only, Message) and only.hand_over(0)["close"] == 3.0
    assert buffer.dropped == 0


@pytest.mark.parametrize("policy", list(Policy))
async def test_a_final_candle_ends_the_one_in_progress_that_waits(policy: Policy) -> None:
    buffer = DeliveryBuffer(policy, 10)
    buffer.put_open(open_message(4, 1.0))
    buffer.put(message(4))
    buffer.put_open(open_message(5, 2.0))
    final, after = await drain(buffer)
    assert isinstance(final, Message) and final.is_final
    assert isinstance(after, Message) and not after.is_final and after.timestamp > final.timestamp


async def test_what_was_put_before_a_failure_is_given_before_it() -> None:
    buffer = DeliveryBuffer(Policy.BLOCK, 10)
    buffer.put(message(0))
    buffer.close(SourceUnavailable("gone"))
    assert isinstance(await buffer.get(), Message)
    with pytest.raises(SourceUnavailable, match="gone"):
        await buffer.get()


async def test_closing_wakes_who_waits() -> None:
    buffer = DeliveryBuffer(Policy.BLOCK, 10)
    waiting = asyncio.create_task(buffer.get())
    await asyncio.sleep(0)
    buffer.close()
    assert await waiting is None


@pytest.mark.parametrize("text", ["BLOCK", " latest "])
def test_policies_are_named_in_any_case(text: str) -> None:
    assert parse_policy(text) in Policy


def test_an_unknown_policy_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="block, drop_oldest, latest"):
        parse_policy("newest")


def test_a_gap_read_as_a_candle_says_what_to_do() -> None:
    gap = CandleGap(channel=CHANNEL, reason=GapReason.LOST, from_sequence=3, to_sequence=5, missing=3)
    with pytest.raises(DataError, match=r"numbers 3 to 5 \(lost\): test isinstance\(item, CandleGap\) first"):
        gap["hft_features"]

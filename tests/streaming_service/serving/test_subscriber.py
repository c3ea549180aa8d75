"""The queue of one subscriber: order, bounds, policies; no sockets."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from streaming_service.serving.frames import payload_of, text_frame
from streaming_service.serving.subscriber import Queued, Subscriber
from streaming_service.sinks.bus import SubscriberPolicy


def subscriber(policy: SubscriberPolicy, *, max_frames: int = 4, max_bytes: int = 10_000) -> Subscriber:
    return Subscriber(policy=policy, max_frames=max_frames, max_bytes=max_bytes)


def queued(channel: str, number: int, *, size: int = 0) -> Queued:
    return Queued(channel, number, number, text_frame(orjson.dumps([channel, number, "x" * size])))


def taken(waiting: Subscriber, max_bytes: int = 1 << 20) -> list[Any]:
    return [orjson.loads(payload_of(frame)) for frame in waiting.take(max_bytes)]


def test_block_keeps_everything_and_says_when_it_is_too_much() -> None:
    waiting = subscriber(SubscriberPolicy.BLOCK)
    for number in range(4):
        waiting.offer(queued("a", number))
    assert not waiting.overflowed
    waiting.offer(queued("a", 4))
    assert waiting.overflowed and waiting.dropped == 0
    assert [each[1] for each in taken(waiting)] == [0, 1, 2, 3, 4]


def test_drop_oldest_tells_what_it_dropped_before_what_is_left() -> None:
    waiting = subscriber(SubscriberPolicy.DROP_OLDEST)
    for number in range(10, 17):
        waiting.offer(queued("a", number))
    notice, *left = taken(waiting)
    assert notice == {"v": 1, "type": "dropped", "channel": "a", "from": 10, "to": 12, "count": 3}
    assert [each[1] for each in left] == [13, 14, 15, 16]
    assert waiting.dropped == 3


def test_latest_keeps_the_newest_of_each_channel() -> None:
    waiting = subscriber(SubscriberPolicy.LATEST)
    for number in (1, 2, 3):
        waiting.offer(queued("a", number))
    waiting.offer(queued("b", 1))
    notice, *left = taken(waiting)
    assert (notice["channel"], notice["from"], notice["to"], notice["count"]) == ("a", 1, 2, 2)
    assert left == [["a", 3, ""], ["b", 1, ""]]


def test_bytes_are_bounded_too_but_one_large_message_always_passes() -> None:
    waiting = subscriber(SubscriberPolicy.DROP_OLDEST, max_frames=100, max_bytes=2_000)
    for number in range(5):
        waiting.offer(queued("a", number, size=900))
    notice, *left = taken(waiting)
    assert notice["to"] == 2 and len(left) == 2
    waiting.offer(queued("a", 5, size=5_000))
    assert waiting.waiting == 1 and len(taken(waiting)) == 1
    assert waiting.waiting_bytes == 0


def test_the_snapshot_comes_before_the_tail_and_does_not_count_against_the_bounds() -> None:
    waiting = subscriber(SubscriberPolicy.BLOCK, max_frames=1)
    waiting.begin(queued("a", number).frame for number in range(50))
    waiting.offer(queued("a", 50))
    assert not waiting.overflowed
    assert [each[1] for each in taken(waiting)] == list(range(51))


def test_no_more_is_taken_than_asked_for_but_at_least_one() -> None:
    waiting = subscriber(SubscriberPolicy.BLOCK)
    for number in range(3):
        waiting.offer(queued("a", number, size=100))
    assert len(waiting.take(1)) == 1
    assert len(waiting.take(1 << 20)) == 2
    assert waiting.take(1 << 20) == []


def test_a_candle_in_progress_is_replaced_by_its_newer_state_and_ended_by_the_final_one() -> None:
    waiting = subscriber(SubscriberPolicy.BLOCK)
    waiting.offer_state("a:open", 60, text_frame(b'"first"'))
    waiting.offer_state("a:open", 60, text_frame(b'"second"'))
    assert taken(waiting) == ["second"]
    waiting.offer_state("a:open", 60, text_frame(b'"third"'))
    waiting.end_state("a:open", 60)
    waiting.offer_state("b:open", 120, text_frame(b'"next"'))
    waiting.end_state("b:open", 60)
    assert taken(waiting) == ["next"]


@given(
    policy=st.sampled_from(SubscriberPolicy),
    steps=st.lists(st.one_of(st.sampled_from("ab"), st.integers(1, 400)), max_size=60),
)
def test_every_number_is_delivered_or_told_of_once_and_in_order(
    policy: SubscriberPolicy, steps: list[str | int]
) -> None:
    """Letters publish on a channel, numbers take so many bytes."""
    waiting = subscriber(policy, max_frames=5, max_bytes=300)
    published = dict.fromkeys("ab", 0)
    seen: list[Any] = []
    for step in steps:
        if isinstance(step, int):
            seen += taken(waiting, step)
            continue
        published[step] += 1
        waiting.offer(queued(step, published[step], size=20))
        if waiting.overflowed:
            assert policy is SubscriberPolicy.BLOCK
            break
    seen += taken(waiting)
    for channel, last in published.items():
        spans = [
            (each["from"], each["to"]) if isinstance(each, dict) else (each[1], each[1])
            for each in seen
            if (each["channel"] if isinstance(each, dict) else each[0]) == channel
        ]
        assert [first for first, _ in spans[:1]] == [1] * bool(last)
        assert [to for _, to in spans[-1:]] == [last] * bool(last)
        assert all(later[0] == earlier[1] + 1 for earlier, later in pairwise(spans))


def test_frames_of_every_length_carry_their_message() -> None:
    for size in (0, 1, 125, 126, 65_535, 65_536):
        frame = text_frame(b"x" * size)
        assert payload_of(frame) == b"x" * size and frame[0] == 0x81

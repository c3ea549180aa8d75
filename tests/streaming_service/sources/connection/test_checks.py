"""A silent stream is only called dead when it had the time, and the turns, to bring what the venue has."""

from __future__ import annotations

import asyncio
import json

import pytest

from market_data_tick_handler.testing import ManualClock
from streaming_service.sources.connection.checks import LastTradeCheck, Newest
from streaming_service.sources.exchanges.protocol import Request
from tests.streaming_service.sources.connection.plain_venue import BTC, PlainVenue

T0 = 1_704_067_200_000_000


class FifthTrade:
    """REST of a venue whose last trade is number 5."""

    async def get(self, request: Request) -> bytes:
        return json.dumps({"trades": [{"s": "BTCUSDT", "t": 5, "p": 100.0, "T": T0}]}).encode()


class Stream:
    def __init__(self) -> None:
        self.id = 3

    def newest(self) -> Newest:
        return Newest(T0, self.id)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(T0)


def asked(clock: ManualClock, stream: Stream) -> asyncio.Task[bool | None]:
    check = LastTradeCheck(PlainVenue(tells_last=True), FifthTrade(), clock=clock, grace_s=2.0)
    return asyncio.create_task(check.missed(BTC, stream.newest))


async def test_what_does_not_come_within_the_grace_was_missed(clock: ManualClock) -> None:
    asking = asked(clock, Stream())
    await clock.advance(1.9)
    assert not asking.done()
    await clock.advance(0.1)
    assert await asking is True


async def test_what_comes_within_the_grace_was_not_missed(clock: ManualClock) -> None:
    stream = Stream()
    asking = asked(clock, stream)
    await clock.advance(1.0)
    stream.id = 5
    await clock.advance(1.0)
    assert await asking is False


async def test_a_process_that_stood_still_takes_its_turn_before_the_stream_is_judged(clock: ManualClock) -> None:
    stream = Stream()
    asking = asked(clock, stream)
    await clock.advance(0.0)
    clock.move(60.0)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not asking.done()
    stream.id = 5
    await clock.advance(2.0)
    assert await asking is False

"""Watermarks and interval markers over the WebSocket: those of Redis, after the candles they speak of."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
import pytest
from jsonschema import Draft202012Validator

from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.testing import ManualClock, ticks
from market_data_tick_handler.wire import Interval, Watermark, channels, decode_mark
from market_data_tick_handler.wire.schema import message_schema
from streaming_service.serving.mark_channels import MarkNames
from streaming_service.serving.options import ServingOptions
from streaming_service.serving.selection import parse_channels, parse_since
from streaming_service.serving.subscriber import Subscriber
from streaming_service.sinks.bus import SubscriberPolicy
from streaming_service.sinks.marks import MarkSource
from tests.streaming_service.serving.serving_world import BTC_1M, CALM, World, listening, read, world
from tests.wire.candles import BTC, ETH, candles

MINUTE_US = 60_000_000
START_US = ticks.START_US
SERVICE = channels.interval_marks("desk")


class Said:
    """What a service would say, to be changed by the test."""

    def __init__(self) -> None:
        self.instruments = [BTC, ETH]
        self.watermarks: dict[str, int] = {BTC: START_US + 1, ETH: START_US + 2}
        self.repairing: set[str] = set()

    def source(self) -> MarkSource:
        return MarkSource(
            service="desk",
            instruments=lambda: self.instruments,
            watermarks=lambda: self.watermarks,
            repairing=lambda key: key in self.repairing,
        )


@asynccontextmanager
async def marked(options: ServingOptions = CALM) -> AsyncIterator[tuple[World, Said, ManualClock]]:
    said, clock = Said(), ManualClock(START_US)
    async with world(options, marks=said.source(), clock=clock) as served:
        yield served, said, clock


async def test_watermarks_come_each_second_and_name_what_the_channels_have() -> None:
    async with marked() as (served, said, clock), served.connect(channels.watermarks(BTC)) as socket:
        await listening(served)
        await clock.advance(1.0)
        (first,) = await read(socket, 1)
        assert (first["watermark"], first["sequence"], first["channels"]) == (START_US + 1, 1, {})
        await served.sink.write(candles(0, 3))
        said.watermarks[BTC] = START_US + 3 * MINUTE_US
        await clock.advance(1.0)
        (second,) = await read(socket, 1)
        assert isinstance(decode_mark(orjson.dumps(second)), Watermark)
        assert (second["instrument_id"], second["watermark"]) == (BTC, START_US + 3 * MINUTE_US)
        assert second["channels"] == {"1m": {"sequence": 3, "timestamp": START_US + 2 * MINUTE_US}}
        assert second["time"] == START_US + 2_000_000


async def test_the_newest_mark_comes_first_and_an_outdated_one_does_not() -> None:
    async with marked() as (served, said, clock):
        await served.sink.write(candles(0))
        await served.sink.write(candles(0, key=ETH))
        await clock.advance(3.0)
        async with served.connect("marks:*") as socket:
            found = {message["type"]: message for message in await read(socket, 3)}
            assert found["watermark"]["sequence"] == 3 and found["interval"]["complete"]
        said.watermarks = {ETH: START_US + 3}
        await clock.advance(11.0)
        async with served.connect("marks:*") as socket:
            snapshot = [message.get("instrument_id", message["type"]) for message in await read(socket, 2)]
            assert sorted(snapshot) == [ETH, "interval"]


async def test_there_is_no_watermark_while_a_gap_is_repaired() -> None:
    async with marked() as (served, said, clock), served.connect("marks:*") as socket:
        await listening(served)
        said.repairing = {BTC}
        await clock.advance(2.0)
        assert {message["instrument_id"] for message in await read(socket, 2)} == {ETH}
        said.repairing = set()
        await clock.advance(1.0)
        assert {message["instrument_id"] for message in await read(socket, 2)} == {BTC, ETH}


async def test_an_interval_is_complete_once_its_last_candle_was_sent_on_the_same_socket() -> None:
    async with marked() as (served, _, _), served.connect("candles:*", SERVICE) as socket:
        await listening(served)
        await served.sink.write(candles(0))
        await served.sink.write(candles(0, key=ETH))
        first, second, marker = await read(socket, 3)
        assert [message["instrument_id"] for message in (first, second)] == [BTC, ETH]
        assert isinstance(decode_mark(orjson.dumps(marker)), Interval)
        assert (marker["text"], marker["sequence"]) == ("1m 00:00 complete, 2 of 2 instruments", 1)


async def test_an_interval_that_waits_for_too_long_says_for_whom() -> None:
    async with marked() as (served, _, clock), served.connect(SERVICE) as socket:
        await listening(served)
        for key in (BTC, ETH):
            await served.sink.write(candles(0, key=key))
        await served.sink.write(candles(1))
        await clock.advance(6.0)
        complete, late = await read(socket, 2)
        assert complete["complete"] and (late["complete"], late["missing"]) == (False, [ETH])


async def test_what_is_delivered_again_opens_no_interval_again() -> None:
    async with marked() as (served, said, clock), served.connect(SERVICE) as socket:
        await listening(served)
        said.instruments = [BTC]
        await served.sink.write(candles(0, 2))
        await served.sink.write(candles(0, 2))
        await served.sink.write(candles(1, revision=1).numbered(candles(2).sequences))  # type: ignore[arg-type]
        await clock.advance(7.0)
        await served.sink.write(candles(3))
        assert [message["timestamp"] for message in await read(socket, 3)] == [
            START_US + minute * MINUTE_US for minute in (0, 1, 3)
        ]


async def test_marks_and_candles_are_asked_for_apart() -> None:
    async with marked() as (served, _, clock), served.connect(BTC_1M) as socket:
        await listening(served)
        await clock.advance(5.0)
        await served.sink.write(candles(0))
        assert [message["type"] for message in await read(socket, 1)] == ["candle"]


async def test_marks_follow_the_schema_of_messages() -> None:
    check = Draft202012Validator(message_schema())
    async with marked() as (served, _, clock), served.connect("marks:*") as socket:
        await listening(served)
        for key in (BTC, ETH):
            await served.sink.write(candles(0, key=key))
        await clock.advance(1.0)
        for message in await read(socket, 3):
            check.validate(message)


async def test_a_sink_that_is_closed_says_no_more() -> None:
    async with marked() as (served, _, clock):
        await served.sink.aclose()
        before = served.sink.hub.counters.marks
        await clock.advance(5.0)
        assert served.sink.hub.counters.marks == before and clock.sleeping == 0


async def test_a_defect_in_what_the_marks_come_from_reaches_whoever_writes() -> None:
    async with marked() as (served, said, clock):
        said.watermarks = None  # type: ignore[assignment]
        await clock.advance(1.0)
        with pytest.raises(TypeError):
            await served.sink.write(candles(0))
        said.watermarks = {}
        await served.sink.open()
        await served.sink.write(candles(0))


def test_of_watermarks_the_newest_waits_and_comes_behind_the_candles() -> None:
    from streaming_service.serving.frames import payload_of, text_frame
    from streaming_service.serving.subscriber import Queued

    waiting = Subscriber(policy=SubscriberPolicy.BLOCK, max_frames=10, max_bytes=1_000)
    waiting.offer_state("marks:a", 1, text_frame(b"1"))
    waiting.offer(Queued("candles:a", 1, 1, text_frame(b"candle")))
    waiting.offer_state("marks:a", 2, text_frame(b"2"))
    assert [payload_of(frame) for frame in waiting.take(1_000)] == [b"candle", b"2"]


async def test_a_subscriber_that_leaves_is_forgotten() -> None:
    async with marked() as (served, _, clock):
        async with served.connect("marks:*"):
            await listening(served)
        await listening(served, 0)
        before = served.sink.hub.counters.frames
        await clock.advance(2.0)
        assert served.sink.hub.counters.frames == before and served.sink.hub.counters.marks == 4


# Names


def marks_of(text: str) -> MarkNames:
    return parse_channels(text)[2]


@pytest.mark.parametrize(
    ("text", "matched", "not_matched"),
    [
        ("marks:*", [f"marks:{BTC}", SERVICE], []),
        ("marks:service:*", [SERVICE], [f"marks:{BTC}"]),
        ("marks:service:desk", [SERVICE], ["marks:service:Desk"]),
        ("marks:binance:spot_pair:btc-usdt", [f"marks:{BTC}"], [f"marks:{ETH}", SERVICE]),
        ("marks:binance:*", [f"marks:{BTC}", f"marks:{ETH}"], [SERVICE, "marks:DERIBIT:PERPETUAL:BTC-USD"]),
    ],
)
def test_names_and_stars(text: str, matched: list[str], not_matched: list[str]) -> None:
    found = marks_of(text)
    assert all(map(found.match, matched)) and not any(map(found.match, not_matched))


@pytest.mark.parametrize(
    "text",
    ["marks:", "marks:service:", "marks:service:a b", f"marks:{BTC}:1m", "marks:NO:SPOT_PAIR:X-Y", "marks:*a*b*c*d*"],
)
def test_what_is_no_channel_of_marks_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_channels(text)


def test_marks_have_no_past_to_go_on_from() -> None:
    with pytest.raises(ValueError, match="no past"):
        parse_since([f"marks:{BTC}@3"])


def test_names_of_marks_are_parsed_as_they_are_made() -> None:
    assert channels.parse_mark_channel(channels.watermarks(BTC)) == BTC
    assert channels.parse_mark_channel(SERVICE) == ""
    assert channels.is_of_marks(SERVICE) and not channels.is_of_marks(channels.candles(BTC, Timeframe.M1))


async def test_the_snapshot_of_candles_does_not_depend_on_marks() -> None:
    async with marked() as (served, _, clock):
        await served.sink.write(candles(0, 5))
        await clock.advance(1.0)
        async with served.connect(BTC_1M, "marks:*", history=2) as socket:
            kinds = [message["type"] for message in await read(socket, 4)]
        assert kinds == ["candle", "candle", "watermark", "watermark"]

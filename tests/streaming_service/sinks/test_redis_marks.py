"""Candles in progress, watermarks and interval markers say what is true, in time, and never hold final candles up."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import pytest

from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.testing import ticks
from market_data_tick_handler.testing.clock import ManualClock
from market_data_tick_handler.wire import CandleEncoder, Interval, channels, decode, decode_mark
from streaming_service.sinks.intervals import IntervalTracker
from streaming_service.sinks.marks import MarkSource
from streaming_service.sinks.redis.marks import OpenCandles
from streaming_service.sinks.redis.state import RedisCounters
from tests.servers.ports import HOST, free_port
from tests.servers.redis_server import redis_server
from tests.streaming_service.sinks.redis_reading import listener, numbers, redis_sink, stream
from tests.waiting import until
from tests.wire.candles import BTC, ETH, candles

OPEN = channels.open_candles(BTC, Timeframe.M1)
MINUTE_US = 60_000_000
START_US = ticks.START_US


def source(
    *,
    instruments: Collection[str] = (BTC, ETH),
    watermarks: Callable[[], Mapping[str, int]] = dict,
    repairing: Callable[[str], bool] = lambda key: False,
) -> MarkSource:
    return MarkSource(service="desk", instruments=lambda: instruments, watermarks=watermarks, repairing=repairing)


def sent_opens(commands: list[tuple[bytes, ...]]) -> list[dict[str, Any]]:
    return [decode(command[2]) for command in commands]


def open_candles(clock: ManualClock, counters: RedisCounters) -> OpenCandles:
    return OpenCandles(CandleEncoder(), 0.25, clock, counters)


async def test_a_candle_in_progress_is_published_and_kept_nowhere() -> None:
    with redis_server() as server:
        async with listener(server.url, "candles:*") as heard, redis_sink(server.url) as sink:
            sink.write_open(candles(0))
            await until(lambda: bool(heard.heard), "the message")
        assert [(name, document["is_final"]) for name, document in heard.heard] == [(OPEN, False)]
        assert server.command("KEYS", "*") == []


def test_of_candles_in_progress_the_newest_counts_and_each_channel_has_its_own_pace() -> None:
    clock = ManualClock()
    counters = RedisCounters()
    opens = open_candles(clock, counters)
    opens.put(candles(0, close=1.0))
    opens.put(candles(0, key=ETH, close=9.0))
    assert sorted(document["close"] for document in sent_opens(opens.commands())) == [1.0, 9.0]
    for close in (2.0, 3.0, 4.0):
        clock.move(0.05)
        opens.put(candles(0, close=close))
        assert opens.commands() == [] and not opens.has_due()
    clock.move(0.1)
    assert opens.has_due()
    (document,) = sent_opens(opens.commands())
    assert (document["close"], document["sequence"], document["is_final"]) == (4.0, 2, False)
    assert counters.open_skipped == 2


def test_a_candle_in_progress_is_not_published_after_it_was_final() -> None:
    counters = RedisCounters()
    opens = open_candles(ManualClock(), counters)
    opens.put(candles(5))
    opens.end(candles(5))
    opens.put(candles(5))
    opens.put(candles(4))
    assert opens.commands() == []
    opens.put(candles(6))
    assert [document["timestamp"] for document in sent_opens(opens.commands())] == [START_US + 6 * MINUTE_US]
    assert counters.open_skipped == 3


async def test_candles_in_progress_do_not_wait_for_a_server_that_is_away() -> None:
    newest = START_US + 50 * MINUTE_US
    port = free_port()
    async with redis_sink(f"redis://{HOST}:{port}/0") as sink:
        for number in range(50):
            sink.write_open(candles(number))
        with redis_server(port=port) as server:
            async with listener(server.url, "candles:*") as heard:
                await until(lambda: sink.state.connected, "a connection")
                sink.write_open(candles(50))
                # The one before it may have been sent as soon as the server was there.
                await until(lambda: heard.heard and heard.heard[-1][1]["timestamp"] == newest, "the newest")
                assert len(heard.heard) <= 2


async def test_watermarks_tell_every_second_how_far_an_instrument_has_got_and_what_its_streams_have() -> None:
    marks = source(watermarks=lambda: {BTC: START_US + 7, ETH: START_US + 8})
    with redis_server() as server:
        async with listener(server.url, "marks:*") as heard, redis_sink(server.url, marks=marks) as sink:
            await sink.write(candles(0, 3))
            await sink.flush()
            channel = channels.watermarks(BTC)
            await until(lambda: len(heard.documents(channel)) >= 3, "watermarks")
            found = heard.documents(channel)[-1]
            assert (found["instrument_id"], found["watermark"]) == (BTC, START_US + 7)
            assert found["channels"] == {"1m": {"sequence": 3, "timestamp": START_US + 2 * MINUTE_US}}
            assert numbers(heard.documents(channel)) == list(range(1, len(heard.documents(channel)) + 1))
            assert heard.documents(channels.watermarks(ETH))[-1]["channels"] == {}
            # Read while there are more to come: the last one is forgotten within seconds.
            await until(lambda: server.command("EXISTS", channel), "the last value")
            with server.client() as client:
                kept = decode(client.get(channel))
                assert kept["sequence"] >= found["sequence"]
                assert 0 < client.ttl(channel) <= 10


async def test_there_is_no_watermark_while_a_gap_is_repaired() -> None:
    repairing = {BTC}
    marks = source(watermarks=lambda: {BTC: 1, ETH: 1}, repairing=lambda key: key in repairing)
    with redis_server() as server:
        async with listener(server.url, "marks:*") as heard, redis_sink(server.url, marks=marks) as sink:
            await until(lambda: len(heard.documents(channels.watermarks(ETH))) >= 3, "the other's watermarks")
            assert heard.documents(channels.watermarks(BTC)) == []
            assert sink.state.counters.marks_paused >= 3
            repairing.clear()
            await until(lambda: bool(heard.documents(channels.watermarks(BTC))), "watermarks again")


async def test_a_watermark_does_not_overtake_the_candles_before_it() -> None:
    """The server is out of memory for candles, while a message that nobody stores would pass."""
    now_us = [START_US]
    marks = source(instruments=(BTC,), watermarks=lambda: {BTC: now_us[0]})
    with redis_server() as server:
        async with listener(server.url, "marks:*") as heard, redis_sink(server.url, marks=marks) as sink:
            channel = channels.watermarks(BTC)
            await sink.write(candles(0))
            await until(lambda: bool(heard.documents(channel)), "a watermark")
            server.command("CONFIG", "SET", "maxmemory", "1")
            now_us[0] += MINUTE_US
            await sink.write(candles(1))
            await until(lambda: sink.state.counters.failures >= 5, "refusals")
            assert {document["watermark"] for document in heard.documents(channel)} == {START_US}
            server.command("CONFIG", "SET", "maxmemory", "0")
            await until(lambda: heard.documents(channel)[-1]["watermark"] == now_us[0], "the next watermark")
            assert heard.documents(channel)[-1]["channels"]["1m"]["sequence"] == 2


async def test_an_interval_is_marked_complete_after_its_last_candle_is_in_its_stream() -> None:
    with redis_server() as server:
        async with listener(server.url, "marks:service:*") as heard, redis_sink(server.url, marks=source()) as sink:
            await sink.write(candles(0))
            await sink.flush()
            assert heard.heard == []
            await sink.write(candles(0, key=ETH))
            await until(lambda: bool(heard.heard), "the marker")
            assert len(stream(server, ETH)) == 1
            ((channel, document),) = heard.heard
            assert channel == "marks:service:desk"
            assert document["text"] == "1m 00:00 complete, 2 of 2 instruments"
        with server.client() as client:
            assert decode_mark(client.get(channel)) == decode_mark(client.get(channel))
            assert decode(client.get(channel)) == document


async def test_markers_wait_for_a_server_that_is_away() -> None:
    with redis_server() as server:
        marks = source(instruments=(BTC,))
        async with listener(server.url, "marks:service:*") as heard, redis_sink(server.url, marks=marks) as sink:
            server.kill()
            await sink.write(candles(0, 5))
            heard.subscribed.clear()
            server.start()
            await until(heard.subscribed.is_set, "the listener is back")
            await sink.write(candles(5))
            await until(lambda: bool(heard.heard) and heard.heard[-1][1]["sequence"] == 6, "the last marker")
            assert all(document["complete"] for _, document in heard.heard)


def tracker(*instruments: str) -> IntervalTracker:
    return IntervalTracker("desk", lambda: instruments, late_after_s=5.0)


def arrive(tracker: IntervalTracker, now_s: float, *arrived: tuple[str, int]) -> list[Interval]:
    moments = [(key, Timeframe.M1, START_US + minute * MINUTE_US) for key, minute in arrived]
    return list(tracker.note(moments, now_s, 17))


def test_an_interval_that_waits_too_long_says_who_is_missing_and_then_that_it_is_complete() -> None:
    intervals = tracker(BTC, ETH)
    assert len(arrive(intervals, 0.0, (BTC, 0), (ETH, 0))) == 1
    assert arrive(intervals, 60.0, (BTC, 1)) == []
    assert list(intervals.late(64.9, 17)) == []
    (late,) = intervals.late(65.0, 17)
    assert (late.complete, late.instruments, late.expected, late.missing) == (False, 1, 2, [ETH])
    assert late.text == "1m 00:01 incomplete, 1 of 2 instruments"
    assert list(intervals.late(70.0, 17)) == []
    (complete,) = arrive(intervals, 71.0, (ETH, 1))
    assert (complete.complete, complete.sequence, complete.timestamp) == (True, 3, START_US + MINUTE_US)


def test_the_first_interval_of_a_run_may_be_partly_of_an_earlier_run() -> None:
    intervals = tracker(BTC, ETH)
    assert arrive(intervals, 0.0, (BTC, 0)) == []
    assert list(intervals.late(100.0, 17)) == []


def test_an_instrument_that_joins_or_leaves_changes_what_complete_means() -> None:
    instruments = [BTC]
    intervals = IntervalTracker("desk", lambda: instruments, late_after_s=5.0)
    assert [mark.expected for mark in arrive(intervals, 0.0, (BTC, 0))] == [1]
    instruments.append(ETH)
    assert arrive(intervals, 1.0, (BTC, 1)) == []
    instruments.remove(ETH)
    assert [mark.text for mark in arrive(intervals, 2.0, (BTC, 1))] == ["1m 00:01 complete, 1 of 1 instruments"]


def test_open_intervals_are_bounded() -> None:
    intervals = tracker(BTC, ETH)
    for minute in range(500):
        arrive(intervals, float(minute), (BTC, minute))
    list(intervals.late(1_000.0, 17))
    assert len(list(intervals._open[Timeframe.M1])) <= 64


@pytest.mark.parametrize(
    ("timeframe", "open_us", "says"),
    [
        (Timeframe.S15, START_US + 15_000_000, "15s 00:00:15 complete, 1 of 1 instruments"),
        (Timeframe.H4, START_US + 4 * 3_600_000_000, "4h 04:00 complete, 1 of 1 instruments"),
        (Timeframe.H24, START_US, "24h 2024-01-01 complete, 1 of 1 instruments"),
    ],
)
def test_markers_name_the_open_time_as_people_do(timeframe: Timeframe, open_us: int, says: str) -> None:
    (mark,) = tracker(BTC).note([(BTC, timeframe, open_us)], 0.0, 17)
    assert mark.text == says


async def test_revisions_do_not_open_an_interval_again() -> None:
    with redis_server() as server:
        marks = source(instruments=(BTC,))
        async with (
            listener(server.url, "marks:service:*") as heard,
            redis_sink(server.url, marks=marks, late_after_s=0.0) as sink,
        ):
            await sink.write(candles(0, 4))
            await sink.write(candles(2, revision=1, sequences=False))
            await sink.flush()
            await until(lambda: len(heard.heard) == 4, "markers")
            await sink.write(candles(4))
            await until(lambda: len(heard.heard) == 5, "the next marker")
        assert all(document["complete"] for _, document in heard.heard)

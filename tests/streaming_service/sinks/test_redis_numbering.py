"""Numbers go on over restarts of the service, whatever is left of its journal and of the stream."""

from __future__ import annotations

import numpy as np

from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.wire import channels, read_head
from tests.servers.redis_server import RedisServer, redis_server
from tests.streaming_service.sinks.redis_reading import closes, numbers, redis_sink, stream
from tests.waiting import until
from tests.wire.candles import BTC, candles

CHANNEL = channels.candles(BTC, Timeframe.M1)


def identities(server: RedisServer) -> list[tuple[int, int]]:
    return [(document["timestamp"], document["revision"]) for document in stream(server)]


async def test_candles_delivered_again_after_a_crash_are_found_to_be_there() -> None:
    """The service died after Redis had taken candles and before it could note so."""
    with redis_server() as server:
        async with redis_sink(server.url) as sink:
            await sink.write(candles(0, 20))
            await sink.flush()
        async with redis_sink(server.url) as sink:
            await sink.write(candles(12, 12))
            await sink.flush()
            assert (sink.state.counters.already_there, sink.state.counters.sent) == (8, 4)
            assert sink.state.counters.renumbered == 0
        assert closes(stream(server)) == [number + 100.5 for number in range(24)]


async def test_numbers_of_a_new_journal_go_on_behind_an_old_stream() -> None:
    """Without that, candles of the new journal would be taken for those of the old one with the same numbers."""
    with redis_server() as server:
        async with redis_sink(server.url) as sink:
            await sink.write(candles(0, 20))
            await sink.flush()
        for _ in range(2):  # the second time they are delivered again
            async with redis_sink(server.url) as sink:
                await sink.write(candles(20, 6).numbered(np.arange(1, 7)))
                await sink.flush()
            assert numbers(stream(server)) == list(range(1, 27))
            assert closes(stream(server)) == [number + 100.5 for number in range(26)]
        assert sink.state.counters.already_there == 6


async def test_a_revision_is_another_candle_than_the_one_it_revises() -> None:
    with redis_server() as server:
        async with redis_sink(server.url) as sink:
            await sink.write(candles(0, 3))
            await sink.flush()
        async with redis_sink(server.url) as sink:
            await sink.write(candles(2, revision=1).numbered(np.array([1])))
            await sink.flush()
            assert sink.state.counters.already_there == 0
        assert [revision for _, revision in identities(server)] == [0, 0, 0, 1]


async def test_after_a_restart_a_revision_of_an_earlier_candle_does_not_become_the_last_value() -> None:
    with redis_server() as server:
        async with redis_sink(server.url) as sink:
            await sink.write(candles(0, 3))
            await sink.flush()
        async with redis_sink(server.url) as sink:
            await sink.write(candles(0, revision=1).numbered(np.array([4])))
            await sink.flush()
        with server.client() as client:
            assert read_head(client.get(channels.last_candle(BTC, Timeframe.M1))).sequence == 3
        assert numbers(stream(server)) == [1, 2, 3, 4]


async def test_a_hole_left_by_candles_that_were_never_delivered_stays_visible() -> None:
    with redis_server() as server:
        async with redis_sink(server.url) as sink:
            await sink.write(candles(0, 3))
            await sink.write(candles(7, 2))
            await sink.flush()
        assert numbers(stream(server)) == [1, 2, 3, 8, 9]


async def test_an_empty_server_goes_on_with_the_numbers_of_the_journal() -> None:
    with redis_server() as server:
        async with redis_sink(server.url) as sink:
            await sink.write(candles(500, 3))
            await sink.flush()
        assert numbers(stream(server)) == [501, 502, 503]


async def test_a_stream_of_another_program_is_continued_not_broken() -> None:
    """Ids that Redis makes itself are milliseconds of the clock."""
    with redis_server() as server:
        server.command("XADD", CHANNEL, "*", "price", "1")
        with server.client() as client:
            ((ident, _),) = client.xrange(CHANNEL)
        async with redis_sink(server.url) as sink:
            await sink.write(candles(0, 2))
            await sink.flush()
        with server.client() as client:
            ids = [int(found.partition(b"-")[0]) for found, _ in client.xrange(CHANNEL)]
        end = int(ident.partition(b"-")[0])
        assert ids == [end, end + 1, end + 2]


async def test_a_second_writer_costs_no_candle_of_either() -> None:
    """It is a mistake to run two, and said so; but nothing may vanish."""
    with redis_server() as server:
        async with redis_sink(server.url) as one, redis_sink(server.url) as two:
            for number in range(10):
                await one.write(candles(number, close=1.0))
                await one.flush()
                await two.write(candles(100 + number, close=2.0).numbered(np.array([number + 1])))
                await two.flush()
            await until(lambda: len(stream(server)) == 20, "all candles")
            assert one.state.counters.renumbered + two.state.counters.renumbered > 0
        found = stream(server)
        assert sorted(closes(found)) == [1.0] * 10 + [2.0] * 10
        assert len(set(identities(server))) == 20


async def test_a_batch_delivered_twice_to_one_sink_is_in_the_stream_once() -> None:
    with redis_server() as server:
        async with redis_sink(server.url) as sink:
            for _ in range(2):
                await sink.write(candles(0, 5))
                await sink.flush()
            assert sink.state.counters.already_there == 5
        assert numbers(stream(server)) == [1, 2, 3, 4, 5]

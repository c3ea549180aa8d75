"""What the Redis sink is given comes to the stream, to the channel and to the last value, numbered and in order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from market_data_tick_handler.core.candle_batch import concat_candles
from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.errors import ConfigError
from market_data_tick_handler.testing import ticks
from market_data_tick_handler.wire import Encoding, channels, decode
from streaming_service.clock import SystemClock
from streaming_service.monitoring.metrics import METRICS, ServiceMetrics
from streaming_service.sink import Outlet
from streaming_service.sinks.redis import RedisSink
from streaming_service.sinks.redis.link import Command, Link, make_link
from streaming_service.sinks.redis.samples import redis_samples
from tests.servers.redis_server import redis_server
from tests.streaming_service.sinks.redis_reading import (
    closes,
    listener,
    numbers,
    options,
    redis_sink,
    stream,
)
from tests.waiting import until
from tests.wire.candles import BTC, ETH, candles, computed


class CountingLink:
    """A link that remembers what went out together."""

    def __init__(self, link: Link) -> None:
        self.together: list[Sequence[Command]] = []
        self._link = link

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)

    async def call_together(self, commands: Sequence[Command]) -> list[Any]:
        self.together.append(commands)
        return await self._link.call_together(commands)


CHANNEL = channels.candles(BTC, Timeframe.M1)
LAST = channels.last_candle(BTC, Timeframe.M1)


async def test_a_candle_is_appended_published_and_the_last_value_with_the_same_bytes() -> None:
    with redis_server() as server:
        async with listener(server.url, "candles:*") as heard, redis_sink(server.url) as sink:
            await sink.write(candles(0))
            await sink.flush()
            await until(lambda: bool(heard.heard), "the message")
        with server.client() as client:
            ((ident, fields),) = client.xrange(CHANNEL)
            assert (ident, list(fields)) == (b"1-0", [b"json"])
            assert client.get(LAST) == fields[b"json"]
        assert heard.heard == [(CHANNEL, decode(fields[b"json"]))]
        assert sink.state.counters.sent == 1


async def test_candles_come_in_order_each_series_with_numbers_of_its_own() -> None:
    with redis_server() as server:
        async with redis_sink(server.url) as sink:
            for number in range(30):
                await sink.write(candles(number))
                await sink.write(candles(number, key=ETH))
                if number % 5 == 0:
                    await sink.write(candles(number // 5, timeframe=Timeframe.M5))
            await sink.flush()
        for key in (BTC, ETH):
            found = stream(server, key)
            assert numbers(found) == list(range(1, 31))
            assert closes(found) == [number + 100.5 for number in range(30)]
        assert numbers(stream(server, BTC, Timeframe.M5)) == list(range(1, 7))
        assert sink.report()["buffered_rows"] == 0


async def test_what_one_turn_of_the_loop_gives_is_one_round_trip() -> None:
    with redis_server() as server:
        settings = options(server.url)
        link = CountingLink(make_link(settings.address, timeout_s=settings.timeout_s))
        sink = RedisSink(settings, clock=SystemClock(), link=link)
        await sink.open()
        await until(lambda: sink.state.connected, "a connection")
        for number in range(12):
            await sink.write(candles(number))
        await sink.aclose()
        assert [len(commands) for commands in link.together] == [3 * 12]
        assert numbers(stream(server)) == list(range(1, 13))


async def test_a_real_candle_with_all_columns_is_read_back_exactly() -> None:
    with redis_server() as server:
        batches = computed()
        async with redis_sink(server.url, columns=("all",)) as sink:
            for batch in batches:
                await sink.write(batch)
            await sink.flush()
        for timeframe in (Timeframe.S15, Timeframe.M1):
            whole = concat_candles([batch for batch in batches if batch.timeframe is timeframe])
            found = stream(server, whole.instrument.key, timeframe)
            assert numbers(found) == list(range(1, len(whole) + 1))
            for document, row in zip(found, whole.rows(), strict=True):
                assert {**document, **document["hft_features"]} | row == {**document, **document["hft_features"]}


async def test_a_stream_keeps_its_newest_entries_only() -> None:
    with redis_server(settings={"stream-node-max-entries": "1"}) as server:
        async with redis_sink(server.url, stream_length=10) as sink:
            for first in range(0, 40, 4):
                await sink.write(candles(first, 4))
            await sink.flush()
        assert numbers(stream(server)) == list(range(31, 41))


async def test_a_revision_of_an_earlier_candle_does_not_become_the_last_value() -> None:
    with redis_server() as server:
        async with redis_sink(server.url) as sink:
            await sink.write(candles(0, 3))
            await sink.write(candles(1, revision=1).numbered(np.array([4])))
            await sink.flush()
        assert [(document["sequence"], document["revision"]) for document in stream(server)] == [
            (1, 0),
            (2, 0),
            (3, 0),
            (4, 1),
        ]
        with server.client() as client:
            assert decode(client.get(LAST))["sequence"] == 3


async def test_msgpack_says_the_same_in_a_field_of_its_own_name() -> None:
    with redis_server() as server:
        async with redis_sink(server.url, encoding=Encoding.MSGPACK) as sink:
            await sink.write(candles(0))
            await sink.flush()
        with server.client() as client:
            ((_, fields),) = client.xrange(CHANNEL)
        assert list(fields) == [b"msgpack"]
        assert closes(stream(server)) == [100.5]


async def test_numbers_go_on_behind_the_stream_where_no_journal_gives_any() -> None:
    """Over a restart of the sink, and one of the server that kept its data."""
    with redis_server() as server:
        for run in range(3):
            async with redis_sink(server.url) as sink:
                await sink.write(candles(2 * run, 2, sequences=False))
                await sink.flush()
            server.restart(keep_data=True)
        assert numbers(stream(server)) == [1, 2, 3, 4, 5, 6]
        assert closes(stream(server)) == [number + 100.5 for number in range(6)]


async def test_ticks_and_empty_batches_are_none_of_its_business() -> None:
    sink = RedisSink(options("redis://127.0.0.1:1/0"), clock=SystemClock())
    await sink.write(Rows(BTC, ticks.trades([1.0])))
    await sink.write(candles(0).slice(0, 0))
    assert sink.state.counters.taken == 0


async def test_behind_an_outlet_every_row_is_counted_written_and_settled() -> None:
    with redis_server() as server:
        sink = RedisSink(options(server.url), clock=SystemClock())
        outlet = Outlet("redis", sink, clock=SystemClock(), capacity=4)
        running = asyncio.create_task(outlet.run())
        for number in range(50):
            await outlet.put(candles(number))
        outlet.close()
        await running
        assert (outlet.counters.written, outlet.counters.failed, outlet.unwritten_rows) == (50, 0, 0)
        assert numbers(stream(server)) == list(range(1, 51))


async def test_a_sink_can_be_opened_again_after_it_was_closed() -> None:
    with redis_server() as server:
        sink = RedisSink(options(server.url), clock=SystemClock())
        for number in range(2):
            await sink.open()
            await sink.write(candles(number))
            await sink.aclose()
        assert numbers(stream(server)) == [1, 2]


async def test_health_says_how_it_stands() -> None:
    with redis_server() as server:
        async with redis_sink(server.url) as sink:
            begin_s = time.monotonic()
            await sink.write(candles(0))
            await sink.flush()
            report = sink.report()
            assert sink.not_ready() == []
            taken_s = time.monotonic() - begin_s
        assert (report["connected"], report["sent"], report["trouble_s"]) == (True, 1, None)
        # Rounded to microseconds.
        assert 0 < report["round_trip_s"] <= taken_s + 1e-6


async def test_every_metric_of_redis_is_exported() -> None:
    with redis_server() as server:
        async with redis_sink(server.url) as sink:
            await sink.write(candles(0, 3))
            await sink.flush()
            page = ServiceMetrics([lambda: redis_samples(sink)]).render().decode()
    for metric in METRICS:
        assert not metric.name.startswith("redis_") or metric.exported_name in page, metric.name
    assert 'tick_handler_redis_candles_total{outcome="sent"} 3.0' in page
    assert "tick_handler_redis_connected 1.0" in page


@pytest.mark.parametrize(
    "url", ["http://x", "redis+cluster+x://a", "redis://a:port", "redis://a,b", "redis+sentinel://a:1", "redis://a?x=1"]
)
def test_an_address_that_is_none_is_refused_without_repeating_it(url: str) -> None:
    secret = url.replace("://", "://user:secret@")
    with pytest.raises(ConfigError, match="not an address of Redis") as caught:
        RedisSink(options(secret), clock=SystemClock())
    assert "secret" not in str(caught.value)


def test_an_unknown_column_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"serve\.columns"):
        RedisSink(options("redis://127.0.0.1", columns=("rsi_55",)), clock=SystemClock())

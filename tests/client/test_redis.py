"""Over a real Redis: the last candles, then the tail, each once and in order."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ConnectionError

from market_data_tick_handler.client import Candle, CandleGap, LiveFeatureStream, Origin
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.errors import ConfigError, MarketDataError, NotFound, SchemaMismatch, SourceError
from market_data_tick_handler.storage.candle_files import CandleWriter
from market_data_tick_handler.testing import ManualClock, ticks
from market_data_tick_handler.wire import Encoding, decode
from tests.client.made import CALM, CHANNEL, HASTY, closes, encoded, reader, shown, take
from tests.client.publisher import Publisher, calls, publisher
from tests.parity.streams import options, random_trades, replayed
from tests.servers.ports import HOST, free_port
from tests.servers.redis_server import RedisServer, redis_server
from tests.servers.sentinel import redis_sentinel
from tests.waiting import PATIENCE_S, until
from tests.wire.candles import BTC, ETH, candles

CALL = "DERIBIT:OPTION:BTC-USD-50000-241225-CALL"
PUT = "DERIBIT:OPTION:BTC-USD-40000-241225-PUT"
ETHER = "DERIBIT:OPTION:ETH-USD-3000-241225-CALL"


def live(server: RedisServer, symbol: Any = "BTC-USDT", **arguments: Any) -> LiveFeatureStream:
    return LiveFeatureStream(symbol, **{"exchange": "binance", "transport": server.url, "timing": HASTY, **arguments})


@pytest.fixture
async def world() -> Any:
    async with AsyncExitStack() as stack:
        server = stack.enter_context(redis_server())
        yield server, await stack.enter_async_context(publisher(server))


World = tuple[RedisServer, Publisher]


async def test_the_last_candles_come_first_then_every_further_one(world: World) -> None:
    server, publish = world
    await publish.publish(candles(0, 30))
    async with live(server, history=10, timing=CALM) as stream:
        history = await take(stream, 10)
        # What is published from now on is in no answer of the server any more.
        await until(lambda: calls(server, "xrange") == 1, "the stream was read to its end")
        assert shown(history) == list(range(21, 31))
        assert {candle.origin for candle in history if isinstance(candle, Candle)} == {Origin.STREAM}
        for index in range(30, 35):
            await publish.publish(candles(index))
        tail = await take(stream, 5)
        assert shown(tail) == list(range(31, 36))
        assert closes(history + tail) == [index + 100.5 for index in range(20, 35)]
        assert {candle.origin for candle in tail if isinstance(candle, Candle)} == {Origin.LIVE}
        stats = stream.stats
        assert (stats.delivered, stats.from_stream, stats.from_live, stats.gaps, stats.repeated) == (15, 10, 5, 0, 0)
        assert stats.positions == {CHANNEL: 35} and stats.connected


async def test_a_candle_is_what_the_wire_says_and_knows_what_it_is(world: World) -> None:
    server, publish = world
    batch = candles(0, 1, quality="PARTIAL")
    await publish.publish(batch)
    await publish.publish(candles(0, 1, revision=1, close=99.0), [2])
    async with live(server) as stream:
        first, second = await take(stream, 2)
    assert isinstance(first, Candle) and isinstance(second, Candle)
    assert first == decode(encoded(batch)[0])
    assert first["hft_features"]["rsi_5"] == first.features["rsi_5"] == 55.25
    assert (first.revision, first.is_revision, first.quality, first.is_final) == (0, False, "PARTIAL", True)
    assert (second.revision, second.is_revision, second["close"]) == (1, True, 99.0)
    assert second.timestamp == first.timestamp == ticks.START_US
    assert first.channel == CHANNEL and first.flat()["rsi_5"] == 55.25


async def test_lag_is_the_time_from_publication(world: World) -> None:
    server, publish = world
    batch = candles(0)
    clock = ManualClock(int(batch["timestamp_out"][0]) + 250_000)
    await publish.publish(candles(0, 2))
    async with LiveFeatureStream(BTC, transport=server.url, clock=clock) as stream:
        assert stream.lag_s is None
        (first,) = await take(stream, 1)
        assert isinstance(first, Candle) and first.lag_s == 0.25
        clock.move(100.0)
        # The other one waits.
        assert stream.lag_s == pytest.approx(40.25) and stream.stats.buffered == 1
        await take(stream, 1)
        assert stream.lag_s == stream.stats.lag_s == pytest.approx(40.25)


async def test_history_counts_candles_and_brings_their_revisions_besides(world: World) -> None:
    server, publish = world
    await publish.publish(candles(0, 10))
    await publish.publish(candles(8, 1, revision=1), [11])
    await publish.publish(candles(10, 2), [12, 13])
    async with live(server, history=5) as stream:
        assert shown(await take(stream, 6)) == [8, 9, 10, 11, 12, 13]


async def test_a_long_history_comes_in_pages(world: World) -> None:
    server, publish = world
    await publish.publish(candles(0, 900))
    async with live(server, history=700, buffer=50) as stream:
        assert shown(await take(stream, 700)) == list(range(201, 901))


async def test_no_history_means_what_is_published_from_now_on(world: World) -> None:
    server, publish = world
    await publish.publish(candles(0, 30))
    async with live(server, history=0) as stream:
        await until(lambda: calls(server, "xrevrange") == 1, "a look at where the stream ends")
        await publish.publish(candles(30, 2))
        assert shown(await take(stream, 2)) == [31, 32]


async def test_history_that_the_stream_lacks_comes_from_the_stored_candles(world: World, tmp_path: Path) -> None:
    server, publish = world
    writer = CandleWriter(tmp_path)
    writer.write(candles(0, 30, quality="COMPLETE"))
    writer.close()
    await publish.publish(candles(0, 30, quality="COMPLETE"))
    await publish.trim(10)
    async with live(server, history=25, store=tmp_path) as stream:
        items = await take(stream, 25)
    assert closes(items) == [index + 100.5 for index in range(5, 30)]
    assert [item.origin for item in items if isinstance(item, Candle)] == [Origin.STORE] * 15 + [Origin.STREAM] * 10
    first, last = items[0], items[-1]
    assert isinstance(first, Candle) and isinstance(last, Candle)
    assert first.sequence is None and first.keys() == last.keys() and first.features.keys() == last.features.keys()


async def test_who_comes_before_the_service_gets_everything_from_the_first_candle_on(world: World) -> None:
    server, publish = world
    async with live(server) as stream:
        await until(lambda: stream.stats.connected, "a connection")
        # The journal of the service is older than this Redis.
        await publish.publish(candles(4710, 3))
        assert shown(await take(stream, 3)) == [4711, 4712, 4713]


async def test_several_instruments_and_timeframes_come_in_one_stream_each_in_order(world: World) -> None:
    server, publish = world
    for key in (BTC, ETH):
        for timeframe in (Timeframe.M1, Timeframe.M5):
            await publish.publish(candles(0, 20, key=key, timeframe=timeframe))
    await publish.publish(candles(0, 20, timeframe=Timeframe.H1))
    async with live(server, ["BTC-USDT", "ETH-USDT"], timeframe=["1m", "5m"], history=20) as stream:
        items = await take(stream, 80)
        for key in (BTC, ETH):
            await publish.publish(candles(20, key=key, timeframe=Timeframe.M5))
        items += await take(stream, 2)
    by_channel: dict[str, list[int | None]] = {}
    for item in items:
        assert isinstance(item, Candle)
        by_channel.setdefault(item.channel, []).append(item.sequence)
    assert sorted(map(len, by_channel.values())) == [20, 20, 21, 21]
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in by_channel.values())


async def test_an_underlying_brings_its_options_those_listed_later_too(world: World) -> None:
    server, publish = world
    for key in (CALL, ETHER):
        await publish.publish(candles(0, 3, key=key))
    async with live(server, None, underlying="BTC", exchange="deribit", history=2) as stream:
        assert [item["instrument_id"] for item in await take(stream, 2)] == [CALL, CALL]
        # Its first candles are lost on the way, so that only the stream has them.
        await publish.publish(candles(0, 2, key=PUT), push=False)
        await publish.publish(candles(2, key=PUT))
        await publish.publish(candles(3, key=ETHER))
        await publish.publish(candles(3, key=CALL))
        items = await take(stream, 4)
        assert sorted((item["instrument_id"], item["sequence"]) for item in items) == [
            (PUT, 1), (PUT, 2), (PUT, 3), (CALL, 4)
        ]  # fmt: skip


async def test_candles_in_progress_come_if_asked_for_and_never_after_their_end(world: World) -> None:
    server, publish = world
    await publish.publish(candles(0, 2))
    async with live(server, include_open=True) as stream:
        await take(stream, 2)
        await publish.publish_open(candles(2, close=1.0))
        (current,) = await take(stream, 1)
        assert isinstance(current, Candle) and not current.is_final and current["close"] == 1.0
        await publish.publish(candles(2))
        await publish.publish_open(candles(2, close=2.0))
        await publish.publish_open(candles(3, close=3.0))
        final, following = await take(stream, 2)
        assert (final["is_final"], final["close"]) == (True, 102.5)
        assert (following["is_final"], following["close"]) == (False, 3.0)
        assert (stream.stats.open_candles, stream.stats.revisions) == (2, 0)


async def test_candles_in_progress_stay_away_unless_asked_for(world: World) -> None:
    server, publish = world
    async with live(server) as stream:
        await until(lambda: stream.stats.connected, "a connection")
        await publish.publish_open(candles(0))
        await publish.publish(candles(0))
        assert shown(await take(stream, 1)) == [1]


async def test_what_the_pipeline_publishes_arrives_as_it_is_revisions_included(world: World) -> None:
    server, publish = world
    _, published = replayed(random_trades(3), options())
    batches = {Timeframe(name): batch for name, batch in published.items()}
    expected = {}
    async with live(server, BTC, timeframe=list(batches), exchange=None) as stream:
        await until(lambda: stream.stats.connected, "a connection")
        for batch in batches.values():
            numbers = range(1, len(batch) + 1)
            await publish.publish(batch, numbers)
            for body in encoded(batch, numbers):
                document = decode(body)
                expected[document["timeframe"], document["sequence"]] = document
        items = await take(stream, len(expected))
    found = {(item["timeframe"], item["sequence"]): dict(item) for item in items if isinstance(item, Candle)}
    assert found == expected
    assert stream.stats.revisions == sum(document["revision"] > 0 for document in expected.values()) > 0


async def test_messages_may_be_msgpack() -> None:
    with redis_server() as server:
        async with publisher(server, encoding=Encoding.MSGPACK) as publish:
            await publish.publish(candles(0, 3))
            async with live(server) as stream:
                await take(stream, 3)
                await publish.publish(candles(3))
                (candle,) = await take(stream, 1)
                assert candle["hft_features"]["rsi_5"] == 55.25


async def test_a_server_that_speaks_tls() -> None:
    with redis_server(tls=True) as server:
        async with publisher(server) as publish:
            await publish.publish(candles(0, 3))
            async with live(server) as stream:
                assert shown(await take(stream, 3)) == [1, 2, 3]
        async with live(server, transport=server.url.partition("?")[0]) as stream:
            with pytest.raises(ConfigError, match="ssl_ca_certs"):
                await take(stream, 1)


async def test_a_reader_needs_few_rights_and_without_them_is_told_so() -> None:
    rights = "~candles:* ~marks:* &candles:* &marks:* +subscribe +psubscribe +ping +xrange +xrevrange +exists +scan"
    with redis_server(acl={"reader": f"on >secret {rights}", "nobody": "on >secret +ping"}) as server:
        async with publisher(server) as publish:
            await publish.publish(candles(0, 3))
            async with live(server, transport=server.url_as("reader", "secret")) as stream:
                assert shown(await take(stream, 3)) == [1, 2, 3]
                await publish.publish(candles(3))
                assert shown(await take(stream, 1)) == [4]
        for user, password in (("nobody", "secret"), ("reader", "wrong"), ("unknown", "secret")):
            async with live(server, transport=server.url_as(user, password)) as stream:
                with pytest.raises(ConfigError, match="was refused"):
                    await take(stream, 1)


def as_cluster() -> dict[str, str]:
    # By default its port would be 10,000 higher, which may be none.
    return {"cluster-enabled": "yes", "cluster-port": str(free_port())}


async def test_a_cluster() -> None:
    with redis_server(settings=as_cluster()) as server:
        server.command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        await until(lambda: "cluster_state:ok" in str(server.command("CLUSTER", "INFO")), "a cluster")
        async with publisher(server) as publish:
            for key in (BTC, ETH):
                await publish.publish(candles(0, 3, key=key))
            url = server.url.replace("redis://", "redis+cluster://")
            async with live(server, ["BTC-USDT", "ETH-USDT"], transport=url) as stream:
                assert len(await take(stream, 6)) == 6
                await publish.publish(candles(3))
                await publish.publish(candles(4), push=False)
                assert shown(await take(stream, 2)) == [4, 5]
            async with live(server, None, underlying="BTC", exchange=None, transport=url, history=0) as stream:
                await until(lambda: stream.stats.connected, "a connection")
                await publish.publish(candles(0, key=CALL))
                assert shown(await take(stream, 1)) == [1]


def is_master(server: RedisServer) -> bool:
    try:
        with server.client() as client:
            return bool(client.info("replication")["role"] == "master")
    except ConnectionError:
        # Who is made one ends its connections.
        return False


async def test_the_master_that_sentinels_name_and_the_one_after_it() -> None:
    with (
        redis_server() as old,
        redis_server(settings={"replicaof": f"{HOST} {old.port}"}) as new,
        redis_sentinel(old, name="candles") as sentinel,
    ):
        url = f"redis+sentinel://{HOST}:{sentinel.port}/candles/0"
        async with publisher(old) as publish, reader(live(old, transport=url)) as reads:
            await publish.publish(candles(0, 5))
            await reads.has(5)
            await until(lambda: new.command("XLEN", CHANNEL) == 5, "the replica has them")
            await asyncio.to_thread(sentinel.wait_for_replica)
            await asyncio.to_thread(old.kill)
            await until(lambda: is_master(new), "a new master")
            async with publisher(new) as after:
                await after.publish(candles(5, 5))
            await reads.has(10)
            assert reads.numbers == list(range(1, 11)) and reads.gaps == []


async def test_a_cluster_that_does_not_let_us_in_says_so() -> None:
    with redis_server(acl={"reader": "on >secret ~* &* +@all"}, settings=as_cluster()) as server:
        url = server.url_as("reader", "wrong").replace("redis://", "redis+cluster://")
        async with live(server, transport=url) as stream:
            with pytest.raises(ConfigError, match="was refused"):
                await take(stream, 1)


async def test_a_channel_that_nobody_publishes_on_is_an_error_where_others_are(world: World) -> None:
    server, publish = world
    await publish.publish(candles(0, key=ETH))
    async with live(server, timing=replace(HASTY, unknown_after_s=0.1)) as stream:
        with pytest.raises(NotFound, match=f"nobody publishes on {CHANNEL}; .*ETH-USDT:1m"):
            await take(stream, 1)


# On a clock of the test's own.
SLOW_TO_DOUBT = replace(HASTY, poll_s=1.0, timeout_s=10 * PATIENCE_S, unknown_after_s=PATIENCE_S)


async def looked(server: RedisServer, clock: ManualClock) -> None:
    """Let so much time pass that somebody looks once who publishes."""
    before = calls(server, "exists")

    def once_more() -> bool:
        clock.move(0.5)
        return calls(server, "exists") > before

    await until(once_more, "a look at who publishes")


async def test_a_channel_that_begins_a_little_later_than_others_is_no_error(world: World) -> None:
    """A service that begins, or gives an empty server its candles again, has one channel first."""
    server, publish = world
    clock = ManualClock()
    async with live(server, clock=clock, timing=SLOW_TO_DOUBT) as stream:
        waiting = asyncio.create_task(take(stream, 1))
        await until(lambda: stream.stats.connected, "a connection")
        await publish.publish(candles(0, key=ETH))
        await looked(server, clock)
        assert not waiting.done()
        await publish.publish(candles(0))
        assert shown(await waiting) == [1]


async def test_a_channel_without_a_candle_yet_is_none_while_its_instrument_is_alive(world: World) -> None:
    server, publish = world
    await publish.publish(candles(0, key=ETH))
    await publish.mark(0, ticks.START_US, timeframe=Timeframe.S15)
    clock = ManualClock()
    async with live(server, clock=clock, timing=SLOW_TO_DOUBT) as stream:
        waiting = asyncio.create_task(take(stream, 1))
        await until(lambda: stream.stats.connected, "a connection")
        for _ in range(4):
            await looked(server, clock)
        assert not waiting.done()
        await publish.publish(candles(0))
        assert shown(await waiting) == [1]


async def test_messages_of_a_later_version_end_the_stream_with_a_reason(world: World) -> None:
    server, publish = world
    body = encoded(candles(0))[0].replace(b'"v":1', b'"v":2')
    await publish.client.xadd(CHANNEL, {"json": body}, id="1-0")
    async with live(server) as stream:
        with pytest.raises(SchemaMismatch, match="expected version 1"):
            await take(stream, 1)


async def test_something_else_under_the_name_of_a_stream_is_an_error(world: World) -> None:
    server, publish = world
    await publish.client.set(CHANNEL, "something else")
    async with live(server) as stream:
        with pytest.raises(SourceError, match="WRONGTYPE"):
            await take(stream, 1)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"transport": "http://127.0.0.1"}, "expected redis://"),
        ({"transport": "redis://127.0.0.1:notaport"}, "not an address of Redis"),
        ({"transport": object()}, "got a object"),
        ({"policy": "newest"}, "drop_oldest"),
        ({"history": -1}, "history of 0 or more"),
        ({"buffer": 0}, "buffer of 1 or more"),
    ],
)
def test_arguments_that_make_no_sense_are_errors_at_once(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        LiveFeatureStream("BTC-USDT", exchange="binance", **{"transport": "redis://127.0.0.1", **arguments})


def test_an_address_in_an_error_does_not_show_its_password() -> None:
    with pytest.raises(ConfigError) as caught:
        LiveFeatureStream("BTC-USDT", exchange="binance", transport="rediss3://user:secret@host")
    assert "secret" not in str(caught.value)


async def test_a_stream_is_entered_before_it_is_read_and_not_twice() -> None:
    stream = LiveFeatureStream("BTC-USDT", exchange="binance", transport=f"redis://127.0.0.1:{free_port()}")
    with pytest.raises(MarketDataError, match="async with"):
        await anext(stream)
    async with stream:
        pass
    with pytest.raises(MarketDataError, match="make another"):
        await stream.__aenter__()


async def test_leaving_ends_the_iteration_of_whoever_still_reads(world: World) -> None:
    server, publish = world
    await publish.publish(candles(0, 3))
    async with reader(live(server)) as reads:
        await reads.has(3)
    assert reads.numbers == [1, 2, 3]

    async def nobody_listens() -> bool:
        return await publish.listeners() == 0

    await until(nobody_listens, "the server knows")


async def test_an_item_is_a_candle_or_a_gap_and_nothing_else(world: World) -> None:
    server, publish = world
    await publish.publish(candles(0, 2))
    await publish.publish(candles(4), [5])
    async with live(server) as stream:
        items = await take(stream, 4)
    assert [type(item) for item in items] == [Candle, Candle, CandleGap, Candle]

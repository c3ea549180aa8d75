"""Whatever happens to Redis or on the way from it, a subscriber gets each candle once and in order, or is told."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from market_data_tick_handler.client import Candle, CandleGap, ClientTiming, GapReason, LiveFeatureStream, Origin
from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.errors import SourceUnavailable
from market_data_tick_handler.storage.candle_files import CandleWriter
from market_data_tick_handler.testing import ManualClock
from tests.client.made import ALERT, CALM, CHANNEL, HASTY, closes, encoded, reader, shown, take
from tests.client.publisher import Publisher, calls, publisher
from tests.servers.ports import HOST, free_port
from tests.servers.redis_server import RedisServer, redis_server
from tests.servers.tcp_proxy import TcpProxy, tcp_proxy
from tests.streaming_service.sinks.redis_reading import redis_sink
from tests.waiting import PATIENCE_S, until
from tests.wire.candles import candles

World = tuple[RedisServer, TcpProxy, Publisher]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A server, a proxy that subscribers go through, and a publisher who does not."""
    async with AsyncExitStack() as stack:
        server = stack.enter_context(redis_server())
        proxy = await stack.enter_async_context(tcp_proxy(HOST, server.port))
        yield server, proxy, await stack.enter_async_context(publisher(server))


def live(port: int, **arguments: Any) -> LiveFeatureStream:
    settings = {"exchange": "binance", "transport": f"redis://{HOST}:{port}/0", "timing": HASTY, **arguments}
    return LiveFeatureStream("BTC-USDT", **settings)


def write(directory: Path, *batches: CandleBatch) -> None:
    """What the live service keeps of its candles."""
    writer = CandleWriter(directory)
    for batch in batches:
        writer.write(batch)
    writer.close()


def kept(first: int, count: int = 1, **columns: Any) -> CandleBatch:
    return candles(first, count, quality="COMPLETE", **columns)


async def restart_empty(server: RedisServer, publish: Publisher) -> None:
    """Redis dies, and comes back without its data."""
    await publish.client.connection_pool.disconnect()
    await asyncio.to_thread(lambda: server.restart(keep_data=False))


def looked_since(server: RedisServer, looks: int) -> bool:
    return calls(server, "ping") > looks


def has_received(stream: LiveFeatureStream, count: int) -> bool:
    return stream.stats.received >= count


async def connected(stream: LiveFeatureStream) -> None:
    await until(lambda: stream.stats.connected, "a connection")


async def test_messages_lost_on_the_way_are_read_from_the_stream(world: World) -> None:
    _, proxy, publish = world
    async with reader(live(proxy.port)) as reads:
        await connected(reads.stream)
        for index in range(60):
            if index % 7 == 3:
                proxy.drop_messages = 2
            await publish.publish(candles(index))
        await reads.has(60)
        assert reads.numbers == list(range(1, 61)) and reads.gaps == []
        assert closes(reads.items) == [index + 100.5 for index in range(60)]
        assert proxy.lost_messages >= 9 and reads.stream.stats.from_stream >= 9


async def test_a_lost_message_that_no_other_follows_is_noticed_by_the_watermark(world: World) -> None:
    _, proxy, publish = world
    async with reader(live(proxy.port, timing=CALM)) as reads:
        await connected(reads.stream)
        await publish.publish(candles(0))
        await reads.has(1)
        await publish.publish(candles(1), push=False)
        await publish.mark(2, int(candles(1)["timestamp"][0]))
        await reads.has(2)
        assert reads.numbers == [1, 2] and reads.gaps == []


async def test_a_lost_message_is_noticed_without_watermarks_too(world: World) -> None:
    _, proxy, publish = world
    async with reader(live(proxy.port)) as reads:
        await connected(reads.stream)
        proxy.drop_messages = -1
        for index in range(5):
            await publish.publish(candles(index))
        await reads.has(5)
        assert reads.numbers == [1, 2, 3, 4, 5] and proxy.lost_messages > 0


async def test_a_message_published_twice_is_given_once(world: World) -> None:
    _, proxy, publish = world
    async with reader(live(proxy.port)) as reads:
        await connected(reads.stream)
        for index in range(10):
            await publish.publish(candles(index))
            await publish.publish(candles(max(index - 1, 0), 2 if index else 1), keep=False)
        await reads.has(10)
        await until(lambda: reads.stream.stats.received == 29, "every repetition")
        assert reads.numbers == list(range(1, 11)) and reads.gaps == []
        assert reads.stream.stats.repeated >= 10


async def test_broken_connections_are_made_again(world: World) -> None:
    _, proxy, publish = world
    async with reader(live(proxy.port)) as reads:
        await connected(reads.stream)
        for index in range(100):
            await publish.publish(candles(index))
            if index % 20 == 10:
                await reads.has(index - 5)
                proxy.cut()
        await reads.has(100)
        assert reads.numbers == list(range(1, 101)) and reads.gaps == []
        assert reads.stream.stats.reconnects >= 3


async def test_a_way_that_swallows_every_answer_is_given_up_and_tried_again(world: World) -> None:
    _, proxy, publish = world
    async with reader(live(proxy.port, timing=ALERT)) as reads:
        await publish.publish(candles(0))
        await reads.has(1)
        proxy.drop_answers = True
        await publish.publish(candles(1, 3))
        await until(lambda: not reads.stream.stats.connected, "the silence is noticed")
        await publish.publish(candles(4))
        proxy.drop_answers = False
        await reads.has(5)
        assert reads.numbers == [1, 2, 3, 4, 5] and reads.gaps == []


async def test_a_server_that_hangs_for_a_while(world: World) -> None:
    server, proxy, publish = world
    async with reader(live(proxy.port, timing=ALERT)) as reads:
        await publish.publish(candles(0))
        await reads.has(1)
        server.freeze()
        await until(lambda: not reads.stream.stats.connected, "the silence is noticed")
        server.thaw()
        await publish.publish(candles(1, 2))
        await reads.has(3)
        assert reads.numbers == [1, 2, 3] and reads.gaps == []


async def test_a_killed_server_that_comes_back_with_its_data() -> None:
    with redis_server() as server:
        async with redis_sink(server.url) as sink, reader(live(server.port)) as reads:
            for index in range(200):
                await sink.write(candles(index))
                if index in (60, 120):
                    await until(lambda: bool(reads.numbers), "some candles")
                    await asyncio.to_thread(server.kill)
                if index in (90, 150):
                    await asyncio.to_thread(server.start)
                await asyncio.sleep(0)
            await reads.has(200)
            assert reads.numbers == list(range(1, 201)) and reads.gaps == []
            assert closes(reads.items) == [index + 100.5 for index in range(200)]


async def test_a_server_that_comes_back_empty_and_is_given_its_candles_again() -> None:
    with redis_server() as server:
        async with redis_sink(server.url) as sink, reader(live(server.port)) as reads:
            for index in range(40):
                await sink.write(candles(index))
            await reads.has(40)
            await asyncio.to_thread(lambda: server.restart(keep_data=False))
            for index in range(40, 60):
                await sink.write(candles(index))
            await reads.has(60)
            assert reads.numbers == list(range(1, 61)) and reads.gaps == []
            assert reads.stream.stats.renumbered == 0


async def test_a_server_that_comes_back_empty_to_a_service_that_knows_its_numbers(world: World) -> None:
    server, proxy, publish = world
    async with reader(live(proxy.port)) as reads:
        await publish.publish(candles(0, 10))
        await reads.has(10)
        await restart_empty(server, publish)
        # 11 and 12 were in the stream that is gone.
        await publish.publish(candles(12, 3))
        await reads.has(15)
        assert shown(reads.items) == [*range(1, 11), ("lost", 11, 12), 13, 14, 15]
        (gap,) = reads.gaps
        times = candles(10, 2)["timestamp"].tolist()
        assert (gap.from_timestamp, gap.to_timestamp, gap.missing) == (*times, 2)


async def test_numbers_that_begin_anew_while_we_listen_are_recognised(world: World, tmp_path: Path) -> None:
    server, proxy, publish = world
    write(tmp_path, kept(0, 20))
    async with reader(live(proxy.port, store=tmp_path)) as reads:
        await publish.publish(kept(0, 10))
        await reads.has(10)
        await restart_empty(server, publish)
        # Two candles are nowhere but in the store.
        await publish.publish(kept(12, 3), [1, 2, 3])
        await until(lambda: len(reads.items) == 16, "what followed")
        assert closes(reads.items) == [index + 100.5 for index in range(15)]
        assert shown(reads.items)[12:] == [("renumbered", 11, None), 1, 2, 3]
        await publish.publish(kept(15, 2), [4, 5])
        await until(lambda: len(reads.items) == 18, "and so on")
        assert closes(reads.items)[-2:] == [115.5, 116.5]
        assert reads.stream.stats.renumbered == 1


async def test_numbers_that_began_anew_while_we_were_away_are_recognised_although_they_are_higher(world: World) -> None:
    _, proxy, publish = world
    async with reader(live(proxy.port)) as reads:
        await publish.publish(candles(0, 5))
        await reads.has(5)
        proxy.refuse = True
        proxy.cut()
        await until(lambda: not reads.stream.stats.connected, "the break")
        await publish.client.flushall()
        await publish.publish(candles(5, 20), range(1, 21))
        proxy.refuse = False
        await reads.has(20)
        assert closes(reads.items) == [index + 100.5 for index in range(25)]
        assert [gap.reason for gap in reads.gaps] == [GapReason.RENUMBERED]


async def test_numbers_that_began_anew_are_noticed_by_the_watermark(world: World) -> None:
    _, proxy, publish = world
    async with reader(live(proxy.port, timing=CALM)) as reads:
        await publish.publish(candles(0, 5))
        await reads.has(5)
        await publish.client.flushall()
        await publish.publish(candles(5, 2), [1, 2], push=False)
        await publish.mark(2, int(candles(6)["timestamp"][0]))
        await until(lambda: len(reads.items) == 8, "the new numbers")
        assert closes(reads.items) == [index + 100.5 for index in range(7)]


async def test_numbers_that_began_anew_are_noticed_without_any_message(world: World) -> None:
    _, proxy, publish = world
    async with reader(live(proxy.port)) as reads:
        await publish.publish(candles(0, 5))
        await reads.has(5)
        await publish.client.flushall()
        await publish.publish(candles(5, 2), [1, 2], push=False)
        await until(lambda: len(reads.items) == 8, "the new numbers")
        assert closes(reads.items) == [index + 100.5 for index in range(7)]


async def test_a_candle_that_was_announced_and_never_found_is_a_gap(world: World) -> None:
    _, proxy, publish = world
    async with reader(live(proxy.port, timing=replace(HASTY, give_up_s=0.1))) as reads:
        await publish.publish(candles(0, 2))
        await reads.has(2)
        # Redis has lost all of it before it could be read, but one message had come.
        await publish.publish(candles(3), keep=False)
        await reads.has(4)
        assert shown(reads.items) == [1, 2, ("lost", 3, 3), 4]


async def test_a_broken_entry_is_a_gap_and_the_others_come(world: World) -> None:
    _, proxy, publish = world
    await publish.publish(candles(0, 2))
    await publish.client.xadd(CHANNEL, {"json": encoded(candles(2))[0][:50]}, id="3-0")
    await publish.publish(candles(3))
    async with live(proxy.port) as stream:
        assert shown(await take(stream, 4)) == [1, 2, ("unreadable", 3, 3), 4]
        await publish.client.publish(CHANNEL, b"{broken")
        await publish.publish(candles(4))
        assert shown(await take(stream, 1)) == [5]
        # The candle may have come from the stream, ahead of what was sent before it.
        await until(lambda: stream.stats.unreadable == 2, lambda: f"the broken message, came {stream.stats}")


async def test_who_stalls_while_the_stream_is_trimmed_is_served_from_the_store_and_told_of_the_rest(
    world: World, tmp_path: Path
) -> None:
    _, proxy, publish = world
    # The store has lost some, too.
    write(tmp_path, kept(0, 60), kept(80, 120))
    await publish.publish(kept(0, 5))
    async with live(proxy.port, history=5, buffer=10, store=tmp_path, timing=CALM) as stream:
        items = await take(stream, 5)
        for index in range(5, 200):
            await publish.publish(kept(index))
        await publish.trim(20)
        await until(lambda: stream.stats.received == 195, "what was published meanwhile")
        # Only what the buffer holds, and a few more, came before the stall.
        assert stream.stats.buffered == 10
        items += await take(stream, 176)
        found = shown(items)
        assert found[:60] == list(range(1, 61))
        assert found[60] == ("lost", 61, 80)
        assert found[61:] == list(range(81, 201))
        origins = [item.origin for item in items if isinstance(item, Candle)]
        assert origins.count(Origin.STORE) >= 130 and origins[-20:] == [Origin.STREAM] * 20
        await publish.publish(kept(200))
        assert shown(await take(stream, 1)) == [201]


async def test_who_stalls_and_has_no_store_gets_a_gap(world: World) -> None:
    server, proxy, publish = world
    async with live(proxy.port, buffer=10, timing=CALM) as stream:
        # From then on only what is pushed fills the buffer, and nothing of the stream is held besides.
        await until(lambda: calls(server, "xrange") == 1, "the stream was read to its end")
        await publish.publish(candles(0))
        await until(lambda: stream.stats.buffered == 1, "the channel has begun")
        for index in range(1, 200):
            await publish.publish(candles(index))
        await publish.trim(20)
        await until(lambda: stream.stats.received >= 200, "what was published meanwhile")
        items = await take(stream, 31)
        assert shown(items) == [*range(1, 11), ("lost", 11, 180), *range(181, 201)]
        gap = items[10]
        assert isinstance(gap, CandleGap)
        first, last = candles(10)["timestamp"][0], candles(179)["timestamp"][0]
        assert (gap.from_timestamp, gap.to_timestamp, gap.missing) == (first, last, 170)


async def test_who_stalls_with_block_gets_everything_that_the_stream_has(world: World) -> None:
    _, proxy, publish = world
    async with live(proxy.port, buffer=10) as stream:
        await connected(stream)
        for index in range(300):
            await publish.publish(candles(index))
        await until(lambda: stream.stats.received >= 300, "what was published meanwhile")
        assert shown(await take(stream, 300)) == list(range(1, 301))
        assert stream.stats.dropped == 0


async def test_who_is_slow_for_long_is_not_told_of_gaps_that_are_none(world: World) -> None:
    _, proxy, publish = world
    timing = ClientTiming(poll_s=0.01, give_up_s=0.0)
    async with live(proxy.port, buffer=10, timing=timing) as stream:
        await connected(stream)
        found: list[Any] = []
        for index in range(400):
            await publish.publish(candles(index))
            if index % 4 == 0:
                found += shown(await take(stream, 1))
        found += shown(await take(stream, 300))
        assert found == list(range(1, 401))


async def test_a_connection_on_which_nothing_happens_is_left_alone(world: World) -> None:
    server, proxy, _ = world
    clock = ManualClock()
    timing = ClientTiming(poll_s=1.0, timeout_s=PATIENCE_S)
    async with live(proxy.port, timing=timing, clock=clock) as stream:
        await connected(stream)
        # Looked at often enough, and for longer than it takes to give a silent connection up.
        for _ in range(2 * round(PATIENCE_S)):
            looks = calls(server, "ping")
            clock.move(1.0)
            await until(partial(looked_since, server, looks), "a look")
        assert stream.stats.connected and stream.stats.reconnects == 0 and stream.stats.last_error == ""


async def test_each_subscriber_has_the_policy_it_asked_for(world: World) -> None:
    _, proxy, publish = world
    async with AsyncExitStack() as stack:
        slow = {
            policy: await stack.enter_async_context(live(proxy.port, policy=policy, buffer=10))
            for policy in ("block", "drop_oldest", "latest")
        }
        quick = await stack.enter_async_context(reader(live(proxy.port, policy="drop_oldest")))
        for stream in slow.values():
            await connected(stream)
        await connected(quick.stream)
        for index in range(50):
            await publish.publish(candles(index))
        await quick.has(50)
        for stream in slow.values():
            await until(partial(has_received, stream, 50), "all messages")
        assert quick.numbers == list(range(1, 51)) and quick.gaps == []
        assert shown(await take(slow["block"], 50)) == list(range(1, 51))
        assert shown(await take(slow["drop_oldest"], 11)) == [("dropped", 1, 40), *range(41, 51)]
        assert shown(await take(slow["latest"], 1)) == [50]
        assert [stream.stats.dropped for stream in slow.values()] == [0, 40, 49]


async def test_drop_oldest_does_not_drop_the_history_that_a_new_subscriber_asked_for(world: World) -> None:
    _, proxy, publish = world
    await publish.publish(candles(0, 100))
    async with live(proxy.port, history=100, policy="drop_oldest", buffer=10) as stream:
        assert shown(await take(stream, 100)) == list(range(1, 101))


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster", "redis+sentinel"])
async def test_a_server_that_is_not_there_is_tried_for_as_long_as_one_is_told(scheme: str) -> None:
    port = free_port()
    address = f"{scheme}://{HOST}:{port}/{'candles' if 'sentinel' in scheme else '0'}"
    async with live(port, transport=address, retry_for_s=0.2) as stream:
        with pytest.raises(SourceUnavailable, match=r"no connection for 0\.2 s, which is all that retry_for_s allows"):
            await take(stream, 1)
    assert stream.stats.last_error


async def test_a_server_that_comes_later_is_found() -> None:
    port = free_port()
    async with reader(live(port)) as reads:
        await until(lambda: bool(reads.stream.stats.last_error), "a failure")
        with redis_server(port=port) as server:
            async with publisher(server) as publish:
                await publish.publish(candles(0, 3))
                await reads.has(3)
                assert reads.numbers == [1, 2, 3]


def strike(proxy: TcpProxy, chance: random.Random) -> None:
    """One of the things that happen to networks."""
    match chance.randrange(4):
        case 0:
            proxy.cut()
        case 1:
            proxy.drop_messages = chance.randrange(1, 5)
        case 2:
            proxy.delay_s = chance.choice([0.0, 0.0, 0.002])
        case _:
            proxy.refuse = not proxy.refuse


@pytest.mark.parametrize("seed", range(4))
async def test_under_any_misfortune_every_subscriber_ends_with_exactly_the_candles(world: World, seed: int) -> None:
    _, proxy, publish = world
    chance = random.Random(seed)
    async with AsyncExitStack() as stack:
        readers = [
            await stack.enter_async_context(reader(live(proxy.port, buffer=chance.choice([3, 50, 1_000]))))
            for _ in range(3)
        ]
        for each in readers:
            await connected(each.stream)
        for index in range(300):
            await publish.publish(candles(index))
            if chance.random() < 0.1:
                strike(proxy, chance)
                if not proxy.refuse and chance.random() < 0.5:
                    await chance.choice(readers).has(index + 1)
        proxy.refuse, proxy.drop_messages, proxy.delay_s = False, 0, 0.0
        for each in readers:
            await each.has(300)
            assert each.gaps == []
            assert each.numbers == list(range(1, 301))

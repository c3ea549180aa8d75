"""Whatever happens to Redis or on the way to it, the stream ends with exactly the candles, in order."""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import replace
from functools import partial

import pytest

from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.errors import SinkBusy, SinkRejected
from market_data_tick_handler.wire import channels
from streaming_service.clock import SystemClock
from streaming_service.sink import FullPolicy, Outlet
from streaming_service.sinks.redis import RedisSink
from tests.servers.ports import HOST, free_port
from tests.servers.redis_server import RedisServer, redis_server
from tests.servers.tcp_proxy import TcpProxy, tcp_proxy
from tests.streaming_service.sinks.redis_reading import (
    closes,
    listener,
    numbers,
    options,
    redis_sink,
    stream,
    without_repetitions,
)
from tests.waiting import until
from tests.wire.candles import BTC, ETH, candles

CHANNEL = channels.candles(BTC, Timeframe.M1)


def settled(sink: RedisSink, count: int) -> bool:
    counters = sink.state.counters
    return counters.sent + counters.already_there == count


def has_buffered(sink: RedisSink, count: int) -> bool:
    return bool(sink.report()["buffered_rows"] == count)


def assert_exactly(server: RedisServer, count: int, key: str = BTC) -> None:
    """The stream has candles 0 to count-1, each once, in order."""
    found = stream(server, key)
    assert numbers(found) == list(range(1, count + 1))
    assert closes(found) == [number + 100.5 for number in range(count)]


async def test_candles_wait_for_a_server_that_comes_later() -> None:
    port = free_port()
    async with redis_sink(f"redis://{HOST}:{port}/0") as sink:
        for number in range(20):
            await sink.write(candles(number))
        await until(lambda: sink.state.counters.failures >= 3, "some failures")
        assert sink.report()["buffered_rows"] == 20 and not sink.state.connected
        with pytest.raises(SinkBusy, match="20 candles wait"):
            await sink.flush()
        with redis_server(port=port) as server:
            await until(lambda: settled(sink, 20), "delivery")
            await sink.flush()
            assert_exactly(server, 20)


async def test_a_server_killed_in_the_middle_and_started_again_has_every_candle_once() -> None:
    with redis_server() as server:
        async with listener(server.url, "candles:*") as heard, redis_sink(server.url) as sink:
            for number in range(300):
                await sink.write(candles(number))
                if number in (100, 200):
                    await until(partial(settled, sink, number + 1), "delivery")
                    await asyncio.to_thread(server.kill)
                if number in (150, 250):
                    await asyncio.to_thread(server.start)
                await asyncio.sleep(0)
            await until(lambda: settled(sink, 300), "delivery")
            # Whoever listens misses what was published while it was away, and reads that from the stream.
            taken = without_repetitions(heard.documents(CHANNEL))
            assert taken == sorted(taken)
        assert_exactly(server, 300)
        counters = sink.state.counters
        assert (counters.taken, counters.rejected, counters.renumbered) == (300, 0, 0)
        # A server that still reads its data is left again, so there may be more than one per start; none without cause.
        assert 3 <= counters.connects <= counters.failures + 1


async def test_a_server_that_comes_back_empty_gets_what_the_sink_remembers() -> None:
    with redis_server() as server:
        async with redis_sink(server.url) as sink:
            await sink.write(candles(0, 40))
            await sink.write(candles(0, 40, key=ETH))
            await sink.flush()
            await asyncio.to_thread(lambda: server.restart(keep_data=False))
            await sink.write(candles(40, 10))
            await until(lambda: settled(sink, 90), "delivery")
            assert_exactly(server, 50)
            # Nothing new came for this one: the first look at the empty server was enough.
            await until(lambda: sink.state.counters.refilled >= 80, "the refill")
            assert_exactly(server, 40, ETH)
            assert sink.state.counters.lost_by_redis == 0


async def test_what_the_sink_does_not_remember_is_counted_as_lost_by_redis() -> None:
    with redis_server() as server:
        async with redis_sink(server.url, keep_bytes=0) as sink:
            await sink.write(candles(0, 10))
            await sink.flush()
            server.command("XTRIM", CHANNEL, "MAXLEN", 0)
            server.command("XSETID", CHANNEL, "4-0")
            await asyncio.to_thread(server.restart)
            await until(lambda: sink.state.counters.connects >= 2, "another connection")
            await sink.write(candles(10))
            await until(lambda: settled(sink, 11), "delivery")
            assert sink.state.counters.lost_by_redis == 6
        assert numbers(stream(server)) == [11]


async def test_a_lost_acknowledgement_leaves_no_second_entry() -> None:
    with redis_server() as server:
        # No marks: their answers would be the first to get lost.
        url = "redis://127.0.0.1:{}/0"
        async with (
            tcp_proxy(HOST, server.port) as proxy,
            redis_sink(url.format(proxy.port), mark_interval_s=60, timeout_s=0.3) as sink,
        ):
            # No flush, which would tell of a round trip that took too long because the machine stood still.
            await sink.write(candles(0))
            await until(lambda: settled(sink, 1), "delivery")
            before = replace(sink.state.counters)
            proxy.drop_answers = True
            await sink.write(candles(1, 5))
            await until(lambda: len(stream(server)) == 6, "the candles, of which the sink knows nothing")
            await until(lambda: sink.state.counters.failures > before.failures, "the time-out")
            proxy.drop_answers = False
            await until(lambda: settled(sink, 6), "delivery")
            assert sink.state.counters.already_there == before.already_there + 5
            assert_exactly(server, 6)
            await sink.write(candles(6))
            await until(lambda: settled(sink, 7), "delivery")
        assert_exactly(server, 7)


@pytest.mark.parametrize("seed", range(4))
async def test_connections_cut_at_any_byte_cost_no_candle(seed: int) -> None:
    """Requests are cut in the middle of a turn again and again; answers get lost with them."""
    chance = random.Random(seed)
    with redis_server() as server:
        async with tcp_proxy(HOST, server.port) as proxy, redis_sink(f"redis://{HOST}:{proxy.port}/0") as sink:
            written = 0
            while written < 200:
                count = chance.randrange(1, 12)
                await sink.write(candles(written, count))
                await sink.write(candles(written, count, key=ETH))
                written += count
                if chance.random() < 0.4:
                    misbehave(proxy, chance)
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0)
            proxy.cut_after_requests = None
            await until(lambda: settled(sink, 2 * written), "delivery")
        for key in (BTC, ETH):
            assert_exactly(server, written, key)
        assert sink.state.counters.renumbered == 0


def misbehave(proxy: TcpProxy, chance: random.Random) -> None:
    if chance.random() < 0.5:
        proxy.cut()
    else:
        proxy.cut_after_requests = chance.randrange(1, 6_000)


async def test_a_frozen_server_is_left_and_found_again() -> None:
    with redis_server() as server:
        # A machine that stands still makes for time-outs too, so there is no flush, which would tell of them.
        async with redis_sink(server.url, timeout_s=0.3) as sink:
            await sink.write(candles(0))
            await until(lambda: settled(sink, 1), "delivery")
            server.freeze()
            failures = sink.state.counters.failures
            await sink.write(candles(1, 20))
            await until(lambda: sink.state.counters.failures >= failures + 2, "time-outs")
            assert "TimeoutError" in sink.state.last_error
            server.thaw()
            await until(lambda: settled(sink, 21), "delivery")
        assert_exactly(server, 21)


async def test_a_slow_server_makes_turns_larger_and_loses_nothing() -> None:
    with redis_server() as server:
        async with tcp_proxy(HOST, server.port) as proxy, redis_sink(f"redis://{HOST}:{proxy.port}/0") as sink:
            proxy.delay_s = 0.05
            for number in range(100):
                await sink.write(candles(number))
                await asyncio.sleep(0)
            await until(lambda: settled(sink, 100), "delivery")
            assert sink.state.round_trip_s >= 0.05
            assert sink.state.counters.failures == 0
        assert_exactly(server, 100)


async def test_a_server_out_of_memory_is_asked_again_until_it_has_some() -> None:
    with redis_server() as server:
        async with listener(server.url, "candles:*") as heard, redis_sink(server.url) as sink:
            await sink.write(candles(0))
            await sink.flush()
            server.command("CONFIG", "SET", "maxmemory", "1")
            await sink.write(candles(1, 30))
            await until(lambda: sink.state.counters.failures >= 3, "refusals")
            assert "OutOfMemory" in sink.state.last_error and sink.state.connected
            assert sink.report()["buffered_rows"] == 30
            server.command("CONFIG", "SET", "maxmemory", "0")
            await until(lambda: settled(sink, 31), "delivery")
            assert sink.state.counters.connects == 1
            await until(lambda: without_repetitions(heard.documents(CHANNEL)) == list(range(1, 32)), "the messages")
            assert len(heard.heard) == 31
        assert_exactly(server, 31)


async def test_a_user_without_rights_is_told_and_delivers_once_it_has_them() -> None:
    rights = "on >secret ~candles:* ~candle:last:* ~marks:* &candles:* &marks:* +@all"
    with redis_server(acl={"writer": f"{rights} -xadd"}) as server:
        async with redis_sink(server.url_as("writer", "secret")) as sink:
            await sink.write(candles(0))
            await sink.write(candles(1, 2))
            await until(lambda: sink.state.counters.failures >= 2, "refusals")
            assert "NoPermission" in sink.state.last_error
            server.command("ACL", "SETUSER", "writer", "+xadd")
            await until(lambda: settled(sink, 3), "delivery")
        assert_exactly(server, 3)


async def test_a_wrong_password_is_told_and_right_again_once_it_is_set() -> None:
    with redis_server(acl={"writer": "on >other ~* &* +@all"}) as server:
        async with redis_sink(server.url_as("writer", "secret")) as sink:
            await sink.write(candles(0))
            await until(lambda: sink.state.counters.failures >= 2, "refusals")
            assert "Authentication" in sink.state.last_error and "secret" not in sink.state.last_error
            server.command("ACL", "SETUSER", "writer", ">secret")
            await until(lambda: settled(sink, 1), "delivery")
        assert_exactly(server, 1)


async def test_a_server_that_became_a_replica_is_asked_again_until_it_is_master() -> None:
    with redis_server() as server, redis_server() as other:
        async with redis_sink(server.url) as sink:
            await sink.write(candles(0))
            await sink.flush()
            server.command("CONFIG", "SET", "replica-read-only", "yes")
            other.command("XADD", CHANNEL, "1-0", "json", other_message(server))
            server.command("REPLICAOF", HOST, str(other.port))
            await until(lambda: is_replica(server), "the replica, which has what the other has")
            await sink.write(candles(1, 5))
            await until(lambda: "ReadOnly" in sink.state.last_error or "LOADING" in sink.state.last_error, "refusals")
            server.command("REPLICAOF", "NO", "ONE")
            await until(lambda: settled(sink, 6), "delivery")
        assert_exactly(server, 6)


def other_message(server: RedisServer) -> bytes:
    with server.client() as client:
        ((_, fields),) = client.xrange(CHANNEL)
    return bytes(fields[b"json"])


def is_replica(server: RedisServer) -> bool:
    role = server.command("ROLE")
    assert isinstance(role, list)
    return bool(role[0] == b"slave" and role[3] == b"connected")


async def test_a_full_buffer_refuses_whole_batches_and_keeps_what_it_has() -> None:
    port = free_port()
    async with redis_sink(f"redis://{HOST}:{port}/0", buffer_rows=10) as sink:
        await sink.write(candles(0, 8))
        with pytest.raises(SinkBusy, match="8 candles wait"):
            await sink.write(candles(8, 3))
        await sink.write(candles(8, 2))
        with pytest.raises(SinkBusy):
            await sink.write(candles(10))
        assert sink.state.counters.refused_full == 4
        assert "redis: the buffer is full" in sink.not_ready()
        with redis_server(port=port) as server:
            await until(lambda: settled(sink, 10), "delivery")
            # The marks that follow the candles end the trouble, in which a flush is refused.
            await until(lambda: sink.state.trouble_since_s is None, "the end of the trouble")
            await sink.write(candles(10))
            await sink.flush()
            assert sink.not_ready() == []
            assert_exactly(server, 11)


async def test_the_buffer_is_bounded_in_bytes_too_but_takes_one_batch_of_any_size() -> None:
    async with redis_sink(f"redis://{HOST}:{free_port()}/0", buffer_bytes=2_000, close_timeout_s=0.01) as sink:
        await sink.write(candles(0, 100))
        assert sink.report()["buffered_bytes"] > 2_000
        with pytest.raises(SinkBusy):
            await sink.write(candles(100))


async def test_an_outlet_counts_what_overflows_and_the_numbers_show_the_hole() -> None:
    port = free_port()
    sink = RedisSink(options(f"redis://{HOST}:{port}/0", buffer_rows=5), clock=SystemClock())
    # Nothing is given up: how often it asks until the server is there goes by the machine.
    outlet = Outlet("redis", sink, clock=SystemClock(), capacity=3, policy=FullPolicy.DROP_OLDEST, busy_attempts=1_000)
    running = asyncio.create_task(outlet.run())
    for number in range(20):
        await outlet.put(candles(number))
        await until(partial(has_buffered, sink, min(number + 1, 5)), "the first ones in the buffer")
    await until(lambda: outlet.counters.retries > 0, "a full buffer")
    with redis_server(port=port) as server:
        outlet.close()
        await running
        counters = outlet.counters
        found = numbers(stream(server))
        assert counters.dropped > 0 and counters.failed == 0
        assert counters.put == 20 == counters.written + counters.dropped
        assert len(found) == counters.written and found == sorted(found)
        assert found[:5] == [1, 2, 3, 4, 5] and found[-1] == 20


async def test_what_cannot_be_delivered_before_the_end_is_reported() -> None:
    sink = RedisSink(options(f"redis://{HOST}:{free_port()}/0", close_timeout_s=0.05), clock=SystemClock())
    await sink.open()
    await sink.write(candles(0, 7))
    with pytest.raises(SinkRejected, match="7 candles were not delivered") as caught:
        await sink.aclose()
    assert len(caught.value.rows) == 7


async def test_a_key_of_another_kind_costs_its_series_only() -> None:
    with redis_server() as server:
        server.command("SET", channels.candles(BTC, Timeframe.M1), "not a stream")
        async with redis_sink(server.url) as sink:
            await sink.write(candles(0, 3))
            await sink.write(candles(0, 3, key=ETH))
            await until(lambda: sink.state.counters.rejected == 3, "the refusal")
            with pytest.raises(SinkRejected, match=r"refused 3 candles: .*WRONGTYPE"):
                await sink.flush()
            await sink.flush()
        assert_exactly(server, 3, ETH)


async def test_readiness_tells_of_an_outage_that_lasts_and_of_its_end(caplog: pytest.LogCaptureFixture) -> None:
    clock, port = HeldClock(), free_port()
    with caplog.at_level(logging.INFO):
        async with redis_sink(f"redis://{HOST}:{port}/0", clock=clock) as sink:
            await until(lambda: sink.state.trouble_since_s is not None, "a failure")
            assert sink.not_ready() == []
            clock.held_s += 12.0
            (reason,) = sink.not_ready()
            assert reason.startswith("redis: nothing delivered for 12 s")
            with redis_server(port=port):
                await until(lambda: sink.state.trouble_since_s is None, "its end")
                assert sink.not_ready() == []
    said = [record.message for record in caplog.records if record.name.startswith("streaming_service.sinks.redis")]
    assert said == ["redis takes no candles", "redis takes candles again"]


async def test_a_defect_in_a_task_is_not_hidden() -> None:
    sink = RedisSink(options(f"redis://{HOST}:{free_port()}/0"), clock=BrokenClock())
    await sink.open()
    await asyncio.sleep(0)
    with pytest.raises(ZeroDivisionError):
        await sink.write(candles(0))
    await sink.aclose()


class HeldClock(SystemClock):
    """Time passes when the test says so; pauses are real."""

    __slots__ = ("held_s",)

    def __init__(self) -> None:
        self.held_s = 100.0

    def monotonic_s(self) -> float:
        return self.held_s


class BrokenClock(SystemClock):
    """A clock with a defect."""

    async def sleep(self, seconds: float) -> None:
        raise ZeroDivisionError

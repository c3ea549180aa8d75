"""The same candles over TLS, as a user with few rights, to a cluster, and to the master that sentinels name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.wire import channels
from market_data_tick_handler.wire.redis_urls import RedisMode, parse_redis_url
from tests.servers.ports import HOST, free_port
from tests.servers.redis_server import RedisServer, redis_server
from tests.servers.sentinel import RedisSentinel, redis_sentinel
from tests.streaming_service.sinks.redis_reading import (
    closes,
    listener,
    numbers,
    redis_sink,
    stream,
)
from tests.waiting import until, wait_until
from tests.wire.candles import BTC, ETH, candles

CHANNEL = channels.candles(BTC, Timeframe.M1)
RIGHTS = (
    "on >secret ~candles:* ~candle:last:* ~marks:* &candles:* &marks:* -@all "
    "+xadd +xinfo +xrange +xrevrange +publish +set +multi +exec +ping"
)

# A server that stood still for less is a whole member of its cluster: without its link, messages would be lost.
NODE_TIMEOUT_MS = 30_000
# Longer than any test: a sentinel is to move when the master is gone, not when the machine stands still.
NEVER_MS = 600_000
SOON_MS = 300


async def test_over_tls_candles_are_delivered_to_a_server_that_the_authority_signed() -> None:
    with redis_server(tls=True) as server:
        assert server.tls is not None
        bare = f"rediss://{HOST}:{server.port}/0"
        async with redis_sink(bare, close_timeout_s=0.01) as stranger, redis_sink(server.url) as sink:
            await stranger.write(candles(0))
            await until(lambda: "certificate" in stranger.state.last_error.lower(), "a refusal")
            await sink.write(candles(0, 5))
            await sink.flush()
        assert numbers(stream(server)) == [1, 2, 3, 4, 5]
        address = parse_redis_url(bare, ca_file=str(server.tls.ca))
        async with redis_sink(address.server_url) as sink:
            await sink.write(candles(5))
            await sink.flush()


async def test_the_documented_rights_are_enough() -> None:
    with redis_server(acl={"writer": RIGHTS}) as server:
        async with listener(server.url, "candles:*") as heard, redis_sink(server.url_as("writer", "secret")) as sink:
            await sink.write(candles(0, 2))
            await sink.flush()
            sink.write_open(candles(2))
            await until(lambda: len(heard.heard) == 3, "the messages")
            assert sink.state.counters.failures == 0
        # Delivered again: the sink looks for them, with the same rights.
        async with redis_sink(server.url_as("writer", "secret")) as sink:
            await sink.write(candles(0, 3))
            await sink.flush()
            assert sink.state.counters.already_there == 2


async def test_over_tls_as_a_user_after_a_restart() -> None:
    with redis_server(tls=True, acl={"writer": RIGHTS}) as server:
        async with redis_sink(server.url_as("writer", "secret")) as sink:
            await sink.write(candles(0, 2))
            await sink.flush()
            server.restart(keep_data=True)
            await sink.write(candles(2, 2))
            await until(lambda: sink.state.counters.sent + sink.state.counters.already_there == 4, "delivery")
        assert numbers(stream(server)) == [1, 2, 3, 4]


@contextmanager
def cluster(count: int = 3) -> Iterator[list[RedisServer]]:
    """Masters that share the slots between them."""
    with ExitStack() as stack:
        settings = {"cluster-enabled": "yes", "cluster-node-timeout": str(NODE_TIMEOUT_MS)}
        # The default, 10,000 above the other port, is not always there.
        ports = [free_port() for _ in range(count)]
        servers = [
            stack.enter_context(redis_server(settings={**settings, "cluster-port": str(port)})) for port in ports
        ]
        step = 16_384 // count
        for place, server in enumerate(servers):
            last = 16_383 if place == count - 1 else (place + 1) * step - 1
            server.command("CLUSTER", "ADDSLOTSRANGE", place * step, last)
            server.command("CLUSTER", "SET-CONFIG-EPOCH", place + 1)
        for server, port in zip(servers[1:], ports[1:], strict=True):
            servers[0].command("CLUSTER", "MEET", HOST, server.port, port)
        wait_until(lambda: all(is_whole(server, count) for server in servers), "a whole cluster")
        yield servers


def is_whole(server: RedisServer, count: int) -> bool:
    info = server.command("CLUSTER", "INFO")
    assert isinstance(info, bytes)
    return b"cluster_state:ok" in info and b"cluster_known_nodes:%d" % count in info


def cluster_stream(server: RedisServer, key: str) -> list[float]:
    with redis.RedisCluster(host=HOST, port=server.port) as client:
        entries = client.xrange(channels.candles(key, Timeframe.M1))
    return [int(ident.partition(b"-")[0]) for ident, _ in entries]


async def test_a_cluster_gets_each_series_on_the_server_of_its_slot() -> None:
    with cluster() as servers:
        keys = [BTC, ETH, "BINANCE:SPOT_PAIR:SOL-USDT", "BINANCE:SPOT_PAIR:XRP-USDT"]
        url = f"redis+cluster://{HOST}:{servers[1].port},{HOST}:{servers[2].port}"
        async with listener(servers[0].url, "candles:*") as heard, redis_sink(url) as sink:
            for number in range(10):
                for key in keys:
                    await sink.write(candles(number, key=key))
            await sink.write(candles(10, 5))
            await sink.flush()
            await until(lambda: len(heard.heard) == 45, "messages, which every server passes on")
            assert sink.state.counters.sent == 45
        assert cluster_stream(servers[0], BTC) == list(range(1, 16))
        for key in keys[1:]:
            assert cluster_stream(servers[0], key) == list(range(1, 11))


async def test_a_cluster_server_that_was_away_gets_what_waited() -> None:
    with cluster() as servers:
        url = f"redis+cluster://{HOST}:{servers[0].port},{HOST}:{servers[1].port}"
        async with redis_sink(url) as sink:
            for key in (BTC, ETH):
                await sink.write(candles(0, 3, key=key))
            await sink.flush()
            for server in servers:
                server.kill()
            for key in (BTC, ETH):
                await sink.write(candles(3, 3, key=key))
            await until(lambda: sink.state.counters.failures >= 2, "failures")
            for server in servers:
                server.start()
            await until(lambda: sink.state.counters.sent + sink.state.counters.already_there == 12, "delivery")
        for key in (BTC, ETH):
            assert cluster_stream(servers[0], key) == [1, 2, 3, 4, 5, 6]


def set_down_after(sentinel: RedisSentinel, milliseconds: int) -> None:
    """How long the master may say nothing."""
    with redis.Redis(port=sentinel.port, retry=Retry(NoBackoff(), 0)) as client:
        client.execute_command("SENTINEL", "SET", "candles", "down-after-milliseconds", milliseconds)


async def test_after_a_failover_candles_go_to_the_new_master() -> None:
    with redis_server() as old, redis_server() as new:
        new.command("REPLICAOF", HOST, str(old.port))
        with redis_sentinel(old, name="candles") as sentinel:
            set_down_after(sentinel, NEVER_MS)
            url = f"redis+sentinel://{HOST}:{sentinel.port}/candles/0"
            async with redis_sink(url) as sink:
                await sink.write(candles(0, 5))
                await sink.flush()
                wait_until(lambda: len(stream(new)) == 5, "the replica has them")
                sentinel.wait_for_replica()
                old.kill()
                set_down_after(sentinel, SOON_MS)
                await sink.write(candles(5, 5))
                await until(lambda: sink.state.counters.sent + sink.state.counters.already_there == 10, "delivery")
            assert numbers(stream(new)) == list(range(1, 11))
            assert closes(stream(new)) == [number + 100.5 for number in range(10)]


@pytest.mark.parametrize(
    ("url", "mode", "hosts", "service", "server_url"),
    [
        ("redis://h", RedisMode.SINGLE, (("h", 6379),), "", "redis://h:6379"),
        ("rediss://u:p@h:1/2", RedisMode.SINGLE, (("h", 1),), "", "rediss://u:p@h:1/2"),
        ("redis://[::1]:7/0", RedisMode.SINGLE, (("::1", 7),), "", "redis://[::1]:7/0"),
        ("redis+cluster://a:1,b", RedisMode.CLUSTER, (("a", 1), ("b", 6379)), "", "redis://a:1"),
        (
            "rediss+sentinel://u:p@a,b:5/desk/3?ssl_check_hostname=false",
            RedisMode.SENTINEL,
            (("a", 26379), ("b", 5)),
            "desk",
            "rediss://u:p@a:26379/3?ssl_check_hostname=false",
        ),
    ],
)
def test_addresses_are_taken_apart(
    url: str, mode: RedisMode, hosts: tuple[tuple[str, int], ...], service: str, server_url: str
) -> None:
    address = parse_redis_url(url)
    assert (address.mode, address.hosts, address.service, address.server_url) == (mode, hosts, service, server_url)
    assert ":p@" not in repr(address)


def test_the_authority_of_the_settings_is_used_unless_the_address_names_one() -> None:
    assert "ssl_ca_certs=%2Fa%20b%2Fca.pem" in parse_redis_url("rediss://h", ca_file="/a b/ca.pem").server_url
    assert "other.pem" in parse_redis_url("rediss://h?ssl_ca_certs=other.pem", ca_file="ca.pem").server_url
    assert parse_redis_url("redis://h", ca_file="ca.pem").server_url == "redis://h:6379"

"""Subscribers that take nothing for a while: each gets what its policy promises, and nobody else notices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

from market_data_tick_handler.client import Candle, CandleGap, ClientTiming, GapReason, LiveFeatureStream
from market_data_tick_handler.client.items import Item
from tests.client.made import take
from tests.e2e.serve_world import (
    BTC_15S,
    ETH_1M,
    PATIENT,
    SPEED,
    assert_exactly,
    assert_nothing_unsaid,
    assert_same,
    live,
    published,
    reading,
    serving_redis,
    serving_sockets,
    socket_address,
    span,
    until_closed,
    until_level,
)
from tests.servers.ports import HOST
from tests.servers.redis_server import redis_server
from tests.servers.tcp_proxy import tcp_proxy
from tests.waiting import until

ONE: Final[Mapping[str, Any]] = {"symbol": "BTC-USDT", "timeframe": "15s"}


async def test_who_stalls_gets_what_its_policy_promises_and_nobody_else_notices(tmp_path: Path) -> None:
    """Six that stall for a minute of the service's time, over Redis and over its socket, next to two that do not."""
    with redis_server() as server:
        async with serving_redis(tmp_path, server.url, **PATIENT) as run, AsyncExitStack() as stack:
            ways = (server.url, socket_address(run))
            quick = [await stack.enter_async_context(reading(way, **ONE)) for way in ways]
            slow = {
                (way, policy): await stack.enter_async_context(live(way, policy=policy, buffer=3, **ONE))
                for way in ways
                for policy in ("block", "drop_oldest", "latest")
            }
            await until_closed(run, 1)
            begin = published(run)[BTC_15S][-1]["sequence"]
            for stream in slow.values():
                await take_until(stream, begin)
            stalls_s = run.clock.monotonic_s()
            delivered = [stream.stats.delivered for stream in slow.values()]
            await until_closed(run, 8)
            await until(lambda: run.clock.monotonic_s() - stalls_s > 60.0, "a minute")
            wanted = published(run)[BTC_15S]
            last = wanted[-1]["sequence"]
            for reads in quick:
                await assert_exactly(reads, {BTC_15S: wanted})
                assert reads.stream.stats.dropped == 0
            losing = [stream.stats for (_, policy), stream in slow.items() if policy != "block"]
            # All that came to these lies there, or had to give way.
            await until(lambda: all(each.dropped + each.buffered >= last - begin for each in losing), lambda: losing)
            assert [stream.stats.delivered for stream in slow.values()] == delivered
            assert all(stream.stats.buffered <= 3 for stream in slow.values())
            for (_, policy), stream in slow.items():
                items = await take_until(stream, last)
                KEPT_PROMISE[policy](stream, items, begin)
                assert_nothing_unsaid(items, BTC_15S, wanted[begin:]) if policy != "latest" else None
                rows = {row["sequence"]: row for row in published(run)[BTC_15S]}
                for candle in items:
                    if isinstance(candle, Candle):
                        assert_same(candle, rows[candle.sequence])


async def take_until(stream: LiveFeatureStream, number: int) -> list[Item]:
    """Everything up to a number, or to one behind it."""
    items: list[Item] = []
    while not items or span(items[-1])[1] < number:
        items += await take(stream, 1)
    return items


def kept_block(stream: LiveFeatureStream, items: Sequence[Item], begin: int) -> None:
    assert stream.stats.dropped == stream.stats.gaps == 0
    assert [span(item) for item in items] == [(n, n) for n in range(begin + 1, begin + 1 + len(items))]


def kept_drop_oldest(stream: LiveFeatureStream, items: Sequence[Item], begin: int) -> None:
    gaps = [item for item in items if isinstance(item, CandleGap)]
    assert {gap.reason for gap in gaps} == {GapReason.DROPPED} and span(items[0])[0] == begin + 1
    assert sum(gap.missing or 0 for gap in gaps) == stream.stats.dropped >= 4


def kept_latest(stream: LiveFeatureStream, items: Sequence[Item], begin: int) -> None:
    # Two where the last one corrects an earlier candle.
    assert len(items) <= 2 and stream.stats.gaps == 0
    assert len(items) + stream.stats.dropped >= span(items[-1])[0] - begin and stream.stats.dropped >= 6


KEPT_PROMISE: Final[Mapping[str, Callable[[LiveFeatureStream, Sequence[Item], int], None]]] = {
    "block": kept_block,
    "drop_oldest": kept_drop_oldest,
    "latest": kept_latest,
}


async def test_a_socket_that_takes_nothing_costs_its_subscriber_only_what_its_policy_gives_up(tmp_path: Path) -> None:
    """What is stuck is the network, so the queues of the service overflow."""
    # Large messages, and as little room for them as may be set.
    changes = {**PATIENT, "serve.columns": ["all"], "serve.websocket.client_bytes": 64 << 10}
    # Service and subscriber would give such a connection up by themselves.
    changes |= {"serve.websocket.stall": "1h", "serve.websocket.heartbeat": "1h"}
    patient = ClientTiming(timeout_s=3_600.0)
    async with serving_sockets(tmp_path, speed=3 * SPEED, **changes) as run, AsyncExitStack() as stack:
        port = int(socket_address(run).rpartition(":")[2])
        proxy = await stack.enter_async_context(tcp_proxy(HOST, port, narrow=True))
        quick = await stack.enter_async_context(reading(socket_address(run)))
        stuck = {
            policy: await stack.enter_async_context(reading(f"ws://{HOST}:{proxy.port}", policy=policy, timing=patient))
            for policy in ("block", "drop_oldest", "latest")
        }
        await until_closed(run, 1, ETH_1M)
        for reads in stuck.values():
            await until_level(reads, published(run))
        proxy.stall()
        told = run.service.outputs.serving.report
        await until(lambda: told()["ended_slow"] >= 1 and told()["dropped"] >= 4, told)
        await until_level(quick, published(run))
        proxy.go_on()
        await until_closed(run, 1, ETH_1M)
        wanted = published(run)
        await assert_exactly(quick, wanted)
        await assert_exactly(stuck["block"], wanted)
        assert stuck["block"].stream.stats.reconnects >= 1
        for policy in ("drop_oldest", "latest"):
            await until_level(stuck[policy], wanted)
            assert stuck[policy].stream.stats.reconnects == 0
        for name, rows in wanted.items():
            assert_nothing_unsaid(stuck["drop_oldest"].items, name, rows)
        losing = [stuck[policy].stream.stats for policy in ("drop_oldest", "latest")]
        await until(lambda: sum(stats.dropped for stats in losing) == told()["dropped"], lambda: (losing, told()))
        assert {gap.reason for gap in stuck["drop_oldest"].gaps} == {GapReason.DROPPED}

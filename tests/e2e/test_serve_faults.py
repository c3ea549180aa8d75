"""Whatever happens to Redis, to the network or to a subscriber: through the whole service, from the exchange to the
subscriber, everybody ends with exactly the final candles, or is told what is missing."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from market_data_tick_handler.client import Candle, CandleGap, ClientTiming, GapReason, LiveFeatureStream
from market_data_tick_handler.client.items import Item
from market_data_tick_handler.errors import NotFound
from market_data_tick_handler.storage.candle_files import candle_columns, read_candles
from market_data_tick_handler.storage.paths import day_of
from market_data_tick_handler.wire.channels import parse_candle_channel
from tests.client.made import Reader, take
from tests.e2e.serve_world import (
    BTC_15S,
    ETH_1M,
    SPEED,
    assert_exactly,
    assert_same,
    count,
    live,
    published,
    reading,
    scraped,
    serving_redis,
    serving_sockets,
    socket_address,
    until_closed,
    until_level,
    until_ready,
)
from tests.servers.redis_server import HOST, redis_server
from tests.servers.sentinel import redis_sentinel
from tests.servers.tcp_proxy import tcp_proxy

# A candle is not published before everything is there, however busy the machine is: no revisions.
PATIENT: Final = {"candles.grace": 10_000}
Row = Mapping[str, Any]
ONE: Final[Mapping[str, Any]] = {"symbol": "BTC-USDT", "timeframe": "15s"}


@pytest.mark.parametrize("keeps_data", [True, False], ids=["with its data", "empty"])
async def test_redis_killed_for_minutes_costs_no_subscriber_a_candle(tmp_path: Path, keeps_data: bool) -> None:
    """The service's own time runs faster; some of the subscribers come while Redis is away, some when it is back."""
    with redis_server() as server:
        async with serving_redis(tmp_path, server.url) as run, AsyncExitStack() as stack:
            bus = await stack.enter_async_context(reading(run.service.bus))
            early = await stack.enter_async_context(reading(server.url))
            socket = await stack.enter_async_context(reading(socket_address(run)))
            await until_closed(run, 3)
            await until_ready(run, lambda status, _: status == 200)
            await asyncio.to_thread(server.kill)
            away_s = run.clock.monotonic_s()
            redis = run.service.outputs.redis
            assert redis is not None
            counters = redis.state.counters
            acknowledged = counters.sent + counters.already_there
            reasons = await until_ready(run, lambda status, _: status == 503)
            assert any(reason.startswith("redis: nothing delivered") for reason in reasons)
            during = await stack.enter_async_context(reading(server.url))
            await until_closed(run, 8)
            page = await scraped(run)
            assert page["ready"] == page["redis_connected"] == 0.0
            assert page["redis_trouble_seconds"] > 30.0 and page["redis_failures_total"] >= 3
            assert page["redis_buffered_rows"] >= count(published(run)) - acknowledged - 4 > 8
            if not keeps_data:
                server.wipe()
            await asyncio.to_thread(server.start)
            assert run.clock.monotonic_s() - away_s > 30.0
            await until_ready(run, lambda status, _: status == 200)
            after = await stack.enter_async_context(reading(server.url))
            await until_closed(run, 2)
            wanted = published(run)
            for reads in (early, during, after, socket):
                await assert_exactly(run, reads, wanted)
            await assert_exactly(run, bus, wanted, from_start=False)
            assert early.stream.stats.renumbered == 0 and early.stream.stats.reconnects >= 1
            page = await scraped(run)
            assert page["ready"] == page["redis_connected"] == 1.0 and page["redis_trouble_seconds"] == 0.0
            assert page["redis_candles_total refilled"] == (0 if keeps_data else acknowledged)
            for outcome in ("rejected", "renumbered", "lost_by_redis"):
                assert page[f"redis_candles_total {outcome}"] == 0
            delivered = page["redis_candles_total sent"] + page["redis_candles_total already_there"]
            assert delivered >= count(wanted)
            assert page["sink_rows_dropped_total redis"] == page["sink_rows_failed_total redis"] == 0


async def test_messages_lost_on_the_way_are_read_from_the_stream(tmp_path: Path) -> None:
    with redis_server() as server:
        async with (
            tcp_proxy(HOST, server.port) as proxy,
            serving_redis(tmp_path, server.url) as run,
            reading(f"redis://{HOST}:{proxy.port}/0") as lossy,
            reading(server.url) as whole,
        ):
            await until_closed(run, 1)
            proxy.drop_messages = -1
            await until_closed(run, 4)
            late = reading(f"redis://{HOST}:{proxy.port}/0")
            async with late as lossy_too:
                proxy.drop_messages = 3
                await until_closed(run, 3)
                wanted = published(run)
                for reads in (lossy, lossy_too, whole):
                    await assert_exactly(run, reads, wanted)
                    assert reads.stream.stats.reconnects == 0
                # Marks are lost with the candles.
                assert proxy.lost_messages > 4 and lossy.stream.stats.from_stream >= 4


async def test_what_is_trimmed_before_it_was_read_comes_from_parquet_or_is_named(tmp_path: Path) -> None:
    with redis_server() as server:
        async with (
            tcp_proxy(HOST, server.port) as proxy,
            serving_redis(tmp_path, server.url, speed=2 * SPEED, **PATIENT) as run,
            reading(f"redis://{HOST}:{proxy.port}/0", store=tmp_path / "store") as stored,
            reading(f"redis://{HOST}:{proxy.port}/0") as streamed,
        ):
            await until_closed(run, 2, ETH_1M)
            for reads in (stored, streamed):
                await until_level(run, reads, published(run))
            proxy.refuse = True
            proxy.cut()
            await run.until(lambda: not (stored.stream.stats.connected or streamed.stream.stats.connected))
            await until_closed(run, 2, ETH_1M)
            lost = published(run)
            await run.until(lambda: all(in_files(tmp_path / "store", name, rows[-1]) for name, rows in lost.items()))
            for name, rows in lost.items():
                server.command("XTRIM", name, "MINID", rows[-1]["sequence"])
            proxy.refuse = False
            await until_closed(run, 1, ETH_1M)
            wanted = published(run)
            await until_level(run, stored, wanted)
            await until_level(run, streamed, wanted)
            assert stored.stream.stats.from_store >= 6
            # Files have the newest revision only; there are others where a starved machine had a repair to do.
            assert stored.gaps == [] or any(row["revision"] for rows in wanted.values() for row in rows)
            for name, rows in wanted.items():
                assert_as_it_stands(stored, rows, published(run)[name])
                assert_nothing_unsaid(streamed.items, name, rows)
            assert {gap.reason for gap in streamed.gaps} == {GapReason.LOST}
            assert {gap.channel for gap in streamed.gaps} >= {BTC_15S, ETH_1M}


def in_files(store: Path, channel: str, row: Row) -> bool:
    """Whether a candle is where historical readers find it."""
    place = parse_candle_channel(channel)
    day = day_of(row["timestamp"])
    try:
        stored = candle_columns(read_candles(store, place.key, place.timeframe, day, day))
    except NotFound:
        return False
    return row["timestamp"] in stored["timestamp"].tolist()


def assert_as_it_stands(reads: Reader, rows: Sequence[Row], now: Sequence[Row]) -> None:
    """Of each of these candles it has this revision, or one that was published since."""
    found = [item for item in reads.items if isinstance(item, Candle)]
    newest = {(candle.channel, candle.timestamp): candle for candle in sorted(found, key=lambda each: each.revision)}
    known = {(row["timestamp"], row["revision"]): row for row in now}
    for row in rows:
        candle = newest[f"candles:{row['instrument_id']}:{row['timeframe']}", row["timestamp"]]
        assert candle.revision >= row["revision"]
        assert_same(candle, known[candle.timestamp, candle.revision])


def assert_nothing_unsaid(items: Sequence[Item], channel: str, rows: Sequence[Row]) -> None:
    """Every number up to the last one comes once: as a candle, or in a gap."""
    expected = rows[0]["sequence"]
    for item in items:
        if item.channel == channel and expected <= rows[-1]["sequence"]:
            first, last = span(item)
            assert first == expected
            expected = last + 1
    assert expected > rows[-1]["sequence"]


def span(item: Item) -> tuple[int, int]:
    """The numbers that an item speaks of."""
    first, last = (item.sequence, item.sequence) if isinstance(item, Candle) else (item.from_sequence, item.to_sequence)
    assert first is not None and last is not None
    return first, last


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
            wanted = published(run)[BTC_15S]
            last = wanted[-1]["sequence"]
            for reads in quick:
                await assert_exactly(run, reads, {BTC_15S: wanted})
                assert reads.stream.stats.dropped == 0
            assert run.clock.monotonic_s() - stalls_s > 60.0
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
    # Two where the last one was taken before it was the newest.
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
    # A subscriber would give such a connection up by itself.
    patient = ClientTiming(timeout_s=60.0)
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
            await until_level(run, reads, published(run))
        proxy.stall()
        told = run.service.outputs.serving.report
        await run.until(lambda: told()["ended_slow"] >= 1 and told()["dropped"] >= 4)
        await until_level(run, quick, published(run))
        proxy.go_on()
        await until_closed(run, 1, ETH_1M)
        wanted = published(run)
        await assert_exactly(run, quick, wanted)
        await assert_exactly(run, stuck["block"], wanted)
        assert stuck["block"].stream.stats.reconnects >= 1
        for policy in ("drop_oldest", "latest"):
            await until_level(run, stuck[policy], wanted)
            assert stuck[policy].stream.stats.reconnects == 0
        for name, rows in wanted.items():
            assert_nothing_unsaid(stuck["drop_oldest"].items, name, rows)
        dropped = sum(stuck[policy].stream.stats.dropped for policy in ("drop_oldest", "latest"))
        assert {gap.reason for gap in stuck["drop_oldest"].gaps} == {GapReason.DROPPED} and dropped == told()["dropped"]


async def test_a_server_that_refuses_is_asked_again_until_it_does_not(tmp_path: Path) -> None:
    """Out of memory, rights taken away, frozen: one after the other, in one run."""
    with redis_server(acl={"writer": "on >secret ~candle* ~marks:* &candles:* &marks:* +@all"}) as server:
        async with (
            serving_redis(tmp_path, server.url_as("writer", "secret"), **{"serve.redis_timeout": 0.5}) as run,
            reading(server.url) as reads,
        ):
            await until_closed(run, 1)
            await until_ready(run, lambda status, _: status == 200)
            for word, begin, end in (
                ("memory", ("CONFIG", "SET", "maxmemory", 1), ("CONFIG", "SET", "maxmemory", 0)),
                ("NOPERM|permission", ("ACL", "SETUSER", "writer", "-xadd"), ("ACL", "SETUSER", "writer", "+xadd")),
            ):
                server.command(*begin)
                reasons = await until_ready(run, lambda status, _: status == 503)
                assert any(re.search(word, reason) for reason in reasons), reasons
                await until_closed(run, 2)
                server.command(*end)
                await until_ready(run, lambda status, _: status == 200)
            server.freeze()
            await until_ready(run, lambda status, _: status == 503)
            await until_closed(run, 2)
            server.thaw()
            await until_ready(run, lambda status, _: status == 200)
            await until_closed(run, 1)
            await assert_exactly(run, reads, published(run))
            page = await scraped(run)
            assert page["redis_candles_total rejected"] == page["redis_candles_total renumbered"] == 0


async def test_a_failover_costs_no_subscriber_a_candle(tmp_path: Path) -> None:
    with redis_server() as old, redis_server() as new:
        new.command("REPLICAOF", HOST, str(old.port))
        with redis_sentinel(old, name="candles") as sentinel:
            url = f"redis+sentinel://{HOST}:{sentinel.port}/candles/0"
            async with serving_redis(tmp_path, url) as run, reading(url) as early, AsyncExitStack() as stack:
                await until_closed(run, 2)
                await asyncio.to_thread(sentinel.wait_for_replica)
                await asyncio.to_thread(old.kill)
                during = await stack.enter_async_context(reading(url))
                await until_closed(run, 2)
                redis = run.service.outputs.redis
                assert redis is not None
                await run.until(lambda: redis.state.connected and redis.state.trouble_since_s is None)
                await until_closed(run, 1)
                wanted = published(run)
                await assert_exactly(run, early, wanted)
                await assert_exactly(run, during, wanted)

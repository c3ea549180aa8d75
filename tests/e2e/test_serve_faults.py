"""Whatever happens to Redis, to the network or to a subscriber: through the whole service, from the exchange to the
subscriber, everybody ends with exactly the final candles, or is told what is missing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from market_data_tick_handler.client import Candle, GapReason
from market_data_tick_handler.errors import NotFound
from market_data_tick_handler.storage.candle_files import candle_columns, read_candles
from market_data_tick_handler.storage.paths import day_of
from market_data_tick_handler.wire.channels import parse_candle_channel
from tests.client.made import ALERT, HASTY, Reader
from tests.e2e.serve_world import (
    BREAKS,
    BTC_15S,
    ETH_1M,
    PATIENT,
    POLL_S,
    SPEED,
    assert_exactly,
    assert_nothing_unsaid,
    assert_same,
    count,
    published,
    reading,
    scraped,
    serving_redis,
    socket_address,
    until_closed,
    until_level,
    until_not_ready,
    until_ready,
    until_scraped,
)
from tests.servers.ports import HOST
from tests.servers.redis_server import redis_server
from tests.servers.sentinel import redis_sentinel
from tests.servers.tcp_proxy import tcp_proxy
from tests.waiting import PATIENCE_S, until

Row = Mapping[str, Any]
# Believes soon that what is nowhere to be found is lost.
RESIGNED: Final = replace(HASTY, give_up_s=0.2)
# A sentinel that was not given its turn for two seconds trusts nobody for thirty.
DISTRUST_S: Final = 3 * PATIENCE_S


@pytest.mark.parametrize("keeps_data", [True, False], ids=["with its data", "empty"])
async def test_redis_killed_for_minutes_costs_no_subscriber_a_candle(tmp_path: Path, keeps_data: bool) -> None:
    """The service's own time runs faster; some of the subscribers come while Redis is away, some when it is back."""
    with redis_server() as server:
        async with serving_redis(tmp_path, server.url, **BREAKS) as run, AsyncExitStack() as stack:
            bus = await stack.enter_async_context(reading(run.service.bus))
            early = await stack.enter_async_context(reading(server.url))
            socket = await stack.enter_async_context(reading(socket_address(run)))
            await until_closed(run, 3)
            await until_ready(run)
            await asyncio.to_thread(server.kill)
            away_s = run.clock.monotonic_s()
            redis = run.service.outputs.redis
            assert redis is not None
            await until_not_ready(run, "^redis: nothing delivered")
            assert not redis.state.connected
            counters = redis.state.counters
            acknowledged = counters.sent + counters.already_there
            during = await stack.enter_async_context(reading(server.url))
            await until_closed(run, 8)
            waiting = count(published(run)) - acknowledged
            assert waiting > 8
            page = await until_scraped(
                run,
                lambda page: (
                    page["redis_buffered_rows"] >= waiting
                    and page["redis_trouble_seconds"] > 30.0
                    and page["redis_failures_total"] >= 3
                ),
            )
            assert page["ready"] == page["redis_connected"] == 0.0
            if not keeps_data:
                server.wipe()
            await asyncio.to_thread(server.start)
            assert run.clock.monotonic_s() - away_s > 30.0
            await until_ready(run)
            after = await stack.enter_async_context(reading(server.url))
            await until_closed(run, 2)
            wanted = published(run)
            for reads in (early, during, after, socket):
                await assert_exactly(reads, wanted)
            await assert_exactly(bus, wanted, from_start=False)
            assert early.stream.stats.renumbered == 0 and early.stream.stats.reconnects >= 1
            page = await until_scraped(
                run,
                lambda page: (
                    page["redis_candles_total sent"] + page["redis_candles_total already_there"] >= count(wanted)
                ),
            )
            assert page["ready"] == page["redis_connected"] == 1.0 and page["redis_trouble_seconds"] == 0.0
            assert page["redis_candles_total refilled"] == (0 if keeps_data else acknowledged)
            for outcome in ("rejected", "renumbered", "lost_by_redis"):
                assert page[f"redis_candles_total {outcome}"] == 0
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
            await until(lambda: lossy.stream.stats.from_stream >= 4, lambda: lossy.stream.stats)
            late = reading(f"redis://{HOST}:{proxy.port}/0")
            async with late as lossy_too:
                proxy.drop_messages = 3
                await until_closed(run, 3)
                wanted = published(run)
                for reads in (lossy, lossy_too, whole):
                    await assert_exactly(reads, wanted)
                    assert reads.stream.stats.reconnects == 0
                # Marks are lost with the candles.
                assert proxy.lost_messages > 4


async def test_what_is_trimmed_before_it_was_read_comes_from_parquet_or_is_named(tmp_path: Path) -> None:
    with redis_server() as server:
        async with (
            tcp_proxy(HOST, server.port) as proxy,
            serving_redis(tmp_path, server.url, speed=2 * SPEED, **PATIENT) as run,
            reading(f"redis://{HOST}:{proxy.port}/0", store=tmp_path / "store", timing=RESIGNED) as stored,
            reading(f"redis://{HOST}:{proxy.port}/0", timing=RESIGNED) as streamed,
        ):
            await until_closed(run, 2, ETH_1M)
            for reads in (stored, streamed):
                await until_level(reads, published(run))
            proxy.refuse = True
            proxy.cut()
            await until(lambda: not (stored.stream.stats.connected or streamed.stream.stats.connected), "the cut")
            await until_closed(run, 2, ETH_1M)
            lost = published(run)
            redis = run.service.outputs.redis
            assert redis is not None
            await until(lambda: redis.state.counters.sent >= count(lost), lambda: redis.state, poll_s=POLL_S)
            await until(
                lambda: all(in_files(tmp_path / "store", name, rows[-1]) for name, rows in lost.items()),
                "files with every candle",
                poll_s=POLL_S,
            )
            for name, rows in lost.items():
                server.command("XTRIM", name, "MINID", rows[-1]["sequence"])
            proxy.refuse = False
            await until_closed(run, 1, ETH_1M)
            wanted = published(run)
            await until_level(stored, wanted)
            await until_level(streamed, wanted)
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


async def test_a_server_that_refuses_is_asked_again_until_it_does_not(tmp_path: Path) -> None:
    """Out of memory, rights taken away, frozen: one after the other, in one run."""
    with redis_server(acl={"writer": "on >secret ~candle* ~marks:* &candles:* &marks:* +@all"}) as server:
        async with (
            serving_redis(tmp_path, server.url_as("writer", "secret")) as run,
            # Both notice by themselves that it is frozen.
            reading(server.url, timing=ALERT) as reads,
        ):
            await until_closed(run, 1)
            await until_ready(run)
            for why, begin, end in (
                ("memory", ("CONFIG", "SET", "maxmemory", 1), ("CONFIG", "SET", "maxmemory", 0)),
                ("NOPERM|permission", ("ACL", "SETUSER", "writer", "-xadd"), ("ACL", "SETUSER", "writer", "+xadd")),
            ):
                server.command(*begin)
                await until_not_ready(run, why)
                await until_closed(run, 2)
                server.command(*end)
                await until_ready(run)
            server.freeze()
            await until_not_ready(run, "^redis: nothing delivered")
            await until_closed(run, 2)
            server.thaw()
            await until_ready(run)
            await until_closed(run, 1)
            await assert_exactly(reads, published(run))
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
                await until(
                    lambda: redis.state.connected and redis.state.trouble_since_s is None,
                    lambda: redis.state,
                    within_s=DISTRUST_S,
                )
                await until_closed(run, 1)
                wanted = published(run)
                await assert_exactly(early, wanted)
                await assert_exactly(during, wanted)

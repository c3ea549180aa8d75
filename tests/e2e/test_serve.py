"""An exchange, the service, Redis or WebSocket, a subscriber: exactly the final candles arrive, in order."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from market_data_tick_handler.client import LiveFeatureStream
from market_data_tick_handler.testing.exchange import Cut
from tests.e2e.live import Running, running
from tests.servers.redis_server import RedisServer, redis_server

BTC = "BINANCE:SPOT_PAIR:BTC-USDT"
Identity = tuple[int, int, int]


class Subscriber:
    """Takes what a stream gives, in a task."""

    def __init__(self, transport: str) -> None:
        self.items: list[Any] = []
        self._stream = LiveFeatureStream(
            symbol="BTC-USDT", exchange="binance", timeframe="15s", history=100, transport=transport
        )
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async with self._stream as stream:
            async for item in stream:
                self.items.append(item)

    @property
    def identities(self) -> list[Identity]:
        return [(item["timestamp"], item["revision"], item["trade_count"]) for item in self.items]

    async def aclose(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


def published(run: Running) -> list[Identity]:
    rows = [row for row in run.seen.rows if row["timeframe"] == "15s"]
    return [(row["timestamp"], row["revision"], row["trade_count"]) for row in rows]


async def assert_all_arrive(run: Running, early: Subscriber, late: Subscriber) -> None:
    """Who was there from the start has exactly what was published, in order; who came later the last of each candle."""
    wanted = published(run)
    await run.until(lambda: len(early.identities) >= len(wanted), within_s=40)
    assert early.identities[: len(wanted)] == wanted
    await run.until(lambda: late.identities[-1:] == early.identities[-1:], within_s=40)
    assert len(set(late.identities)) == len(late.identities)
    last = {identity[0]: identity for identity in late.identities}
    for identity in wanted:
        newest = max(each for each in wanted if each[0] == identity[0])
        assert last[identity[0]] >= newest


async def test_redis_killed_and_started_again_costs_no_subscriber_a_candle(tmp_path: Path) -> None:
    with redis_server() as server:
        await serve_over(server, tmp_path)


async def serve_over(server: RedisServer, tmp_path: Path) -> None:
    changes = {"modes": ["serve", "persist"], "serve.transport": "redis", "serve.redis_url": server.url}
    async with running(tmp_path, "binance", ["BTCUSDT"], [BTC], **changes) as run:
        early = Subscriber(server.url)
        await run.until(lambda: len(published(run)) >= 2)
        run.exchange.inject(Cut(duration_s=4.0))
        await run.until(lambda: len(published(run)) >= 4, within_s=40)
        await asyncio.to_thread(server.kill)
        before = len(published(run))
        await run.until(lambda: len(published(run)) >= before + 2, within_s=40)
        await asyncio.to_thread(server.start)
        late = Subscriber(server.url)
        await run.until(lambda: len(published(run)) >= before + 4, within_s=40)
        await assert_all_arrive(run, early, late)
        report = run.service.health_report()
        assert report["redis"]["connected"]
        await early.aclose()
        await late.aclose()


async def test_a_websocket_subscriber_gets_history_and_tail_with_features(tmp_path: Path) -> None:
    async with running(tmp_path, "binance", ["BTCUSDT"], [BTC], modes=["serve"]) as run:
        address = run.service.server.url.replace("http://", "ws://")
        early = Subscriber(address)
        await run.until(lambda: len(published(run)) >= 3, within_s=40)
        late = Subscriber(address)
        await run.until(lambda: len(published(run)) >= 5, within_s=40)
        await assert_all_arrive(run, early, late)
        candle = late.items[-1]
        assert candle["hft_features"]["buy_volume_sum"] >= 0 and candle["quality"] in ("COMPLETE", "REPAIRED")
        await early.aclose()
        await late.aclose()

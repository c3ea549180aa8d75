"""An exchange, the service, Redis or WebSocket, a subscriber: exactly the final candles arrive, in order."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from market_data_tick_handler.client import LiveFeatureStream
from market_data_tick_handler.testing.exchange import Cut
from tests.e2e.live import Running, running
from tests.e2e.serve_world import BREAKS, CALM, SOUND
from tests.servers.redis_server import RedisServer, redis_server
from tests.waiting import until

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
    newest = {identity[0]: identity for identity in sorted(wanted)}

    def missed() -> list[Identity]:
        last = {identity[0]: identity for identity in late.identities}
        return [identity for at, identity in newest.items() if last.get(at, ()) < identity]

    await until(lambda: len(early.identities) >= len(wanted), lambda: (wanted, early.identities))
    assert early.identities[: len(wanted)] == wanted
    await until(lambda: not missed(), missed)
    assert len(set(late.identities)) == len(late.identities)


async def test_redis_killed_and_started_again_costs_no_subscriber_a_candle(tmp_path: Path) -> None:
    with redis_server() as server:
        await serve_over(server, tmp_path)


async def serve_over(server: RedisServer, tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "modes": ["serve", "persist"], "serve.transport": "redis", "serve.redis_url": server.url, **BREAKS,
    }  # fmt: skip
    async with running(tmp_path, "binance", ["BTCUSDT"], [BTC], rates=CALM, **changes) as run:
        early = Subscriber(server.url)
        await run.until(lambda: len(published(run)) >= 2)
        run.exchange.inject(Cut(duration_s=4.0))
        await run.until(lambda: len(published(run)) >= 4)
        await asyncio.to_thread(server.kill)
        before = len(published(run))
        await run.until(lambda: len(published(run)) >= before + 2)
        await asyncio.to_thread(server.start)
        late = Subscriber(server.url)
        await run.until(lambda: len(published(run)) >= before + 4)
        await assert_all_arrive(run, early, late)
        await until(lambda: run.service.health_report()["redis"]["connected"], run.service.health_report)
        await early.aclose()
        await late.aclose()


async def test_a_websocket_subscriber_gets_history_and_tail_with_features(tmp_path: Path) -> None:
    async with running(tmp_path, "binance", ["BTCUSDT"], [BTC], rates=CALM, modes=["serve"], **SOUND) as run:
        address = run.service.server.url.replace("http://", "ws://")
        early = Subscriber(address)
        await run.until(lambda: len(published(run)) >= 3)
        late = Subscriber(address)
        await run.until(lambda: len(published(run)) >= 5)
        await assert_all_arrive(run, early, late)
        candle = late.items[-1]
        assert candle["hft_features"]["buy_volume_sum"] >= 0 and candle["quality"] in ("COMPLETE", "REPAIRED")
        await early.aclose()
        await late.aclose()

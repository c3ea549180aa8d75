"""The stream and the service's own socket, put together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from market_data_tick_handler.client import LiveFeatureStream
from tests.client.made import HASTY, closes, reader, shown, take
from tests.servers.tcp_proxy import tcp_proxy
from tests.streaming_service.serving.serving_world import CALM, listening, world
from tests.waiting import until
from tests.wire.candles import candles

CALL = "DERIBIT:OPTION:BTC-USD-50000-241225-CALL"


def live(port: int, symbol: Any = "BTC-USDT", **arguments: Any) -> LiveFeatureStream:
    settings = {"exchange": "binance", "transport": f"ws://127.0.0.1:{port}", "timing": HASTY, **arguments}
    return LiveFeatureStream(symbol, **settings)


def port_of(url: str) -> int:
    return int(url.rstrip("/").rpartition(":")[2])


async def test_history_tail_and_what_came_while_we_were_away() -> None:
    async with world() as served, tcp_proxy("127.0.0.1", port_of(served.url)) as proxy:
        await served.sink.write(candles(0, 20))
        async with reader(live(proxy.port, history=10)) as reads:
            await reads.has(20)
            for first in range(20, 120, 20):
                await served.sink.write(candles(first, 10))
                proxy.cut()
                await served.sink.write(candles(first + 10, 10))
                await reads.has(first + 20)
            assert reads.numbers == list(range(11, 121)) and reads.gaps == []
            assert closes(reads.items) == [index + 100.5 for index in range(10, 120)]
            assert reads.stream.stats.reconnects >= 3


async def test_what_the_service_no_longer_keeps_is_a_gap() -> None:
    async with (
        world(replace(CALM, history_frames=5)) as served,
        tcp_proxy("127.0.0.1", port_of(served.url)) as proxy,
        reader(live(proxy.port)) as reads,
    ):
        await listening(served)
        await served.sink.write(candles(0, 3))
        await reads.has(3)
        proxy.refuse = True
        proxy.cut()
        await listening(served, 0)
        await served.sink.write(candles(3, 20))
        proxy.refuse = False
        await reads.has(23)
        assert shown(reads.items) == [1, 2, 3, ("lost", 4, 18), 19, 20, 21, 22, 23]


async def test_options_of_an_underlying_those_listed_later_too() -> None:
    async with world() as served, live(port_of(served.url), None, underlying="BTC", exchange="deribit") as stream:
        await listening(served)
        await served.sink.write(candles(0, 2, key=CALL))
        await served.sink.write(candles(0, 2))
        await served.sink.write(candles(0, 2, key=CALL.replace("CALL", "PUT")))
        assert shown(await take(stream, 4)) == [1, 2, 1, 2]


async def test_a_subscriber_that_is_too_slow_for_the_service_comes_back_and_has_everything() -> None:
    options = replace(CALM, client_frames=50, history_frames=5_000)
    async with world(options) as served, live(port_of(served.url), buffer=5) as stream:
        await listening(served)
        for first in range(0, 4_000, 100):
            await served.sink.write(candles(first, 100))
        assert shown(await take(stream, 4_000)) == list(range(1, 4_001))
        assert stream.stats.gaps == 0


async def test_drop_oldest_tells_what_the_service_or_we_have_dropped() -> None:
    options = replace(CALM, client_frames=50, history_frames=5_000)
    async with world(options) as served, live(port_of(served.url), buffer=5, policy="drop_oldest") as stream:
        await listening(served)
        for first in range(0, 400, 10):
            await served.sink.write(candles(first, 10))
        await until(lambda: stream.stats.dropped > 0, "more than there is room for")
        found, expected = [], 1
        while expected <= 400:
            (item,) = await take(stream, 1)
            found.append(shown([item])[0])
            first, last = (found[-1][1], found[-1][2]) if isinstance(found[-1], tuple) else (found[-1], found[-1])
            assert first == expected
            expected = last + 1
        assert any(isinstance(item, tuple) and item[0] == "dropped" for item in found)
        assert stream.stats.dropped > 0

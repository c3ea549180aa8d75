"""Candles without `await`: in a script, and in a notebook, whose event loop runs already."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from market_data_tick_handler.client import LiveFeatureStream
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.errors import SourceUnavailable
from market_data_tick_handler.wire import CandleEncoder, channels
from tests.client.made import HASTY
from tests.servers.ports import free_port
from tests.servers.redis_server import RedisServer, redis_server
from tests.waiting import wait_until
from tests.wire.candles import BTC, candles


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_server() as started:
        publish(started, 0, 20)
        yield started


def publish(server: RedisServer, first: int, count: int) -> None:
    batch = candles(first, count)
    name = channels.candles(BTC, Timeframe.M1)
    with server.client() as client:
        for number, body in zip(batch.sequences.tolist(), CandleEncoder().messages(batch), strict=True):  # type: ignore[union-attr]
            client.xadd(name, {"json": body}, id=f"{number}-0")
            client.publish(name, body)


def live(server: RedisServer, **arguments: Any) -> LiveFeatureStream:
    return LiveFeatureStream(
        "BTC-USDT", **{"exchange": "binance", "transport": server.url, "timing": HASTY, **arguments}
    )


def threads() -> int:
    return sum(thread.name == "live feature stream" for thread in threading.enumerate())


def read(server: RedisServer) -> list[int]:
    found = []
    for candle in live(server, history=10).sync():
        found.append(candle["sequence"])
        if len(found) == 10:
            publish(server, 20, 2)
        if len(found) == 12:
            break
    return found


def test_a_loop_gives_the_candles_and_leaving_it_ends_everything(server: RedisServer) -> None:
    assert read(server) == list(range(11, 23))
    assert threads() == 0
    with server.client() as client:
        wait_until(lambda: client.pubsub_channels() == [], "the server knows")


async def test_it_works_where_an_event_loop_runs_already(server: RedisServer) -> None:
    assert read(server) == list(range(11, 23))
    assert threads() == 0


def test_it_can_be_closed_from_outside_of_a_loop(server: RedisServer) -> None:
    with closing(live(server).sync()) as items:
        assert next(items)["sequence"] == 1
        assert threads() == 1
    assert threads() == 0


def test_what_fails_there_is_raised_here() -> None:
    stream = LiveFeatureStream(
        "BTC-USDT", exchange="binance", transport=f"redis://127.0.0.1:{free_port()}", timing=HASTY, retry_for_s=0.1
    )
    with pytest.raises(SourceUnavailable, match="no connection"):
        next(stream.sync())
    assert threads() == 0


def test_several_at_once(server: RedisServer) -> None:
    first, second = live(server).sync(), live(server, history=3).sync()
    assert [next(first)["sequence"] for _ in range(3)] == [1, 2, 3]
    assert [next(second)["sequence"] for _ in range(3)] == [18, 19, 20]
    first.close()
    second.close()
    assert threads() == 0

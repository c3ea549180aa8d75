"""What /metrics says of the WebSocket is what happened on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from aiohttp import WSServerHandshakeError

from streaming_service.monitoring.metrics import METRICS, ServiceMetrics
from streaming_service.serving.samples import websocket_samples
from tests.streaming_service.serving.serving_world import BTC_1M, CALM, World, listening, numbers, read, world
from tests.waiting import until
from tests.wire.candles import candles


def found(served: World) -> dict[str, float]:
    samples = websocket_samples(served.sink)
    return {"/".join((sample.metric.removeprefix("websocket_"), *sample.labels)): sample.value for sample in samples}


async def test_subscribers_messages_and_bytes_are_counted() -> None:
    async with world() as served:
        await served.sink.write(candles(0, 3))
        async with served.connect(BTC_1M, history=3) as socket, served.connect(BTC_1M) as other:
            await listening(served, 2)
            await served.sink.write(candles(3, 2))
            sizes = [len((await socket.receive_str()).encode()) for _ in range(5)]
            sizes += [len((await other.receive_str()).encode()) for _ in range(2)]
            now = found(served)
            assert (now["subscribers"], now["subscriptions"]) == (2, 2)
            # Each message of this size has four bytes before it.
            assert (now["messages_sent"], now["bytes_sent"]) == (7, sum(sizes) + 7 * 4)
        await listening(served, 0)
        assert (found(served)["subscribers"], found(served)["subscriptions"]) == (0, 2)


async def test_those_for_whom_there_is_no_place_are_counted() -> None:
    async with world(replace(CALM, max_subscribers=1)) as served, served.connect(BTC_1M):
        await listening(served)
        for _ in range(2):
            with pytest.raises(WSServerHandshakeError):
                async with served.connect(BTC_1M):
                    pytest.fail("there is no place")
        assert (found(served)["turned_away"], found(served)["subscribers"]) == (2, 1)


@pytest.mark.parametrize(("policy", "lost"), [("drop_oldest", 38), ("latest", 39)])
async def test_what_policies_drop_is_counted_for_each_of_them(policy: str, lost: int) -> None:
    """Forty candles in one turn, for a queue of two or of the newest one."""
    async with world(replace(CALM, client_frames=2)) as served, served.connect(BTC_1M, policy=policy) as socket:
        await listening(served)
        receiver = served.sink.hub.receivers[0]
        receiver.flush, flush = lambda: None, receiver.flush  # type: ignore[method-assign]
        await served.sink.write(candles(0, 40))
        assert found(served)["waiting_bytes"] == receiver.subscriber.waiting_bytes
        receiver.flush = flush  # type: ignore[method-assign]
        receiver.flush()
        notice, *rest = await read(socket, 41 - lost)
        assert notice["count"] == lost and numbers(rest)[-1] == 40
        assert found(served)[f"messages_dropped/{policy}"] == lost
        assert sum(value for name, value in found(served).items() if name.startswith("messages_dropped")) == lost
    await listening(served, 0)
    assert found(served)[f"messages_dropped/{policy}"] == lost


async def test_a_subscriber_that_is_too_slow_to_lose_nothing_is_counted() -> None:
    async with world(replace(CALM, client_frames=2)) as served, served.connect(BTC_1M) as socket:
        await listening(served)
        receiver = served.sink.hub.receivers[0]
        receiver.flush, flush = lambda: None, receiver.flush  # type: ignore[method-assign]
        await served.sink.write(candles(0, 5))
        receiver.flush = flush  # type: ignore[method-assign]
        receiver.flush()
        await until(lambda: found(served)["slow_disconnects"] == 1)
        assert (await socket.receive()).data == 4008


def names(samples: Sequence[str]) -> set[str]:
    return {name.partition("/")[0] for name in samples}


async def test_every_metric_of_the_table_is_there_and_can_be_scraped() -> None:
    async with world() as served:
        table = {metric.name for metric in METRICS if metric.name.startswith("websocket_")}
        assert {f"websocket_{name}" for name in names(list(found(served)))} == table
        page = ServiceMetrics([lambda: websocket_samples(served.sink)]).render().decode()
        assert 'tick_handler_websocket_messages_dropped_total{policy="drop_oldest"} 0.0' in page

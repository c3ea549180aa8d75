"""Who receives the stream of `socket_sender`: two that throw everything away, and the service, which computes candles.

Each runs alone in a process held to one processor, on the event loop that the service runs on.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from benchmarks import ticks
from benchmarks.live import GROUPS
from market_data_tick_handler.core import warmup
from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.events import Event
from market_data_tick_handler.core.options import PipelineOptions
from market_data_tick_handler.core.pipeline import Pipeline
from market_data_tick_handler.core.ticks import DataType
from streaming_service.clock import SystemClock
from streaming_service.ingest import Cadence, Feed, Ingest
from streaming_service.recovery import Recovery, RecoveryOptions
from streaming_service.sources.connection.feed import ExchangeSource
from streaming_service.sources.exchanges.protocol import Endpoints
from streaming_service.sources.exchanges.venues import VENUES

_LOOK_S: Final = 0.002
_SUBSCRIBE: Final = b'{"method":"SUBSCRIBE","params":["btcusdt@trade"],"id":1}'
_NO_REST: Final = "http://127.0.0.1:9"

Count = Callable[[], int]


class Candles:
    """Counts the candles that a turn published (`TurnObserver`)."""

    def __init__(self) -> None:
        self.count = 0

    def drained(self, event: Event, now_us: int) -> None: ...

    def published(self, batch: CandleBatch, now_us: int) -> None:
        self.count += len(batch)


@asynccontextmanager
async def websockets_client(url: str) -> AsyncIterator[Count]:
    """The `websockets` client, told to do as little as it can: no extension, text not decoded, queue without limit."""
    from websockets.asyncio.client import connect

    received = 0

    async def receive() -> None:
        nonlocal received
        while True:
            await socket.recv(decode=False)
            received += 1

    async with connect(url, compression=None, max_queue=None, proxy=None) as socket:
        await socket.send(_SUBSCRIBE, text=True)
        task = asyncio.create_task(receive())
        # The acknowledgement is a frame too.
        yield lambda: received - 1
        task.cancel()


@asynccontextmanager
async def picows_client(url: str) -> AsyncIterator[Count]:
    """Frames go no further than the callback."""
    from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

    received = 0

    class Bin(WSListener):
        def on_ws_connected(self, transport: WSTransport) -> None:
            transport.send(WSMsgType.TEXT, _SUBSCRIBE)

        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            nonlocal received
            received += 1

    transport, _ = await ws_connect(Bin, url)
    yield lambda: received - 1
    transport.disconnect()


@asynccontextmanager
async def service(url: str, *, journals: bool, facts: dict[str, Any]) -> AsyncIterator[Count]:
    """ExchangeSource, Ingest and a Pipeline with groups 0-3, as `Service` puts them together."""
    clock, key = SystemClock(), ticks.INSTRUMENT.key
    options = PipelineOptions(groups=GROUPS)
    source = ExchangeSource(
        VENUES["binance"], [ticks.INSTRUMENT], [DataType.TRADES], clock=clock, endpoints=Endpoints(url, _NO_REST)
    )
    feed, candles = Feed("binance", source), Candles()
    with TemporaryDirectory(prefix="benchmark-") as root:
        recovery = Recovery(Path(root), clock=clock, options=RecoveryOptions()) if journals else None
        make = partial(Pipeline, ticks.INSTRUMENT, options, keep_rows=journals, identify=journals)
        if recovery is None:
            pipeline = make()
            pipeline.start(clock.now_us())
            pipeline.doubt(clock.now_us())
        else:
            pipeline = recovery.open(key, make, warm=lambda new: None)
        ingest = Ingest(
            {key: pipeline},
            [feed],
            clock=clock,
            cadence=Cadence.of(options.timeframes, options.grace_us),
            observers=[candles],
            keeper=recovery,
        )
        jobs = [ingest.run(), ingest.tick(), ingest.pump(feed)]
        if recovery is not None:
            jobs.append(recovery.run({key: pipeline}, ingest.between_turns))
        tasks = [asyncio.create_task(job) for job in jobs]
        try:
            yield lambda: pipeline.counters[DataType.TRADES].accepted if pipeline.counters else 0
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for task in tasks:
                if not task.cancelled():
                    task.result()
        facts |= {"candles": candles.count, "turns": ingest.turns, "trades": asdict(pipeline.trades())}
        if recovery is not None:
            facts["journal_bytes"] = recovery.size_bytes
            recovery.release()


def count(receiver: str, url: str, frames: int) -> dict[str, Any]:
    """When so many frames were received (`time.perf_counter`), and the processor seconds that they took."""

    async def until(received: Count) -> dict[str, float]:
        begin_cpu_s = time.process_time()
        # Nobody who counts as fast as they can could also tell somebody of it.
        while received() < frames:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_S)
        return {"end_s": time.perf_counter(), "cpu_s": time.process_time() - begin_cpu_s}

    return _receive(receiver, f"{url}/{frames}", until)


def wait(receiver: str, url: str) -> dict[str, Any]:
    """Receive until standard input ends; somebody else takes the time."""

    async def until(received: Count) -> dict[str, float]:
        await asyncio.to_thread(sys.stdin.read)
        return {"frames": received()}

    return _receive(receiver, f"{url}/{os.getpid()}", until)


def _receive(receiver: str, url: str, until: Callable[[Count], Awaitable[dict[str, float]]]) -> dict[str, Any]:
    """What `until` found, and what the service says of itself."""
    import uvloop

    # That the sender goes away is no news here.
    logging.disable(logging.WARNING)
    facts: dict[str, Any] = {}
    receivers: dict[str, Callable[[str], AbstractAsyncContextManager[Count]]] = {
        "websockets": websockets_client,
        "picows": picows_client,
        "candles": partial(service, journals=False, facts=facts),
        "journals": partial(service, journals=True, facts=facts),
    }
    if receiver in ("candles", "journals"):
        warmup.compile_kernels()

    async def receive() -> dict[str, float]:
        async with receivers[receiver](url) as received:
            return await until(received)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(receive())
    trades = facts.get("trades", {})
    if trades.get("accepted") != trades.get("received") or trades.get("clamped"):
        raise AssertionError(f"expected every trade to be accepted as it came, got {trades}")
    return {**facts, **found}

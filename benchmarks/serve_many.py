"""Serving to very many: 1,000 WebSocket subscribers, and a process with 200 instruments in 7 timeframes behind them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from statistics import median
from typing import Any, Final

import numpy as np
from picows import WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

from benchmarks import feeds, ticks
from benchmarks.measure import in_child
from benchmarks.results import Result
from benchmarks.serve_redis import full_candle
from benchmarks.socket_audience import Audience, seated, spread
from market_data_tick_handler.config import load_settings
from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.events import Event, Heartbeat, Rows
from market_data_tick_handler.core.timeframes import ALL_TIMEFRAMES
from market_data_tick_handler.wire import CandleEncoder, channels
from streaming_service.app import Service
from streaming_service.clock import ScaledClock, SystemClock
from streaming_service.feeds import Inputs
from streaming_service.ingest import Feed
from streaming_service.monitoring.http import MonitoringServer
from streaming_service.process import spare_the_collector
from streaming_service.serving.application import ServingRoutes
from streaming_service.serving.options import ServingOptions
from streaming_service.serving.sink import ServingSink
from streaming_service.serving.view import ServiceView

GOAL_P99_MS: Final = 50.0
SUBSCRIBERS: Final = 1_000
INSTRUMENTS: Final = 200
_EVERYTHING: Final = ("all",)
_HOST: Final = "127.0.0.1"
# Messages a second to everybody.
_RATE: Final = 5
# Seconds of the market per second: a minute's candles every twelve seconds.
_SPEED: Final = 5.0
# Of each instrument, per second of the market.
_TRADES: Final = 1.0
_BOOKS: Final = 2.0
# Seconds for everybody to subscribe, and of the market until every kernel and ring was used once.
_BEFORE_S: Final = 10.0
_WARM_UP_S: Final = 70
_TURN_S: Final = 0.05
_SECOND_US: Final = 1_000_000


def run(quick: bool) -> Iterator[Result]:
    """One channel to everybody next to a bare broadcast; then everything in one process."""
    rounds, messages, seconds = (2, 20, 16) if quick else (5, 50, 60)
    found = in_child("benchmarks.serve_many:measure_broadcast", {"rounds": rounds, "messages": messages})
    ours, bare = found["ours"], found["bare"]
    yield Result(
        benchmark="serve_many",
        what=f"one channel to {SUBSCRIBERS:,} sockets, {found['bytes']:,} bytes a message, {_RATE} a second",
        measured=_shown(ours, f", {ours['cpu_us']:.1f} us of processor time a frame"),
        against=f"picows broadcast p99 {bare['p99']:.1f} ms, {bare['cpu_us']:.1f} us",
        ratio=bare["p99"] / ours["p99"],
        goal=f"p99 < {GOAL_P99_MS:.0f} ms",
        ok=ours["p99"] < GOAL_P99_MS,
    )
    # A minute before the measured time, so that the minutes go by; and midnight, at which every candle ends.
    for what, begin_s, wall_s in (("as time goes by", 10 * 3_600 + 75, seconds), ("midnight alone", 86_395, 4)):
        has_goal = wall_s == seconds
        found = in_child("benchmarks.serve_many:measure_process", {"begin_s": begin_s, "seconds": wall_s})
        yield Result(
            benchmark="serve_many",
            what=(
                f"{INSTRUMENTS} instruments x {len(ALL_TIMEFRAMES)} timeframes at {_SPEED:.0f}x in one process, "
                f"{SUBSCRIBERS:,} sockets of a channel each, {what}"
            ),
            measured=(
                f"{_shown(found['published'])} over {found['published']['count']:,.0f} candles; from the end of "
                f"grace p99 {found['due']['p99']:.1f} ms; {found['cpu']:.0%} of a processor"
            ),
            goal=f"p99 < {GOAL_P99_MS:.0f} ms" if has_goal else "",
            ok=found["published"]["p99"] < GOAL_P99_MS if has_goal else None,
        )


def _shown(found: dict[str, float], more: str = "") -> str:
    return f"p50 {found['p50']:.1f} ms, p99 {found['p99']:.1f} ms, worst {found['worst']:.1f} ms{more}"


def measure_broadcast(rounds: int, messages: int) -> dict[str, Any]:
    """Delays and processor time per frame of ours and of the bare broadcast, by turns; medians of the rounds."""
    candle = full_candle()
    (message,) = CandleEncoder(columns=_EVERYTHING).messages(candle, [1])
    found: dict[str, list[dict[str, float]]] = {"ours": [], "bare": []}
    for _ in range(rounds):
        found["ours"].append(_run(_broadcast(_served(candle), messages)))
        found["bare"].append(_run(_broadcast(_bare(message), messages)))
    return {
        "bytes": len(message),
        **{name: {key: median(run[key] for run in runs) for key in runs[0]} for name, runs in found.items()},
    }


Publish = Callable[[int], Awaitable[None]]


async def _broadcast(serving: AbstractAsyncContextManager[tuple[int, str, Publish]], messages: int) -> dict[str, float]:
    async with serving as (port, path, publish):
        audience = Audience(port, [path] * SUBSCRIBERS, [0] * SUBSCRIBERS)
        async with seated(audience) as seats:
            cpu_s, begin_s = 0.0, time.perf_counter()
            for number in range(messages):
                await asyncio.sleep(max(begin_s + number / _RATE - time.perf_counter(), 0))
                before_s = time.process_time()
                await publish(number)
                await asyncio.sleep(0.5 / _RATE)
                cpu_s += time.process_time() - before_s
            delays = await seats.leave()
    if len(delays.published) != messages * SUBSCRIBERS:
        raise LookupError(f"expected {messages * SUBSCRIBERS:,} messages, came {len(delays.published):,}")
    # The first ones find everything cold.
    return {**spread(delays.published[2 * SUBSCRIBERS :]), "cpu_us": cpu_s / messages / SUBSCRIBERS * 1e6}


@asynccontextmanager
async def _served(candle: CandleBatch) -> AsyncIterator[tuple[int, str, Publish]]:
    """The sink behind its routes, as in the service; the time of a message is that of the write to the sink."""
    sink = ServingSink(ServingOptions(columns=_EVERYTHING))
    view = ServiceView(current=lambda: ([candle.instrument], [candle.timeframe]), health=dict, now_us=lambda: 0)
    routes = ServingRoutes(sink, view, host=_HOST, token="").routes()
    server = MonitoringServer(host=_HOST, port=0, blind=list, health=dict, metrics=bytes, routes=routes)
    await server.start()
    await sink.open()

    async def publish(number: int) -> None:
        stamped = candle.replace(timestamp_out=np.array([time.monotonic_ns()]))
        await sink.write(stamped.numbered(np.array([number + 1])))

    try:
        name = channels.candles(candle.instrument.key, candle.timeframe)
        yield int(server.url.rpartition(":")[2]), f"/ws?channels={name}&history=0", publish
    finally:
        await sink.aclose()
        await server.aclose()


@asynccontextmanager
async def _bare(message: bytes) -> AsyncIterator[tuple[int, str, Publish]]:
    """The same bytes to as many sockets, and nothing else."""
    transports: list[WSTransport] = []

    class Listener(WSListener):
        def on_ws_connected(self, transport: WSTransport) -> None:
            transports.append(transport)

    def listen(request: WSUpgradeRequest) -> WSListener:
        return Listener()

    name = b'"timestamp_out":'
    begin = message.index(name) + len(name)
    end = message.index(b",", begin)

    async def publish(number: int) -> None:
        stamped = message[:begin] + b"%d" % time.monotonic_ns() + message[end:]
        for transport in transports:
            transport.send(WSMsgType.TEXT, stamped)

    server = await ws_create_server(listen, _HOST, 0)
    try:
        yield server.sockets[0].getsockname()[1], "/", publish
    finally:
        for transport in transports:
            transport.disconnect()
        server.close()
        await server.wait_closed()


def measure_process(begin_s: int, seconds: int) -> dict[str, Any]:
    """Delays of what a service publishes that has everything to do by itself, from ticks to frames."""
    return _run(_process(ticks.DAY_START_US + begin_s * _SECOND_US, seconds))


async def _process(since_us: int, seconds: int) -> dict[str, Any]:
    start_us = since_us - _WARM_UP_S * _SECOND_US
    keys = [f"BINANCE-FUTURES:PERPETUAL:COIN{number}-USDT" for number in range(INSTRUMENTS)]
    settings = load_settings(
        overrides={
            "instruments": keys,
            "modes": ["serve"],
            "monitoring.port": 0,
            "candles.timeframes": [str(timeframe) for timeframe in ALL_TIMEFRAMES],
        },
        environment={},
    ).settings
    origin_s = time.monotonic() + _BEFORE_S
    clock = ScaledClock(start_us=start_us, speed=_SPEED, origin_s=origin_s, base=SystemClock())
    market = Market(keys, clock, start_us, _WARM_UP_S + int((seconds + 5) * _SPEED))
    service = Service(settings, inputs=Inputs((Feed("market", market, recorded=True),), clock, _SPEED))
    stop = asyncio.Event()
    running = asyncio.create_task(service.run(stop))
    collecting = asyncio.create_task(spare_the_collector(service, warm_s=_BEFORE_S + _WARM_UP_S / _SPEED))
    await service.started.wait()
    chosen = [(key, timeframe) for timeframe in ALL_TIMEFRAMES for key in keys][:SUBSCRIBERS]
    audience = Audience(
        int(service.server.url.rpartition(":")[2]),
        [f"/ws?channels={channels.candles(key, timeframe)}&history=0" for key, timeframe in chosen],
        [timeframe.us for _, timeframe in chosen],
        origin_ns=int(origin_s * 1e9),
        start_us=start_us,
        ns_per_us=1_000 / _SPEED,
        grace_us=settings.candles.grace_us,
        since_us=since_us,
    )
    async with seated(audience) as seats:
        if time.monotonic() > origin_s:
            raise LookupError("the subscribers came too late")
        await asyncio.sleep(origin_s + _WARM_UP_S / _SPEED - time.monotonic())
        before_s = time.process_time()
        await asyncio.sleep(seconds)
        cpu_s = time.process_time() - before_s
        delays = await seats.leave()
    stop.set()
    collecting.cancel()
    await running
    return {"published": spread(delays.published), "due": spread(delays.due), "cpu": cpu_s / seconds}


class Market:
    """The same trades and books on every instrument, as time goes by."""

    def __init__(self, keys: Sequence[str], clock: ScaledClock, start_us: int, seconds: int) -> None:
        span_us = seconds * _SECOND_US
        shift_us = start_us - ticks.DAY_START_US
        self.fed_until_us = 0
        self._keys, self._clock, self._start_us = keys, clock, start_us
        made = [
            ticks.trades(int(seconds * _TRADES), span_us=span_us),
            feeds.books(int(seconds * _BOOKS), span_us=span_us),
        ]
        for batch in made:
            for column in ("timestamp", "local_timestamp"):
                batch[column][:] += shift_us
        # Copies, as a pipeline may correct the times of what it is given.
        self._batches = [{key: batch.take(np.arange(len(batch))) for key in keys} for batch in made]
        self._arrivals = [batch["local_timestamp"].copy() for batch in made]

    async def events(self) -> AsyncIterator[list[Event]]:
        """Everything that arrived since the last turn, and a sign of life."""
        places = [0] * len(self._batches)
        while True:
            await self._clock.sleep(_TURN_S * _SPEED)
            now_us = self._clock.now_us()
            if now_us < self._start_us:
                continue
            events: list[Event] = []
            for number, batches in enumerate(self._batches):
                start, end = places[number], int(np.searchsorted(self._arrivals[number], now_us))
                if end > start:
                    events += [Rows(key, batch.slice(start, end)) for key, batch in batches.items()]
                places[number] = end
            events += [Heartbeat(key, now_us) for key in self._keys]
            self.fed_until_us = now_us
            yield events


def _run(job: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
    """On the event loop that the service uses."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(job)

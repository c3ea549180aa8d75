"""Serving over Redis: full candles into streams, channels and last values, next to a bare redis-py pipeline."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from statistics import median, quantiles

import numpy as np
import orjson
import redis
import redis.asyncio

from benchmarks import feeds, ticks
from benchmarks.book import turns
from benchmarks.everything import OPTIONS
from benchmarks.measure import in_child, on_loop
from benchmarks.results import Result
from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.instruments import InstrumentDefinition, parse_instrument_key
from market_data_tick_handler.core.pipeline import Pipeline
from market_data_tick_handler.core.timeframes import ALL_TIMEFRAMES, Timeframe
from market_data_tick_handler.wire import CandleEncoder, channels, read_head
from market_data_tick_handler.wire.redis_urls import parse_redis_url
from streaming_service.clock import SystemClock
from streaming_service.sinks.redis import RedisOptions, RedisSink
from tests.servers.redis_server import redis_server

GOAL_BURST = 5_000
GOAL_RATIO = 0.7
GOAL_P50_MS = 1.0
GOAL_P99_MS = 5.0
GOAL_ENCODE_US = 60.0
INSTRUMENTS = 200
RATE = 500
_EVERYTHING = ("all",)
_BARE_TURN = 256
_STREAM_LENGTH = 10_000
# Redis keeps nothing on disk here, as in the deployment: it is a bus.
_SERVER = {"appendonly": "no"}


def run(quick: bool) -> Iterator[Result]:
    """Encoding alone, bursts against the bare pipeline, and the way to a subscriber in another process."""
    rounds, repeats, seconds = (2, 3, 4) if quick else (4, 7, 20)
    encoding = in_child("benchmarks.serve_redis:measure_encoding", {"repeats": 300 * repeats})
    yield Result(
        benchmark="serve_redis",
        what=f"JSON of a candle, {encoding['columns']} columns, {encoding['bytes']:,} bytes",
        measured=f"{encoding['us']:.0f} us",
        goal=f"<= {GOAL_ENCODE_US:.0f} us",
        ok=encoding["us"] <= GOAL_ENCODE_US,
    )
    burst = in_child("benchmarks.serve_redis:measure_burst", {"rounds": rounds, "repeats": repeats})
    ours, bare = burst["ours"], burst["bare"]
    yield Result(
        benchmark="serve_redis",
        what=f"burst, {burst['candles']:,} full candles of {INSTRUMENTS} instruments, {len(ALL_TIMEFRAMES)} timeframes",
        measured=f"{burst['candles'] / ours:,.0f} candles/s",
        against=f"redis-py pipeline {burst['candles'] / bare:,.0f}/s",
        ratio=bare / ours,
        goal=f">= {GOAL_BURST:,}/s and >= {GOAL_RATIO}",
        ok=burst["candles"] / ours >= GOAL_BURST and bare / ours >= GOAL_RATIO,
    )
    for what, at_once, goal in (("evenly", 1, True), (f"{RATE} at once, once a second", RATE, False)):
        found = in_child("benchmarks.serve_redis:measure_delay", {"seconds": seconds, "at_once": at_once})
        yield Result(
            benchmark="serve_redis",
            what=f"close to subscriber, {RATE} full candles/s, {what}",
            measured=f"p50 {found['p50']:.2f} ms, p99 {found['p99']:.2f} ms, worst {found['worst']:.2f} ms",
            goal=f"p50 <= {GOAL_P50_MS:.0f} ms, p99 <= {GOAL_P99_MS:.0f} ms" if goal else "",
            ok=found["p50"] <= GOAL_P50_MS and found["p99"] <= GOAL_P99_MS if goal else None,
        )


def full_candle() -> CandleBatch:
    """One 1m candle of a perpetual with every group on."""
    span_us = 300_000_000
    batch = ticks.trades(3_000, span_us=span_us)
    others = [
        feeds.books(3_000, span_us=span_us),
        feeds.tickers(300, span_us=span_us),
        feeds.liquidations(60, span_us=span_us),
    ]
    pipeline = Pipeline(feeds.PERPETUAL, OPTIONS)
    for events in turns([batch, *others], 1_000):
        pipeline.feed(events)
    pipeline.advance(pipeline.clock_us + 120_000_000)
    minutes = [found for found in pipeline.outputs(published_us=1) if found.timeframe is Timeframe.M1 and len(found)]
    whole = max(minutes, key=lambda found: int(found["trade_count"].max()))
    place = int(whole["trade_count"].argmax())
    return whole.slice(place, place + 1)


def measure_encoding(repeats: int) -> dict[str, float]:
    """Microseconds per candle, one at a time as live closes them."""
    candle, encoder = full_candle(), CandleEncoder(columns=_EVERYTHING)
    times = []
    for _ in range(repeats):
        begin_s = time.perf_counter()
        (message,) = encoder.messages(candle, [1])
        times.append(time.perf_counter() - begin_s)
    return {"us": median(times) * 1e6, "columns": len(candle.columns), "bytes": len(message)}


def measure_burst(rounds: int, repeats: int) -> dict[str, float]:
    """Median seconds for the same candles through the sink and through a bare pipeline."""
    every = _every_series(full_candle())
    batches = [batch.numbered(np.array([number])) for number in range(1, rounds + 2) for batch in every]
    timed = batches[len(every) :]
    prepared = _prepared(timed)
    ours, bare = [], []
    with redis_server(settings=_SERVER) as server:
        for _ in range(repeats + 1):
            server.command("FLUSHALL")
            ours.append(on_loop(_send_ours(server.url, batches, len(every))))
            server.command("FLUSHALL")
            bare.append(on_loop(_send_bare(server.url, prepared)))
    # The first of each warms up.
    return {"ours": median(ours[1:]), "bare": median(bare[1:]), "candles": len(timed)}


async def _send_ours(url: str, batches: Sequence[CandleBatch], series: int) -> float:
    sink = RedisSink(_options(url), clock=SystemClock())
    await sink.open()
    # The first candle of each series comes with a look at its stream, once in the life of a service.
    for batch in batches[:series]:
        await sink.write(batch)
    await sink.flush()
    begin_s = time.perf_counter()
    for batch in batches[series:]:
        await sink.write(batch)
    await sink.flush()
    elapsed_s = time.perf_counter() - begin_s
    await sink.aclose()
    if sink.state.counters.sent != len(batches):
        raise AssertionError(f"expected {len(batches)} candles, got {sink.report()}")
    return elapsed_s


async def _send_bare(url: str, prepared: Sequence[tuple[str, str, str, bytes]]) -> float:
    """The same bytes with the same commands, as many in a round trip as the sink sends at most, and nothing else."""
    async with redis.asyncio.Redis.from_url(url) as client:
        await client.ping()
        begin_s = time.perf_counter()
        for at in range(0, len(prepared), _BARE_TURN):
            pipeline = client.pipeline(transaction=False)
            for name, last, number, message in prepared[at : at + _BARE_TURN]:
                pipeline.xadd(name, {"json": message}, id=number, maxlen=_STREAM_LENGTH, approximate=True)
                pipeline.publish(name, message)
                pipeline.set(last, message)
            await pipeline.execute()
        return time.perf_counter() - begin_s


def _prepared(batches: Sequence[CandleBatch]) -> list[tuple[str, str, str, bytes]]:
    """Stream, last value, id and message of each candle."""
    encoder = CandleEncoder(columns=_EVERYTHING)
    prepared = []
    for batch in batches:
        key, timeframe = batch.instrument.key, batch.timeframe
        (message,) = encoder.messages(batch)
        number = f"{read_head(message).sequence}-0"
        prepared.append((channels.candles(key, timeframe), channels.last_candle(key, timeframe), number, message))
    return prepared


def measure_delay(seconds: int, at_once: int) -> dict[str, float]:
    """Milliseconds from the write to the sink until a subscriber in another process has the message."""
    count = seconds * RATE
    with redis_server(settings=_SERVER) as server:
        command = [sys.executable, "-c", _SUBSCRIBER, server.url, str(count)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as subscriber:
            assert subscriber.stdout is not None
            subscriber.stdout.readline()  # it has subscribed
            on_loop(_publish(server.url, count, at_once))
            # Without the first second, in which the kernels and the caches of everything warm up.
            delays = orjson.loads(subscriber.stdout.readline())[RATE:]
    cuts = quantiles(delays, n=100)
    return {"p50": cuts[49], "p99": cuts[98], "worst": max(delays)}


_SUBSCRIBER = """
import sys, time, orjson, redis
url, count = sys.argv[1], int(sys.argv[2])
subscriber = redis.Redis.from_url(url).pubsub(ignore_subscribe_messages=True)
subscriber.psubscribe("candles:*")
subscriber.get_message(timeout=5)
print("subscribed", flush=True)
delays = []
for message in subscriber.listen():
    now_ns = time.monotonic_ns()
    delays.append((now_ns - orjson.loads(message["data"])["timestamp_out"]) / 1e6)
    if len(delays) == count:
        break
print(orjson.dumps(delays).decode(), flush=True)
"""


async def _publish(url: str, count: int, at_once: int) -> float:
    """`timestamp_out` carries the monotonic clock, which processes of one machine share."""
    every = _every_series(full_candle())
    sink = RedisSink(_options(url), clock=SystemClock())
    await sink.open()
    begin_s = time.perf_counter()
    for number in range(count):
        if number % at_once == 0:
            await asyncio.sleep(max(begin_s + number / RATE - time.perf_counter(), 0))
        batch = every[number % len(every)].numbered(np.array([number // len(every) + 1]))
        await sink.write(batch.replace(timestamp_out=np.array([time.monotonic_ns()])))
    await sink.aclose()
    return time.perf_counter() - begin_s


def _every_series(candle: CandleBatch) -> list[CandleBatch]:
    return [
        CandleBatch(instrument, timeframe, candle.columns, candle.feature_version, candle.absent)
        for timeframe in ALL_TIMEFRAMES
        for instrument in _instruments()
    ]


def _instruments() -> list[InstrumentDefinition]:
    return [parse_instrument_key(f"BINANCE-FUTURES:PERPETUAL:COIN{number}-USDT") for number in range(INSTRUMENTS)]


def _options(url: str) -> RedisOptions:
    return RedisOptions(address=parse_redis_url(url), columns=_EVERYTHING, timeout_s=30.0)

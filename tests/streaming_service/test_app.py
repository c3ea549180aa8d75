"""The whole service on scripted and simulated sources: what comes in is accounted for, published, stored and shown."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import ClientSession

from market_data_tick_handler.config import load_settings
from market_data_tick_handler.config.settings import Settings
from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.events import Event, GapKind, Rows
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.errors import ConfigError, SourceUnavailable
from market_data_tick_handler.storage.candle_files import read_candles
from market_data_tick_handler.storage.gap_ledger import read_gaps
from market_data_tick_handler.storage.raw_ticks import read_raw_ticks
from market_data_tick_handler.testing import ManualClock, ScriptedSource, books, trades
from streaming_service.app import Service
from streaming_service.clock import DataClock
from streaming_service.feeds import Inputs, make_inputs
from streaming_service.ingest import Feed
from streaming_service.sinks.bus import Subscription
from streaming_service.sources.simulated import SimulatedSource
from streaming_service.supervisor import RestartPolicy, TaskFailed

BTC = "BINANCE:SPOT_PAIR:BTC-USDT"
ETH = "BINANCE:SPOT_PAIR:ETH-USDT"
T0 = 1_704_067_200_000_000
SECOND = 1_000_000
AT_ONCE = RestartPolicy(budget=2, base_s=0.0, cap_s=0.0)


def settings(tmp_path: Path, **overrides: Any) -> Settings:
    dotted = {name.replace("__", "."): value for name, value in overrides.items()}
    # A drain takes as long as the machine does.
    chosen = {
        "monitoring.port": 0, "persist.path": str(tmp_path), "instruments": [BTC], "shutdown.deadline": "10m", **dotted
    }  # fmt: skip
    return load_settings(overrides=chosen).settings


def recorded(source: Any, start_us: int = T0) -> Inputs:
    """A source that brings its own time."""
    feed = Feed("recorded", source, recorded=True, last_us=start_us)
    return Inputs((feed,), DataClock(lambda: feed.last_us))


def simulated(seconds: float, **options: Any) -> Inputs:
    clock = ManualClock()
    source = SimulatedSource([BTC], clock=clock, start_us=T0, duration_s=seconds, speed=None, **options)
    return Inputs((Feed("simulated", source, recorded=True),), DataClock(lambda: source.fed_until_us))


def tick(second: float, instrument: str = BTC, *, trade_id: int | None = None) -> Rows:
    at_us = T0 + int(second * SECOND)
    return Rows(instrument, trades([100.0 + second], start_us=at_us, first_id=trade_id or int(second * 10) + 1))


async def taken(subscription: Subscription) -> list[CandleBatch]:
    return [batch async for batch in subscription]


async def test_a_finite_source_is_published_stored_and_accounted_for(tmp_path: Path) -> None:
    terminal = io.StringIO()
    service = Service(settings(tmp_path, persist__store_ticks=True), inputs=simulated(150.0), terminal=terminal)
    subscription = service.bus.subscribe()
    await service.run()

    candles = await taken(subscription)
    minutes = [row for batch in candles if batch.timeframe is Timeframe.M1 for row in batch.rows()]
    assert [row["timestamp"] for row in minutes] == [T0, T0 + 60 * SECOND, T0 + 120 * SECOND]
    assert [row["quality"] for row in minutes[1:]] == ["COMPLETE", "PARTIAL"]

    stored = read_candles(tmp_path, BTC, Timeframe.M1, date(2024, 1, 1), date(2024, 1, 1))
    assert stored["close"].to_pylist() == [row["close"] for row in minutes]

    summary = service.summary()
    assert summary["candles"] == sum(map(len, candles)) == len(terminal.getvalue().splitlines())
    assert all(account.balances for account in service.accounts.values())
    raw = sum(map(len, read_raw_ticks(tmp_path, date(2024, 1, 1), DataType.TRADES, BTC)))
    assert raw == summary["streams"][f"{BTC}/trades"]["received"] > 0


async def test_ready_follows_the_data_from_blind_to_live_and_back(tmp_path: Path) -> None:
    clock = ManualClock(T0)
    source = ScriptedSource([1.0, [tick(1.0)], 100.0, [tick(101.0)], 1000.0], sleep=clock.sleep)
    service = Service(settings(tmp_path, modes=["serve"]), inputs=Inputs((Feed("live", source),), clock))
    stop = asyncio.Event()
    running = asyncio.create_task(service.run(stop))
    async with ClientSession() as session:

        async def status(path: str) -> int:
            async with session.get(service.server.url + path) as response:
                await response.read()
                return response.status

        await service.started.wait()
        await clock.advance(0.5)
        assert (await status("/live"), await status("/ready")) == (200, 503)
        await clock.advance(1.0)
        assert await status("/ready") == 200
        await clock.advance(70.0)
        assert (await status("/live"), await status("/ready")) == (200, 503)
        await clock.advance(30.0)
        assert await status("/ready") == 200
        async with session.get(service.server.url + "/health") as response:
            report = await response.json()
        assert report["data_types"]["trades"]["status"] == "live"
        assert report["data_types"]["book_snapshot_5"]["status"] == "waiting"
    stop.set()
    await running


async def test_silence_closes_candles_by_the_timer_alone(tmp_path: Path) -> None:
    clock = ManualClock(T0)
    source = ScriptedSource([[tick(0.5)], 1000.0], sleep=clock.sleep)
    service = Service(settings(tmp_path, modes=["serve"]), inputs=Inputs((Feed("live", source),), clock))
    subscription = service.bus.subscribe(timeframe=Timeframe.S15)
    stop = asyncio.Event()
    running = asyncio.create_task(service.run(stop))
    await service.started.wait()
    await clock.advance(15.6)
    first = await anext(subscription)
    # The grace is 500 ms; nothing but the timer can have woken ingest.
    assert first["timestamp_out"][0] == T0 + 15 * SECOND + 500_000
    stop.set()
    await running


async def test_metrics_show_what_the_summary_says(tmp_path: Path) -> None:
    service = Service(settings(tmp_path, modes=["serve"]), inputs=simulated(40.0))
    await service.run()
    page = service.metrics.render().decode()
    received = service.summary()["streams"][f"{BTC}/trades"]["received"]
    assert f'tick_handler_ticks_received_total{{data_type="trades",instrument="{BTC}"}} {float(received)}' in page
    published = sum(
        float(line.rpartition(" ")[2])
        for line in page.splitlines()
        if line.startswith("tick_handler_candles_published_total")
    )
    assert published == service.summary()["candles"]


async def test_rows_of_other_instruments_and_disabled_types_are_counted_as_filtered(tmp_path: Path) -> None:
    script: Sequence[Sequence[Event]] = [[tick(1.0), tick(1.0, ETH), Rows(BTC, books([1.0, 2.0, 3.0], start_us=T0))]]
    chosen = settings(tmp_path, modes=["serve"], data_types__book_snapshot_5__enabled=False)
    service = Service(chosen, inputs=recorded(ScriptedSource(script)))
    await service.run()
    streams = service.summary()["streams"]
    assert streams[f"{ETH}/trades"] | {"received": 1, "filtered": 1} == streams[f"{ETH}/trades"]
    assert streams[f"{BTC}/book_snapshot_5"] | {"received": 3, "filtered": 3} == streams[f"{BTC}/book_snapshot_5"]
    assert all(account.balances for account in service.accounts.values())


async def test_data_types_without_features_in_this_version_are_accepted_and_counted(tmp_path: Path) -> None:
    script = [[tick(1.0), Rows(BTC, books([1.0, 2.0, 3.0], start_us=T0))]]
    service = Service(settings(tmp_path, modes=["serve"]), inputs=recorded(ScriptedSource(script)))
    await service.run()
    assert service.summary()["streams"][f"{BTC}/book_snapshot_5"]["received"] == 3
    assert service.health_report()["data_types"]["book_snapshot_5"]["status"] == "live"


async def test_a_source_that_breaks_is_started_again_and_its_gap_is_known(tmp_path: Path) -> None:
    clock = ManualClock(T0)
    script = [[tick(1.0)], SourceUnavailable("gone"), 5.0, [tick(6.0)], 1000.0]
    source = ScriptedSource(script, sleep=clock.sleep)
    feed = Feed("live", source)
    service = Service(settings(tmp_path, modes=["serve"]), inputs=Inputs((feed,), clock), restart=AT_ONCE)
    stop = asyncio.Event()
    running = asyncio.create_task(service.run(stop))
    await service.started.wait()
    await clock.advance(10.0)
    assert source.iterations == 2
    assert service.supervisor.failures == {"source:live": 1}
    assert service.health_report()["data_types"]["trades"]["gaps"] == 1
    assert service.health_report()["data_types"]["trades"]["instruments"][BTC]["disconnects"] == 1
    stop.set()
    await running


async def test_a_source_that_fails_for_good_fails_the_service_after_everything_was_written(tmp_path: Path) -> None:
    source = ScriptedSource([[tick(float(second)) for second in range(40)], *[SourceUnavailable("gone")] * 5])
    feed = Feed("live", source)
    clock = ManualClock(T0 + 40 * SECOND)
    service = Service(settings(tmp_path), inputs=Inputs((feed,), clock), restart=AT_ONCE)
    with pytest.raises(TaskFailed, match="source:live failed 3 times"):
        await service.run()
    stored = read_candles(tmp_path, BTC, Timeframe.S15, date(2024, 1, 1), date(2024, 1, 1))
    assert stored.num_rows == service.summary()["candles"] == 2


async def test_a_recording_that_breaks_is_not_played_twice(tmp_path: Path) -> None:
    source = ScriptedSource([[tick(1.0)], SourceUnavailable("broken"), [tick(2.0)]])
    service = Service(settings(tmp_path, modes=["serve"]), inputs=recorded(source), restart=AT_ONCE)
    with pytest.raises(TaskFailed):
        await service.run()
    assert source.iterations == 1


async def test_a_stopped_run_leaves_in_the_ledger_when_it_ran(tmp_path: Path) -> None:
    stop = asyncio.Event()
    clock = ManualClock(T0 + 3600 * SECOND)
    source = ScriptedSource([[tick(3600.0)], 1000.0], sleep=clock.sleep)
    chosen = settings(tmp_path, persist__store_ticks=True)
    service = Service(chosen, inputs=Inputs((Feed("live", source),), clock))
    running = asyncio.create_task(service.run(stop))
    await service.started.wait()
    await clock.advance(20.0)
    stop.set()
    await running
    gaps = read_gaps(tmp_path, BTC, date(2024, 1, 1), date(2024, 1, 1))
    assert [gap.kind for gap in gaps] == [GapKind.NOT_RUNNING, GapKind.NOT_RUNNING]
    assert (gaps[0].from_us, gaps[1].to_us) == (T0, T0 + 86_400 * SECOND)
    assert gaps[1].from_us == T0 + 3620 * SECOND


async def test_open_candles_are_published_at_a_stop_only_if_asked_for(tmp_path: Path) -> None:
    counts = []
    for publish in (False, True):
        clock = ManualClock(T0)
        source = ScriptedSource([[tick(0.5)], 1000.0], sleep=clock.sleep)
        chosen = settings(tmp_path, modes=["serve"])
        service = Service(chosen, inputs=Inputs((Feed("live", source),), clock), publish_open_candles=publish)
        stop = asyncio.Event()
        running = asyncio.create_task(service.run(stop))
        await service.started.wait()
        await clock.advance(1.0)
        stop.set()
        await running
        counts.append(service.summary()["candles"])
    assert counts == [0, len(Timeframe)]


def test_an_exchange_without_an_adapter_is_refused_plainly(tmp_path: Path) -> None:
    sources = {f"data_types__{data_type}__source": "exchange" for data_type in DataType}
    with pytest.raises(ConfigError, match="there is no adapter for exchange 'kraken'"):
        Service(settings(tmp_path, instruments=["KRAKEN:SPOT_PAIR:BTC-USD"], **sources))


def test_sources_with_different_clocks_cannot_be_mixed(tmp_path: Path) -> None:
    chosen = settings(tmp_path, data_types__trades__source="files", files__paths=["x.csv"])
    with pytest.raises(ConfigError, match="cannot run together"):
        make_inputs(chosen, ())


async def test_recorded_files_run_through_the_service(tmp_path: Path) -> None:
    csv = tmp_path / "binance_trades_2024-01-01_BTCUSDT.csv"
    head = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n"
    lines = [f"binance,BTCUSDT,{T0 + n * SECOND},{T0 + n * SECOND + 900},{n + 1},buy,{100 + n},1" for n in range(61)]
    csv.write_text(head + "\n".join(lines) + "\n")
    sources = {f"data_types.{data_type}.source": "files" for data_type in DataType}
    chosen = settings(tmp_path, **{name.replace(".", "__"): value for name, value in sources.items()},
                      files__paths=[str(csv)], modes=["serve"])  # fmt: skip
    service = Service(chosen)
    subscription = service.bus.subscribe(timeframe=Timeframe.M1)
    await service.run()
    closes = np.concatenate([batch["close"] for batch in await taken(subscription)])
    assert closes.tolist() == [159.0, 160.0]
    assert service.summary()["streams"][f"{BTC}/trades"]["accepted"] == 61

"""The service inside somebody else's program: settings, life and end, streams, the same candles as anywhere else."""

from __future__ import annotations

import asyncio
import doctest
import logging
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from market_data_tick_handler import (
    ConfigError,
    InstrumentError,
    IntegratedStreamingService,
    LiveFeatureStream,
    MarketDataError,
    NotInstalled,
    SourceUnavailable,
    create_integrated_streaming_service,
)
from market_data_tick_handler.commands.parity import compare_stores
from market_data_tick_handler.config import Mode, Target, load_settings
from market_data_tick_handler.core import warmup
from market_data_tick_handler.core.events import Event
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.main import main
from market_data_tick_handler.storage.candle_files import read_candles
from market_data_tick_handler.storage.raw_ticks import read_raw_ticks
from market_data_tick_handler.testing import ManualClock
from market_data_tick_handler.testing.exchange import SimulatedExchange
from streaming_service import app, integrated
from streaming_service.clock import ScaledClock
from streaming_service.feeds import Inputs
from streaming_service.ingest import Feed
from streaming_service.integrated import StreamingState
from streaming_service.sink import SinkItem
from streaming_service.supervisor import TaskFailed
from tests.e2e.live import RATES, START_US, live_settings
from tests.steady_clock import SteadyClock
from tests.waiting import patience, until

BTC = "BINANCE:SPOT_PAIR:BTC-USDT"
ETH = "BINANCE:SPOT_PAIR:ETH-USDT"
DAY = date(2024, 1, 1)
# Of an exchange with which nothing is wrong, whatever the machine does.
SOUND: dict[str, Any] = {
    "exchange.shortest_silence": "1h",
    "exchange.longest_silence": "1h",
    "exchange.pong_timeout": "1h",
    "shutdown.deadline": "10m",
}
FAST: dict[str, Any] = {"simulation.speed": "300x", "shutdown.deadline": "10m"}


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory without settings, and an environment without any."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("MARKET_DATA_")]:
        monkeypatch.delenv(name)


def fast(**changes: Any) -> IntegratedStreamingService:
    """A simulated market, 300 times as fast as the wall, and a drain that takes as long as the machine does."""
    arguments = {"symbol": "BTC-USDT", "exchange": "binance", "timeframes": ["15s", "1m"], **changes}
    overrides = {**FAST, **arguments.pop("overrides", {})}
    return create_integrated_streaming_service(**arguments, overrides=overrides)


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """A duration is what the service gets of it: moments in which the machine does something else do not count."""
    monkeypatch.setattr(app, "SystemClock", SteadyClock)


async def everything(stream: LiveFeatureStream) -> list[Any]:
    """What a stream has until its end."""
    return [item async for item in stream]


async def first(stream: LiveFeatureStream, count: int) -> list[Any]:
    """The first candles of a stream."""
    found: list[Any] = []
    async with patience(lambda: f"{count} items, came {len(found)}, {stream.stats}"):
        async for candle in stream:
            found.append(candle)
            if len(found) == count:
                break
    return found


class Dead:
    """A source that nothing brings back."""

    async def events(self) -> AsyncIterator[list[Event]]:
        raise ConfigError("no such exchange", key="data_types")
        yield []


class Stuck:
    """A sink that never takes what it is given."""

    async def open(self) -> None: ...

    async def write(self, batch: SinkItem) -> None:
        await asyncio.Event().wait()

    async def flush(self) -> None: ...

    async def aclose(self) -> None: ...


# Settings


def test_arguments_lie_over_files_and_environment_and_overrides_over_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "streaming.yaml").write_text("serve: {service: desk}\nmonitoring: {port: 0}\ncandles: {grace: 1s}\n")
    monkeypatch.setenv("MARKET_DATA_SERVE__QUEUE_SIZE", "77")
    service = fast(overrides={"candles.timeframes": ["5m"], "persist.path": "elsewhere"})
    settings = service.settings
    assert (settings.serve.service, settings.serve.queue_size, settings.candles.grace_us) == ("desk", 77, 1_000_000)
    assert [str(each) for each in settings.candles.timeframes] == ["5m"]
    assert (settings.modes, settings.persist.path) == ((Mode.SERVE,), "elsewhere")
    assert service.instruments == (BTC,)


def test_bigquery_is_served_and_persisted_and_otherwise_nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("google.cloud.bigquery_storage_v1")
    local = {"persist.bigquery.api_endpoint": "http://127.0.0.1:1", "persist.bigquery.project": "desk"}
    settings = fast(enable_bigquery=True, overrides=local).settings
    assert settings.modes == (Mode.SERVE, Mode.PERSIST) and settings.persist.target is Target.BIGQUERY
    assert fast().settings.modes == (Mode.SERVE,)


@pytest.mark.parametrize(
    ("arguments", "keys"),
    [
        ({"symbol": ["BTC-USDT", "ETHUSDT"]}, (BTC, ETH)),
        ({"symbol": "BTC-USDT", "exchange": "binance-futures"}, ("BINANCE-FUTURES:PERPETUAL:BTC-USDT",)),
        ({"symbol": "DERIBIT:PERPETUAL:BTC-USD", "exchange": None}, ("DERIBIT:PERPETUAL:BTC-USD",)),
        ({"symbol": None, "exchange": "deribit"}, (BTC,)),
    ],
)
def test_symbols_mean_what_they_mean_on_the_command_line(arguments: dict[str, Any], keys: tuple[str, ...]) -> None:
    assert fast(**arguments).instruments == keys


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"symbol": "NOTHING-SUCH"}, InstrumentError),
        ({"timeframes": ["7m"]}, ConfigError),
        ({"overrides": {"no.such": 1}}, ConfigError),
        ({"overrides": {"data_types.trades.source": "files"}}, ConfigError),
        ({"config_file": "absent.yaml"}, ConfigError),
    ],
)
def test_what_cannot_be_carried_out_is_refused_when_the_service_is_made(
    arguments: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        fast(**arguments)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "streaming_service.app", None)
    with pytest.raises(NotInstalled, match=r"market-data-tick-handler\[streaming\]"):
        fast()


# Life and end


async def test_the_service_runs_for_its_duration_and_ends_with_nothing_unwritten() -> None:
    overrides = {**FAST, "modes": ["serve", "persist"]}
    settings = integrated.integrated_settings("BTC-USDT", "binance", ["15s", "1m"], overrides=overrides)
    wall = ManualClock()
    service = IntegratedStreamingService(settings, wall=wall)
    assert service.status().state is StreamingState.CREATED and service.url == ""
    async with service.stream("15s") as candles:
        running = asyncio.create_task(service.start_streaming(duration=0.5))
        await until(lambda: service.status().state is StreamingState.STREAMING, "it runs")
        async with patience("the end of the duration"):
            while not running.done():
                await wall.advance(0.005)
                # Threads get a turn too.
                await asyncio.sleep(0.001)
            await running
        seen = await everything(candles)
    status = service.status()
    assert status.state is StreamingState.STOPPED and not status.error and not status.ready
    assert all(sink["queue_depth"] == 0 and sink["failed"] == 0 for sink in service.health()["sinks"].values())
    # The tenth closes with the run, and nobody waits for what may come late to it.
    assert len({candle["timestamp"] for candle in seen}) == 9
    stored = read_candles("market_data", BTC, seen[0]["timeframe"], DAY, DAY)
    assert stored["close"].to_pylist() == [candle["close"] for candle in seen if not candle.is_revision]


async def test_stopping_drains_and_the_one_who_started_returns() -> None:
    service = fast()
    running = asyncio.create_task(service.start_streaming())
    async with service.stream("15s") as candles:
        await first(candles, 2)
        assert service.status().state is StreamingState.STREAMING
        await service.stop_streaming()
        left = await everything(candles)
    await running
    assert service.status().state is StreamingState.STOPPED
    assert service.status().candles >= 2 + len({item["timestamp"] for item in left})
    await service.stop_streaming()


async def test_a_block_runs_the_service_beside_it_and_drains_it() -> None:
    async with fast() as service:
        assert service.status().state is StreamingState.STREAMING
        async with ClientSession() as session, session.get(f"{service.url}/health") as response:
            assert response.status == 200 and (await response.json())["sinks"]["bus"]
        async with service.stream("15s") as candles:
            await first(candles, 3)
        # A machine that is busy for a fifth of a second lets a minute of the market pass without a tick.
        await until(lambda: service.status().ready, lambda: service.status().waiting_for)
    assert service.status().state is StreamingState.STOPPED and service.url == ""


async def test_a_service_that_was_never_started_stops_at_once_and_can_still_start() -> None:
    service = fast()
    await service.stop_streaming()
    await service.start_streaming(duration=0.05)
    assert service.status().state is StreamingState.STOPPED


async def test_a_service_runs_once() -> None:
    async with fast() as service:
        with pytest.raises(MarketDataError, match="streaming"):
            await service.start_streaming()
    with pytest.raises(MarketDataError, match="stopped: create another one"):
        await service.start_streaming()


async def test_cancelling_the_run_drains_it_first() -> None:
    service = fast(overrides={"modes": ["serve", "persist"]})
    async with service.stream("15s") as candles:
        running = asyncio.create_task(service.start_streaming())
        await first(candles, 2)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        rest = await everything(candles)
    assert service.status().state is StreamingState.STOPPED
    stored = read_candles("market_data", BTC, "15s", DAY, DAY)  # type: ignore[arg-type]
    assert len(stored) >= 2 + len({item["timestamp"] for item in rest if not item.is_revision})


async def test_a_time_limit_around_the_run_works_as_around_anything() -> None:
    service = fast()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await service.start_streaming()
    assert service.status().state is StreamingState.STOPPED


async def test_cancelling_twice_aborts_and_readers_are_let_go() -> None:
    overrides = {**FAST, "modes": ["serve"]}
    settings = integrated.integrated_settings("BTC-USDT", "binance", ["15s", "1m"], overrides=overrides)
    service = IntegratedStreamingService(settings, sinks={"stuck": Stuck()})
    async with service.stream("15s", buffer=1) as waiting:
        running = asyncio.create_task(service.start_streaming())
        await first(waiting, 1)
        await until(lambda: waiting.stats.buffered == 1, "a reader who is behind")
        running.cancel()
        await until(lambda: service.status().state is StreamingState.DRAINING, "it drains")
        running.cancel()
        async with patience("the end of an aborted service"):
            with pytest.raises(asyncio.CancelledError):
                await running
            assert service.status().state is StreamingState.FAILED
            # What it had is read to the end, and there is an end.
            assert all(item.sequence for item in await everything(waiting))


async def test_a_source_that_fails_for_good_ends_the_streams_and_is_raised_at_the_end_of_the_block() -> None:
    settings = load_settings(overrides={"modes": ["serve"], "monitoring.port": 0}).settings
    clock = ScaledClock(start_us=START_US, speed=1.0)
    service = IntegratedStreamingService(settings, inputs=Inputs((Feed("dead", Dead()),), clock))
    with pytest.raises(TaskFailed, match="no such exchange"):
        async with service.stream() as candles, service:
            assert await everything(candles) == []
    assert service.status().state is StreamingState.FAILED
    assert "no such exchange" in service.status().error


async def test_what_goes_wrong_in_the_block_is_not_hidden_by_what_goes_wrong_in_the_service() -> None:
    settings = load_settings(overrides={"modes": ["serve"], "monitoring.port": 0}).settings
    clock = ScaledClock(start_us=START_US, speed=1.0)
    service = IntegratedStreamingService(settings, inputs=Inputs((Feed("dead", Dead()),), clock))
    with pytest.raises(SourceUnavailable) as raised:
        async with service:
            raise SourceUnavailable("mine")
    assert any("no such exchange" in note for note in raised.value.__notes__)


async def test_a_port_that_is_taken_is_said_by_the_one_who_starts() -> None:
    async with fast() as service:
        port = int(service.url.rpartition(":")[2])
        with pytest.raises(ConfigError, match="cannot listen"):
            async with fast(overrides={"monitoring.port": port}):
                pytest.fail("it must not start")
        with pytest.raises(ConfigError, match="cannot listen"):
            await fast(overrides={"monitoring.port": port}).start_streaming()


async def test_two_services_of_one_process_do_not_meet() -> None:
    async with fast() as btc, fast(symbol="ETH-USDT") as eth:
        assert btc.url != eth.url
        async with btc.stream("15s") as one, eth.stream("15s") as other:
            assert {candle["symbol"] for candle in await first(one, 2)} == {"BTC-USDT"}
            assert {candle["symbol"] for candle in await first(other, 2)} == {"ETH-USDT"}


async def test_without_listening_no_port_is_opened() -> None:
    async with fast(listen=False, overrides={"monitoring.port": 1}) as service:
        async with service.stream("15s") as candles:
            assert len(await first(candles, 1)) == 1
        assert service.url == "" and service.health()["candles"] >= 1


async def test_nothing_of_the_process_is_touched() -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    policy, loggers = asyncio.get_event_loop_policy(), list(logging.getLogger().handlers)
    async with fast() as service, service.stream("15s") as candles:
        await first(candles, 1)
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == handlers
        assert asyncio.get_event_loop_policy() is policy and logging.getLogger().handlers == loggers


async def test_a_first_run_says_that_it_compiles(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(warmup, "is_warm", lambda: False)
    monkeypatch.setattr(warmup, "compile_kernels", lambda say: say("ohlcv"))
    async with fast():
        pass
    said = [record.message for record in caplog.records if record.name == integrated.__name__]
    assert said[0].startswith("First run on this machine") and said[-1].startswith("Compiled in")


async def test_marks_come_over_the_socket_of_the_service() -> None:
    async with (
        fast(timeframes=["15s"], overrides={"serve.service": "desk"}) as service,
        ClientSession() as session,
        session.ws_connect(f"{service.url}/ws", params={"channels": "candles:*,marks:*"}) as socket,
    ):
        last: dict[str, int] = {}
        intervals: list[Any] = []
        watermark: Any = None
        async with patience(lambda: f"a watermark and intervals, came {watermark}, {intervals}"):
            while watermark is None or len(intervals) < 3:
                message = await socket.receive_json()
                if message["type"] == "candle":
                    last["15s"] = message["sequence"]
                elif message["type"] == "interval":
                    intervals.append(message)
                elif message["channels"]:
                    watermark = message
        assert all(
            (each["complete"], each["service"], each["timeframe"]) == (True, "desk", "15s") for each in intervals
        )
        assert watermark["instrument_id"] == BTC and watermark["channels"]["15s"]["sequence"] <= last["15s"]
        assert watermark["watermark"] >= watermark["channels"]["15s"]["timestamp"] + 15_000_000


# Streams


async def test_streams_have_every_timeframe_of_the_service_unless_told_otherwise() -> None:
    service = fast(symbol=["BTC-USDT", "ETH-USDT"])
    async with service.stream() as all_of_it, service.stream("1m", symbol="ETH-USDT") as one, service:
        assert {(item["symbol"], item["timeframe"]) for item in await first(one, 2)} == {("ETH-USDT", "1m")}
        found: set[tuple[str, str]] = set()
        wanted = {(symbol, timeframe) for symbol in ("BTC-USDT", "ETH-USDT") for timeframe in ("15s", "1m")}
        async with patience(lambda: f"each of {wanted}, came {found}"):
            async for item in all_of_it:
                found.add((item["symbol"], item["timeframe"]))
                if len(found) == len(wanted):
                    break
    assert found == wanted


def test_a_stream_of_what_the_service_does_not_have_is_refused() -> None:
    service = fast()
    with pytest.raises(ConfigError, match="not an instrument of this service"):
        service.stream(symbol="ETH-USDT")
    with pytest.raises(ConfigError, match="a store"):
        service.stream(history=10)


async def test_streams_go_by_the_settings_of_their_service_and_read_no_others(tmp_path: Path) -> None:
    service = fast()
    (tmp_path / "streaming.yaml").write_text("nonsense: true\n")
    async with service.stream("15s") as candles, service:
        assert [candle["symbol"] for candle in await first(candles, 1)] == ["BTC-USDT"]


async def test_history_comes_from_what_the_service_keeps() -> None:
    kept = {"modes": ["serve", "persist"]}
    service = fast(overrides=kept)
    async with service.stream("15s") as candles, service:
        before = [item["timestamp"] for item in await first(candles, 3)]
    later = fast(overrides={**kept, "simulation.start": "2024-01-01T22:30:00Z"})
    async with later.stream("15s", history=500) as candles, later:
        found = [item["timestamp"] for item in await first(candles, 3)]
    assert found == before


# The same candles as anywhere else


def columns_of(store: Path, timeframe: str, rows: int) -> dict[str, list[Any]]:
    found = read_candles(store, BTC, timeframe, DAY, DAY).slice(0, rows).to_pydict()  # type: ignore[arg-type]
    return {name: values for name, values in found.items() if name != "timestamp_out"}


@pytest.mark.usefixtures("steady")
def test_candles_are_those_of_the_command_line_and_of_batch(tmp_path: Path) -> None:
    async def seen_for(duration: float) -> dict[int, Any]:
        async with service.stream("1m") as candles:
            await service.start_streaming(duration)
            return {item["timestamp"]: item for item in await everything(candles)}

    kept = {"modes": ["serve", "persist"], "persist.store_ticks": True}
    service = fast(overrides={**kept, "persist.path": str(tmp_path / "library")}, publish_open_candles=True)
    seen = asyncio.run(seen_for(1.5))
    (tmp_path / "cli.yaml").write_text(
        f"simulation: {{speed: 300x}}\nmonitoring: {{port: 0}}\npersist: {{path: {tmp_path / 'cli'}}}\n"
        "shutdown: {deadline: 10m}\n"
    )
    arguments = ["--config", "cli.yaml", "--symbol", "BTC-USDT", "--timeframes", "15s,1m", "--duration", "1.5"]
    assert main(["persist", *arguments]) == 0
    for timeframe, rows in (("15s", 12), ("1m", 3)):
        mine, theirs = (columns_of(tmp_path / name, timeframe, rows) for name in ("library", "cli"))
        assert len(mine["close"]) == rows and repr(mine) == repr(theirs)
    stored = read_candles(tmp_path / "library", BTC, "1m", DAY, DAY).to_pylist()  # type: ignore[arg-type]
    assert [row["close"] for row in stored] == [item["close"] for item in seen.values()]
    assert_equal_to_batch(tmp_path / "library", tmp_path / "again", ["15s", "1m"])


def assert_equal_to_batch(live: Path, again: Path, timeframes: list[str], day: date = DAY) -> None:
    again.mkdir()
    for folder in ("raw_tick_data", "gap_ledger"):
        shutil.copytree(live / folder, again / folder)
    days = ["--start-date", day.isoformat(), "--end-date", day.isoformat()]
    arguments = ["batch", "candle-processing", "--store", str(again), *days, "--timeframes", *timeframes]
    assert main(arguments) == 0
    found = compare_stores(live, again)
    assert found.same, found.verdict
    assert sum(map(len, read_raw_ticks(live, day, DataType.TRADES, BTC))) > 0


@asynccontextmanager
async def exchange_service(tmp_path: Path) -> AsyncIterator[IntegratedStreamingService]:
    clock = ScaledClock(start_us=START_US, speed=20.0, base=SteadyClock())
    async with SimulatedExchange("binance", ["BTCUSDT"], clock=clock, seed=1, rates=RATES) as exchange:
        await clock.sleep(6.0)
        settings = live_settings(tmp_path, exchange, [BTC], modes=["serve", "persist"], **SOUND)
        yield IntegratedStreamingService(settings, wall=clock, publish_open_candles=True)


async def test_candles_of_an_exchange_over_its_sockets_are_those_of_batch(tmp_path: Path) -> None:
    async with exchange_service(tmp_path) as service, service.stream("15s") as candles, service:
        seen = await first(candles, 4)
        assert all(candle.quality and candle.sequence for candle in seen)
    times = [candle["timestamp"] for candle in seen if not candle.is_revision]
    assert times and times == sorted(times)
    assert_equal_to_batch(tmp_path / "store", tmp_path / "again", ["15s", "1m", "5m"], date(2024, 1, 1))


# Documentation


def examples() -> Iterator[Any]:
    yield from doctest.DocTestFinder(recurse=False).find(
        create_integrated_streaming_service, "create_integrated_streaming_service", integrated
    )


def test_the_example_of_the_documentation_does_what_it_says() -> None:
    (example,) = examples()
    results = doctest.DocTestRunner().run(example)
    assert results.attempted >= 4 and results.failed == 0

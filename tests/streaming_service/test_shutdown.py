"""A stop drains sources, then pipelines, then sinks; it ends in time, and what it could not write it says."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from market_data_tick_handler.config import load_settings
from market_data_tick_handler.core.events import Event, Rows
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.storage.candle_files import read_candles
from market_data_tick_handler.testing import ManualClock, trades
from streaming_service.app import Service
from streaming_service.feeds import Inputs
from streaming_service.ingest import Feed
from streaming_service.lifecycle import DrainTimeout
from streaming_service.sink import SinkItem
from streaming_service.supervisor import NO_RESTART, RestartPolicy, Supervisor, TaskFailed
from tests.waiting import PATIENCE_S, wait_until

BTC = "BINANCE:SPOT_PAIR:BTC-USDT"
T0 = 1_704_067_200_000_000
SECOND = 1_000_000
# A process that finds no kernels in the cache makes them first.
COMPILED_S = 5 * PATIENCE_S

PROGRAM = """
import asyncio, sys
from market_data_tick_handler.config import load_settings
from streaming_service.app import Service
from streaming_service.process import run
from streaming_service.logging_setup import configure_logging

class Stuck:
    async def open(self): pass
    async def write(self, batch): await asyncio.Event().wait()
    async def flush(self): pass
    async def aclose(self): pass

configure_logging()
overrides = {"simulation.speed": 100, "simulation.rate": 2, "monitoring.port": 0, "persist.path": sys.argv[1],
             "shutdown.deadline": sys.argv[2]}
sinks = {"stuck": Stuck()} if sys.argv[3] == "stuck" else {}
sys.exit(run(Service(load_settings(overrides=overrides).settings, terminal=sys.stdout, sinks=sinks)))
"""


class Log:
    """The lines of a process, as they come."""

    def __init__(self, stream: Any) -> None:
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._reader.start()

    def wait_for(self, pattern: str) -> str:
        wait_until(
            lambda: self._find(pattern) or not self._reader.is_alive(),
            lambda: f"no line with {pattern!r} in {self._lines}",
            within_s=COMPILED_S,
        )
        line = self._find(pattern)
        assert line is not None, f"the process ended without a line with {pattern!r}: {self._lines}"
        return line

    def close(self) -> None:
        """Return when the process has no more to say, which it has not once it ended."""
        self._reader.join(PATIENCE_S)

    def _find(self, pattern: str) -> str | None:
        return next((line for line in self._lines if re.search(pattern, line)), None)

    def _read(self, stream: Any) -> None:
        with stream:
            self._lines.extend(stream)


class Running:
    """The service as a process of its own."""

    def __init__(self, out: Path, *, deadline: str = "10m", sinks: str = "none") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(out), deadline, sinks],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "PYTHONUTF8": "1"},
        )  # fmt: skip
        self.out, self.err = Log(self.process.stdout), Log(self.process.stderr)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def exit_code(self) -> int:
        return self.process.wait(PATIENCE_S)


@pytest.fixture
def running(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Running]:
    service = Running(tmp_path, **getattr(request, "param", {}))
    yield service
    if service.process.poll() is None:
        service.process.kill()
        service.process.wait()
    service.out.close()
    service.err.close()


class Tracing:
    """A sink that notes when it was closed; `stuck` never finishes a write."""

    def __init__(self, events: list[str], *, stuck: bool = False) -> None:
        self._events = events
        self._stuck = stuck

    async def open(self) -> None: ...

    async def write(self, batch: SinkItem) -> None:
        if self._stuck:
            await asyncio.Event().wait()
        self._events.append("candle")

    async def flush(self) -> None:
        self._events.append("flushed")

    async def aclose(self) -> None:
        self._events.append("sink closed")


class Endless:
    """A source that has given everything and stays connected."""

    def __init__(self, events: list[str]) -> None:
        self._events = events

    async def events(self) -> AsyncIterator[list[Event]]:
        try:
            yield [Rows(BTC, trades(100.0 + np.arange(40.0), start_us=T0))]
            await asyncio.Event().wait()
        finally:
            self._events.append("source closed")


def service(tmp_path: Path, events: list[str], *, stuck: bool = False, deadline: str = "10m") -> Service:
    chosen = {"monitoring.port": 0, "modes": ["serve"], "shutdown.deadline": deadline, "instruments": [BTC]}
    settings = load_settings(overrides=chosen).settings
    inputs = Inputs((Feed("endless", Endless(events)),), ManualClock(T0 + 41 * SECOND))
    return Service(settings, inputs=inputs, sinks={"tracing": Tracing(events, stuck=stuck)})


async def stopped(running_service: Service) -> None:
    """Run, and ask to stop after the first candles."""
    stop = asyncio.Event()
    candles = running_service.bus.subscribe()
    running = asyncio.create_task(running_service.run(stop))
    await anext(candles)
    candles.close()
    stop.set()
    await running


async def test_the_source_is_closed_first_and_the_sink_last(tmp_path: Path) -> None:
    events: list[str] = []
    await stopped(service(tmp_path, events))
    assert [event for event in events if event != "candle"] == ["source closed", "flushed", "sink closed"]
    assert events.count("candle") >= 1


async def test_a_sink_that_never_ends_costs_the_deadline_and_the_loss_is_told(tmp_path: Path) -> None:
    stuck = service(tmp_path, [], stuck=True, deadline="50ms")
    with pytest.raises(DrainTimeout, match=r"rows left behind per sink: {'tracing': 2}; raise shutdown\.deadline"):
        await stopped(stuck)
    counters = stuck.health_report()["sinks"]["tracing"]
    assert counters["put"] == counters["failed"] + counters["written"] == 2


async def test_a_service_that_drains_is_not_ready(tmp_path: Path) -> None:
    done = service(tmp_path, [])
    await stopped(done)
    assert done.health_report()["draining"]


async def test_the_duration_ends_a_run(tmp_path: Path) -> None:
    events: list[str] = []
    await service(tmp_path, events).run(duration_s=0.01)
    assert events[-1] == "sink closed"


def test_sigterm_drains_and_exits_with_0(running: Running, tmp_path: Path) -> None:
    running.out.wait_for(r" 1m \|")
    running.signal(signal.SIGTERM)
    running.err.wait_for("service stopped")
    assert running.exit_code() == 0
    candles = int(re.search(r"candles=(\d+)", running.err.wait_for("service stopped"))[1])  # type: ignore[index]
    day = date(2024, 1, 1)
    stored = [read_candles(tmp_path, BTC, timeframe, day, day).num_rows for timeframe in (Timeframe.S15, Timeframe.M1)]
    assert 0 < sum(stored) <= candles


@pytest.mark.parametrize("running", [{"sinks": "stuck"}], indirect=True)
def test_a_second_signal_aborts_a_drain_that_hangs(running: Running) -> None:
    running.out.wait_for(r" 15s \|")
    running.signal(signal.SIGINT)
    running.err.wait_for("service stops")
    running.signal(signal.SIGINT)
    running.err.wait_for("aborted")
    assert running.exit_code() == 1


async def test_a_task_restarts_until_its_budget_is_used_up() -> None:
    clock = ManualClock(auto=True)
    supervisor = Supervisor(clock)

    async def fail() -> None:
        raise OSError("no")

    with pytest.raises(TaskFailed, match="4 times in a row"):
        await supervisor.supervise("x", fail, RestartPolicy(budget=3, base_s=1.0, cap_s=2.0))
    assert (supervisor.failures, supervisor.restarts) == ({"x": 4}, {"x": 3})
    assert clock.monotonic_s() <= 1.0 + 2.0 + 2.0


async def test_a_task_that_ran_well_for_long_has_a_fresh_budget() -> None:
    clock = ManualClock(auto=True)
    runs: list[int] = []

    async def fail_late() -> None:
        runs.append(1)
        await clock.sleep(100.0)
        if len(runs) < 10:
            raise OSError("no")

    await Supervisor(clock).supervise("x", fail_late, RestartPolicy(budget=1, stable_s=60.0))
    assert len(runs) == 10


async def test_a_task_without_restarts_fails_at_once() -> None:
    async def fail() -> None:
        raise ValueError("bug")

    with pytest.raises(TaskFailed, match="bug"):
        await Supervisor(ManualClock()).supervise("x", fail, NO_RESTART)

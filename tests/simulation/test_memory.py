"""Memory of a long run: flat after warm-up, however much the market has said by then."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from market_data_tick_handler.core.instruments import parse_instrument_key
from market_data_tick_handler.core.options import PipelineOptions
from market_data_tick_handler.core.pipeline import Pipeline
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.testing import ManualClock
from streaming_service.sources.simulated import SimulatedSource

KEY: Final = "BINANCE:SPOT_PAIR:BTC-USDT"
START_US: Final = 1_704_144_600_000_000  # 2024-01-01 21:30 UTC: the run crosses a midnight
MINUTE_US: Final = 60_000_000
TRADES_PER_SECOND: Final = 50.0
HOURS: Final = 2
FLAT: Final = 0.05
DEADLINE_S: Final = 600

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads resident memory from /proc")


def resident_bytes(process: int | str = "self") -> int:
    """Memory of its own, wherever the kernel keeps it: a machine that is short of memory writes some of it to disk, and
    drops pages of programs, which are in files anyway."""
    lines = (line.split() for line in Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines())
    return sum(int(words[1]) * 1_024 for words in lines if words[0] in ("RssAnon:", "VmSwap:"))


def environment(repository: Path) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("MARKET_DATA_")}
    return {**own, "PYTHONPATH": os.pathsep.join([str(repository), *(path for path in sys.path if path)])}


def assert_flat(samples: list[int], *, warm_up: int) -> None:
    """From sample `warm_up` on resident memory stays within 5 % of its middle."""
    low, high = min(samples[warm_up:]), max(samples[warm_up:])
    assert (high - low) / (high + low) <= FLAT, [round(resident / 1e6) for resident in samples]


def test_two_hours_of_trades_leave_the_pipeline_as_large_as_the_first_minutes(repository: Path) -> None:
    """In a process of its own: what other tests freed would hide growth here."""
    command = [sys.executable, str(Path(__file__).resolve())]
    ended = subprocess.run(
        command, env=environment(repository), capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert ended.returncode == 0, ended.stderr
    said = json.loads(ended.stdout)
    assert said["trades"] > 0.9 * HOURS * 3_600 * TRADES_PER_SECOND
    # Every 15s, 1m and 5m candle of two hours, and the first two hours of 15m and 1h ones.
    assert said["candles"] >= HOURS * (240 + 60 + 12 + 4 + 1) - 5
    assert len(said["resident"]) == HOURS * 6
    assert_flat(said["resident"], warm_up=2)


@pytest.mark.soak
@pytest.mark.parametrize("speed", ["2000x", "max"])
def test_a_day_through_the_service_holds_its_memory(speed: str, tmp_path: Path, repository: Path) -> None:
    """`tick-handler stream` with its usual sinks, also where the market is faster than they are; sampled at each
    closed 15m candle, after six hours, in which the first midnight lies."""
    settings = {
        "instruments": [KEY],
        "simulation": {"rate": TRADES_PER_SECOND, "speed": speed, "start": "2024-01-01T21:30:00Z"},
        "persist": {"path": str(tmp_path / "store")},
        "monitoring": {"port": 0},
        "logging": {"level": "error"},
    }
    path = tmp_path / "settings.yaml"
    path.write_text(json.dumps(settings), encoding="utf-8")
    command = [sys.executable, "-m", "market_data_tick_handler", "stream", "--config", str(path)]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment(repository), stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )
    try:
        assert process.stdout is not None
        samples = []
        for _ in quarters(process.stdout):
            samples.append(resident_bytes(process.pid))
            if len(samples) == 96:
                break
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
        assert process.wait(DEADLINE_S) == 0
    finally:
        process.kill()
        process.wait()
    assert len(samples) == 96
    assert_flat(samples, warm_up=24)


def quarters(lines: Iterator[str]) -> Iterator[str]:
    return (line for line in lines if " 15m | " in line and " r1 " not in line)


async def watch_pipeline() -> dict[str, object]:
    """Feed two hours as a live run does, and look at resident memory every ten simulated minutes."""
    source = SimulatedSource(
        [KEY], clock=ManualClock(auto=True), start_us=START_US, trades_per_second=TRADES_PER_SECOND, speed=None,
        duration_s=HOURS * 3_600.0,
    )  # fmt: skip
    pipeline = Pipeline(parse_instrument_key(KEY), PipelineOptions())
    resident: list[int] = []
    candles = 0
    async for events in source.events():
        pipeline.feed(events)
        pipeline.advance(source.fed_until_us)
        candles += sum(map(len, pipeline.outputs()))
        if source.fed_until_us - START_US >= (len(resident) + 1) * 10 * MINUTE_US - 1:
            resident.append(resident_bytes())
    return {"trades": pipeline.counters[DataType.TRADES].accepted, "candles": candles, "resident": resident}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(watch_pipeline())))

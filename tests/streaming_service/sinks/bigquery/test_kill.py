"""kill -9 at random moments, with a faulty connection: the rows in the tables are the rows that were produced."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.streaming_service.sinks.bigquery import fault_proxy as faults
from tests.streaming_service.sinks.bigquery.conftest import Place
from tests.streaming_service.sinks.bigquery.world import until

_FAULTS = (
    faults.DROP_BEFORE,
    faults.DROP_AFTER,
    faults.EXHAUSTED,
    faults.UNAVAILABLE_ANSWER,
    faults.FINALIZE_BEFORE,
    faults.FINALIZE_AFTER,
)
_QUIET = 200


def start(repository: Path, directory: Path) -> subprocess.Popen[bytes]:
    with (directory / "producer.log").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.streaming_service.sinks.bigquery.producer", str(directory)],
            cwd=repository,
            stdout=output,
            stderr=output,
        )


async def live_for(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Let the process run, and see that it does."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert process.poll() is None, "the producer ended by itself"
        await asyncio.sleep(0.02)


async def kill_and_restart(place: Place, repository: Path, directory: Path, kills: int, seed: int, method: str) -> None:
    chance = random.Random(seed)
    chosen = place.settings(write_method=method, request_timeout="3s")
    (directory / "settings.json").write_text(chosen.model_dump_json())
    for _ in range(kills):
        place.proxy.faults.extend(chance.choice(_FAULTS) if chance.random() < 0.4 else "" for _ in range(8))
        process = start(repository, directory)
        await live_for(process, chance.uniform(2.0, 6.0))
        process.send_signal(signal.SIGKILL)
        process.wait()
    place.proxy.faults.clear()
    process = start(repository, directory)
    appended = sum(place.proxy.appends.values())
    await until(lambda: sum(place.proxy.appends.values()) > appended + 2, within_s=60)
    (directory / "stop").touch()
    await until(lambda: process.poll() is not None, within_s=60)
    assert process.returncode == 0, (directory / "producer.log").read_text()[-2000:]


def check(place: Place, directory: Path) -> None:
    produced, ticks = int((directory / "produced").read_text()), int((directory / "ticks").read_text())
    assert place.numbers("candles_1m", "open") == [index + 0.5 for index in range(produced)]
    assert place.numbers("ticks_trades", "price") == list(range(ticks))
    assert produced > _QUIET // 10 and ticks > _QUIET // 10


@pytest.mark.parametrize("method", ["committed", "pending"])
async def test_no_row_is_lost_or_doubled_by_kills(place: Place, repository: Path, tmp_path: Path, method: str) -> None:
    """Five kills at seeded moments of a process that writes candles and ticks through a faulty connection."""
    await kill_and_restart(place, repository, tmp_path, 5, seed=len(method), method=method)
    check(place, tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(20))
async def test_no_row_is_lost_or_doubled_by_many_kills(
    place: Place, repository: Path, tmp_path: Path, seed: int
) -> None:
    """Two hundred kills in all."""
    await kill_and_restart(place, repository, tmp_path, 10, seed=seed, method=("committed", "pending")[seed % 2])
    check(place, tmp_path)

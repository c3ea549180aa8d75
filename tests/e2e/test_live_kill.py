"""A live service killed with SIGKILL at random moments: nothing published is ever contradicted, nothing is lost."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import ClientSession

from market_data_tick_handler.commands.stored_candles import CandleFile, candle_files, read_columns
from market_data_tick_handler.storage.gap_ledger import read_gaps
from market_data_tick_handler.storage.paths import day_of
from market_data_tick_handler.testing.exchange import Cut, SimulatedExchange
from streaming_service.clock import ScaledClock
from tests.conftest import REPOSITORY
from tests.e2e.live import RATES, START_US, compared_with_batch, live_settings
from tests.servers.ports import free_port
from tests.steady_clock import KeptClock
from tests.waiting import patience, until

pytestmark = pytest.mark.alone

BTC = "BINANCE:SPOT_PAIR:BTC-USDT"
SPEED = 12.0
# What a busy machine does is no reason to doubt the feed here, where processes die.
PATIENT = {"exchange.shortest_silence": "30s", "exchange.pong_timeout": "30s"}


@asynccontextmanager
async def child(settings: Path, kept: KeptClock, out: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A service process that lives by the clock kept here; killed at the end unless it has ended."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.e2e.live_child", str(settings), str(kept.path), str(SPEED), str(out),
        cwd=REPOSITORY, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        kept.alone()


def published(out: Path) -> list[dict[str, Any]]:
    """Whole lines only: the last may be on its way, or have been when the process was killed."""
    lines = out.read_text().splitlines(keepends=True) if out.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


async def until_published(out: Path, count: int, clock: ScaledClock) -> None:
    def there() -> str:
        return f"{count} candles, came {len(published(out))} up to {clock.now_us() - START_US} us"

    # The kernels may have to be compiled first.
    await until(lambda: len(published(out)) >= count, there, within_s=300.0, poll_s=0.05)


async def until_repaired(port: int, restarts: int) -> None:
    """Until nothing is missing of what the restarts and the cuts cost, however slow the machine is."""
    gaps: list[dict[str, Any]] = []
    async with ClientSession() as session:

        async def mended() -> bool:
            async with session.get(f"http://127.0.0.1:{port}/api/gaps", params={"instrument": BTC}) as answer:
                gaps[:] = (await answer.json())["gaps"]
            ended = [gap["reason"] for gap in gaps if gap["ending"] != "open"]
            left = [gap for gap in gaps if gap["ending"] == "open" and gap["reason"] != "service started"]
            return not left and ended.count("service restarted") >= restarts

        await until(mended, lambda: gaps, poll_s=0.05)


def opened_us(store: Path, file: CandleFile) -> list[int]:
    """When the candles of one file opened; of a file that the store does not have, none."""
    return read_columns(store, file)["timestamp"].tolist() if file in candle_files(store) else []


@pytest.mark.parametrize("seed", range(2))
async def test_killed_at_random_moments_the_service_ends_with_what_batch_computes(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    kept = KeptClock(tmp_path / "clock")
    clock = ScaledClock(start_us=START_US, speed=SPEED, base=kept, origin_s=0.0)
    out = tmp_path / "published.jsonl"
    async with SimulatedExchange("binance", ["BTCUSDT"], clock=clock, seed=seed, rates=RATES) as exchange:
        port = free_port()
        chosen = live_settings(
            tmp_path, exchange, [BTC], **{"monitoring.port": port, "modes": ["serve", "persist"], **PATIENT}
        )
        settings = tmp_path / "settings.yaml"
        settings.write_text(yaml.safe_dump(json.loads(chosen.model_dump_json(exclude_defaults=True))))
        for _ in range(3):
            before = len(published(out))
            async with child(settings, kept, out):
                await until_published(out, before + 1, clock)
                if rng.random() < 0.5:
                    exchange.inject(Cut(duration_s=rng.uniform(1, 5)))
                await clock.sleep(rng.uniform(0.0, 30.0))
        before = len(published(out))
        async with child(settings, kept, out) as process:
            await until_published(out, before + 3, clock)
            await until_repaired(port, 3)
            # Trades of the last seconds may be on their way when it stops.
            whole_until_us = clock.now_us() - 15_000_000
            process.send_signal(signal.SIGTERM)
            async with patience("the end of the service"):
                assert await process.wait() == 0
        truth = exchange.truth("BTCUSDT")
    contents: dict[tuple[str, int, int], str] = {}
    numbers: dict[tuple[str, int], str] = {}
    for row in published(out):
        identity = (row["timeframe"], row["timestamp"], row["revision"])
        assert contents.setdefault(identity, row["digest"]) == row["digest"], identity
        number = (row["timeframe"], row["sequence"])
        assert numbers.setdefault(number, row["digest"]) == row["digest"], number
    found = await asyncio.to_thread(compared_with_batch, tmp_path, ["15s", "1m", "5m"])
    # The candles that could not be closed any more are in the batch alone.
    assert set(found.kinds) <= {"only in B"} and found.equal > 0, (found.kinds, found.first)
    day = day_of(START_US)
    unsettled = [gap for gap in read_gaps(tmp_path / "store", BTC, day, day) if not gap.backfilled]
    stopped_us = next(gap.from_us for gap in unsettled if gap.reason == "service stopped")
    for file in candle_files(tmp_path / "again"):
        stored = set(opened_us(tmp_path / "store", file))
        missing = [opened for opened in opened_us(tmp_path / "again", file) if opened not in stored]
        assert all(opened + file.timeframe.us + chosen.candles.grace_us > stopped_us for opened in missing), missing
    for file in candle_files(tmp_path / "store"):
        columns = read_columns(tmp_path / "store", file)
        for opened, quality in zip(columns["timestamp"].tolist(), columns["quality"].tolist(), strict=True):
            assert quality in {"GAPPED", "PARTIAL", "REPAIRED", "COMPLETE"}
            # What the start and the end of the service, or a gap in its very last seconds, have left.
            missed = any(gap.from_us < opened + file.timeframe.us and gap.to_us > opened for gap in unsettled)
            assert missed or quality in {"REPAIRED", "COMPLETE"}, (file.timeframe, opened, quality)
        if file.timeframe == "15s":
            counts = list(zip(columns["timestamp"].tolist(), columns["trade_count"].tolist(), strict=True))
            # The first began before the service.
            for opened, trades in [count for count in counts[1:] if count[0] + 15_000_000 <= whole_until_us]:
                inside = (truth["timestamp"] >= opened) & (truth["timestamp"] < opened + 15_000_000)
                assert trades == int(inside.sum()), ((opened - START_US) / 1e6, (whole_until_us - START_US) / 1e6)

"""How long it takes from the end of an outage to the candle that has no hole any more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.measure import in_child
from benchmarks.results import Result

GOAL_S = 5.0
CUT_S = 2.0
# So far into its candle a cut begins: the candle is published with its hole before it can be repaired.
_CUT_AT_S = 11.0
_CANDLE_S = 15.0
_SYMBOL, _KEY = "BTCUSDT", "BINANCE:SPOT_PAIR:BTC-USDT"


def run(quick: bool) -> Iterator[Result]:
    """A whole service at a simulated exchange, in real time; its connection is cut, and REST goes on."""
    with TemporaryDirectory(prefix="benchmark-") as root:
        found = in_child("benchmarks.repair:measure", {"root": root, "cuts": 1 if quick else 4})
    seconds = [each["repaired_s"] for each in found]
    yield Result(
        benchmark="repair",
        what=f"connection cut for {CUT_S:.0f} s, {len(found)} times: from the new connection to the repaired candle",
        measured=f"{median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f})",
        goal=f"<= {GOAL_S:.0f} s",
        ok=max(seconds) <= GOAL_S,
    )


def measure(root: str, cuts: int) -> list[dict[str, Any]]:
    """Per cut the seconds from the new connection, when the missing trades can be asked for, to the repaired candle."""
    from market_data_tick_handler.core import warmup

    # What the service has to say of the cut is no news here.
    logging.disable(logging.WARNING)
    warmup.compile_kernels()
    return asyncio.run(_measure(Path(root), cuts))


async def _measure(root: Path, cuts: int) -> list[dict[str, Any]]:
    from market_data_tick_handler.testing.exchange import Cut
    from streaming_service.clock import SECOND_US, ScaledClock
    from tests.e2e.live import START_US, running

    candle_us = int(_CANDLE_S * SECOND_US)
    clock = ScaledClock(start_us=START_US, speed=1.0)
    found = []
    async with running(root, "binance", [_SYMBOL], [_KEY], clock=clock) as run:
        for number in range(1, cuts + 1):
            open_us = START_US // candle_us * candle_us + number * candle_us
            await clock.sleep((open_us - clock.now_us()) / SECOND_US + _CUT_AT_S)
            run.exchange.inject(Cut(duration_s=CUT_S))
            await run.until(lambda: run.exchange.open_connections == 0)
            await run.until(lambda: run.exchange.open_connections == 1)
            connected_us = clock.now_us()
            row = await run.seen.until(_is_repaired(open_us))
            found.append(
                {
                    "repaired_s": (clock.now_us() - connected_us) / SECOND_US,
                    "revision": row["revision"],
                    "trades": row["trade_count"],
                }
            )
    return found


def _is_repaired(open_us: int) -> Any:
    def wanted(row: dict[str, Any]) -> bool:
        return bool(row["timeframe"] == "15s" and row["timestamp"] == open_us and row["quality"] == "REPAIRED")

    return wanted

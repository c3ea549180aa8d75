"""The marks of a service are true: nothing is said of candles that are still on their way."""

from __future__ import annotations

import asyncio
from pathlib import Path

from market_data_tick_handler.config import load_settings
from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.testing import ManualClock, ScriptedSource, trades
from streaming_service.app import Service
from streaming_service.feeds import Inputs
from streaming_service.ingest import Feed
from streaming_service.sink import SinkItem

BTC = "BINANCE:SPOT_PAIR:BTC-USDT"
T0 = 1_704_067_200_000_000
SECOND = 1_000_000
# A drain takes as long as the machine does.
UNHURRIED = {"shutdown.deadline": "10m"}


class Stuck:
    """A sink for ticks that takes nothing until it is let go."""

    def __init__(self) -> None:
        self.free = asyncio.Event()

    async def open(self) -> None: ...

    async def write(self, batch: SinkItem) -> None:
        await self.free.wait()

    async def flush(self) -> None: ...

    async def aclose(self) -> None: ...


def tick(second: float, number: int) -> list[Rows]:
    return [Rows(BTC, trades([100.0], start_us=T0 + int(second * SECOND), first_id=number))]


async def test_there_is_no_watermark_while_a_turn_is_held_up_in_the_middle(tmp_path: Path) -> None:
    clock = ManualClock(T0)
    steps: list[object] = []
    for number in range(1, 100):
        steps += [0.1, tick(number * 0.1, number)]
    source = ScriptedSource([*steps, 1_000.0], sleep=clock.sleep)  # type: ignore[list-item]
    chosen = {"modes": ["serve"], "instruments": [BTC], "persist.path": str(tmp_path), **UNHURRIED}
    settings = load_settings(overrides=chosen, environment={}).settings
    stuck, stop = Stuck(), asyncio.Event()
    service = Service(
        settings,
        inputs=Inputs((Feed("live", source),), clock),
        tick_sinks={"stuck": stuck},
        wall=clock,
        listen=False,
    )
    running = asyncio.create_task(service.run(stop))
    await service.started.wait()
    counters = service.outputs.serving.hub.counters
    await clock.advance(4.0)
    assert counters.marks >= 3
    await clock.advance(6.0)
    held = counters.marks
    await clock.advance(5.0)
    assert counters.marks == held
    stuck.free.set()
    await clock.advance(3.0)
    assert counters.marks >= held + 2
    stop.set()
    await running


async def test_marks_end_with_a_service_that_only_stores(tmp_path: Path) -> None:
    """Nobody could hear them."""
    clock = ManualClock(T0)
    chosen = {"modes": ["persist"], "instruments": [BTC], "persist.path": str(tmp_path), **UNHURRIED}
    settings = load_settings(overrides=chosen, environment={}).settings
    source = ScriptedSource([1.0, tick(1.0, 1), 1_000.0], sleep=clock.sleep)
    service = Service(settings, inputs=Inputs((Feed("live", source),), clock), wall=clock, listen=False)
    stop = asyncio.Event()
    running = asyncio.create_task(service.run(stop))
    await service.started.wait()
    await clock.advance(5.0)
    assert service.outputs.serving.hub.counters.marks == 0
    stop.set()
    await running

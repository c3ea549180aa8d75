"""The demo: a simulated exchange with a few faults, many times faster than real time, on a service like any other."""

from __future__ import annotations

from pathlib import Path
from typing import Final, TextIO

from market_data_tick_handler.config import Settings
from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.timeframes import Timeframe
from streaming_service.app import Service
from streaming_service.clock import ScaledClock
from streaming_service.feeds import Inputs
from streaming_service.ingest import Feed
from streaming_service.sink import SinkItem
from streaming_service.sinks.tables.metering import MeteredTables
from streaming_service.sinks.terminal import TerminalSink
from streaming_service.sources.simulated import Disconnected, Fault, SimulatedSource, demo_faults

INSTRUMENTS: Final = ("BINANCE:SPOT_PAIR:BTC-USDT",)
# At 200x a 15s candle closes every 75 ms; one in so many is enough to see what they look like.
SHOWN_15S_EVERY: Final = 20
# 00:05:05 by a clock that starts at 21:30.
OUTAGE_AT_S: Final = 9_305.0


class DemoTerminal:
    """A terminal sink that leaves most 15s candles out, and every later revision of a candle that it left out."""

    def __init__(self, inner: TerminalSink) -> None:
        self.left_out = 0
        self._inner = inner

    async def open(self) -> None:
        await self._inner.open()

    async def write(self, batch: SinkItem) -> None:
        if not isinstance(batch, CandleBatch):
            return
        if batch.timeframe is Timeframe.S15:
            step_us = SHOWN_15S_EVERY * batch.timeframe.us
            shown = batch["timestamp"] % step_us == 0
            self.left_out += len(batch) - int(shown.sum())
            batch = batch.replace(**{name: column[shown] for name, column in batch.columns.items()})
        await self._inner.write(batch)

    async def flush(self) -> None:
        await self._inner.flush()

    async def aclose(self) -> None:
        await self._inner.aclose()


def demo_settings(*, out: Path, seed: int, speed: float, port: int) -> Settings:
    """Settings of the demo: nothing is read from files or the environment, so that it is the same everywhere."""
    return Settings(
        instruments=INSTRUMENTS,
        simulation={"seed": seed, "speed": speed},
        persist={"path": str(out), "store_ticks": True},
        monitoring={"port": port},
    )


def _faults() -> tuple[Fault, ...]:
    """The disconnect comes after midnight: until then 4h and 24h candles show what a late start alone does to them."""
    kept = (fault for fault in demo_faults() if not isinstance(fault, Disconnected))
    return (*kept, Disconnected(at_s=OUTAGE_AT_S, for_s=8.0))


def demo_service(settings: Settings, terminal: TextIO) -> tuple[Service, DemoTerminal, MeteredTables]:
    """The service of the demo, its terminal, and what the run would have taken in BigQuery, in batches by the minutes
    of the simulation. The simulated clock starts when this is called."""
    simulation = settings.simulation
    clock = ScaledClock(start_us=simulation.start_us, speed=simulation.speed)
    source = SimulatedSource(
        settings.instruments,
        clock=clock,
        start_us=simulation.start_us,
        seed=simulation.seed,
        trades_per_second=simulation.rate,
        faults=_faults(),
    )
    shown = DemoTerminal(TerminalSink(grace_us=settings.candles.grace_us, speed=simulation.speed, stream=terminal))
    groups = [str(group) for group in settings.features.groups]
    metered = MeteredTables(settings.persist.bigquery, groups=groups, clock=clock)
    service = Service(
        settings,
        inputs=Inputs((Feed("simulated", source, recorded=True),), clock, simulation.speed),
        sinks={"terminal": shown, "metered": metered},
        publish_open_candles=True,
    )
    return service, shown, metered

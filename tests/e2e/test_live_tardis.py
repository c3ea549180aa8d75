"""A tardis-machine as the live source, and the exchange itself where the machine is down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from market_data_tick_handler.core.events import GapEnding
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.testing.exchange import SimulatedExchange
from market_data_tick_handler.testing.tardis import Drop, Step, TardisMachineServer
from streaming_service.clock import ScaledClock
from tests.e2e.live import RATES, Running, assert_whole, compared_with_batch, market_clock, serving

pytestmark = pytest.mark.alone

BTC = "BINANCE:SPOT_PAIR:BTC-USDT"
S = 1_000_000
TRADES_ONLY = {f"data_types.{data_type}.enabled": data_type is DataType.TRADES for data_type in DataType}


def iso(time_us: int) -> str:
    return datetime.fromtimestamp(time_us / S, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Machine:
    """What a tardis-machine at the simulated exchange would say; while it is down, connections end, and new ones are
    refused."""

    def __init__(self, exchange: SimulatedExchange, clock: ScaledClock) -> None:
        self.exchange, self.clock = exchange, clock
        self.down = False

    async def script(self) -> AsyncIterator[Step]:
        told = len(self.exchange.truth("BTCUSDT"))
        while not self.down:
            await self.clock.sleep(0.1)
            truth = self.exchange.truth("BTCUSDT")
            for index in range(told, len(truth)):
                yield self.trade(truth, index)
            told = len(truth)
        yield Drop()

    def trade(self, truth: Any, index: int) -> Step:
        at_us = int(truth["timestamp"][index])
        return {
            "type": "trade",
            "symbol": "BTCUSDT",
            "exchange": "binance",
            "id": str(int(truth["id"][index])),
            "price": float(truth["price"][index]),
            "amount": float(truth["amount"][index]),
            "side": "buy" if truth["side"][index] > 0 else "sell",
            "timestamp": iso(at_us),
            "localTimestamp": iso(at_us),
        }


class MachineServer(TardisMachineServer):
    """Where a machine is found. One that let clients in and dropped them would be up for a moment each time."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine.script)
        self._machine = machine

    async def _connect(self, request: web.Request) -> web.StreamResponse:
        return web.Response(status=503) if self._machine.down else await super()._connect(request)


def feed(run: Running) -> dict[str, Any]:
    return next(iter(run.service.health_report()["sources"].values()))


def gaps(run: Running) -> list[Any]:
    return [gap for gap in run.service.pipelines[BTC].gaps if gap.reason == "disconnect"]


async def test_the_exchange_stands_in_while_the_machine_is_down_and_the_machine_comes_back(tmp_path: Path) -> None:
    clock = market_clock(10.0)
    async with SimulatedExchange("binance", ["BTCUSDT"], clock=clock, seed=3, rates=RATES) as exchange:
        machine = Machine(exchange, clock)
        async with (
            MachineServer(machine) as server,
            serving(
                tmp_path,
                exchange,
                [BTC],
                clock,
                **TRADES_ONLY,
                **{
                    "data_types.trades.source": "tardis_realtime",
                    "data_types.trades.fallback": ["exchange"],
                    "tardis.machine_url": server.url,
                    # Far beyond what connecting takes: only what the test does to the machine is an outage.
                    "failover.after": "20s",
                    "failover.back_after": "10s",
                },
            ) as run,
        ):
            await run.until(lambda: feed(run)["active"] == "tardis_realtime" and run.seen.rows)
            switches = feed(run)["switches"]
            machine.down = True
            await run.until(lambda: feed(run)["active"] == "exchange", lambda: feed(run))
            taken_over_us = clock.now_us()
            await run.until_ready()
            machine.down = False
            await run.until(lambda: feed(run)["active"] == "tardis_realtime", lambda: feed(run))
            assert feed(run)["switches"] == switches + 2
            await run.until_time(taken_over_us + 50 * S)
            assert run.service.accounts[BTC, DataType.TRADES].balances
            await run.until(
                lambda: bool(gaps(run)) and all(gap.ending is not GapEnding.OPEN for gap in gaps(run)),
                lambda: gaps(run),
            )
            await assert_whole(run, "BTCUSDT", BTC)
    found = await asyncio.to_thread(compared_with_batch, tmp_path, ["15s", "1m", "5m"])
    assert found.same, (found.kinds, found.first)

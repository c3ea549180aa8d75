"""The monitoring pages of a running service against what docs/reference/health.md promises."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from aiohttp import ClientSession

from market_data_tick_handler.config import load_settings
from market_data_tick_handler.core.events import Event, Heartbeat, Rows
from market_data_tick_handler.testing import ManualClock, ScriptedSource, books, trades
from streaming_service.app import Service
from streaming_service.feeds import Inputs
from streaming_service.ingest import Feed

BTC, ETH = "BINANCE:SPOT_PAIR:BTC-USDT", "BINANCE:SPOT_PAIR:ETH-USDT"
T0: Final = 1_704_067_200_000_000
SECOND: Final = 1_000_000
Step = Sequence[Event] | float


def trade(instrument: str, second: float) -> Rows:
    at_us = T0 + int(second * SECOND)
    return Rows(instrument, trades([100.0], start_us=at_us, first_id=int(second * 10) + 1))


def book(instrument: str, second: float) -> Rows:
    return Rows(instrument, books([100.0], start_us=T0 + int(second * SECOND)))


class Probe:
    """Asks a service on loopback as a load balancer would."""

    def __init__(self, service: Service, session: ClientSession, clock: ManualClock) -> None:
        self._service = service
        self._session = session
        self.clock = clock

    async def get(self, path: str) -> tuple[int, Any]:
        async with self._session.get(self._service.server.url + path) as response:
            return response.status, json.loads(await response.read())

    async def ready(self) -> tuple[int, list[str]]:
        status, said = await self.get("/ready")
        assert said["ready"] == (status == 200)
        return status, said["blind"]


@asynccontextmanager
async def running(tmp_path: Path, script: Sequence[Step], **overrides: Any) -> AsyncIterator[Probe]:
    clock = ManualClock(T0)
    source = ScriptedSource([*script, 1e6], sleep=clock.sleep)
    dotted = {name.replace("__", "."): value for name, value in overrides.items()}
    settings = load_settings(
        overrides={"monitoring.port": 0, "persist.path": str(tmp_path / "store"), "instruments": [BTC, ETH], **dotted}
    ).settings
    service = Service(settings, inputs=Inputs((Feed("live", source),), clock))
    stop = asyncio.Event()
    task = asyncio.create_task(service.run(stop))
    await service.started.wait()
    try:
        async with ClientSession() as session:
            yield Probe(service, session, clock)
    finally:
        stop.set()
        await task


async def test_ready_waits_for_the_first_tick_of_every_required_stream(tmp_path: Path) -> None:
    script: list[Step] = [
        1.0, [trade(BTC, 1.0)], 1.0, [book(BTC, 2.0)], 1.0, [trade(ETH, 3.0)], 1.0, [book(ETH, 4.0)]
    ]  # fmt: skip
    async with running(tmp_path, script, data_types__book_snapshot_5__required=True) as probe:
        await probe.clock.advance(0.5)
        missing = [f"{key}/{name}" for key in (BTC, ETH) for name in ("trades", "book_snapshot_5")]
        status, blind = await probe.ready()
        assert (status, sorted(blind)) == (503, sorted(missing))
        for came in (f"{BTC}/trades", f"{BTC}/book_snapshot_5", f"{ETH}/trades", f"{ETH}/book_snapshot_5"):
            await probe.clock.advance(1.0)
            missing.remove(came)
            status, blind = await probe.ready()
            assert (status, sorted(blind)) == (503 if missing else 200, sorted(missing))


async def test_ready_does_not_wait_for_what_is_not_required(tmp_path: Path) -> None:
    async with running(tmp_path, [[trade(BTC, 0.0), trade(ETH, 0.0)]]) as probe:
        await probe.clock.advance(0.5)
        assert await probe.ready() == (200, [])
        _, health = await probe.get("/health")
        assert health["data_types"]["book_snapshot_5"]["status"] == "waiting"
        assert health["status"] == "ok"


async def test_ready_is_withdrawn_while_one_of_two_instruments_is_blind(tmp_path: Path) -> None:
    """Heartbeats keep the connection of the silent one alive, which is no tick."""
    beats: list[Step] = []
    for second in range(10, 100, 10):
        beats += [10.0, [trade(BTC, float(second)), Heartbeat(ETH, T0 + second * SECOND)]]
    script: list[Step] = [[trade(BTC, 0.0), trade(ETH, 0.0)], *beats, 5.0, [trade(ETH, 95.0)]]
    async with running(tmp_path, script, data_types__trades__stale_after="30s") as probe:
        await probe.clock.advance(25.0)
        assert await probe.ready() == (200, [])
        assert (await probe.get("/health"))[1]["status"] == "ok"
        await probe.clock.advance(20.0)
        assert await probe.ready() == (503, [f"{ETH}/trades"])
        _, health = await probe.get("/health")
        assert (health["status"], health["ready"], health["blind"]) == ("degraded", False, [f"{ETH}/trades"])
        eth = health["data_types"]["trades"]["instruments"][ETH]
        assert (eth["status"], eth["last_tick_age_s"]) == ("stale", 45.0)
        assert eth["last_proof_of_life_age_s"] < 10.0
        assert (await probe.get("/live"))[0] == 200
        await probe.clock.advance(51.0)
        assert await probe.ready() == (200, [])


async def test_health_before_the_first_tick_says_starting_and_knows_no_age(tmp_path: Path) -> None:
    async with running(tmp_path, []) as probe:
        _, health = await probe.get("/health")
        assert health["status"] == "starting"
        assert health["data_types"]["trades"]["last_tick_age_s"] is None
        assert health["data_types"]["trades"]["lag_s"] is None


# Sections of parts that not every service has.
ONLY_WITH_THEIR_PART = {"sources", "recovery", "websocket", "redis", "tables", "bigquery", "cost"}


async def test_health_has_exactly_the_documented_fields(tmp_path: Path, repository: Path) -> None:
    document = (repository / "docs" / "reference" / "health.md").read_text(encoding="utf-8")
    top, of_type, of_sink = (fields(document, title) for title in TABLES)
    (example,) = re.findall(r"```json\n(.*?)```", document, flags=re.DOTALL)
    async with running(tmp_path, [[trade(BTC, 0.0), trade(ETH, 0.0)]]) as probe:
        await probe.clock.advance(16.0)
        _, health = await probe.get("/health")
    for said in (health, json.loads(example)):
        assert top - ONLY_WITH_THEIR_PART <= set(said) <= top
        assert said["data_types"] and said["sinks"]
        for data_type in said["data_types"].values():
            assert set(data_type) == of_type
            for instrument in data_type["instruments"].values():
                assert set(instrument) == of_type - {"stale_after_s", "instruments"} | {
                    "last_proof_of_life_age_s", "disconnects"
                }  # fmt: skip
        for sink in said["sinks"].values():
            assert set(sink) == of_sink
        assert set(said["kernels"]) == {"compiling", "compiled"}
    assert health["candles"] > 0


TABLES: Final = ("## The `/health` document", "One entry of `data_types`.", "One entry of `sinks`.")


def fields(document: str, title: str) -> set[str]:
    """Names in the first column of the first table behind `title`."""
    behind = document.split(title, 1)[1]
    table = next(block for block in behind.split("\n\n") if block.lstrip().startswith("|"))
    cells = (line.split("|")[1] for line in table.strip().splitlines()[2:])
    return {name for cell in cells for name in re.findall(r"`([a-z_]+)`", cell)}

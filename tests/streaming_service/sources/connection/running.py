"""Drives a source the way ingest does, and waits for what it says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any, Final

from market_data_tick_handler.core.events import Disconnect, Event, Gap, Heartbeat, Rows
from market_data_tick_handler.core.instruments import InstrumentDefinition
from market_data_tick_handler.core.liveness import PaceLimits
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.errors import SourceError
from streaming_service.clock import SystemClock
from streaming_service.sources.connection.feed import ExchangeSource
from streaming_service.sources.connection.options import BookOptions, CheckOptions, ConnectionOptions, RestOptions
from streaming_service.sources.connection.recorder import FrameRecorder
from streaming_service.supervisor import RestartPolicy
from tests.streaming_service.sources.connection.plain_venue import BTC, PlainVenue
from tests.streaming_service.sources.connection.venue_server import VenueServer
from tests.waiting import PATIENCE_S, until

CLOCK: Final = SystemClock()
QUICK: Final = RestartPolicy(budget=20, base_s=0.01, cap_s=0.05)
# Pauses are short, limits are not: a busy machine is no reason to give up. A test that is about a limit sets it.
OPTIONS: Final = ConnectionOptions(
    look_s=0.01,
    yield_s=0.02,
    handshake_s=PATIENCE_S,
    reconnect=QUICK,
    pong_within_s=PATIENCE_S,
    silence=PaceLimits(floor_us=60_000_000, ceiling_us=60_000_000),
    stream_silence=PaceLimits(floor_us=60_000_000, ceiling_us=60_000_000),
    heartbeat_s=0.1,
    patience_us=50_000,
    renew_before_s=0.1,
    overlap_s=0.05,
    handover_s=PATIENCE_S,
    renew_pause_s=0.05,
    books=BookOptions(delay_s=0.02, answer_s=PATIENCE_S, backoff=QUICK),
    checks=CheckOptions(every_s=0.1, grace_s=0.2),
    rest=RestOptions(backoff=QUICK, timeout_s=PATIENCE_S, patience_s=1.0),
)
# Of a stream, for tests in which one falls silent.
SOON_SILENT: Final = PaceLimits(floor_us=100_000, ceiling_us=500_000)


class Running:
    """A source that runs, and everything its turns gave."""

    def __init__(self, source: ExchangeSource) -> None:
        self.source = source
        self.events: list[Event] = []
        self.turns: list[list[Event]] = []
        self.drained_us: list[int] = []
        self.error: SourceError | None = None
        self.ended = False
        self.reads = True

    def of(self, kind: type[Any], instrument: InstrumentDefinition = BTC) -> list[Any]:
        return [each for each in self.events if isinstance(each, kind) and each.instrument == instrument.key]

    def rows(self, data_type: DataType, instrument: InstrumentDefinition = BTC) -> list[Rows]:
        return [each for each in self.of(Rows, instrument) if each.data_type is data_type]

    def ids(self, instrument: InstrumentDefinition = BTC) -> list[int]:
        return [int(number) for each in self.rows(DataType.TRADES, instrument) for number in each.batch["id"]]

    def gaps(self, instrument: InstrumentDefinition = BTC) -> list[Gap]:
        return self.of(Gap, instrument)

    def disconnects(self, instrument: InstrumentDefinition = BTC) -> list[Disconnect]:
        return self.of(Disconnect, instrument)

    def heartbeats(self, instrument: InstrumentDefinition = BTC) -> list[Heartbeat]:
        return self.of(Heartbeat, instrument)

    def drain(self) -> None:
        self.drained_us.append(CLOCK.now_us())
        events = self.source.drain()
        if events:
            self.turns.append(events)
            self.events += events

    async def run(self) -> None:
        try:
            async with aclosing(self.source.events()) as lists:
                async for events in lists:
                    assert events == []
                    if self.reads:
                        self.drain()
        except SourceError as error:
            self.error = error
        finally:
            self.ended = True
            self.drain()


@asynccontextmanager
async def running(
    server: VenueServer,
    venue: PlainVenue | None = None,
    instruments: Sequence[InstrumentDefinition] = (BTC,),
    data_types: Collection[DataType] = (DataType.TRADES,),
    *,
    recorder: FrameRecorder | None = None,
    opened: bool = True,
    **changes: Any,
) -> AsyncIterator[Running]:
    """A source connected to `server`; `changes` are options."""
    source = ExchangeSource(
        PlainVenue() if venue is None else venue,
        instruments,
        data_types,
        clock=CLOCK,
        endpoints=server.endpoints,
        options=replace(OPTIONS, **changes),
        recorder=recorder,
    )
    run = Running(source)
    task = asyncio.create_task(run.run(), name="source")
    try:
        if opened:
            await until(lambda: server.live and acknowledged(run), "a connection")
        yield run
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def acknowledged(run: Running) -> bool:
    connections = run.source.status().connections
    return bool(connections) and all(each.acknowledged for each in connections)

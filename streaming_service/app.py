"""The only composition root of the live application: settings become objects, objects become tasks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TextIO

from market_data_tick_handler.config import (
    check_installed,
    configured_instruments,
    pipeline_options,
)
from market_data_tick_handler.config.settings import Mode, Settings, SourceName
from market_data_tick_handler.core.events import Gap, GapKind
from market_data_tick_handler.core.instruments import InstrumentDefinition, data_types_for
from market_data_tick_handler.core.pipeline import Pipeline
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.core.timeframes import DAY_US, Timeframe, ceil_us
from market_data_tick_handler.errors import ConfigError
from market_data_tick_handler.storage.gap_ledger import write_gaps
from streaming_service.accounting import StreamAccount
from streaming_service.changes import HotChanges
from streaming_service.clock import Clock, SystemClock
from streaming_service.durability import Durability
from streaming_service.feeds import Inputs, make_inputs
from streaming_service.ingest import TIMER_S, Cadence, Ingest
from streaming_service.lifecycle import Job, Lifecycle
from streaming_service.monitoring.health import HealthMonitor
from streaming_service.monitoring.http import MonitoringServer
from streaming_service.monitoring.kernels import KernelCompilations
from streaming_service.monitoring.loop_lag import LoopLag
from streaming_service.monitoring.metrics import ServiceMetrics
from streaming_service.monitoring.observer import TurnMonitor
from streaming_service.outputs import Outputs
from streaming_service.previews import Previews
from streaming_service.reports import Reports
from streaming_service.routes import service_routes
from streaming_service.serving.books import LatestBooks
from streaming_service.sink import Sink
from streaming_service.sinks.marks import MarkSource
from streaming_service.supervisor import RestartPolicy, Supervisor

if TYPE_CHECKING:
    from streaming_service.live_sources import LiveSources

log = logging.getLogger(__name__)

_RECORD_GAPS_S: Final = 1.0


class Service:
    """The live application for one set of settings.

    inputs: feeds and their clock; from the settings by default.
    terminal: a stream that gets one line per candle.
    sinks: more sinks for candles, by name; tick_sinks: for ticks.
    publish_open_candles: publish the open candles as PARTIAL when the service stops, as at the end of a finite source.
    listen: answer HTTP and WebSockets on the port of monitoring.

    Raises:
        ConfigError, NotInstalled, InstrumentError: the settings cannot be carried out.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        inputs: Inputs | None = None,
        terminal: TextIO | None = None,
        sinks: Mapping[str, Sink] | None = None,
        tick_sinks: Mapping[str, Sink] | None = None,
        publish_open_candles: bool = False,
        wall: Clock | None = None,
        restart: RestartPolicy | None = None,
        listen: bool = True,
    ) -> None:
        check_installed(settings)
        self.settings = settings
        self.instruments = configured_instruments(settings)
        self._wall = SystemClock() if wall is None else wall
        self._listen = listen
        self.reports = Reports(self, self._wall)
        self._inputs = make_inputs(settings, self.instruments, wall=self._wall) if inputs is None else inputs
        self.timeframes = settings.candles.timeframes
        # Journals are opened by `run`; without them the pipelines are there at once.
        self._durable = self._inputs.live is not None and settings.recovery.enabled
        self._keep_rows = self._durable or settings.keeps_ticks or bool(tick_sinks)
        self.pipelines: dict[str, Pipeline] = (
            {} if self._durable else {each.key: self._make_pipeline(each) for each in self.instruments}
        )
        self.started = asyncio.Event()
        self.supervisor = Supervisor(self._wall)
        self.health = self._make_health()
        self.metrics = ServiceMetrics([self.reports.samples])
        self.loop_lag = LoopLag(self._wall)
        self.kernels = KernelCompilations()
        self._run_log = None if self._inputs.live is None else self._inputs.live.run_log
        self.outputs = Outputs(
            settings,
            wall=self._wall,
            speed=self._inputs.speed,
            terminal=terminal,
            more=sinks or {},
            journaled=self._durable,
            marks=self._mark_source,
            instruments=lambda: self.instruments,
            ticks=tick_sinks,
        )
        self.bus = self.outputs.bus
        self.books = LatestBooks()
        self.durability = self._make_durability() if self._durable else None
        self._ingest = self._make_ingest()
        self.changes = HotChanges(self)
        self._lifecycle = Lifecycle(
            self._ingest,
            self.outputs.all,
            self.supervisor,
            wall=self._wall,
            deadline_s=settings.shutdown.deadline_s,
            restart=RestartPolicy() if restart is None else restart,
            background=self._background(),
            publish_open_candles=publish_open_candles,
        )
        self.server = MonitoringServer(
            host=settings.monitoring.host,
            port=settings.monitoring.port,
            blind=self.not_ready,
            health=self.health_report,
            metrics=self.metrics.render,
            routes=service_routes(self, health=self.health_report, wall=self._wall),
        )

    async def run(self, stop: asyncio.Event | None = None, duration_s: float | None = None) -> None:
        """Run until `stop`, for `duration_s` of wall time (None or 0: endless), or until every source has ended.

        Raises:
            ConfigError: the monitoring address is taken.
            TaskFailed: a task failed beyond its budget.
            DrainTimeout: not everything was written within the shutdown deadline.
        """
        self.kernels.start()
        try:
            if self._listen:
                await self.server.start()
            if self.durability is not None:
                await asyncio.to_thread(self.durability.restore, self.instruments)
            elif self._inputs.live is not None:
                for pipeline in self.pipelines.values():
                    self._begin(pipeline)
            self.started.set()
            log.info("service started", extra={"monitoring": self.url, "instruments": " ".join(self.pipelines)})
            await self._lifecycle.run(asyncio.Event() if stop is None else stop, duration_s)
        finally:
            for pipeline in self.pipelines.values():
                self._record_end(pipeline)
            if self.durability is not None:
                await self.durability.aclose()
            elif self.settings.keeps_ticks:
                await asyncio.to_thread(write_gaps, self.settings.persist.path, self._gaps())
            if self._inputs.live is not None:
                self._inputs.live.close()
            # Open sockets would hold the server up.
            await self.outputs.serving.aclose()
            await self.server.aclose()
            self.kernels.stop()
            log.info("service stopped", extra={"candles": self.metrics.candles, "revisions": self.metrics.revisions})

    @property
    def url(self) -> str:
        """Where the service answers HTTP; empty where it does not."""
        return self.server.url if self._listen else ""

    @property
    def clock(self) -> Clock:
        """The service's clock, which simulations and recordings have their own way of."""
        return self._inputs.clock

    @property
    def draining(self) -> bool:
        """Whether the service is on its way to its end."""
        return self._lifecycle.draining

    @property
    def live(self) -> LiveSources | None:
        """What is behind feeds that come over the network."""
        return self._inputs.live

    @property
    def homeless_rows(self) -> Mapping[tuple[str, DataType], int]:
        """Rows that no pipeline takes."""
        return self._ingest.homeless_rows

    @property
    def accounts(self) -> dict[tuple[str, DataType], StreamAccount]:
        """What became of the rows of every stream."""
        return self.reports.accounts

    def summary(self) -> dict[str, Any]:
        """As `Reports.summary`."""
        return self.reports.summary()

    def health_report(self) -> dict[str, Any]:
        """The `/health` document (docs/reference/health.md)."""
        return self.reports.health()

    def not_ready(self) -> list[str]:
        """Why `/ready` says no; empty where it says yes."""
        return self.reports.not_ready()

    # What hot changes need (changes.Adjustable)

    async def between_turns(self, change: Callable[[], None]) -> None:
        """Call `change` when no turn is under way."""
        await self._ingest.between_turns(change)

    def undisturbed(self, keys: Iterable[str]) -> AbstractAsyncContextManager[None]:
        """No checkpoint, repair or writing of files of these instruments is under way in the block."""
        return nullcontext() if self.durability is None else self.durability.undisturbed(keys)

    def check_instruments(self, instruments: Sequence[InstrumentDefinition]) -> None:
        """Whether the sources can carry exactly these instruments.

        Raises:
            ConfigError: they cannot change, or lack a connection to an exchange.
        """
        self._changing_sources().check(instruments)

    async def subscribe(self, instruments: Sequence[InstrumentDefinition]) -> None:
        """Make the sources carry exactly these instruments; raises as `check_instruments`."""
        if self.durability is not None:
            await self.durability.ticks.begin()
        self._changing_sources().set_instruments(instruments)
        self.instruments = tuple(instruments)

    def _changing_sources(self) -> LiveSources:
        if self._inputs.live is None:
            raise ConfigError(
                "simulated and recorded sources have the instruments they began with",
                key="instruments",
                hint="restart with others",
            )
        return self._inputs.live

    def admit_instrument(self, instrument: InstrumentDefinition) -> None:
        """Give an instrument its pipeline and its place in health."""
        if self.durability is None:
            self.pipelines[instrument.key] = self._make_pipeline(instrument)
            self._begin(self.pipelines[instrument.key])
        else:
            self.durability.admit(instrument)
        self.health.expect(self._streams([instrument]))

    def dismiss_instrument(self, key: str) -> None:
        """Let an instrument go."""
        self._record_end(self.pipelines[key])
        if self.durability is None:
            del self.pipelines[key]
        else:
            self.durability.dismiss(key)
        self.health.dismiss(key)
        self.books.forget(key)

    def change_timeframes(self, timeframes: tuple[Timeframe, ...]) -> None:
        """Go on with pipelines of these timeframes."""
        self.timeframes = timeframes
        for instrument in self.instruments:
            before = self.pipelines[instrument.key]
            after = self._make_pipeline(instrument)
            after.restore(before.snapshot())
            after.restore_ids(before.ids_snapshot())
            after.stored = before.stored
            self.pipelines[instrument.key] = after
            if self._run_log is not None:
                self._run_log.changed(after)
        self._ingest.cadence = self._cadence()

    def _make_pipeline(self, instrument: InstrumentDefinition) -> Pipeline:
        options = replace(pipeline_options(self.settings, instrument), timeframes=self.timeframes)
        return Pipeline(instrument, options, keep_rows=self._keep_rows, identify=self._durable)

    def _begin(self, pipeline: Pipeline) -> None:
        """The service runs, and no connection has proved anything yet."""
        now_us = self._inputs.clock.now_us()
        pipeline.start(now_us)
        self._record_beginning(pipeline, False)
        pipeline.doubt(now_us)

    # What a replay of the recorded frames must know besides (run_log)

    def _record_beginning(self, pipeline: Pipeline, restored: bool) -> None:
        if self._run_log is not None:
            self._run_log.began(pipeline, at_us=self._inputs.clock.now_us(), resumed=restored)

    def _record_end(self, pipeline: Pipeline) -> None:
        if self._run_log is not None:
            self._run_log.ended(pipeline, finished=self._ingest.finished)

    async def _record_gaps(self) -> None:
        while self._run_log is not None:
            await self._wall.sleep(_RECORD_GAPS_S)
            for pipeline in list(self.pipelines.values()):
                self._run_log.noted(pipeline)

    def _mark_source(self, sink: str) -> MarkSource:
        return MarkSource(
            service=self.settings.serve.service,
            instruments=lambda: list(self.pipelines),
            watermarks=partial(self._watermarks, sink),
            repairing=lambda key: self.durability is not None and self.durability.repairing(key),
        )

    def _watermarks(self, sink: str) -> dict[str, int]:
        """Up to when every candle was handed to a sink; nothing while some are on their way to it."""
        waiting = any(outlet.unwritten_rows for outlet in self.outputs.candles if outlet.name == sink)
        if waiting or self._ingest.in_turn:
            return {}
        return {key: each.clock_us for key, each in self.pipelines.items() if each.started}

    def _make_durability(self) -> Durability:
        live = self._inputs.live
        return Durability(
            self.settings,
            clock=self._inputs.clock,
            pipelines=self.pipelines,
            make=self._make_pipeline,
            fetchers={} if live is None else live.fetchers,
            outlets=self.outputs.durable,
            tick_outlets=self.outputs.ticks,
        )

    def _background(self) -> dict[str, Job]:
        jobs: dict[str, Job] = {"loop-lag": self.loop_lag.run}
        if Mode.SERVE in self.settings.modes:
            previews = Previews(
                self.pipelines,
                self.outputs.write_open,
                between_turns=self.between_turns,
                clock=self.clock,
                wall=self._wall,
                every_s=self.settings.serve.open_candles_every.s,
            )
            jobs["candles in progress"] = previews.run
        if self._run_log is not None:
            jobs["run-log"] = self._record_gaps
        if self.durability is not None:
            self.durability.begin(self._ingest)
            if self._run_log is not None:
                self.durability.recovery.on_began = self._record_beginning
                self.durability.recovery.on_fetched = self._run_log.fetched
            jobs["checkpoints"] = partial(self.durability.run_checkpoints, self._ingest)
            jobs["repairs"] = self.durability.run_repairs
            jobs["archive"] = self.durability.run_archive
        return jobs

    def _make_health(self) -> HealthMonitor:
        enabled = {DataType(name): section for name, section in self.settings.data_types.enabled().items()}
        return HealthMonitor(
            streams=self._streams(self.instruments),
            stale_after_s={data_type: section.stale_after_us / 1e6 for data_type, section in enabled.items()},
            trouble=self.reports.trouble,
        )

    def _streams(self, instruments: Iterable[InstrumentDefinition]) -> dict[tuple[str, DataType], bool]:
        """The streams that are expected, and whether the service is not ready without them."""
        sections = {DataType(name): section for name, section in self.settings.data_types.enabled().items()}
        return {
            (instrument.key, data_type): sections[data_type].required
            for instrument in instruments
            for data_type in data_types_for(instrument.instrument_type)
            if data_type in sections and sections[data_type].source is not SourceName.TRADE_TRANSFORMATION
        }

    def _cadence(self) -> Cadence:
        enabled = self.settings.data_types.enabled().values()
        timer_s = min(TIMER_S, *(section.batch_timeout_s for section in enabled)) * self._inputs.speed
        return Cadence.of(self.timeframes, self.settings.candles.grace_us, timer_s=timer_s)

    def _gaps(self) -> list[Gap]:
        """What the ledger must say for batch to know what this run knew: the gaps, and that the run ended."""
        gaps = [gap for pipeline in self.pipelines.values() for gap in pipeline.gaps]
        if self._ingest.finished:
            return gaps
        stops = {key: pipeline.clock_us for key, pipeline in self.pipelines.items() if pipeline.started}
        return gaps + [
            Gap(key, DataType.TRADES, at_us, ceil_us(at_us, DAY_US), "service stopped", GapKind.NOT_RUNNING)
            for key, at_us in stops.items()
            if at_us % DAY_US
        ]

    def _make_ingest(self) -> Ingest:
        grace_us, speed = self.settings.candles.grace_us, self._inputs.speed
        return Ingest(
            self.pipelines,
            self._inputs.feeds,
            clock=self._inputs.clock,
            cadence=self._cadence(),
            candle_outlets=self.outputs.candles,
            tick_outlets=self.outputs.ticks,
            observers=[TurnMonitor(self.health, self.metrics, grace_us=grace_us, speed=speed), self.books],
            keeper=None if self.durability is None else self.durability.recovery,
            undelivered=None if self.durability is None else self.durability.recovery.undelivered,
            before_turns=None if self.durability is None else self.durability.ticks.begin,
            after_turns=None if self.durability is None else self.durability.ticks.finish,
            data_types=[DataType(name) for name in self.settings.data_types.enabled()],
        )

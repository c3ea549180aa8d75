"""The only composition root of the live application: settings become objects, objects become tasks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, TextIO

from market_data_tick_handler.config import (
    check_installed,
    configured_instruments,
    define_instruments,
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
from streaming_service.accounting import StreamAccount, stream_accounts
from streaming_service.changes import HotChanges
from streaming_service.clock import Clock, SystemClock
from streaming_service.durability import Durability
from streaming_service.feeds import Inputs, make_inputs
from streaming_service.ingest import TIMER_S, Cadence, Ingest
from streaming_service.lifecycle import Job, Lifecycle
from streaming_service.monitoring import samples
from streaming_service.monitoring.admin import Admin
from streaming_service.monitoring.health import HealthMonitor, StreamTrouble
from streaming_service.monitoring.http import MonitoringServer
from streaming_service.monitoring.kernels import KernelCompilations
from streaming_service.monitoring.loop_lag import LoopLag
from streaming_service.monitoring.metrics import Sample, ServiceMetrics
from streaming_service.monitoring.observer import TurnMonitor
from streaming_service.outputs import Outputs
from streaming_service.serving.application import ServingRoutes
from streaming_service.serving.books import LatestBooks
from streaming_service.serving.view import ServiceView, known_gaps
from streaming_service.sink import Sink
from streaming_service.supervisor import RestartPolicy, Supervisor

if TYPE_CHECKING:
    from aiohttp import web

    from streaming_service.live_sources import LiveSources
    from streaming_service.sinks.redis.marks import MarkSource

log = logging.getLogger(__name__)

_RECORD_GAPS_S: Final = 1.0
# A preview costs half a millisecond: with many instruments it may take a tenth of the time at most.
_LEAST_BETWEEN_PREVIEWS_S: Final = 0.005


class Service:
    """The live application for one set of settings.

    inputs: feeds and their clock; from the settings by default.
    terminal: a stream that gets one line per candle.
    sinks: more sinks for candles, by name.
    publish_open_candles: publish the open candles as PARTIAL when the service stops, as at the end of a finite source.

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
        publish_open_candles: bool = False,
        wall: Clock | None = None,
        restart: RestartPolicy | None = None,
    ) -> None:
        check_installed(settings)
        self.settings = settings
        self.instruments = configured_instruments(settings)
        self._wall = SystemClock() if wall is None else wall
        self._started_s = self._wall.monotonic_s()
        self._inputs = make_inputs(settings, self.instruments, wall=self._wall) if inputs is None else inputs
        self.timeframes = settings.candles.timeframes
        # Journals are opened by `run`; without them the pipelines are there at once.
        self._durable = self._inputs.live is not None and settings.recovery.enabled
        self.pipelines: dict[str, Pipeline] = (
            {} if self._durable else {each.key: self._make_pipeline(each) for each in self.instruments}
        )
        self.started = asyncio.Event()
        self.supervisor = Supervisor(self._wall)
        self.health = self._make_health()
        self.metrics = ServiceMetrics([self._samples])
        self._loop_lag = LoopLag(self._wall)
        self._kernels = KernelCompilations()
        self._run_log = None if self._inputs.live is None else self._inputs.live.run_log
        self.outputs = Outputs(
            settings,
            wall=self._wall,
            speed=self._inputs.speed,
            terminal=terminal,
            more=sinks or {},
            journaled=self._durable,
            marks=self._mark_source,
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
            blind=self._not_ready,
            health=self.health_report,
            metrics=self.metrics.render,
            routes=self._routes(),
        )

    async def run(self, stop: asyncio.Event | None = None, duration_s: float | None = None) -> None:
        """Run until `stop`, for `duration_s` of wall time (None or 0: endless), or until every source has ended.

        Raises:
            ConfigError: the monitoring address is taken.
            TaskFailed: a task failed beyond its budget.
            DrainTimeout: not everything was written within the shutdown deadline.
        """
        self._kernels.start()
        try:
            await self.server.start()
            if self.durability is not None:
                await asyncio.to_thread(self.durability.restore, self.instruments)
            elif self._inputs.live is not None:
                for pipeline in self.pipelines.values():
                    self._begin(pipeline)
            self.started.set()
            log.info("service started", extra={"monitoring": self.server.url, "instruments": " ".join(self.pipelines)})
            await self._lifecycle.run(asyncio.Event() if stop is None else stop, duration_s)
        finally:
            for pipeline in self.pipelines.values():
                self._record_end(pipeline)
            if self.durability is not None:
                await self.durability.aclose()
            elif self.settings.persist.store_ticks:
                await asyncio.to_thread(write_gaps, self.settings.persist.path, self._gaps())
            if self._inputs.live is not None:
                self._inputs.live.close()
            # Open sockets would hold the server up.
            await self.outputs.serving.aclose()
            await self.server.aclose()
            self._kernels.stop()
            log.info("service stopped", extra={"candles": self.metrics.candles, "revisions": self.metrics.revisions})

    @property
    def accounts(self) -> dict[tuple[str, DataType], StreamAccount]:
        """What became of the rows of every stream."""
        return stream_accounts(self.pipelines, self._ingest.homeless_rows)

    def summary(self) -> dict[str, Any]:
        """`{"streams": {"<instrument>/<data_type>": {received, accepted, ...}}, "candles": n, "revisions": n}`."""
        streams = {
            f"{instrument}/{data_type}": asdict(account) for (instrument, data_type), account in self.accounts.items()
        }
        return {"streams": streams, "candles": self.metrics.candles, "revisions": self.metrics.revisions}

    def health_report(self) -> dict[str, Any]:
        """The `/health` document (docs/reference/health.md)."""
        now_us = self._inputs.clock.now_us()
        return {
            **self.health.report(now_us),
            "draining": self._lifecycle.draining,
            "uptime_s": round(self._wall.monotonic_s() - self._started_s, 3),
            "service_time_us": now_us,
            "candles": self.metrics.candles,
            "revisions": self.metrics.revisions,
            "sinks": {
                outlet.name: {"queue_depth": outlet.depth, **asdict(outlet.counters)} for outlet in self.outputs.all
            },
            **self.outputs.report(),
            "task_failures": dict(self.supervisor.last_error),
            "kernels": {"compiling": self._kernels.compiling, "compiled": self._kernels.compilations},
            **({} if self._inputs.live is None else {"sources": self._inputs.live.report(now_us)}),
            **({} if self.durability is None else {"recovery": self.durability.report()}),
        }

    # What hot changes need (changes.Adjustable)

    async def between_turns(self, change: Callable[[], None]) -> None:
        """Call `change` when no turn is under way."""
        await self._ingest.between_turns(change)

    def check_instruments(self, instruments: Sequence[InstrumentDefinition]) -> None:
        """Whether the sources can carry exactly these instruments.

        Raises:
            ConfigError: they cannot change, or lack a connection to an exchange.
        """
        self._changing_sources().check(instruments)

    async def subscribe(self, instruments: Sequence[InstrumentDefinition]) -> None:
        """Make the sources carry exactly these instruments; raises as `check_instruments`."""
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

    def _not_ready(self) -> list[str]:
        if self._lifecycle.draining:
            return ["draining"]
        return [*self.health.blind(self._inputs.clock.now_us()), *self.outputs.not_ready()]

    def _make_pipeline(self, instrument: InstrumentDefinition) -> Pipeline:
        options = replace(pipeline_options(self.settings, instrument), timeframes=self.timeframes)
        keep_rows = self._durable or self.settings.persist.store_ticks
        return Pipeline(instrument, options, keep_rows=keep_rows, identify=self._durable)

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

    def _routes(self) -> list[web.RouteDef]:
        """What is on the service's port beside monitoring."""
        token = self.settings.monitoring.auth_token.get_secret_value()
        admin = Admin(
            self.changes,
            token=token,
            current=lambda: (self.instruments, self.timeframes),
            define=lambda names: define_instruments(self.settings, names),
        )
        if Mode.SERVE not in self.settings.modes:
            return admin.routes()
        view = ServiceView(
            current=lambda: (self.instruments, self.timeframes),
            health=self.health_report,
            now_us=self._inputs.clock.now_us,
            gaps=self._known_gaps,
            latest_book=self.books.latest,
            store=self.settings.persist.path if Mode.PERSIST in self.settings.modes else None,
        )
        host = self.settings.monitoring.host
        serving = ServingRoutes(self.outputs.serving, view, host=host, token=token, wall=self._wall)
        return [*admin.routes(), *serving.routes()]

    def _mark_source(self) -> MarkSource:
        from streaming_service.sinks.redis.marks import MarkSource

        return MarkSource(
            service=self.settings.serve.service,
            instruments=lambda: list(self.pipelines),
            watermarks=self._watermarks,
            repairing=lambda key: self.durability is not None and self.durability.repairing(key),
        )

    def _known_gaps(self, key: str) -> Sequence[Gap]:
        pipeline = self.pipelines.get(key)
        return () if pipeline is None else known_gaps(pipeline, self._inputs.clock.now_us())

    def _watermarks(self) -> dict[str, int]:
        """Up to when every candle was handed to Redis; nothing while some wait for it."""
        waiting = any(outlet.depth for outlet in self.outputs.candles if outlet.sink is self.outputs.redis)
        return {} if waiting else {key: each.clock_us for key, each in self.pipelines.items() if each.started}

    async def _show_open_candles(self) -> None:
        """Candles in progress, one instrument per turn, so that many instruments share the time of one."""
        every_s = self.settings.serve.open_candles_every.s
        while True:
            keys = list(self.pipelines)
            for key in keys:
                await self._wall.sleep(max(every_s / len(keys), _LEAST_BETWEEN_PREVIEWS_S))
                await self.between_turns(partial(self._show_open, key))
            if not keys:
                await self._wall.sleep(every_s)

    def _show_open(self, key: str) -> None:
        if key in self.pipelines:
            for batch in self.pipelines[key].preview(self._inputs.clock.now_us()):
                self.outputs.write_open(batch)

    def _make_durability(self) -> Durability:
        live = self._inputs.live
        return Durability(
            self.settings,
            clock=self._inputs.clock,
            pipelines=self.pipelines,
            make=self._make_pipeline,
            fetchers={} if live is None else live.fetchers,
            outlets=self.outputs.durable,
        )

    def _background(self) -> dict[str, Job]:
        jobs: dict[str, Job] = {"loop-lag": self._loop_lag.run}
        if Mode.SERVE in self.settings.modes:
            jobs["candles in progress"] = self._show_open_candles
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
            trouble=self._trouble,
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

    def _trouble(self, instrument: str, data_type: DataType) -> StreamTrouble:
        counters = self.pipelines[instrument].counters.get(data_type) if instrument in self.pipelines else None
        return StreamTrouble(gaps=counters.gaps, errors=counters.invalid) if counters else StreamTrouble()

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
            data_types=[DataType(name) for name in self.settings.data_types.enabled()],
        )

    def _samples(self) -> Iterator[Sample]:
        now_us = self._inputs.clock.now_us()
        accounts = self.accounts
        return chain(
            samples.account_samples(accounts),
            samples.trouble_samples({key: self._trouble(*key) for key in accounts}),
            samples.health_samples(self.health, now_us),
            samples.outlet_samples(self.outputs.all),
            samples.task_samples(self.supervisor),
            samples.kernel_samples(self._kernels),
            () if self._inputs.live is None else samples.source_samples(self._inputs.live, now_us),
            () if self.durability is None else samples.recovery_samples(self.durability),
            self.outputs.samples(),
            (Sample("ready", (), not self._not_ready()), Sample("event_loop_lag_seconds", (), self._loop_lag.last_s)),
        )

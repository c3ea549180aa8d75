"""What a service tells of itself: whether it is ready, its health, its accounts, its metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol

from market_data_tick_handler.core.pipeline import Pipeline
from market_data_tick_handler.core.ticks import DataType
from streaming_service.accounting import StreamAccount, stream_accounts
from streaming_service.clock import Clock
from streaming_service.monitoring import samples
from streaming_service.monitoring.health import HealthMonitor, StreamTrouble
from streaming_service.monitoring.kernels import KernelCompilations
from streaming_service.monitoring.loop_lag import LoopLag
from streaming_service.monitoring.metrics import Sample, ServiceMetrics
from streaming_service.outputs import Outputs
from streaming_service.supervisor import Supervisor

if TYPE_CHECKING:
    from streaming_service.durability import Durability
    from streaming_service.live_sources import LiveSources


class Reported(Protocol):
    """The service, as far as it is told of. homeless_rows: those that no pipeline takes."""

    health: HealthMonitor
    metrics: ServiceMetrics
    outputs: Outputs
    supervisor: Supervisor
    durability: Durability | None
    kernels: KernelCompilations
    loop_lag: LoopLag

    @property
    def clock(self) -> Clock: ...

    @property
    def live(self) -> LiveSources | None: ...

    @property
    def draining(self) -> bool: ...

    @property
    def pipelines(self) -> Mapping[str, Pipeline]: ...

    @property
    def homeless_rows(self) -> Mapping[tuple[str, DataType], int]: ...


class Reports:
    """Reads the parts of a service when it is asked. Its uptime begins when this is made, on the clock `wall`."""

    def __init__(self, service: Reported, wall: Clock) -> None:
        self._service = service
        self._wall = wall
        self._started_s = wall.monotonic_s()

    @property
    def accounts(self) -> dict[tuple[str, DataType], StreamAccount]:
        """What became of the rows of every stream."""
        return stream_accounts(self._service.pipelines, self._service.homeless_rows)

    def summary(self) -> dict[str, Any]:
        """`{"streams": {"<instrument>/<data_type>": {received, accepted, ...}}, "candles": n, "revisions": n}`."""
        streams = {
            f"{instrument}/{data_type}": asdict(account) for (instrument, data_type), account in self.accounts.items()
        }
        metrics = self._service.metrics
        return {"streams": streams, "candles": metrics.candles, "revisions": metrics.revisions}

    def not_ready(self) -> list[str]:
        """Why `/ready` says no; empty where it says yes."""
        service = self._service
        if service.draining:
            return ["draining"]
        return [*service.health.blind(service.clock.now_us()), *service.outputs.not_ready()]

    def health(self) -> dict[str, Any]:
        """The `/health` document (docs/reference/health.md)."""
        service = self._service
        now_us = service.clock.now_us()
        return {
            **service.health.report(now_us),
            "draining": service.draining,
            "uptime_s": round(self._wall.monotonic_s() - self._started_s, 3),
            "service_time_us": now_us,
            "candles": service.metrics.candles,
            "revisions": service.metrics.revisions,
            "sinks": {
                outlet.name: {"queue_depth": outlet.depth, **asdict(outlet.counters)} for outlet in service.outputs.all
            },
            **service.outputs.report(),
            "task_failures": dict(service.supervisor.last_error),
            "kernels": {"compiling": service.kernels.compiling, "compiled": service.kernels.compilations},
            **({} if service.live is None else {"sources": service.live.report(now_us)}),
            **({} if service.durability is None else {"recovery": service.durability.report()}),
        }

    def trouble(self, instrument: str, data_type: DataType) -> StreamTrouble:
        """What went wrong on a stream."""
        pipeline = self._service.pipelines.get(instrument)
        counters = None if pipeline is None else pipeline.counters.get(data_type)
        return StreamTrouble(gaps=counters.gaps, errors=counters.invalid) if counters else StreamTrouble()

    def samples(self) -> Iterator[Sample]:
        """Everything that `/metrics` reads and does not count itself."""
        service = self._service
        now_us, accounts = service.clock.now_us(), self.accounts
        return chain(
            samples.account_samples(accounts),
            samples.trouble_samples({key: self.trouble(*key) for key in accounts}),
            samples.health_samples(service.health, now_us),
            samples.outlet_samples(service.outputs.all),
            samples.task_samples(service.supervisor),
            samples.kernel_samples(service.kernels),
            () if service.live is None else samples.source_samples(service.live, now_us),
            () if service.durability is None else samples.recovery_samples(service.durability),
            service.outputs.samples(),
            (
                Sample("ready", (), not self.not_ready()),
                Sample("event_loop_lag_seconds", (), service.loop_lag.last_s),
            ),
        )

"""Reads the running parts for the metrics: what each of them counts, as samples of the metrics table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from market_data_tick_handler.core.ticks import DataType
from streaming_service.accounting import OUTCOMES, StreamAccount
from streaming_service.monitoring.health import HealthMonitor, Status, StreamTrouble
from streaming_service.monitoring.kernels import KernelCompilations
from streaming_service.monitoring.metrics import Sample
from streaming_service.sink import Outlet
from streaming_service.sinks.bus import InProcessBus
from streaming_service.supervisor import Supervisor


def account_samples(accounts: Mapping[tuple[str, DataType], StreamAccount]) -> Iterator[Sample]:
    """What became of the rows of each stream."""
    for (instrument, data_type), account in accounts.items():
        for outcome in OUTCOMES:
            yield Sample(f"ticks_{outcome}", (instrument, data_type), getattr(account, outcome))


def trouble_samples(streams: Mapping[tuple[str, DataType], StreamTrouble]) -> Iterator[Sample]:
    """Gaps of each stream."""
    for (instrument, data_type), trouble in streams.items():
        yield Sample("gaps", (instrument, data_type), trouble.gaps)


def health_samples(health: HealthMonitor, now_us: int) -> Iterator[Sample]:
    """Freshness of each stream; an age is absent until the first tick."""
    for data_type, of_type in health.report(now_us)["data_types"].items():
        for instrument, stream in of_type["instruments"].items():
            labels = (instrument, data_type)
            yield Sample("stream_live", labels, stream["status"] is Status.LIVE)
            yield Sample("ticks_per_second", labels, stream["ticks_per_s"])
            if stream["last_tick_age_s"] is not None:
                yield Sample("last_tick_age_seconds", labels, stream["last_tick_age_s"])
                yield Sample("data_lag_seconds", labels, stream["lag_s"])


def outlet_samples(outlets: Sequence[Outlet]) -> Iterator[Sample]:
    """Queues and counts of each sink."""
    for outlet in outlets:
        labels, counters = (outlet.name,), outlet.counters
        yield Sample("sink_queue_depth", labels, outlet.depth)
        yield Sample("sink_rows_written", labels, counters.written)
        yield Sample("sink_rows_dropped", labels, counters.dropped)
        yield Sample("sink_rows_failed", labels, counters.failed)
        yield Sample("sink_errors", labels, counters.errors)
        yield Sample("sink_retries", labels, counters.retries)
        if isinstance(outlet.sink, InProcessBus):
            yield Sample("subscriber_rows_dropped", labels, outlet.sink.dropped)


def task_samples(supervisor: Supervisor) -> Iterator[Sample]:
    """Failures and restarts of each task that ever failed."""
    for task, failures in supervisor.failures.items():
        yield Sample("task_failures", (task,), failures)
        yield Sample("task_restarts", (task,), supervisor.restarts.get(task, 0))


def kernel_samples(kernels: KernelCompilations) -> Iterator[Sample]:
    """What the compiler did."""
    yield Sample("kernel_compiling", (), kernels.compiling)
    yield Sample("kernel_compilations", (), kernels.compilations)
    yield Sample("kernel_compile_seconds", (), kernels.seconds)

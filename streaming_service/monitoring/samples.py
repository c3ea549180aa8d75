"""Reads the running parts for the metrics: what each of them counts, as samples of the metrics table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from market_data_tick_handler.core.ticks import DataType
from streaming_service.accounting import OUTCOMES, StreamAccount
from streaming_service.monitoring.health import HealthMonitor, Status, StreamTrouble
from streaming_service.monitoring.kernels import KernelCompilations
from streaming_service.monitoring.metrics import Sample
from streaming_service.sink import Outlet
from streaming_service.sinks.bus import InProcessBus
from streaming_service.supervisor import Supervisor

if TYPE_CHECKING:
    from streaming_service.durability import Durability
    from streaming_service.live_sources import LiveSources
    from streaming_service.sources.connection.status import ConnectionStatus, SourceStatus


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


def source_samples(live: LiveSources, now_us: int) -> Iterator[Sample]:
    """Feeds, their sources, and the connections of each."""
    for feed, failover in live.failovers.items():
        yield Sample("feed_switches", (feed,), failover.switches)
    for (feed, name), source in live.sources.items():
        labels, status = (feed, str(name)), source.status()
        yield Sample("source_active", labels, live.active(feed) == name)
        yield Sample("source_up", labels, source.up)
        yield from _status_samples(labels, status)
        recorder = live.recorders.get((feed, name))
        if recorder is not None:
            yield Sample("source_recorded_bytes", labels, recorder.written_bytes)
        for number, connection in enumerate(status.connections):
            yield from _connection_samples((*labels, str(number)), connection, now_us)


def _status_samples(labels: tuple[str, str], status: SourceStatus) -> Iterator[Sample]:
    yield Sample("source_buffered_frames", labels, status.buffered)
    yield Sample("source_holds", labels, status.holds)
    yield Sample("source_book_resyncs", labels, status.resyncs)
    yield Sample("source_violations", labels, status.violations)
    yield Sample("source_refused", labels, status.refused)
    yield Sample("source_missing_numbers", labels, status.missing)
    yield Sample("source_rest_calls", labels, status.rest_calls)
    yield Sample("source_rest_failures", labels, status.rest_failures)


def _connection_samples(labels: tuple[str, str, str], status: ConnectionStatus, now_us: int) -> Iterator[Sample]:
    yield Sample("connection_up", labels, status.connection is not None and status.state in ("open", "renewing"))
    yield Sample("connection_frames", labels, status.frames)
    yield Sample("connection_reconnects", labels, status.reconnects)
    yield Sample("connection_renewals", labels, status.renewals)
    if status.last_proof_us:
        yield Sample("connection_proof_age_seconds", labels, (now_us - status.last_proof_us) / 1e6)
        yield Sample("connection_believable_silence_seconds", labels, status.silence_us / 1e6)
    if status.offset_us is not None:
        yield Sample("connection_clock_offset_seconds", labels, status.offset_us / 1e6)


def recovery_samples(durability: Durability) -> Iterator[Sample]:
    """Repairs, and the disk that they need."""
    yield Sample("journal_bytes", (), durability.recovery.size_bytes)
    yield Sample("journal_failures", (), durability.recovery.failures)
    for metric, rows in (("ticks_delivered_again", durability.ticks.again), ("ticks_lost", durability.ticks.lost)):
        for sink, count in rows.items():
            yield Sample(metric, (sink,), count)
    if durability.repairer is None:
        return
    counters = durability.repairer.counters
    yield Sample("gaps_repaired", (), counters.repaired)
    yield Sample("gaps_explained", (), counters.explained)
    yield Sample("gaps_lost", (), counters.lost)
    yield Sample("repair_rows", (), counters.rows)
    yield Sample("repair_failed_attempts", (), counters.failed_attempts)
    for instrument, gaps in durability.repairer.pending.items():
        yield Sample("repairs_pending", (instrument,), gaps)

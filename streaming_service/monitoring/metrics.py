"""Every metric the service exports: one table, and the collector that fills it when Prometheus asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from streaming_service.accounting import OUTCOMES

PREFIX: Final = "tick_handler_"
LATENCY_BUCKETS_S: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the table. Counters are exported with `_total` behind the name."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str

    @property
    def exported_name(self) -> str:
        return f"{PREFIX}{self.name}{'_total' if self.kind == 'counter' else ''}"


_STREAM: Final = ("instrument", "data_type")
_CANDLE: Final = ("instrument", "timeframe")
_SOURCE: Final = ("feed", "source")
_CONNECTION: Final = (*_SOURCE, "connection")
_TABLE_LABELS: Final = ("sink", "table")
_OUTCOME_HELP: Final = {
    "received": "Rows that came from sources; the sum of accepted, duplicate, invalid, refused and filtered.",
    "accepted": "Rows that went into candles.",
    "duplicate": "Rows whose id had been seen.",
    "invalid": "Rows that break their layout's rules.",
    "refused": "Rows later than the revision window.",
    "filtered": "Rows nobody asked for: of another instrument, or of a data type that no feature uses.",
    "late": "Accepted rows that came after their candle was published and revised it.",
    "clamped": "Rows stamped before the arrival clock, whose local_timestamp was moved up to it.",
}

METRICS: Final[tuple[Metric, ...]] = (
    *(Metric(f"ticks_{name}", "counter", _STREAM, _OUTCOME_HELP[name]) for name in OUTCOMES),
    Metric("gaps", "counter", _STREAM, "Intervals without proof of life."),
    Metric("last_tick_age_seconds", "gauge", _STREAM, "Service time since the last row was received."),
    Metric("data_lag_seconds", "gauge", _STREAM, "Service time minus the newest exchange timestamp."),
    Metric("ticks_per_second", "gauge", _STREAM, "Rows per second of service time, over the last minute."),
    Metric("stream_live", "gauge", _STREAM, "1 while the stream is live, 0 while it is waiting or stale."),
    Metric("ready", "gauge", (), "1 while /ready answers 200."),
    Metric("candles_published", "counter", _CANDLE, "Candles published for the first time."),
    Metric("candle_revisions", "counter", _CANDLE, "Candles published again with a higher revision."),
    Metric(
        "candle_publish_latency_seconds",
        "histogram",
        ("timeframe",),
        "Wall time from the moment a candle was due (close + grace) to its first publication.",
    ),
    Metric("source_active", "gauge", _SOURCE, "1 while the rows of this source of the feed are used."),
    Metric("source_up", "gauge", _SOURCE, "1 while every connection of the source works."),
    Metric("feed_switches", "counter", ("feed",), "Changes of the source whose rows are used."),
    Metric("source_buffered_frames", "gauge", _SOURCE, "Frames that wait for the next turn."),
    Metric("source_holds", "counter", _SOURCE, "Times that sockets were not read because too much waited."),
    Metric("source_book_resyncs", "counter", _SOURCE, "Order books that broke and were fetched again."),
    Metric("source_violations", "counter", _SOURCE, "Messages that broke the protocol of the other side."),
    Metric("source_refused", "counter", _SOURCE, "Subscriptions that the other side refused."),
    Metric("source_missing_numbers", "counter", _SOURCE, "Numbers of trades that never came, where they are counted."),
    Metric("source_rest_calls", "counter", _SOURCE, "Calls of the REST interface, repetitions among them."),
    Metric("source_rest_failures", "counter", _SOURCE, "Calls of the REST interface that failed for now."),
    Metric("source_recorded_bytes", "counter", _SOURCE, "Bytes written to the recording of frames."),
    Metric("connection_up", "gauge", _CONNECTION, "1 while the subscription has a connection."),
    Metric("connection_frames", "counter", _CONNECTION, "Frames of the present connection; each begins at 0."),
    Metric("connection_reconnects", "counter", _CONNECTION, "Connections after one that broke."),
    Metric("connection_renewals", "counter", _CONNECTION, "Connections that took over from one that still worked."),
    Metric("connection_proof_age_seconds", "gauge", _CONNECTION, "Service time since the last proof of life."),
    Metric(
        "connection_believable_silence_seconds", "gauge", _CONNECTION, "Silence that is not looked into, as learned."
    ),
    Metric(
        "connection_clock_offset_seconds",
        "gauge",
        _CONNECTION,
        "Our clock minus the exchange's, the shortest delay included.",
    ),
    Metric("gaps_repaired", "counter", (), "Gaps whose missing trades were fetched and fed."),
    Metric("gaps_explained", "counter", (), "Gaps in which nothing was missing."),
    Metric("gaps_lost", "counter", (), "Gaps whose missing trades nobody gave; left to the batch run."),
    Metric("repair_rows", "counter", (), "Trades put back by repairs."),
    Metric("repair_failed_attempts", "counter", (), "Attempts to fetch missing trades that came to nothing."),
    Metric("repairs_pending", "gauge", ("instrument",), "Gaps under repair."),
    Metric("journal_bytes", "gauge", (), "Bytes of the journals that a restart and repairs go by."),
    Metric("journal_failures", "counter", (), "Writes of journals and checkpoints that the disk refused."),
    Metric(
        "ticks_delivered_again", "counter", ("sink",), "Raw ticks given to the sink from the journal after a restart."
    ),
    Metric("ticks_lost", "counter", ("sink",), "Raw ticks that the sink lacked when their journal was gone."),
    Metric("sink_queue_depth", "gauge", ("sink",), "Batches waiting for the sink."),
    Metric("sink_rows_written", "counter", ("sink",), "Rows the sink took."),
    Metric("sink_rows_dropped", "counter", ("sink",), "Rows dropped because the sink's queue was full."),
    Metric("sink_rows_failed", "counter", ("sink",), "Rows the sink failed to take."),
    Metric("sink_errors", "counter", ("sink",), "Errors of the sink."),
    Metric("sink_retries", "counter", ("sink",), "Writes repeated because the sink was busy."),
    Metric("redis_connected", "gauge", (), "1 while the sink has a connection to Redis."),
    Metric("redis_trouble_seconds", "gauge", (), "How long Redis has taken nothing; 0 while it does."),
    Metric("redis_buffered_rows", "gauge", (), "Candles that wait for Redis."),
    Metric("redis_buffered_bytes", "gauge", (), "Size of the candles that wait for Redis."),
    Metric("redis_round_trip_seconds", "gauge", (), "Duration of the last round trip to Redis."),
    Metric(
        "redis_candles",
        "counter",
        ("outcome",),
        "Candles sent, found to be there already, rejected for good, given again to a Redis that had lost them "
        "(refilled), moved behind another writer's (renumbered), or lost by Redis for good.",
    ),
    Metric("redis_open_candles", "counter", ("outcome",), "Candles in progress sent, and skipped for a newer one."),
    Metric("redis_marks", "counter", ("outcome",), "Marks sent, paused during a repair, and lost."),
    Metric("redis_connects", "counter", (), "Connections made to Redis."),
    Metric("redis_failures", "counter", (), "Round trips to Redis that failed."),
    Metric("table_rows", "counter", _TABLE_LABELS, "Rows that the table has confirmed."),
    Metric("table_bytes", "counter", _TABLE_LABELS, "Size of these rows as BigQuery counts it."),
    Metric("table_batches", "counter", _TABLE_LABELS, "Batches that the table has confirmed."),
    Metric("table_appends", "counter", _TABLE_LABELS, "Calls that sent rows, repetitions among them."),
    Metric("table_retries", "counter", _TABLE_LABELS, "Batches sent again because the table was busy or away."),
    Metric("table_dead_letters", "counter", _TABLE_LABELS, "Rows that the table refused, kept in files."),
    Metric("table_rows_lost", "counter", _TABLE_LABELS, "Rows lost in damaged files of the spool."),
    Metric("table_waiting_rows", "gauge", _TABLE_LABELS, "Rows in the spool that the table has not confirmed."),
    Metric("table_waiting_bytes", "gauge", _TABLE_LABELS, "Size of the rows in the spool that wait for the table."),
    Metric("table_waiting_seconds", "gauge", _TABLE_LABELS, "How long the oldest of them has waited; else 0."),
    Metric(
        "table_cost_usd_today", "gauge", _TABLE_LABELS, "USD of the day (UTC) so far, by the prices in the settings."
    ),
    Metric("table_files_merged", "counter", ("sink",), "Files of local tables that became part of a larger one."),
    Metric("table_rows_expired", "counter", ("sink",), "Rows of local tables deleted with partitions older than kept."),
    Metric("spool_bytes", "gauge", ("sink",), "Size of the spool on disk, dead letters among it."),
    Metric("spool_max_bytes", "gauge", ("sink",), "Size at which the spool is full and ingest waits."),
    Metric("cost_usd_today", "gauge", ("sink",), "USD of the day (UTC) so far, all tables."),
    Metric("cost_alert", "gauge", ("sink",), "1 while the day has cost more than cost_alert_usd_per_day."),
    Metric("websocket_subscribers", "gauge", (), "WebSocket subscribers that are connected."),
    Metric("websocket_subscriptions", "counter", (), "WebSocket subscribers that came, those that left included."),
    Metric("websocket_turned_away", "counter", (), "Subscribers for whom there was no place."),
    Metric("websocket_messages_sent", "counter", (), "Messages written to the sockets of subscribers."),
    Metric("websocket_bytes_sent", "counter", (), "Bytes written to the sockets of subscribers."),
    Metric("websocket_waiting_bytes", "gauge", (), "Bytes that wait for slow subscribers."),
    Metric(
        "websocket_messages_dropped",
        "counter",
        ("policy",),
        "Messages that slow subscribers lost, as the policy they asked for says.",
    ),
    Metric(
        "websocket_slow_disconnects", "counter", (), "Subscribers that were disconnected because they were too slow."
    ),
    Metric("websocket_marks", "counter", (), "Watermarks and interval markers for subscribers."),
    Metric(
        "subscriber_rows_dropped", "counter", ("sink",), "Candles that slow subscribers of the in-process bus lost."
    ),
    Metric("task_failures", "counter", ("task",), "Failures of a supervised task."),
    Metric("task_restarts", "counter", ("task",), "Restarts of a supervised task."),
    Metric("event_loop_lag_seconds", "gauge", (), "How late the last probe of the event loop woke."),
    Metric("kernel_compiling", "gauge", (), "1 while a kernel is being compiled, which happens on a first run."),
    Metric("kernel_compilations", "counter", (), "Kernels compiled in this process; 0 when all came from the cache."),
    Metric("kernel_compile_seconds", "counter", (), "Time spent compiling kernels."),
)
_TABLE: Final[Mapping[str, Metric]] = {metric.name: metric for metric in METRICS}


@dataclass(frozen=True, slots=True)
class Sample:
    """A value of one metric of the table, with its labels in the table's order."""

    metric: str
    labels: tuple[str, ...]
    value: float


Reader = Callable[[], Iterable[Sample]]


class ServiceMetrics(Collector):
    """The registry of one service.

    Numbers that live elsewhere are not copied: `readers` are asked for samples at each scrape.
    """

    def __init__(self, readers: Sequence[Reader] = ()) -> None:
        self.registry = CollectorRegistry()
        self._readers = list(readers)
        self._published = _counter("candles_published", self.registry)
        self._revised = _counter("candle_revisions", self.registry)
        latency = _TABLE["candle_publish_latency_seconds"]
        self._latency = Histogram(
            latency.exported_name, latency.help, latency.labels, registry=self.registry, buckets=LATENCY_BUCKETS_S
        )
        self.candles = 0
        self.revisions = 0
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def add_reader(self, reader: Reader) -> None:
        """Ask `reader` too at each scrape."""
        self._readers.append(reader)

    def count_published(self, instrument: str, timeframe: str, *, candles: int, revisions: int) -> None:
        """Count candles published for the first time, and again."""
        self.candles += candles
        self.revisions += revisions
        self._published.labels(instrument, timeframe).inc(candles)
        self._revised.labels(instrument, timeframe).inc(revisions)

    def observe_latency(self, timeframe: str, latency_s: float) -> None:
        """Note how late a candle was published, in seconds of wall time."""
        self._latency.labels(timeframe).observe(latency_s)

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Families of all samples the readers give, each family once."""
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for reader in self._readers:
            for sample in reader():
                family = families.get(sample.metric)
                if family is None:
                    family = families[sample.metric] = _family(_TABLE[sample.metric])
                family.add_metric(sample.labels, sample.value)
        yield from families.values()

    def describe(self) -> list[CounterMetricFamily | GaugeMetricFamily]:
        """Nothing before the first scrape, so that registering asks no reader."""
        return []

    def render(self) -> bytes:
        """The Prometheus text format, version 0.0.4."""
        return generate_latest(self.registry)


def metrics_table() -> str:
    """The table as Markdown, for docs/reference/metrics.md."""
    lines = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    lines += [
        f"| `{metric.exported_name}` | {metric.kind} | {', '.join(metric.labels) or '-'} | {metric.help} |"
        for metric in METRICS
    ]
    lines.append("| `process_*` | gauge, counter | - | Memory, CPU time and open files of the process (Linux). |")
    return "\n".join(lines) + "\n"


def _counter(name: str, registry: CollectorRegistry) -> Counter:
    metric = _TABLE[name]
    return Counter(metric.exported_name, metric.help, metric.labels, registry=registry)


def _family(metric: Metric) -> CounterMetricFamily | GaugeMetricFamily:
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    return kind(metric.exported_name, metric.help, labels=metric.labels)

"""Reads the Redis sink for the metrics."""

from __future__ import annotations

from collections.abc import Iterator

from streaming_service.monitoring.metrics import Sample
from streaming_service.sinks.redis.sink import RedisSink

_CANDLES = ("sent", "already_there", "rejected", "refilled", "renumbered", "lost_by_redis")


def redis_samples(sink: RedisSink) -> Iterator[Sample]:
    """How the sink stands, and what became of what it was given."""
    report = sink.report()
    yield Sample("redis_connected", (), report["connected"])
    yield Sample("redis_trouble_seconds", (), report["trouble_s"] or 0.0)
    for name in ("buffered_rows", "buffered_bytes"):
        yield Sample(f"redis_{name}", (), report[name])
    yield Sample("redis_round_trip_seconds", (), report["round_trip_s"])
    for outcome in _CANDLES:
        yield Sample("redis_candles", (outcome,), report[outcome])
    for outcome in ("sent", "skipped"):
        yield Sample("redis_open_candles", (outcome,), report[f"open_{outcome}"])
    for outcome in ("sent", "paused", "lost"):
        yield Sample("redis_marks", (outcome,), report[f"marks_{outcome}"])
    for name in ("connects", "failures"):
        yield Sample(f"redis_{name}", (), report[name])

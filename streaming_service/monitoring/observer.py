"""Tells health and metrics what each turn of ingest drained and published."""

from __future__ import annotations

from typing import Final

import numpy as np

from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.events import Event
from streaming_service.monitoring.health import HealthMonitor
from streaming_service.monitoring.metrics import ServiceMetrics

_US_PER_S: Final = 1e6


class TurnMonitor:
    """`speed` turns the service's time into wall time, in which latencies are told."""

    def __init__(self, health: HealthMonitor, metrics: ServiceMetrics, *, grace_us: int, speed: float = 1.0) -> None:
        self._health = health
        self._metrics = metrics
        self._grace_us = grace_us
        self._us_per_wall_s = _US_PER_S * speed

    def drained(self, event: Event, now_us: int) -> None:
        self._health.observe(event, now_us)

    def published(self, batch: CandleBatch, now_us: int) -> None:
        first = batch["revision"] == 0
        candles = int(np.count_nonzero(first))
        timeframe = str(batch.timeframe)
        self._metrics.count_published(batch.instrument.key, timeframe, candles=candles, revisions=len(batch) - candles)
        late_us = now_us - (batch["timestamp"][first] + batch.timeframe.us + self._grace_us)
        # A candle published before it was due, at the end of a finite input, has no latency.
        for value_us in late_us[late_us >= 0].tolist():
            self._metrics.observe_latency(timeframe, value_us / self._us_per_wall_s)

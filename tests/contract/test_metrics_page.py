"""What /metrics serves is what Prometheus reads, by the word of Prometheus's own linter."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from streaming_service.monitoring.metrics import METRICS, Sample, ServiceMetrics


def test_promtool_accepts_a_page_with_every_metric() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("needs promtool: apt-get install prometheus")
    samples = [
        Sample(metric.name, tuple(f"a {label}" for label in metric.labels), 1.0)
        for metric in METRICS
        if metric.kind != "histogram" and not metric.name.startswith("candle")
    ]
    metrics = ServiceMetrics([lambda: samples])
    metrics.count_published("BINANCE:SPOT_PAIR:BTC-USDT", "1m", candles=2, revisions=1)
    metrics.observe_latency("1m", 0.0018)
    done = subprocess.run([promtool, "check", "metrics"], input=metrics.render(), capture_output=True)
    assert done.returncode == 0, done.stderr.decode()

"""The page that Prometheus scrapes has the numbers of the running parts under the names of the table."""

from __future__ import annotations

import asyncio
import re
import threading
from dataclasses import asdict

import numba
import pytest
from prometheus_client.parser import text_string_to_metric_families

from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.testing import ManualClock
from streaming_service.accounting import OUTCOMES, StreamAccount, stream_accounts
from streaming_service.monitoring.kernels import KernelCompilations
from streaming_service.monitoring.loop_lag import LoopLag
from streaming_service.monitoring.metrics import METRICS, PREFIX, Sample, ServiceMetrics, metrics_table
from streaming_service.monitoring.samples import account_samples

BTC = "BINANCE:SPOT_PAIR:BTC-USDT"


def scraped(metrics: ServiceMetrics) -> dict[tuple[str, frozenset[str]], float]:
    """Value by name and label values."""
    families = text_string_to_metric_families(metrics.render().decode())
    found = [sample for family in families for sample in family.samples]
    return {(sample.name, frozenset(sample.labels.values())): sample.value for sample in found}


def key(name: str, *labels: str) -> tuple[str, frozenset[str]]:
    return name, frozenset(labels)


def test_published_candles_and_revisions_are_counted_by_series() -> None:
    metrics = ServiceMetrics()
    metrics.count_published(BTC, "1m", candles=3, revisions=1)
    metrics.count_published(BTC, "1m", candles=1, revisions=0)
    page = scraped(metrics)
    assert page[key(f"{PREFIX}candles_published_total", BTC, "1m")] == 4
    assert page[key(f"{PREFIX}candle_revisions_total", BTC, "1m")] == 1
    assert (metrics.candles, metrics.revisions) == (4, 1)


def test_latencies_fall_into_fixed_buckets() -> None:
    metrics = ServiceMetrics()
    metrics.observe_latency("1m", 0.0018)
    page = scraped(metrics)
    name = f"{PREFIX}candle_publish_latency_seconds"
    assert page[key(f"{name}_bucket", "1m", "0.001")] == 0
    assert page[key(f"{name}_bucket", "1m", "0.002")] == 1
    assert page[key(f"{name}_sum", "1m")] == pytest.approx(0.0018)


def test_every_outcome_of_a_stream_is_exported() -> None:
    account = StreamAccount(received=10, accepted=5, duplicate=2, invalid=1, refused=1, filtered=1, late=3, clamped=4)
    page = scraped(ServiceMetrics([lambda: account_samples({(BTC, DataType.TRADES): account})]))
    found = {name: page[key(f"{PREFIX}ticks_{name}_total", BTC, "trades")] for name in OUTCOMES}
    assert found == asdict(account)
    assert account.balances


def test_readers_are_asked_at_each_scrape_and_not_before() -> None:
    asked: list[int] = []

    def read() -> list[Sample]:
        asked.append(1)
        return [Sample("ready", (), len(asked))]

    metrics = ServiceMetrics([read])
    assert asked == []
    assert scraped(metrics)[key(f"{PREFIX}ready")] == 1
    assert scraped(metrics)[key(f"{PREFIX}ready")] == 2


def test_rows_without_a_pipeline_are_filtered_and_the_account_balances() -> None:
    accounts = stream_accounts({}, {(BTC, DataType.BOOK): 7})
    assert accounts == {(BTC, DataType.BOOK): StreamAccount(received=7, filtered=7)}
    assert accounts[BTC, DataType.BOOK].balances


def test_process_memory_is_exported() -> None:
    assert scraped(ServiceMetrics())[key("process_resident_memory_bytes")] > 1e6


def test_names_follow_the_conventions_and_the_table_lists_each() -> None:
    table = metrics_table()
    for metric in METRICS:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", metric.name)
        assert f"`{metric.exported_name}`" in table
        assert metric.help.endswith(".")
    assert len({metric.name for metric in METRICS}) == len(METRICS)


def test_the_compiler_is_seen_at_work_and_not_after_stop() -> None:
    kernels = KernelCompilations()
    kernels.start()
    numba.njit(lambda x: x + 1)(1)
    kernels.stop()
    seen = kernels.compilations
    numba.njit(lambda x: x + 2)(1)
    assert seen >= 1
    assert kernels.compilations == seen
    assert kernels.seconds > 0
    assert not kernels.compiling


async def test_a_loop_that_wakes_late_says_by_how_much() -> None:
    clock = ManualClock()
    lag = LoopLag(clock, probe_s=0.25)
    probing = asyncio.create_task(lag.run())
    await clock.advance(0.1)
    clock.move(0.4)
    await clock.advance(0.0)
    assert lag.last_s == pytest.approx(0.25)
    probing.cancel()


def test_nothing_starts_a_thread() -> None:
    # Those of other tests may end meanwhile.
    before = set(threading.enumerate())
    ServiceMetrics().render()
    assert set(threading.enumerate()) <= before

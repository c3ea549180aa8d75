"""What /metrics and /health say of a live service: connections, fallbacks, gaps and their repairs, as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from prometheus_client.parser import text_string_to_metric_families

from market_data_tick_handler.core.events import GapEnding
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.testing.exchange import BookBreak, Cut, Drop, Garbage, SimulatedExchange
from streaming_service.monitoring.metrics import METRICS, PREFIX
from tests.e2e.live import RATES, Running, market_clock, running, serving
from tests.e2e.test_live_tardis import TRADES_ONLY, Machine, MachineServer, feed
from tests.waiting import patience

pytestmark = pytest.mark.alone

BTC = "BINANCE:SPOT_PAIR:BTC-USDT"
FEED = "binance:trades+book_snapshot_5"
LIVE = ("source_", "feed_", "connection_", "gaps_", "repair", "journal_")

Page = dict[str, dict[tuple[str, ...], float]]


async def scraped(run: Running) -> Page:
    """Values by name without prefix and by label values, labels in the order of their names; each set of them once."""
    async with ClientSession() as client, client.get(f"{run.service.server.url}/metrics") as response:
        text = await response.text()
    page: Page = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            values = page.setdefault(sample.name.removeprefix(PREFIX), {})
            labels = tuple(sample.labels.values())
            assert labels not in values, (sample.name, labels)
            values[labels] = sample.value
    return page


async def told_at_once(run: Running, holds: Callable[[Page], bool]) -> tuple[Any, Any]:
    """The metrics, once they say what is waited for, and the report of the same moment: no repair of a gap or of a
    book came to its end between them."""
    async with patience("metrics that hold, and a report of the same moment"):
        while True:
            before, page, after = await health(run), await scraped(run), await health(run)
            if holds(page) and ended(before) == ended(after):
                return page, after


def ended(report: dict[str, Any]) -> tuple[Any, ...]:
    exchange = report["sources"][FEED]["sources"]["exchange"]
    return report["recovery"]["repairs"], report["recovery"]["disk_failures"], exchange["book_resyncs"]


async def health(run: Running) -> dict[str, Any]:
    async with ClientSession() as client, client.get(f"{run.service.server.url}/health") as response:
        found: dict[str, Any] = await response.json()
    return found


async def test_every_metric_of_live_feeds_has_its_value(tmp_path: Path) -> None:
    chosen = {"record.enabled": True, "record.path": str(tmp_path / "frames")}
    async with running(tmp_path, "binance", ["BTCUSDT"], [BTC], **chosen) as run:
        links, source = ("0", FEED, "exchange"), (FEED, "exchange")
        await run.until_ready()
        await run.clock.sleep(20.0)
        before, _ = await told_at_once(run, lambda page: page["source_recorded_bytes_total"][source] > 0)
        for fault in (Garbage(), Drop(count=5), BookBreak()):
            run.exchange.inject(fault)
            await run.clock.sleep(10.0)
        cut_us = run.clock.now_us()
        run.exchange.inject(Cut(duration_s=4.0))
        await run.until(lambda: run.service.health_report()["sources"][FEED]["sources"]["exchange"]["book_resyncs"] > 0)
        await run.until(
            lambda: len(gaps(run)) >= 3 and any(gap.to_us > cut_us + 4_000_000 for gap in gaps(run)), lambda: gaps(run)
        )
        await run.until(lambda: all(gap.ending is not GapEnding.OPEN for gap in gaps(run)), lambda: gaps(run))
        # Nothing is under repair any more, and who is connected again has frames.
        page, report = await told_at_once(
            run, lambda page: not page.get("repairs_pending") and page["connection_frames_total"].get(links, 0.0) > 0.0
        )
        assert before["connection_up"][links] == page["connection_up"][links] == 1.0
        assert page["connection_reconnects_total"][links] > before["connection_reconnects_total"][links]
        assert 0.0 <= page["connection_proof_age_seconds"][links] < 5.0
        assert 0.0 < page["connection_believable_silence_seconds"][links] <= 60.0
        assert -1.0 < page["connection_clock_offset_seconds"][links] < 5.0
        assert page["source_up"][source] == page["source_active"][source] == 1.0
        assert page["source_violations_total"][source] >= 1 and page["source_missing_numbers_total"][source] >= 1
        assert page["source_recorded_bytes_total"][source] > before["source_recorded_bytes_total"][source] > 0
        told = report["sources"][FEED]
        assert (told["active"], told["switches"], told["order"]) == ("exchange", 0, ["exchange"])
        assert told["missing_trades_from"] == ["exchange"]
        assert told["sources"]["exchange"]["book_resyncs"] == page["source_book_resyncs_total"][source] > 0
        assert told["sources"]["exchange"]["connections"][0]["state"] == "open"
        repairs = report["recovery"]["repairs"]
        for name in ("repaired", "explained", "lost"):
            assert page[f"gaps_{name}_total"][()] == repairs[name]
        assert page["repair_rows_total"][()] == repairs["rows"] > 0
        assert page["repair_failed_attempts_total"][()] == repairs["failed_attempts"]
        assert page["journal_bytes"][()] > before["journal_bytes"][()] > 0
        assert page["journal_failures_total"][()] == report["recovery"]["disk_failures"] == 0
        named = {metric.exported_name.removeprefix(PREFIX) for metric in METRICS if metric.name.startswith(LIVE)}
        # No fallback here, and nothing under repair any more.
        assert named - set(page) == {"feed_switches_total", "repairs_pending"}


def gaps(run: Running) -> list[Any]:
    gaps = run.service.pipelines[BTC].gaps
    return [gap for gap in gaps if gap.reason != "service started"]


async def test_a_fallback_in_use_is_visible(tmp_path: Path) -> None:
    clock = market_clock(10.0)
    async with SimulatedExchange("binance", ["BTCUSDT"], clock=clock, seed=3, rates=RATES) as exchange:
        machine = Machine(exchange, clock)
        async with MachineServer(machine) as server:
            chosen = {
                **TRADES_ONLY,
                "data_types.trades.source": "tardis_realtime",
                "data_types.trades.fallback": ["exchange", "tardis_replay"],
                "tardis.machine_url": server.url,
                # Far beyond what connecting takes: only what the test does to the machine is an outage.
                "failover.after": "20s",
            }
            async with serving(tmp_path, exchange, [BTC], clock, **chosen) as run:
                await run.until_ready()
                assert feed(run)["active"] == "tardis_realtime"
                machine.down = True
                await run.until(lambda: feed(run)["active"] == "exchange")
                page, report = await scraped(run), await health(run)
                name = f"binance:{DataType.TRADES}"
                assert page["feed_switches_total"] == {(name,): 1.0}
                assert page["source_active"] == {(name, "tardis_realtime"): 0.0, (name, "exchange"): 1.0}
                assert page["source_up"][name, "tardis_realtime"] == 0.0
                told = report["sources"][name]
                assert told["order"] == ["tardis_realtime", "exchange", "tardis_replay"]
                assert told["missing_trades_from"] == ["exchange", "tardis-machine", "tardis"]
                await run.until_ready()

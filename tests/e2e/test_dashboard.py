"""The dashboard of a real service at a simulated exchange, in a real browser: candles move, a gap appears and heals."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiohttp import ClientSession

from market_data_tick_handler.testing.exchange import Cut, Rates
from tests.e2e.live import START_US, Running, running
from tests.streaming_service.serving.browser import Tab, chromium, tab

pytestmark = pytest.mark.alone

BTC, ETH = "BINANCE:SPOT_PAIR:BTC-USDT", "BINANCE:SPOT_PAIR:ETH-USDT"
S = 1_000_000
# A market that leaves the browser some of the processor.
CALM = Rates(6.0, 8.0, 4.0, 1.0, 0.2)
# How many colours the chart has.
COLOURS_DRAWN = """() => {
    const canvas = document.querySelector('#canvas canvas');
    const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    const colours = new Set();
    for (let at = 0; at < pixels.length; at += 4 * 97) colours.add(pixels.slice(at, at + 3).join());
    return colours.size;
}"""
SHOWN = {
    "desktop-dark": (1440, 900, "dark"),
    "desktop-light": (1440, 900, "light"),
    "phone-dark": (390, 844, "dark"),
    "phone-light": (390, 844, "light"),
}


async def at(run: Running, seconds: float) -> None:
    """Wait until so many seconds after the start of the test's time."""
    await run.clock.sleep(max(START_US / S + seconds - run.clock.now_us() / S, 0.0))


async def test_candles_move_and_a_gap_appears_and_heals(tmp_path: Path) -> None:
    chromium()
    async with (
        running(
            tmp_path,
            "binance",
            ["BTCUSDT", "ETHUSDT"],
            [BTC, ETH],
            speed=15.0,
            rates=CALM,
            modes=["serve", "persist"],
        ) as run,
        tab(f"{run.service.server.url}/#i={BTC}&t=15s&p=rsi_5,volume_delta") as opened,
    ):
        await assert_prices_move(opened)
        await opened.until_quality("COMPLETE", 3)
        await opened.until("document.querySelectorAll('#book .level').length === 11")
        await opened.until("document.querySelector('#status').dataset.state === 'live'")
        await opened.screenshot(tmp_path / "dashboard-live.png")

        run.exchange.inject(Cut(duration_s=40.0))
        await opened.until_quality("GAPPED", 2)
        await opened.until("document.querySelector('#alerts').textContent.includes('Feed Disconnected')")
        await opened.until("document.querySelector('#gaps [data-ending=open]') !== null")
        await opened.screenshot(tmp_path / "dashboard-gap.png")

        await opened.until_quality("GAPPED", 0, 0)
        await opened.until_quality("REPAIRED", 2)
        await opened.until("document.querySelectorAll('#gaps [data-ending=repaired]').length >= 1")
        await opened.screenshot(tmp_path / "dashboard-healed.png")
        await assert_counts_are_those_of_what_was_published(run, opened)
        assert opened.complaints == []


async def assert_prices_move(opened: Tab) -> None:
    """The candle in progress moves, and then closes."""
    seen = set()
    async with asyncio.timeout(30):
        while len(seen) < 3:
            seen.add(await opened.text("#price"))
            await opened.until(f"document.querySelector('#price').textContent !== '{sorted(seen)[-1]}'")


async def assert_counts_are_those_of_what_was_published(run: Running, opened: Tab) -> None:
    """What the legend counts is what subscribers were given, each candle as it stands."""

    async def counted() -> tuple[dict[str, int], dict[str, int]]:
        newest = {
            row["timestamp"]: row["quality"]
            for row in run.seen.rows
            if row["timeframe"] == "15s" and row["instrument_id"] == BTC
        }
        names = ("COMPLETE", "PARTIAL", "GAPPED", "REPAIRED")
        return {name: list(newest.values()).count(name) for name in names}, {
            name: await opened.quality(name) for name in names
        }

    async with asyncio.timeout(20):
        published, shown = await counted()
        # A candle may be on its way between the two looks.
        while published != shown:
            await run.clock.sleep(0.5)
            published, shown = await counted()
    assert shown["REPAIRED"] >= 2


async def repaired_after_a_cut(run: Running) -> None:
    cut_us = run.clock.now_us()
    run.exchange.inject(Cut(duration_s=45.0))
    await run.seen.until(lambda row: row["timestamp"] > cut_us and row["quality"] == "REPAIRED")


async def test_the_page_fits_desks_and_phones_light_and_dark(tmp_path: Path) -> None:
    """Kept as images for people; what can be checked is that nothing sticks out and that the chart is not empty."""
    chromium()
    async with running(
        tmp_path, "binance", ["BTCUSDT", "ETHUSDT"], [BTC, ETH], speed=40.0, rates=CALM, modes=["serve", "persist"]
    ) as run:
        await at(run, 90.0)
        for name, (width, height, scheme) in SHOWN.items():
            # Anew for each: what is narrow shows few candles, and time goes on.
            await repaired_after_a_cut(run)
            address = f"{run.service.server.url}/#t={'1m' if width < 600 else '15s'}&p=rsi_5"
            async with tab(address, width=width, height=height, scheme=scheme) as opened:
                await opened.until_quality("REPAIRED", 1)
                await opened.until("document.querySelectorAll('#feeds tbody tr').length === 4")
                await opened.until("document.querySelectorAll('#book .level').length === 11")
                await opened.screenshot(tmp_path / f"dashboard-{name}.png")
                assert await opened.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
                assert await opened.page.evaluate(COLOURS_DRAWN) > 20
                assert opened.complaints == []


async def test_rest_tells_what_was_published(tmp_path: Path) -> None:
    """The newest revision of each candle, over HTTP, from memory and files."""
    async with running(
        tmp_path, "binance", ["BTCUSDT"], [BTC], speed=20.0, rates=CALM, modes=["serve", "persist"]
    ) as run:
        await run.seen.until(lambda row: row["timestamp"] >= START_US + 55 * S and row["timeframe"] == "15s")
        async with ClientSession(run.service.server.url) as session:
            query = {"instrument": BTC, "timeframe": "15s", "columns": "rsi_5,volume_delta", "to": START_US + 40 * S}
            async with session.get("/api/candles", params=query) as response:
                assert response.status == 200
                found = (await response.json())["rows"]
        newest = {row["timestamp"]: row for row in run.seen.rows if row["timeframe"] == "15s"}
        wanted = [newest[time_us] for time_us in sorted(newest) if time_us < START_US + 40 * S]
        assert len(found) == len(wanted) >= 2
        for row, published in zip(found, wanted, strict=True):
            assert row == {name: published[name] for name in row}

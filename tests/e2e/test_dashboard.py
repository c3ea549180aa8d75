"""The dashboard of a real service at a simulated exchange, in a real browser: candles move, a gap appears and heals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from market_data_tick_handler.testing.exchange import Cut, Rates
from tests.e2e.live import START_US, Running, running
from tests.streaming_service.serving.browser import Tab, chromium, tab
from tests.waiting import until

pytestmark = pytest.mark.alone

BTC, ETH = "BINANCE:SPOT_PAIR:BTC-USDT", "BINANCE:SPOT_PAIR:ETH-USDT"
S = 1_000_000
# A market that leaves the browser some of the processor.
CALM = Rates(6.0, 8.0, 4.0, 1.0, 0.2)
# Candles by quality, all of one moment.
COUNTED = """names => Object.fromEntries(names.map(name =>
    [name, Number(document.querySelector(`#legend [data-quality="${name}"] b`).innerText)]))"""
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

        # Until the page, which draws as fast as the machine lets it, has shown it.
        run.exchange.inject(Cut(duration_s=None))
        await opened.until_quality("GAPPED", 2)
        await opened.until("document.querySelector('#alerts').textContent.includes('Feed Disconnected')")
        await opened.until("document.querySelector('#gaps [data-ending=open]') !== null")
        await opened.screenshot(tmp_path / "dashboard-gap.png")

        await run.exchange.heal()
        await opened.until_quality("GAPPED", 0, 0)
        await opened.until_quality("REPAIRED", 2)
        await opened.until("document.querySelectorAll('#gaps [data-ending=repaired]').length >= 1")
        await opened.screenshot(tmp_path / "dashboard-healed.png")
        await assert_counts_are_those_of_what_was_published(run, opened)
        assert opened.complaints == []


async def assert_prices_move(opened: Tab) -> None:
    """The candle in progress moves, and then closes."""
    seen = set()

    async def look() -> bool:
        seen.add(await opened.text("#price"))
        return len(seen) >= 3

    await until(look, lambda: seen, poll_s=0.05)


async def assert_counts_are_those_of_what_was_published(run: Running, opened: Tab) -> None:
    """What the legend counts is what subscribers were given, each candle as it stands."""
    names = ("COMPLETE", "PARTIAL", "GAPPED", "REPAIRED")
    since = len(run.seen.rows)
    published: list[dict[str, int]] = []
    shown: dict[str, int] = {}

    def counts() -> Iterator[dict[str, int]]:
        """After each row, beginning with those of `since`: the page is behind, by one moment or more."""
        newest: dict[int, str] = {}
        for number, row in enumerate(run.seen.rows):
            if number == since:
                yield {name: list(newest.values()).count(name) for name in names}
            if row["timeframe"] == "15s" and row["instrument_id"] == BTC:
                newest[row["timestamp"]] = row["quality"]
                if number >= since:
                    yield {name: list(newest.values()).count(name) for name in names}

    async def agree() -> bool:
        shown.update(await opened.page.evaluate(COUNTED, names))
        published[:] = counts()
        return shown in published

    await until(agree, lambda: (shown, published), poll_s=0.05)
    assert shown["REPAIRED"] >= 2


async def repaired_after_a_cut(run: Running) -> None:
    cut_us = run.clock.now_us()
    run.exchange.inject(Cut(duration_s=45.0))
    await run.seen.until(lambda row: row["timestamp"] > cut_us and row["quality"] == "REPAIRED")


async def test_the_page_fits_desks_and_phones_light_and_dark(tmp_path: Path) -> None:
    """Kept as images for people; what can be checked is that nothing sticks out and that the chart is not empty."""
    chromium()
    async with running(
        tmp_path, "binance", ["BTCUSDT", "ETHUSDT"], [BTC, ETH], speed=20.0, rates=CALM, modes=["serve", "persist"]
    ) as run:
        await run.until_time(START_US + 90 * S)
        for name, (width, height, scheme) in SHOWN.items():
            address = f"{run.service.server.url}/#t={'1m' if width < 600 else '15s'}&p=rsi_5"
            async with tab(address, width=width, height=height, scheme=scheme) as opened:
                # Anew for each: what is narrow shows few candles, and time goes on.
                await repaired_after_a_cut(run)
                await opened.until_quality("REPAIRED", 1)
                await opened.until("document.querySelectorAll('#feeds tbody tr').length === 4")
                await opened.until("document.querySelectorAll('#book .level').length === 11")
                await opened.screenshot(tmp_path / f"dashboard-{name}.png")
                await opened.until("document.documentElement.scrollWidth <= innerWidth")
                await opened.until(f"({COLOURS_DRAWN})() > 20")
                assert opened.complaints == []


async def test_rest_tells_what_was_published(tmp_path: Path) -> None:
    """The newest revision of each candle, over HTTP, from memory and files."""
    async with running(
        tmp_path, "binance", ["BTCUSDT"], [BTC], speed=20.0, rates=CALM, modes=["serve", "persist"]
    ) as run:
        await run.until(lambda: len(closed(run)) >= 4)
        # What closes meanwhile is behind it.
        until_us = max(closed(run))
        query: dict[str, str | int] = {
            "instrument": BTC,
            "timeframe": "15s",
            "columns": "rsi_5,volume_delta",
            "to": until_us,
        }
        told: list[list[dict[str, Any]]] = []
        async with ClientSession(run.service.server.url) as session:

            async def agrees() -> bool:
                async with session.get("/api/candles", params=query) as response:
                    assert response.status == 200
                    found = (await response.json())["rows"]
                # A revision may be on its way between the two looks.
                newest = closed(run)
                wanted = [newest[time_us] for time_us in sorted(newest) if time_us < until_us]
                told[:] = found, wanted
                return len(found) == len(wanted) >= 2 and all(
                    row == {name: published[name] for name in row} for row, published in zip(found, wanted, strict=True)
                )

            await until(agrees, lambda: told, poll_s=0.05)


def closed(run: Running) -> dict[int, dict[str, Any]]:
    """The newest revision of each candle of 15 seconds."""
    return {row["timestamp"]: row for row in run.seen.rows if row["timeframe"] == "15s"}

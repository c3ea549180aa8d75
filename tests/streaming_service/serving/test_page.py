"""The page in a real browser, on a service that says what the test wants it to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.events import Gap
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.core.timeframes import Timeframe
from tests.streaming_service.serving.browser import tab
from tests.streaming_service.serving.serving_world import CALM, NOW_US, Said, World, listening, world
from tests.waiting import PATIENCE_S, until
from tests.wire.candles import BTC, ETH, candles

TIMEFRAMES = (Timeframe.S15, Timeframe.M1)
FIRST = "1 Jan 00:00"
EVIL = "<img src=x onerror=\"alert('in')\">"


def whole(first: int, count: int, *, quality: str = "COMPLETE", **columns: Any) -> CandleBatch:
    """Candles as the pipeline gives them, with their quality."""
    return candles(first, count, quality=np.full(count, quality), **columns)


def said() -> Said:
    report = {
        "status": "ok",
        "service_time_us": NOW_US,
        "candles": 12,
        "revisions": 1,
        "data_types": {"trades": {"instruments": {BTC: {
            "status": "live", "last_tick_age_s": 0.25, "lag_s": 0.5, "ticks_per_s": 20.5, "gaps": 3, "errors": 0}}}},
        "sinks": {"parquet": {"queue_depth": 1, "written": 99, "dropped": 0, "failed": 0, "errors": 0, "retries": 0}},
    }  # fmt: skip
    book = {
        "timestamp": NOW_US, "local_timestamp": NOW_US,
        "bids": [[99.5, 2.0], [99.0, 1.0]], "asks": [[100.5, 3.0], [101.0, 0.5]],
    }  # fmt: skip
    return Said(health=report, books={BTC: book})


@pytest.fixture
async def served() -> AsyncIterator[World]:
    async with world(
        replace(CALM, open_interval_s=0.01, history_frames=2_000), said=said(), timeframes=TIMEFRAMES
    ) as running:
        await running.sink.write(whole(0, 40))
        yield running


async def test_everything_is_shown_and_the_browser_complains_about_nothing(served: World) -> None:
    served.said.gaps.append(Gap(BTC, DataType.TRADES, NOW_US - 9_000_000, NOW_US - 3_000_000, "disconnect"))
    async with tab(served.url) as opened:
        await opened.until_quality("COMPLETE", 40)
        await opened.until("document.querySelector('#status').dataset.state === 'live'")
        await opened.shows("#price", "139.5")
        await opened.shows("#title", lambda text: "BTC-USDT" in text and "1m" in text)
        await opened.shows("#chips .chip", lambda text: text.split()[:2] == ["rsi_5", "55.25"])
        levels: list[list[str]] = []

        async def has_book() -> bool:
            levels[:] = [text.split() for text in await opened.page.locator("#book .level").all_inner_texts()]
            return levels[1:] == [["101.0", "0.5"], ["100.5", "3"], ["99.5", "2"], ["99.0", "1"]]

        await until(has_book, lambda: f"a book of five lines, there is {levels}")
        await opened.shows("#book .spread", lambda text: "spread 1.0" in text)
        feed = ["BTC-USDT", "trades", "·", "Binance", "spot", "0.25", "s", "20.5", "0.50", "s", "3", "0"]
        await opened.shows("#feeds tbody tr", lambda text: text.split() == feed)
        await opened.shows("#sinks tbody tr", lambda text: text.split()[:4] == ["parquet", "1", "–", "99"])
        await opened.shows("#alerts", "Nothing is wrong")
        await opened.shows("#gaps li", lambda text: "open" in text and "6.0 s" in text)
        assert opened.complaints == []


async def test_candles_move_on_in_progress_too(served: World) -> None:
    async with tab(served.url) as opened:
        await opened.until_quality("COMPLETE", 40)
        served.sink.write_open(whole(40, 1, close=np.array([777.25])))
        await opened.until("document.querySelector('#price').textContent === '777.25'")
        await opened.shows("#ohlc .quality dd", "OPEN")
        assert await opened.quality("COMPLETE") == 40
        await served.sink.write(whole(40, 1))
        await opened.until_quality("COMPLETE", 41)
        await opened.shows("#price", "140.5")


async def test_a_gap_is_seen_and_heals_when_the_revision_comes(served: World) -> None:
    async with tab(served.url) as opened:
        await opened.until_quality("COMPLETE", 40)
        await served.sink.write(whole(40, 2, quality="GAPPED", gap_ms=6_000, coverage=0.9))
        await opened.until_quality("GAPPED", 2)
        await opened.shows("#ohlc .quality dd", lambda text: "GAPPED · 6.0 s gap" in text)
        gapped = await opened.page.locator("#canvas canvas").screenshot()
        revised = whole(40, 2, quality="REPAIRED", revision=1).numbered(np.array([43, 44]))
        await served.sink.write(revised)
        await opened.until_quality("GAPPED", 0, 0)
        await opened.until_quality("REPAIRED", 2)

        async def looks_different() -> bool:
            return bool(await opened.page.locator("#canvas canvas").screenshot() != gapped)

        await until(looks_different, "another picture")


async def test_a_broken_socket_comes_back_and_nothing_is_missed(served: World) -> None:
    async with tab(served.url) as opened:
        await opened.until_quality("COMPLETE", 40)
        await listening(served)
        for receiver in served.sink.hub.receivers:
            receiver.end(1012, "restart")  # type: ignore[attr-defined]
        await served.sink.write(whole(40, 3))
        await listening(served)
        await opened.until_quality("COMPLETE", 43)
        await opened.until("document.querySelector('#status').dataset.state === 'live'")


async def test_a_service_that_is_away_is_said_to_be_and_found_again() -> None:
    async with world(said=said()) as served:
        await served.sink.write(whole(0, 3))
        async with tab(served.url) as opened:
            await opened.until("document.querySelector('#status').dataset.state === 'live'")
            await served.sink.aclose()
            await opened.until("document.querySelector('#status').textContent.includes('Reconnecting')")
            await served.sink.open()
            await opened.until("document.querySelector('#status').dataset.state === 'live'")


async def test_the_reader_chooses_instrument_timeframe_and_panes_and_the_address_keeps_the_choice(
    served: World,
) -> None:
    await served.sink.write(whole(0, 7, key=ETH))
    await served.sink.write(whole(0, 9, timeframe=Timeframe.S15, key=ETH))
    async with tab(served.url) as opened:
        await opened.until_quality("COMPLETE", 40)
        await opened.page.select_option("#instrument", ETH)
        await opened.until_quality("COMPLETE", 7, 7)
        await opened.page.click('#timeframes [data-timeframe="15s"]')
        await opened.until_quality("COMPLETE", 9, 9)
        await opened.shows("#title", lambda text: "15s" in text)
        await opened.page.select_option("#add-pane", "volume")
        await opened.page.click('#chips [data-name="rsi_5"]')
        await opened.until("document.querySelectorAll('#chips .chip').length === 1")
        await opened.shows("#chips .chip", lambda text: text.split()[:2] == ["volume", "2"])
        await opened.page.reload()
        await opened.until_quality("COMPLETE", 9, 9)
        assert await opened.page.input_value("#instrument") == ETH
        assert await opened.page.get_attribute('#timeframes [data-timeframe="15s"]', "aria-checked") == "true"
        await opened.shows("#chips .chip", lambda text: text.split()[:1] == ["volume"])


async def test_the_candle_under_the_pointer_is_told(served: World) -> None:
    async with tab(served.url) as opened:
        await opened.until_quality("COMPLETE", 40)
        box = await opened.page.locator("#canvas canvas").bounding_box()
        await opened.page.mouse.move(box["x"] + 100, box["y"] + 60)
        await opened.until("!document.querySelector('#ohlc').textContent.includes('139.5')")
        await opened.page.mouse.move(box["x"] + 100, box["y"] - 60)
        await opened.until("document.querySelector('#ohlc').textContent.includes('139.5')")


async def test_going_back_brings_older_candles_and_a_way_to_the_newest(served: World) -> None:
    await served.sink.write(whole(40, 900))
    async with tab(served.url) as opened:
        await opened.until_quality("COMPLETE", 50)

        async def further_back() -> bool:
            await opened.page.focus("#canvas canvas")
            await opened.page.keyboard.press("Home")
            return await first_seen(opened)

        # Each look moves the pointer over the whole chart, which takes seconds.
        await until(further_back, "the first candle", within_s=5 * PATIENCE_S)
        await opened.page.wait_for_selector("#follow", state="visible")
        await opened.page.click("#follow")
        await opened.until("document.querySelector('#follow').hidden")


async def first_seen(opened: Any) -> bool:
    """Whether the very first candle can be found under the pointer."""
    box = await opened.page.locator("#canvas canvas").bounding_box()
    for x in range(0, int(box["width"]), 8):
        await opened.page.mouse.move(box["x"] + x, box["y"] + 50)
        if (await opened.text("#ohlc .time dd")).endswith(FIRST):
            return True
    return False


async def test_light_and_dark_follow_the_system_until_the_reader_chooses(served: World) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    async with tab(served.url, scheme="light") as opened:
        light = await opened.page.evaluate(paper)
        await opened.page.emulate_media(color_scheme="dark")
        await opened.until(f"{paper} !== '{light}'")
        await opened.page.click("#theme")
        await opened.until(f"{paper} === '{light}'")
        await opened.page.reload()
        await opened.until(f"{paper} === '{light}'")
        assert opened.complaints == []


@pytest.mark.parametrize("width", [320, 390, 768, 1024, 1920])
async def test_nothing_sticks_out_at_any_width(served: World, width: int) -> None:
    async with tab(served.url, width=width) as opened:
        await opened.until_quality("COMPLETE", 10)
        await opened.until("document.querySelectorAll('#feeds tbody tr').length === 1")
        assert await opened.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        small = """[...document.querySelectorAll('button, select')].filter(each => each.offsetParent
            && each.getBoundingClientRect().height < 24).map(each => each.outerHTML)"""
        assert await opened.page.evaluate(small) == []


async def test_names_that_are_markup_are_shown_as_text(served: World) -> None:
    served.said.health |= {"sinks": {EVIL: {}}, EVIL: {"connected": False, "last_error": EVIL}}
    served.said.health["task_failures"] = {EVIL: EVIL}
    served.said.health["status"] = EVIL
    served.said.gaps.append(Gap(BTC, DataType.TRADES, NOW_US - 9_000_000, NOW_US - 3_000_000, EVIL))
    async with tab(f"{served.url}/#i={EVIL}&t={EVIL}&p={EVIL}") as opened:
        await opened.until("document.querySelectorAll('#alerts .alert').length === 2")
        await opened.until("document.querySelector('#gaps').textContent.includes('onerror')")
        await opened.shows("#sinks tbody tr", lambda text: EVIL in text)
        assert await opened.page.evaluate("document.querySelectorAll('main img').length") == 0
        assert opened.complaints == []


async def test_people_sign_in_with_the_token_and_then_see_the_page() -> None:
    async with world(host="0.0.0.0", token="correct-horse", said=said()) as served:
        await served.sink.write(whole(0, 5))
        async with tab(served.url) as opened:
            await opened.page.fill("#token", "wrong")
            await opened.page.press("#token", "Enter")
            await opened.page.wait_for_selector(".wrong")
            await opened.page.fill("#token", "correct-horse")
            await opened.page.press("#token", "Enter")
            await opened.page.wait_for_selector("#legend b")
            await opened.until_quality("COMPLETE", 5)
            await opened.until("document.querySelector('#status').dataset.state === 'live'")


async def test_the_api_is_documented_for_people(served: World) -> None:
    async with tab(f"{served.url}/api/docs") as opened:
        await opened.page.wait_for_selector("article")
        await opened.shows("#docs", lambda text: "/api/candles" in text and "/ws" in text and "timeframe" in text)
        assert opened.complaints == []

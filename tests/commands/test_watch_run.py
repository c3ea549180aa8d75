"""A run of `watch` against the serving part of a service: tables, lines, and connections that break."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from market_data_tick_handler.commands.selection import Selection
from market_data_tick_handler.commands.watch_place import Place, make_place
from market_data_tick_handler.commands.watch_run import Watch, WatchOptions
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.errors import SourceUnavailable
from tests.client.made import HASTY
from tests.client.publisher import publisher
from tests.commands.watched import BTC, ETH
from tests.servers.redis_server import redis_server
from tests.servers.tcp_proxy import TcpProxy, tcp_proxy
from tests.streaming_service.serving.serving_world import NOW_US, Said, World, world
from tests.waiting import patience, until
from tests.wire.candles import candles


class Screen:
    """What is written, as a terminal or as a file."""

    def __init__(self, *, terminal: bool, width: int = 120) -> None:
        self._file = StringIO()
        self.console = Console(file=self._file, width=width, height=30, force_terminal=terminal, color_system=None)

    @property
    def text(self) -> str:
        return self._file.getvalue()

    @property
    def last(self) -> str:
        """The last screen that was drawn."""
        return self.text.rpartition("watch  ")[2]


def make_watch(place: Place | str, screen: Screen, **options: Any) -> Watch:
    selection = Selection(**{name: options.pop(name) for name in ("symbols", "timeframes") if name in options})
    made = make_place(place) if isinstance(place, str) else place
    return Watch(made, WatchOptions(selection=selection, **options), out=screen.console, timing=HASTY)


@asynccontextmanager
async def watching(watch: Watch) -> AsyncIterator[None]:
    """It runs, and is stopped with the block."""
    task = asyncio.create_task(watch.run())
    try:
        yield
        assert not task.done() or task.exception() is None
    finally:
        watch.stop.set()
        async with patience("its end"):
            await task


@asynccontextmanager
async def behind_proxy(said: Said | None = None) -> AsyncIterator[tuple[World, TcpProxy]]:
    """A service, and the way to it, which can be cut."""
    async with world(said=said) as served, tcp_proxy("127.0.0.1", int(served.url.rpartition(":")[2])) as proxy:
        yield served, proxy


async def test_once_prints_one_table_of_all_instruments() -> None:
    async with world() as served:
        await served.sink.write(candles(0, 30, quality="COMPLETE", coverage=1.0))
        await served.sink.write(candles(0, 30, key=ETH, quality="PARTIAL", coverage=0.5))
        screen = Screen(terminal=False, width=160)
        await make_watch(served.url, screen, once=True).run()
    rows = [line.split() for line in screen.text.splitlines() if "SPOT_PAIR" in line]
    assert [row[0] for row in rows] == [BTC, ETH]
    assert "129.50" in rows[0] and "COMPLETE" in rows[0] and "PARTIAL" in rows[1] and "50%" in rows[1]
    assert screen.text.count("watch  ") == 1


async def test_once_without_a_candle_is_an_error_that_says_how_long_was_waited() -> None:
    async with world() as served:
        with pytest.raises(BaseExceptionGroup) as failed:
            await make_watch(served.url, Screen(terminal=False), once=True, duration_s=0.2).run()
    assert failed.group_contains(SourceUnavailable, match=r"no candle came from .* within 0.2 s \(connected")


async def test_what_is_no_terminal_gets_a_line_per_candle_from_the_newest_on() -> None:
    async with world() as served:
        await served.sink.write(candles(0, 5, quality="COMPLETE"))
        screen = Screen(terminal=False)
        watch = make_watch(served.url, screen, symbols=("BTC-USDT",))
        async with watching(watch):
            await until(lambda: screen.text.count("\n") == 1, "the newest candle")
            await served.sink.write(candles(5, 3, quality="GAPPED"))
            await until(lambda: screen.text.count("\n") == 4, "three more")
    lines = screen.text.splitlines()
    assert [line.split("C=")[1].split()[0] for line in lines] == ["104.50", "105.50", "106.50", "107.50"]
    assert all(f"{BTC} 1m" in line for line in lines) and "GAPPED" in lines[-1]


async def test_as_json_each_line_is_the_message_even_on_a_terminal() -> None:
    async with world() as served:
        await served.sink.write(candles(0, 5))
        screen = Screen(terminal=True)
        watch = make_watch(served.url, screen, symbols=("BTC-USDT",), as_json=True, history=3)
        async with watching(watch):
            await until(lambda: screen.text.count("\n") == 3, "three candles")
    documents = [json.loads(line) for line in screen.text.splitlines()]
    assert [each["close"] for each in documents] == [102.5, 103.5, 104.5]
    assert documents[0]["hft_features"]["rsi_5"] == 55.25


async def test_a_lost_connection_is_shown_and_mended() -> None:
    async with behind_proxy() as (served, proxy):
        await served.sink.write(candles(0, 5))
        screen = Screen(terminal=True)
        watch = make_watch(f"http://127.0.0.1:{proxy.port}", screen)
        async with watching(watch):
            await until(lambda: "● connected, service ok" in screen.last and "104.50" in screen.last, "a table")
            proxy.refuse = True
            proxy.cut()
            await until(lambda: "no connection for" in screen.last and "trying again" in screen.last, "the loss")
            await served.sink.write(candles(5, 3))
            proxy.refuse = False
            await until(lambda: "● connected" in screen.last and "107.50" in screen.last, "the next candles")
        assert "reconnect" in screen.last
        assert "Ctrl-C ends" not in screen.last, "the table that stays behind has no instructions"


async def test_where_lines_are_printed_the_loss_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    async with behind_proxy() as (served, proxy):
        await served.sink.write(candles(0, 1))
        screen, told = Screen(terminal=False), ""

        def tells(text: str) -> bool:
            nonlocal told
            told += capsys.readouterr().err
            return text in told

        async with watching(make_watch(f"http://127.0.0.1:{proxy.port}", screen, symbols=("BTC-USDT",))):
            await until(lambda: "100.50" in screen.text, "a candle")
            proxy.refuse = True
            proxy.cut()
            await until(lambda: tells("no connection, trying again: "), "the loss")
            proxy.refuse = False
            await until(lambda: tells("connected again"), "the connection")
    assert screen.text.count("\n") == 1


async def test_instruments_that_come_and_go_do_so_on_the_screen() -> None:
    said = Said(keys=(BTC,))
    async with world(said=said) as served:
        await served.sink.write(candles(0, 5))
        await served.sink.write(candles(0, 5, key=ETH))
        place = make_place(served.url)
        place.asks_every_s = place.finds_every_s = 0.02
        watch = make_watch(place, Screen(terminal=True))
        async with watching(watch):
            await until(lambda: watch.board.is_complete, "BTC")
            said.keys = (BTC, ETH)
            await until(lambda: len(watch.board.rows) == 2 and watch.board.is_complete, "ETH too")
            said.keys = (ETH,)
            await until(lambda: list(watch.board.rows) == [(ETH, Timeframe.M1)], "ETH alone")


async def test_feeds_and_alerts_of_the_service_are_shown_and_forgotten_with_it() -> None:
    health: dict[str, Any] = {"status": "degraded", "service_time_us": NOW_US, "blind": [f"{BTC}/trades"]}
    stream = {"status": "stale", "required": True, "gaps": 4, "last_tick_age_s": 61.0}
    health["data_types"] = {"trades": {"instruments": {BTC: stream}}}
    async with behind_proxy(Said(health=health)) as (served, proxy):
        place = make_place(f"http://127.0.0.1:{proxy.port}")
        place.asks_every_s = 0.02
        await served.sink.write(candles(0, 5))
        screen = Screen(terminal=True)
        watch = make_watch(place, screen)
        async with watching(watch):
            await until(lambda: "StreamBlind" in screen.last and "degraded" in screen.last, "the alert")
            assert watch.board.feeds[BTC].gaps == 4
            proxy.refuse = True
            proxy.cut()
            await until(lambda: "no connection" in screen.last and "StreamBlind" not in screen.last, "no service")


async def test_a_service_that_begins_anew_in_its_past_is_shown_from_there_on() -> None:
    said = Said()
    async with world(said=said) as served:
        place = make_place(served.url)
        place.asks_every_s = 0.02
        await served.sink.write(candles(0, 5))
        watch = make_watch(place, Screen(terminal=True), symbols=("BTC-USDT",))
        async with watching(watch):
            await until(lambda: watch.board.candles == 5, "candles")
            assert watch.clock.now_us() >= NOW_US
            said.health["service_time_us"] = NOW_US - 3_600_000_000
            await until(lambda: watch.clock.now_us() < NOW_US - 3_000_000_000, "the other time")
            await until(lambda: watch.board.candles == 10 and watch.board.is_complete, "its candles, read again")


async def test_the_duration_ends_it() -> None:
    async with world() as served:
        screen = Screen(terminal=True)
        async with patience("its end"):
            await make_watch(served.url, screen, duration_s=0.1).run()
    assert "no candle yet" in screen.last


async def test_a_redis_is_followed_over_its_restart_with_candles_in_progress() -> None:
    with redis_server() as server:
        async with publisher(server) as publishes:
            await publishes.publish(candles(0, 5))
            await publishes.publish(candles(0, 5, key=ETH, timeframe=Timeframe.M5))
            screen = Screen(terminal=True)
            watch = make_watch(server.url, screen)
            async with watching(watch):
                await until(lambda: watch.board.is_complete and watch.link.connected, "both series")
                assert list(watch.board.rows) == [(BTC, Timeframe.M1), (ETH, Timeframe.M5)]
                await publishes.publish_open(candles(5))
                await until(lambda: re.search(r"BTC-USDT +1m +105.50 +104.50", screen.last) is not None, "its price")
                await asyncio.to_thread(server.kill)
                await until(lambda: "no connection" in screen.last, "the loss")
                await asyncio.to_thread(server.start)
                await until(lambda: "● connected" in screen.last, "the connection")
        async with publisher(server) as publishes, watching(make_watch(server.url, screen, timeframes=("1m",))):
            await publishes.publish(candles(5, 2))
            await until(lambda: "106.50" in screen.last, "the next candle")
    assert "feed" not in screen.last and "alerts" not in screen.last


async def test_ages_of_candles_of_a_simulated_market_are_counted_on_its_clock() -> None:
    with redis_server() as server:
        async with publisher(server) as publishes:
            await publishes.publish(candles(0, 5))
            screen = Screen(terminal=True)
            watch = make_watch(server.url, screen)
            async with watching(watch):
                await until(lambda: watch.board.is_complete, "the candles")
                row = watch.board.rows[BTC, Timeframe.M1]
                assert row.lateness(watch.clock.now_us()) == 2, "for all we know they are years old"
                for index in range(5, 50):
                    await publishes.publish(candles(index))
                    await until(lambda price=index + 100.5: row.price == price, "one that was published just now")  # type: ignore[misc]
                    # What was read from the stream says nothing of when it was published.
                    if not watch.clock.is_own:
                        break
                # It was published half a second after its close, and came a moment later.
                assert row.lateness(watch.clock.now_us()) == 0 and row.lag_s is not None and 0.499 < row.lag_s < 30.0
                await until(lambda: "its clock" in screen.last, "the other clock")

"""One run of `watch`: candles in, screens or lines out, over as many connections as it takes."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from rich.console import Console, Group
from rich.live import Live

from market_data_tick_handler.client import Candle, ClientTiming, LiveFeatureStream, Origin
from market_data_tick_handler.client.items import Item
from market_data_tick_handler.commands.console import stderr, stdout
from market_data_tick_handler.commands.market_clock import SAME_AT_ARRIVAL_S, MarketClock
from market_data_tick_handler.commands.output import candle_output
from market_data_tick_handler.commands.selection import Selection
from market_data_tick_handler.commands.watch_board import Board
from market_data_tick_handler.commands.watch_lines import json_line, text_line
from market_data_tick_handler.commands.watch_place import Place
from market_data_tick_handler.commands.watch_series import Series, choose_series
from market_data_tick_handler.commands.watch_table import Link, Moment, screen
from market_data_tick_handler.errors import MarketDataError, SourceUnavailable

HISTORY: Final = 40
_FRAME_S: Final = 0.25
_ONCE_S: Final = 10.0
# With `once`, how long the other series have after the first.
_REST_S: Final = 2.0
_LOOK_S: Final = 0.05
_BUFFER: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchOptions:
    """What the flags said. history: candles of each trend; None: 40, or the last one where lines are printed.
    duration_s 0: endless, or 10 s with `once`, which is one table and no more. default_exchange: of symbols that nobody
    has yet."""

    selection: Selection = field(default_factory=Selection)
    history: int | None = None
    duration_s: float = 0.0
    default_exchange: str = "binance"
    once: bool = False
    as_json: bool = False


class Watch:
    """stop: set it to end. out: where to write; a terminal gets a table that is drawn anew, anything else lines."""

    def __init__(
        self,
        place: Place,
        options: WatchOptions,
        *,
        out: Console | None = None,
        timing: ClientTiming | None = None,
        clock: MarketClock | None = None,
    ) -> None:
        self.stop = asyncio.Event()
        self.clock = MarketClock() if clock is None else clock
        self._place, self._options = place, options
        # What is looked for was found or named; the service that brings it may be away for long.
        self._timing = ClientTiming(unknown_after_s=math.inf) if timing is None else timing
        self._out = _candle_console() if out is None else out
        is_terminal = self._out.is_terminal and not self._out.is_dumb_terminal
        self._prints = options.as_json or not (is_terminal or options.once)
        shown = 1 if self._prints else HISTORY
        self._history = shown if options.history is None else options.history
        self.board = Board(history=self._history)
        self._series: Series = {}
        self._streams: list[LiveFeatureStream] = []
        self._moved = asyncio.Event()
        self._began_s = self.clock.monotonic_s()
        self._state: tuple[bool, float] = (False, self._began_s)

    @property
    def link(self) -> Link:
        """The connection as it is now."""
        stats = [stream.stats for stream in self._streams]
        connected = bool(stats) and all(each.connected for each in stats)
        now_s = self.clock.monotonic_s()
        if connected != self._state[0]:
            self._state = connected, now_s
        return Link(
            place=self._place.name,
            connected=connected,
            error=next((each.last_error for each in stats if not each.connected), ""),
            for_s=now_s - self._state[1],
            reconnects=sum(each.reconnects for each in stats),
            is_service=self._place.is_service,
        )

    async def run(self) -> None:
        """Watch until `stop`, the end of the duration, or with `once` the first table.

        Raises:
            as `commands.watch.run`, some of it in groups.
        """
        if self._options.duration_s and not self._options.once:
            asyncio.get_running_loop().call_later(self._options.duration_s, self.stop.set)
        self._show_series(await self._find())
        await self._ask()
        self._began_s = self.clock.monotonic_s()
        async with asyncio.TaskGroup() as tasks:
            working = [tasks.create_task(self._follow()), tasks.create_task(self._look_after())]
            try:
                await self._show()
            finally:
                for task in working:
                    task.cancel()

    async def _find(self) -> Series:
        place = self._place
        return choose_series(
            await place.find(),
            self._options.selection,
            default_exchange=self._options.default_exchange,
            place=place.name,
            is_whole=place.lists_series,
        )

    def _show_series(self, series: Series) -> None:
        self._series = series
        self.board.show(series)
        self._moved.set()

    async def _follow(self) -> None:
        """Take what the series bring, and begin anew when there are others."""
        while True:
            self._moved.clear()
            self._streams = list(self._subscriptions())
            async with asyncio.TaskGroup() as tasks:
                taking = [tasks.create_task(self._take_all(stream)) for stream in self._streams]
                await self._moved.wait()
                for task in taking:
                    task.cancel()

    def _subscriptions(self) -> list[LiveFeatureStream]:
        """One per set of timeframes, as each has every timeframe of each of its instruments."""
        groups: dict[tuple[str, ...], list[str]] = {}
        for key, timeframes in self._series.items():
            groups.setdefault(timeframes, []).append(key)
        return [
            LiveFeatureStream(
                keys,
                timeframe=timeframes,
                history=self._history,
                transport=self._place.transport,
                token=self._place.token,
                ca_file=self._place.ca_file,
                include_open=not self._prints,
                buffer=_BUFFER,
                timing=self._timing,
            )
            for timeframes, keys in groups.items()
        ]

    async def _take_all(self, stream: LiveFeatureStream) -> None:
        async with stream:
            async for item in stream:
                self._take(item)

    def _take(self, item: Item) -> None:
        is_news = False
        if isinstance(item, Candle):
            published_us = int(item.get("timestamp_out") or 0)
            if not self._place.is_service and item.origin is Origin.LIVE:
                self.clock.note(published_us, at_s=self.clock.monotonic_s(), same_s=SAME_AT_ARRIVAL_S)
            is_news = published_us >= self.clock.at_us(self._began_s)
        row = self.board.take(item, self.clock.now_us(), is_news=is_news)
        if row is None or not self._prints or (isinstance(item, Candle) and not item.is_final):
            return
        lag_s = row.lag_s if item is row.newest and not row.newest.is_revision else None
        line = json_line(item) if self._options.as_json else text_line(item, lag_s)
        self._out.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)

    async def _look_after(self) -> None:
        """Ask the service how it is, and which instruments it has, again and again."""
        found_s = self.clock.monotonic_s()
        while True:
            await asyncio.sleep(self._place.asks_every_s)
            await self._ask()
            if self.clock.monotonic_s() - found_s >= self._place.finds_every_s:
                found_s = self.clock.monotonic_s()
                # Whoever is away now has the same instruments as before.
                with suppress(MarketDataError):
                    await self._find_again()

    async def _ask(self) -> None:
        asked_s = self.clock.monotonic_s()
        try:
            health = await self._place.health()
            if health is None:
                return
            answered_s = self.clock.monotonic_s()
            if self.clock.note(int(health.get("service_time_us", 0)), at_s=(asked_s + answered_s) / 2):
                self._begin_anew()
            self.board.take_health(health)
            self.board.alerts = await self._place.alerts()
        except MarketDataError:
            # What it was is no more; that there is no connection is shown already.
            self.board.forget_health()

    def _begin_anew(self) -> None:
        """Candles of the future, as they would be by its clock now, are another run's."""
        self._began_s = self.clock.monotonic_s()
        self.board.show({})
        self._show_series(self._series)

    async def _find_again(self) -> None:
        if self._options.selection.names_instruments:
            return
        series = await self._find()
        if series != self._series:
            self._show_series(series)

    async def _show(self) -> None:
        if self._options.once:
            await self._show_once()
        elif self._prints:
            await self._show_connection()
        else:
            with Live(console=self._out, screen=True, auto_refresh=False) as live:
                while not self.stop.is_set():
                    live.update(self._screen(hint="Ctrl-C ends"), refresh=True)
                    await self._pause(_FRAME_S)
            # The other screen is gone; the last table stays on this one.
            self._out.print(self._screen())

    async def _show_once(self) -> None:
        limit_s = self._options.duration_s or _ONCE_S
        if not await self._until(lambda: self.board.has_candles, limit_s):
            if self.stop.is_set():
                return
            why = self.link.error or "connected, but silent"
            raise SourceUnavailable(f"no candle came from {self._place.name} within {limit_s:g} s ({why})")
        await self._until(lambda: self.board.is_complete, _REST_S)
        self._out.print(self._screen(whole=True))

    async def _show_connection(self) -> None:
        """The lines are candles; what is wrong with the connection goes where errors go."""
        told = True
        while not self.stop.is_set():
            link = self.link
            if link.connected != told and (link.connected or link.error):
                told = link.connected
                text = "connected again" if told else f"no connection, trying again: {link.error}"
                stderr().print(f"{link.place}: {text}", markup=False, soft_wrap=True)
            await self._pause(_FRAME_S)

    def _screen(self, *, whole: bool = False, hint: str = "") -> Group:
        clock = self.clock
        moment = Moment(now_us=clock.now_us(), speed=clock.speed, is_own_clock=clock.is_own)
        width, height = self._out.size
        return screen(self.board, self.link, moment, width=width, height=None if whole else height, hint=hint)

    async def _until(self, holds: Callable[[], bool], limit_s: float) -> bool:
        """Whether it holds before the time is over, or we are told to stop."""
        end_s = self.clock.monotonic_s() + limit_s
        while not holds():
            if self.stop.is_set() or self.clock.monotonic_s() >= end_s:
                return False
            await self._pause(_LOOK_S)
        return True

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.stop.wait()


def _candle_console() -> Console:
    """Standard output, whose reader may leave."""
    console = stdout()
    console.file = candle_output()
    return console

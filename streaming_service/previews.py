"""Shows candles in progress, a few at a time, so that turns do not wait for them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final

from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.pipeline import Pipeline
from streaming_service.clock import Clock

# A preview costs half a millisecond: with many instruments it may take a tenth of the time at most.
_LEAST_BETWEEN_S: Final = 0.005


class Previews:
    """Gives the open candles of every pipeline to `show`, each once in `every_s` of `wall`.

    between_turns: calls what it is given when no turn is under way. clock: the service's.
    """

    def __init__(
        self,
        pipelines: Mapping[str, Pipeline],
        show: Callable[[CandleBatch], None],
        *,
        between_turns: Callable[[Callable[[], None]], Awaitable[None]],
        clock: Clock,
        wall: Clock,
        every_s: float,
    ) -> None:
        self._pipelines = pipelines
        self._show = show
        self._between_turns = between_turns
        self._clock = clock
        self._wall = wall
        self._every_s = every_s

    async def run(self) -> None:
        """One instrument per turn, so that many instruments share the time of one; for ever."""
        while True:
            keys = list(self._pipelines)
            for key in keys:
                await self._wall.sleep(max(self._every_s / len(keys), _LEAST_BETWEEN_S))
                await self._between_turns(partial(self._show_open, key))
            if not keys:
                await self._wall.sleep(self._every_s)

    def _show_open(self, key: str) -> None:
        if key in self._pipelines:
            for batch in self._pipelines[key].preview(self._clock.now_us()):
                self._show(batch)

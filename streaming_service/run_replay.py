"""Replays the recording of a service: every pipeline begins, is mended, changes and ends as it did live.

Theory of operation. What a service publishes last is what batch computes over its rows as stored and its gap ledger
(DESIGN: the candle law). So the ledger, as it stood in the end, is known from the beginning, and the rows that a repair
fetched come at their places in the order of arrival. Nothing needs to be repaired a second time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Final

import numpy as np

from market_data_tick_handler.core.events import Event, Gap, GapKind, Rows
from market_data_tick_handler.core.instruments import parse_instrument_key
from market_data_tick_handler.core.pipeline import Pipeline
from market_data_tick_handler.core.seen_ids import NEVER_US
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.core.timeframes import DAY_US, Timeframe, ceil_us
from streaming_service.recorded_run import Life, Told
from streaming_service.replay import Replay, ReplayTotals
from streaming_service.run_log import TimeframesChanged
from streaming_service.sources.recording import RecordedSource

# Fetched rows that are fed at once, where a long gap had no rows of its own.
_PIECE_ROWS: Final = 65_536


class RunReplay:
    """Feeds `replay` as a service was fed.

    timeframes: only these, where any are named. homeless_rows: of instruments that had no pipeline at the time.
    """

    def __init__(
        self, told: Told, replay: Replay, *, timeframes: Sequence[Timeframe] = (), keep_rows: bool = False
    ) -> None:
        self.homeless_rows: dict[tuple[str, DataType], int] = {}
        self._replay = replay
        self._timeframes = tuple(timeframes)
        self._keep_rows = keep_rows
        self._waiting = {key: deque(lives) for key, lives in told.lives.items()}
        self._players: dict[str, _Player] = {}
        self._until_us = 0

    async def run(self, source: RecordedSource, on_turn: Callable[[ReplayTotals], None]) -> ReplayTotals:
        """Play `source` to its end.

        Raises:
            CorruptObject, ConfigError: as `recorded_run.RecordedRun.chunks`.
        """
        async with aclosing(source.events()) as lists:  # type: ignore[type-var]
            async for events in lists:
                self.feed(events, source.fed_until_us)
                on_turn(self._replay.totals)
        return self.finish()

    def feed(self, events: Sequence[Event], until_us: int) -> None:
        """Rows that arrived before `until_us` and were not fed yet. What the recording says of time passing is in the
        ledger already."""
        groups: dict[str, list[Rows]] = {}
        for event in events:
            if isinstance(event, Rows):
                groups.setdefault(event.instrument, []).append(event)
        for instrument, rows in groups.items():
            player = self._player(instrument, until_us)
            if player is None or player.is_over(until_us):
                self._turn_away(rows)
            else:
                player.feed(rows, until_us)
        self._until_us = max(self._until_us, until_us)

    def finish(self) -> ReplayTotals:
        """The recording is over, and with it every pipeline that has not ended before."""
        for instrument in list(self._waiting):
            while self._waiting[instrument]:
                self._next(instrument)
        for player in self._players.values():
            player.end(self._until_us)
        totals = self._replay.finish()
        totals.count_filtered(self.homeless_rows)
        return totals

    def _player(self, instrument: str, until_us: int) -> _Player | None:
        waiting = self._waiting.get(instrument)
        while waiting and waiting[0].began.at_us <= until_us:
            self._next(instrument)
        return self._players.get(instrument)

    def _next(self, instrument: str) -> None:
        before = self._players.get(instrument)
        life = self._waiting[instrument].popleft()
        if before is not None:
            before.end(min(self._until_us, life.began.at_us))
        self._players[instrument] = _Player(life, self._replay, self._timeframes, self._keep_rows)

    def _turn_away(self, rows: Sequence[Rows]) -> None:
        for each in rows:
            key = (each.instrument, each.data_type)
            self.homeless_rows[key] = self.homeless_rows.get(key, 0) + len(each.batch)


class _Player:
    """One life of a pipeline."""

    def __init__(self, life: Life, replay: Replay, timeframes: tuple[Timeframe, ...], keep_rows: bool) -> None:
        self._life = life
        self._replay = replay
        self._key = life.began.instrument
        self._only = timeframes
        self._keep_rows = keep_rows
        self._changes = deque(life.changes)
        self._repairs = life.repairs()
        self._fed_repairs = 0
        pipeline = self._make(life.began.options.timeframes)
        pipeline.restore(life.began.state)
        pipeline.restore_ids(life.began.ids)
        pipeline.know(*self._ledger(pipeline))
        replay.begin(self._key, pipeline)

    @property
    def _pipeline(self) -> Pipeline:
        return self._replay.pipelines[self._key]

    def is_over(self, until_us: int) -> bool:
        """Whether the pipeline was fed for the last time before what arrived up to `until_us`."""
        ended = self._life.ended
        return ended is not None and until_us > ended.clock_us

    def feed(self, rows: Sequence[Rows], until_us: int) -> None:
        """Rows that arrived before `until_us`, and the fetched ones that belong before it."""
        while self._changes and self._changes[0].clock_us < until_us:
            self._change(self._changes.popleft())
        for piece in self._missing_before(min(int(each.batch["local_timestamp"][0]) for each in rows)):
            self._replay.feed([piece])
        # Rows as received come first where the times are equal: the order of the call decides.
        self._replay.feed([*rows, *self._missing_before(until_us)])

    def end(self, last_us: int) -> None:
        """Bring the pipeline to where it ended, or as far as the recording tells."""
        ended, pipeline = self._life.ended, self._pipeline
        while self._changes:
            self._change(self._changes.popleft())
        at_us = last_us if ended is None else ended.clock_us
        self._advance(at_us)
        if ended is not None and ended.finished:
            pipeline.finish(at_us)
        self._replay.store(self._key)
        self._replay.end(self._key, self._stop())

    def _make(self, timeframes: tuple[Timeframe, ...]) -> Pipeline:
        began = self._life.began
        chosen = tuple(each for each in timeframes if each in self._only) if self._only else timeframes
        instrument = replace(parse_instrument_key(self._key), contract_size=began.contract_size)
        return Pipeline(instrument, replace(began.options, timeframes=chosen), keep_rows=self._keep_rows)

    def _ledger(self, pipeline: Pipeline) -> tuple[list[Gap], int]:
        """All gaps as they stood in the end, and since when the feed was not provably alive then."""
        ended = self._life.ended
        gaps = {(gap.from_us, gap.kind): gap for gap in pipeline.gaps} | self._life.gaps
        if ended is not None and ended.finished:
            # The end of a pipeline tells of its stop itself.
            gaps.pop((ended.clock_us, GapKind.NOT_RUNNING), None)
            return list(gaps.values()), NEVER_US
        open_us = pipeline.open_outage_us if ended is None else ended.open_us
        return list(gaps.values()), NEVER_US if (open_us, GapKind.OUTAGE) in gaps else open_us

    def _change(self, change: TimeframesChanged) -> None:
        self._advance(change.clock_us)
        before, after = self._pipeline, self._make(change.timeframes)
        after.restore(before.snapshot())
        after.restore_ids(before.ids_snapshot())
        after.stored = before.stored
        self._replay.pipelines[self._key] = after

    def _advance(self, clock_us: int) -> None:
        for piece in self._missing_before(clock_us):
            self._replay.feed([piece])
        self._pipeline.advance(clock_us)
        self._replay.store(self._key)

    def _missing_before(self, until_us: int) -> list[Rows]:
        """Fetched rows that arrived before `until_us`, as far as they were not fed yet, in pieces."""
        if self._repairs is None:
            return []
        start, stop = self._fed_repairs, int(np.searchsorted(self._repairs["local_timestamp"], until_us, "left"))
        self._fed_repairs = max(start, stop)
        return [
            Rows(self._key, self._repairs.slice(at, min(at + _PIECE_ROWS, stop)))
            for at in range(start, stop, _PIECE_ROWS)
        ]

    def _stop(self) -> Gap | None:
        """What the ledger says of a service that did not come back."""
        ended = self._life.ended
        if ended is None or ended.finished or not ended.clock_us % DAY_US:
            return None
        at_us = ended.clock_us
        return Gap(self._key, DataType.TRADES, at_us, ceil_us(at_us, DAY_US), "service stopped", GapKind.NOT_RUNNING)

"""Bins to candles: one row layout, roll-up above 1m, and the publication and revision of every candle.

`CandleBuilder` computes rows of any timeframe from the groups' bins; it knows nothing of publishing. `CandleSeries`
owns what one timeframe has published: it computes what is new, computes again what late rows changed, and gives out the
rows that differ, with their revision. Both live and batch go through these two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np

from market_data_tick_handler.core import quality
from market_data_tick_handler.core.events import Gap
from market_data_tick_handler.core.features.contract import (
    CANDLE,
    MINUTE_US,
    CandleGroup,
    Parent,
    RunShape,
    TickState,
    as_bytes,
)
from market_data_tick_handler.core.features.groups import Selection
from market_data_tick_handler.core.quality import Span
from market_data_tick_handler.core.seen_ids import NEVER_US
from market_data_tick_handler.core.ticks import Array
from market_data_tick_handler.core.timeframes import BORDER_US, Timeframe, ceil_us, floor_us

_IDENTITY: Final = [("timestamp", "i8"), ("is_empty", "?"), ("quality", "i8"), ("coverage", "f8"), ("gap_ms", "i8")]
_WARMUP: Final = [("warmup_bars", "i8")]
_PUBLICATION: Final = [("revision", "i8"), ("timestamp_out", "i8")]
# What groups hand to each other without publishing it.
INTERNAL: Final = frozenset({"vwap_base_volume"})


_UNKNOWN_CANDLE: Final = np.array(
    [tuple(0 if CANDLE[name].kind == "i" else np.nan for name in CANDLE.names or ())], CANDLE
)


@lru_cache(maxsize=256)
def _record(fields: tuple[tuple[str, str], ...]) -> tuple[np.dtype[np.void], tuple[str, ...]]:
    """The dtype of these fields and the names that are published: the same objects for every instrument, so that who
    has candles of many compares them at no cost."""
    return np.dtype(list(fields)), tuple(name for name, _ in fields if name not in INTERNAL)


class RowLayout:
    """The record of one published candle: identity, the groups' blocks, and last what tells of the publication."""

    def __init__(self, groups: Sequence[np.dtype[np.void]]) -> None:
        fields: list[tuple[str, str]] = list(_IDENTITY) + _WARMUP
        blocks: list[tuple[str, str]] = []
        for layout in groups:
            blocks += [(name, layout[name].str) for name in layout.names or ()]
        self.dtype, self.names = _record((*fields, *blocks, *_PUBLICATION))
        offset = np.dtype(fields).itemsize
        self._blocks: list[slice] = []
        for layout in groups:
            self._blocks.append(slice(offset, offset + layout.itemsize))
            offset += layout.itemsize
        self.content = slice(0, offset)

    def put(self, rows: Array, outs: Sequence[Array]) -> None:
        """Copy the groups' records into their blocks."""
        raw = as_bytes(rows)
        for block, out in zip(self._blocks, outs, strict=True):
            raw[:, block] = as_bytes(out)

    def same(self, a: Array, b: Array) -> bool:
        """Equal bits in everything but revision and timestamp_out. a, b: shape (1,)."""
        return bytes(a.view(np.uint8)[self.content]) == bytes(b.view(np.uint8)[self.content])


@dataclass(frozen=True, slots=True)
class _Plan:
    """What one timeframe's candles are made of: indices of tick states, candle groups, layout, and for each field of
    CANDLE which state publishes it."""

    states: tuple[int, ...]
    candle_groups: tuple[CandleGroup, ...]
    layout: RowLayout
    sources: tuple[tuple[str, int], ...]


class CandleBuilder:
    """Rows of candles from the bins of one pipeline."""

    def __init__(self, shape: RunShape, selection: Selection, timeframes: Sequence[Timeframe]) -> None:
        self.grace_us = shape.grace_us
        self.names = [group.name for group in selection.ticks]
        self.states: list[TickState] = [group.open(shape) for group in selection.ticks]
        self.codes = {name: texts for state in self.states for name, texts in state.CODES.items()}
        self.plans = {timeframe: self._plan(selection, timeframe) for timeframe in timeframes}
        self._sealed: dict[Timeframe, tuple[int, list[Parent]]] = {}
        self._sealed_us = 0

    def _plan(self, selection: Selection, timeframe: Timeframe) -> _Plan:
        states = tuple(index for index, group in enumerate(selection.ticks) if timeframe in group.timeframes)
        groups = tuple(group for group in selection.candles if timeframe in group.timeframes)
        outs = [self.states[index].OUT for index in states]
        sources = [
            (name, at) for name in CANDLE.names or () for at, out in enumerate(outs) if name in (out.names or ())
        ]
        return _Plan(states, groups, RowLayout([*outs, *(group.OUT for group in groups)]), tuple(sources))

    def memories(self, timeframe: Timeframe) -> list[Array]:
        """The cold state that candles hand to each other: one record per group, and the count of bars."""
        plan = self.plans[timeframe]
        cold = [np.zeros(1, self.states[index].MEMORY) for index in plan.states]
        return [*cold, *(np.zeros(1, group.MEMORY) for group in plan.candle_groups), np.zeros(1, np.int64)]

    def compute(
        self,
        timeframe: Timeframe,
        t0: int,
        count: int,
        memories: list[Array],
        gaps: Sequence[Gap],
        span: Span,
        known_us: int = NEVER_US,
    ) -> Array:
        """`count` consecutive candles from `t0`, in the row layout; `memories` are moved on. Nothing is known of what
        lies behind `known_us`."""
        step, plan = timeframe.us, self.plans[timeframe]
        rows = np.zeros(count, plan.layout.dtype)
        outs = [np.zeros(count, self.states[index].OUT) for index in plan.states]
        for at, (index, out) in enumerate(zip(plan.states, outs, strict=True)):
            state = self.states[index]
            if timeframe.from_ticks:
                state.finish(memories[at], step, t0, state.bins(step, t0, count), out)
            else:
                parents = [self._parent(timeframe, index, t0 + k * step, known_us) for k in range(count)]
                state.finish_parents(memories[at], step, parents, out)
        opens = t0 + step * np.arange(count)
        traded = self.states[0].traded(outs[0])
        if plan.candle_groups:
            candles = self._candles(plan, opens, outs)
            for group, memory in zip(plan.candle_groups, memories[len(outs) :], strict=False):
                out = np.zeros(count, group.OUT)
                group.finish(memory, candles, step, out)
                outs.append(out)
        plan.layout.put(rows, outs)
        self._identify(rows, opens, timeframe, traded, memories[-1], gaps, span)
        return rows

    def warm(self, timeframe: Timeframe, candles: Array, memories: list[Array]) -> None:
        """Move the memories over `candles` (CANDLE records in time order) as if they had been computed here."""
        plan = self.plans[timeframe]
        for memory in memories[: len(plan.states)]:
            for name in set(memory.dtype.names or ()) & set(CANDLE.names or ()):
                memory[name] = candles[name][-1]
        for group, memory in zip(plan.candle_groups, memories[len(plan.states) :], strict=False):
            group.finish(memory, candles, timeframe.us, np.zeros(len(candles), group.OUT))
        memories[-1] += len(candles)

    def _candles(self, plan: _Plan, opens: Array, outs: Sequence[Array]) -> Array:
        candles = np.repeat(_UNKNOWN_CANDLE, len(opens))
        candles["timestamp"] = opens
        for name, at in plan.sources:
            candles[name] = outs[at][name]
        return candles

    def _identify(
        self,
        rows: Array,
        opens: Array,
        timeframe: Timeframe,
        traded: Array,
        bars: Array,
        gaps: Sequence[Gap],
        span: Span,
    ) -> None:
        step = timeframe.us
        if timeframe.from_ticks:
            rows["quality"], rows["gap_ms"] = quality.judge(opens, step, gaps, traded)
        else:
            rows["quality"], rows["gap_ms"] = quality.judge_parents(opens, step, gaps, traded, span)
        rows["coverage"] = quality.coverage(rows["gap_ms"], step)
        rows["timestamp"] = opens
        rows["is_empty"] = ~traded
        rows["warmup_bars"] = np.minimum(bars[0] + 1 + np.arange(len(rows)), 2**31 - 1)
        bars[0] += len(rows)
        rows["timestamp_out"] = opens + step + self.grace_us

    def _parent(self, timeframe: Timeframe, index: int, t0: int, known_us: int) -> Parent:
        state = self.states[index]
        # Of a candle that is open, the minutes to come hold nothing.
        end = min(t0 + timeframe.us, ceil_us(known_us, MINUTE_US))
        sealed = self._sealed.get(timeframe)
        if sealed is not None and sealed[0] == t0:
            parent, start = sealed[1][index].copy(), min(self._sealed_us, end)
        else:
            parent, start = state.parent(), t0
        if start < end:
            state.roll([parent], start, (end - start) // MINUTE_US)
        return parent

    def seal(self, until_us: int, timeframes: Sequence[Timeframe]) -> None:
        """Fold the 1m bins that no row can change any more, those before `until_us`, into their parents, so that they
        may leave the ring. Called at every minute's border from the first row on, whether or not anything traded."""
        if self._sealed_us == 0:
            # The first border is less than a minute after the first row, and no older row enters a bin.
            self._sealed_us = until_us - 2 * MINUTE_US
        above = [timeframe for timeframe in timeframes if not timeframe.from_ticks]
        for minute in range(self._sealed_us, until_us, MINUTE_US):
            for timeframe in above:
                t0 = floor_us(minute, timeframe.us)
                held = self._sealed.get(timeframe)
                if held is None or held[0] != t0:
                    self._sealed[timeframe] = (t0, [state.parent() for state in self.states])
            for index, state in enumerate(self.states):
                state.roll([self._sealed[timeframe][1][index] for timeframe in above], minute, 1)
        self._sealed_us = max(self._sealed_us, until_us)

    def skip_to(self, midnight_us: int) -> None:
        """No candle before this midnight will be asked for."""
        self._sealed_us = max(self._sealed_us, midnight_us)

    def state(self, keep_from_us: int = 0) -> dict[str, Any]:
        """Everything a snapshot needs."""
        return {
            "groups": {name: s.state(keep_from_us) for name, s in zip(self.names, self.states, strict=True)},
            "sealed_us": self._sealed_us,
            "sealed": {
                str(timeframe): [t0, [[parent.bin, parent.sketches] for parent in parents]]
                for timeframe, (t0, parents) in self._sealed.items()
            },
        }

    def load(self, tree: dict[str, Any]) -> None:
        """Put back what `state` gave."""
        for name, state in zip(self.names, self.states, strict=True):
            state.load(tree["groups"][name])
        self._sealed_us = tree["sealed_us"]
        self._sealed = {
            Timeframe(name): (
                t0,
                [Parent(held, [(keys, counts) for keys, counts in sketches]) for held, sketches in parents],
            )
            for name, (t0, parents) in tree["sealed"].items()
        }


@dataclass(slots=True)
class Closed:
    """A published candle that may still change: when it opens, its row, and the memories before it."""

    t0: int
    row: Array
    before: list[Array]


class CandleSeries:
    """What one timeframe has published, and what it publishes next."""

    def __init__(self, timeframe: Timeframe, builder: CandleBuilder) -> None:
        self.timeframe = timeframe
        self._builder = builder
        self.memories = builder.memories(timeframe)
        self.first_us = 0
        self.next_us = 0
        self.closed: list[Closed] = []
        self.cold = True

    def warm(self, candles: Array) -> None:
        """Start from stored candles (CANDLE records in time order) instead of cold; before the first is published."""
        self._builder.warm(self.timeframe, candles, self.memories)

    def _first(self, earliest_us: int) -> int:
        return floor_us(earliest_us, self.timeframe.us)

    def begin(self, earliest_us: int) -> None:
        """Place the start of the series at the earliest trade known; a late row may move it back while it is cold."""
        if self.next_us == 0:
            self.first_us = self.next_us = self._first(earliest_us)
        elif self.cold and self._first(earliest_us) < self.first_us:
            # Everything published so far follows from a start that was too late.
            self.first_us = self._first(earliest_us)

    def begin_whole(self, now_us: int) -> None:
        """Begin with the first candle that opens at or after `now_us`: what lies before was not kept."""
        self.first_us = self.next_us = ceil_us(now_us, self.timeframe.us)
        self.cold = False

    def publish(self, until_us: int, dirty_us: int, gaps: Sequence[Gap], span: Span) -> list[Array]:
        """Rows, oldest first, of candles that open before `until_us`: new ones, and those that changed among the
        candles that end after `dirty_us`. Keeps each for later revision."""
        step = self.timeframe.us
        if self.next_us >= until_us and dirty_us >= self.next_us and not self._starts_earlier():
            return []
        known = {item.t0: item.row for item in self.closed}
        at, memories = self._rewind(dirty_us)
        changed: list[Array] = []
        while at < until_us:
            before = [memory.copy() for memory in memories]
            row = self._builder.compute(self.timeframe, at, 1, memories, gaps, span)
            published = known.get(at)
            if published is None or not self._builder.plans[self.timeframe].layout.same(row, published):
                row["revision"] = 0 if published is None else published["revision"] + 1
                changed.append(row)
            else:
                row = published
            self.closed.append(Closed(at, row, before))
            at += step
        self.memories, self.next_us = memories, max(self.next_us, at)
        return changed

    def _starts_earlier(self) -> bool:
        """True if a late row moved the start of the series before what was published."""
        return self.cold and self.first_us < (self.closed[0].t0 if self.closed else self.next_us)

    def _rewind(self, dirty_us: int) -> tuple[int, list[Array]]:
        """Where to compute from and the memories there; forgets the candles that will be computed again."""
        step = self.timeframe.us
        if self.closed:
            oldest = self.closed[0].t0
            start = self.first_us if self.cold and self.first_us < oldest else oldest
            index = max(0, (max(dirty_us, oldest) - oldest) // step)
            if start < oldest:
                memories = self.closed[0].before
                self.closed.clear()
                return start, [memory.copy() for memory in memories]
            if index < len(self.closed):
                memories = self.closed[index].before
                del self.closed[index:]
                return oldest + index * step, [memory.copy() for memory in memories]
        elif self.cold and self.first_us < self.next_us:
            # Nothing was published yet, so the memories are still those of the start.
            return self.first_us, self.memories
        return self.next_us, self.memories

    def publish_run(self, until_us: int, gaps: Sequence[Gap], span: Span) -> Array:
        """All candles from the next one up to `until_us` at once, not kept for revision (a whole day in batch)."""
        count = max(0, (until_us - self.next_us) // self.timeframe.us)
        if count == 0:
            return np.zeros(0, self._builder.plans[self.timeframe].layout.dtype)
        rows = self._builder.compute(self.timeframe, self.next_us, count, self.memories, gaps, span)
        self.next_us += count * self.timeframe.us
        return rows

    def preview(self, now_us: int, gaps: Sequence[Gap], span: Span) -> Array | None:
        """The candle that is open at `now_us`, as it stands; None before the series has begun. Nothing is moved on."""
        step = self.timeframe.us
        count = (floor_us(now_us, step) - self.next_us) // step + 1
        if self.next_us == 0 or count < 1:
            return None
        memories = [memory.copy() for memory in self.memories]
        # Within the grace the candle before is open too, and hands its memory on.
        return self._builder.compute(self.timeframe, self.next_us, count, memories, gaps, span, now_us + 1)[-1:]

    def forget(self, before_us: int) -> None:
        """Drop candles that end at or before `before_us`: no row can change them any more."""
        step = self.timeframe.us
        keep = 0
        while keep < len(self.closed) and self.closed[keep].t0 + step <= before_us:
            keep += 1
        if keep:
            del self.closed[:keep]
            self.cold = False

    def state(self) -> dict[str, Any]:
        """Everything a snapshot needs."""
        return {
            "memories": self.memories,
            "first_us": self.first_us,
            "next_us": self.next_us,
            "cold": self.cold,
            "closed": [[item.t0, item.row, item.before] for item in self.closed],
        }

    def load(self, tree: dict[str, Any]) -> None:
        """Put back what `state` gave."""
        self.memories = tree["memories"]
        self.first_us, self.next_us, self.cold = tree["first_us"], tree["next_us"], tree["cold"]
        self.closed = [Closed(t0, row, before) for t0, row, before in tree["closed"]]


def borders(start_us: int, stop_us: int) -> range:
    """The 15 s borders in (start_us, stop_us]."""
    return range(floor_us(start_us, BORDER_US) + BORDER_US, stop_us + 1, BORDER_US)


def candles_open_before(stop_us: int, timeframe: Timeframe) -> int:
    """End of the last candle that opens before `stop_us`."""
    return ceil_us(stop_us, timeframe.us)

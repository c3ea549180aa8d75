"""The ways of computing a stream, each done once per stream and shared by the tests of all columns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.parity import compare
from market_data_tick_handler.core.pipeline import Day, Pipeline
from market_data_tick_handler.core.timeframes import DAY_US, Timeframe, floor_us
from tests.conformance.streams import MINUTE_US, Case, case, flat
from tests.core.features.feeds import batched, between, bounds, replayed, streamed
from tests.parity.streams import last

Candles = dict[str, CandleBatch]


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """A finished live run: its pipeline, everything it published, and of each candle the last revision."""

    pipeline: Pipeline
    published: Candles
    final: Candles


def _last_revisions(batch: CandleBatch) -> CandleBatch:
    newest = {time: index for index, time in enumerate(batch["timestamp"].tolist())}
    index = np.array([newest[time] for time in sorted(newest)])
    return batch.replace(**{name: column[index] for name, column in batch.columns.items()})


def finished(pipeline: Pipeline, published: Candles) -> Run:
    return Run(pipeline, published, {name: _last_revisions(batch) for name, batch in published.items()})


def live(stream: Case) -> Run:
    """Everything in one turn."""
    return finished(*replayed(stream.feed, stream.options, stream.instrument))


@cache
def replay(name: str) -> Run:
    return live(case(name))


@cache
def flat_run(quiet: bool) -> Run:
    return live(flat(quiet))


def _restarted(stream: Case, restarts: int) -> Candles:
    """A restart from the snapshot after every turn, at places that look at nothing."""
    start, stop = bounds(stream.feed)
    cuts = np.unique(np.random.default_rng(restarts).integers(start, stop, restarts))
    out: list[CandleBatch] = []
    pipeline = Pipeline(stream.instrument, stream.options)
    for begin, end in zip([start, *cuts.tolist()], [*cuts.tolist(), stop], strict=True):
        pipeline.feed(between(stream.feed, begin, end, stream.instrument))
        out += pipeline.outputs()
        state, ids = pipeline.snapshot(), pipeline.ids_snapshot()
        pipeline = Pipeline(stream.instrument, stream.options)
        pipeline.restore(state)
        pipeline.restore_ids(ids)
    pipeline.finish(stop)
    return last(out + pipeline.outputs())


def _computed(stream: Case, way: str) -> Candles:
    if way == "restarts":
        return _restarted(stream, 30)
    if way == "turns":
        return streamed(stream.feed, stream.options, stream.instrument, np.random.default_rng(1))
    return batched(stream.feed, stream.options, stream.instrument, replay(stream.name).pipeline)


@cache
def differences(name: str, way: str) -> dict[str, Any]:
    """Columns that another way of computing the stream gives different bits for, with the first difference."""
    other = _computed(case(name), way)
    out: dict[str, Any] = {}
    for timeframe, candles in replay(name).published.items():
        report = compare(candles.columns, other[timeframe].columns)
        assert report.compared > 0
        for difference in report.differences:
            out.setdefault(difference.column, (timeframe, difference))
    return out


def _prefix(stream: Case, timeframe: Timeframe, t1: int) -> CandleBatch:
    """Batch over the rows that had arrived when the candle that ends at `t1` was first published."""
    start, _ = bounds(stream.feed)
    options = replace(stream.options, timeframes=(timeframe,))
    pipeline = Pipeline(
        stream.instrument, options, day=Day(floor_us(start, DAY_US)), gaps=replay(stream.name).pipeline.gaps[:1]
    )
    pipeline.feed(between(stream.feed, start, t1 + options.grace_us, stream.instrument))
    pipeline.finish_day(t1)
    return last(pipeline.outputs())[timeframe]


@cache
def prefix_differences(name: str) -> dict[str, Any]:
    """Columns whose first publication is not what batch gives for the rows that had arrived by then."""
    stream, compared = case(name), 0
    out: dict[str, Any] = {}
    midnight = floor_us(bounds(stream.feed)[0], DAY_US) + DAY_US
    for label, published in list(replay(name).published.items())[:3]:
        timeframe = Timeframe(label)
        in_day = published["timestamp"] + timeframe.us < midnight
        first = np.flatnonzero((published["revision"] == 0) & in_day)[:-1]
        for index in first[:: max(1, len(first) // 6)]:
            t1 = int(published["timestamp"][index]) + timeframe.us
            rebuilt = _prefix(stream, timeframe, t1)
            report = compare(published.slice(index, index + 1).columns, rebuilt.slice(-1, len(rebuilt)).columns)
            compared += report.compared
            for difference in report.differences:
                out.setdefault(difference.column, (timeframe, difference))
    assert compared > 5
    return out


@cache
def rolled(name: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """1m columns of the tick groups folded from ticks, the same folded from their 15 s bins, and per column the number
    of values that its sketch holds."""
    stream = case(name)
    start, stop = bounds(stream.feed)
    pipeline = Pipeline(stream.instrument, stream.options, day=Day(floor_us(start, DAY_US)))
    pipeline.feed(between(stream.feed, start, stop, stream.instrument))
    pipeline.finish_day(stop)
    direct = last(pipeline.outputs())[Timeframe.M1].columns
    out: dict[str, np.ndarray] = {}
    held: dict[str, np.ndarray] = {}
    for state in pipeline._builder.states:
        parents, counts = [], np.zeros(len(direct["timestamp"]), np.int64)
        for index, t0 in enumerate(direct["timestamp"].tolist()):
            parent, quarters = state.parent(), state.bins(MINUTE_US // 4, t0, 4)
            type(state).merge_kernel(parent.bin, quarters)
            if state.arena is not None:
                counts[index] = quarters["chain_count"].sum()
                parent.sketches = state._minute_sketches(state.arena, t0, 1)[0]
            parents.append(parent)
        values, memory = np.zeros(len(parents), state.OUT), np.zeros(1, state.MEMORY)
        state.finish_parents(memory, MINUTE_US, parents, values)
        out |= {field: values[field] for field in state.OUT.names or ()}
        held |= dict.fromkeys(state.OUT.names or (), counts)
    return direct, out, held


def is_null(column: np.ndarray) -> np.ndarray:
    """Where a column is null."""
    return np.isnan(column) if column.dtype.kind == "f" else np.zeros(len(column), bool)


def batches(runs: Iterable[Run]) -> list[CandleBatch]:
    """What runs published, whatever the timeframe."""
    return [batch for run in runs for batch in run.published.values()]

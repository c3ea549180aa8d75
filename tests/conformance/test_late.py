"""Late rows: what they change is published again, and only that; in the end nothing tells that they were late."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from market_data_tick_handler.core.features.column import Column
from market_data_tick_handler.core.parity import compare
from market_data_tick_handler.core.pipeline import Pipeline
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.core.timeframes import Timeframe
from tests.conformance.runs import Run, finished, live
from tests.conformance.streams import FUTURE, SECOND_US, Case, case, registered
from tests.core.features.feeds import batched, between, bounds
from tests.parity.streams import last

DELAYED = (DataType.TRADES, DataType.LIQUIDATIONS)


@cache
def punctual() -> Case:
    return case("future")


@cache
def delayed() -> Case:
    """The same rows, some of them on the wire for up to 100 s."""
    stream, random = punctual(), np.random.default_rng(17)
    feed = dict(stream.feed)
    for data_type in DELAYED:
        rows = feed[data_type]
        late = random.choice(len(rows), max(3, len(rows) // 40), replace=False)
        # Only rows that the stream still has time for.
        late = late[rows["local_timestamp"][late] < rows["local_timestamp"][-1] - 110 * SECOND_US]
        local = rows["local_timestamp"].copy()
        local[late] += random.integers(2 * SECOND_US, 100 * SECOND_US, len(late))
        feed[data_type] = rows.with_column("local_timestamp", local).take(np.argsort(local, kind="stable"))
    return Case("late", FUTURE, feed, stream.options)


@cache
def late_run() -> Run:
    """A live run in turns of 5 s, so that a revision is published about when its row arrives."""
    stream = delayed()
    start, stop = bounds(stream.feed)
    pipeline, out = Pipeline(stream.instrument, stream.options), []
    for begin in range(start, stop, 5 * SECOND_US):
        end = min(begin + 5 * SECOND_US, stop)
        pipeline.feed(between(stream.feed, begin, end, stream.instrument))
        pipeline.advance(end)
        out += pipeline.outputs()
    pipeline.finish(stop)
    return finished(pipeline, last(out + pipeline.outputs()))


@cache
def punctual_run() -> Run:
    return live(punctual())


def test_candles_are_published_again_with_the_next_revision_and_never_unchanged() -> None:
    again = 0
    for timeframe, batch in late_run().published.items():
        for time in np.unique(batch["timestamp"]):
            index = np.flatnonzero(batch["timestamp"] == time)
            assert batch["revision"][index].tolist() == list(range(len(index)))
            for before, after in zip(index[:-1].tolist(), index[1:].tolist(), strict=True):
                again += 1
                report = compare(
                    {name: column[before : before + 1] for name, column in batch.columns.items() if name != "revision"},
                    {name: column[after : after + 1] for name, column in batch.columns.items() if name != "revision"},
                )
                assert not report.ok, (timeframe, time)
    assert again > 20


def test_every_candle_that_a_late_row_fell_into_was_published_again() -> None:
    batch, grace = late_run().published[Timeframe.M1], delayed().options.grace_us
    rows = delayed().feed[DataType.TRADES]
    opened = rows["timestamp"] - rows["timestamp"] % Timeframe.M1.us
    late = np.unique(opened[rows["local_timestamp"] >= opened + Timeframe.M1.us + grace])
    assert len(late) > 5
    for time in late:
        assert batch["revision"][batch["timestamp"] == time].max() >= 1
    assert late_run().pipeline.counters[DataType.TRADES].refused == 0


@pytest.mark.parametrize("member", registered(), ids=lambda member: member.name)
def test_the_last_revision_is_the_batch(member: Column) -> None:
    assert batch_differences().get(member.name) is None


@cache
def batch_differences() -> dict[str, object]:
    stream = delayed()
    history = batched(stream.feed, stream.options, stream.instrument, late_run().pipeline)
    out: dict[str, object] = {}
    for timeframe, candles in late_run().published.items():
        for difference in compare(candles.columns, history[timeframe].columns).differences:
            out.setdefault(difference.column, (timeframe, difference))
    return out


@pytest.mark.parametrize(
    "member",
    [member for member in registered() if not member.depends_on_arrival and punctual().has(member)],
    ids=lambda member: member.name,
)
def test_a_column_that_does_not_follow_arrival_ends_as_if_nothing_had_been_late(member: Column) -> None:
    """Sums of another order differ in their last bits."""
    for timeframe, want in punctual_run().final.items():
        got = late_run().final[timeframe]
        # The stop falls into the last candle, whose end the delays move.
        if member.name in want.columns and want[member.name].dtype.kind in "fib":
            left, right = want[member.name][:-1], got[member.name][:-1]
            tolerance = max(member.atol, 1e-12)
            np.testing.assert_allclose(right, left, rtol=1e-7, atol=100 * tolerance, err_msg=timeframe)

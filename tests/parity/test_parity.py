"""Live, in any chunks, with restarts anywhere == one replay == batch, bit for bit, for every registered column."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.features.registry import columns
from market_data_tick_handler.core.instruments import InstrumentDefinition
from market_data_tick_handler.core.options import PipelineOptions
from market_data_tick_handler.core.parity import compare
from market_data_tick_handler.core.pipeline import Pipeline
from market_data_tick_handler.core.ticks import DataType, TickBatch, concat
from market_data_tick_handler.core.timeframes import DAY_US
from tests.parity.streams import INVERSE, NOON_US, SPOT, batched, last, options, random_trades, replayed

MIDNIGHT_US = NOON_US + DAY_US // 2


def live(
    rows: TickBatch, chosen: PipelineOptions, rng: np.random.Generator, *, instrument: InstrumentDefinition = SPOT
) -> tuple[Pipeline, dict[str, CandleBatch]]:
    """Feed random chunks, promise times that keep the promise, and restart from snapshots now and then."""
    pipeline = Pipeline(instrument, chosen, keep_rows=True)
    out: list[CandleBatch] = []
    stored: list[TickBatch] = []
    lt = rows["local_timestamp"]
    cuts = np.unique(np.concatenate([[0, len(rows)], rng.integers(0, len(rows) + 1, int(rng.integers(0, 60)))]))
    for start, stop in pairwise(cuts):
        pipeline.feed(Rows(instrument.key, rows.slice(int(start), int(stop))))
        if rng.random() < 0.6 and stop < len(rows):
            pipeline.advance(int(rng.integers(lt[stop - 1], lt[stop] + 1)))
        if rng.random() < 0.5:
            out += pipeline.outputs(int(lt[stop - 1]))
        if rng.random() < 0.2:
            stored += pipeline.stored
            state, ids = pipeline.snapshot(), pipeline.ids_snapshot()
            pipeline = Pipeline(instrument, chosen, keep_rows=True)
            pipeline.restore(state)
            pipeline.restore_ids(ids)
    pipeline.finish(int(lt.max()) + 1)
    pipeline.stored = stored + pipeline.stored
    return pipeline, last(out + pipeline.outputs())


def assert_same(left: dict[str, CandleBatch], right: dict[str, CandleBatch]) -> None:
    assert left.keys() == right.keys()
    for timeframe, candles in left.items():
        report = compare(candles.columns, right[timeframe].columns)
        assert report.ok, (timeframe, report.by_kind(), report.differences[:5])
        assert report.compared > 0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_live_equals_replay_equals_batch(seed: int) -> None:
    rng = np.random.default_rng(seed)
    instrument = INVERSE if seed % 4 == 0 else SPOT
    start = MIDNIGHT_US - 6 * 60_000_000 if seed % 3 == 0 else NOON_US - int(rng.integers(0, 3600)) * 1_000_000
    rows = random_trades(seed, start_us=start, minutes=float(rng.uniform(1, 14)))
    chosen = options()
    _, replay = replayed(rows, chosen, instrument)
    pipeline, streamed = live(rows, chosen, rng, instrument=instrument)
    assert_same(streamed, replay)
    assert_same(batched(pipeline, pipeline.stored, chosen, instrument), replay)
    counter = pipeline.counters[DataType.TRADES]
    assert counter.balanced()
    assert counter.received == len(rows)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_rows_that_break_the_order_are_clamped_counted_and_stored_so(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = random_trades(seed, minutes=4.0)
    jitter = rows["local_timestamp"] + rng.integers(-2_000_000, 2_000_000, len(rows))
    rows = rows.with_column("local_timestamp", np.where(rng.random(len(rows)) < 0.1, jitter, rows["local_timestamp"]))
    chosen = options()
    pipeline = Pipeline(SPOT, chosen, keep_rows=True)
    for row in range(0, len(rows), 7):
        pipeline.feed(Rows(SPOT.key, rows.slice(row, row + 7)))
    pipeline.finish(int(rows["local_timestamp"].max()) + 1)
    streamed = last(pipeline.outputs())
    stored = concat(pipeline.stored)
    assert bool((np.diff(stored["local_timestamp"]) >= 0).all())
    moved = pipeline.counters[DataType.TRADES].clamped
    assert moved >= int((np.sort(stored["local_timestamp"]) != np.sort(rows["local_timestamp"])).sum() > 0)
    assert_same(batched(pipeline, [stored], chosen), streamed)


def test_every_registered_column_takes_part() -> None:
    """A chain of options has rows of its own; what the instrument has no feed for is there as null."""
    chosen = options()
    _, replay = replayed(random_trades(7), chosen)
    candles = replay["1m"]
    assert {*candles.columns, *candles.constants, *candles.absent} == {
        column.name for column in columns(("identity", *chosen.groups)) if column.group != "options"
    }
    assert set(candles.absent) == {
        column.name for column in columns(("derivatives", "liquidations")) if column.group != "identity"
    }


@pytest.mark.parametrize("groups", [("ohlcv",), ("ohlcv", "returns"), ("delays",), ("flow", "indicators")])
def test_a_selection_of_groups_changes_no_bits(groups: tuple[str, ...]) -> None:
    needs_flow = set() if "flow" in groups else {"hasbrouck_lambda_20"}
    rows = random_trades(11)
    _, everything = replayed(rows, options())
    _, some = replayed(rows, options(groups=groups))
    for timeframe, candles in some.items():
        shared = {name: values for name, values in candles.columns.items() if name not in needs_flow}
        both = {name: everything[timeframe][name] for name in [*shared, "revision"]}
        report = compare(shared, both)
        assert report.ok, report.by_kind()

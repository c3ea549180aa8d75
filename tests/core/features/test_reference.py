"""Groups ohlcv, flow and delays against the plain-Python reference, on random streams with every nuisance."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.features.registry import columns
from market_data_tick_handler.core.instruments import InstrumentDefinition
from market_data_tick_handler.core.pipeline import Pipeline
from market_data_tick_handler.core.ticks import DataType, TickBatch
from market_data_tick_handler.core.timeframes import ceil_us
from tests.core.features import reference
from tests.parity.streams import INVERSE, NOON_US, SPOT, last, options, random_trades

GROUPS = ("ohlcv", "flow", "delays")
PUBLISHED = {column.name: column for column in columns(GROUPS)}
PER_CANDLE = {name for name, column in PUBLISHED.items() if column.group in GROUPS and column.scope != "S"}


def run(
    rows: TickBatch, instrument: InstrumentDefinition = SPOT, **changes: Any
) -> tuple[Pipeline, dict[str, CandleBatch], int]:
    """The last revisions once every row's candle is closed, and when that was."""
    stop = ceil_us(int(max(rows["local_timestamp"].max(), rows["timestamp"].max())), 300_000_000)
    pipeline = Pipeline(instrument, options(groups=GROUPS, **changes))
    pipeline.feed(Rows(instrument.key, rows))
    pipeline.advance(stop + 500_000)
    return pipeline, last(pipeline.outputs()), stop


def final(candles: CandleBatch) -> dict[int, dict[str, Any]]:
    return {row["timestamp"]: row for row in candles.rows()}


def assert_close(came: dict[str, Any], expected: dict[str, Any], skip: frozenset[str] = frozenset()) -> None:
    for name, value in expected.items():
        if name in skip:
            continue
        got = came[name]
        if value is None or (isinstance(value, float) and math.isnan(value)):
            assert got is None, (name, got)
        elif isinstance(value, float):
            atol = max(PUBLISHED[name].atol, 1e-12)
            assert got is not None, (name, value)
            assert math.isclose(got, value, rel_tol=1e-9, abs_tol=atol), (came["timestamp"], name, got, value)
        else:
            assert got == value, (came["timestamp"], name, got, value)


def terms_of(instrument: InstrumentDefinition, window_us: float = 120e6) -> reference.Terms:
    return reference.Terms(window_us=window_us, inverse=instrument.inverse, multiplier=instrument.contract_size)


@settings(max_examples=12)
@given(seed=st.integers(0, 2**32 - 1), rate=st.sampled_from([0.05, 0.5, 2.0]), inverse=st.booleans())
def test_15s_and_1m_candles_are_what_the_reference_computes(seed: int, rate: float, inverse: bool) -> None:
    instrument = INVERSE if inverse else SPOT
    rows = random_trades(seed, start_us=NOON_US - 95_000_000, minutes=5.0, per_second=rate)
    pipeline, published, stop = run(rows, instrument)
    stream = reference.judge(rows, terms_of(instrument))
    for timeframe, step in (("15s", 15_000_000), ("1m", 60_000_000)):
        came = final(published[timeframe])
        expected = reference.candles(stream, step, stop)
        assert sorted(came) == [row["timestamp"] for row in expected]
        for row in expected:
            assert_close(came[row["timestamp"]], row)
    counter = pipeline.counters[DataType.TRADES]
    assert counter.duplicate == len(stream.duplicate)
    assert counter.accepted + counter.refused == len(stream.trades)


@settings(max_examples=8)
@given(seed=st.integers(0, 2**32 - 1), inverse=st.booleans())
def test_a_5m_candle_rolled_up_is_the_one_computed_on_ticks(seed: int, inverse: bool) -> None:
    """Quantiles lie within 1/256 of the nearest rank; runs and lateness are per minute (features.md section 8)."""
    instrument = INVERSE if inverse else SPOT
    rows = random_trades(seed, start_us=NOON_US - 95_000_000, minutes=11.0)
    _, published, stop = run(rows, instrument)
    stream = reference.judge(rows, terms_of(instrument))
    minutes = reference.candles(stream, 60_000_000, stop)
    came = final(published["5m"])
    sketched = frozenset(
        name for name, column in PUBLISHED.items() if column.rollup == "SKETCH" and column.input == "trades"
    )
    expected = reference.candles(stream, 300_000_000, stop)
    assert sorted(came) == [row["timestamp"] for row in expected]
    for row in expected:
        t0 = row["timestamp"]
        children = [minute for minute in minutes if t0 <= minute["timestamp"] < t0 + 300_000_000]
        row["late_trade_count"] = sum(minute["late_trade_count"] for minute in children)
        row["side_run_max"] = max((minute["side_run_max"] for minute in children), default=0)
        assert_close(came[t0], row, skip=sketched)
        assert_sketched(came[t0], stream, t0)


def assert_sketched(came: dict[str, Any], stream: reference.Stream, t0: int) -> None:
    mine = [trade for trade in stream.trades if trade.counts and t0 <= trade.ts < t0 + 300_000_000]
    delays = [(trade.lt - trade.ts) / 1e3 for trade in mine]
    values = {
        "size_median": ([trade.q for trade in mine], 50),
        "interarrival_median_ms": ([trade.dt / 1e3 for trade in mine if trade.before is not None], 50),
        "delay_median": (delays, 50),
        "delay_p95": (delays, 95),
        "delay_p99": (delays, 99),
    }
    for name, (held, percent) in values.items():
        exact = reference.nearest_rank(held, percent)
        if exact is None:
            assert came[name] is None
        else:
            assert abs(came[name] - exact) <= abs(exact) / 256, (name, came[name], exact)


def test_the_reference_covers_every_per_candle_column() -> None:
    stream = reference.judge(random_trades(3, minutes=2.0), reference.Terms())
    covered = set(reference.candles(stream, 15_000_000, NOON_US + 60_000_000)[0])
    assert {name for name in PER_CANDLE if PUBLISHED[name].rollup != "SELF"} <= covered


@pytest.mark.parametrize("seed", range(3))
def test_a_refused_row_loses_only_its_own_increments(seed: int) -> None:
    """Live refuses it; it still advances sequence state, e-clock and VPIN, and the service metric counts it."""
    rows = random_trades(seed, minutes=6.0)
    chosen = np.random.default_rng(seed).choice(len(rows), 12, replace=False)
    stamped = rows["timestamp"].copy()
    stamped[chosen] = np.maximum(stamped[chosen] - 130_000_000 * (stamped[chosen] > 0), 0)
    rows = rows.with_column("timestamp", stamped)
    pipeline, published, stop = run(rows)
    stream = reference.judge(rows, terms_of(SPOT))
    assert pipeline.counters[DataType.TRADES].refused == stream.refused > 0
    came = final(published["15s"])
    for row in reference.candles(stream, 15_000_000, stop):
        assert_close(came[row["timestamp"]], row)

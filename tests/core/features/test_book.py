"""Group book: verified values, live == batch, an independent reference, null rules, units and the snapshot stream."""

from __future__ import annotations

import csv
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market_data_tick_handler.core.features.book import BookState
from market_data_tick_handler.core.features.book_levels import SNAPSHOT_COLUMNS, BookParameters, snapshot_features
from market_data_tick_handler.core.features.book_microprice import MicropriceTable
from market_data_tick_handler.core.features.contract import RunShape
from market_data_tick_handler.core.features.registry import columns
from market_data_tick_handler.core.options import FeatureParameters, PipelineOptions
from market_data_tick_handler.core.schemas import candles_to_arrow
from market_data_tick_handler.core.ticks import DataType, TickBatch
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.errors import ConfigError
from market_data_tick_handler.storage.tardis_csv import read_tardis_csv
from market_data_tick_handler.testing.ticks import START_US, books, trades
from tests.core.features.feeds import (
    PERPETUAL,
    Feed,
    assert_parity,
    bounds,
    random_feed,
    replayed,
    scenario,
    streamed,
)
from tests.core.features.golden_feed import GOLDEN, SETTINGS, TIMEFRAMES, assert_golden
from tests.core.features.slow import every, finished, same
from tests.core.features.slow_book import SlowBook, snapshot
from tests.parity.streams import INVERSE

S = 1_000_000
MINUTE = 60 * S
OPTIONS = PipelineOptions(groups=("ohlcv", "book"))
COLUMNS = [member.name for member in columns(["book"]) if member.group == "book"]
COUNTS = {member.name for member in columns(["book"]) if member.group == "book" and member.unit == "events"}
# Small differences of large numbers keep fewer digits than the numbers themselves.
ABSOLUTE = {member.name: 10 * max(member.atol, 1e-11) for member in columns(["book"]) if member.group == "book"}


@pytest.mark.parametrize(("timeframe", "steps"), TIMEFRAMES)
def test_golden(timeframe: Timeframe, steps: str, tmp_path: Path) -> None:
    assert_golden("book", timeframe, steps, tmp_path)


def test_golden_snapshots(tmp_path: Path) -> None:
    rows = next(read_tardis_csv(GOLDEN / "book_10m.csv", data_type=DataType.BOOK)).batch
    table = snapshot_features(rows, BookParameters(impact_notional=SETTINGS["impact_notional"]))
    produced = tmp_path / "produced.csv"
    with produced.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(table)
        for values in zip(*(column.tolist() for column in table.values()), strict=True):
            writer.writerow(["" if value != value else value for value in values])
    expected = GOLDEN / "book_10m_expected_per_snapshot.csv"
    done = subprocess.run(
        [sys.executable, GOLDEN / "compare.py", produced, expected], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@settings(max_examples=12)
@given(seed=st.integers(0, 2**32 - 1))
def test_live_equals_replay_equals_batch(seed: int) -> None:
    assert_parity(seed, "book")


def assert_row(row: dict[str, Any], expected: dict[str, Any]) -> None:
    for name in COLUMNS:
        value, other = row[name], expected.get(name)
        close = value is not None and other is not None and math.isclose(value, other, abs_tol=ABSOLUTE[name])
        assert same(value, other, 1e-9) or (close and name not in COUNTS), (name, value, other)


@settings(max_examples=8)
@given(seed=st.integers(0, 2**32 - 1))
def test_candles_of_every_timeframe_are_those_of_a_plain_reference(seed: int) -> None:
    """Above 1m too: what is rolled up from minutes is what the snapshots give directly."""
    instrument, feed = scenario(seed)
    _, published = replayed(feed, OPTIONS, instrument)
    usable = feed[DataType.BOOK]["timestamp"] <= feed[DataType.BOOK]["local_timestamp"] + 60 * S
    usable &= feed[DataType.BOOK]["timestamp"] > 0
    slow = SlowBook(feed[DataType.BOOK], inverse=instrument.inverse, multiplier=instrument.contract_size)
    rejected = feed[DataType.BOOK]["local_timestamp"][~usable]
    compared = 0
    for timeframe in ("15s", "1m", "5m"):
        for candle in finished(published[timeframe], bounds(feed)[1]):
            expected = slow.candle(candle.t0, candle.t1)
            for name in ("book_update_count", "book_invalid_count"):
                expected[name] += int(((rejected >= candle.t0) & (rejected < candle.t1)).sum())
            assert_row(candle.row, expected)
            compared += 1
    assert compared > 5


@settings(max_examples=8)
@given(seed=st.integers(0, 2**32 - 1))
def test_snapshots_are_those_of_a_plain_reference(seed: int) -> None:
    rows = random_feed(seed, minutes=3.0)[DataType.BOOK]
    unit: dict[str, Any] = {"inverse": seed % 2 == 0, "multiplier": (1.0, 100.0, 0.001)[seed % 3]}
    table = snapshot_features(rows, BookParameters(impact_notional=40_000.0, **unit))
    valid = 0
    for index, row in enumerate(every(rows)):
        expected = snapshot(row, notional=40_000.0, **unit)
        valid += bool(expected)
        for name in SNAPSHOT_COLUMNS:
            value = float(table[name][index])
            other = expected.get(name, math.nan)
            assert math.isnan(value) == math.isnan(other), (name, value, other)
            assert math.isnan(other) or math.isclose(value, other, rel_tol=1e-9, abs_tol=ABSOLUTE[name])
    assert 0 < valid < len(rows)


@settings(max_examples=6)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_candle_shows_the_bits_of_the_snapshot_held_at_its_end(seed: int) -> None:
    instrument, feed = scenario(seed)
    _, published = replayed(feed, OPTIONS, instrument)
    rows = feed[DataType.BOOK]
    parameters = BookParameters(
        impact_notional=OPTIONS.parameters.impact_notional,
        inverse=instrument.inverse,
        multiplier=instrument.contract_size,
    )
    usable = (rows["timestamp"] > 0) & (rows["timestamp"] <= rows["local_timestamp"] + 60 * S)
    table = {name: column[usable] for name, column in snapshot_features(rows, parameters).items()}
    effect = np.maximum.accumulate(np.maximum(table["timestamp"], table["local_timestamp"] - 500_000))
    for candle in finished(published["15s"], bounds(feed)[1]):
        at = int(np.searchsorted(effect, candle.t1, "left")) - 1
        for name in SNAPSHOT_COLUMNS:
            assert same(candle.row[name], None if at < 0 or math.isnan(table[name][at]) else table[name][at]), name


def feed_of(rows: TickBatch, *, seconds: int = 120) -> Feed:
    """The snapshots next to one trade per second, the first at the start of the minute."""
    return {DataType.TRADES: trades([42_000.0] * seconds), DataType.BOOK: rows}


def candles(feed: Feed, timeframe: str = "15s", **changes: Any) -> list[dict[str, Any]]:
    return list(replayed(feed, replace(OPTIONS, **changes), PERPETUAL)[1][timeframe].rows())


def test_before_the_first_snapshot_states_are_null_and_counts_zero() -> None:
    rows = candles(feed_of(books([42_000.0, 42_001.0], start_us=START_US + 40 * S)))
    for row in rows[:2]:
        assert {row[name] for name in COUNTS} == {0}
        assert [name for name in COLUMNS if row[name] not in (None, 0)] == []
        assert row["ofi_total"] == 0.0
        assert row["ofi_norm_1"] is row["book_valid_ratio"] is row["book_age_ms"] is row["mid_open"] is None
    assert rows[2]["mid_open"] == 42_000.0
    assert rows[2]["mid_price"] == 42_001.0
    assert rows[2]["book_valid_ratio"] == 1.0
    assert rows[2]["book_age_ms"] == 4_000.0


def test_a_silent_book_is_carried_with_its_age() -> None:
    rows = candles(feed_of(books([42_000.0], spread=2.0)))
    for index, row in enumerate(rows[:7]):
        assert (row["mid_price"], row["spread_tw"], row["mid_open"]) == (42_000.0, 2.0, 42_000.0)
        assert row["book_age_ms"] == (index + 1) * 15_000.0
        assert row["book_update_count"] == (index == 0)
        assert row["ofi_norm_1"] == (0.0 if index == 0 else None)
    minutes = candles(feed_of(books([42_000.0])), "1m")
    assert minutes[0]["book_age_ms"] == 60_000.0


def test_a_snapshot_on_the_border_belongs_to_the_candle_that_opens_there() -> None:
    rows = candles(feed_of(books([42_000.0, 42_010.0], step_us=15 * S)))
    assert (rows[0]["mid_price"], rows[0]["mid_high"], rows[0]["book_update_count"]) == (42_000.0, 42_000.0, 1)
    assert (rows[1]["mid_open"], rows[1]["mid_low"], rows[1]["mid_price"]) == (42_000.0, 42_000.0, 42_010.0)
    assert rows[1]["mid_price_tw"] == 42_010.0
    assert rows[1]["bid_price_change_count"] == 1


@pytest.mark.parametrize(
    ("spread", "broken", "counter"),
    [(0.0, "", "locked_count"), (-1.0, "", "crossed_count"), (1.0, "bid_volume_1", "book_invalid_count"),
     (1.0, "ask_price_1", "book_invalid_count")],
)  # fmt: skip
def test_an_unusable_snapshot_makes_the_state_invalid_until_the_next_one(
    spread: float, broken: str, counter: str
) -> None:
    good, bad = books([42_000.0]), books([42_001.0], spread=spread, start_us=START_US + 5 * S)
    if broken:
        bad = bad.with_column(broken, np.array([0.0]))
    after = books([42_002.0], start_us=START_US + 20 * S)
    rows = TickBatch(
        DataType.BOOK, {name: np.concatenate([b[name] for b in (good, bad, after)]) for name in good.columns}
    )
    first, second, *_ = candles(feed_of(rows))
    assert (first[counter], first["book_update_count"]) == (1, 2)
    assert first["book_valid_ratio"] == 5 / 15
    assert (first["mid_price_tw"], first["mid_high"], first["mid_open"]) == (42_000.0, 42_000.0, 42_000.0)
    as_of = {member.name for member in columns(["book"]) if member.scope == "A"} - {"book_age_ms"}
    assert {first[name] for name in as_of} == {None}
    assert first["mid_return"] is None
    assert first["book_age_ms"] == 10_000.0
    assert second["mid_price"] == second["mid_open"] == 42_002.0
    assert second["book_valid_ratio"] == 10 / 15
    # Neither pair is of two valid snapshots.
    assert (second["ofi_total"], second["mid_change_count"], second["ofi_norm_1"]) == (0.0, 0, 0.0)


def test_a_bad_level_cuts_its_side_there() -> None:
    rows = books([42_000.0]).with_column("ask_volume_3", np.array([0.0])).with_column("bid_price_2", np.array([np.nan]))
    row = candles(feed_of(rows))[0]
    assert (row["bid_levels"], row["ask_levels"]) == (1, 2)
    assert row["ask_price_3"] is row["ask_volume_4"] is row["bid_volume_2"] is None
    assert row["level_imbalance_2"] is row["bid_gap_mean_bps"] is row["bid_depth_entropy_5"] is None
    assert (row["bid_depth_5"], row["ask_depth_5"], row["depth_imbalance_5"]) == (1.0, 2.0, -1 / 3)
    assert row["ask_depth_entropy_5"] == 1.0


def test_the_number_of_levels_is_an_integer_or_null_in_arrow() -> None:
    feed = feed_of(books([42_000.0], start_us=START_US + 20 * S))
    table = candles_to_arrow(replayed(feed, OPTIONS, PERPETUAL)[1]["15s"])
    assert table.column("bid_levels").to_pylist()[:2] == [None, 5]
    assert str(table.schema.field("bid_levels").type) == "int64"


@settings(max_examples=6)
@given(seed=st.integers(0, 2**32 - 1))
def test_rows_with_unusable_times_change_the_two_counters_of_their_arrival_only(seed: int) -> None:
    instrument, feed = scenario(seed)
    rows = feed[DataType.BOOK]
    good = rows.take((rows["timestamp"] > 0) & (rows["timestamp"] <= rows["local_timestamp"] + 60 * S))
    clean = replayed({**feed, DataType.BOOK: good}, OPTIONS, instrument)[1]
    dirty = replayed(feed, OPTIONS, instrument)[1]
    stop = bounds(feed)[1]
    rejected = 0
    for left, right in zip(finished(dirty["1m"], stop), finished(clean["1m"], stop), strict=False):
        assert left.t0 == right.t0
        changed = {name: left.row[name] - right.row[name] for name in ("book_update_count", "book_invalid_count")}
        assert len(set(changed.values())) == 1
        rejected += changed["book_update_count"]
        assert [name for name in COLUMNS if left.row[name] != right.row[name] and name not in changed] == []
    assert 0 <= rejected <= len(rows) - len(good)


def test_contracts_of_an_inverse_instrument_are_quote_amounts() -> None:
    feed = feed_of(books([50_000.0], volume=10.0))
    row = next(replayed(feed, OPTIONS, INVERSE)[1]["15s"].rows())
    assert row["bid_notional_5"] == 5 * 10 * INVERSE.contract_size
    assert row["bid_depth_5"] == 50.0
    prices = [row[f"bid_price_{level}"] for level in range(1, 6)]
    assert row["bid_vwap_5"] == pytest.approx(5 / sum(1 / price for price in prices), rel=1e-12)
    assert row["impact_buy_bps"] is None
    enough = replace(OPTIONS, parameters=FeatureParameters(impact_notional=500.0))
    row = next(replayed(feed, enough, INVERSE)[1]["15s"].rows())
    assert row["impact_buy_bps"] == pytest.approx(1e4 * 0.5 / 50_000.0, rel=1e-9)


def test_without_a_notional_there_is_no_impact() -> None:
    parameters = FeatureParameters(impact_notional=None)
    row = candles(feed_of(books([42_000.0], volume=100.0)), parameters=parameters)[0]
    assert row["impact_buy_bps"] is row["impact_sell_bps"] is None
    assert row["bid_slope_5"] is not None


def test_amounts_that_overflow_give_null_not_infinity() -> None:
    feed = feed_of(books([42_000.0, 42_000.0], volume=1.7e308))
    rows = candles(feed)
    assert all(math.isfinite(value) for row in rows for value in row.values() if isinstance(value, float))
    assert (rows[0]["bid_depth_5"], rows[0]["bid_volume_1"]) == (None, 1.7e308)


TABLE = MicropriceTable(tuple((decile / 10.0, decile / 100.0) for decile in range(10)), tick_size=0.5)


def test_stoikovs_microprice_is_looked_up_by_imbalance_and_spread() -> None:
    rows = books([100.0] * 5, level_step=0.5)
    rows = rows.with_column("bid_volume_1", np.array([1.0, 9.0, 1e9, 1e-9, 1.0]))
    rows = rows.with_column("ask_price_1", np.array([100.0, 100.5, 100.5, 100.0, 102.0]))
    rows = rows.with_column("bid_price_1", np.array([99.5, 99.5, 99.5, 99.5, 99.5]))
    assert np.isnan(snapshot_features(rows, BookParameters())["microprice_stoikov"]).all()
    found = snapshot_features(rows, BookParameters(microprice_table=TABLE))["microprice_stoikov"]
    mid = snapshot_features(rows, BookParameters())["mid_price"]
    # Deciles 5, 9, 9, 0; spreads of 1, 2, 2, 1 ticks; a spread of 5 ticks is not in the table.
    assert (found - mid)[:4] == pytest.approx([0.5, 0.09, 0.09, 0.0])
    assert np.isnan(found[4])


def test_a_table_reaches_the_candles() -> None:
    shape = RunShape(8, 4, 500_000, 0, False, 1.0, FeatureParameters())
    assert BookState(shape).table.shape == (10, 0)
    calibrated = replace(shape, parameters=FeatureParameters(microprice_table=TABLE))
    assert BookState(calibrated).table.shape == (10, 2)
    row = candles(feed_of(books([42_000.0])))[0]
    assert row["microprice_stoikov"] is None


@pytest.mark.parametrize("adjustments", [(), ((0.1,),) * 9, ((),) * 10, (*(((0.1, 0.2),) * 9), (0.1,))])
def test_a_table_of_another_shape_is_refused(adjustments: tuple[tuple[float, ...], ...]) -> None:
    with pytest.raises(ConfigError, match="micro-price table"):
        MicropriceTable(adjustments, 0.1)
    with pytest.raises(ConfigError, match="tick size"):
        MicropriceTable(TABLE.adjustments, 0.0)


@settings(max_examples=6)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_candle_is_published_once(seed: int) -> None:
    """Snapshots are never late, so that nothing the group says changes after the first publication."""
    instrument, feed = scenario(seed)
    once = {**feed, DataType.TRADES: trades([42_000.0], start_us=int(feed[DataType.TRADES]["local_timestamp"].min()))}
    published = streamed(once, OPTIONS, instrument, np.random.default_rng(seed))
    for batch in published.values():
        closed = batch["quality"] != "PARTIAL"
        assert not batch["revision"][closed].any()

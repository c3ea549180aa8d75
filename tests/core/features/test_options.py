"""Option chain columns: verified values, live == batch == an independent reference, and the sources that feed them."""

from __future__ import annotations

import csv
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.options import FeatureParameters, PipelineOptions
from market_data_tick_handler.core.pipeline import Pipeline
from market_data_tick_handler.core.ticks import DataType, TickBatch, concat
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.storage.tardis_csv import read_tardis_csv
from market_data_tick_handler.testing import ManualClock
from streaming_service.sources.files import FilesSource
from streaming_service.sources.simulated import SimulatedSource
from tests.core.features.chains import CHAIN, MINUTE, NAMES, OPTIONS, random_chain
from tests.core.features.feeds import assert_same, batched, replayed, streamed
from tests.core.features.golden_feed import GOLDEN, SETTINGS
from tests.core.features.slow import finished, same
from tests.core.features.slow_surface import Slow, expected
from tests.parity.streams import NOON_US, last


def golden_rows() -> TickBatch:
    parts = read_tardis_csv(GOLDEN / "options_chain_10m.csv", data_type=DataType.OPTIONS, group=lambda *_: "underlying")
    return concat([part.batch for part in parts])


def test_golden(tmp_path: Path) -> None:
    chosen = PipelineOptions(
        grace_us=SETTINGS["grace_ms"] * 1_000,
        groups=("options",),
        parameters=FeatureParameters(
            options_max_age_s=SETTINGS["options_max_age_s"],
            options_min_tte_s=SETTINGS["options_min_tte_s"],
            options_iv_scale=SETTINGS["options_iv_scale"],
        ),
    )
    pipeline = Pipeline(CHAIN, chosen)
    pipeline.feed(Rows(CHAIN.key, golden_rows()))
    pipeline.finish(SETTINGS["end"])
    minutes = list(last(pipeline.outputs())[Timeframe.M1].rows())
    with (tmp_path / "produced.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, minutes[0].keys())
        writer.writeheader()
        writer.writerows(minutes)
    files = (GOLDEN / "compare.py", tmp_path / "produced.csv", GOLDEN / "options_chain_10m_expected_60s.csv")
    command = [sys.executable, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1))
def test_live_equals_replay_equals_batch(seed: int) -> None:
    feed = {DataType.OPTIONS: random_chain(seed)}
    pipeline, replay = replayed(feed, OPTIONS, CHAIN)
    assert pipeline.counters[DataType.OPTIONS].balanced()
    assert_same(streamed(feed, OPTIONS, CHAIN, np.random.default_rng(seed)), replay)
    assert_same(batched(feed, OPTIONS, CHAIN, pipeline), replay)
    assert not any(candles["revision"].any() for candles in replay.values())


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_timeframe_agrees_with_a_direct_computation_on_ticks(seed: int) -> None:
    rows = random_chain(seed)
    slow = Slow(rows)
    _, candles = replayed({DataType.OPTIONS: rows}, OPTIONS, CHAIN)
    assert set(candles) == set(Timeframe) - {Timeframe.S15}
    for timeframe in (Timeframe.M1, Timeframe.M5):
        for candle in finished(candles[timeframe], int(rows["local_timestamp"][-1]) + 1):
            assert all(
                value is None or math.isfinite(value) for name in NAMES if (value := candle.row[name]) is not None
            )
            for name, value in expected(slow, candle.t1).items():
                assert same(candle.row[name], value, 1e-9), (timeframe, candle.t0, name, candle.row[name], value)


def assert_sane(candles: CandleBatch) -> None:
    for row in candles.rows():
        known = {name: row[name] for name in NAMES if row[name] is not None}
        assert all(math.isfinite(value) for value in known.values())
        for name, value in known.items():
            if name.startswith(("atm_iv", "atm_mark_iv", "iv_25d", "oi_weighted_iv", "forward_iv")):
                assert 0.01 <= value <= 5.0, (name, value)
            if name.startswith("butterfly") or name.startswith("risk_reversal") or name.startswith("iv_term"):
                assert abs(value) < 1.0, (name, value)
        assert known["call_oi_total"] >= 0.0


async def fed_from(source: FilesSource | SimulatedSource) -> dict[str, CandleBatch]:
    """What a pipeline makes of all that a source says about the chain."""
    pipeline = Pipeline(CHAIN, OPTIONS)
    clock_us = 0
    async for events in source.events():
        chain = [event for event in events if isinstance(event, Rows) and event.instrument == CHAIN.key]
        pipeline.feed(chain)
        clock_us = max([clock_us, *(int(rows.batch["local_timestamp"][-1]) for rows in chain)])
    pipeline.finish(clock_us - clock_us % MINUTE + 2 * MINUTE)
    return last(pipeline.outputs())


async def test_a_recorded_chain_reaches_its_candles_whole(samples_dir: Path) -> None:
    path = samples_dir / "deribit-options-small/tardis/deribit_options_chain_2020-05-21_OPTIONS.csv.gz"
    candles = (await fed_from(FilesSource([path], speed=None, clock=ManualClock())))[Timeframe.M1]
    assert_sane(candles)
    end = candles.row(len(candles) - 1)
    assert end["options_used_count"] > 250
    assert end["expiries_used_count"] >= 7
    assert end["front_forward"] == pytest.approx(9_100, rel=0.02)
    assert end["atm_iv_30d"] == pytest.approx(0.75, abs=0.2)
    assert end["put_call_oi_ratio"] == pytest.approx(0.7, abs=0.4)
    grouped = list(read_tardis_csv(path, group=lambda *_: "underlying"))
    direct = {DataType.OPTIONS: concat([part.batch for part in grouped])}
    assert {part.symbol for part in grouped} == {"underlying"}
    minutes = replayed(direct, OPTIONS, CHAIN)[1][Timeframe.M1]
    shared = min(len(minutes), len(candles)) - 1
    for name in NAMES:
        np.testing.assert_array_equal(minutes[name][:shared], candles[name][:shared])


async def test_a_simulated_chain_reaches_its_candles() -> None:
    source = SimulatedSource([CHAIN.key], clock=ManualClock(auto=True), start_us=NOON_US, duration_s=200, speed=None)
    candles = (await fed_from(source))[Timeframe.M1]
    assert_sane(candles)
    assert candles["expiries_used_count"].tolist()[:3] == [4, 4, 4]
    assert not np.isnan([candles[name] for name in ("iv_25d_call_front", "iv_25d_put_front", "atm_iv_30d")]).any()

"""Gaps, repairs, crashes and restarts of one instrument, in virtual time: what is published is what batch computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from market_data_tick_handler.core.events import GapEnding
from market_data_tick_handler.core.pipeline import Pipeline
from market_data_tick_handler.errors import SourceUnavailable
from market_data_tick_handler.storage.candle_files import CandleWriter
from market_data_tick_handler.testing import ManualClock
from streaming_service.repair import RepairOptions
from streaming_service.warm_start import stored_candles
from tests.streaming_service.recovery_world import SPOT, START_US, Exchange, S, World, market


async def test_six_seconds_without_connection_are_gapped_at_once_and_then_repaired(tmp_path: Path) -> None:
    live = market(120)
    world = World(tmp_path, live)
    await world.run(34)
    await world.cut(6)
    await world.run(6)
    gapped = [row for row in world.published.rows("15s") if row["timestamp"] == START_US + 30 * S]
    assert [(row["quality"], row["revision"]) for row in gapped] == [("GAPPED", 0)]
    assert gapped[0]["coverage"] == pytest.approx(0.6, abs=0.02)
    await world.repair()
    repaired = [row for row in world.published.rows("15s") if row["timestamp"] == START_US + 30 * S][-1]
    assert (repaired["quality"], repaired["revision"]) == ("REPAIRED", 1)
    assert repaired["coverage"] == gapped[0]["coverage"]
    assert repaired["trade_count"] > gapped[0]["trade_count"]
    assert [gap.ending for gap in world.pipeline.gaps if gap.reason == "disconnect"] == [GapEnding.REPAIRED]
    await world.run(40)
    await world.finish()
    world.assert_equals_batch()
    world.assert_identities_are_unique()
    world.assert_equals_ungapped()


async def test_a_hole_of_half_an_hour_is_repaired_from_a_checkpoint_before_it(tmp_path: Path) -> None:
    """Also beyond the revision window: fetched rows count as received within the gap."""
    live = market(2_400, per_second=1.5)
    world = World(tmp_path, live)
    await world.run(180, step_s=1)
    world.checkpoint()
    await world.run(30, step_s=1)
    await world.cut(1_800)
    await world.run(240, step_s=1)
    world.checkpoint()
    await world.repair()
    await world.run(60, step_s=1)
    await world.finish()
    world.assert_equals_batch()
    world.assert_equals_ungapped()
    world.assert_identities_are_unique()
    assert {"REPAIRED"} < {row["quality"] for row in world.published.rows("1m") if row["revision"] > 0}


async def test_a_minute_without_trades_is_quiet_where_heartbeats_prove_life(tmp_path: Path) -> None:
    live = market(60)
    world = World(tmp_path, live)
    await world.run(61)
    await world.run(70, alive=True)
    quiet = [row for row in world.published.rows("15s") if row["timestamp"] >= START_US + 60 * S]
    assert {(row["quality"], row["coverage"]) for row in quiet} == {("QUIET", 1.0)}
    assert len(quiet) == 4


@pytest.mark.parametrize("seed", range(10))
async def test_killed_at_any_moment_a_restart_publishes_what_batch_computes(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    live = market(240, seed=seed)
    world = World(tmp_path, live)
    for _ in range(3):
        await world.run(float(rng.uniform(5, 30)))
        if rng.random() < 0.7:
            world.checkpoint()
        await world.run(float(rng.uniform(1, 12)))
        if rng.random() < 0.4:
            await world.cut(float(rng.uniform(1, 4)))
        world.kill()
        world.clock.move(float(rng.uniform(0.5, 9)))
        world = World(tmp_path, live, clock=world.clock, collector=world.published)
        await world.run(1)
        await world.repair()
    await world.finish()
    world.assert_equals_batch()
    world.assert_equals_ungapped()
    world.assert_identities_are_unique()


async def test_a_restart_publishes_nothing_twice(tmp_path: Path) -> None:
    live = market(90)
    world = World(tmp_path, live)
    await world.run(20)
    world.checkpoint()
    await world.run(30)
    before = len(world.published.batches)
    world.kill()
    world = World(tmp_path, live, clock=world.clock, collector=world.published)
    await world.ingest.turn()
    assert len(world.published.batches) == before


async def test_a_gap_nobody_has_the_trades_of_is_lost_and_said_so(tmp_path: Path) -> None:
    live = market(200)
    exchange = Exchange(live, fail=SourceUnavailable("down"))
    world = World(tmp_path, live, fetcher=exchange, repair=RepairOptions(attempts=2))
    await world.run(34)
    await world.cut(6)
    await world.repair()
    assert [gap.ending for gap in world.pipeline.gaps if gap.reason == "disconnect"] == [GapEnding.LOST]
    assert (world.repairer.counters.lost, world.repairer.counters.failed_attempts) == (1, 2)
    await world.run(20)
    gapped = [row for row in world.published.rows("15s") if row["timestamp"] == START_US + 30 * S]
    assert gapped[-1]["quality"] == "GAPPED"


async def test_a_gap_without_a_trade_in_it_is_explained(tmp_path: Path) -> None:
    live = market(30)
    world = World(tmp_path, live)
    await world.run(40)
    await world.cut(6)
    await world.repair()
    assert [gap.ending for gap in world.pipeline.gaps if gap.reason == "disconnect"] == [GapEnding.EXPLAINED]


async def test_a_source_that_does_not_reach_back_is_not_believed(tmp_path: Path) -> None:
    """Half of the missing trades would look like a repaired candle and be none."""
    live = market(120)
    world = World(tmp_path, live, fetcher=Exchange(live, complete=False), repair=RepairOptions(attempts=1))
    await world.run(34)
    await world.cut(6)
    await world.repair()
    assert [gap.ending for gap in world.pipeline.gaps if gap.reason == "disconnect"] == [GapEnding.LOST]


async def test_repair_goes_on_after_a_restart(tmp_path: Path) -> None:
    live = market(200)
    exchange = Exchange(live, fail=SourceUnavailable("down"))
    world = World(tmp_path, live, fetcher=exchange)
    await world.run(34)
    await world.cut(6)
    await world.run(5)
    world.kill()
    world.clock.move(2)
    world = World(tmp_path, live, clock=world.clock, collector=world.published)
    await world.run(1)
    await world.repair()
    assert {gap.ending for gap in world.pipeline.gaps if gap.reason != "service started"} == {GapEnding.REPAIRED}
    await world.finish()
    world.assert_equals_batch()
    world.assert_equals_ungapped()


async def test_a_disk_that_fails_costs_no_candle_and_the_next_checkpoint_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = market(120)
    world = World(tmp_path, live)
    await world.run(20)
    journal = world.recovery.journal(SPOT.key)

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(journal, "append", full)
        await world.run(14)
    assert world.recovery.failures > 0 and "No space left" in world.recovery.last_failure
    assert world.recovery.due() == [SPOT.key]
    world.checkpoint()
    await world.run(20)
    before = world.final()["15s"]
    world.kill()
    world = World(tmp_path, live, clock=world.clock, collector=world.published)
    await world.run(20)
    after = world.final()["15s"]
    assert after["trade_count"][: len(before)].tolist() == before["trade_count"].tolist()
    world.assert_identities_are_unique()


async def test_a_failed_checkpoint_does_not_spoil_the_next(tmp_path: Path) -> None:
    """Ids that a lost checkpoint would have logged are logged by the one after it."""
    world = World(tmp_path, market(120))
    await world.run(10)
    world.recovery.capture(SPOT.key, world.pipeline)
    await world.run(10)
    world.checkpoint()
    world.kill()
    world = World(tmp_path, world.live, clock=world.clock)
    assert world.recovery.restored == {SPOT.key: pytest.approx(0.0, abs=1.0)}


async def test_indicators_are_warm_from_the_first_candle_on(tmp_path: Path) -> None:
    """Stored candles stand in for a checkpoint; what is not stored in between counts as quiet."""
    world = World(
        tmp_path / "before", market(900, start_us=START_US - 1_000 * S), clock=ManualClock(START_US - 1_000 * S)
    )
    await world.run(900, step_s=1)
    writer = CandleWriter(tmp_path / "store")
    for batch in world.published.batches:
        writer.write(batch)
    writer.close()

    def warm(pipeline: Pipeline) -> None:
        timeframes = pipeline.options.timeframes
        pipeline.warm(stored_candles(str(tmp_path / "store"), SPOT, timeframes, START_US, limit=3_000))

    cold = World(tmp_path / "cold", market(60))
    await cold.run(40)
    warmed = World(tmp_path / "warm", market(60), warm=warm)
    await warmed.run(40)
    first_cold, first_warm = cold.published.rows("15s")[0], warmed.published.rows("15s")[0]
    assert first_cold["rsi_5"] is None and first_warm["rsi_5"] is not None
    assert first_warm["warmup_bars"] > 60
    assert first_warm["open"] == first_cold["open"] and first_warm["volume"] == first_cold["volume"]

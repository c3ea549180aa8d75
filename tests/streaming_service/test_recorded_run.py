"""Frames of several sources come in one order of arrival, from the source that was in use, into the right pipelines."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from market_data_tick_handler.core.events import Gap, GapEnding, Heartbeat, Rows
from market_data_tick_handler.core.options import PipelineOptions
from market_data_tick_handler.core.pipeline import Pipeline
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.errors import NotFound
from market_data_tick_handler.storage.candle_files import read_candles
from market_data_tick_handler.storage.paths import day_of
from market_data_tick_handler.testing import trades
from streaming_service.recorded_run import RecordedRun
from streaming_service.replay import Replay, ReplayTotals
from streaming_service.run_log import RecordedSource, RunLog
from streaming_service.run_replay import RunReplay
from streaming_service.sources.connection.recorder import FrameRecorder
from streaming_service.sources.recording import RecordedSource as PlayedSource
from tests.streaming_service.sources.connection.plain_venue import BTC, EXCHANGE, PlainVenue
from tests.streaming_service.sources.connection.running import CLOCK

T0 = 1_704_067_200_000_000 + 3_600_000_000
S = 1_000_000
STREAMS = ((BTC.key, DataType.TRADES),)
OPTIONS = PipelineOptions(timeframes=(Timeframe.S15, Timeframe.M1), groups=("ohlcv",), grace_us=100_000)


def trade(number: int, at_us: int) -> bytes:
    return b'{"s": "BTCUSDT", "t": %d, "p": 1.5, "T": %d}' % (number, at_us)


def record(folder: Path, turns: Sequence[tuple[int, Sequence[tuple[int, int]]]]) -> None:
    """One source: per turn its time, and trades as (number, time of receipt)."""
    it = FrameRecorder(folder, exchange=EXCHANGE, started_us=T0)
    it.opened(0, T0, STREAMS)
    for at_us, came in turns:
        it.frames(0, [trade(number, us) for number, us in came], np.array([us for _, us in came]))
        it.turn(at_us)
    it.close()


def recorded(path: Path) -> RecordedRun:
    return RecordedRun(path, {EXCHANGE: PlainVenue()}, machine=PlainVenue())


async def arrivals(run: RecordedRun) -> list[tuple[int, int]]:
    """(id, local_timestamp) of every trade, as it comes; asserts what each chunk promises."""
    out: list[tuple[int, int]] = []
    async with aclosing(run.chunks(step_us=S)) as chunks:  # type: ignore[type-var]
        async for chunk in chunks:
            rows = [event.batch for event in chunk.events if isinstance(event, Rows)]
            came = [
                pair
                for batch in rows
                for pair in zip(batch["id"].tolist(), batch["local_timestamp"].tolist(), strict=True)
            ]
            assert all(us <= chunk.until_us for _, us in came)
            out += came
    return out


async def test_sources_are_merged_by_time_of_receipt(tmp_path: Path) -> None:
    """Turns of one drain are written one after the other, and overlap in time."""
    record(tmp_path / "a", [(T0 + 100, [(1, T0 + 10), (3, T0 + 90)]), (T0 + 300, [(6, T0 + 250)])])
    record(tmp_path / "b", [(T0 + 101, [(2, T0 + 50), (4, T0 + 100)]), (T0 + 299, [(5, T0 + 150), (7, T0 + 299)])])
    came = await arrivals(recorded(tmp_path))
    assert sorted(number for number, _ in came) == [1, 2, 3, 4, 5, 6, 7]
    # Within a chunk a pipeline sorts; across chunks nothing comes late.
    firsts = [us for _, us in came]
    assert max(firsts[:3]) < T0 + 100 <= min(firsts[3:])


async def test_rows_of_a_source_that_waits_count_only_where_ids_tell_them_apart(tmp_path: Path) -> None:
    record(tmp_path / "one", [(T0 + 100, [(1, T0 + 10)]), (T0 + 300, [(2, T0 + 250)])])
    record(tmp_path / "two", [(T0 + 110, [(11, T0 + 10)]), (T0 + 310, [(12, T0 + 250)])])
    it = RunLog(tmp_path / "service", started_us=T0)
    it.run_began([RecordedSource("f", "exchange", "one"), RecordedSource("f", "second", "two")])
    it.switched("f", "second", T0 + 200)
    it.close()
    run = recorded(tmp_path)
    assert [source.folder for source in run.sources] == ["one", "two"]
    assert sorted(number for number, _ in await arrivals(run)) == [1, 2, 11, 12]
    beat = Heartbeat(BTC.key, T0 + 5)
    used = [(place, at_us) for place in (0, 1) for at_us in (T0 + 50, T0 + 250) if run._used(place, [beat], at_us)]
    assert used == [(0, T0 + 50), (1, T0 + 250)]


def test_a_directory_without_frames_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFound, match="expected the recording of a service"):
        recorded(tmp_path)


class Run:
    """A recording in the making: one source, a pipeline's beginning and end, and what is told between them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = RunLog(path / "service", started_us=T0)
        self.log.run_began([RecordedSource("f", "exchange", "one")])

    def began(self, at_us: int = T0, **options: Any) -> Pipeline:
        made = Pipeline(BTC, OPTIONS)
        made.start(at_us)
        self.log.began(made, at_us=at_us, resumed=False, **options)
        return made

    def ended(self, pipeline: Pipeline, at_us: int, *, finished: bool) -> None:
        pipeline.advance(at_us)
        self.log.ended(pipeline, finished=finished)

    async def replayed(self, out: Path) -> tuple[ReplayTotals, list[dict[str, Any]]]:
        self.log.close()
        run = recorded(self.path)
        with Replay(root=out, make_pipeline=lambda key: Pipeline(BTC, OPTIONS)) as replay:
            player = RunReplay(run.told, replay)
            totals = await player.run(PlayedSource(run, speed=None, clock=CLOCK), lambda totals: None)
        day = day_of(T0)
        return totals, read_candles(out, BTC.key, Timeframe.S15, day, day).to_pylist()


def minute(from_us: int, first: int, *, without: range = range(0)) -> list[tuple[int, list[tuple[int, int]]]]:
    """A trade a second, each a turn of its own."""
    return [
        (from_us + second * S + 1_000, [(first + second, from_us + second * S)])
        for second in range(60)
        if second not in without
    ]


async def test_fetched_rows_are_in_their_candle_and_their_gap_is_known_from_the_start(tmp_path: Path) -> None:
    record(tmp_path / "one", minute(T0, 1, without=range(20, 26)))
    run = Run(tmp_path)
    pipeline = run.began()
    gap = Gap(BTC.key, DataType.TRADES, T0 + 20 * S, T0 + 26 * S, "disconnect")
    missing = trades([1.5] * 6, start_us=T0 + 20 * S, step_us=S, first_id=21)
    run.log.fetched(gap, missing)
    pipeline.know(
        [
            *pipeline.gaps,
            Gap(gap.instrument, gap.data_type, gap.from_us, gap.to_us, gap.reason, ending=GapEnding.REPAIRED),
        ]
    )
    run.ended(pipeline, T0 + 61 * S, finished=False)
    totals, candles = await run.replayed(tmp_path / "out")
    assert [row["trade_count"] for row in candles] == [15, 15, 15, 15]
    assert [row["quality"] for row in candles] == ["COMPLETE", "REPAIRED", "COMPLETE", "COMPLETE"]
    assert totals.revisions == 0 and totals.accounts[BTC.key, DataType.TRADES].accepted == 60


async def test_rows_fetched_by_a_repair_that_did_not_end_are_left_out(tmp_path: Path) -> None:
    record(tmp_path / "one", minute(T0, 1, without=range(20, 26)))
    run = Run(tmp_path)
    pipeline = run.began()
    gap = Gap(BTC.key, DataType.TRADES, T0 + 20 * S, T0 + 26 * S, "disconnect")
    run.log.fetched(gap, trades([1.5] * 6, start_us=T0 + 20 * S, step_us=S, first_id=21))
    pipeline.know([*pipeline.gaps, gap])
    run.ended(pipeline, T0 + 61 * S, finished=False)
    _, candles = await run.replayed(tmp_path / "out")
    assert [(row["trade_count"], row["quality"]) for row in candles[1:2]] == [(9, "GAPPED")]


@pytest.mark.parametrize(("finished", "count"), [(False, 2), (True, 3)])
async def test_a_replay_ends_where_the_service_did(tmp_path: Path, finished: bool, count: int) -> None:
    record(tmp_path / "one", minute(T0, 1))
    run = Run(tmp_path)
    run.ended(run.began(), T0 + 40 * S, finished=finished)
    totals, candles = await run.replayed(tmp_path / "out")
    assert [row["quality"] for row in candles] == ["COMPLETE", "COMPLETE", "PARTIAL"][:count]
    account = totals.accounts[BTC.key, DataType.TRADES]
    # What came afterwards had no pipeline any more.
    assert account.balances and (account.received, account.filtered) == (60, 20)


async def test_a_pipeline_that_began_anew_knows_nothing_of_the_one_before(tmp_path: Path) -> None:
    record(tmp_path / "one", [*minute(T0, 1), *minute(T0 + 120 * S, 1)])
    run = Run(tmp_path)
    run.ended(run.began(), T0 + 60 * S + 500_000, finished=False)
    run.ended(run.began(T0 + 120 * S), T0 + 180 * S + 500_000, finished=False)
    totals, candles = await run.replayed(tmp_path / "out")
    assert [(row["timestamp"].timestamp() * S - T0) // S for row in candles] == [0, 15, 30, 45, 120, 135, 150, 165]
    # The same ids are no duplicates to a pipeline that never saw them.
    account = totals.accounts[BTC.key, DataType.TRADES]
    assert (account.accepted, account.duplicate) == (120, 0)

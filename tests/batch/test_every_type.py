"""`replay --store-ticks` of every type of ticks, then batch over what it stored: the same bits in every group."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from batch.candle_processing import DayRun, Work, process_instrument, run_day
from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.features.registry import group_names
from market_data_tick_handler.core.instruments import InstrumentDefinition, parse_instrument_key
from market_data_tick_handler.core.options import FeatureParameters, PipelineOptions
from market_data_tick_handler.core.parity import compare
from market_data_tick_handler.core.pipeline import Pipeline
from market_data_tick_handler.core.ticks import ID_NONE, DataType
from market_data_tick_handler.core.timeframes import DAY_US
from market_data_tick_handler.errors import NotFound
from market_data_tick_handler.storage.candle_files import candle_columns
from market_data_tick_handler.storage.paths import candles_path, day_of, raw_ticks_path
from streaming_service.replay import Replay
from tests.core.features.feeds import MIDNIGHT_US, PERPETUAL, Feed, between, bounds, random_feed
from tests.parity.streams import INVERSE, NOON_US, SPOT

MINUTE_US = 60_000_000
GROUPS = tuple(name for name in group_names() if name != "identity")
OPTIONS = PipelineOptions(
    groups=GROUPS,
    parameters=FeatureParameters(
        vpin_bucket_volume=3.0, vpin_buckets=5, large_trade_notional=40_000.0, impact_notional=60_000.0
    ),
)
CHAIN = parse_instrument_key("DERIBIT:OPTION_CHAIN:BTC-USD")


def stream(seed: int, instrument: InstrumentDefinition = PERPETUAL, *, start_us: int = NOON_US) -> Feed:
    """Twelve minutes of every type that the instrument has; a row without an id has none, as decoders give it."""
    feed = random_feed(seed, start_us=start_us, minutes=12.0)
    for data_type in (DataType.TRADES, DataType.LIQUIDATIONS):
        rows = feed[data_type]
        feed[data_type] = rows.with_column("id", np.where(rows["id_kind"] == ID_NONE, 0, rows["id"]))
    return {data_type: rows for data_type, rows in feed.items() if data_type in instrument.data_types}


def replayed(root: Path, instrument: InstrumentDefinition, feed: Feed, seed: int, options: PipelineOptions) -> None:
    """What a replay of the feed in random turns leaves in a store."""
    start, stop = bounds(feed)
    cuts = np.unique([start, *np.random.default_rng(seed).integers(start, stop, 40).tolist(), stop]).tolist()
    with Replay(
        root=root, make_pipeline=lambda _: Pipeline(instrument, options, keep_rows=True), store_ticks=True
    ) as it:
        for begin, end in pairwise(cuts):
            it.feed(between(feed, begin, end, instrument))
        it.finish()


def days(root: Path, instrument: InstrumentDefinition, options: PipelineOptions) -> Iterator[tuple[date, DayRun]]:
    """Every day that has rows of any type, one after the other."""
    carried: bytes | None = None
    for folder in sorted((root / "raw_tick_data" / "by_date").iterdir()):
        day = date.fromisoformat(folder.name.removeprefix("day-"))
        run = run_day(root, instrument, options, day, carried=carried)
        carried = run.state
        yield day, run


def assert_agrees(root: Path, instrument: InstrumentDefinition, options: PipelineOptions = OPTIONS) -> int:
    """Every candle file of the store against batch; how many candles there are."""
    compared = 0
    for day, run in days(root, instrument, options):
        for batch in run.candles:
            stored = live_candles(root, batch, day)
            report = compare(stored, batch.columns)
            assert report.ok, (day, batch.timeframe, report.by_kind(), report.differences[:5])
            compared += report.compared
    return compared


def live_candles(root: Path, batch: CandleBatch, day: date) -> dict[str, np.ndarray]:
    table = "processed_options_chain" if batch.instrument == CHAIN else "processed_candles"
    path = root / candles_path(day, batch.timeframe, batch.instrument.key, table=table)
    columns = candle_columns(pq.read_table(path, partitioning=None))
    return {name: values for name, values in columns.items() if name not in {*batch.constants, *batch.absent}}


@pytest.mark.parametrize("seed", [2, 5])
@pytest.mark.parametrize("start_us", [NOON_US, MIDNIGHT_US - 6 * MINUTE_US], ids=["noon", "midnight"])
@pytest.mark.parametrize("instrument", [SPOT, PERPETUAL, INVERSE], ids=lambda instrument: instrument.venue)
def test_replay_then_batch_agree(instrument: InstrumentDefinition, start_us: int, seed: int, tmp_path: Path) -> None:
    feed = stream(seed, instrument, start_us=start_us)
    replayed(tmp_path, instrument, feed, seed, OPTIONS)
    assert assert_agrees(tmp_path, instrument) > 40


def test_a_chain_of_options_agrees_too(tmp_path: Path) -> None:
    from tests.conformance.streams import case

    replayed(tmp_path, CHAIN, case("chain").feed, 1, OPTIONS)
    assert assert_agrees(tmp_path, CHAIN) > 15


def test_a_file_of_another_type_that_is_not_there_gives_what_a_feed_without_it_gives(tmp_path: Path) -> None:
    feed = stream(4)
    del feed[DataType.LIQUIDATIONS], feed[DataType.DERIVATIVE]
    replayed(tmp_path, PERPETUAL, feed, 4, OPTIONS)
    assert assert_agrees(tmp_path, PERPETUAL) > 40


def test_files_that_no_selected_group_reads_change_nothing(tmp_path: Path) -> None:
    options = PipelineOptions(groups=("ohlcv", "flow", "delays"))
    replayed(tmp_path, PERPETUAL, stream(4), 4, options)
    with_files = [run.candles for _, run in days(tmp_path, PERPETUAL, options)]
    for data_type in (DataType.BOOK, DataType.DERIVATIVE, DataType.LIQUIDATIONS):
        (tmp_path / raw_ticks_path(day_of(NOON_US), data_type, PERPETUAL.key)).unlink()
    without = [run.candles for _, run in days(tmp_path, PERPETUAL, options)]
    for left, right in zip(with_files[0], without[0], strict=True):
        assert compare(left.columns, right.columns).ok


@pytest.fixture
def quiet_after_midnight(tmp_path: Path) -> Path:
    """Store of a run whose trades end before midnight, while the book goes on after it."""
    feed = stream(5, start_us=MIDNIGHT_US - 6 * MINUTE_US)
    stop = int(np.searchsorted(feed[DataType.TRADES]["local_timestamp"], MIDNIGHT_US - 2 * MINUTE_US))
    feed[DataType.TRADES] = feed[DataType.TRADES].slice(0, stop)
    del feed[DataType.LIQUIDATIONS]
    replayed(tmp_path, PERPETUAL, feed, 5, OPTIONS)
    assert bounds(feed)[1] > MIDNIGHT_US + 4 * MINUTE_US
    return tmp_path


def test_a_day_without_trades_that_the_service_saw_is_silence(quiet_after_midnight: Path) -> None:
    assert len(list(days(quiet_after_midnight, PERPETUAL, OPTIONS))) == 2
    assert assert_agrees(quiet_after_midnight, PERPETUAL) > 40


def test_a_day_without_a_file_of_trades_is_missing(quiet_after_midnight: Path) -> None:
    shutil.rmtree(quiet_after_midnight / "gap_ledger")
    with pytest.raises(NotFound, match="trades day file"):
        run_day(quiet_after_midnight, PERPETUAL, OPTIONS, day_of(MIDNIGHT_US))
    work = Work(quiet_after_midnight, PERPETUAL, OPTIONS, (day_of(MIDNIGHT_US), day_of(MIDNIGHT_US + DAY_US)), "x")
    assert [(each.status, each.detail) for each in process_instrument(work)] == [
        ("missing", "no raw trades of this day")
    ] * 2


def test_every_row_of_every_type_is_accounted_for(tmp_path: Path) -> None:
    feed = stream(6)
    replayed(tmp_path, PERPETUAL, feed, 6, OPTIONS)
    ((_, run),) = days(tmp_path, PERPETUAL, OPTIONS)
    assert run.counters.received == sum(map(len, feed.values()))
    assert run.counters.balanced()


def test_days_one_by_one_give_what_they_give_together(tmp_path: Path) -> None:
    feed = stream(9, start_us=MIDNIGHT_US - 6 * MINUTE_US)
    replayed(tmp_path, PERPETUAL, feed, 9, OPTIONS)
    first = day_of(MIDNIGHT_US - 1)
    together = list(process_instrument(Work(tmp_path, PERPETUAL, OPTIONS, (first, first + timedelta(days=1)), "x")))
    assert [outcome.status for outcome in together] == ["done", "done"]
    again = list(process_instrument(Work(tmp_path, PERPETUAL, OPTIONS, (first + timedelta(days=1),), "x")))
    assert (again[0].detail, again[0].changed) == ("state of the day before", 0)

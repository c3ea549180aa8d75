"""Candle day files: revisions replace what they revise, and nothing else changes."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.features.registry import FEATURE_VERSION
from market_data_tick_handler.core.instruments import parse_instrument_key
from market_data_tick_handler.core.options import PipelineOptions
from market_data_tick_handler.core.pipeline import Pipeline
from market_data_tick_handler.core.timeframes import DAY_US, Timeframe
from market_data_tick_handler.errors import CorruptObject, NotFound
from market_data_tick_handler.storage.candle_files import CandleWriter, read_candles
from market_data_tick_handler.storage.paths import candles_path
from market_data_tick_handler.testing.ticks import START_US, trades

KEY = "BINANCE:SPOT_PAIR:BTC-USDT"
DAY = date(2024, 8, 8)
T0 = 1_723_075_200_000_000
MINUTE = 60_000_000


def candles(opens: list[int], *, revision: int = 0, close: float = 1.0, **more: float) -> CandleBatch:
    rows = len(opens)
    columns = {
        "timestamp": np.array(opens, np.int64),
        "timestamp_out": np.array(opens, np.int64) + MINUTE,
        "quality": np.array(["COMPLETE"] * rows),
        "revision": np.full(rows, revision, np.int32),
        "close": np.full(rows, close),
        **{name: np.full(rows, value) for name, value in more.items()},
    }
    return CandleBatch(parse_instrument_key(KEY), Timeframe.M1, columns, FEATURE_VERSION)


def stored(root: Path, day: date = DAY) -> list[tuple[int, int, float]]:
    table = read_candles(root, KEY, Timeframe.M1, day, day)
    times = table["timestamp"].cast("int64").to_pylist()
    return list(zip(times, table["revision"].to_pylist(), table["close"].to_pylist(), strict=True))


def test_candles_come_back_in_time_order_from_the_documented_path(tmp_path: Path) -> None:
    writer = CandleWriter(tmp_path)
    writer.write(candles([T0 + MINUTE]))
    writer.write(candles([T0]))
    assert writer.pending_rows == 2
    assert writer.flush() == 1
    assert (tmp_path / candles_path(DAY, Timeframe.M1, KEY)).is_file()
    assert stored(tmp_path) == [(T0, 0, 1.0), (T0 + MINUTE, 0, 1.0)]
    assert writer.pending_rows == 0


def test_the_highest_revision_of_a_candle_wins_whatever_the_order(tmp_path: Path) -> None:
    writer = CandleWriter(tmp_path)
    writer.write(candles([T0, T0 + MINUTE], revision=1, close=2.0))
    writer.flush()
    writer.write(candles([T0], revision=0, close=1.0))
    writer.write(candles([T0 + MINUTE], revision=2, close=3.0))
    writer.flush()
    assert stored(tmp_path) == [(T0, 1, 2.0), (T0 + MINUTE, 2, 3.0)]


def test_an_equal_revision_written_later_wins(tmp_path: Path) -> None:
    for close in (1.0, 2.0):
        writer = CandleWriter(tmp_path)
        writer.write(candles([T0], close=close))
        writer.close()
    assert stored(tmp_path) == [(T0, 0, 2.0)]


def test_days_go_to_their_own_files_and_are_read_as_one_span(tmp_path: Path) -> None:
    writer = CandleWriter(tmp_path)
    writer.write(candles([T0 + DAY_US - MINUTE, T0 + DAY_US]))
    writer.close()
    assert len(writer.files) == 2
    assert read_candles(tmp_path, KEY, Timeframe.M1, DAY, date(2024, 8, 12)).num_rows == 2
    assert [time for time, _, _ in stored(tmp_path)] == [T0 + DAY_US - MINUTE]


def test_a_file_is_rewritten_at_a_bounded_rate(tmp_path: Path) -> None:
    writer = CandleWriter(tmp_path, rewrite_interval_us=5_000_000)
    rewritten = 0
    for second in range(20):
        writer.write(candles([T0 + second * MINUTE]))
        rewritten += writer.flush(now_us=second * 1_000_000)
    assert rewritten == 4
    writer.close()
    assert len(stored(tmp_path)) == 20


def test_columns_that_only_some_candles_have_are_null_in_the_others(tmp_path: Path) -> None:
    writer = CandleWriter(tmp_path)
    writer.write(candles([T0]))
    writer.flush()
    writer.write(candles([T0 + MINUTE], volume=7.0))
    writer.flush()
    assert read_candles(tmp_path, KEY, Timeframe.M1, DAY, DAY)["volume"].to_pylist() == [None, 7.0]


def test_no_half_file_is_left_and_other_files_are_not_touched(tmp_path: Path) -> None:
    path = tmp_path / candles_path(DAY, Timeframe.M1, KEY)
    path.parent.mkdir(parents=True)
    (path.parent / "notes.txt").write_text("mine")
    writer = CandleWriter(tmp_path)
    writer.write(candles([T0]))
    writer.close()
    assert sorted(file.name for file in path.parent.iterdir()) == sorted([path.name, "notes.txt"])


def test_a_span_without_files_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no 1m candles of BINANCE"):
        read_candles(tmp_path, KEY, Timeframe.M1, DAY, DAY)


def test_candles_stay_pending_when_the_file_there_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / candles_path(DAY, Timeframe.M1, KEY)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PAR1 no")
    writer = CandleWriter(tmp_path)
    writer.write(candles([T0]))
    with pytest.raises(CorruptObject, match="delete it and compute the day again"):
        writer.flush()
    assert writer.pending_rows == 1
    path.unlink()
    writer.close()
    assert len(stored(tmp_path)) == 1


def test_a_file_names_the_settings_of_every_run_that_wrote_to_it(tmp_path: Path) -> None:
    instrument = parse_instrument_key("BINANCE:SPOT_PAIR:BTC-USDT")
    for part, name in ((slice(0, 40), "aaaa"), (slice(40, 80), "bbbb"), (slice(80, 120), "aaaa")):
        pipeline = Pipeline(instrument, PipelineOptions(groups=("ohlcv",), config_hash=name))
        stamps = START_US + 1_000_000 * np.arange(120)[part]
        pipeline.feed(Rows(instrument.key, trades(np.full(40, 10.0), timestamps=stamps)))
        pipeline.finish(int(stamps[-1]) + 2_000_000)
        writer = CandleWriter(tmp_path)
        for batch in pipeline.outputs():
            writer.write(batch)
        writer.close()
    (path,) = tmp_path.rglob("timeframe-15s/*.parquet")
    assert pq.read_schema(path).metadata[b"config_hash"] == b"aaaa,bbbb"

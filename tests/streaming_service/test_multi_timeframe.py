"""Ticks in, candles of several timeframes out: those of the pipeline, however the ticks are cut into calls."""

from __future__ import annotations

import numpy as np
import pytest

from market_data_tick_handler import ConfigError, InstrumentError, MultiTimeframeProcessor, PipelineOptions, Timeframe
from market_data_tick_handler.core.candle_batch import CandleBatch, concat_candles
from market_data_tick_handler.core.events import Gap, Rows
from market_data_tick_handler.core.parity import compare
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.testing import ticks

BTC = "BINANCE:SPOT_PAIR:BTC-USDT"
HOUR = ticks.trades(100.0 + np.sin(np.arange(3_600)), sides=np.where(np.arange(3_600) % 3, 1, -1))


def processor(**options: object) -> MultiTimeframeProcessor:
    return MultiTimeframeProcessor("BTC-USDT", "binance", ["5m", "1m"], **options)  # type: ignore[arg-type]


def joined(batches: list[CandleBatch], timeframe: Timeframe) -> CandleBatch:
    return concat_candles([batch for batch in batches if batch.timeframe is timeframe])


def test_an_hour_of_trades_makes_an_hour_of_candles_of_each_timeframe() -> None:
    made = processor()
    found = [*made.process(HOUR), *made.advance(ticks.START_US + 3_600_000_000 + 500_000)]
    assert made.timeframes == (Timeframe.M1, Timeframe.M5)
    for timeframe, count in ((Timeframe.M1, 60), (Timeframe.M5, 12)):
        candles = joined(found, timeframe)
        assert len(candles) == count and candles["trade_count"].sum() == 3_600
        assert candles["close"][0] == HOUR["price"][timeframe.seconds - 1]


@pytest.mark.parametrize("size", [1, 37, 1_000])
def test_the_candles_do_not_depend_on_how_the_ticks_are_cut(size: int) -> None:
    whole, cut = processor(), processor()
    expected = [*whole.process(HOUR), *whole.finish()]
    length = 600 if size == 1 else len(HOUR)
    part = HOUR.slice(0, length)
    if size == 1:
        whole = processor()
        expected = [*whole.process(part), *whole.finish()]
    found: list[CandleBatch] = []
    for start in range(0, length, size):
        found += cut.process(part.slice(start, min(start + size, length)))
    found += cut.finish()
    for timeframe in (Timeframe.M1, Timeframe.M5):
        report = compare(joined(expected, timeframe).columns, joined(found, timeframe).columns)
        assert not report.differences and report.equal


def test_a_late_trade_gives_its_candle_again_as_a_revision() -> None:
    made = processor()
    made.process(HOUR.slice(0, 130))
    happened, arrived = ticks.START_US + 70_000_000, ticks.START_US + 131_000_000
    late = ticks.trades([500.0], timestamps=[happened], local_timestamps=[arrived], first_id=9_000)
    (revised,) = made.process(late)
    assert (revised.timeframe, list(revised["revision"]), list(revised["high"])) == (Timeframe.M1, [1], [500.0])


def test_what_is_open_at_the_end_is_partial() -> None:
    made = processor()
    made.process(HOUR.slice(0, 90))
    found = joined(made.finish(), Timeframe.M1)
    assert list(found["quality"]) == ["PARTIAL"] and list(found["trade_count"]) == [30]


def test_gaps_and_books_are_taken_too_and_options_count() -> None:
    made = processor(options=PipelineOptions(groups=("ohlcv", "spread"), timeframes=(Timeframe.H24,)))
    gap = Gap(BTC, DataType.TRADES, ticks.START_US + 70_000_000, ticks.START_US + 80_000_000, "cut")
    made.process([ticks.books(np.full(65, 100.0)), HOUR.slice(0, 70), gap])
    found = made.process([HOUR.slice(80, 200)])
    candles = joined(found, Timeframe.M1)
    assert (candles["quality"][0], candles["gap_ms"][0]) == ("GAPPED", 10_000)
    assert "rsi_5" not in candles.columns and candles["trades_matched_to_book"][0] == 50


def test_other_peoples_ticks_and_names_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="one processor per instrument"):
        processor().process(Rows("BINANCE:SPOT_PAIR:ETH-USDT", HOUR))
    with pytest.raises(ConfigError, match="one timeframe"):
        MultiTimeframeProcessor("BTC-USDT", timeframes=[])
    with pytest.raises(ConfigError):
        MultiTimeframeProcessor("BTC-USDT", timeframes=["2m"])
    with pytest.raises(InstrumentError):
        MultiTimeframeProcessor("NOTHING-SUCH")

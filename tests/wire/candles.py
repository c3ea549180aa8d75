"""Candles for tests of messages: made up, or as the pipeline gives them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.instruments import parse_instrument_key
from market_data_tick_handler.core.options import PipelineOptions
from market_data_tick_handler.core.pipeline import Pipeline
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.testing import ticks

BTC = "BINANCE:SPOT_PAIR:BTC-USDT"
ETH = "BINANCE:SPOT_PAIR:ETH-USDT"
PERPETUAL = "BINANCE-FUTURES:PERPETUAL:BTC-USDT"


def candles(
    first: int = 0,
    count: int = 1,
    *,
    key: str = BTC,
    timeframe: Timeframe = Timeframe.M1,
    sequences: bool = True,
    revision: int = 0,
    absent: tuple[str, ...] = (),
    **columns: Any,
) -> CandleBatch:
    """Candles number `first` to `first + count` of a series; their numbers on the channel are one higher."""
    numbers = np.arange(first, first + count)
    made: dict[str, Any] = {
        "timestamp": ticks.START_US + numbers * timeframe.us,
        "open": numbers + 100.0,
        "high": numbers + 101.5,
        "low": numbers + 99.5,
        "close": numbers + 100.5,
        "volume": np.full(count, 2.0),
        "trade_count": np.full(count, 3),
        "rsi_5": np.full(count, 55.25),
        "revision": np.full(count, revision),
        "timestamp_out": ticks.START_US + (numbers + 1) * timeframe.us + 500_000,
    }
    made |= {name: np.full(count, value) if np.isscalar(value) else value for name, value in columns.items()}
    numbered = numbers + 1 if sequences else None
    return CandleBatch(parse_instrument_key(key), timeframe, made, "1.0.0", absent, sequences=numbered)


@lru_cache(maxsize=4)
def computed(key: str = PERPETUAL) -> tuple[CandleBatch, ...]:
    """What a pipeline with every group on publishes for some minutes of trades and books."""
    instrument = parse_instrument_key(key)
    pipeline = Pipeline(instrument, PipelineOptions(timeframes=(Timeframe.S15, Timeframe.M1)))
    steps = np.arange(400)
    prices = 100.0 + np.sin(steps / 7.0)
    pipeline.feed([Rows(key, ticks.trades(prices, 1.0 + steps % 3, sides=np.where(steps % 2, 1, -1)))])
    batches = pipeline.outputs(published_us=ticks.START_US)
    pipeline.advance(ticks.START_US + 420_000_000)
    return tuple(batch for batch in (*batches, *pipeline.outputs(published_us=ticks.START_US)) if len(batch))


def rows(documents: list[Mapping[str, Any]]) -> list[tuple[int, int]]:
    """Sequence and open time of each."""
    return [(document["sequence"], document["timestamp"]) for document in documents]

"""Candles that tell which row they are, which the tests of sinks of tables share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.features.registry import columns
from market_data_tick_handler.core.instruments import parse_instrument_key
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.testing.ticks import BTC, START_US

ETH = "BINANCE:SPOT_PAIR:ETH-USDT"
_IDENTITY = ("instrument_id", "exchange", "symbol", "timeframe", "feature_version")
GROUPS = ("identity", "ohlcv")


def candles(
    count: int,
    *,
    first: int = 0,
    instrument: str = BTC,
    timeframe: Timeframe = Timeframe.M1,
    groups: Iterable[str] = GROUPS,
    numbered: bool = True,
    revision: int = 0,
) -> CandleBatch:
    """Candles `first` .. of a series; the value of a float column tells its row. Numbers on the channel begin at 1."""
    index = np.arange(first, first + count)
    made: dict[str, Any] = {}
    for column in columns(list(groups)):
        if column.name in _IDENTITY:
            continue
        if column.dtype == "bool":
            made[column.name] = np.zeros(count, bool)
        elif column.dtype == "string":
            made[column.name] = np.array(["COMPLETE"] * count, dtype=object)
        elif column.dtype == "float64":
            made[column.name] = index + 0.5
        elif column.dtype == "int32":
            made[column.name] = np.full(count, revision, np.int32)
        else:
            made[column.name] = index.astype(np.int64)
    made["timestamp"] = START_US + index * timeframe.us
    made["timestamp_out"] = START_US + (index + 1) * timeframe.us + 500_000 + revision
    batch = CandleBatch(parse_instrument_key(instrument), timeframe, made, "1.0.0")
    return batch.numbered(index + 1) if numbered else batch

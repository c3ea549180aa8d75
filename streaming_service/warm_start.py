"""Stored candles for a start without a checkpoint: indicators are there from the first publication on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import numpy as np

from market_data_tick_handler.candle_input import candle_records
from market_data_tick_handler.core.features.contract import CANDLE
from market_data_tick_handler.core.instruments import InstrumentDefinition, InstrumentType
from market_data_tick_handler.core.ticks import Array
from market_data_tick_handler.core.timeframes import DAY_US, Timeframe, floor_us
from market_data_tick_handler.errors import DataError, NotFound
from market_data_tick_handler.storage.candle_files import read_candles
from market_data_tick_handler.storage.paths import CANDLES, CHAIN_CANDLES, day_of

# How many days of candles are read at most, unless fewer than the least number of candles fit into them.
_LOOK_BACK_DAYS: Final = 31
_LEAST_CANDLES: Final = 100
_PRICES: Final = ("open", "high", "low", "close")
_NOTHING_HAPPENED: Final = frozenset(
    {"trade_count", "volume", "quote_volume", "buy_volume_sum", "sell_volume_sum", "volume_delta"}
)


def stored_candles(
    store_root: str, instrument: InstrumentDefinition, timeframes: Sequence[Timeframe], now_us: int, *, limit: int
) -> dict[Timeframe, Array]:
    """Up to `limit` candles per timeframe that ended by `now_us`, as consecutive CANDLE records.

    Longer timeframes reach back 31 days, or 100 candles where those take longer. What is not stored in between, and up
    to now, is filled in as candles in which nothing happened: windows count candles (features.md 2.7).
    """
    found = {each: _read(store_root, instrument, each, now_us, limit) for each in timeframes} if limit else {}
    return {timeframe: records for timeframe, records in found.items() if len(records)}


def _read(store_root: str, instrument: InstrumentDefinition, timeframe: Timeframe, now_us: int, limit: int) -> Array:
    step = timeframe.us
    until_us = floor_us(now_us, step)
    wanted_days = -(-limit * step // DAY_US)
    least_days = -(-_LEAST_CANDLES * step // DAY_US)
    days = min(wanted_days, max(_LOOK_BACK_DAYS, least_days))
    table = CHAIN_CANDLES if instrument.instrument_type is InstrumentType.OPTION_CHAIN else CANDLES
    today = day_of(now_us)
    try:
        stored = read_candles(store_root, instrument.key, timeframe, today - timedelta(days), today, table=table)
        records = candle_records(stored)
    except (NotFound, DataError):
        # History is a help here, never a condition: what is wrong with it, the batch jobs report.
        return np.zeros(0, CANDLE)
    return _consecutive(records[records["timestamp"] < until_us], step, until_us, limit)


def _consecutive(records: Array, step: int, until_us: int, limit: int) -> Array:
    """The newest `limit` candles before `until_us`, holes filled."""
    if not len(records):
        return records
    first = max(int(records["timestamp"][0]), until_us - limit * step)
    opens = np.arange(first, until_us, step)
    before = np.searchsorted(records["timestamp"], opens, "right") - 1
    # A series cut at `limit` may begin in a hole.
    opens, before = opens[before >= 0], before[before >= 0]
    out = records[before].copy()
    filler = out["timestamp"] != opens
    out["timestamp"] = opens
    for name in CANDLE.names or ():
        if name in _PRICES:
            out[name][filler] = out["close"][filler]
        elif name in _NOTHING_HAPPENED:
            out[name][filler] = 0
        elif name != "timestamp":
            out[name][filler] = np.nan
    return out

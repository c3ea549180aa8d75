"""Candles for charts: a slow wave, with whatever a test wants to be wrong with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from market_data_tick_handler.charts import Chart, compose
from market_data_tick_handler.core.events import Gap, GapEnding, GapKind
from market_data_tick_handler.core.ticks import Array, DataType
from market_data_tick_handler.core.timeframes import SECOND_US, Timeframe

KEY = "BINANCE:SPOT_PAIR:BTC-USDT"
CHAIN = "DERIBIT:OPTION_CHAIN:BTC-USD"
START_US = 1_704_067_200 * SECOND_US  # 2024-01-01 00:00 UTC
M = 60 * SECOND_US


def columns(number: int, *, timeframe: Timeframe = Timeframe.M1, **changed: Array) -> dict[str, Array]:
    """Candle columns of `number` whole candles, with some of them changed."""
    place = np.arange(number)
    opened = 100.0 + np.sin(place / 9)
    close = np.append(opened[1:], 100.0)
    volume = 2.0 + np.cos(place / 5)
    made: dict[str, Array] = {
        "timestamp": START_US + place * timeframe.us,
        "open": opened,
        "high": np.maximum(opened, close) + 0.25,
        "low": np.minimum(opened, close) - 0.25,
        "close": close,
        "volume": volume,
        "buy_volume_sum": volume * 0.75,
        "sell_volume_sum": volume * 0.25,
        "trade_count": np.full(number, 8),
        "quality": np.array(["COMPLETE"] * number),
        "coverage": np.ones(number),
        "gap_ms": np.zeros(number, np.int64),
        "revision": np.zeros(number, np.int32),
        "order_flow_imbalance": np.full(number, 0.5),
        "rsi_14": np.where(place < 14, np.nan, 50.0 + 40.0 * np.sin(place / 7)),
        "spread_bps_tw": np.full(number, 1.5),
        "sma_20": np.where(place < 20, np.nan, 100.0),
    }
    return made | changed


def with_quality(number: int, told: Mapping[str, Sequence[int]], **changed: Array) -> dict[str, Array]:
    """Candle columns, the named places with that quality."""
    quality = np.array(["COMPLETE"] * number, dtype="U8")
    for name, places in told.items():
        quality[list(places)] = name
    return columns(number, quality=quality, **changed)


def gap(
    from_minute: float,
    to_minute: float,
    *,
    ending: GapEnding = GapEnding.OPEN,
    kind: GapKind = GapKind.OUTAGE,
    data_type: DataType = DataType.TRADES,
) -> Gap:
    """A gap between two minutes after the start."""
    from_us, to_us = (START_US + int(minute * M) for minute in (from_minute, to_minute))
    return Gap(KEY, data_type, from_us, to_us, "disconnect", kind, ending)


def chart(
    made: Mapping[str, Array],
    *,
    timeframe: Timeframe = Timeframe.M1,
    gaps: Sequence[Gap] = (),
    panes: Sequence[Sequence[str]] | None = None,
    key: str = KEY,
) -> Chart:
    """The chart of all of them."""
    times = made["timestamp"]
    return compose(
        key, timeframe, made, gaps=gaps, from_us=int(times[0]), to_us=int(times[-1]) + timeframe.us, panes=panes
    )


def troubled() -> Chart:
    """Two hours with every quality, revisions, gaps of every kind and a hole."""
    made = with_quality(
        120,
        {"GAPPED": range(20, 25), "REPAIRED": range(40, 46), "PARTIAL": (0, 119), "QUIET": (60, 61)},
        revision=np.isin(np.arange(120), (41, 42, 80)).astype(np.int32),
    )
    kept = np.r_[0:90, 100:120]
    gaps = [
        gap(20, 25),
        gap(40.5, 45.5, ending=GapEnding.REPAIRED),
        gap(-60, 0.2, kind=GapKind.NOT_RUNNING),
        gap(90, 100, kind=GapKind.NOT_RUNNING),
        gap(50, 51, data_type=DataType.BOOK),
    ]
    return chart({name: values[kept] for name, values in made.items()}, gaps=gaps)

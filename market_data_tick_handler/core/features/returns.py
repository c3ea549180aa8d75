"""Group `returns`: returns, candle geometry and flow ratios of closed candles (features.md 9.1, 9.2)."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy import int64

from market_data_tick_handler.core.features.contract import CandleGroup
from market_data_tick_handler.core.features.rolling import (
    BLOCK,
    keep_newest,
    kernel,
    null_unless_finite,
    publish,
    recall,
    window_sum,
)
from market_data_tick_handler.core.features.spreads import illiquidity
from market_data_tick_handler.core.ticks import Array
from market_data_tick_handler.core.timeframes import ALL_TIMEFRAMES, DAY_US

COLUMNS: Final = (
    *("close_to_close_return", "log_return", "open_to_close_return", "gap_return", "high_low_ratio"),
    *("close_location", "body_ratio", "upper_wick_ratio", "lower_wick_ratio"),
    *("cvd_session", "amihud_illiq", "price_impact"),
    *("order_flow_toxicity_20", "order_flow_imbalance_5", "order_flow_imbalance_10", "order_flow_imbalance_20"),
)

# The longest window is 20 candles, the current one included.
HISTORY: Final = 19
SIGNED, SIDED, TOXIC, VOLUME = range(4)
SERIES: Final = 4

MEMORY: Final = np.dtype(
    [("seen", "i8"), ("day", "i8"), ("cvd", "f8"), ("close", "f8"), ("history", "f8", (SERIES, HISTORY))]
)
OUT: Final = np.dtype([(name, "f8") for name in COLUMNS])


@kernel
def _returns(m: Any, c: Any, first: bool, o: Any) -> None:
    """Changes against the open and the previous close, alone and per million of quote volume."""
    o.close_to_close_return = np.nan if first else (c.close - m.close) / m.close
    o.log_return = np.nan if first else math.log(c.close / m.close)
    o.gap_return = np.nan if first else (c.open - m.close) / m.close
    o.open_to_close_return = (c.close - c.open) / c.open
    o.amihud_illiq = illiquidity(o.log_return, c.quote_volume)
    impact = 1e6 * (abs(c.close - c.open) / c.open)
    o.price_impact = impact / c.quote_volume if c.quote_volume != 0.0 else np.nan


@kernel
def _geometry(c: Any, o: Any) -> None:
    """Where open and close lie in the candle's range; 0 without a range."""
    o.high_low_ratio = c.high / c.low
    o.close_location, o.body_ratio, o.upper_wick_ratio, o.lower_wick_ratio = 0.0, 0.0, 0.0, 0.0
    span = c.high - c.low
    if span != 0.0:
        o.close_location = ((c.close - c.low) - (c.high - c.close)) / span
        o.body_ratio = (c.close - c.open) / span
        o.upper_wick_ratio = (c.high - max(c.open, c.close)) / span
        o.lower_wick_ratio = (min(c.open, c.close) - c.low) / span


@kernel
def _session(m: Any, c: Any, o: Any) -> None:
    """Cumulative volume delta since 00:00 UTC."""
    day = c.timestamp // DAY_US
    if day != m.day:
        m.day, m.cvd = day, 0.0
    m.cvd += c.volume_delta
    o.cvd_session = m.cvd


@kernel
def _ratio(above: Array, below: Array, width: int, seen: int, temp: Array, column: Array) -> None:
    """Sum of `above` over sum of `below` in each window; null where the latter is 0."""
    window_sum(above, width, temp[0])
    window_sum(below, width, temp[1])
    for k in range(column.size):
        temp[0, k] = temp[0, k] / temp[1, k] if temp[1, k] != 0.0 else np.nan
    publish(temp[0], seen, width - 1, column)


@kernel
def _finish(memory: Array, candles: Array, out: Array, values: Array) -> None:
    """`values` is `out` as a flat row of floats."""
    m = memory[0]
    for start in range(0, candles.size, BLOCK):
        size = min(BLOCK, candles.size - start)
        columns = out[start : start + size]
        work, temp = np.empty((SERIES, HISTORY + size)), np.empty((2, size))
        recall(m.history, work)
        for k in range(size):
            c, o, i = candles[start + k], columns[k], HISTORY + k
            _returns(m, c, m.seen + k == 0, o)
            _geometry(c, o)
            _session(m, c, o)
            m.close = c.close
            signed = c.buy_volume_sum - c.sell_volume_sum
            work[SIGNED, i], work[SIDED, i] = signed, c.buy_volume_sum + c.sell_volume_sum
            work[TOXIC, i], work[VOLUME, i] = abs(signed), c.volume
        _ratio(work[TOXIC], work[VOLUME], int64(20), m.seen, temp, columns["order_flow_toxicity_20"])
        _ratio(work[SIGNED], work[SIDED], int64(5), m.seen, temp, columns["order_flow_imbalance_5"])
        _ratio(work[SIGNED], work[SIDED], int64(10), m.seen, temp, columns["order_flow_imbalance_10"])
        _ratio(work[SIGNED], work[SIDED], int64(20), m.seen, temp, columns["order_flow_imbalance_20"])
        keep_newest(work, m.history)
        m.seen += size
    null_unless_finite(values)


class Returns:
    """The candle group `returns`."""

    __slots__ = ()
    name: str = "returns"
    timeframes = ALL_TIMEFRAMES
    columns: tuple[str, ...] = COLUMNS
    MEMORY = MEMORY
    OUT = OUT

    def finish(self, memory: Array, candles: Array, step_us: int, out: Array) -> None:
        """See `CandleGroup.finish`; `step_us` plays no part. `out` must be contiguous."""
        _finish(memory, candles, out, out.view(np.float64))


GROUP: Final[CandleGroup] = Returns()

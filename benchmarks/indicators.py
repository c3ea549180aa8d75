"""Indicators over a million candles next to TA-Lib in the same run, and one closed candle at a time.

TA-Lib is optional (`pip install TA-Lib`); without it only our own numbers are there. A group computes all its columns
in one call, so its own line gives the mean per column; the lines before it time the kernels of single columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any

import numpy as np
from numpy import int64

from benchmarks import indicator_columns as columns
from benchmarks import indicator_windows as windows
from benchmarks.measure import medians
from benchmarks.results import Result
from market_data_tick_handler.core.features import indicators, mft, returns
from market_data_tick_handler.core.features.contract import CANDLE, CandleGroup
from market_data_tick_handler.core.ticks import Array

GOAL_RATIO = 3.0
GOAL_CANDLE_US = 20.0
MINUTE_US = 60_000_000


def candles(size: int) -> Array:
    """A random walk with every field that the groups read."""
    random = np.random.default_rng(7)
    out = np.zeros(size, CANDLE)
    out["timestamp"] = 1_704_067_200_000_000 + MINUTE_US * np.arange(size)
    close = 40_000.0 * np.exp(np.cumsum(random.normal(0.0, 5e-4, size)))
    out["close"], out["open"] = close, np.concatenate([close[:1], close[:-1]])
    out["high"] = np.maximum(out["open"], close) * (1.0 + 2e-4 * random.random(size))
    out["low"] = np.minimum(out["open"], close) * (1.0 - 2e-4 * random.random(size))
    volume = random.lognormal(size=size)
    out["volume"], out["vwap_base_volume"], out["quote_volume"], out["price_vwap"] = (
        volume,
        volume,
        volume * close,
        close,
    )
    out["buy_volume_sum"] = volume * random.random(size)
    out["sell_volume_sum"] = volume - out["buy_volume_sum"]
    out["volume_delta"] = out["buy_volume_sum"] - out["sell_volume_sum"]
    out["signed_sqrt_notional"], out["trade_count"] = random.normal(size=size), 1
    for name in ("rv_1s", "jump_1s", "funding_rate", "basis_bps_tw"):
        out[name] = random.random(size)
    return out


def single_columns(rows: Array, talib: Any) -> Mapping[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """Ours and TA-Lib's, by the name of our columns."""
    high, low, close, volume = (np.ascontiguousarray(rows[name]) for name in ("high", "low", "close", "volume"))

    def all_directions() -> None:
        talib.PLUS_DI(high, low, close, 14)
        talib.MINUS_DI(high, low, close, 14)
        talib.ADX(high, low, close, 14)

    return {
        "sma_5": (lambda: columns.mean(close, int64(5)), lambda: talib.SMA(close, 5)),
        "sma_20": (lambda: columns.mean(close, int64(20)), lambda: talib.SMA(close, 20)),
        "sma_50": (lambda: columns.mean(close, int64(50)), lambda: talib.SMA(close, 50)),
        "sma_200": (lambda: columns.mean(close, int64(200)), lambda: talib.SMA(close, 200)),
        "wma_5": (lambda: columns.weighted(close), lambda: talib.WMA(close, 5)),
        "ema_20": (lambda: columns.exponential(close, int64(20)), lambda: talib.EMA(close, 20)),
        "rsi_14": (lambda: columns.strength(close, int64(14)), lambda: talib.RSI(close, 14)),
        "bollinger_*": (lambda: columns.bands(close, int64(20)), lambda: talib.BBANDS(close, 20)),
        "macd*": (lambda: columns.convergence(close), lambda: talib.MACD(close)),
        "price_momentum_5": (lambda: columns.change(close, int64(5)), lambda: talib.ROCP(close, 5)),
        "true_range": (lambda: columns.ranges(high, low, close), lambda: talib.TRANGE(high, low, close)),
        "atr_14": (lambda: columns.average_range(high, low, close), lambda: talib.ATR(high, low, close, 14)),
        "*_di_14, adx_14": (lambda: columns.directional(high, low, close), all_directions),
        "donchian_high_20": (lambda: windows.highest(high, int64(20)), lambda: talib.MAX(high, 20)),
        "donchian_low_20": (lambda: windows.lowest(low, int64(20)), lambda: talib.MIN(low, 20)),
        "stoch_k_14, stoch_d_3": (
            lambda: windows.stochastic(high, low, close),
            lambda: talib.STOCHF(high, low, close, 14, 3),
        ),
        "williams_r_14": (lambda: windows.williams(high, low, close), lambda: talib.WILLR(high, low, close, 14)),
        "cci_20": (lambda: windows.channel_index(high, low, close), lambda: talib.CCI(high, low, close, 20)),
        "mfi_14": (
            lambda: windows.money_flow(high, low, close, volume),
            lambda: talib.MFI(high, low, close, volume, 14),
        ),
        "obv_session": (lambda: windows.on_balance(close, volume), lambda: talib.OBV(close, volume)),
        "aroon_*_25": (lambda: windows.aroon(high, low), lambda: talib.AROON(high, low, 25)),
        "linreg_slope_20": (lambda: columns.slope(close), lambda: talib.LINEARREG_SLOPE(close, 20)),
    }


def whole(group: CandleGroup, rows: Array) -> Callable[[], None]:
    """All columns of the group over all candles."""
    out = np.empty(len(rows), group.OUT)
    return lambda: group.finish(np.zeros(1, group.MEMORY), rows, MINUTE_US, out)


def one_by_one(groups: tuple[CandleGroup, ...], rows: Array) -> Callable[[], None]:
    """The groups for one closed candle after the other."""
    outs = [np.empty(1, group.OUT) for group in groups]
    memories = [np.zeros(1, group.MEMORY) for group in groups]

    def run() -> None:
        for index in range(len(rows)):
            for group, memory, out in zip(groups, memories, outs, strict=True):
                group.finish(memory, rows[index : index + 1], MINUTE_US, out)

    return run


def run(quick: bool) -> Iterator[Result]:
    """Ratios to TA-Lib, the groups as a whole, and one candle at a time."""
    size, repeats = (200_000, 3) if quick else (1_000_000, 7)
    rows = candles(size)
    try:
        talib: Any = import_module("talib")
    except ImportError:
        yield Result(benchmark="indicators", what="single columns", measured="needs TA-Lib to compare with")
    else:
        for name, (own, peer) in single_columns(rows, talib).items():
            seconds = medians({"own": own, "peer": peer}, repeats)
            ratio = seconds["own"] / seconds["peer"]
            yield Result(
                benchmark="indicators",
                what=name,
                measured=f"{seconds['own'] / size * 1e9:.2f} ns a candle",
                against=f"TA-Lib {seconds['peer'] / size * 1e9:.2f} ns",
                ratio=ratio,
                goal=f"<= {GOAL_RATIO:.0f}",
                ok=ratio <= GOAL_RATIO,
            )
    for group in (returns.GROUP, indicators.GROUP, mft.GROUP):
        seconds = medians({"": whole(group, rows)}, repeats)
        each = seconds[""] / size * 1e9 / len(group.columns)
        measured = f"{seconds[''] / size * 1e9:.0f} ns a candle, {each:.1f} ns a column"
        yield Result(
            benchmark="indicators", what=f"group {group.name}, {len(group.columns)} columns", measured=measured
        )
    few = rows[:5_000]
    for what, groups in (("returns, indicators", (returns.GROUP, indicators.GROUP)), ("mft", (mft.GROUP,))):
        per_candle_us = medians({"": one_by_one(groups, few)}, repeats)[""] / len(few) * 1e6
        goal = groups[0] is returns.GROUP
        yield Result(
            benchmark="indicators",
            what=f"one closed candle: {what}",
            measured=f"{per_candle_us:.1f} us",
            goal=f"<= {GOAL_CANDLE_US:.0f} us" if goal else "",
            ok=per_candle_us <= GOAL_CANDLE_US if goal else None,
        )

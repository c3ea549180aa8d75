"""What the declared null rules say about a candle, for those that can be checked from the published columns."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

Columns = Mapping[str, np.ndarray]
Rule = Callable[[Columns], np.ndarray]

NEVER: Final = re.compile(r"never( \(0\))?|first candle ever → 0|before first trade ever \(row not emitted\)|as open")
WARM_UP: Final = re.compile(r"(first|warm-up) (\d+)( candles)?(;.*)?")

# Null exactly where this holds.
EXACT: Final[Mapping[str, Rule]] = {
    "i=0": lambda c: c["warmup_bars"] == 1,
    "empty": lambda c: c["trade_count"] == 0,
    "empty candle": lambda c: c["trade_count"] == 0,
    "volume=0": lambda c: c["volume"] == 0.0,
    "quote_volume=0": lambda c: c["quote_volume"] == 0.0,
    "i=0 or quote_volume=0": lambda c: (c["warmup_bars"] == 1) | (c["quote_volume"] == 0.0),
    "no buys": lambda c: c["buy_count"] == 0,
    "no sells": lambda c: c["sell_count"] == 0,
    "no buys or no sells": lambda c: (c["buy_count"] == 0) | (c["sell_count"] == 0),
    "B+S=0": lambda c: c["buy_count"] + c["sell_count"] == 0,
    "no signed trades": lambda c: c["buy_count"] + c["sell_count"] == 0,
    "n<2": lambda c: c["trade_count"] < 2,
    "up+down=0": lambda c: c["tick_up_count"] + c["tick_down_count"] == 0,
}


def must_be_null(rule: str, columns: Columns) -> np.ndarray:
    """Candles in which the rule demands null; nowhere for a rule that cannot be checked."""
    warm_up = WARM_UP.fullmatch(rule)
    if warm_up:
        bars = int(warm_up[2]) - (warm_up[1] == "warm-up")
        return np.asarray(columns["warmup_bars"] <= bars)
    if rule in EXACT:
        return np.asarray(EXACT[rule](columns))
    return np.zeros(len(columns["timestamp"]), bool)


def may_be_null(rule: str, columns: Columns) -> np.ndarray:
    """Candles in which the rule allows null; all of them for a rule that cannot be checked."""
    warm_up = WARM_UP.fullmatch(rule)
    if NEVER.fullmatch(rule):
        return np.zeros(len(columns["timestamp"]), bool)
    if rule in EXACT or (warm_up and not warm_up[4]):
        return must_be_null(rule, columns)
    return np.ones(len(columns["timestamp"]), bool)

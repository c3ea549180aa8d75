"""A coarser candle is what its ticks give: per column by its roll-up code."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from market_data_tick_handler.core.features.column import Column
from market_data_tick_handler.core.timeframes import Timeframe
from tests.conformance.runs import is_null, replay, rolled
from tests.conformance.streams import CASES, MINUTE_US, case, registered

# Of a day of history, which one pipeline holds.
ONE_DAY = tuple(name for name in CASES if name != "midnight" and "chain" not in name)
SKETCH_ERROR = 1 / 256
IN_ORDER = ("future",)
# Defined anew at each timeframe: lateness against the candle's own end, open interest over the candle.
OWN = ("SELF", "RECOMP", "const", "WORST", "SUM of 1m")
FOLDS: dict[str, Callable[[np.ndarray], float]] = {
    "SUM": lambda values: sum(values.tolist()[1:], values.tolist()[0]),
    "MIN": min,
    "MAX": max,
    "FIRST": lambda values: values[0],
    "LAST": lambda values: values[-1],
    "ASOF": lambda values: values[-1],
}


def from_ticks(member: Column) -> bool:
    computed = not member.rollup.startswith(OWN) and not member.name.startswith("late_")
    return computed and Timeframe.S15 in member.timeframes


@pytest.mark.parametrize("member", [*filter(from_ticks, registered())], ids=lambda member: member.name)
def test_a_minute_folded_from_its_quarters_is_the_minute_folded_from_ticks(member: Column) -> None:
    for name in ONE_DAY:
        direct, folded, held = rolled(name)
        if member.name not in direct or member.name not in folded:
            continue
        want, got = direct[member.name], folded[member.name]
        if want.dtype.kind == "U":
            continue
        if member.rollup == "SKETCH":
            # The exact median of an even number lies between two values, of which a sketch gives one.
            odd = held[member.name] % 2 == 1
            odd[0] = False
            chosen = odd if "median" in member.name else ~is_null(want)
            assert np.array_equal(is_null(want), is_null(got))
            off = np.abs(got[chosen] - want[chosen])
            assert (off <= SKETCH_ERROR * np.abs(want[chosen]) + 1e-12).all(), name
        elif "lower bound" in member.rollup:
            # Rows that arrive out of order can make a run of a quarter longer than any of the minute.
            assert name not in IN_ORDER or (got <= want).all(), name
        else:
            np.testing.assert_allclose(got, want, rtol=1e-9, atol=member.atol, err_msg=name)


@pytest.mark.parametrize(
    "member", [member for member in registered() if member.rollup in FOLDS], ids=lambda member: member.name
)
def test_a_candle_is_the_fold_of_its_minutes(member: Column) -> None:
    for name in CASES:
        if member.name in replay(name).final[Timeframe.M1].columns:
            assert_folds(member, name)


def assert_folds(member: Column, name: str) -> None:
    """Every candle of up to three coarser timeframes whose minutes are all there."""
    minutes = replay(name).final[Timeframe.M1]
    for timeframe in [found for found in case(name).options.timeframes if found.us > MINUTE_US][:3]:
        candles = replay(name).final[timeframe]
        parents = minutes["timestamp"] // timeframe.us * timeframe.us
        known = ~is_null(minutes[member.name])
        if member.rollup in ("FIRST", "LAST") and member.group == "ohlcv":
            known &= minutes["trade_count"] > 0
        for index, t0 in enumerate(candles["timestamp"].tolist()):
            mine = parents == t0
            # States begin before the first trade, from which on there are minutes.
            if mine.sum() * MINUTE_US < timeframe.us or member.name == "timestamp":
                continue
            values = minutes[member.name][mine if member.rollup == "ASOF" else mine & known]
            got = candles[member.name][index]
            if not len(values):
                assert is_null(candles[member.name])[index]
            elif values.dtype.kind == "U":
                assert got == FOLDS[member.rollup](values)
            else:
                np.testing.assert_allclose(got, FOLDS[member.rollup](values), rtol=1e-12, atol=0.0, err_msg=timeframe)

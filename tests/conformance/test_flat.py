"""A market in which nothing changes reads neutral in every registered column."""

from __future__ import annotations

import numpy as np
import pytest

from market_data_tick_handler.core.features.column import Column
from market_data_tick_handler.core.timeframes import Timeframe
from tests.conformance.runs import flat_run, is_null
from tests.conformance.streams import flat, registered

# features.md section 3 (d), by the beginning of the name.
NEUTRAL = {
    **{"rsi_": 50.0, "mfi_": 50.0, "stoch_": 50.0, "williams_r_": -50.0, "bollinger_position": 0.5},
    **{"donchian_position_": 0.5, "efficiency_ratio_": 0.0, "cci_": 0.0, "adx_": 0.0, "plus_di_": 0.0},
    **{"minus_di_": 0.0, "close_location": 0.0, "body_ratio": 0.0, "upper_wick_ratio": 0.0, "lower_wick_ratio": 0.0},
}
# Changes with time alone: sums of the session, and what counts candles or the time to an event.
TIMED = {"timestamp", "timestamp_out", "warmup_bars", "revision", "time_to_funding_s"}
# Fades for ever once nothing trades.
FADING = {"volume_ema_5"}
here = pytest.mark.parametrize(
    "member",
    [member for member in registered() if flat(False).has(member) and member.rollup != "const"],
    ids=lambda member: member.name,
)
each_flavour = pytest.mark.parametrize("quiet", [False, True], ids=["flat", "quiet"])


def column(member: Column, quiet: bool) -> np.ndarray:
    """Values of the last half hour before the last candle, which the end of the stream cuts short."""
    return flat_run(quiet).final[Timeframe.M1][member.name][-31:-1]


@each_flavour
@here
def test_a_column_stands_still(member: Column, quiet: bool) -> None:
    values = column(member, quiet)
    if member.name in TIMED or member.scope == "S" or (quiet and member.name in FADING):
        return
    assert len({None if value != value else value for value in values.tolist()}) == 1


@each_flavour
@here
def test_a_bounded_oscillator_takes_its_neutral_value(member: Column, quiet: bool) -> None:
    for prefix, value in NEUTRAL.items():
        if member.name.startswith(prefix):
            assert set(column(member, quiet).tolist()) == {value}


@each_flavour
@here
def test_nothing_that_measures_change_shows_any(member: Column, quiet: bool) -> None:
    """Returns, deviations, variances and slopes are 0 or null."""
    moving = member.unit in ("fraction²", "fraction⁴", "quote/base per s", "quote/base per s²", "quote/base per candle")
    moving |= member.unit == "fraction" and member.group in ("returns", "indicators", "mft")
    if moving:
        values = column(member, quiet)
        assert set(values[~is_null(values)].tolist()) <= {0.0}

"""What people mean by instruments and times, against what is stored."""

from __future__ import annotations

from datetime import date

import pytest

from market_data_tick_handler.commands.plot_selection import (
    Bounds,
    Range,
    days_of,
    listing,
    the_only_instrument,
    timeframes_of,
)
from market_data_tick_handler.commands.stored_candles import CandleFile
from market_data_tick_handler.core.timeframes import DAY_US, SECOND_US, Timeframe
from market_data_tick_handler.errors import ConfigError, NotFound

BTC, ETH = "BINANCE:SPOT_PAIR:BTC-USDT", "BINANCE:SPOT_PAIR:ETH-USDT"
FIRST, SECOND = date(2024, 1, 1), date(2024, 1, 2)
START_US = 1_704_067_200 * SECOND_US
H = 3_600 * SECOND_US
STORED = {
    CandleFile(BTC, Timeframe.M1, FIRST),
    CandleFile(BTC, Timeframe.M1, SECOND),
    CandleFile(BTC, Timeframe.S15, SECOND),
    CandleFile(ETH, Timeframe.M1, FIRST),
}


@pytest.mark.parametrize(
    ("bounds", "from_us", "to_us"),
    [
        (Bounds(), START_US + DAY_US, START_US + 2 * DAY_US),
        (Bounds(start_date="2024-01-01"), START_US, START_US + DAY_US),
        (Bounds(end_date="2024-01-01"), START_US, START_US + DAY_US),
        (Bounds(start_date="2024-01-01", end_date="2024-01-02"), START_US, START_US + 2 * DAY_US),
        (Bounds(start="2024-01-01T10:30", end="2024-01-01T12:00:00"), START_US + 21 * H // 2, START_US + 12 * H),
        (Bounds(start="2024-01-01 10:00"), START_US + 10 * H, START_US + DAY_US),
        (Bounds(start="2024-01-01T10:00+02:00", end_date="2024-01-02"), START_US + 8 * H, START_US + 2 * DAY_US),
        (Bounds(end="2024-01-02T00:00"), START_US, START_US + DAY_US),
        (Bounds(end="2024-01-02T06:00Z"), START_US + DAY_US, START_US + 30 * H),
    ],
)
def test_days_are_included_and_times_are_utc_with_an_open_end(bounds: Bounds, from_us: int, to_us: int) -> None:
    assert bounds.range_of([FIRST, SECOND]) == Range(from_us, to_us)


@pytest.mark.parametrize(
    "bounds",
    [
        Bounds(start="yesterday"),
        Bounds(start_date="01.02.2024"),
        Bounds(start="2024-01-01T10:00", start_date="2024-01-01"),
        Bounds(end="2024-01-01T10:00", end_date="2024-01-01"),
        Bounds(start_date="2024-01-02", end_date="2024-01-01"),
        Bounds(start="2024-01-01T10:00", end="2024-01-01T10:00"),
    ],
)
def test_a_range_that_cannot_be_is_a_configuration_error(bounds: Bounds) -> None:
    with pytest.raises(ConfigError):
        bounds.range_of([FIRST])


def test_a_range_names_files_by_days_or_by_times() -> None:
    assert Range(START_US, START_US + DAY_US).name == "2024-01-01"
    assert Range(START_US, START_US + 2 * DAY_US).name == "2024-01-01_2024-01-02"
    assert Range(START_US + H, START_US + 2 * H).name == "2024-01-01T010000_2024-01-01T020000"


def test_without_a_name_the_only_instrument_is_meant_and_of_several_none() -> None:
    only = {file for file in STORED if file.instrument == BTC}
    assert the_only_instrument(only) == [BTC]
    with pytest.raises(ConfigError, match=ETH):
        the_only_instrument(STORED)


def test_a_minute_is_the_default_timeframe() -> None:
    assert timeframes_of([]) == [Timeframe.M1]
    assert timeframes_of(["1D", "15s", "24h"]) == [Timeframe.H24, Timeframe.S15]


def test_what_is_not_stored_is_answered_by_what_is() -> None:
    assert days_of(STORED, BTC, Timeframe.M1) == [FIRST, SECOND]
    with pytest.raises(
        NotFound, match=r"BTC-USDT  15s 1m  2024-01-01 to 2024-01-02, 2 days\n  .*ETH-USDT  1m  2024-01-01$"
    ):
        days_of(STORED, ETH, Timeframe.H1)


def test_a_long_list_is_cut_and_says_so() -> None:
    many = [CandleFile(f"BINANCE:SPOT_PAIR:A{number:02}-USDT", Timeframe.M1, FIRST) for number in range(25)]
    assert listing(many).splitlines()[-1].strip() == "and 5 more instruments"

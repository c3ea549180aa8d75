"""Object paths: exactly the documented ones, both ways."""

from __future__ import annotations

from datetime import date

import pytest

from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.core.timeframes import DAY_US, Timeframe
from market_data_tick_handler.errors import DataError
from market_data_tick_handler.storage import paths

DAY = date(2024, 8, 8)
KEY = "BINANCE:SPOT_PAIR:BTC-USDT"
DOCUMENTED = [
    (paths.instruments_path(DAY), "instrument_availability/by_date/day-2024-08-08/instruments.parquet"),
    (
        paths.raw_ticks_path(DAY, DataType.BOOK, KEY),
        f"raw_tick_data/by_date/day-2024-08-08/data_type-book_snapshot_5/{KEY}.parquet",
    ),
    (
        paths.candles_path(DAY, Timeframe.M1, KEY),
        f"processed_candles/by_date/day-2024-08-08/timeframe-1m/{KEY}.parquet",
    ),
    (
        paths.candles_path(DAY, Timeframe.H4, KEY, table=paths.BOOK_CANDLES),
        f"processed_book_snapshots/by_date/day-2024-08-08/timeframe-4h/{KEY}.parquet",
    ),
    (
        paths.per_snapshot_path(DAY, KEY),
        f"processed_book_snapshots/by_date/day-2024-08-08/timeframe-tick/{KEY}.parquet",
    ),
    (paths.gap_ledger_path(DAY, KEY), f"gap_ledger/by_date/day-2024-08-08/{KEY}.parquet"),
    (paths.checkpoint_path(DAY, KEY), f"checkpoints/by_date/day-2024-08-08/{KEY}.bin"),
]


@pytest.mark.parametrize(("made", "documented"), DOCUMENTED)
def test_paths_are_the_documented_ones(made: str, documented: str) -> None:
    assert made == documented


@pytest.mark.parametrize("path", [documented for _, documented in DOCUMENTED])
def test_a_path_says_its_parts_and_is_made_from_them_again(path: str) -> None:
    assert str(paths.parse_path(path)) == path
    assert paths.parse_path(f"/some/root/{path}") == paths.parse_path(path)


@pytest.mark.parametrize(
    "path", ["x.parquet", "raw_tick_data/by_date/day-2024-13-08/x.parquet", "t/by_date/day-1/x.parquet"]
)
def test_other_paths_are_refused_with_the_expected_form(path: str) -> None:
    with pytest.raises(DataError, match="by_date/day-YYYY-MM-DD"):
        paths.parse_path(path)


def test_days_are_utc_and_half_open() -> None:
    start = paths.day_start_us(DAY)
    assert paths.day_of(start) == paths.day_of(start + DAY_US - 1) == DAY
    assert paths.day_of(start - 1) == date(2024, 8, 7)
    assert paths.days_between(date(2024, 2, 28), date(2024, 3, 1)) == [
        date(2024, 2, 28),
        date(2024, 2, 29),
        date(2024, 3, 1),
    ]

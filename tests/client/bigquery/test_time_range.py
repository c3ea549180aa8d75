"""Both ends of a range belong to it."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pandas as pd
import pytest

from market_data_tick_handler.client.time_range import TimeRange, parse_range, to_datetime
from market_data_tick_handler.errors import ConfigError

DAY_US = 86_400_000_000
FIRST = 1_704_067_200_000_000  # 2024-01-01


def test_days_are_whole() -> None:
    """The last day ends with its last microsecond; text, dates and their mixture mean the same."""
    whole = TimeRange(FIRST, FIRST + 2 * DAY_US)
    assert parse_range("2024-01-01", "2024-01-02") == whole
    assert parse_range(date(2024, 1, 1), date(2024, 1, 2)) == whole
    assert parse_range("2024-01-01", date(2024, 1, 2)) == whole
    assert parse_range("2024-01-01", "2024-01-01") == TimeRange(FIRST, FIRST + DAY_US)


@pytest.mark.parametrize(
    "noon",
    [
        "2024-01-01T12:00",
        "2024-01-01T12:00:00Z",
        "2024-01-01 14:00:00+02:00",
        datetime(2024, 1, 1, 12),
        datetime(2024, 1, 1, 12, tzinfo=UTC),
        datetime(2024, 1, 1, 14, tzinfo=timezone(timedelta(hours=2))),
        pd.Timestamp("2024-01-01T12:00", tz="UTC"),
    ],
)
def test_times_are_the_microsecond(noon: str | datetime) -> None:
    """Without a zone a time is UTC; the end is included, and nothing after it."""
    at_us = FIRST + DAY_US // 2
    assert parse_range(noon, noon) == TimeRange(at_us, at_us + 1)
    assert to_datetime(at_us) == datetime(2024, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("start", "end", "told"),
    [
        ("2024-01-02", "2024-01-01", "end_date: expected an end"),
        ("yesterday", "2024-01-01", "start_date: expected a day"),
        (20240101, "2024-01-01", "got int"),
    ],
)
def test_what_is_no_range_is_said(start: str, end: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        parse_range(start, end)

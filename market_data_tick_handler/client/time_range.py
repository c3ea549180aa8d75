"""From and to, as people write them, as microseconds."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Final, NamedTuple

from market_data_tick_handler.errors import ConfigError

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_DAY_US: Final = 86_400_000_000


class TimeRange(NamedTuple):
    """[first_us, until_us), microseconds UTC."""

    first_us: int
    until_us: int


def parse_range(start: str | date | datetime, end: str | date | datetime) -> TimeRange:
    """Both ends belong to it: the whole of a day, the very microsecond of a datetime. Without a zone it is UTC.

    start, end: dates, datetimes, or ISO 8601 text of either.

    Raises:
        ConfigError: neither a day nor a time; or the end is before the start.
    """
    (first_us, _), (_, until_us) = _span(start, "start_date"), _span(end, "end_date")
    if until_us <= first_us:
        raise ConfigError(f"expected an end that is not before the start, got {start} .. {end}", key="end_date")
    return TimeRange(first_us, until_us)


def _span(given: str | date | datetime, key: str) -> tuple[int, int]:
    """First microsecond, and the one after the last."""
    value = _parsed(given, key) if isinstance(given, str) else given
    if isinstance(value, datetime):
        at = value.replace(tzinfo=UTC) if value.tzinfo is None else value
        at_us = (at - _EPOCH) // _MICROSECOND
        return at_us, at_us + 1
    if isinstance(value, date):
        day_us = (datetime(value.year, value.month, value.day, tzinfo=UTC) - _EPOCH) // _MICROSECOND
        return day_us, day_us + _DAY_US
    raise ConfigError(f"expected a date or datetime, got {type(given).__name__}", key=key)


def _parsed(text: str, key: str) -> date | datetime:
    try:
        return date.fromisoformat(text.strip())
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text.strip())
    except ValueError:
        raise ConfigError(
            f"expected a day or a time in ISO 8601, got {text!r}", key=key, hint="for example 2024-01-31"
        ) from None


def to_datetime(at_us: int) -> datetime:
    """Microseconds UTC as a datetime."""
    return _EPOCH + timedelta(microseconds=at_us)

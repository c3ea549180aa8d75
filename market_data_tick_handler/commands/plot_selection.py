"""Which stored candles a person means: instruments, timeframes and the range, against what is there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

from market_data_tick_handler.commands.stored_candles import CandleFile
from market_data_tick_handler.core.timeframes import Timeframe, parse_timeframe
from market_data_tick_handler.errors import ConfigError, DataError, NotFound
from market_data_tick_handler.storage.paths import day_of, day_start_us, parse_day

_LISTED: Final = 20
_DAY: Final = timedelta(days=1)
_DEFAULT_TIMEFRAME: Final = Timeframe.M1


@dataclass(frozen=True, slots=True)
class Range:
    """Candles that open in [from_us, to_us)."""

    from_us: int
    to_us: int

    @property
    def first_day(self) -> date:
        """The first day that is touched."""
        return day_of(self.from_us)

    @property
    def last_day(self) -> date:
        """The last one."""
        return day_of(self.to_us - 1)

    @property
    def name(self) -> str:
        """For names of files: days where it consists of days."""
        if self.from_us == day_start_us(self.first_day) and self.to_us == day_start_us(self.last_day + _DAY):
            days = dict.fromkeys((str(self.first_day), str(self.last_day)))
            return "_".join(days)
        return "_".join(
            datetime.fromtimestamp(time_us // 1_000_000, UTC).strftime("%Y-%m-%dT%H%M%S")
            for time_us in (self.from_us, self.to_us)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What was said of the range: whole days, included, or times of which the end is not."""

    start_date: str | None = None
    end_date: str | None = None
    start: str | None = None
    end: str | None = None

    def range_of(self, days: Sequence[date]) -> Range:
        """The range that is meant where candles of `days` are stored: without a start the day of the end, without
        both the newest day; without an end the day of the start.

        Raises:
            ConfigError: a text is no day or time, one side is given twice, or the end is not after the start.
        """
        start_us = _one("--start", self.start, "--start-date", self.start_date, days_later=0)
        end_us = _one("--end", self.end, "--end-date", self.end_date, days_later=1)
        if start_us is None:
            start_us = day_start_us(max(days) if end_us is None else day_of(end_us - 1))
        if end_us is None:
            end_us = day_start_us(day_of(start_us) + _DAY)
        if end_us <= start_us:
            raise ConfigError("expected an end after the start, came one before it", key="--end, --end-date")
        return Range(start_us, end_us)


def the_only_instrument(files: Iterable[CandleFile]) -> list[str]:
    """Key of what is stored, if that is one instrument.

    Raises:
        ConfigError: there are several.
    """
    stored = sorted({file.instrument for file in files})
    if len(stored) > 1:
        raise ConfigError("expected one of the instruments that are stored:\n" + listing(files), key="--instrument")
    return stored


def timeframes_of(names: Sequence[str]) -> list[Timeframe]:
    """Timeframes that were asked for; 1m where none was.

    Raises:
        ConfigError: there is no such timeframe.
    """
    return list(dict.fromkeys(parse_timeframe(name) for name in names)) or [_DEFAULT_TIMEFRAME]


def days_of(files: Iterable[CandleFile], instrument: str, timeframe: Timeframe) -> list[date]:
    """Days of which candles are stored.

    Raises:
        NotFound: none is; the message lists what is.
    """
    kept = list(files)
    days = sorted(file.day for file in kept if (file.instrument, file.timeframe) == (instrument, timeframe))
    if not days:
        raise NotFound(f"no {timeframe} candles of {instrument} are stored; there are:\n{listing(kept)}")
    return days


def listing(files: Iterable[CandleFile]) -> str:
    """What is stored, a line per instrument: timeframes and days."""
    return "\n".join(_lines(list(files)))


def _lines(files: Sequence[CandleFile]) -> Iterator[str]:
    instruments = sorted({file.instrument for file in files})
    for instrument in instruments[:_LISTED]:
        own = [file for file in files if file.instrument == instrument]
        timeframes = {file.timeframe for file in own}
        days = sorted({file.day for file in own})
        span = str(days[0]) if len(days) == 1 else f"{days[0]} to {days[-1]}, {len(days)} days"
        yield f"  {instrument}  {' '.join(each for each in Timeframe if each in timeframes)}  {span}"
    if len(instruments) > _LISTED:
        yield f"  and {len(instruments) - _LISTED} more instruments"


def _one(time_name: str, time: str | None, day_name: str, day: str | None, *, days_later: int) -> int | None:
    if time is not None and day is not None:
        raise ConfigError(f"expected {time_name} or {day_name}, came both", key=time_name)
    if day is not None:
        try:
            return day_start_us(parse_day(day) + days_later * _DAY)
        except DataError as error:
            raise ConfigError(str(error), key=day_name) from None
    return None if time is None else _time_us(time_name, time)


def _time_us(name: str, text: str) -> int:
    try:
        told = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"expected a time such as 2024-01-01T12:30, UTC; came {text!r}", key=name) from None
    told = told.replace(tzinfo=UTC) if told.tzinfo is None else told.astimezone(UTC)
    return (told - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)

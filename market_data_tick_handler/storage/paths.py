"""Object paths, both ways: the only place that knows how stored files are named."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.core.timeframes import DAY_US, Timeframe
from market_data_tick_handler.errors import DataError

RAW_TICKS: Final = "raw_tick_data"
CANDLES: Final = "processed_candles"
BOOK_CANDLES: Final = "processed_book_snapshots"
CHAIN_CANDLES: Final = "processed_options_chain"
GAP_LEDGER: Final = "gap_ledger"
CHECKPOINTS: Final = "checkpoints"
AVAILABILITY: Final = "instrument_availability"
# Stands where a candle file names its timeframe.
PER_TICK: Final = "tick"

_EPOCH: Final = date(1970, 1, 1)
_PATH: Final = re.compile(
    r"(?:.*/)?(?P<table>[a-z_]+)/by_date/day-(?P<day>\d{4}-\d{2}-\d{2})/"
    r"(?:data_type-(?P<type>[a-z0-9_]+)/|timeframe-(?P<timeframe>[a-z0-9]+)/)?(?P<name>[^/]+)\.(?P<suffix>[a-z0-9]+)"
)


@dataclass(frozen=True, slots=True)
class ObjectPath:
    """What a path says. `name` is the instrument key, or the file's own name where a table has no instruments.
    per_tick: one row per tick, where other files of the table have one per candle."""

    table: str
    day: date
    name: str
    data_type: DataType | None = None
    timeframe: Timeframe | None = None
    suffix: str = "parquet"
    per_tick: bool = False

    def __str__(self) -> str:
        kind = f"data_type-{self.data_type}/" if self.data_type else ""
        steps = PER_TICK if self.per_tick else self.timeframe
        length = f"timeframe-{steps}/" if steps else ""
        return f"{self.table}/by_date/day-{self.day.isoformat()}/{kind}{length}{self.name}.{self.suffix}"


def parse_path(path: str) -> ObjectPath:
    """The parts of a path, relative to a store or not.

    Raises:
        DataError: not a path of the documented layout.
    """
    match = _PATH.fullmatch(path.replace("\\", "/"))
    try:
        if match is None:
            raise ValueError
        return ObjectPath(
            table=match["table"],
            day=date.fromisoformat(match["day"]),
            name=match["name"],
            data_type=DataType(match["type"]) if match["type"] else None,
            timeframe=Timeframe(match["timeframe"]) if match["timeframe"] not in (None, PER_TICK) else None,
            suffix=match["suffix"],
            per_tick=match["timeframe"] == PER_TICK,
        )
    except ValueError:
        raise DataError(
            f"{path}: expected TABLE/by_date/day-YYYY-MM-DD/[data_type-TYPE/|timeframe-TF/]NAME.parquet; rename it"
        ) from None


def raw_ticks_path(day: date, data_type: DataType, instrument_key: str) -> str:
    """`raw_tick_data/by_date/day-{date}/data_type-{type}/{instrument_key}.parquet`"""
    return str(ObjectPath(RAW_TICKS, day, instrument_key, data_type=data_type))


def candles_path(day: date, timeframe: Timeframe, instrument_key: str, *, table: str = CANDLES) -> str:
    """`processed_candles/by_date/day-{date}/timeframe-{tf}/{instrument_key}.parquet`"""
    return str(ObjectPath(table, day, instrument_key, timeframe=timeframe))


def per_snapshot_path(day: date, instrument_key: str) -> str:
    """`processed_book_snapshots/by_date/day-{date}/timeframe-tick/{instrument_key}.parquet`"""
    return str(ObjectPath(BOOK_CANDLES, day, instrument_key, per_tick=True))


def gap_ledger_path(day: date, instrument_key: str) -> str:
    """`gap_ledger/by_date/day-{date}/{instrument_key}.parquet`"""
    return str(ObjectPath(GAP_LEDGER, day, instrument_key))


def checkpoint_path(day: date, instrument_key: str) -> str:
    """`checkpoints/by_date/day-{date}/{instrument_key}.bin`"""
    return str(ObjectPath(CHECKPOINTS, day, instrument_key, suffix="bin"))


def instruments_path(day: date) -> str:
    """`instrument_availability/by_date/day-{date}/instruments.parquet`"""
    return str(ObjectPath(AVAILABILITY, day, "instruments"))


def day_prefix(table: str, day: date) -> str:
    """Prefix of everything a table has for one day."""
    return f"{table}/by_date/day-{day.isoformat()}/"


def day_of(time_us: int) -> date:
    """UTC day of a time."""
    return _EPOCH + timedelta(days=time_us // DAY_US)


def day_start_us(day: date) -> int:
    """First microsecond of a UTC day."""
    return (day - _EPOCH).days * DAY_US


def days_between(first: date, last: date) -> list[date]:
    """Every day from first to last, both included."""
    return [first + timedelta(days=offset) for offset in range((last - first).days + 1)]


def parse_day(text: str) -> date:
    """Day of `YYYY-MM-DD`.

    Raises:
        DataError: not such a text.
    """
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).date()
    except ValueError:
        raise DataError(f"expected a day YYYY-MM-DD, got {text!r}") from None

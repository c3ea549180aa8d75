"""The names of all channels, streams and keys that candles travel on; written here and nowhere else.

| name | what it is |
|---|---|
| `candles:{key}:{timeframe}` | stream of the final candles of a series, and pub/sub channel of the same messages |
| `candles:{key}:{timeframe}:open` | pub/sub channel of the candle in progress |
| `candle:last:{key}:{timeframe}` | the newest final candle |
| `marks:{key}` | pub/sub channel of watermarks, and the newest one |
| `marks:service:{name}` | pub/sub channel of interval markers, and the newest one |

`{key}` is the canonical instrument key. Over a WebSocket the channels have the same names: `/ws?channels=`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from market_data_tick_handler.core.timeframes import Timeframe, parse_timeframe
from market_data_tick_handler.errors import SchemaMismatch

_CANDLES: Final = "candles:"
_OPEN: Final = ":open"
_MARKS: Final = "marks:"
_SERVICE_MARKS: Final = "marks:service:"
_SERVICE_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")


def candles(key: str, timeframe: Timeframe) -> str:
    """Stream and channel of the final candles of an instrument and timeframe."""
    return f"{_CANDLES}{key}:{timeframe.value}"


def open_candles(key: str, timeframe: Timeframe) -> str:
    """Channel of the candle in progress."""
    return f"{_CANDLES}{key}:{timeframe.value}{_OPEN}"


def last_candle(key: str, timeframe: Timeframe) -> str:
    """Key of the newest final candle."""
    return f"candle:last:{key}:{timeframe.value}"


def watermarks(key: str) -> str:
    """Channel, and key of the newest value, of how far an instrument has got."""
    return f"{_MARKS}{key}"


def interval_marks(service: str) -> str:
    """Channel, and key of the newest value, of the intervals a service has completed."""
    return f"{_SERVICE_MARKS}{service}"


def is_of_marks(name: str) -> bool:
    """Whether it is a channel of marks, or a pattern of such."""
    return name.startswith(_MARKS)


def parse_mark_channel(name: str) -> str:
    """The instrument key of `marks:{key}`; empty for `marks:service:{name}`.

    Raises:
        SchemaMismatch: not such a name.
    """
    if name.startswith(_SERVICE_MARKS) and _SERVICE_NAME.fullmatch(name.removeprefix(_SERVICE_MARKS)):
        return ""
    key = name.removeprefix(_MARKS)
    if not is_of_marks(name) or key.count(":") != 2:
        raise SchemaMismatch(f"expected marks:VENUE:TYPE:SYMBOL or marks:service:NAME; got {name!r}")
    return key


@dataclass(frozen=True, slots=True)
class CandleChannel:
    """What the name of a channel of candles says. `is_open`: it is that of candles in progress."""

    key: str
    timeframe: Timeframe
    is_open: bool = False

    @property
    def name(self) -> str:
        """The name itself."""
        return open_candles(self.key, self.timeframe) if self.is_open else candles(self.key, self.timeframe)


def parse_candle_channel(name: str) -> CandleChannel:
    """The parts of `candles:{key}:{timeframe}` or `candles:{key}:{timeframe}:open`.

    Raises:
        SchemaMismatch: not such a name.
        ConfigError: an unknown timeframe.
    """
    is_open = name.endswith(_OPEN)
    key, _, timeframe = name.removesuffix(_OPEN).removeprefix(_CANDLES).rpartition(":")
    if not name.startswith(_CANDLES) or key.count(":") != 2:
        raise SchemaMismatch(f"expected candles:VENUE:TYPE:SYMBOL:TIMEFRAME, with :open behind it or not; got {name!r}")
    return CandleChannel(key, parse_timeframe(timeframe), is_open)

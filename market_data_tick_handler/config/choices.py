"""The words that settings accept where only certain ones make sense, in any case."""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class Choice(StrEnum):
    """One of a few words; `Redis` is understood as `redis`."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        text = str(value).strip().lower()
        return next((member for member in cls if member.value.lower() == text), None)


class Mode(Choice):
    """What a stream does: candles to other programs, candles to storage, raw ticks to storage."""

    SERVE = "serve"
    PERSIST = "persist"
    TICKS = "ticks"


class SourceName(Choice):
    """Where the rows of a data type come from."""

    TARDIS_REALTIME = "tardis_realtime"
    EXCHANGE = "exchange"
    TARDIS_REPLAY = "tardis_replay"
    FILES = "files"
    SIMULATED = "simulated"
    TRADE_TRANSFORMATION = "trade_transformation"


class Transport(Choice):
    """How candles reach other programs."""

    MEMORY = "memory"
    WEBSOCKET = "websocket"
    REDIS = "redis"


class Target(Choice):
    """Where candles are kept."""

    PARQUET = "parquet"
    BIGQUERY = "bigquery"


class PartitionType(Choice):
    """Partition lengths that BigQuery knows; there is no shorter one."""

    HOUR = "HOUR"
    DAY = "DAY"
    MONTH = "MONTH"
    YEAR = "YEAR"


class FeatureGroup(Choice):
    """A set of candle columns that is computed, or not, as a whole."""

    OHLCV = "ohlcv"
    FLOW = "flow"
    DELAYS = "delays"
    RETURNS = "returns"
    INDICATORS = "indicators"
    BOOK = "book"
    BOOK_DELAYS = "book_delays"
    SPREAD = "spread"
    DERIVATIVES = "derivatives"
    LIQUIDATIONS = "liquidations"
    DERIVATIVE_RATIOS = "derivative_ratios"
    OPTIONS = "options"
    MFT = "mft"


class LogLevel(Choice):
    """Weight of a log line."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(Choice):
    """Shape of a log line."""

    AUTO = "auto"
    TEXT = "text"
    JSON = "json"

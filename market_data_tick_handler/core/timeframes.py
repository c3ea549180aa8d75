"""UTC-midnight-aligned candle boundaries: the only place where candle lengths are written."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from market_data_tick_handler.errors import ConfigError

SECOND_US: Final = 1_000_000
DAY_US: Final = 86_400 * SECOND_US

# The time integrals are split at this grain in every run, whatever timeframes it publishes, so that the
# pieces added up, and with them the bits, never depend on the configuration.
BORDER_US: Final = 15 * SECOND_US


class Timeframe(StrEnum):
    """A candle length. The value is the name users write."""

    S15 = "15s"
    M1 = "1m"
    M5 = "5m"
    M15 = "15m"
    H1 = "1h"
    H4 = "4h"
    H24 = "24h"

    @property
    def seconds(self) -> int:
        """Length in seconds."""
        return _SECONDS[self]

    @property
    def us(self) -> int:
        """Length in microseconds."""
        return _SECONDS[self] * SECOND_US

    @property
    def from_ticks(self) -> bool:
        """True for 15s and 1m; the others are left folds of 1m bins (features.md section 8)."""
        return self in (Timeframe.S15, Timeframe.M1)


_SECONDS: Final = {
    Timeframe.S15: 15,
    Timeframe.M1: 60,
    Timeframe.M5: 300,
    Timeframe.M15: 900,
    Timeframe.H1: 3_600,
    Timeframe.H4: 14_400,
    Timeframe.H24: 86_400,
}
ALL_TIMEFRAMES: Final = tuple(Timeframe)
_ALIASES: Final = {"1d": "24h", "60s": "1m", "60m": "1h", "240m": "4h", "15sec": "15s"}


def parse_timeframe(text: str) -> Timeframe:
    """Timeframe named by `text` in any case; `1d` is accepted for 24h.

    Raises:
        ConfigError: the name is unknown; the message lists the known ones.
    """
    name = text.strip().lower()
    try:
        return Timeframe(_ALIASES.get(name, name))
    except ValueError:
        known = " ".join(ALL_TIMEFRAMES)
        raise ConfigError(f"unknown timeframe {text!r}, expected one of: {known}", key="timeframes") from None


def floor_us(time_us: int, step_us: int) -> int:
    """The last boundary at or before `time_us`; epoch 0 is a UTC midnight, so every step dividing a day is aligned."""
    return time_us - time_us % step_us


def ceil_us(time_us: int, step_us: int) -> int:
    """The first boundary at or after `time_us`."""
    return -(-time_us // step_us) * step_us

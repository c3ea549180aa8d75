"""Which module implements which feature group, in computing order. A new group is one more name here."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Final, cast

from market_data_tick_handler.core.features.contract import CandleGroup, TickGroup
from market_data_tick_handler.errors import ConfigError

_PACKAGE: Final = "market_data_tick_handler.core.features"
TICK_GROUPS: Final = ("ohlcv", "flow", "delays")
CANDLE_GROUPS: Final = ("returns", "indicators")


def select(names: Sequence[str]) -> tuple[list[TickGroup], list[CandleGroup]]:
    """The groups named, in computing order. `ohlcv` is always there: every other group rests on it.

    Raises:
        ConfigError: a name is unknown.
    """
    unknown = sorted(set(names) - {"identity", *TICK_GROUPS, *CANDLE_GROUPS})
    if unknown:
        known = " ".join(("identity", *TICK_GROUPS, *CANDLE_GROUPS))
        raise ConfigError(f"unknown feature groups {unknown}, expected some of: {known}", key="features.groups")
    ticks = [name for name in TICK_GROUPS if name == "ohlcv" or name in names]
    candles = [name for name in CANDLE_GROUPS if name in names]
    return [cast(TickGroup, _load(name)) for name in ticks], [cast(CandleGroup, _load(name)) for name in candles]


def _load(name: str) -> object:
    return import_module(f"{_PACKAGE}.{name}").GROUP

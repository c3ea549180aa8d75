"""Which module implements which feature group, in computing order. A new group is one more name here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Final, cast

from market_data_tick_handler.core.features.contract import CandleGroup, TickGroup
from market_data_tick_handler.core.instruments import InstrumentType, data_types_for
from market_data_tick_handler.errors import ConfigError

_PACKAGE: Final = "market_data_tick_handler.core.features"
TICK_GROUPS: Final = (
    "ohlcv",
    "flow",
    "delays",
    "derivatives",
    "liquidations",
    "spread",
    "book_delays",
    "book",
    "options",
)
CANDLE_GROUPS: Final = ("returns", "indicators", "derivative_ratios", "mft")
# What every instrument with trades needs, and what a chain of options has instead.
BASE: Final = "ohlcv"
CHAIN: Final = "options"


@dataclass(frozen=True, slots=True)
class Selection:
    """The groups of one pipeline in computing order; `absent` names those whose feed the instrument does not have."""

    ticks: tuple[TickGroup, ...]
    candles: tuple[CandleGroup, ...]
    absent: tuple[str, ...]


def select(names: Sequence[str], instrument_type: InstrumentType) -> Selection:
    """The groups named that apply to the instrument. `ohlcv` is always there where there are trades: every other group
    rests on it. An option chain has rows of its own and nothing but its own group.

    Raises:
        ConfigError: a name is unknown.
    """
    unknown = sorted(set(names) - {"identity", *TICK_GROUPS, *CANDLE_GROUPS})
    if unknown:
        known = " ".join(("identity", *TICK_GROUPS, *CANDLE_GROUPS))
        raise ConfigError(f"unknown feature groups {unknown}, expected some of: {known}", key="features.groups")
    if instrument_type is InstrumentType.OPTION_CHAIN:
        return Selection((_tick_group(CHAIN),) if CHAIN in names else (), (), ())
    have = set(data_types_for(instrument_type))
    wanted = [_tick_group(name) for name in TICK_GROUPS if name == BASE or (name in names and name != CHAIN)]
    ticks = tuple(group for group in wanted if have.issuperset(group.inputs))
    candles = candle_groups(names)
    return Selection(ticks, candles, tuple(group.name for group in wanted if group not in ticks))


def candle_groups(names: Sequence[str]) -> tuple[CandleGroup, ...]:
    """Those of the groups named that read closed candles, in computing order."""
    return tuple(cast(CandleGroup, _load(name)) for name in CANDLE_GROUPS if name in names)


def _tick_group(name: str) -> TickGroup:
    return cast(TickGroup, _load(name))


def _load(name: str) -> object:
    return import_module(f"{_PACKAGE}.{name}").GROUP

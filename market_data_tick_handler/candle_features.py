"""Candle groups outside a pipeline: which ones, their memories, and the features of one candle."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from market_data_tick_handler.core.features.contract import CANDLE, CandleGroup
from market_data_tick_handler.core.features.groups import candle_groups
from market_data_tick_handler.core.ticks import Array
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.errors import ConfigError

Features = dict[str, float | None]
Memories = tuple[Array, ...]


def chosen_groups(names: Sequence[str], timeframe: Timeframe) -> tuple[CandleGroup, ...]:
    """The candle groups named, in computing order.

    Raises:
        ConfigError: a name is no candle group, or the group does not exist at the timeframe.
    """
    groups = candle_groups(names)
    unknown = sorted(set(names) - {group.name for group in groups})
    if unknown:
        raise ConfigError(f"expected candle groups, came {unknown}; the others need ticks", key="groups")
    missing = [group.name for group in groups if timeframe not in group.timeframes]
    if missing:
        raise ConfigError(f"expected groups that exist at {timeframe}, came {missing}; use 1m or more", key="groups")
    return groups


def snapshot_layout(groups: Sequence[CandleGroup]) -> str:
    """Snapshots hold raw records: another layout cannot be read and says so."""
    layout = [CANDLE.descr, *((group.name, group.MEMORY.descr) for group in groups)]
    return hashlib.sha256(repr(layout).encode()).hexdigest()[:16]


def cold_memories(groups: Sequence[CandleGroup]) -> Memories:
    """What the groups remember before the first candle."""
    return tuple(np.zeros(1, group.MEMORY) for group in groups)


def copied(memories: Memories) -> Memories:
    """An independent copy."""
    return tuple(memory.copy() for memory in memories)


def loaded_memories(groups: Sequence[CandleGroup], body: bytes, at: int) -> Memories:
    """The memories that lie one behind the other in `body`, from `at` on."""
    out = []
    for group in groups:
        out.append(np.frombuffer(body, group.MEMORY, 1, at).copy())
        at += group.MEMORY.itemsize
    return tuple(out)


def features_of(groups: Sequence[CandleGroup], memories: Memories, candle: Array, step_us: int) -> Features:
    """Features of one candle; `memories` move on."""
    features: Features = {}
    for group, memory in zip(groups, memories, strict=True):
        out = np.empty(1, group.OUT)
        group.finish(memory, candle, step_us, out)
        for name, value in zip(group.columns, out[0].item(), strict=True):
            features[name] = value if value == value else None
    return features

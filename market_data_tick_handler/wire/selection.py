"""Which columns are published, and where each of them stands in a message."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING, Final, get_args

from market_data_tick_handler.core.features.column import Column, Tier
from market_data_tick_handler.core.features.registry import IDENTITY, columns, group_names
from market_data_tick_handler.errors import ConfigError

if TYPE_CHECKING:
    from market_data_tick_handler.core.ticks import Array

# What every candle has at its top level, in this order, whatever columns are selected; all others are `hft_features`.
OHLCV: Final = ("open", "high", "low", "close", "volume", "quote_volume", "trade_count", "price_vwap")
CONSTANTS: Final = ("instrument_id", "exchange", "symbol", "timeframe", "feature_version")
_TIERS: Final = get_args(Tier)
_ALL: Final = "all"
DEFAULT_COLUMNS: Final = ("core",)


@lru_cache(maxsize=1)
def top_level_columns() -> tuple[str, ...]:
    """Columns that stand beside `hft_features`: which candle it is, how whole it is, its publication, and OHLCV."""
    return (*(member.name for member in columns(()) if member.group == IDENTITY), *OHLCV)


def check_columns(names: Sequence[str]) -> None:
    """Check the words of `serve.columns`: names of columns, of groups, of tiers (core, ext, opt), or `all`.

    Raises:
        ConfigError: a word is none of these, or there is none.
    """
    known = {_ALL, *_TIERS, *group_names(), *(member.name for member in columns())}
    unknown = sorted(set(names) - known)
    if unknown or not names:
        raise ConfigError(
            f"expected names of columns, groups ({' '.join(group_names())}), tiers ({' '.join(_TIERS)}) or `all`; got "
            f"{' '.join(unknown) or 'nothing'}",
            key="serve.columns",
            hint="docs/reference/columns.md lists the columns",
        )


def selected_features(names: Sequence[str]) -> tuple[str, ...]:
    """The columns under `hft_features` that `names` select, in published order.

    Raises:
        ConfigError: as in `check_columns`.
    """
    check_columns(names)
    words = frozenset(names)
    top = frozenset(top_level_columns())
    return tuple(member.name for member in columns() if member.name not in top and _wanted(member, words))


def _wanted(member: Column, words: frozenset[str]) -> bool:
    return not words.isdisjoint((_ALL, member.tier, member.group, member.name))


@dataclass(frozen=True, slots=True)
class Layout:
    """How a batch with certain columns becomes messages.

    top, features: the names that have an array, top level first. absent: features that are null in every row.
    whole: places, in `top + features`, of whole numbers that may be null, which travel as floats inside.
    pick: the arrays of `top + features` out of the columns of a batch.
    """

    top: tuple[str, ...]
    features: tuple[str, ...]
    absent: tuple[str, ...]
    whole: tuple[int, ...]
    pick: Callable[[Mapping[str, Array]], Sequence[Array]]


@lru_cache(maxsize=256)
def make_layout(selected: tuple[str, ...], present: tuple[str, ...], absent: tuple[str, ...]) -> Layout:
    """The layout of batches that have the columns `present`, and `absent` in every row."""
    here, nowhere = frozenset(present), frozenset(absent)
    top = tuple(name for name in top_level_columns() if name in here)
    features = tuple(name for name in selected if name in here)
    whole = frozenset(
        member.name for member in columns() if member.nullable and member.dtype.startswith(("int", "timestamp"))
    )
    return Layout(
        top,
        features,
        tuple(name for name in selected if name in nowhere),
        tuple(place for place, name in enumerate((*top, *features)) if name in whole),
        _picker((*top, *features)),
    )


def _picker(names: tuple[str, ...]) -> Callable[[Mapping[str, Array]], Sequence[Array]]:
    # Three times as fast as a comprehension, but of one name it returns no tuple.
    return itemgetter(*names) if len(names) > 1 else lambda present: [present[name] for name in names]

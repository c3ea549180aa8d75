"""Which columns are published, and which of them stand at the top level of a message."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, get_args

from market_data_tick_handler.core.features.column import Column, Tier
from market_data_tick_handler.core.features.registry import IDENTITY, columns, group_names
from market_data_tick_handler.errors import ConfigError

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

"""Which columns share a pane, and which lie over the price."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Final

import numpy as np

from market_data_tick_handler.charts.chart import Candles, Line, Pane
from market_data_tick_handler.core.features.registry import column, columns
from market_data_tick_handler.core.ticks import Array
from market_data_tick_handler.errors import ConfigError

MOST_PANES: Final = 12
# What is shown where nothing was asked for: the first column of each list that has values.
_OF_CANDLES: Final = (
    (("order_flow_imbalance",), ("depth_imbalance_5_tw", "queue_imbalance_tw")),
    (("spread_bps_tw", "spread_bps", "effective_spread_bps"),),
    (("rsi_14", "rsi_5"),),
)
_OF_CHAINS: Final = (
    (("atm_iv_front",), ("atm_iv_7d",), ("atm_iv_30d",), ("atm_iv_90d",)),
    (("risk_reversal_25d_front",), ("butterfly_25d_front",)),
    (("put_call_oi_ratio",),),
    (("oi_weighted_iv",),),
)
_PRICE_UNIT: Final = "quote/base"
_SIGNED_SHARE: Final = "[-1,1]"
_PER_CENT: Final = "0..100"
_RSI_GUIDES: Final = (30.0, 70.0)


def default_columns(values: Mapping[str, Array], *, has_prices: bool) -> list[list[str]]:
    """The panes that are shown by default, as names of columns that have values."""
    chosen = []
    for pane in _OF_CANDLES if has_prices else _OF_CHAINS:
        names = [next((name for name in options if _has_values(values, name)), None) for options in pane]
        if found := [name for name in names if name is not None]:
            chosen.append(found)
    return chosen


def wanted_columns(texts: Sequence[str]) -> list[list[str]]:
    """Panes as people name them: one per text, whose columns are joined by `+`.

    Raises:
        ConfigError: a name is no column with numbers, or there are too many panes.
    """
    panes = [[name.strip().lower() for name in text.split("+") if name.strip()] for text in texts]
    for name in (name for pane in panes for name in pane):
        _check(name)
    if len(panes) > MOST_PANES:
        raise ConfigError(
            f"expected {MOST_PANES} panes at most, came {len(panes)}", key="--columns", hint="join with +"
        )
    return [pane for pane in panes if pane]


def needed_columns() -> list[str]:
    """Every column that may be shown by default."""
    return [name for pane in (*_OF_CANDLES, *_OF_CHAINS) for options in pane for name in options]


def lines_and_panes(
    names: Sequence[Sequence[str]], values: Mapping[str, Array], time: Array, step_us: int, candles: Candles | None
) -> tuple[tuple[Line, ...], tuple[Pane, ...], list[str]]:
    """(lines over the price, panes below it, columns without a value); lines break where candles are absent."""
    overlays: list[Line] = []
    panes: list[Pane] = []
    empty = [name for pane in names for name in pane if not _has_values(values, name)]
    for pane in names:
        lines = [_line(name, values, time, step_us) for name in pane if name not in empty]
        over = [line for line in lines if candles is not None and _is_price(line, candles)]
        below = tuple(line for line in lines if line not in over)
        overlays += over
        if below:
            panes.append(_pane(below))
    return tuple(overlays), tuple(panes), empty


def _check(name: str) -> None:
    try:
        dtype = column(name).dtype
    except KeyError:
        near = get_close_matches(name, [member.name for member in columns()], n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "docs/reference/columns.md lists them"
        raise ConfigError(f"expected names of columns, came {name!r}", key="--columns", hint=hint) from None
    if dtype == "string":
        raise ConfigError(f"expected columns of numbers, {name!r} is text", key="--columns")


def _has_values(values: Mapping[str, Array], name: str) -> bool:
    return name in values and bool(np.isfinite(values[name].astype(np.float64)).any())


def _line(name: str, values: Mapping[str, Array], time: Array, step_us: int) -> Line:
    numbers = values[name].astype(np.float64)
    last = np.flatnonzero(np.diff(time) > step_us)
    shown = np.insert(np.where(np.isfinite(numbers), numbers, np.nan), last + 1, np.nan)
    return Line(name, column(name).unit, np.insert(time, last + 1, time[last] + step_us), shown)


def _is_price(line: Line, candles: Candles) -> bool:
    """Moving averages lie over the candles; spreads and ranges have the same unit and do not."""
    middle = float(np.nanmedian(line.values))
    return line.unit == _PRICE_UNIT and bool(np.nanmin(candles.low) / 2 < middle < 2 * np.nanmax(candles.high))


def _pane(lines: tuple[Line, ...]) -> Pane:
    units = {line.unit for line in lines}
    if units == {_PER_CENT}:
        return Pane(lines, (0.0, 100.0), _RSI_GUIDES)
    extremes: list[Callable[[Array], Array]] = [np.nanmin, np.nanmax]
    lowest, highest = (float(extreme(np.array([extreme(line.values) for line in lines]))) for extreme in extremes)
    signed = units == {_SIGNED_SHARE} or lowest < 0 < highest
    return Pane(lines, None, (0.0,) if signed else ())

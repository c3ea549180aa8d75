"""Fewer marks than candles: neighbours merged into longer ones, lines into means, and the reader told."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, Final

import numpy as np

from market_data_tick_handler.charts.chart import Candles, Chart, Line, length_text
from market_data_tick_handler.core.ticks import Array
from market_data_tick_handler.core.timeframes import DAY_US, SECOND_US

# Lengths that people read at a glance; all of them divide a day.
_LENGTHS_US: Final = tuple(
    seconds * SECOND_US for seconds in (30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 14_400, 28_800, 43_200, 86_400)
)
_REDUCE: Final[dict[str, Any]] = {
    "high": np.fmax,
    "low": np.fmin,
    "volume": np.add,
    "buy": np.add,
    "sell": np.add,
    "trades": np.add,
    # Codes are in order of badness: a merged candle is as bad as the worst in it.
    "quality": np.maximum,
    "gap_ms": np.add,
    "revision": np.maximum,
    "members": np.add,
}


def thinned(chart: Chart, *, most: int) -> Chart:
    """`chart` with at most `most` candles, and points per line; its notes say what was done.

    A merged candle has the first open, the last close, the extremes, the sums, and the worst quality of its members. A
    line has the means over the same times, with their extremes.
    """
    if chart.stored <= most:
        return chart
    times = chart.candles.time if chart.candles is not None else _times(chart)
    drawn_us = _drawn_length(times, chart.step_us, most)
    candles = _merged(chart.candles, drawn_us) if chart.candles is not None else None
    note = (
        f"{chart.stored:,} candles of {chart.timeframe} are drawn as {_buckets(times, drawn_us):,} of "
        f"{length_text(drawn_us)}, each as bad as the worst in it; lines are means within a band from the lowest to "
        "the highest value; a shorter range shows every candle"
    )
    return replace(
        chart,
        candles=candles,
        drawn_us=drawn_us,
        overlays=tuple(_averaged(line, drawn_us) for line in chart.overlays),
        panes=tuple(
            replace(pane, lines=tuple(_averaged(line, drawn_us) for line in pane.lines)) for pane in chart.panes
        ),
    ).noted([note])


def _times(chart: Chart) -> Array:
    """Of what has lines only; without lines there is nothing to thin."""
    lines = [line.time for pane in chart.panes for line in pane.lines]
    return np.concatenate(lines) if lines else np.array([chart.from_us])


def _drawn_length(times: Array, step_us: int, most: int) -> int:
    for length_us in _LENGTHS_US:
        if length_us % step_us == 0 and length_us > step_us and _buckets(times, length_us) <= most:
            return length_us
    days = 2
    while _buckets(times, days * DAY_US) > most:
        days *= 2
    return days * DAY_US


def _buckets(times: Array, length_us: int) -> int:
    return len(np.unique(times // length_us))


def _merged(candles: Candles, length_us: int) -> Candles:
    """Candles of `length_us` in place of their members."""
    buckets = candles.time // length_us
    starts = np.flatnonzero(np.append(True, buckets[1:] != buckets[:-1]))
    ends = np.append(starts[1:], len(buckets)) - 1
    members = ends - starts + 1
    merged: dict[str, Array] = {
        "time": buckets[starts] * length_us,
        "open": candles.open[starts],
        "close": candles.close[ends],
        "coverage": np.add.reduceat(candles.coverage, starts) / members,
    }
    for name, function in _REDUCE.items():
        merged[name] = function.reduceat(getattr(candles, name), starts)
    return Candles(**{field.name: merged[field.name] for field in fields(Candles)})


def _averaged(line: Line, length_us: int) -> Line:
    """Means of the finite values within each length of time, with a break where there is none."""
    finite = np.isfinite(line.values)
    values, buckets = line.values[finite], line.time[finite] // length_us
    starts = np.flatnonzero(np.append(True, buckets[1:] != buckets[:-1]))
    time = buckets[starts] * length_us
    means = np.add.reduceat(values, starts) / np.diff(np.append(starts, len(values)))
    last = np.flatnonzero(np.diff(time) > length_us)

    def broken(column: Array) -> Array:
        return np.insert(column, last + 1, np.nan)

    return Line(
        line.name,
        line.unit,
        np.insert(time, last + 1, time[last] + length_us),
        broken(means),
        broken(np.minimum.reduceat(values, starts)),
        broken(np.maximum.reduceat(values, starts)),
    )

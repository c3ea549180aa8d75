"""A chart as a figure of plotly.js: plain traces and layout, colours by name (`@up`, `@gapped/0.2`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from market_data_tick_handler.charts.chart import (
    HOLLOW,
    QUALITIES,
    SPAN_TEXTS,
    Candles,
    Chart,
    Line,
    SpanKind,
    quality_name,
    share_text,
)
from market_data_tick_handler.charts.layout import RIBBON_PX, Tree, layout, pane_axis
from market_data_tick_handler.charts.palette import LINE_COLOURS, SPAN_COLOURS
from market_data_tick_handler.core.quality import COMPLETE, QUIET
from market_data_tick_handler.core.ticks import Array


def figure(chart: Chart) -> Tree:
    """`data` and `layout` of the chart."""
    traces = [*_candle_traces(chart), *_span_legend(chart), *_lines(chart)]
    return {"data": traces, "layout": layout(chart)}


def _milliseconds(times: Array) -> Array:
    return np.asarray(times // 1000)


def _period(chart: Chart) -> Tree:
    """Marks stand in the middle of the time they stand for, and are named by its beginning."""
    return {"xperiod": chart.drawn_us // 1000, "xperiod0": 0, "xperiodalignment": "middle"}


def _candle_traces(chart: Chart) -> Iterator[Tree]:
    candles = chart.candles
    if candles is None:
        return
    counts, texts = candles.counts(), _hover_texts(candles)
    for code in QUALITIES:
        if not counts[code]:
            continue
        name = quality_name(code)
        chosen = np.flatnonzero(candles.quality == code)
        yield {
            "type": "candlestick",
            "name": f"{name.capitalize()} ({counts[code]:,})",
            "legendgroup": name,
            "x": _milliseconds(candles.time[chosen]),
            **_period(chart),
            **{side: getattr(candles, side)[chosen] for side in ("open", "high", "low", "close")},
            "hovertext": [texts[at] for at in chosen.tolist()],
            "hoverinfo": "text",
            "whiskerwidth": 0,
            **_bodies(code),
        }
        yield _ribbon(chart, candles, code, name)
    if candles.revised:
        yield _revised(chart, candles)
    yield from _volumes(chart, candles)


def _bodies(code: int) -> Tree:
    """Body by direction, outline by quality."""
    out: Tree = {}
    for side, colour in (("increasing", "@up"), ("decreasing", "@down")):
        edge = colour if code == COMPLETE else f"@{quality_name(code).lower()}"
        fill = "@panel" if code in HOLLOW else edge if code == QUIET else colour
        out[side] = {"line": {"color": edge, "width": 1 if code == COMPLETE else 1.4}, "fillcolor": fill}
    return out


def _ribbon(chart: Chart, candles: Candles, code: int, name: str) -> Tree:
    """Runs of one quality as segments of a line below the price."""
    runs = [(start // 1000, end // 1000) for each, start, end in candles.runs(chart.drawn_us) if each == code]
    x = [time for start, end in runs for time in (start, end, None)]
    return {
        "type": "scatter",
        "mode": "lines",
        "legendgroup": name,
        "showlegend": False,
        "hoverinfo": "skip",
        "yaxis": "y2",
        "x": x,
        "y": [None if at is None else 0.5 for at in x],
        "line": {"color": f"@{name.lower()}" + ("/0.45" if code == COMPLETE else ""), "width": RIBBON_PX / 2 - 1},
    }


def _revised(chart: Chart, candles: Candles) -> Tree:
    chosen = candles.time[candles.revision > 0]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": f"Revised ({candles.revised:,})",
        "yaxis": "y2",
        "x": _milliseconds(chosen),
        **_period(chart),
        "y": [-0.6] * len(chosen),
        "hoverinfo": "skip",
        "marker": {"symbol": "triangle-up", "size": 6, "color": "@revised"},
    }


def _volumes(chart: Chart, candles: Candles) -> Iterator[Tree]:
    parts = (
        ("Bought", candles.buy, "@up/0.7"),
        ("Sold", candles.sell, "@down/0.7"),
        ("No side", candles.other, "@quiet/0.7"),
    )
    for name, values, colour in parts:
        if name == "No side" and not (values > np.nanmax(candles.volume) * 1e-9).any():
            continue
        yield {
            "type": "bar",
            "name": name,
            "showlegend": False,
            "yaxis": "y3",
            "x": _milliseconds(candles.time),
            **_period(chart),
            "y": values,
            "hoverinfo": "skip",
            "marker": {"color": colour, "line": {"width": 0}},
        }


def _hover_texts(candles: Candles) -> list[str]:
    digits = candles.decimals
    columns = (
        candles.open, candles.high, candles.low, candles.close, candles.volume, candles.buy,
        candles.sell, candles.trades, candles.quality, candles.coverage, candles.revision,
    )  # fmt: skip
    return [_hover_text(row, digits) for row in zip(*(column.tolist() for column in columns), strict=True)]


def _hover_text(row: tuple[Any, ...], digits: int) -> str:
    opened, high, low, close, volume, buy, sell, trades, quality, coverage, revision = row
    prices = " ".join(
        f"{name} {value:,.{digits}f}" for name, value in zip("OHLC", (opened, high, low, close), strict=True)
    )
    state = (
        quality_name(quality)
        + (f" {share_text(coverage)}" if coverage < 1 else "")
        + (f" r{revision}" if revision else "")
    )
    return f"{prices}<br>volume {volume:,.6g} (bought {buy:,.6g}, sold {sell:,.6g})<br>{trades:,} trades · {state}"


def _span_legend(chart: Chart) -> Iterator[Tree]:
    """Shapes have no entry of their own in the legend that every version draws alike."""
    for kind in SpanKind:
        spans = [span for span in chart.spans if span.kind is kind]
        if spans:
            colour, opacity = SPAN_COLOURS[kind]
            yield {
                "type": "scatter",
                "mode": "markers",
                "name": f"{SPAN_TEXTS[kind].capitalize()} ({sum(span.gaps for span in spans):,})",
                "x": [None],
                "y": [None],
                "hoverinfo": "skip",
                "meta": {"spans": str(kind)},
                "marker": {
                    "symbol": "square",
                    "size": 12,
                    "color": f"@{colour}/{min(1.0, opacity * 2)}",
                    "line": {"color": f"@{colour}", "width": 1},
                },
            }


def _lines(chart: Chart) -> Iterator[Tree]:
    for number, line in enumerate(chart.overlays):
        yield from _line(chart, line, number, {"yaxis": "y"})
    for place, pane in enumerate(chart.panes):
        for number, line in enumerate(pane.lines):
            yield from _line(chart, line, number, {"yaxis": pane_axis(chart, place), "showlegend": False})


def _line(chart: Chart, line: Line, number: int, where: Tree) -> Iterator[Tree]:
    colour = f"@line{number % LINE_COLOURS}"
    if line.low is not None and line.high is not None:
        yield _band(chart, line, line.low, line.high, {"line": {"color": f"{colour}/0.25", "width": 1.5}, **where})
    # A value between two breaks is a point, which a line alone would not show.
    finite = np.isfinite(line.values)
    alone = finite & ~np.append(False, finite[:-1]) & ~np.append(finite[1:], False)
    yield {
        "type": "scatter",
        "mode": "lines+markers" if alone.any() else "lines",
        "name": line.name,
        "legendgroup": line.name,
        "x": _milliseconds(line.time),
        **_period(chart),
        "y": line.values,
        "line": {"color": colour, "width": 1.4},
        "marker": {"size": np.where(alone, 3, 0)},
        "hovertemplate": "%{y:.6~g}",
        **where,
    }


def _band(chart: Chart, line: Line, low: Array, high: Array, more: Tree) -> Tree:
    """From the lowest to the highest value behind each mean, a stroke of each: areas do not break in every version."""
    return {
        "type": "scatter",
        "mode": "lines",
        "legendgroup": line.name,
        "hoverinfo": "skip",
        "x": _milliseconds(np.repeat(line.time, 3) + chart.drawn_us // 2),
        "y": np.stack([low, high, np.full(len(low), np.nan)], 1).ravel(),
        **more,
        "showlegend": False,
    }

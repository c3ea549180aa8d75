"""Where things stand in a figure of plotly.js: scales, shaded times, marked levels, names of panes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from market_data_tick_handler.charts.chart import Chart, Pane
from market_data_tick_handler.charts.palette import LINE_COLOURS, SPAN_COLOURS

Tree = dict[str, Any]

# Heights of the panes in pixels; the price takes what a taller window has besides.
PRICE_PX: Final = 380
VOLUME_PX: Final = 90
PANE_PX: Final = 110
RIBBON_PX: Final = 14
_SPACE_PX: Final = 14
_MARGIN_PX: Final = 100


def height_px(chart: Chart) -> int:
    """The least height that shows every pane well."""
    prices = PRICE_PX + RIBBON_PX + VOLUME_PX + 2 * _SPACE_PX if chart.candles is not None else 0
    return _MARGIN_PX + prices + len(chart.panes) * (PANE_PX + _SPACE_PX)


def pane_axis(chart: Chart, place: int) -> str:
    """Scale of the pane at `place` below the candles."""
    return _axis((4 if chart.candles is not None else 1) + place)


def _axis(number: int) -> str:
    return "y" if number == 1 else f"y{number}"


def _axes(chart: Chart) -> list[tuple[str, float, Tree]]:
    """(name, height in pixels, what is special about it) of each scale, top to bottom."""
    axes: list[tuple[str, float, Tree]] = []
    if chart.candles is not None:
        axes.append(("yaxis", PRICE_PX, {"separatethousands": True, "exponentformat": "none", "nticks": 8}))
        axes.append(("yaxis2", RIBBON_PX, {"range": [-1, 1], "fixedrange": True, "visible": False}))
        axes.append(("yaxis3", VOLUME_PX, {"rangemode": "tozero", "nticks": 4, "tickformat": "~s"}))
    for pane in chart.panes:
        name = "yaxis" + (str(len(axes) + 1) if axes else "")
        axes.append((name, PANE_PX, _pane_axis(pane)))
    return axes


def _pane_axis(pane: Pane) -> Tree:
    axis: Tree = {"nticks": 4}
    if pane.bounds is not None:
        axis |= {"range": list(pane.bounds), "fixedrange": True, "tickvals": list(pane.guides) or None}
    return axis


def layout(chart: Chart) -> Tree:
    """Scales, shapes, annotations and the rest of a layout."""
    axes = _axes(chart)
    total = sum(height for _, height, _ in axes) + _SPACE_PX * (len(axes) - 1)
    out: Tree = {
        "xaxis": {
            "type": "date",
            "anchor": _axis(len(axes)),
            "range": [chart.from_us // 1000, chart.to_us // 1000],
            "rangeslider": {"visible": False},
            "hoverformat": "%Y-%m-%d %H:%M:%S UTC",
            "gridcolor": "@grid",
            "linecolor": "@edge",
            "showspikes": True,
            "spikemode": "across",
            "spikesnap": "hovered data",
            "spikethickness": 1,
            "spikedash": "dot",
            "spikecolor": "@muted",
            "title": {"text": "UTC", "standoff": 4, "font": {"size": 11, "color": "@muted"}},
        },
        "barmode": "stack",
        "bargap": 0.2 if chart.candles is not None and len(chart.candles) < 1_000 else 0,
        "hovermode": "x unified",
        "hoversubplots": "axis",
        "dragmode": "pan",
        "margin": {"l": 12, "r": 76, "t": 40, "b": 48},
        "paper_bgcolor": "@panel",
        "plot_bgcolor": "@panel",
        "font": {"color": "@text", "size": 12, "family": 'ui-sans-serif, Inter, system-ui, "Segoe UI", sans-serif'},
        "legend": {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom", "font": {"size": 11}},
        "hoverlabel": {
            "bgcolor": "@panel/0.94",
            "bordercolor": "@edge",
            "font": {"color": "@text", "size": 11},
            "namelength": -1,
        },
        "shapes": [*_span_shapes(chart), *_guides(chart)],
        "annotations": list(_names(chart)),
    }
    bottom = 1.0
    for name, height, special in axes:
        top = bottom
        bottom = max(0.0, top - height / total)
        out[name] = {
            "domain": [bottom, top],
            "side": "right",
            "gridcolor": "@grid",
            "linecolor": "@edge",
            "zeroline": False,
            **special,
        }
        bottom -= _SPACE_PX / total
    return out


def _span_shapes(chart: Chart) -> Iterator[Tree]:
    for span in chart.spans:
        colour, opacity = SPAN_COLOURS[span.kind]
        yield {
            "type": "rect",
            "name": str(span.kind),
            "layer": "below",
            "xref": "x",
            "yref": "paper",
            "x0": span.from_us / 1000,
            "x1": span.to_us / 1000,
            "y0": 0,
            "y1": 1,
            "fillcolor": f"@{colour}/{opacity}",
            # An outline, so that what is shorter than a dot is seen.
            "line": {"color": f"@{colour}/{min(1.0, opacity * 2)}", "width": 1},
        }


def _guides(chart: Chart) -> Iterator[Tree]:
    for place, pane in enumerate(chart.panes):
        for level in pane.guides:
            yield {
                "type": "line",
                "layer": "below",
                "xref": "paper",
                "yref": pane_axis(chart, place),
                "x0": 0,
                "x1": 1,
                "y0": level,
                "y1": level,
                "line": {"color": "@muted/0.6", "width": 1, "dash": "dot"},
            }


def _names(chart: Chart) -> Iterator[Tree]:
    first = 3 if chart.candles is not None else 1
    titles = (
        ['volume <span style="color:@up">bought</span> <span style="color:@down">sold</span>'] if first == 3 else []
    )
    for pane in chart.panes:
        names = (
            f'<span style="color:@line{number % LINE_COLOURS}">{line.name}</span>'
            for number, line in enumerate(pane.lines)
        )
        units = dict.fromkeys(line.unit for line in pane.lines)
        titles.append(f'{" ".join(names)} <span style="color:@muted">{", ".join(units)}</span>')
    for place, text in enumerate(titles):
        yield {
            "text": text,
            "showarrow": False,
            "xref": "paper",
            "yref": f"{_axis(first + place)} domain",
            "x": 0.002,
            "y": 1,
            "xanchor": "left",
            "yanchor": "top",
            "font": {"size": 11, "color": "@muted"},
            "bgcolor": "@panel/0.85",
            "borderpad": 1,
        }

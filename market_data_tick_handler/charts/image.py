"""A chart as a PNG file, drawn without a window."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from market_data_tick_handler.charts.chart import (
    HOLLOW,
    SPAN_TEXTS,
    Candles,
    Chart,
    Line,
    SpanKind,
    quality_name,
)
from market_data_tick_handler.charts.palette import DARK, LIGHT, LINE_COLOURS, SPAN_COLOURS
from market_data_tick_handler.core.quality import COMPLETE, QUIET
from market_data_tick_handler.core.ticks import Array
from market_data_tick_handler.core.timeframes import DAY_US
from market_data_tick_handler.errors import NotInstalled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Two dots a candle.
MOST_CANDLES: Final = 900
_WIDTH_IN: Final = 16.0
_DPI: Final = 120
_HEIGHTS_IN: Final = {"price": 5.0, "ribbon": 0.17, "volume": 1.2, "pane": 1.25}
_MARGINS_IN: Final = {"top": 1.12, "bottom": 0.62, "left": 0.3, "right": 0.95, "space": 0.12, "note": 0.2}
_BODY: Final = 0.72
_DENSE: Final = 400
_SMALL: Final = 9


def render(chart: Chart, *, dark: bool = False) -> bytes:
    """The PNG of the chart.

    Raises:
        NotInstalled: matplotlib is not there.
    """
    figure = _figure(chart, DARK if dark else LIGHT)
    out = io.BytesIO()
    # No version inside: the file changes when the picture does.
    figure.savefig(out, format="png", dpi=_DPI, metadata={"Software": None, "Title": chart.title})
    return out.getvalue()


def check_installed() -> None:
    """Raises:
    NotInstalled: matplotlib is not there.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise NotInstalled(
            "a chart as PNG needs matplotlib, which comes with the extra dashboard; "
            "install it: pip install 'market-data-tick-handler[dashboard]'"
        ) from error


def _figure(chart: Chart, colours: Mapping[str, str]) -> Figure:
    check_installed()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    heights = [_HEIGHTS_IN[name] for name in (("price", "ribbon", "volume") if chart.candles is not None else ())]
    heights += [_HEIGHTS_IN["pane"]] * len(chart.panes)
    notes_in = _MARGINS_IN["note"] * len(chart.notes)
    height_in = sum(heights) + _MARGINS_IN["space"] * (len(heights) - 1) + _MARGINS_IN["top"] + _MARGINS_IN["bottom"]
    height_in += notes_in
    figure = Figure(figsize=(_WIDTH_IN, height_in), facecolor=colours["panel"])
    FigureCanvasAgg(figure)
    axes = _stacked(figure, heights, height_in, colours)
    _draw(chart, axes, colours)
    _times(chart, axes, colours)
    _texts(chart, figure, height_in, colours)
    return figure


def _stacked(figure: Figure, heights: Sequence[float], height_in: float, colours: Mapping[str, str]) -> list[Axes]:
    left, width = _MARGINS_IN["left"] / _WIDTH_IN, 1 - (_MARGINS_IN["left"] + _MARGINS_IN["right"]) / _WIDTH_IN
    top = height_in - _MARGINS_IN["top"]
    axes: list[Axes] = []
    for height in heights:
        box = (left, (top - height) / height_in, width, height / height_in)
        axis = figure.add_axes(box, sharex=axes[0] if axes else None, facecolor=colours["panel"])
        axis.yaxis.tick_right()
        axis.tick_params(colors=colours["muted"], labelsize=_SMALL, length=0, labelbottom=False)
        axis.grid(color=colours["grid"], linewidth=0.8)
        axis.set_axisbelow(True)
        for spine in axis.spines.values():
            spine.set_color(colours["edge"])
        axes.append(axis)
        top -= height + _MARGINS_IN["space"]
    return axes


def _draw(chart: Chart, axes: Sequence[Axes], colours: Mapping[str, str]) -> None:
    below = axes
    if chart.candles is not None:
        price, ribbon, volume = axes[:3]
        below = axes[3:]
        _candles(price, chart, chart.candles, colours)
        _ribbon(ribbon, chart, chart.candles, colours)
        _volume(volume, chart, chart.candles, colours)
        for number, line in enumerate(chart.overlays):
            _line(price, chart, line, number, colours)
    for axis, pane in zip(below, chart.panes, strict=True):
        for number, line in enumerate(pane.lines):
            _line(axis, chart, line, number, colours)
        for level in pane.guides:
            axis.axhline(level, color=colours["muted"], linewidth=0.8, linestyle=(0, (2, 3)), alpha=0.7)
        if pane.bounds is not None:
            axis.set_ylim(*pane.bounds)
            axis.set_yticks(pane.guides or pane.bounds)
        else:
            axis.margins(y=0.18)
            axis.locator_params(axis="y", nbins=4)
        names = [(line.name, colours[f"line{number % LINE_COLOURS}"]) for number, line in enumerate(pane.lines)]
        units = ", ".join(dict.fromkeys(line.unit for line in pane.lines))
        _name(axis, [*names, (units, colours["muted"])], colours)


def _days(times: Any) -> Any:
    return times / DAY_US


def _candles(axis: Axes, chart: Chart, candles: Candles, colours: Mapping[str, str]) -> None:
    from matplotlib.collections import LineCollection, PolyCollection

    middle = _days(candles.time + chart.drawn_us / 2)
    half = _BODY * _days(chart.drawn_us) / 2
    body_low, body_high = np.minimum(candles.open, candles.close), np.maximum(candles.open, candles.close)
    wicks = np.stack([np.stack([middle, candles.low], 1), np.stack([middle, candles.high], 1)], 1)
    bodies = _rectangles(middle - half, middle + half, body_low, body_high)
    edges, fills = _candle_colours(candles, colours)
    width = 1.2 if len(candles) < 150 else 0.7
    axis.add_collection(LineCollection(list(wicks), colors=edges, linewidths=width, zorder=2))
    axis.add_collection(PolyCollection(list(bodies), facecolors=fills, edgecolors=edges, linewidths=width, zorder=3))
    low, high = float(np.nanmin(candles.low)), float(np.nanmax(candles.high))
    margin = (high - low) * 0.06 or abs(high) * 1e-3 or 1.0
    axis.set_ylim(low - margin, high + margin)
    # As many digits as tell two marks of the scale apart.
    digits = max(0, -math.floor(math.log10(margin)))
    axis.yaxis.set_major_formatter(f"{{x:,.{min(digits, 12)}f}}")


def _candle_colours(candles: Candles, colours: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """(outline by quality, body by direction)"""
    edges, fills = [], []
    for code, rises in zip(candles.quality.tolist(), candles.rises.tolist(), strict=True):
        colour = colours["up" if rises else "down"]
        edge = colour if code == COMPLETE else colours[quality_name(code).lower()]
        edges.append(edge)
        fills.append(colours["panel"] if code in HOLLOW else edge if code == QUIET else colour)
    return edges, fills


def _rectangles(left: Array, right: Array, low: Array, high: Array) -> Array:
    """Corners, shape (n, 4, 2)."""
    corners = ((left, low), (left, high), (right, high), (right, low))
    return np.stack([np.stack(corner, 1) for corner in corners], 1)


def _ribbon(axis: Axes, chart: Chart, candles: Candles, colours: Mapping[str, str]) -> None:
    axis.set_axis_off()
    axis.set_ylim(0, 1)
    for code, from_us, to_us in candles.runs(chart.drawn_us):
        colour, opacity = colours[quality_name(code).lower()], 0.45 if code == COMPLETE else 1.0
        axis.axvspan(_days(from_us), _days(to_us), 0.45, 1, color=colour, alpha=opacity, linewidth=0)
    revised = _days(candles.time[candles.revision > 0] + chart.drawn_us / 2)
    axis.scatter(revised, np.full(len(revised), 0.15), marker="^", s=11, color=colours["revised"], linewidths=0)


def _volume(axis: Axes, chart: Chart, candles: Candles, colours: Mapping[str, str]) -> None:
    from matplotlib.collections import PolyCollection

    share = _BODY if len(candles) < _DENSE else 1.0
    middle, half = _days(candles.time + chart.drawn_us / 2), share * _days(chart.drawn_us) / 2
    floor = np.zeros(len(candles))
    for values, name in ((candles.buy, "up"), (candles.sell, "down"), (candles.other, "quiet")):
        top = floor + np.nan_to_num(values)
        boxes = _rectangles(middle - half, middle + half, floor, top)
        bars = PolyCollection(list(boxes), facecolors=colours[name], alpha=0.75, linewidths=0, antialiased=share < 1)
        axis.add_collection(bars)
        floor = top
    axis.set_ylim(0, float(floor.max()) * 1.12 or 1.0)
    axis.locator_params(axis="y", nbins=4)
    _name(axis, [("volume", colours["muted"]), ("bought", colours["up"]), ("sold", colours["down"])], colours)


def _line(axis: Axes, chart: Chart, line: Line, number: int, colours: Mapping[str, str]) -> None:
    colour = colours[f"line{number % LINE_COLOURS}"]
    time = _days(line.time + chart.drawn_us / 2)
    if line.low is not None and line.high is not None:
        axis.fill_between(time, line.low, line.high, color=colour, alpha=0.22, linewidth=0, zorder=1.5)
    axis.plot(time, line.values, color=colour, linewidth=1.2, zorder=5)


def _name(axis: Axes, parts: Sequence[tuple[str, str]], colours: Mapping[str, str]) -> None:
    from matplotlib.offsetbox import AnchoredOffsetbox, HPacker, TextArea

    words = [TextArea(text, textprops={"color": colour, "size": _SMALL}) for text, colour in parts]
    packed = HPacker(children=list(words), pad=0, sep=7, align="baseline")
    box = AnchoredOffsetbox(loc="upper left", child=packed, pad=0.25, borderpad=0.25, frameon=True)
    box.patch.set(facecolor=colours["panel"], edgecolor="none", alpha=0.8)
    box.set_zorder(6)
    axis.add_artist(box)


def _times(chart: Chart, axes: Sequence[Axes], colours: Mapping[str, str]) -> None:
    """The time axis, and what is shaded on it."""
    from datetime import UTC

    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    last = axes[-1]
    last.set_xlim(_days(chart.from_us), _days(chart.to_us))
    locator = AutoDateLocator(tz=UTC, minticks=6, maxticks=14)  # type: ignore[no-untyped-call]
    last.xaxis.set_major_locator(locator)
    last.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=UTC))  # type: ignore[no-untyped-call]
    last.tick_params(labelbottom=True)
    last.xaxis.get_offset_text().set_color(colours["muted"])
    last.set_xlabel("UTC", color=colours["muted"], fontsize=_SMALL)
    shaded = [axis for axis in axes if axis.axison]
    for span in chart.spans:
        colour, opacity = SPAN_COLOURS[span.kind]
        for axis in shaded:
            # An outline, so that what is shorter than a dot is seen.
            axis.axvspan(
                _days(span.from_us), _days(span.to_us), facecolor=colours[colour], edgecolor=colours[colour],
                alpha=opacity, linewidth=1.0, zorder=1, hatch="///" if span.kind is SpanKind.DOWN else None,
            )  # fmt: skip


def _texts(chart: Chart, figure: Figure, height_in: float, colours: Mapping[str, str]) -> None:
    left = _MARGINS_IN["left"] / _WIDTH_IN
    figure.text(left, 1 - 0.36 / height_in, chart.title, color=colours["text"], size=17, weight="bold")
    figure.text(left, 1 - 0.62 / height_in, chart.subtitle, color=colours["muted"], size=11)
    figure.legend(
        handles=list(_legend(chart, colours)), loc="upper left", ncols=10, frameon=False, fontsize=_SMALL + 0.5,
        bbox_to_anchor=(left, 1 - 0.76 / height_in), labelcolor=colours["text"], handlelength=1.1, handleheight=0.9,
        borderaxespad=0, borderpad=0, columnspacing=1.6, handletextpad=0.5,
    )  # fmt: skip
    for number, note in enumerate(chart.notes):
        bottom = (0.1 + _MARGINS_IN["note"] * (len(chart.notes) - 1 - number)) / height_in
        figure.text(left, bottom, note, color=colours["muted"], size=_SMALL)


def _legend(chart: Chart, colours: Mapping[str, str]) -> Iterator[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    if chart.candles is not None:
        for code, count in chart.candles.counts().items():
            if count:
                colour = colours[quality_name(code).lower()]
                face = colours["panel"] if code in HOLLOW else colour
                yield Patch(
                    facecolor=face,
                    edgecolor=colour,
                    label=f"{quality_name(code).capitalize()} {count:,}",
                    linewidth=1.4,
                )
        if chart.candles.revised:
            yield Line2D(
                [],
                [],
                marker="^",
                linestyle="none",
                color=colours["revised"],
                label=f"Revised {chart.candles.revised:,}",
            )
    for kind in SpanKind:
        spans = [span for span in chart.spans if span.kind is kind]
        if spans:
            name, opacity = SPAN_COLOURS[kind]
            label = f"{SPAN_TEXTS[kind].capitalize()} {sum(span.gaps for span in spans):,}"
            hatch = "///" if kind is SpanKind.DOWN else None
            yield Patch(
                facecolor=colours[name],
                edgecolor=colours[name],
                alpha=min(1.0, 1.6 * opacity),
                label=label,
                hatch=hatch,
            )
    for number, line in enumerate(chart.overlays):
        yield Line2D([], [], color=colours[f"line{number % LINE_COLOURS}"], label=line.name)

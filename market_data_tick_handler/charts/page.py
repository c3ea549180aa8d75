"""A chart as one HTML file that needs nothing else: figure, plotly.js and styles are in it."""

from __future__ import annotations

import html
from collections.abc import Iterator
from importlib import resources
from typing import Any, Final

import orjson

from market_data_tick_handler.charts.chart import SPAN_TEXTS, Chart, length_text, time_text
from market_data_tick_handler.charts.figure import figure
from market_data_tick_handler.charts.layout import height_px
from market_data_tick_handler.charts.palette import DARK, LIGHT
from market_data_tick_handler.errors import NotInstalled

# What browsers draw and move smoothly.
MOST_CANDLES: Final = 6_000
_LISTED_SPANS: Final = 200
# The file talks to nobody, whatever is in it.
_POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    "base-uri 'none'; form-action 'none'"
)


def plotly_javascript() -> str:
    """plotly.js, out of the installed package.

    Raises:
        NotInstalled: there is none.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise NotInstalled(
            "a chart as HTML needs plotly, which comes with the extra dashboard; "
            "install it: pip install 'market-data-tick-handler[dashboard]'"
        ) from error
    return str(get_plotlyjs())


def render(chart: Chart) -> str:
    """The HTML of the chart, colours following the reader's system.

    Raises:
        NotInstalled: plotly is not there.
    """
    folder = resources.files("market_data_tick_handler.charts")
    content: dict[str, Any] = {**figure(chart), "palettes": {"light": dict(LIGHT), "dark": dict(DARK)}}
    # NaN becomes null. `<` would end the element that the figure stands in.
    told = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY).replace(b"<", b"\\u003c").decode()
    return "\n".join(
        (
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<link rel="icon" href="data:,">',
            f"<title>{html.escape(chart.title)}</title>",
            f"<style>{folder.joinpath('page.css').read_text(encoding='utf-8')}</style>",
            "</head><body>",
            f"<header><h1>{html.escape(chart.title)}</h1><p>{html.escape(chart.subtitle)}</p></header>",
            f'<div id="chart" style="height:max({height_px(chart)}px, calc(100vh - 110px))"></div>',
            *_notes(chart),
            *_span_table(chart),
            f'<script type="application/json" id="figure">{told}</script>',
            f"<script>{plotly_javascript()}</script>",
            f"<script>{folder.joinpath('page.js').read_text(encoding='utf-8')}</script>",
            "</body></html>\n",
        )
    )


def _notes(chart: Chart) -> Iterator[str]:
    if chart.notes:
        yield "<ul>" + "".join(f"<li>{html.escape(note)}</li>" for note in chart.notes) + "</ul>"


def _span_table(chart: Chart) -> Iterator[str]:
    if not chart.spans:
        return
    yield f"<details><summary>Shaded times ({len(chart.spans):,})</summary><table>"
    yield "<tr><th>from (UTC)</th><th>to (UTC)</th><th>length</th><th>meaning</th></tr>"
    for span in chart.spans[:_LISTED_SPANS]:
        cells = (
            time_text(span.from_us, seconds=True),
            time_text(span.to_us, seconds=True),
            length_text(span.to_us - span.from_us),
            SPAN_TEXTS[span.kind] + (f" ({span.gaps:,} gaps)" if span.gaps > 1 else ""),
        )
        yield "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"
    left_out = len(chart.spans) - _LISTED_SPANS
    yield "</table>" + (f"<p>and {left_out:,} more</p>" if left_out > 0 else "") + "</details>"

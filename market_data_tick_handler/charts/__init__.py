"""Charts of stored candles: what is to be drawn, and two ways of drawing it."""

from __future__ import annotations

from market_data_tick_handler.charts.chart import Candles, Chart, Line, Pane, Span, SpanKind
from market_data_tick_handler.charts.composition import compose
from market_data_tick_handler.charts.thinning import thinned

__all__ = ["Candles", "Chart", "Line", "Pane", "Span", "SpanKind", "compose", "thinned"]

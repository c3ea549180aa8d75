"""Colours by meaning, on light and dark ground; the same meanings have the same colours on the dashboard."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from market_data_tick_handler.charts.chart import SpanKind

LIGHT: Final[Mapping[str, str]] = MappingProxyType(
    {
        "ground": "#f3f5f9",
        "panel": "#ffffff",
        "grid": "#e9edf3",
        "edge": "#d5dce6",
        "text": "#152130",
        "muted": "#5e6e82",
        "up": "#0c8f67",
        "down": "#cf3448",
        "complete": "#0c8f67",
        "quiet": "#8795a7",
        "partial": "#b58900",
        "gapped": "#e0660b",
        "repaired": "#3f5fe0",
        "revised": "#8a3ffc",
        "line0": "#1767d2",
        "line1": "#c07a00",
        "line2": "#8a3ffc",
        "line3": "#0b8a99",
        "line4": "#c2367f",
    }
)
DARK: Final[Mapping[str, str]] = MappingProxyType(
    {
        "ground": "#0a0e14",
        "panel": "#10161f",
        "grid": "#1c2633",
        "edge": "#2b394b",
        "text": "#e3eaf3",
        "muted": "#8f9eb1",
        "up": "#2fb98c",
        "down": "#ee5f6e",
        "complete": "#2fb98c",
        "quiet": "#75859a",
        "partial": "#dcbc4a",
        "gapped": "#ff8f3f",
        "repaired": "#6f8dff",
        "revised": "#c792ff",
        "line0": "#5aa7ff",
        "line1": "#e6b450",
        "line2": "#b48cff",
        "line3": "#41c7d6",
        "line4": "#f07fb6",
    }
)
LINE_COLOURS: Final = 5
# Colour and opacity of each kind of shaded time.
SPAN_COLOURS: Final[Mapping[SpanKind, tuple[str, float]]] = MappingProxyType(
    {
        SpanKind.DOWN: ("gapped", 0.22),
        SpanKind.REPAIRED: ("repaired", 0.14),
        SpanKind.NOT_RUNNING: ("partial", 0.16),
        SpanKind.ABSENT: ("quiet", 0.20),
    }
)

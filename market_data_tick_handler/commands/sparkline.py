"""A line of closes as high as one line of text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import Final

from rich.text import Text

BLOCKS: Final = "▁▂▃▄▅▆▇█"
# Where a candle is missing, or has no price.
HOLE: Final = "·"
_FLAT: Final = 3


def blocks(values: Sequence[float | None]) -> str:
    """One character per value: the lowest one the lowest block, the highest one the highest, `·` where there is none.
    Values that are all the same lie in the middle."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    low, high = min(known, default=0.0), max(known, default=0.0)
    return "".join(_block(value, low, high) for value in values)


def sparkline(values: Sequence[float | None], styles: Sequence[str]) -> Text:
    """`blocks`, each in its style."""
    line = Text()
    # Together what looks the same, so that a terminal far away is sent less.
    for style, run in groupby(zip(blocks(values), styles, strict=True), key=itemgetter(1)):
        line.append("".join(block for block, _ in run), style=style)
    return line


def _block(value: float | None, low: float, high: float) -> str:
    if value is None or not math.isfinite(value):
        return HOLE
    if high == low:
        return BLOCKS[_FLAT]
    return BLOCKS[min(int((value - low) / (high - low) * len(BLOCKS)), len(BLOCKS) - 1)]

"""Was the feed whole? coverage, gap_ms and quality of candles from the gaps alone (features.md 2.9).

A gap is an interval of the arrival clock without proof of life. Candles of 15s and 1m are judged against the gaps; a
higher candle is the worst of its 1m children, where a child that was never published because the service did not run
counts as PARTIAL with coverage 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from market_data_tick_handler.core.events import Gap, GapKind
from market_data_tick_handler.core.ticks import Array

# Order of badness: the roll-up is a maximum. QUIET is better than COMPLETE only in that it needs every child.
QUIET: Final = 0
COMPLETE: Final = 1
REPAIRED: Final = 2
PARTIAL: Final = 3
GAPPED: Final = 4
NAMES: Final = np.array(["QUIET", "COMPLETE", "REPAIRED", "PARTIAL", "GAPPED"])
MINUTE_US: Final = 60_000_000


@dataclass(frozen=True, slots=True)
class Span:
    """The candles of a series that were published: 1m candles opening in [first_us, last_us)."""

    first_us: int
    last_us: int


def _overlap_us(opens: Array, step_us: int, gaps: Sequence[Gap]) -> Array:
    """Microseconds of each interval [open, open + step) that lie in the union of the gaps."""
    out = np.zeros(len(opens), np.int64)
    end = None
    for gap in sorted(gaps, key=lambda gap: gap.from_us):
        start = gap.from_us if end is None else max(gap.from_us, end)
        end = gap.to_us if end is None else max(end, gap.to_us)
        if start < end:
            out += np.maximum(np.minimum(opens + step_us, end) - np.maximum(opens, start), 0)
    return out


def judge(
    opens: Array, step_us: int, gaps: Sequence[Gap], traded: Array, span: Span | None = None
) -> tuple[Array, Array]:
    """(quality code, gap_ms) of candles built from ticks.

    opens: int64 us, shape (n,). traded: bool, shape (n,). Candles that open outside `span` were not published.
    """
    gaps = [gap for gap in gaps if gap.from_us < int(opens[-1]) + step_us and gap.to_us > int(opens[0])]
    if not gaps:
        return np.where(traded, COMPLETE, QUIET), np.zeros(len(opens), np.int64)
    lost = [gap for gap in gaps if not gap.backfilled]
    any_us = _overlap_us(opens, step_us, gaps)
    lost_us = _overlap_us(opens, step_us, lost)
    broken_us = _overlap_us(opens, step_us, [gap for gap in lost if gap.kind is GapKind.OUTAGE])
    stopped_us = _overlap_us(opens, step_us, [gap for gap in lost if gap.kind is GapKind.NOT_RUNNING])
    quality = np.where(traded, COMPLETE, QUIET)
    quality[any_us > 0] = REPAIRED
    quality[lost_us > 0] = PARTIAL
    published = np.ones(len(opens), bool)
    if span is not None:
        published = (opens >= span.first_us) & (opens < span.last_us)
    quality[(broken_us > 0) | ((stopped_us == step_us) & published)] = GAPPED
    return quality, -(-any_us // 1000)


def judge_parents(opens: Array, step_us: int, gaps: Sequence[Gap], traded: Array, span: Span) -> tuple[Array, Array]:
    """(quality code, gap_ms) of candles above 1m, rolled up from their 1m children inside and outside `span`."""
    quality = np.where(traded, COMPLETE, QUIET)
    gap_ms = np.zeros(len(opens), np.int64)
    gaps = [gap for gap in gaps if gap.from_us < int(opens[-1]) + step_us and gap.to_us > int(opens[0])]
    for index in np.flatnonzero(_overlap_us(opens, step_us, gaps)) if gaps else ():
        start = int(opens[index])
        near = [gap for gap in gaps if gap.from_us < start + step_us and gap.to_us > start]
        children = start + MINUTE_US * np.arange(step_us // MINUTE_US)
        worst, lost_ms = judge(children, MINUTE_US, near, np.ones(len(children), bool), span)
        quality[index] = max(int(worst.max()), int(quality[index]))
        gap_ms[index] = lost_ms.sum()
    return quality, gap_ms


def coverage(gap_ms: Array, step_us: int) -> Array:
    """Share of the candle in which the feed was provably alive."""
    step_ms = step_us / 1000
    return (step_ms - gap_ms) / step_ms

"""What a chart shows, without a word about how it is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import numpy as np

from market_data_tick_handler.core.quality import COMPLETE, GAPPED, NAMES, PARTIAL, QUIET, REPAIRED
from market_data_tick_handler.core.ticks import Array

# The order of legends.
QUALITIES: Final = (COMPLETE, QUIET, PARTIAL, GAPPED, REPAIRED)
# Whose bodies are drawn hollow: part of their trades may be missing.
HOLLOW: Final = frozenset({PARTIAL, GAPPED})
_MOST_DECIMALS: Final = 10


def quality_name(code: int) -> str:
    """`GAPPED` of its code."""
    return str(NAMES[code])


class SpanKind(StrEnum):
    """Why a stretch of time is shaded.

    DOWN: the feed broke and nothing mended it. REPAIRED: nothing is missing any more. NOT_RUNNING: the service did not
    run. ABSENT: no candle is stored.
    """

    DOWN = "down"
    REPAIRED = "repaired"
    NOT_RUNNING = "not_running"
    ABSENT = "absent"


SPAN_TEXTS: Final = {
    SpanKind.DOWN: "feed down",
    SpanKind.REPAIRED: "gap repaired or explained",
    SpanKind.NOT_RUNNING: "service not running",
    SpanKind.ABSENT: "no candles stored",
}


@dataclass(frozen=True, slots=True)
class Span:
    """[from_us, to_us) that is shaded, and how many gaps it stands for."""

    kind: SpanKind
    from_us: int
    to_us: int
    gaps: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Candles:
    """Candles in time order, one array per column.

    time: open time, int64 us. Prices and volumes: float64, NaN where unknown. quality: codes of `core.quality`.
    revision, trades, gap_ms: int64. members: how many stored candles each one is made of.
    """

    time: Array
    open: Array
    high: Array
    low: Array
    close: Array
    volume: Array
    buy: Array
    sell: Array
    trades: Array
    quality: Array
    coverage: Array
    gap_ms: Array
    revision: Array
    members: Array

    def __len__(self) -> int:
        return len(self.time)

    @property
    def rises(self) -> Array:
        """Where the close is at or above the open."""
        return np.asarray(self.close >= self.open)

    @property
    def other(self) -> Array:
        """Volume without a side."""
        return np.asarray(np.maximum(self.volume - self.buy - self.sell, 0.0))

    @property
    def decimals(self) -> int:
        """Digits after the point that prices need."""
        return decimals_of(np.concatenate([self.open, self.high, self.low, self.close]))

    def counts(self) -> dict[int, int]:
        """Number of candles of each quality, of all five."""
        return {code: int((self.quality == code).sum()) for code in QUALITIES}

    def runs(self, step_us: int) -> list[tuple[int, int, int]]:
        """(quality, from_us, to_us) of neighbours of one quality; candles are `step_us` long."""
        if not len(self):
            return []
        breaks = (self.quality[1:] != self.quality[:-1]) | (np.diff(self.time) > step_us)
        starts = np.flatnonzero(np.append(True, breaks))
        ends = np.append(starts[1:], len(self)) - 1
        return list(
            zip(
                self.quality[starts].tolist(),
                self.time[starts].tolist(),
                (self.time[ends] + step_us).tolist(),
                strict=True,
            )
        )

    @property
    def revised(self) -> int:
        """Candles that were published more than once."""
        return int((self.revision > 0).sum())


@dataclass(frozen=True, slots=True)
class Line:
    """A column over time; `time` is the open time of its candle, NaN values are breaks.

    Where candles were merged, values are means, and low and high the extremes of what they are means of.
    """

    name: str
    unit: str
    time: Array
    values: Array
    low: Array | None = None
    high: Array | None = None


@dataclass(frozen=True, slots=True)
class Pane:
    """Lines that share a scale below the price. bounds: fixed scale; guides: levels that are marked."""

    lines: tuple[Line, ...]
    bounds: tuple[float, float] | None = None
    guides: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Everything on one chart.

    step_us: length of a stored candle; drawn_us: of a drawn one, which is longer where candles were merged.
    from_us, to_us: what the time axis covers. candles: None for what has no prices (option chains). overlays: columns
    on the scale of the price. coverage: share of the axis in which the feed was proven alive, without absent candles.
    stored, expected: candles on the axis, and how many there would be without holes. notes: what a reader must know
    besides: what was merged, left out or is missing.
    """

    instrument: str
    timeframe: str
    step_us: int
    drawn_us: int
    from_us: int
    to_us: int
    candles: Candles | None
    overlays: tuple[Line, ...]
    panes: tuple[Pane, ...]
    spans: tuple[Span, ...]
    coverage: float
    stored: int
    expected: int
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """`BTC-USDT 1m`"""
        return f"{self.instrument.rpartition(':')[2]} {self.timeframe}"

    @property
    def subtitle(self) -> str:
        """Where it trades, the range, how many candles, how whole the feed was."""
        venue, kind, _ = self.instrument.split(":", 2)
        held = f"{self.stored:,} of {self.expected:,} candles"
        return (
            f"{venue} {kind} · {range_text(self.from_us, self.to_us)} · {held} · coverage {share_text(self.coverage)}"
        )

    def noted(self, notes: Sequence[str]) -> Chart:
        """The chart with notes added."""
        return replace(self, notes=(*self.notes, *notes))


def time_text(time_us: int, *, seconds: bool | None = None) -> str:
    """`2024-01-01 00:05`, with seconds where it has some or they are wanted."""
    text = str(np.datetime64(time_us, "us").astype("datetime64[s]")).replace("T", " ")
    whole = time_us % 60_000_000 == 0 if seconds is None else not seconds
    return text[:16] if whole else text


def range_text(from_us: int, to_us: int) -> str:
    """`2024-01-01 00:00 – 12:30 UTC`, the second day only where it is another one."""
    start, end = time_text(from_us), time_text(to_us)
    return f"{start} – {end.removeprefix(start[:11])} UTC"


def share_text(share: float) -> str:
    """`99.52%`; what is not all is never rounded to all."""
    return f"{share if share >= 1 else min(share, 0.9999):.2%}"


def length_text(length_us: int) -> str:
    """`1 h 5 min`, the two largest units."""
    rest, parts = length_us // 1_000_000, []
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or f"{length_us // 1000} ms"


def decimals_of(values: Array) -> int:
    """The fewest digits after the point that show every finite value as it is, 10 at most."""
    finite = values[np.isfinite(values)]
    scale = np.maximum(np.abs(finite), 1e-12) * 1e-11
    for digits in range(_MOST_DECIMALS):
        if (np.abs(np.round(finite, digits) - finite) <= scale).all():
            return digits
    return _MOST_DECIMALS

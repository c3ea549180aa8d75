"""From columns and gaps to a chart: what is on the axis, how whole it is, and what is to be said about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from market_data_tick_handler.charts.chart import Candles, Chart, Span, SpanKind, time_text
from market_data_tick_handler.charts.panes import default_columns, lines_and_panes, needed_columns
from market_data_tick_handler.core.events import Gap, GapKind
from market_data_tick_handler.core.quality import NAMES
from market_data_tick_handler.core.ticks import Array, DataType
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.errors import NotFound, SchemaMismatch

_STATE: Final = ("timestamp", "quality", "coverage", "gap_ms", "revision")
_PRICES: Final = ("open", "high", "low", "close", "volume", "buy_volume_sum", "sell_volume_sum", "trade_count")
_CODES: Final = {name: code for code, name in enumerate(NAMES.tolist())}
# Spans nearer to each other than this share of the axis are one: less than a dot on any screen.
_DOT: Final = 1 / 2_000


def columns_to_read(panes: Sequence[Sequence[str]] | None) -> list[str]:
    """Every column that a chart with these panes needs; None: the default ones."""
    shown = needed_columns() if panes is None else [name for pane in panes for name in pane]
    return list(dict.fromkeys((*_STATE, *_PRICES, *shown)))


def compose(
    instrument: str,
    timeframe: Timeframe,
    columns: Mapping[str, Array],
    *,
    gaps: Sequence[Gap] = (),
    from_us: int,
    to_us: int,
    panes: Sequence[Sequence[str]] | None = None,
) -> Chart:
    """The chart of the candles that open in [from_us, to_us).

    columns: candle columns in time order, times in us, nulls as NaN. gaps: of the ledger. panes: names of columns per
    pane; None: volume, imbalance, spread and RSI, as far as they have values.

    Raises:
        NotFound: no candle opens there. SchemaMismatch: a column that every candle has is missing.
    """
    if missing := [name for name in _STATE if name not in columns]:
        raise SchemaMismatch(f"{instrument} {timeframe}: expected the columns {' '.join(missing)}, found none of them")
    inside = (columns["timestamp"] >= from_us) & (columns["timestamp"] < to_us)
    if not inside.any():
        raise NotFound(f"{instrument} {timeframe}: no candle opens from {time_text(from_us)} to {time_text(to_us)} UTC")
    kept = {name: values[inside] for name, values in columns.items()}
    times = kept["timestamp"].astype(np.int64)
    candles = _candles(kept, times) if all(name in kept for name in _PRICES) else None
    chosen = default_columns(kept, has_prices=candles is not None) if panes is None else panes
    overlays, below, empty = lines_and_panes(chosen, kept, times, timeframe.us, candles)
    start, end = int(times[0]), int(times[-1]) + timeframe.us
    expected = (end - start) // timeframe.us
    counted = [gap for gap in gaps if gap.to_us > start and gap.from_us < end]
    own = DataType.TRADES if candles is not None else DataType.OPTIONS
    return Chart(
        instrument=instrument,
        timeframe=str(timeframe),
        step_us=timeframe.us,
        drawn_us=timeframe.us,
        from_us=start,
        to_us=end,
        candles=candles,
        overlays=overlays,
        panes=below,
        spans=_spans([gap for gap in counted if gap.data_type is own], times, timeframe.us, end),
        coverage=float(kept["coverage"].sum()) / expected,
        stored=len(times),
        expected=expected,
        notes=tuple(_notes(empty, counted, own, (from_us, start, end, to_us))),
    )


def _candles(columns: Mapping[str, Array], times: Array) -> Candles:
    def numbers(name: str) -> Array:
        return np.asarray(columns[name].astype(np.float64))

    return Candles(
        time=times,
        open=numbers("open"),
        high=numbers("high"),
        low=numbers("low"),
        close=numbers("close"),
        volume=numbers("volume"),
        buy=numbers("buy_volume_sum"),
        sell=numbers("sell_volume_sum"),
        trades=columns["trade_count"].astype(np.int64),
        quality=np.array([_CODES[name] for name in columns["quality"].tolist()], np.int64),
        coverage=numbers("coverage"),
        gap_ms=columns["gap_ms"].astype(np.int64),
        revision=columns["revision"].astype(np.int64),
        members=np.ones(len(times), np.int64),
    )


def _kind(gap: Gap) -> SpanKind:
    if gap.backfilled:
        return SpanKind.REPAIRED
    return SpanKind.NOT_RUNNING if gap.kind is GapKind.NOT_RUNNING else SpanKind.DOWN


def _spans(gaps: Sequence[Gap], times: Array, step_us: int, end_us: int) -> tuple[Span, ...]:
    start_us = int(times[0])
    found = [
        Span(_kind(gap), max(gap.from_us, start_us), min(gap.to_us, end_us)) for gap in gaps if gap.to_us > gap.from_us
    ]
    before = np.flatnonzero(np.diff(times) > step_us)
    found += [Span(SpanKind.ABSENT, int(times[at]) + step_us, int(times[at + 1])) for at in before.tolist()]
    dot_us = int((end_us - start_us) * _DOT)
    joined = [span for kind in SpanKind for span in _joined([s for s in found if s.kind is kind], dot_us)]
    return tuple(sorted(joined, key=lambda span: (span.from_us, span.to_us)))


def _joined(spans: Iterable[Span], dot_us: int) -> list[Span]:
    out: list[Span] = []
    for span in sorted(spans, key=lambda each: each.from_us):
        if out and span.from_us <= out[-1].to_us + dot_us:
            last = out.pop()
            span = Span(span.kind, last.from_us, max(last.to_us, span.to_us), last.gaps + span.gaps)
        out.append(span)
    return out


def _notes(empty: Sequence[str], gaps: Sequence[Gap], own: DataType, times: tuple[int, int, int, int]) -> Iterable[str]:
    from_us, start_us, end_us, to_us = times
    if start_us > from_us:
        yield f"no candle is stored from {time_text(from_us)} to {time_text(start_us)} UTC"
    if end_us < to_us:
        yield f"no candle is stored from {time_text(end_us)} to {time_text(to_us)} UTC"
    if empty:
        yield f"no value in this range: {', '.join(empty)}"
    if other := sum(gap.data_type is not own for gap in gaps):
        yield f"gaps of other feeds than {own}, which are not drawn: {other:,}"

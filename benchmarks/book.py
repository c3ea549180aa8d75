"""Book: snapshots in memory -> every book column, as a day of history and live."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks import feeds, ticks
from benchmarks.measure import in_child, medians
from benchmarks.results import Result, million
from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.features.registry import columns
from market_data_tick_handler.core.options import PipelineOptions
from market_data_tick_handler.core.pipeline import Day, Pipeline
from market_data_tick_handler.core.ticks import TickBatch
from market_data_tick_handler.core.timeframes import Timeframe

GOAL_M = 0.8
GROUPS = ("book", "book_delays")
# Snapshots a second of the market: an exchange's stream of every 100 ms, and one of every change.
RATES = (10, 100)
DRAINED = 10_000
PIECE = 131_072
_SECOND_US = 1_000_000


def run(quick: bool) -> Iterator[Result]:
    """All book columns, 7 timeframes, one processor; one trade a second, without which there are no candles."""
    rows, repeats = (200_000, 3) if quick else (800_000, 7)
    count = sum(column.group in GROUPS for column in columns(GROUPS))
    for rate in RATES:
        arguments = {"rows": rows, "repeats": repeats, "rate": rate}
        found = in_child("benchmarks.book:measure", arguments, one_thread=True)
        for name, what in (("day", "as a day of history"), ("live", f"live, {DRAINED:,} snapshots a turn")):
            yield Result(
                benchmark="book",
                what=f"{count} book columns, {rate} snapshots/s, {what}",
                measured=f"{million(rows, found[name])} ({found[name] / rows * 1e9:.0f} ns a snapshot)",
                goal=f">= {GOAL_M} M/s",
                ok=rows / found[name] >= GOAL_M * 1e6,
            )


def measure(rows: int, repeats: int, rate: int) -> dict[str, float]:
    """Median seconds for `rows` snapshots."""
    span_us = rows * _SECOND_US // rate
    book = feeds.books(rows, span_us=span_us)
    trades = ticks.trades(max(span_us // _SECOND_US, 10), span_us=span_us)
    pieces, drained = (turns([book, trades], step) for step in (PIECE, DRAINED))

    def day() -> None:
        pipeline = Pipeline(feeds.PERPETUAL, PipelineOptions(groups=GROUPS), day=Day(ticks.DAY_START_US))
        for turn in pieces:
            pipeline.feed(turn)
        pipeline.finish_day(ticks.DAY_START_US + span_us)
        _check(pipeline.outputs(), rows)

    def live() -> None:
        pipeline = Pipeline(feeds.PERPETUAL, PipelineOptions(groups=GROUPS))
        out: list[CandleBatch] = []
        for turn in drained:
            pipeline.feed(turn)
            out += pipeline.outputs()
        pipeline.finish(pipeline.clock_us + 1)
        _check(out + pipeline.outputs(), rows)

    return medians({"day": day, "live": live}, repeats)


def _check(candles: list[CandleBatch], rows: int) -> None:
    """Every snapshot is in a candle of 15 s, or the number means nothing."""
    counted = sum(int(batch["book_update_count"].sum()) for batch in candles if batch.timeframe is Timeframe.S15)
    if not rows * 0.999 <= counted <= rows:
        raise AssertionError(f"expected {rows} snapshots in candles, got {counted}")


def turns(batches: list[TickBatch], step: int) -> list[list[Rows]]:
    """The rows of all batches, cut where `step` more rows of the first one have arrived."""
    arrivals = batches[0]["local_timestamp"]
    until_us = [*arrivals[step::step].tolist(), int(np.iinfo(np.int64).max)]
    edges = [[0, *np.searchsorted(batch["local_timestamp"], until_us).tolist()] for batch in batches]
    return [
        [
            Rows(feeds.PERPETUAL.key, batch.slice(edge[at], edge[at + 1]))
            for batch, edge in zip(batches, edges, strict=True)
        ]
        for at in range(len(until_us))
    ]

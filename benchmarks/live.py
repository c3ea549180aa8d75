"""Live: trade frames in memory -> msgspec -> pipeline, next to the decoding alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from benchmarks import ticks
from benchmarks.measure import in_child, medians
from benchmarks.results import Result, million
from market_data_tick_handler.core.options import PipelineOptions
from market_data_tick_handler.core.pipeline import Pipeline
from streaming_service.sources.exchanges.binance import decode_trades, trade_routes

GOAL_M = 1.0
GOAL_RATIO = 0.30
# Trades a second of the market: a busy day, and a burst.
RATES = (60, 1_000)
GROUPS = ("ohlcv", "flow", "delays", "returns")  # groups 0-3 of the specification
DRAINED_FRAMES = (1_000, 10_000)


class _Trade(msgspec.Struct, gc=False):
    t: int
    p: float
    q: float
    T: int
    m: bool
    X: str = ""


class _Frame(msgspec.Struct, gc=False):
    stream: str
    data: _Trade


# The yardstick has the leanest structs that hold the same fields, and nothing of ours.
_decode_alone = msgspec.json.Decoder(_Frame, strict=False).decode


def run(quick: bool) -> Iterator[Result]:
    """All columns of groups 0-3, 7 timeframes, one processor."""
    rows, repeats = (200_000, 3) if quick else (600_000, 7)
    for rate in RATES:
        for drained in DRAINED_FRAMES:
            arguments = {"rows": rows, "repeats": repeats, "rate": rate, "drained": drained}
            found = in_child("benchmarks.live:measure", arguments, one_thread=True)
            alone, columns, whole = (found[name] for name in ("alone", "columns", "live"))
            what = f"{rate} trades/s, {drained:,} frames a turn"
            per_row = (
                f"{name} {seconds / rows * 1e9:.0f} ns" for name, seconds in (("to columns", columns), ("all", whole))
            )
            measured = f"{million(rows, whole)} ({', '.join(per_row)})"
            yield Result(
                benchmark="live",
                what=what,
                measured=measured,
                against=f"msgspec alone {million(rows, alone)}",
                ratio=alone / whole,
                goal=f">= {GOAL_M} M/s and >= {GOAL_RATIO:.2f}",
                ok=rows / whole >= GOAL_M * 1e6 and alone / whole >= GOAL_RATIO,
            )


def measure(rows: int, repeats: int, rate: int, drained: int) -> dict[str, float]:
    """Median seconds for `rows` frames."""
    batch = ticks.trades(rows, span_us=rows * 1_000_000 // rate)
    frames, local_us = ticks.frames(batch), batch["local_timestamp"]
    turns = [(frames[at : at + drained], local_us[at : at + drained]) for at in range(0, rows, drained)]
    routes = trade_routes([ticks.INSTRUMENT])

    def alone() -> None:
        for turn, _ in turns:
            list(map(_decode_alone, turn))

    def columns() -> None:
        for turn, arrived in turns:
            decode_trades(turn, arrived, routes)

    def live() -> Any:
        pipeline = Pipeline(ticks.INSTRUMENT, PipelineOptions(groups=GROUPS))
        candles = 0
        for turn, arrived in turns:
            pipeline.feed(decode_trades(turn, arrived, routes).rows)
            candles += sum(map(len, pipeline.outputs()))
        if pipeline.trades().accepted != rows:
            raise AssertionError(f"expected {rows} accepted trades, got {pipeline.trades()}")
        return candles

    return medians({"alone": alone, "columns": columns, "live": live}, repeats)

"""Everything at once, live: trade frames decoded, book, ticker and liquidations among them, all groups on."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import feeds, ticks
from benchmarks.book import turns
from benchmarks.measure import in_child, medians
from benchmarks.results import Result, million
from market_data_tick_handler.core.features.registry import columns, group_names
from market_data_tick_handler.core.options import FeatureParameters, PipelineOptions
from market_data_tick_handler.core.pipeline import Pipeline
from market_data_tick_handler.core.ticks import DataType
from streaming_service.sources.exchanges.binance import decode_trades, trade_routes

GOAL_M = 0.5
# Trades a second of the market: a busy day, and a burst. The other streams go by the clock.
RATES = (60, 1_000)
BOOKS_PER_SECOND = 10
TICKERS_PER_SECOND = 1
SECONDS_PER_LIQUIDATION = 5
DRAINED_FRAMES = 10_000
OPTIONS = PipelineOptions(
    groups=tuple(name for name in group_names() if name != "identity"),
    parameters=FeatureParameters(vpin_bucket_volume=5.0),
)
_SECOND_US = 1_000_000


def run(quick: bool) -> Iterator[Result]:
    """All columns of a perpetual, 7 timeframes, one processor."""
    rows, repeats = (200_000, 3) if quick else (600_000, 7)
    count = len(columns([name for name in OPTIONS.groups if name != "options"]))
    for rate in RATES:
        found = in_child(
            "benchmarks.everything:measure", {"rows": rows, "repeats": repeats, "rate": rate}, one_thread=True
        )
        whole, decoding = found["everything"], found["decoding"]
        yield Result(
            benchmark="everything",
            what=f"{count} columns, {rate} trades/s, {BOOKS_PER_SECOND} books/s, {TICKERS_PER_SECOND} ticker/s",
            measured=f"{million(rows, whole)} trades ({whole / rows * 1e9:.0f} ns, {decoding / rows * 1e9:.0f} of them "
            f"to columns), {million(rows + found['others'], whole)} rows",
            goal=f">= {GOAL_M} M/s",
            ok=rows / whole >= GOAL_M * 1e6,
        )


def measure(rows: int, repeats: int, rate: int) -> dict[str, float]:
    """Median seconds for `rows` trades with what else arrives in their time, and for decoding them alone."""
    span_us = rows * _SECOND_US // rate
    seconds = span_us // _SECOND_US
    batch = ticks.trades(rows, span_us=span_us)
    frames, local_us = ticks.frames(batch), batch["local_timestamp"]
    others = [
        feeds.books(seconds * BOOKS_PER_SECOND, span_us=span_us),
        feeds.tickers(seconds * TICKERS_PER_SECOND, span_us=span_us),
        feeds.liquidations(max(seconds // SECONDS_PER_LIQUIDATION, 1), span_us=span_us),
    ]
    routes = trade_routes([feeds.PERPETUAL])
    drained, at = [], 0
    for events in turns([batch, *others], DRAINED_FRAMES):
        # The trades of a turn come as frames, in the middle of what else arrived in its time.
        count = len(events[0].batch)
        drained.append((frames[at : at + count], local_us[at : at + count], events[1:]))
        at += count

    def decoding() -> None:
        for turn, arrived, _ in drained:
            decode_trades(turn, arrived, routes)

    def everything() -> None:
        pipeline = Pipeline(feeds.PERPETUAL, OPTIONS)
        for turn, arrived, state in drained:
            pipeline.feed([*state, *decode_trades(turn, arrived, routes).rows])
            for candles in pipeline.outputs():
                len(candles)
        accepted = {data_type: pipeline.counters[data_type].accepted for data_type in feeds.PERPETUAL.data_types}
        if accepted[DataType.TRADES] != rows or not all(accepted.values()):
            raise AssertionError(f"expected {rows} accepted trades and rows of every type, got {accepted}")

    found = medians({"decoding": decoding, "everything": everything}, repeats)
    return {**found, "others": float(sum(map(len, others)))}

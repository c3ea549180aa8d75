"""Feeds of every data type of a perpetual with all nuisances, and the three ways of running them."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.events import Event, Rows
from market_data_tick_handler.core.instruments import InstrumentDefinition, parse_instrument_key
from market_data_tick_handler.core.options import PipelineOptions
from market_data_tick_handler.core.parity import compare
from market_data_tick_handler.core.pipeline import Day, Pipeline
from market_data_tick_handler.core.ticks import BOOK_LEVELS, DataType, TickBatch
from market_data_tick_handler.core.timeframes import DAY_US, floor_us
from tests.parity.streams import INVERSE, NOON_US, last, random_trades

PERPETUAL: Final = parse_instrument_key("BINANCE-FUTURES:PERPETUAL:BTC-USDT")
MIDNIGHT_US: Final = NOON_US + DAY_US // 2
Feed = dict[DataType, TickBatch]
Columns = dict[str, Any]


def scenario(seed: int) -> tuple[InstrumentDefinition, Feed]:
    """Instrument and feed of a seed: some are inverse contracts, some cross midnight."""
    rng = np.random.default_rng(seed)
    start = MIDNIGHT_US - 6 * 60_000_000 if seed % 3 == 0 else NOON_US - int(rng.integers(0, 3600)) * 1_000_000
    return INVERSE if seed % 4 == 0 else PERPETUAL, random_feed(seed, start_us=start, minutes=float(rng.uniform(3, 14)))


def random_feed(seed: int, *, start_us: int = NOON_US, minutes: float = 12.0) -> Feed:
    """Rows of trades, books, ticker and liquidations in order of arrival, some at the same microsecond."""
    rng = np.random.default_rng(seed + 1)
    trades = random_trades(seed, start_us=start_us, minutes=minutes)
    # States may be known well before anything trades, and silent for long.
    first = start_us - int(rng.integers(0, 400)) * 1_000_000
    stop = start_us + int(minutes * 60_000_000)
    feed = {
        DataType.TRADES: trades,
        DataType.BOOK: _batch(rng, DataType.BOOK, _books(rng, _stamps(rng, first, stop, 2.0)), trades),
        DataType.DERIVATIVE: _batch(rng, DataType.DERIVATIVE, _ticker(rng, _stamps(rng, first, stop, 0.4)), trades),
        DataType.LIQUIDATIONS: random_trades(seed + 2, start_us=start_us, minutes=minutes, per_second=0.05),
    }
    feed[DataType.LIQUIDATIONS] = TickBatch(DataType.LIQUIDATIONS, feed[DataType.LIQUIDATIONS].columns)
    return feed


def _stamps(rng: np.random.Generator, start_us: int, stop_us: int, per_second: float) -> np.ndarray:
    count = max(3, int((stop_us - start_us) / 1e6 * per_second))
    stamped = np.sort(rng.integers(start_us, stop_us, count))
    silence = rng.integers(start_us, stop_us)
    stamped = stamped[(stamped < silence) | (stamped > silence + rng.integers(0, 240_000_000))]
    on_border = rng.random(len(stamped)) < 0.05
    return np.where(on_border, stamped - stamped % 15_000_000, stamped)


def _books(rng: np.random.Generator, stamped: np.ndarray) -> Columns:
    count = len(stamped)
    mid = 42_000.0 + np.round(np.cumsum(rng.normal(0, 1.5, count)), 1)
    half = rng.choice([0.05, 0.5, 0.0, -0.5], count, p=[0.6, 0.3, 0.05, 0.05])
    columns: Columns = {"timestamp": stamped}
    for level in range(1, BOOK_LEVELS + 1):
        for side, sign in (("bid", -1.0), ("ask", 1.0)):
            columns[f"{side}_price_{level}"] = mid + sign * (half + 0.5 * (level - 1))
            columns[f"{side}_volume_{level}"] = np.round(rng.lognormal(0.0, 1.0, count), 3)
            bad = rng.random(count) < 0.03
            field = f"{side}_{rng.choice(['price', 'volume'])}_{level}"
            columns[field] = np.where(bad, rng.choice([np.nan, 0.0, -1.0], count), columns[field])
    return columns


def _ticker(rng: np.random.Generator, stamped: np.ndarray) -> Columns:
    count = len(stamped)
    index = 42_000.0 + np.cumsum(rng.normal(0, 1.0, count))
    columns: Columns = {
        "funding_rate": np.round(rng.normal(1e-4, 2e-5, count), 7),
        "predicted_funding_rate": np.round(rng.normal(1e-4, 2e-5, count), 7),
        "open_interest": 81_000.0 + np.round(np.cumsum(rng.normal(0, 3.0, count)), 3),
        "last_price": index + 1.0,
        "index_price": index,
        "mark_price": index + rng.normal(0, 2.0, count),
    }
    for name, values in columns.items():
        columns[name] = np.where(rng.random(count) < 0.3, rng.choice([np.nan, np.nan, np.inf], count), values)
    funding = stamped + rng.integers(-100_000_000, 8 * 3_600_000_000, count)
    return {**columns, "funding_timestamp": np.where(rng.random(count) < 0.5, 0, funding), "timestamp": stamped}


def _batch(rng: np.random.Generator, data_type: DataType, columns: Columns, trades: TickBatch) -> TickBatch:
    """Give rows an arrival, some of them at that of a trade, some with clocks that run ahead or are nonsense."""
    stamped = columns["timestamp"]
    count = len(stamped)
    delay = rng.lognormal(9.5, 1.2, count).astype(np.int64)
    slow = rng.random(count) < 0.05
    delay[slow] = rng.integers(400_000, 40_000_000, slow.sum())
    ahead = rng.random(count) < 0.03
    delay[ahead] = -rng.integers(0, 3_000_000, ahead.sum())
    local = stamped + delay
    shared = rng.random(count) < 0.2
    near = np.minimum(np.searchsorted(trades["local_timestamp"], local), len(trades) - 1)
    local = np.where(shared, np.maximum(trades["local_timestamp"][near], stamped), local)
    wrong = rng.random(count)
    columns["timestamp"] = np.where(wrong < 0.01, 0, np.where(wrong < 0.02, local + 61_000_000, stamped))
    order = np.argsort(local, kind="stable")
    return TickBatch.build(data_type, {name: v[order] for name, v in {**columns, "local_timestamp": local}.items()})


def bounds(feed: Feed) -> tuple[int, int]:
    """The first arrival of the feed, and the microsecond after the last one."""
    arrivals = [rows["local_timestamp"] for rows in feed.values() if len(rows)]
    return min(int(lt[0]) for lt in arrivals), max(int(lt[-1]) for lt in arrivals) + 1


def between(feed: Feed, start_us: int, stop_us: int, instrument: InstrumentDefinition) -> list[Event]:
    """The rows that arrive in [start_us, stop_us), as events of one turn."""
    out: list[Event] = []
    for rows in feed.values():
        low, high = np.searchsorted(rows["local_timestamp"], [start_us, stop_us], "left")
        out.append(Rows(instrument.key, rows.slice(int(low), int(high))))
    return out


def replayed(
    feed: Feed, chosen: PipelineOptions, instrument: InstrumentDefinition
) -> tuple[Pipeline, dict[str, CandleBatch]]:
    """One turn with everything, then the end."""
    pipeline = Pipeline(instrument, chosen)
    start, stop = bounds(feed)
    pipeline.feed(between(feed, start, stop, instrument))
    pipeline.finish(stop)
    return pipeline, last(pipeline.outputs())


def streamed(
    feed: Feed, chosen: PipelineOptions, instrument: InstrumentDefinition, rng: np.random.Generator
) -> dict[str, CandleBatch]:
    """Random turns, promises in between, restarts from snapshots now and then."""
    pipeline = Pipeline(instrument, chosen)
    start, stop = bounds(feed)
    cuts = np.unique(np.concatenate([[start, stop], rng.integers(start, stop, int(rng.integers(0, 60)))]))
    out: list[CandleBatch] = []
    for begin, end in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True):
        pipeline.feed(between(feed, begin, end, instrument))
        if rng.random() < 0.6:
            pipeline.advance(int(rng.integers(begin, end + 1)))
        if rng.random() < 0.5:
            out += pipeline.outputs()
        if rng.random() < 0.2:
            state, ids = pipeline.snapshot(), pipeline.ids_snapshot()
            pipeline = Pipeline(instrument, chosen)
            pipeline.restore(state)
            pipeline.restore_ids(ids)
    pipeline.finish(stop)
    return last(out + pipeline.outputs())


def batched(
    feed: Feed, chosen: PipelineOptions, instrument: InstrumentDefinition, live: Pipeline
) -> dict[str, CandleBatch]:
    """The days of history, each with the head of the next day's file, under the gap ledger of `live`."""
    first, stop = bounds(feed)
    out: list[CandleBatch] = []
    carried: tuple[bytes, bytes] | None = None
    for start in range(floor_us(first, DAY_US), stop, DAY_US):
        pipeline = Pipeline(instrument, chosen, day=Day(start), gaps=live.gaps)
        if carried is not None:
            pipeline.restore(carried[0])
            pipeline.restore_ids(carried[1])
        end = start + DAY_US
        pipeline.feed(between(feed, start, end, instrument))
        border = pipeline.border()
        pipeline.feed(between(feed, end, end + 3_600_000_000, instrument))
        pipeline.finish_day(stop if stop < end else None)
        out += pipeline.outputs()
        carried = pipeline.handover(border)
    return last(out)


def assert_same(left: dict[str, CandleBatch], right: dict[str, CandleBatch]) -> None:
    """Equal bits in every candle and column."""
    assert left.keys() == right.keys()
    for timeframe, candles in left.items():
        report = compare(candles.columns, right[timeframe].columns)
        assert report.ok, (timeframe, report.by_kind(), report.differences[:5])
        assert report.compared > 0


def assert_parity(seed: int, *groups: str) -> None:
    """Live in any chunks with restarts == replay == batch for these groups."""
    instrument, feed = scenario(seed)
    chosen = PipelineOptions(groups=tuple(dict.fromkeys(("ohlcv", *groups))))
    pipeline, replay = replayed(feed, chosen, instrument)
    assert_same(streamed(feed, chosen, instrument, np.random.default_rng(seed)), replay)
    assert_same(batched(feed, chosen, instrument, pipeline), replay)

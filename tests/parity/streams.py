"""Random trade streams that hold every nuisance: late, duplicate, invalid, out-of-order and equal-time rows."""

from __future__ import annotations

import numpy as np

from market_data_tick_handler.core.candle_batch import CandleBatch, concat_candles
from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.instruments import InstrumentDefinition, parse_instrument_key
from market_data_tick_handler.core.options import FeatureParameters, PipelineOptions
from market_data_tick_handler.core.pipeline import Day, Pipeline
from market_data_tick_handler.core.ticks import ID_HASH, ID_INTEGER, ID_NONE, DataType, TickBatch
from market_data_tick_handler.core.timeframes import DAY_US, floor_us

SPOT = parse_instrument_key("BINANCE:SPOT_PAIR:BTC-USDT")
INVERSE = parse_instrument_key("BINANCE-DELIVERY:PERPETUAL:BTC-USD")
NOON_US = 1_704_067_200_000_000 + 12 * 3_600_000_000


def options(**changes: object) -> PipelineOptions:
    """Options with VPIN on and every group selected."""
    parameters = FeatureParameters(vpin_bucket_volume=3.0, vpin_buckets=5, large_trade_notional=40_000.0)
    return PipelineOptions(**{"parameters": parameters, **changes})  # type: ignore[arg-type]


def random_trades(seed: int, *, start_us: int = NOON_US, minutes: float = 12.0, per_second: float = 1.5) -> TickBatch:
    """Rows in order of arrival, with delays up to the revision window."""
    rng = np.random.default_rng(seed)
    count = max(4, int(rng.poisson(minutes * 60 * per_second)))
    stamped = start_us + np.sort(rng.integers(0, int(minutes * 60_000_000), count))
    return _with_nuisances(rng, stamped)


def _with_nuisances(rng: np.random.Generator, stamped: np.ndarray) -> TickBatch:
    count = len(stamped)
    repeat = rng.random(count) < 0.4
    repeat[0] = False
    stamped = stamped[np.maximum.accumulate(np.where(repeat, 0, np.arange(count)))]
    on_border = rng.random(count) < 0.02
    stamped = np.where(on_border, stamped - stamped % 15_000_000, stamped)
    delay = rng.lognormal(9.5, 1.2, count).astype(np.int64)
    late = rng.random(count) < 0.04
    delay[late] = rng.integers(400_000, 116_000_000, late.sum())
    delay[rng.random(count) < 0.02] = -rng.integers(0, 1_200_000)
    price = 42_000.0 + np.round(np.cumsum(rng.normal(0, 1.5, count)), 1)
    price[rng.random(count) < 0.3] = 42_000.0
    amount = np.round(rng.lognormal(-3.0, 1.5, count), 3) + 0.001
    ids = np.arange(count) + 1_000
    kind = np.full(count, ID_INTEGER)
    style = rng.integers(0, 3)
    if style == 1:
        kind[:] = ID_HASH
        ids = rng.integers(-(2**62), 2**62, count)
    elif style == 2:
        kind[rng.random(count) < 0.3] = ID_NONE
    columns = {
        "timestamp": stamped,
        "local_timestamp": stamped + delay,
        "id": ids,
        "id_kind": kind,
        "side": rng.choice([1, -1, 0], count, p=[0.45, 0.45, 0.1]),
        "price": price,
        "amount": amount,
    }
    again = rng.choice(count, max(1, count // 25))
    columns = {name: np.concatenate([column, column[again]]) for name, column in columns.items()}
    columns["local_timestamp"][count:] += rng.integers(0, 3_000_000, len(again))
    total = count + len(again)
    columns["price"] = np.where(rng.random(total) < 0.01, -1.0, columns["price"])
    columns["amount"] = np.where(rng.random(total) < 0.01, np.nan, columns["amount"])
    columns["timestamp"] = np.where(rng.random(total) < 0.005, 0, columns["timestamp"])
    order = np.argsort(columns["local_timestamp"], kind="stable")
    return TickBatch.build(DataType.TRADES, {name: column[order] for name, column in columns.items()})


def last(batches: list[CandleBatch]) -> dict[str, CandleBatch]:
    """Everything published per timeframe, end to end."""
    by_timeframe: dict[str, list[CandleBatch]] = {}
    for batch in batches:
        by_timeframe.setdefault(batch.timeframe, []).append(batch)
    return {timeframe: concat_candles(group) for timeframe, group in by_timeframe.items()}


def replayed(
    rows: TickBatch, chosen: PipelineOptions, instrument: InstrumentDefinition = SPOT
) -> tuple[Pipeline, dict[str, CandleBatch]]:
    """One feed of everything, then the end."""
    pipeline = Pipeline(instrument, chosen, keep_rows=True)
    pipeline.feed(Rows(instrument.key, rows))
    pipeline.finish(int(rows["local_timestamp"].max()) + 1)
    return pipeline, last(pipeline.outputs())


def batched(
    live: Pipeline, stored: list[TickBatch], chosen: PipelineOptions, instrument: InstrumentDefinition = SPOT
) -> dict[str, CandleBatch]:
    """The days of history over the rows as a live run stored them, with its gap ledger."""
    start = floor_us(min(int(rows["local_timestamp"][0]) for rows in stored), DAY_US)
    stops = [gap.from_us for gap in live.gaps if gap.reason == "service stopped"]
    stop = stops[-1] if stops else max(int(rows["local_timestamp"][-1]) for rows in stored) + 1
    out: list[CandleBatch] = []
    carried: tuple[bytes, bytes] | None = None
    while start < stop:
        pipeline = Pipeline(instrument, chosen, day=Day(start), gaps=live.gaps)
        if carried is not None:
            pipeline.restore(carried[0])
            pipeline.restore_ids(carried[1])
        end = start + DAY_US
        for rows in stored:
            cut = np.searchsorted(rows["local_timestamp"], [start, end], "left")
            pipeline.feed(Rows(instrument.key, rows.slice(int(cut[0]), int(cut[1]))))
        border = pipeline.border()
        for rows in stored:
            cut = np.searchsorted(rows["local_timestamp"], [end, end + 3_600_000_000], "left")
            pipeline.feed(Rows(instrument.key, rows.slice(int(cut[0]), int(cut[1]))))
        pipeline.finish_day(stop if stop < end else None)
        out += pipeline.outputs()
        carried = pipeline.handover(border)
        start = end
    return last(out)

"""Books, tickers and liquidations to go with the trades of `ticks`: a perpetual's other streams, made up."""

from __future__ import annotations

import numpy as np

from benchmarks.ticks import DAY_START_US
from market_data_tick_handler.core.instruments import parse_instrument_key
from market_data_tick_handler.core.ticks import BOOK_LEVELS, Array, DataType, TickBatch
from market_data_tick_handler.core.timeframes import DAY_US

PERPETUAL = parse_instrument_key("BINANCE-FUTURES:PERPETUAL:BTC-USDT")
TICK_SIZE = 0.1
# The best prices move with this share of the snapshots; the others change amounts only.
_MOVES = 0.3


def books(rows: int, *, span_us: int = DAY_US, seed: int = 2) -> TickBatch:
    """`rows` snapshots of five levels over `span_us`: mostly one tick wide, some levels a few ticks apart."""
    rng = np.random.default_rng(seed)
    columns = _times(rng, rows, span_us)
    moves = np.where(rng.random(rows) < _MOVES, rng.integers(-3, 4, rows), 0)
    best = 420_000 + np.cumsum(moves)
    wide = np.where(rng.random(rows) < 0.1, rng.integers(2, 6, rows), 1)
    bid, ask = best, best + wide
    for level in range(1, BOOK_LEVELS + 1):
        columns[f"bid_price_{level}"] = np.round(bid * TICK_SIZE, 1)
        columns[f"ask_price_{level}"] = np.round(ask * TICK_SIZE, 1)
        for side in ("bid", "ask"):
            columns[f"{side}_volume_{level}"] = np.round(rng.lognormal(0.0, 1.2, rows), 3) + 1e-3
        bid, ask = bid - rng.integers(1, 3, rows), ask + rng.integers(1, 3, rows)
    return TickBatch.build(DataType.BOOK, columns)


def tickers(rows: int, *, span_us: int = DAY_US, seed: int = 3) -> TickBatch:
    """`rows` rows of a derivative ticker: prices every time, open interest and funding rate now and then."""
    rng = np.random.default_rng(seed)
    columns = _times(rng, rows, span_us)
    index = np.round(42_000 + np.cumsum(rng.normal(0, 0.5, rows)), 2)
    columns |= {
        "index_price": index,
        "mark_price": np.round(index + rng.normal(0, 2.0, rows), 2),
        "last_price": np.round(index + rng.normal(0, 3.0, rows), 1),
        "open_interest": np.where(rng.random(rows) < 0.1, 81_000 + np.round(rng.normal(0, 50, rows), 3), np.nan),
        "funding_rate": np.round(rng.normal(1e-4, 2e-5, rows), 8),
        "funding_timestamp": np.full(rows, DAY_START_US + 8 * 3_600_000_000),
    }
    return TickBatch.build(DataType.DERIVATIVE, columns)


def liquidations(rows: int, *, span_us: int = DAY_US, seed: int = 4) -> TickBatch:
    """`rows` liquidations without ids."""
    rng = np.random.default_rng(seed)
    columns = _times(rng, rows, span_us)
    columns |= {
        "side": rng.choice([1, -1], rows),
        "price": np.round(42_000 + rng.normal(0, 20, rows), 1),
        "amount": np.round(rng.lognormal(-2, 1.5, rows), 3) + 1e-3,
    }
    return TickBatch.build(DataType.LIQUIDATIONS, columns)


def _times(rng: np.random.Generator, rows: int, span_us: int) -> dict[str, Array]:
    stamp = np.sort(rng.integers(DAY_START_US, DAY_START_US + span_us, rows))
    arrival = np.maximum.accumulate(stamp + rng.lognormal(8.5, 0.5, rows).astype(np.int64))
    return {"timestamp": stamp, "local_timestamp": np.minimum(arrival, DAY_START_US + DAY_US - 1)}

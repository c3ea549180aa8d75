"""The input of the benchmarks: a made-up day with the shape of a busy spot market, in every form it can arrive in."""

from __future__ import annotations

import gzip
from datetime import date
from pathlib import Path

import numpy as np

from market_data_tick_handler.core.instruments import parse_instrument_key
from market_data_tick_handler.core.ticks import DataType, TickBatch
from market_data_tick_handler.core.timeframes import DAY_US
from market_data_tick_handler.storage.paths import raw_ticks_path
from market_data_tick_handler.storage.raw_ticks import ROW_GROUP_ROWS, RawTickWriter

DAY = date(2024, 1, 1)
DAY_START_US = 1_704_067_200_000_000
INSTRUMENT = parse_instrument_key("BINANCE:SPOT_PAIR:BTC-USDT")
FIRST_ID = 10**9
CSV_NAME = f"binance_trades_{DAY.isoformat()}_BTCUSDT.csv.gz"
_COMPRESSION_LEVEL = 2


def trades(rows: int, *, span_us: int = DAY_US, seed: int = 1) -> TickBatch:
    """`rows` trades over `span_us`: more than half share the millisecond of the one before, delays have a long tail,
    sides come in runs, ids count up."""
    rng = np.random.default_rng(seed)
    stamp = np.sort(rng.integers(DAY_START_US, DAY_START_US + span_us, rows))
    repeats = rng.random(rows) < 0.55
    repeats[0] = False
    stamp = stamp[np.maximum.accumulate(np.where(repeats, 0, np.arange(rows)))]
    stamp -= stamp % 1_000
    arrival = np.maximum.accumulate(stamp + rng.lognormal(8.5, 0.5, rows).astype(np.int64))
    steps = rng.choice([-0.1, 0.0, 0.0, 0.0, 0.1], rows)
    flips = rng.random(rows) < 0.25
    return TickBatch.build(
        DataType.TRADES,
        {
            "timestamp": stamp,
            "local_timestamp": np.minimum(arrival, DAY_START_US + DAY_US - 1),
            "id": np.arange(rows) + FIRST_ID,
            "id_kind": np.ones(rows, np.uint8),
            "side": np.where(np.cumsum(flips) % 2 == 0, 1, -1),
            "price": np.round(42_000 + np.cumsum(steps), 2),
            "amount": np.round(rng.lognormal(-4, 1.5, rows), 5) + 1e-5,
        },
    )


def frames(batch: TickBatch) -> list[bytes]:
    """The rows as frames of the combined spot stream, as the venue writes them."""
    names = ("timestamp", "id", "side", "price", "amount")
    waited = {1: b"false", -1: b"true"}
    return [
        b'{"stream":"btcusdt@trade","data":{"e":"trade","E":%d,"s":"BTCUSDT","t":%d,"p":"%.8f","q":"%.8f","T":%d,'
        b'"m":%s,"M":true}}' % (stamp // 1_000 + 1, id_, price, amount, stamp // 1_000, waited[side])
        for stamp, id_, side, price, amount in zip(*(batch[name].tolist() for name in names), strict=True)
    ]  # fmt: skip


def write_day(root: str, rows: int) -> None:
    """The day as a raw day file under the store `root`, as the service writes it."""
    batch = trades(rows)
    with RawTickWriter(root) as writer:
        for start in range(0, rows, ROW_GROUP_ROWS):
            writer.write(INSTRUMENT.key, batch.slice(start, min(rows, start + ROW_GROUP_ROWS)))


def write_csv(path: str, rows: int) -> None:
    """The day as a Tardis file."""
    import polars as pl

    batch = trades(rows)
    frame = pl.DataFrame(
        {
            "exchange": pl.repeat("binance", rows, eager=True),
            "symbol": pl.repeat("BTCUSDT", rows, eager=True),
            **{name: batch[name] for name in ("timestamp", "local_timestamp", "id")},
            "side": np.where(batch["side"] > 0, "buy", "sell"),
            "price": batch["price"],
            "amount": np.round(batch["amount"], 5),
        }
    )
    text = frame.write_csv().encode()
    Path(path).write_bytes(gzip.compress(text, compresslevel=_COMPRESSION_LEVEL))


def day_file(root: Path) -> Path:
    """Where `write_day` puts the day."""
    return root / raw_ticks_path(DAY, DataType.TRADES, INSTRUMENT.key)

"""The peer of the history path: 15s bars by group_by, every longer bar from them, in polars.

Its fastest form of several that were tried: buy and sell sums by when/then, the streaming engine.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

LONGER_S = (60, 300, 900, 3_600, 14_400, 86_400)
SUMS = (
    "trade_count", "volume", "quote_volume", "buy_volume_sum", "sell_volume_sum", "buy_quote_volume",
    "sell_quote_volume", "buy_count", "sell_count",
)  # fmt: skip
_CSV_TYPES = {
    "timestamp": pl.Int64, "local_timestamp": pl.Int64, "id": pl.Int64, "price": pl.Float64, "amount": pl.Float64,
}  # fmt: skip


def from_parquet(path: str) -> list[pl.DataFrame]:
    """Bars of a raw day file, 15s first."""
    return _bars(pl.scan_parquet(path), buy=1, sell=-1)


def from_csv(path: str) -> list[pl.DataFrame]:
    """Bars of a Tardis file, plain or gzip."""
    return _bars(pl.scan_csv(path, schema_overrides=_CSV_TYPES), buy="buy", sell="sell")


def differences(ours: list[Any], bars: list[pl.DataFrame]) -> list[str]:
    """Columns in which our candles (shortest first) are not the peer's bars, sums to 1e-9."""
    return [
        f"{batch.timeframe} {name}"
        for batch, frame in zip(ours, bars, strict=True)
        for name in ("open", "high", "low", "close", *SUMS)
        if not _same(np.asarray(batch[name]), np.asarray(batch["trade_count"]), frame[name].to_numpy())
    ]


def _same(values: Any, counts: Any, expected: Any) -> bool:
    # The peer has no bar where nothing traded.
    held = values[counts > 0]
    return len(held) == len(expected) and bool(np.allclose(held, expected, rtol=1e-9, atol=0.0))


def _bars(ticks: pl.LazyFrame, *, buy: str | int, sell: str | int) -> list[pl.DataFrame]:
    price, amount, side = pl.col("price"), pl.col("amount"), pl.col("side")
    parts = ticks.select(
        "price",
        bar=pl.col("timestamp") // 15_000_000,
        volume=amount,
        quote_volume=price * amount,
        buy_count=side == buy,
        sell_count=side == sell,
    ).with_columns(
        buy_volume_sum=pl.when("buy_count").then("volume"),
        sell_volume_sum=pl.when("sell_count").then("volume"),
        buy_quote_volume=pl.when("buy_count").then("quote_volume"),
        sell_quote_volume=pl.when("sell_count").then("quote_volume"),
    )
    ohlc = [price.first().alias("open"), price.max().alias("high"), price.min().alias("low")]
    sums = [pl.col(name).sum() for name in SUMS if name != "trade_count"]
    bars = parts.group_by("bar").agg(*ohlc, price.last().alias("close"), pl.len().alias("trade_count"), *sums)
    shortest = bars.collect(engine="streaming").sort("bar")
    return [shortest, *(_rolled(shortest, seconds) for seconds in LONGER_S)]


def _rolled(bars: pl.DataFrame, seconds: int) -> pl.DataFrame:
    ohlc = [pl.col("open").first(), pl.col("high").max(), pl.col("low").min(), pl.col("close").last()]
    longer = bars.group_by(pl.col("bar") // (seconds // 15)).agg(*ohlc, *(pl.col(name).sum() for name in SUMS))
    return longer.sort("bar")

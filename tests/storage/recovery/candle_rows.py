"""Candles for tests of the output journal: real ones of a pipeline, and small ones written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from market_data_tick_handler.core.candle_batch import CandleBatch, newest_rows
from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.instruments import InstrumentDefinition, parse_instrument_key
from market_data_tick_handler.core.pipeline import Pipeline
from market_data_tick_handler.core.ticks import Array
from market_data_tick_handler.core.timeframes import Timeframe
from tests.parity.streams import last, options, random_trades

PERPETUAL = parse_instrument_key("BINANCE-FUTURES:PERPETUAL:BTC-USDT")
KEY = PERPETUAL.key
START_US = 1_704_067_200_000_000


@cache
def pipeline_candles() -> tuple[CandleBatch, ...]:
    """Candles of every column a perpetual has, one batch per timeframe, each candle once."""
    pipeline = Pipeline(PERPETUAL, options())
    rows = random_trades(3, minutes=12.0)
    pipeline.feed(Rows(KEY, rows))
    pipeline.finish(int(rows["local_timestamp"].max()) + 1)
    return tuple(newest_rows(batch) for batch in last(pipeline.outputs()).values())


def in_columns(batch: CandleBatch) -> CandleBatch:
    """The same rows without records."""
    return CandleBatch(
        batch.instrument, batch.timeframe, batch.columns, batch.feature_version, batch.absent, batch.config_hash,
        batch.digests, batch.sequences,
    )  # fmt: skip


def candles(
    numbers: Sequence[int],
    contents: Sequence[float],
    timeframe: Timeframe = Timeframe.S15,
    *,
    revisions: Sequence[int] | int = 0,
    instrument: InstrumentDefinition = PERPETUAL,
    config_hash: str = "settings",
    **more: Array,
) -> CandleBatch:
    """Candles by their number since START_US; `contents` is what makes two of them equal."""
    count = len(numbers)
    columns = {
        "timestamp": START_US + timeframe.us * np.asarray(numbers, np.int64),
        "close": np.asarray(contents, float),
        "quality": np.array(["COMPLETE"] * count, "<U8"),
        "is_empty": np.zeros(count, bool),
        "revision": np.broadcast_to(np.asarray(revisions, np.int64), (count,)).copy(),
        "timestamp_out": np.zeros(count, np.int64),
        **more,
    }
    return CandleBatch(instrument, timeframe, columns, "1.0", ("funding_rate",), config_hash, digests(contents))


def digests(contents: Sequence[float]) -> Array:
    """A digest per content."""
    bits = np.asarray(contents, float).view(np.uint64)
    return np.stack([bits, ~bits], axis=1)


def assert_same(one: CandleBatch, other: CandleBatch) -> None:
    """Equal in every bit and every constant."""
    assert repr(one.instrument) == repr(other.instrument)
    assert (one.timeframe, one.feature_version, one.absent, one.config_hash) == (
        other.timeframe,
        other.feature_version,
        other.absent,
        other.config_hash,
    )
    assert list(one.columns) == list(other.columns)
    for name, column in one.columns.items():
        assert column.dtype == other[name].dtype, name
        same = (
            column.tolist() == other[name].tolist()
            if column.dtype == object
            else column.tobytes() == other[name].tobytes()
        )
        assert same, name

"""Candle files of a store, and their rows in the form that the core compares."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from market_data_tick_handler.errors import NotFound

if TYPE_CHECKING:
    from market_data_tick_handler.core.candle_batch import CandleBatch
    from market_data_tick_handler.core.timeframes import Timeframe


@dataclass(frozen=True, slots=True, order=True)
class CandleFile:
    """One day of candles of one instrument and timeframe."""

    instrument: str
    timeframe: Timeframe
    day: date


def candle_files(root: Path) -> set[CandleFile]:
    """Every candle file below a store root.

    Raises:
        NotFound: the root has no candles.
    """
    from market_data_tick_handler.storage.paths import CANDLES, parse_path

    found = {parse_path(path.relative_to(root).as_posix()) for path in (root / CANDLES).glob("by_date/*/*/*.parquet")}
    if not found:
        raise NotFound(
            f"{root}: expected candles under {CANDLES}/, found none; give the directory that holds {CANDLES}"
        )
    return {CandleFile(each.name, each.timeframe, each.day) for each in found if each.timeframe is not None}


def read_batch(root: Path, file: CandleFile) -> CandleBatch:
    """The candles of one file. Nulls become NaN.

    Raises:
        NotFound, CorruptObject: there is no such file, or it cannot be read.
    """
    from market_data_tick_handler.storage.candle_files import read_candles

    return as_batch(read_candles(root, file.instrument, file.timeframe, file.day, file.day), file)


def as_batch(table: Any, file: CandleFile) -> CandleBatch:
    """An Arrow table of one instrument and timeframe as a candle batch."""
    from market_data_tick_handler.core.candle_batch import CandleBatch
    from market_data_tick_handler.core.instruments import parse_instrument_key

    instrument = parse_instrument_key(file.instrument)
    versions = table["feature_version"].unique().to_pylist() if "feature_version" in table.column_names else []
    batch = CandleBatch(instrument, file.timeframe, {}, ",".join(versions))
    columns = {name: _array(table[name]) for name in table.column_names if name not in batch.constants}
    return CandleBatch(instrument, file.timeframe, columns, batch.feature_version)


def _array(column: Any) -> Any:
    import numpy as np
    import pyarrow as pa

    if pa.types.is_timestamp(column.type):
        return column.cast(pa.int64()).to_numpy()
    if pa.types.is_string(column.type) or pa.types.is_boolean(column.type):
        return np.array(column.to_pylist())
    return column.to_numpy()

"""Candle files of a store, and their columns in the form that the core compares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from market_data_tick_handler.errors import NotFound

if TYPE_CHECKING:
    from market_data_tick_handler.core.ticks import Array
    from market_data_tick_handler.core.timeframes import Timeframe


@dataclass(frozen=True, slots=True, order=True)
class CandleFile:
    """One day of candles of one instrument and timeframe."""

    instrument: str
    timeframe: Timeframe
    day: date


def candle_files(root: Path, *, tables: Sequence[str] = ()) -> set[CandleFile]:
    """Every candle file of these tables below a store root, `processed_candles` where none is named.

    Raises:
        NotFound: the root has no candles.
    """
    from market_data_tick_handler.storage.paths import CANDLES, parse_path

    paths = [path for table in tables or (CANDLES,) for path in (root / table).glob("by_date/*/*/*.parquet")]
    found = {parse_path(path.relative_to(root).as_posix()) for path in paths}
    if not found:
        raise NotFound(
            f"{root}: expected candles under {CANDLES}/, found none; give the directory that holds {CANDLES}"
        )
    return {CandleFile(each.name, each.timeframe, each.day) for each in found if each.timeframe is not None}


def read_columns(root: Path, file: CandleFile) -> dict[str, Array]:
    """The candles of one file as columns: times in us, nulls as NaN.

    Raises:
        NotFound, CorruptObject: there is no such file, or it cannot be read.
    """
    from market_data_tick_handler.storage.candle_files import candle_columns, read_candles

    return candle_columns(read_candles(root, file.instrument, file.timeframe, file.day, file.day))

"""Takes the candles of an earlier run out of the way of a new one: a higher revision of theirs must not outlive it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.timeframes import DAY_US
from market_data_tick_handler.errors import CorruptObject
from market_data_tick_handler.storage.local_files import replacing
from market_data_tick_handler.storage.paths import candles_path, day_of


class EarlierCandles:
    """Forgets, in every day file that a run touches, what lies from the run's first candle in it on."""

    def __init__(self, store_root: str | Path) -> None:
        self._root = Path(store_root)
        self._touched: set[Path] = set()

    def forget(self, batch: CandleBatch) -> None:
        """Call with each batch, in order, before it is written."""
        for day in np.unique(batch["timestamp"] // DAY_US).tolist():
            path = self._root / candles_path(day_of(day * DAY_US), batch.timeframe, batch.instrument.key)
            if path in self._touched:
                continue
            self._touched.add(path)
            if path.is_file():
                times = batch["timestamp"]
                _keep_before(path, int(times[times // DAY_US == day].min()))


def _keep_before(path: Path, time_us: int) -> None:
    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
    except (pa.ArrowInvalid, OSError) as error:
        raise CorruptObject(
            f"{path}: expected a whole Parquet file, got: {error}; delete it and compute the day again"
        ) from error
    kept = table.filter(pa.array(table["timestamp"].cast(pa.int64()).to_numpy() < time_us))
    if not kept.num_rows:
        path.unlink()
        return
    with replacing(path) as temporary:
        pq.write_table(kept, temporary, compression="zstd")

"""Raw day files from the journals of a running service, so that a crash costs no row and a repair none of its own."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np

from market_data_tick_handler.core.ticks import DataType, TickBatch
from market_data_tick_handler.storage.local_files import local_root
from market_data_tick_handler.storage.paths import raw_ticks_path
from market_data_tick_handler.storage.raw_ticks import RawTickWriter, read_tick_file
from market_data_tick_handler.storage.recovery.tick_journal import TickJournal


def archive_day(store_root: str | Path, journal: TickJournal, instrument_key: str, day: date) -> dict[Path, int]:
    """Write the day files of one instrument: every row of the journal received that day, repaired ones in their place,
    behind rows of an earlier file from before the journal began. Returns the rows of each file.

    Raises:
        CorruptObject: the journal or the earlier file cannot be read.
    """
    with RawTickWriter(store_root) as writer:
        for data_type in DataType:
            earlier = local_root(store_root) / raw_ticks_path(day, data_type, instrument_key)
            before = list(_rows_before(earlier, data_type, journal.first_us))
            rows = journal.day_rows(day, data_type)
            for batch in (*before, *rows):
                writer.write(instrument_key, batch)
        writer.close()
        return writer.files


def _rows_before(path: Path, data_type: DataType, time_us: int) -> Iterator[TickBatch]:
    if not path.is_file():
        return
    for batch in read_tick_file(path, data_type):
        stop = int(np.searchsorted(batch["local_timestamp"], time_us, "left"))
        yield batch.slice(0, stop)
        if stop < len(batch):
            return

"""Pipeline snapshots per day and instrument, written whole or not at all."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from market_data_tick_handler.storage.local_files import local_root, write_bytes
from market_data_tick_handler.storage.paths import CHECKPOINTS, checkpoint_path, parse_day


def put_checkpoint(store_root: str | Path, day: date, instrument_key: str, data: bytes) -> Path:
    """Store the state after `day`; an older one of the same day is replaced."""
    path = local_root(store_root) / checkpoint_path(day, instrument_key)
    write_bytes(path, data)
    return path


def get_checkpoint(store_root: str | Path, day: date, instrument_key: str) -> bytes | None:
    """The state after `day`, or None: the caller starts cold and says so."""
    path = local_root(store_root) / checkpoint_path(day, instrument_key)
    return path.read_bytes() if path.is_file() else None


def checkpoint_days(store_root: str | Path, instrument_key: str) -> list[date]:
    """Days that have a checkpoint of the instrument, in order."""
    found = (local_root(store_root) / CHECKPOINTS / "by_date").glob(f"day-*/{instrument_key}.bin")
    return sorted(parse_day(path.parent.name.removeprefix("day-")) for path in found)

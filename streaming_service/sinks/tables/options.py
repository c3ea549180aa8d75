"""What a sink of tables goes by, whatever keeps the tables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from market_data_tick_handler.config.outputs import BatchTimeouts


@dataclass(frozen=True, slots=True)
class SinkOptions:
    """spool_path, spool_bytes: local disk between the pipelines and the tables. timeouts: longest wait of rows there.
    max_batch_rows: rows that are sent without waiting any longer."""

    spool_path: str | Path
    spool_bytes: int
    timeouts: BatchTimeouts
    max_batch_rows: int

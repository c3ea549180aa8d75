"""Rows on local disk between the pipeline and a slow target: durable before they are acknowledged, gone when confirmed.

One directory, one log per table (table_spool.py), one budget: when the spool is full, or the disk is, `append` says so
with `SinkBusy`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from market_data_tick_handler.errors import SinkBusy
from streaming_service.sinks.spool_disk import FULL_RETRY_S, telling
from streaming_service.sinks.table_spool import TableSpool

SEGMENT_BYTES: Final = 32 << 20
_RESERVE_BYTES: Final = 1 << 20
_SEGMENT_NAME: Final = re.compile(r"(?P<table>\w+)-\d{10}\.log")


class Spool:
    """The spools of all tables of one service, in one directory and within one budget.

    max_bytes: of all files; what would go beyond is refused.
    """

    def __init__(self, root: str | Path, *, max_bytes: int, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.root = Path(root)
        self.max_bytes = max_bytes
        self._segment_bytes = segment_bytes
        self._tables: dict[str, TableSpool] = {}
        # Bytes of other files that count against the budget.
        self.extra_bytes = 0

    def open(self) -> None:
        """Make the directory, and keep room for the records that make room.

        Raises:
            SinkError: the directory cannot be made.
        """
        with telling(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
        self.extra_bytes = sum(path.stat().st_size for path in self.root.glob("dead_letters/**/*.jsonl"))
        self._make_reserve()

    @property
    def size_bytes(self) -> int:
        """Bytes on disk."""
        return sum(table.size_bytes for table in list(self._tables.values())) + self.extra_bytes

    @property
    def tables(self) -> dict[str, TableSpool]:
        """Those opened so far."""
        return dict(self._tables)

    def names_on_disk(self) -> list[str]:
        """Tables that an earlier run left files of."""
        if not self.root.is_dir():
            return []
        found = (_SEGMENT_NAME.fullmatch(path.name) for path in self.root.iterdir())
        return sorted({match["table"] for match in found if match})

    def table(self, name: str) -> TableSpool:
        """The spool of a table, as it was left.

        Raises:
            ConfigError: another process has it open. SchemaMismatch: the files are of another kind. SinkError: the
                disk fails.
        """
        if name not in self._tables:
            with telling(self.root):
                self._tables[name] = TableSpool(self, name, segment_bytes=self._segment_bytes)
        return self._tables[name]

    def admit(self, data_bytes: int) -> None:
        """Raises:
        SinkBusy: this much more does not fit into the budget.
        """
        size = self.size_bytes
        if size + data_bytes > self.max_bytes:
            raise SinkBusy(
                f"{self.root}: the spool holds {size} bytes of at most {self.max_bytes}; expected the tables to take "
                f"rows faster than they come: look at the target's errors, or raise persist.bigquery.spool.max_bytes",
                retry_after=FULL_RETRY_S,
            )

    def close(self) -> None:
        """Sync and release all files."""
        tables, self._tables = self._tables, {}
        for table in tables.values():
            table.close()

    @property
    def _reserve(self) -> Path:
        return self.root / "reserve"

    def _make_reserve(self) -> None:
        """Room on the disk that only records which lead to confirmations may use: without them a full disk would stay
        full."""
        if self._reserve.exists():
            return
        try:
            with self._reserve.open("wb") as file:
                file.write(bytes(_RESERVE_BYTES))
        except OSError:
            self._reserve.unlink(missing_ok=True)

    def release_reserve(self) -> bool:
        """Give the reserved room to the disk; False if it is in use already."""
        there = self._reserve.exists()
        self._reserve.unlink(missing_ok=True)
        return there

    def restore_reserve(self) -> None:
        """Take the reserved room again, if there is any."""
        self._make_reserve()

"""Rows that a table will never take, with the reason, in files for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import orjson

from market_data_tick_handler.errors import SinkBusy, SinkError
from market_data_tick_handler.storage.local_files import write_bytes

DIRECTORY: Final = "dead_letters"
_LISTED: Final = 3


class DeadLetters:
    """Files `dead_letters/{table}/{first row of the batch}.jsonl` under `root`: `{row, reason, values}` a line.

    A file is written whole or not at all, and the same batch gives the same file, so that a crash in between leaves no
    line twice.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root) / DIRECTORY

    def write(self, table: str, name: str, rows: Iterable[tuple[int, str, Mapping[str, Any]]]) -> int:
        """Keep rows as (number, reason, values); the bytes they take on disk.

        Raises:
            SinkBusy: the disk is full. SinkError: it fails.
        """
        lines = [
            orjson.dumps(
                {"row": number, "reason": reason, "values": values}, default=str, option=orjson.OPT_APPEND_NEWLINE
            )
            for number, reason, values in rows
        ]
        data = b"".join(lines)
        path = self.root / table / f"{name}.jsonl"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, data)
        except OSError as error:
            raise SinkBusy(f"cannot keep refused rows in {path}: {error.strerror or error}; free space") from error
        return len(data)

    def read(self, table: str) -> list[dict[str, Any]]:
        """All rows kept of a table, in order.

        Raises:
            SinkError: a file is not what was written.
        """
        found: list[dict[str, Any]] = []
        for path in sorted((self.root / table).glob("*.jsonl")):
            try:
                found += map(orjson.loads, path.read_bytes().splitlines())
            except orjson.JSONDecodeError as error:
                raise SinkError(f"{path}: expected a row a line, got: {error}; move the file away") from error
        return found


def summary(reasons: Iterable[str]) -> str:
    """The first few distinct reasons, for a log line."""
    distinct = list(dict.fromkeys(reasons))
    more = f" and {len(distinct) - _LISTED} more" if len(distinct) > _LISTED else ""
    return "; ".join(distinct[:_LISTED]) + more

"""Keys of ids seen, per data type and UTC day: files that checkpoints add to and never write again.

A record holds keys and, as its stamp, the number of the first of them in its day. One that begins before the end of
what the file has so far takes its place from there on: a pipeline was set back to an older state and went on. So a
state names its keys by the size of the file when it was saved, and stays readable whatever is written later.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from market_data_tick_handler.core.seen_ids import LoggedIds
from market_data_tick_handler.core.ticks import Array, DataType
from market_data_tick_handler.core.timeframes import DAY_US
from market_data_tick_handler.errors import CorruptObject, OutOfRange
from market_data_tick_handler.storage.paths import day_of
from market_data_tick_handler.storage.recovery.framing import Finding, frame, read_records, survey

_NAME: Final = re.compile(r"ids-(?P<type>[a-z0-9_]+)-(?P<day>\d+)-\d{4}-\d{2}-\d{2}\.log")
_KEY_BYTES: Final = 8


class LogEnd(NamedTuple):
    """Bytes of a file, and the number of keys they make."""

    size: int
    keys: int


class IdLogs:
    """The id files of one instrument in `directory`. Used by one thread at a time."""

    def __init__(self, directory: Path, findings: list[Finding]) -> None:
        self._directory = directory
        self._findings = findings
        self._ends: dict[tuple[DataType, int], LogEnd] = {}

    def append(self, data_type: DataType, parts: Sequence[LoggedIds]) -> None:
        """Add keys, durably.

        Raises:
            OutOfRange: keys before these are missing.
        """
        for part in parts:
            end = self.end(data_type, part.day)
            if part.start > end.keys:
                raise OutOfRange(
                    f"{self._path(data_type, part.day)}: expected keys from number {end.keys} on, got them from "
                    f"{part.start} on; give all that the pipeline has: ids_log({{}})"
                )
            if len(part.keys) or part.start < end.keys:
                self._append(data_type, part, end)

    def _append(self, data_type: DataType, part: LoggedIds, end: LogEnd) -> None:
        data = frame(part.start, part.keys.tobytes())
        with self._path(data_type, part.day).open("ab") as file:
            # What lies behind the whole records was cut off or damaged, and no state can name it.
            file.truncate(end.size)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        self._ends[data_type, part.day] = LogEnd(end.size + len(data), part.start + len(part.keys))

    def end(self, data_type: DataType, day: int) -> LogEnd:
        """How far the keys of a day (days since 1970) have got."""
        known = self._ends.get((data_type, day))
        if known is None:
            known = self._ends[data_type, day] = self._find_end(self._path(data_type, day))
        return known

    def _find_end(self, path: Path) -> LogEnd:
        if not path.is_file():
            return LogEnd(0, 0)
        found = survey(path)
        if found.torn:
            text = "keys behind it cannot be read" if found.damaged else "the last keys are torn; they were cut off"
            self._findings.append(Finding(path, found.end, found.size - found.end, found.damaged, text))
        last = found.last
        return LogEnd(found.end, 0 if last is None else last.stamp + len(last.payload) // _KEY_BYTES)

    def read(self, data_type: DataType, day: int, end: LogEnd) -> Array:
        """The keys that a day had when its file was of this size.

        Raises:
            CorruptObject: they are not all there.
        """
        path = self._path(data_type, day)
        keys = np.empty(end.keys, np.uint64)
        count = 0
        try:
            for record in read_records(path, 0, end.size) if end.size else ():
                part = np.frombuffer(record.payload, np.uint64)
                if record.stamp > count:
                    raise CorruptObject(
                        f"{path}: keys {count} to {record.stamp} are missing; start from an older state"
                    )
                count = record.stamp + len(part)
                # Keys beyond the end were taken back later.
                room = keys[record.stamp : count]
                room[:] = part[: len(room)]
        except FileNotFoundError:
            raise CorruptObject(f"{path}: expected {end.keys} keys, but the file is gone") from None
        if count != end.keys:
            raise CorruptObject(f"{path}: expected {end.keys} keys, got {count}; start from an older state")
        return keys

    def forget(self, before_day: int) -> None:
        """Remove the files of days before this one."""
        for path in self._directory.glob("ids-*.log"):
            match = _NAME.fullmatch(path.name)
            if match and int(match["day"]) < before_day:
                path.unlink()
                self._ends.pop((DataType(match["type"]), int(match["day"])), None)

    def _path(self, data_type: DataType, day: int) -> Path:
        return self._directory / f"ids-{data_type}-{day}-{day_of(day * DAY_US).isoformat()}.log"


def tree_of(ends: Mapping[DataType, Sequence[tuple[int, LogEnd]]]) -> dict[str, list[list[int]]]:
    """As JSON: per data type [day, size, count] of each day."""
    return {data_type.value: [[day, *end] for day, end in days] for data_type, days in ends.items()}


def ends_of(tree: Mapping[str, Sequence[Sequence[int]]]) -> dict[DataType, list[tuple[int, LogEnd]]]:
    """What `tree_of` was given."""
    return {DataType(name): [(day, LogEnd(size, count)) for day, size, count in days] for name, days in tree.items()}

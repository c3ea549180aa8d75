"""The files of a log: what they are called, what their headers say, and which of them are whole."""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from market_data_tick_handler.errors import ConfigError, SchemaMismatch
from market_data_tick_handler.storage.recovery.framing import Finding, Record, Survey, read_record, survey


class Position(NamedTuple):
    """A place between two records. Positions of one log are in the order of its records."""

    segment: int
    offset: int


@dataclass(slots=True)
class Segment:
    """One file: its number, its header (empty: unreadable), the stamp of its first record, where its records begin
    and end."""

    number: int
    path: Path
    header: dict[str, Any]
    first_us: int
    begin: int
    end: int


class Entry(NamedTuple):
    """A record and what it takes to decode it and to go on behind it."""

    record: Record
    segment: Segment

    @property
    def start(self) -> Position:
        return Position(self.segment.number, self.record.offset)

    @property
    def position(self) -> Position:
        """Behind the record."""
        return Position(self.segment.number, self.record.end)


def find_segments(
    directory: Path, series: str, identity: Mapping[str, Any], findings: list[Finding]
) -> tuple[list[Segment], Survey | None]:
    """The files of a series in order, and what is whole of the last one (None: there is none). Last files that died
    with their first record are removed.

    Raises:
        SchemaMismatch: a header is of another kind, format or instrument.
    """
    paths = _numbered(directory, series)
    found = _drop_stillborn(paths, findings)
    segments = [_read_header(number, path, identity, findings) for number, path in paths]
    for before, after in reversed(list(pairwise(segments))):
        if not before.header:
            before.first_us = after.first_us
        if after.header and after.number == before.number + 1:
            # A file that is shorter than it was when the next one was begun has lost its end.
            before.end = int(after.header["previous_bytes"])
    return segments, found


def _drop_stillborn(paths: list[tuple[int, Path]], findings: list[Finding]) -> Survey | None:
    """Remove last files that died with their first record; what is whole of the last one that did not."""
    while paths:
        path = paths[-1][1]
        found = survey(path)
        if found.count > 1 or found.damaged:
            return found
        findings.append(Finding(path, 0, found.size, False, "the first record is torn; the file was removed"))
        path.unlink()
        paths.pop()
    return None


def _read_header(number: int, path: Path, identity: Mapping[str, Any], findings: list[Finding]) -> Segment:
    size = path.stat().st_size
    with path.open("rb") as file:
        record = read_record(file, 0, size)
    if record is None:
        findings.append(Finding(path, 0, size, True, "the header of the file is not whole"))
        return Segment(number, path, {}, 0, 0, size)
    header = json.loads(record.payload)
    came = {name: header.get(name) for name in identity}
    if came != identity:
        raise SchemaMismatch(
            f"{path}: expected a log of {identity}, got {came}; give this service a directory of its own"
        )
    return Segment(number, path, header, record.stamp, record.end, size)


def write_all(fd: int, data: bytes) -> None:
    """All of it, in one write unless the system takes less at once."""
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, memoryview(data)[written:])


def _numbered(directory: Path, series: str) -> list[tuple[int, Path]]:
    name = re.compile(rf"{re.escape(series)}-(\d{{10}})\.log")
    found = ((name.fullmatch(path.name), path) for path in directory.iterdir())
    return sorted((int(match[1]), path) for match, path in found if match)


def lock_file(path: Path) -> int:
    """Hold a log for this process; the system lets go when the process ends, however it ends.

    Raises:
        ConfigError: another process holds it.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise ConfigError(
            "the log is open already: two services would write into each other's records",
            path=str(path),
            hint="stop the other one, or give this one a directory of its own",
        ) from None
    return fd


def sync_directory(directory: Path) -> None:
    """Make the names of new files outlive the machine."""
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

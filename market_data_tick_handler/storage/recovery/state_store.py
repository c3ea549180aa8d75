"""States of a pipeline over time, so that a restart loses seconds and a repair can begin before the gap.

A state is one file: a record that says what it is, the compressed snapshot, and the mark of the ids seen. The ids
themselves are in the id logs beside it, which a state names by their sizes. Files appear whole or not at all; one that
cannot be read all the same is passed over and told.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, Final

import pyarrow as pa

from market_data_tick_handler.core.seen_ids import LoggedIds, log_end
from market_data_tick_handler.core.snapshot import unpack
from market_data_tick_handler.core.ticks import Array, DataType
from market_data_tick_handler.errors import CorruptObject, OutOfRange
from market_data_tick_handler.storage.local_files import write_bytes
from market_data_tick_handler.storage.recovery.framing import Finding, frame, read_records
from market_data_tick_handler.storage.recovery.id_logs import IdLogs, LogEnd, ends_of, tree_of
from market_data_tick_handler.storage.recovery.segment_files import Position

_FORMAT: Final = 1
_RECORDS: Final = 3
_SUFFIX: Final = ".state"
_KEPT: Final = 3
_MINUTE_US: Final = 60_000_000
_QUARTER_US: Final = 15 * _MINUTE_US
DEFAULT_WINDOW_US: Final = 86_400_000_000


def states_kept(window_us: int = DEFAULT_WINDOW_US) -> int:
    """How many states of an instrument there are at most: the last ones, then one a minute, then one a quarter."""
    return _KEPT + _QUARTER_US // _MINUTE_US + 1 + window_us // _QUARTER_US + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A pipeline at one moment.

    clock_us: its arrival clock. snapshot: `Pipeline.snapshot()`. ids: `Pipeline.ids_mark()`. position: where the tick
    journal goes on behind it. extra: anything else, as JSON. id_keys: per data type the keys of the mark's day and of
    the day before, as `Pipeline.restore_ids` takes them; filled by `StateStore.newest`, not looked at by `save`.
    """

    clock_us: int
    snapshot: bytes
    position: Position
    ids: bytes = b""
    extra: Mapping[str, Any] = field(default_factory=dict)
    id_keys: Mapping[DataType, tuple[Array, Array]] = field(default_factory=dict)

    @property
    def id_marks(self) -> dict[DataType, Mapping[str, Any]]:
        """The unpacked marks of the ids."""
        return {DataType(name): mark for name, mark in unpack(self.ids).items()} if self.ids else {}

    @property
    def logged(self) -> dict[DataType, tuple[int, int]]:
        """What to give to `Pipeline.ids_log` for the next state after this one."""
        return {data_type: log_end(mark) for data_type, mark in self.id_marks.items()}


class StateStore:
    """The states of one instrument: the files `state-*` and `ids-*` of `directory`.

    window_us: how far back a repair may begin. Methods may be called from any thread, one at a time runs.
    findings: files that could not be read, and tails that were cut.
    """

    def __init__(self, directory: str | Path, instrument_key: str, *, window_us: int = DEFAULT_WINDOW_US) -> None:
        self.instrument_key = instrument_key
        self.findings: list[Finding] = []
        self._directory = Path(directory)
        self._directory.mkdir(parents=True, exist_ok=True)
        self._window_us = window_us
        self._ids = IdLogs(self._directory, self.findings)
        self._codec = pa.Codec("zstd", compression_level=1)
        self._lock = Lock()
        self._days: dict[int, list[int]] = {}
        for left in self._directory.glob(f".state-*{_SUFFIX}.*.tmp"):
            left.unlink()

    def save(self, state: State, ids: Mapping[DataType, Sequence[LoggedIds]] | None = None) -> Path:
        """Store a state whole or not at all; one of the same clock is replaced.

        ids: `Pipeline.ids_log(before.logged)`, taken together with the state, where `before` is the state saved or
        restored last; all keys, `ids_log({})`, are right as well. Sync the journal up to `position` first.

        Raises:
            OutOfRange: `ids` is not what lies between the states; give all keys. OSError: the disk is full or broken.
        """
        with self._lock:
            for data_type, parts in (ids or {}).items():
                self._ids.append(data_type, parts)
            ends = {data_type: self._ends(data_type, mark) for data_type, mark in state.id_marks.items()}
            told = {
                "format": _FORMAT,
                "instrument": self.instrument_key,
                "clock_us": state.clock_us,
                "position": list(state.position),
                "extra": state.extra,
                "snapshot_bytes": len(state.snapshot),
                "ids": tree_of(ends),
            }
            parts_of_file = (json.dumps(told).encode(), self._compress(state.snapshot), state.ids)
            path = self._path(state.clock_us)
            write_bytes(path, b"".join(frame(index, part) for index, part in enumerate(parts_of_file)))
            self._days[state.clock_us] = _days_of(ends)
            return path

    def _ends(self, data_type: DataType, mark: Mapping[str, Any]) -> list[tuple[int, LogEnd]]:
        day, count = log_end(mark)
        out = []
        for at, expected in ((day, count), (day - 1, int(mark["previous_count"]))):
            end = self._ids.end(data_type, at) if expected else LogEnd(0, 0)
            if end.keys != expected:
                raise OutOfRange(
                    f"{self._directory}: the state has {expected} keys of {data_type} ids on day {at}, the log "
                    f"{end.keys}; give what was logged since the last state: ids_log(state.logged), or ids_log({{}})"
                )
            out.append((at, end))
        return out

    def newest(self, before_us: int | None = None) -> State | None:
        """The newest state whose clock is at or before `before_us` (default: of all) and that can be read whole."""
        with self._lock:
            return next(self._readable(before_us), None)

    def _readable(self, before_us: int | None) -> Iterator[State]:
        for clock_us in reversed(self._clocks()):
            if before_us is not None and clock_us > before_us:
                continue
            path = self._path(clock_us)
            try:
                yield self._read(path)
            except (CorruptObject, OSError) as error:
                size = path.stat().st_size if path.exists() else 0
                finding = Finding(path, 0, size, True, f"the state was passed over: {error}")
                if finding not in self.findings:
                    self.findings.append(finding)

    def _read(self, path: Path) -> State:
        records = [record.payload for record in read_records(path, 0, path.stat().st_size)]
        if len(records) != _RECORDS:
            raise CorruptObject(f"{path}: expected {_RECORDS} records, got {len(records)}; start from an older state")
        told, snapshot, ids = json.loads(records[0]), records[1], records[2]
        came = (told.get("format"), told.get("instrument"))
        if came != (_FORMAT, self.instrument_key):
            raise CorruptObject(
                f"{path}: expected format {_FORMAT} of {self.instrument_key}, got {came}; start from an older state"
            )
        keys = {}
        for data_type, days in ends_of(told["ids"]).items():
            today, before = (self._ids.read(data_type, day, end) for day, end in days)
            keys[data_type] = today, before
        return State(
            clock_us=told["clock_us"],
            snapshot=self._codec.decompress(snapshot, told["snapshot_bytes"], asbytes=True),
            ids=ids,
            position=Position(*told["position"]),
            extra=told["extra"],
            id_keys=keys,
        )

    def clocks(self) -> list[int]:
        """The arrival clocks of all states kept, oldest first."""
        with self._lock:
            return self._clocks()

    def discard_after(self, clock_us: int) -> None:
        """Remove the states whose clock is after this: they lack rows that were put in before them. Call it when
        fetched rows are durable in the journal and before what they change is published, so that a crash in between
        begins again with them."""
        with self._lock:
            for clock in self._clocks():
                if clock > clock_us:
                    self._remove(clock)

    def thin(self, now_us: int) -> None:
        """Keep the last three states, and of older ones the first of each minute for 15 minutes and the first of each
        quarter of an hour for the repair window; remove the others, and the id logs that no state needs."""
        with self._lock:
            clocks = self._clocks()
            kept = self._worth_keeping(clocks, now_us)
            for clock in clocks:
                if clock not in kept:
                    self._remove(clock)
            needed = [day for clock in kept for day in self._needed_days(clock)]
            if needed:
                self._ids.forget(min(needed))

    def _remove(self, clock_us: int) -> None:
        self._path(clock_us).unlink()
        self._days.pop(clock_us, None)

    def _needed_days(self, clock_us: int) -> list[int]:
        """The days whose id logs a state names; of a quiet stream they may be long ago."""
        if clock_us not in self._days:
            path = self._path(clock_us)
            try:
                told = json.loads(next(read_records(path, 0, path.stat().st_size)).payload)
            except (CorruptObject, OSError, StopIteration):
                # It cannot be restored, whatever is kept for it.
                return []
            self._days[clock_us] = _days_of(ends_of(told["ids"]))
        return self._days[clock_us]

    def _worth_keeping(self, clocks: Sequence[int], now_us: int) -> set[int]:
        minutes, quarters = {}, {}
        for clock in reversed(clocks):
            # The oldest of each stays: it is the one that lasts, however often this is called.
            if now_us - clock <= _QUARTER_US:
                minutes[clock // _MINUTE_US] = clock
            if now_us - clock <= self._window_us:
                quarters[clock // _QUARTER_US] = clock
        return {*clocks[-_KEPT:], *minutes.values(), *quarters.values()}

    def _clocks(self) -> list[int]:
        names = (path.name for path in self._directory.glob(f"state-*{_SUFFIX}"))
        return sorted(int(name.removeprefix("state-").removesuffix(_SUFFIX)) for name in names)

    def _path(self, clock_us: int) -> Path:
        return self._directory / f"state-{clock_us:020d}{_SUFFIX}"

    def _compress(self, data: bytes) -> bytes:
        compressed: bytes = self._codec.compress(data, asbytes=True)
        return compressed


def _days_of(ends: Mapping[DataType, Sequence[tuple[int, LogEnd]]]) -> list[int]:
    return [day for days in ends.values() for day, end in days if end.keys]

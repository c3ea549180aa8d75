"""What a service tells beside its recorded frames, so that a replay begins, is mended and ends as the service was.

Theory of operation. Frames say what came over the sockets. What they do not say is here, one file per start of the
service: the state in which each pipeline began, the gaps it came to know and how they ended, the rows that were fetched
for them, which source of a feed was in use, timeframes that changed, and when each pipeline ended. Records are framed
(`storage.recovery.framing`), each the bytes of a tree (`core.snapshot`); a torn end costs the torn record.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, Final

import numpy as np

from market_data_tick_handler.core import snapshot
from market_data_tick_handler.core.events import Gap
from market_data_tick_handler.core.options import FeatureParameters, PipelineOptions
from market_data_tick_handler.core.pipeline import Pipeline
from market_data_tick_handler.core.ticks import TickBatch
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.errors import CorruptObject
from market_data_tick_handler.storage.recovery.framing import frame, read_records, survey
from market_data_tick_handler.storage.recovery.tick_records import START, decode_turn, describe_layouts, encode_turn

log = logging.getLogger(__name__)

# The directory of these files in a recording, beside one per source.
FOLDER: Final = "service"
_SUFFIX: Final = ".run"
_FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class RecordedSource:
    """One source of a feed, and the directory of its frames. Sources of a feed are in the order of preference."""

    feed: str
    name: str
    folder: str


@dataclass(frozen=True, slots=True)
class RunBegan:
    """The service started with these sources."""

    at_us: int
    sources: tuple[RecordedSource, ...]


@dataclass(frozen=True, slots=True)
class InstrumentBegan:
    """A pipeline before it goes on at `at_us`. resumed: it is what an earlier run left, its clock where that ended, and
    the time since is a gap. contract_size, options: what
    it was made with. state, ids: `snapshot()` and `ids_snapshot()`."""

    instrument: str
    at_us: int
    resumed: bool
    contract_size: float
    options: PipelineOptions
    state: bytes
    ids: bytes


@dataclass(frozen=True, slots=True)
class TimeframesChanged:
    """A pipeline whose arrival clock stood at `clock_us` went on with other timeframes."""

    instrument: str
    clock_us: int
    timeframes: tuple[Timeframe, ...]


@dataclass(frozen=True, slots=True)
class SourceSwitched:
    """From `at_us` on the rows of this source of a feed were used."""

    feed: str
    source: str
    at_us: int


@dataclass(frozen=True, slots=True)
class GapKnown:
    """A gap, or what became of one."""

    gap: Gap


@dataclass(frozen=True, slots=True)
class RowsFetched:
    """Rows that the repair of a gap puts into the order of arrival, where their local_timestamp says. The pipeline has
    them as soon as the gap is told to be repaired, or when it is restored."""

    gap: Gap
    rows: TickBatch


@dataclass(frozen=True, slots=True)
class InstrumentEnded:
    """A pipeline was fed for the last time; its arrival clock stands at `clock_us`. open_us: since when its feed was
    not provably alive. finished: its open candles were published."""

    instrument: str
    clock_us: int
    open_us: int
    finished: bool


RunRecord = RunBegan | InstrumentBegan | TimeframesChanged | SourceSwitched | GapKnown | RowsFetched | InstrumentEnded
_PLAIN: Final[Mapping[str, type[Any]]] = {kind.__name__: kind for kind in (SourceSwitched, InstrumentEnded)}


class RunLog:
    """Writes the file of one start. A disk that fails costs the log, not the service: `failed` says why.

    Methods may be called from any thread. Those that take a pipeline are called between its turns.
    """

    def __init__(self, directory: str | Path, *, started_us: int) -> None:
        self.directory = Path(directory)
        self.failed = ""
        self.written_bytes = 0
        self._path = self.directory / f"{started_us:020d}{_SUFFIX}"
        self._started_us = started_us
        self._file: BinaryIO | None = None
        # Not written before something follows it: a service that never ran leaves no file.
        self._head = b""
        self._known: dict[str, list[Gap]] = {}
        self._lock = Lock()

    def run_began(self, sources: Iterable[RecordedSource]) -> None:
        """The service starts; comes first."""
        told = [[source.feed, source.name, source.folder] for source in sources]
        tree = {"kind": RunBegan.__name__, "sources": told, **describe_layouts()}
        self._head = frame(self._started_us, snapshot.pack(tree))

    def began(self, pipeline: Pipeline, *, at_us: int, resumed: bool) -> None:
        """A pipeline that is fed next; see `InstrumentBegan`."""
        instrument, options = pipeline.instrument, asdict(pipeline.options)
        # A table, which no setting gives.
        options["parameters"].pop("microprice_table")
        self._known.pop(instrument.key, None)
        tree = {
            "kind": InstrumentBegan.__name__,
            "instrument": instrument.key,
            "at_us": at_us,
            "resumed": resumed,
            "contract_size": instrument.contract_size,
            "options": options,
            "state": np.frombuffer(pipeline.snapshot(), np.uint8),
            "ids": np.frombuffer(pipeline.ids_snapshot(), np.uint8),
        }
        self._append(at_us, tree)
        self.noted(pipeline)

    def noted(self, pipeline: Pipeline) -> None:
        """Tell what changed in the gaps of a pipeline."""
        key, gaps = pipeline.instrument.key, list(pipeline.gaps)
        known = self._known.get(key, [])
        if gaps == known:
            return
        before = set(known)
        for gap in gaps:
            if gap not in before:
                self._append(gap.from_us, {"kind": GapKnown.__name__, "gap": asdict(gap)})
        self._known[key] = gaps

    def changed(self, pipeline: Pipeline) -> None:
        """A pipeline goes on with other timeframes."""
        at_us = pipeline.clock_us
        self._put(TimeframesChanged(pipeline.instrument.key, at_us, pipeline.options.timeframes), at_us)

    def fetched(self, gap: Gap, rows: TickBatch) -> None:
        """Rows that a repair puts back."""
        content = np.frombuffer(encode_turn(START, [rows], ()), np.uint8)
        last_us = int(rows["local_timestamp"][-1])
        self._append(last_us, {"kind": RowsFetched.__name__, "gap": asdict(gap), "rows": content})

    def switched(self, feed: str, source: str, at_us: int) -> None:
        """Another source of a feed is in use."""
        self._put(SourceSwitched(feed, source, at_us), at_us)

    def ended(self, pipeline: Pipeline, *, finished: bool) -> None:
        """A pipeline is not fed any more."""
        self.noted(pipeline)
        at_us = pipeline.clock_us
        self._put(InstrumentEnded(pipeline.instrument.key, at_us, pipeline.open_outage_us, finished), at_us)

    def close(self) -> None:
        """Release the file."""
        with self._lock:
            file, self._file = self._file, None
            if file is not None:
                file.close()

    def _put(self, record: TimeframesChanged | SourceSwitched | InstrumentEnded, at_us: int) -> None:
        self._append(at_us, {"kind": type(record).__name__, **asdict(record)})

    def _append(self, stamp: int, tree: Mapping[str, Any]) -> None:
        data = frame(stamp, snapshot.pack(dict(tree)))
        with self._lock:
            if self.failed:
                return
            try:
                self._write(data)
            except OSError as error:
                self.failed = repr(error)
                log.error("the record of the run stops: %s", error, extra={"path": str(self._path)})

    def _write(self, data: bytes) -> None:
        if self._file is None:
            self.directory.mkdir(parents=True, exist_ok=True)
            # Unbuffered: what was appended survives the process.
            self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115
            data = self._head + data
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
        self.written_bytes += len(data)


def read_runs(directory: str | Path) -> Iterator[RunRecord]:
    """Every record of every start, in order; nothing where the directory has none.

    Raises:
        CorruptObject: a file is damaged before its end, or of a later version.
    """
    for path in sorted(Path(directory).glob(f"*{_SUFFIX}")):
        found = survey(path)
        if found.damaged:
            raise CorruptObject(f"{path}: a record at offset {found.end} fails its checksum; restore the file")
        layouts: Mapping[str, Any] = {}
        for record in read_records(path, 0, found.end):
            tree = snapshot.unpack(record.payload)
            kind = tree.pop("kind")
            if kind == RunBegan.__name__:
                layouts = tree
                yield RunBegan(record.stamp, tuple(RecordedSource(*each) for each in tree["sources"]))
            else:
                yield _record_of(path, kind, tree, layouts)


def _record_of(path: Path, kind: str, tree: dict[str, Any], layouts: Mapping[str, Any]) -> RunRecord:
    if kind == GapKnown.__name__:
        return GapKnown(Gap.of_tree(tree["gap"]))
    if kind == RowsFetched.__name__:
        batches, _ = decode_turn(tree["rows"].tobytes(), layouts)
        return RowsFetched(Gap.of_tree(tree["gap"]), batches[0])
    if kind == InstrumentBegan.__name__:
        told = {name: tree[name] for name in ("instrument", "at_us", "resumed", "contract_size")}
        return InstrumentBegan(
            **told, options=_options_of(tree["options"]), state=tree["state"].tobytes(), ids=tree["ids"].tobytes()
        )
    if kind == TimeframesChanged.__name__:
        return TimeframesChanged(tree["instrument"], tree["clock_us"], tuple(map(Timeframe, tree["timeframes"])))
    if kind not in _PLAIN:
        raise CorruptObject(f"{path}: record of kind {kind!r}: a newer version wrote it; replay with that one")
    record: RunRecord = _PLAIN[kind](**tree)
    return record


def _options_of(tree: Mapping[str, Any]) -> PipelineOptions:
    words = {
        "timeframes": tuple(map(Timeframe, tree["timeframes"])),
        "groups": tuple(tree["groups"]),
        "parameters": FeatureParameters(**tree["parameters"]),
    }
    told: dict[str, Any] = {**tree, **words}
    return PipelineOptions(**told)

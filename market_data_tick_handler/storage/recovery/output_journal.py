"""The journal of one instrument's candles: every row published, before any sink sees it, under one identity for good.

`admit` decides what of a batch is new (identities.py), writes it, and gives it back with the revisions that hold; what
it does not give back was published before. A sink says how far it has written (`acknowledge`); what it has not, a
restart delivers again (`unacknowledged`) with the revision and the sequence number it had.

The last identity of every candle of the window is in memory. It is rebuilt on opening from an index file, written
before segments are removed, and the records behind it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Final, NamedTuple

import numpy as np

from market_data_tick_handler.core import snapshot
from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.ticks import Array
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.errors import CorruptObject, NotFound, SchemaMismatch
from market_data_tick_handler.storage.local_files import write_bytes
from market_data_tick_handler.storage.recovery.candle_records import (
    CandleLayout,
    CandleRows,
    decode_identities,
    decode_rows,
    encode_rows,
)
from market_data_tick_handler.storage.recovery.cursors import Cursor
from market_data_tick_handler.storage.recovery.framing import Finding
from market_data_tick_handler.storage.recovery.identities import Identities
from market_data_tick_handler.storage.recovery.segment_files import Entry, Position, Segment
from market_data_tick_handler.storage.recovery.segments import SEGMENT_BYTES, SegmentLog

_SERIES: Final = "outputs"
_AGE_US: Final = 4 * 3_600_000_000
DEFAULT_WINDOW_US: Final = 86_400_000_000


class Journaled(NamedTuple):
    """Rows as published. Row i has sequence number `first_sequence` + i in the channel of its timeframe; a sink that
    has written them acknowledges `position`."""

    batch: CandleBatch
    first_sequence: int
    position: Position


class OutputJournal:
    """The files `outputs-*` of `directory`, for this process alone.

    sinks: whose cursors count. One that is new begins with what is published from now on. window_us: how far back a
    candle may still be revised (the repair window).

    `admit` belongs to one thread; the other methods may run in others.

    Raises:
        ConfigError: another process has it open. SchemaMismatch: the files are of another instrument or format.
    """

    def __init__(
        self,
        directory: str | Path,
        instrument_key: str,
        *,
        sinks: Sequence[str] = (),
        window_us: int = DEFAULT_WINDOW_US,
        segment_bytes: int = SEGMENT_BYTES,
        segment_age_us: int = _AGE_US,
    ) -> None:
        self.instrument_key = instrument_key
        self.outside_window = 0
        self._directory = Path(directory)
        self._window_us = window_us
        self._layouts: dict[Timeframe, CandleLayout] = {}
        self._identities: dict[Timeframe, Identities] = {}
        self._decoded: dict[int, list[CandleLayout]] = {}
        self._cursors: dict[str, Cursor] = {}
        self._lock = Lock()
        self._last_us = 0
        self._log = SegmentLog(
            self._directory,
            _SERIES,
            self._describe,
            identity={"instrument": instrument_key},
            segment_bytes=segment_bytes,
            segment_age_us=segment_age_us,
        )
        try:
            self._rebuild()
            for sink in sinks:
                self.register(sink)
        except BaseException:
            self.close()
            raise

    # Opening

    def _rebuild(self) -> None:
        start = self._load_index()
        if start is not None and not self._log.segments:
            start = None
        for entry in self._log.read(start, salvage=True):
            found = decode_identities(entry.record.payload, self._layouts_of(entry.segment))
            identities = self._identities_of(found.timeframe)
            identities.remember(found.timestamps, found.revisions, found.digests, found.first_sequence)
            self._last_us = max(self._last_us, entry.record.stamp)
        if self._log.segments and self._log.position.segment == self._log.segments[-1].number:
            # In the order of the header, where the index of a layout is what its rows have.
            self._layouts = {held.timeframe: held for held in self._layouts_of(self._log.segments[-1])}

    def _load_index(self) -> Position | None:
        path = self._index_path
        if not path.is_file():
            return None
        try:
            tree = snapshot.unpack(path.read_bytes())
        except CorruptObject as error:
            finding = Finding(
                path, 0, path.stat().st_size, True, f"the index is built again from what is left: {error}"
            )
            self._log.findings.append(finding)
            return None
        for name, content in tree["timeframes"].items():
            self._identities_of(Timeframe(name)).load(content)
        self._last_us = tree["last_us"]
        # Behind a machine that died the log may end before the index was written.
        return min(Position(*tree["position"]), self._log.position)

    @property
    def _index_path(self) -> Path:
        return self._directory / f"{_SERIES}.index"

    def _describe(self) -> dict[str, Any]:
        return {"layouts": [layout.tree() for layout in self._layouts.values()]}

    def _identities_of(self, timeframe: Timeframe) -> Identities:
        if timeframe not in self._identities:
            self._identities[timeframe] = Identities(timeframe, self._window_us)
        return self._identities[timeframe]

    # Publishing

    def admit(self, batch: CandleBatch, digests: Array | None = None) -> Journaled | None:
        """The rows of a batch that were not published like this before, journaled in one write; None if there are none.

        digests: uint64, shape (n, 2), over everything but `revision` and `timestamp_out`; the batch's own by default.
        A candle published before with another content gets the highest revision there is of it plus 1; one that is not
        known keeps the revision it has. A candle older than the window is not known: it is counted in `outside_window`.

        Raises:
            SchemaMismatch: there are no digests, or of another shape. OSError: the disk is full or broken; nothing is
            published then, and the same call may be made again.
        """
        digests = batch.digests if digests is None else digests
        if digests is None or digests.shape != (len(batch), 2) or digests.dtype != np.uint64:
            came = "none" if digests is None else f"{digests.dtype} of shape {digests.shape}"
            raise SchemaMismatch(f"candles: expected digests as uint64 of shape {(len(batch), 2)}, got {came}")
        timeframe = batch.timeframe
        with self._lock:
            identities = self._identities_of(timeframe)
            kept, revisions, outside = identities.judge(batch["timestamp"], batch["revision"], digests)
            self.outside_window += outside
            if not kept:
                return None
            batch, digests = _kept(batch, digests, kept, revisions)
            first_sequence = identities.next_sequence
            position = self._append(batch, digests, first_sequence)
            identities.remember(batch["timestamp"], batch["revision"], digests, first_sequence)
        return Journaled(batch, first_sequence, position)

    def _append(self, batch: CandleBatch, digests: Array, first_sequence: int) -> Position:
        timeframe = batch.timeframe
        layout = self._layouts.get(timeframe)
        if layout is None or not layout.fits(batch):
            layout = self._change_layout(batch)
        stamp = max(self._last_us, int(batch["timestamp"][-1]) + timeframe.us)
        index = list(self._layouts).index(timeframe)
        position = self._log.append(stamp, encode_rows(index, layout, batch, digests, first_sequence))
        self._last_us = stamp
        return position

    def _change_layout(self, batch: CandleBatch) -> CandleLayout:
        """Layouts are in the header of a segment, so that a new one begins with a new layout."""
        known, layout = self._layouts.get(batch.timeframe), CandleLayout.of(batch)
        self._layouts[batch.timeframe] = layout
        # The texts: an unknown number of a definition is NaN, which equals nothing.
        if known is None or json.dumps(known.tree()) != json.dumps(layout.tree()):
            self._log.rotate()
        return layout

    # Delivery

    def register(self, sink: str) -> None:
        """Keep rows for a sink: from now on if it is new, else from where it was."""
        if sink in self._cursors:
            return
        cursor = self._cursors[sink] = Cursor(self._directory, _SERIES, sink)
        held = cursor.position
        # Behind a machine that died the log may end before what was written from it.
        if held is None or held > self._log.position:
            cursor.move(self._log.position)
        elif not self._log.holds(held):
            text = f"rows of sink {sink} from {tuple(held)} on were removed while it was not registered"
            self._log.findings.append(Finding(cursor.path, 0, 0, True, text))
            cursor.move(self._log.oldest)

    def unacknowledged(self, sink: str) -> Iterator[Journaled]:
        """What was published and not acknowledged by a sink up to now, in order, record by record.

        Raises:
            NotFound: no such sink was registered.
        """
        start, stop = self._cursor(sink).position, self._log.position
        return (self._delivered(entry) for entry in self._log.read(start, stop, salvage=True))

    def acknowledge(self, sink: str, position: Position) -> None:
        """A sink has written everything up to a position. Going back has no effect.

        Raises:
            NotFound: no such sink was registered. OSError: the disk is full or broken.
        """
        cursor = self._cursor(sink)
        if cursor.position is None or position > cursor.position:
            cursor.move(position)

    def abandon(self, sink: str) -> int:
        """Give up what a sink has not written, which bounds what is kept for one that does not come back; the number of
        rows given up."""
        rows = sum(len(journaled.batch) for journaled in self.unacknowledged(sink))
        self.acknowledge(sink, self._log.position)
        return rows

    def _cursor(self, sink: str) -> Cursor:
        try:
            return self._cursors[sink]
        except KeyError:
            raise NotFound(f"sink {sink!r} is not registered; known: {sorted(self._cursors)}") from None

    def _delivered(self, entry: Entry) -> Journaled:
        rows = self._decode(entry)
        return Journaled(rows.batch, rows.first_sequence, entry.position)

    def _decode(self, entry: Entry) -> CandleRows:
        return decode_rows(entry.record.payload, self._layouts_of(entry.segment))

    def _layouts_of(self, segment: Segment) -> list[CandleLayout]:
        if segment.number not in self._decoded:
            self._decoded[segment.number] = [CandleLayout.of_tree(tree) for tree in segment.header["layouts"]]
        return self._decoded[segment.number]

    # What is there

    @property
    def position(self) -> Position:
        """Behind the last row published."""
        return self._log.position

    @property
    def size_bytes(self) -> int:
        """Bytes on disk, the index apart."""
        return self._log.size_bytes

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Torn tails that were cut, and damage, as found since this was opened."""
        return tuple(self._log.findings)

    def next_sequence(self, timeframe: Timeframe) -> int:
        """The sequence number of the row of a timeframe that is published next; the first one is 1."""
        return self._identities_of(timeframe).next_sequence

    # Keeping

    def sync(self) -> None:
        """Make what was admitted outlive the machine, not only this process. For a thread: it takes milliseconds.

        Raises:
            OSError: the disk did not take it.
        """
        self._log.sync()

    def forget(self, before_us: int) -> None:
        """Remove the files whose candles all closed before `before_us` and that every sink has acknowledged. What is
        known of their candles is kept in the index."""
        acknowledged = [self._settled(cursor) for cursor in self._cursors.values()]
        keep_from = min([self._log.settled_before(before_us), *acknowledged])
        if self._log.segments and self._log.segments[0].number < keep_from:
            self._write_index()
            self._log.forget(keep_from)
            for number in [number for number in self._decoded if number < keep_from]:
                del self._decoded[number]

    def _settled(self, cursor: Cursor) -> int:
        """Number of the first segment that a sink has not acknowledged wholly."""
        if cursor.position is None:
            return 0
        segment = next((held for held in self._log.segments if held.number == cursor.position.segment), None)
        done = segment is not None and cursor.position.offset >= segment.end
        # A segment that is gone was acknowledged.
        return max(cursor.position.segment + done, self._log.oldest.segment)

    def _write_index(self) -> None:
        with self._lock:
            tree = {
                "position": list(self._log.position),
                "last_us": self._last_us,
                "timeframes": {timeframe.value: held.tree() for timeframe, held in self._identities.items()},
            }
        # What the index knows must not be newer than what the log will still have.
        self._log.sync()
        write_bytes(self._index_path, snapshot.pack(tree))

    def close(self) -> None:
        """Sync and release the files."""
        try:
            self._log.close()
        finally:
            for cursor in self._cursors.values():
                cursor.close()


def _kept(batch: CandleBatch, digests: Array, kept: list[int], revisions: list[int]) -> tuple[CandleBatch, Array]:
    if len(kept) < len(batch):
        batch, digests = batch.take(np.array(kept)), digests[kept]
    if batch["revision"].tolist() != revisions:
        batch = batch.replace(revision=np.array(revisions, batch["revision"].dtype))
    return batch, digests

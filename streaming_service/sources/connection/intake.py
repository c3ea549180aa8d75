"""Which decoded rows count: one connection speaks for a stream, and a replacement takes over without a hole.

Theory of operation. While a connection is being replaced, both deliver. Rows with ids are let through from both, as
duplicates are told by their ids later. Of all other rows (books, tickers, liquidations without ids) only those of the
old connection count, until the handover; those of the new one are held back meanwhile. Handing over, the rows that are
later than the last of the old one, by the venue's clock, go out; of those with the very same time, as many are left
out as the old one delivered. Books and tickers are states: there only the newest held row matters.

Pure, and used by the live feed and by the replay of its journal alike.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from market_data_tick_handler.core.events import Disconnect, Rows
from market_data_tick_handler.core.instruments import InstrumentDefinition
from market_data_tick_handler.core.ticks import ID_NONE, LAYOUTS, Array, DataType, TickBatch, concat
from streaming_service.sources.exchanges.protocol import Break, Decoded, Decoder, Stream, Venue

# What has to be known before a connection can speak for it; of the first two the newest row says everything.
_LATEST: Final = frozenset({DataType.BOOK, DataType.DERIVATIVE})
_STATES: Final = _LATEST | {DataType.OPTIONS}
_WITH_IDS: Final = frozenset({DataType.TRADES, DataType.LIQUIDATIONS})
_MOST_HELD: Final = 4_096
_TICKER_VALUES: Final = [each.name for each in LAYOUTS[DataType.DERIVATIVE] if each.dtype == "f8"]


def decoder_for(
    venue: Venue, streams: Iterable[Stream], *, resolve: Callable[[str], InstrumentDefinition], connection: int
) -> Decoder:
    """A fresh decoder for a connection that carries `streams`; the same for live and replay."""
    ordered = sorted(streams)
    instruments = [resolve(key) for key in dict.fromkeys(key for key, _ in ordered)]
    return venue.decoder(instruments, sorted({data_type for _, data_type in ordered}), connection=connection)


@dataclass(slots=True)
class _Resume:
    """Where the new connection goes on: after `high_us`, of which `ties` rows are known."""

    high_us: int = 0
    ties: int = 0

    def note(self, batch: TickBatch) -> None:
        times = batch["timestamp"]
        newest = int(times.max())
        if newest > self.high_us:
            self.high_us, self.ties = newest, 0
        if newest == self.high_us:
            self.ties += int((times == newest).sum())

    def rest(self, batch: TickBatch) -> TickBatch:
        """The rows of `batch` that the old connection had not delivered."""
        times = batch["timestamp"]
        later: Array = times > self.high_us
        same = np.flatnonzero(times == self.high_us)
        later[same[self.ties :]] = True
        self.ties = max(0, self.ties - len(same))
        return batch if bool(later.all()) else batch.take(later)


@dataclass(slots=True)
class _Overlap:
    successor: int
    resume: _Resume = field(default_factory=_Resume)
    held: list[TickBatch] = field(default_factory=list)
    held_rows: int = 0

    def hold(self, batch: TickBatch) -> None:
        if batch.data_type in _LATEST:
            self.held, self.held_rows = [batch], len(batch)
            return
        self.held.append(batch)
        self.held_rows += len(batch)
        while self.held_rows > _MOST_HELD and len(self.held) > 1:
            self.held_rows -= len(self.held.pop(0))


class Intake:
    """Rows of all connections of one source.

    repeated: rows left out per stream because another connection speaks for it. unwanted: because nobody asks for the
    instrument any more.
    """

    def __init__(self) -> None:
        self.repeated: dict[Stream, int] = {}
        self.unwanted: dict[Stream, int] = {}
        self._wanted: frozenset[str] | None = None
        self._speaker: dict[Stream, int] = {}
        self._overlaps: dict[Stream, _Overlap] = {}
        self._resuming: dict[Stream, _Resume] = {}
        self._last: dict[Stream, TickBatch] = {}
        self._last_row_us: dict[str, int] = {}

    def want(self, instruments: Iterable[str]) -> None:
        """Leave out rows of all other instruments from now on."""
        self._wanted = frozenset(instruments)

    def opened(self, connection: int, streams: Iterable[Stream]) -> None:
        """`connection` begins: it speaks for the streams that nobody speaks for, and waits to take over the others."""
        for stream in streams:
            if stream not in self._speaker:
                self._speaker[stream] = connection
                continue
            overlap = self._overlaps[stream] = _Overlap(connection)
            last = self._last.get(stream)
            if last is not None:
                overlap.resume.note(last)

    def speaker(self, stream: Stream) -> int | None:
        """The connection that speaks for `stream`."""
        return self._speaker.get(stream)

    def speaks(self, connection: int) -> frozenset[Stream]:
        """The streams that `connection` speaks for."""
        return frozenset(stream for stream, speaker in self._speaker.items() if speaker == connection)

    def take(self, connection: int, decoded: Decoded) -> list[Rows | Disconnect]:
        """The rows that count, in their order, and between them what `decoded.breaks` tells."""
        admitted = [kept for rows in decoded.rows if len(rows.batch) and (kept := self._admit(connection, rows))]
        if decoded.breaks:
            return self._cut(connection, admitted, decoded.breaks)
        for rows in admitted:
            self._last_row_us[rows.instrument] = int(rows.batch["local_timestamp"][-1])
        return list(admitted)

    def lacks(self, old: int, new: int) -> list[Stream]:
        """States that `old` knows and `new` does not yet."""
        return [
            stream
            for stream, speaker in self._speaker.items()
            if speaker == old and stream[1] in _STATES and stream in self._last and not self._knows(stream, new)
        ]

    def promoted(self, old: int, new: int, at_us: int) -> list[Rows]:
        """`new` speaks for everything that `old` spoke for; the held rows that count, as if they came at `at_us`."""
        out: list[Rows] = []
        for stream, speaker in self._speaker.items():
            if speaker != old:
                continue
            self._speaker[stream] = new
            overlap = self._overlaps.pop(stream, None)
            if overlap is None or overlap.successor != new:
                continue
            self._resuming[stream] = overlap.resume
            if overlap.held:
                out += self._resume(stream, concat(overlap.held), overlap.resume, at_us, new)
        return out

    def closed(self, connection: int) -> None:
        """`connection` is gone: nobody speaks for its streams, and nobody waits for them in its name.

        Where a replacement is there, `promoted` comes first.
        """
        for stream in self.speaks(connection):
            del self._speaker[stream]
            self._last.pop(stream, None)
            self._resuming.pop(stream, None)
        for stream in [stream for stream, overlap in self._overlaps.items() if overlap.successor == connection]:
            self._count(stream, self._overlaps.pop(stream).held_rows)

    def _admit(self, connection: int, rows: Rows) -> Rows | None:
        stream = (rows.instrument, rows.data_type)
        if self._wanted is not None and rows.instrument not in self._wanted:
            self.unwanted[stream] = self.unwanted.get(stream, 0) + len(rows.batch)
            return None
        speaker = self._speaker.setdefault(stream, connection)
        if self._overlaps or self._resuming or speaker != connection:
            return self._admit_rarely(connection, rows, stream, speaker)
        self._last[stream] = rows.batch
        return rows

    def _admit_rarely(self, connection: int, rows: Rows, stream: Stream, speaker: int) -> Rows | None:
        batch = rows.batch
        overlap = self._overlaps.get(stream)
        if speaker != connection:
            if batch.data_type in _WITH_IDS and bool((batch["id_kind"] != ID_NONE).all()):
                return rows
            if overlap is not None and overlap.successor == connection:
                overlap.hold(batch)
            else:
                self._count(stream, len(batch))
            return None
        resume = self._resuming.get(stream)
        if resume is not None:
            newest = int(batch["timestamp"].max())
            batch = self._left_of(stream, batch, resume)
            if newest > resume.high_us:
                del self._resuming[stream]
        if overlap is not None and len(batch):
            overlap.resume.note(batch)
        if not len(batch):
            return None
        self._last[stream] = batch
        return Rows(rows.instrument, batch, rows.connection)

    def _left_of(self, stream: Stream, batch: TickBatch, resume: _Resume) -> TickBatch:
        if batch.data_type in _WITH_IDS and bool((batch["id_kind"] != ID_NONE).all()):
            return batch
        left = resume.rest(batch)
        self._count(stream, len(batch) - len(left))
        return left

    def _resume(self, stream: Stream, held: TickBatch, resume: _Resume, at_us: int, connection: int) -> list[Rows]:
        kept = resume.rest(held)
        if stream[1] in _LATEST:
            kept = kept.slice(max(0, len(kept) - 1), len(kept))
        self._count(stream, len(held) - len(kept))
        if not len(kept):
            return []
        resume.note(kept)
        kept = kept.with_column("local_timestamp", np.maximum(kept["local_timestamp"], at_us))
        self._last[stream] = kept
        return [Rows(stream[0], kept, connection)]

    def _knows(self, stream: Stream, connection: int) -> bool:
        overlap = self._overlaps.get(stream)
        if overlap is None or overlap.successor != connection or not overlap.held:
            return False
        if stream[1] is not DataType.DERIVATIVE:
            return True
        old, new = self._last[stream], overlap.held[-1]
        return all(np.isnan(old[name][-1]) or not np.isnan(new[name][-1]) for name in _TICKER_VALUES)

    def _count(self, stream: Stream, rows: int) -> None:
        if rows:
            self.repeated[stream] = self.repeated.get(stream, 0) + rows

    def _cut(self, connection: int, admitted: Collection[Rows], breaks: Iterable[Break]) -> list[Rows | Disconnect]:
        """Rows before each break, the break, the rows after it: an outage ends with the first row after it."""
        out: list[Rows | Disconnect] = []
        waiting = list(admitted)
        for each in sorted(breaks, key=lambda broken: broken.local_us):
            after: list[Rows] = []
            for rows in waiting:
                times = rows.batch["local_timestamp"]
                stop = int(np.searchsorted(times, each.local_us, "left"))
                if rows.instrument not in each.instruments:
                    stop = len(times) if times[0] < each.local_us else 0
                if stop:
                    before = rows.batch.slice(0, stop)
                    out.append(Rows(rows.instrument, before, rows.connection))
                    self._last_row_us[rows.instrument] = int(before["local_timestamp"][-1])
                if stop < len(times):
                    after.append(Rows(rows.instrument, rows.batch.slice(stop, len(times)), rows.connection))
            out += [
                Disconnect(name, each.local_us, self._last_row_us.get(name, each.local_us), each.reason, connection)
                for name in each.instruments
            ]
            waiting = after
        for rows in waiting:
            self._last_row_us[rows.instrument] = int(rows.batch["local_timestamp"][-1])
        return [*out, *waiting]

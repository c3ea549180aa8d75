"""Events in, candles out: the one driver of the folds, the same for live, replay and batch.

Theory of operation. `feed` puts what one turn drained into the order of arrival (local_timestamp, data-type rank), lets
`Continuity` judge every row once, and folds the rows border by border: all rows that arrived before a 15 s border plus
grace, then the close of that border, then the next rows. `advance` promises that time has passed without rows and
closes what is due. Closing is one procedure (`_publish`): it computes the candles that are new and, from the first
change on, the candles that late rows or gaps changed; `CandleSeries` knows which of them differ from what was
published. Nothing here reads a clock.

A pipeline for one day of history (`Day`) differs in two numbers: its rings hold the whole day, and it closes nothing
before `finish_day`. Rows stamped before the day only advance sequence state; they were folded by the day before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np

from market_data_tick_handler.core import quality, snapshot
from market_data_tick_handler.core.candle_batch import CandleBatch, CandleRecords
from market_data_tick_handler.core.candles import (
    CandleBuilder,
    CandleSeries,
    borders,
    candles_open_before,
)
from market_data_tick_handler.core.continuity import (
    ACCEPTED,
    EARLIEST_US,
    INVALID_TIME,
    LATEST_US,
    Continuity,
    Judged,
    StreamCounters,
    in_arrival_order,
)
from market_data_tick_handler.core.digests import digests
from market_data_tick_handler.core.events import Disconnect, Event, Gap, Heartbeat, Rows
from market_data_tick_handler.core.features.contract import MINUTE_US, RunShape, as_bytes
from market_data_tick_handler.core.features.groups import select
from market_data_tick_handler.core.features.registry import FEATURE_VERSION, columns
from market_data_tick_handler.core.instruments import InstrumentDefinition
from market_data_tick_handler.core.options import PipelineOptions
from market_data_tick_handler.core.outages import Outages
from market_data_tick_handler.core.quality import Span
from market_data_tick_handler.core.seen_ids import NEVER_US, LoggedIds
from market_data_tick_handler.core.ticks import RANK, Array, DataType, TickBatch, concat
from market_data_tick_handler.core.timeframes import BORDER_US, DAY_US, Timeframe, ceil_us, floor_us
from market_data_tick_handler.core.watermark import Watermark

_WITH_IDS: Final = (DataType.TRADES, DataType.LIQUIDATIONS)
_BY_RANK: Final = sorted(DataType, key=lambda data_type: RANK[data_type])


@dataclass(frozen=True, slots=True)
class Day:
    """A UTC day of history: candles of [start_us, start_us + 24 h), rows up to `tail_us` after it."""

    start_us: int
    tail_us: int = 3_600_000_000

    @property
    def end_us(self) -> int:
        return self.start_us + DAY_US


@dataclass(frozen=True, slots=True)
class Border:
    """State of a day's pipeline at the end of the day's file."""

    state: bytes
    ids: bytes


class Pipeline:
    """Candles of one instrument.

    instrument: its contract units enter the sums. options: what changes values. day: set for a day of history.
    gaps: intervals already known to be without proof of life (the gap ledger); a live pipeline adds its own.
    keep_rows: collect rows as stored (local_timestamp moved where it broke the order) in `stored`.
    identify: give every published row the digest of its content (CandleBatch.digests).
    """

    def __init__(
        self,
        instrument: InstrumentDefinition,
        options: PipelineOptions,
        *,
        day: Day | None = None,
        gaps: Sequence[Gap] = (),
        keep_rows: bool = False,
        identify: bool = False,
    ) -> None:
        self.instrument = instrument
        self.options = options
        self.day = day
        self.keep_rows = keep_rows
        self._identify = identify
        self.stored: list[TickBatch] = []
        self.counters: dict[DataType, StreamCounters] = {}
        self._shape = _shape(instrument, options, day)
        selection = select(options.groups, instrument.instrument_type)
        timeframes = [
            timeframe
            for timeframe in sorted_(options.timeframes)
            if any(timeframe in group.timeframes for group in selection.ticks)
        ]
        # The first group's first input decides where the series begins and when a candle is empty.
        self._primary = selection.ticks[0].inputs[0] if selection.ticks else DataType.TRADES
        self._absent = tuple(column.name for column in columns(selection.absent) if column.group in selection.absent)
        self._builder = CandleBuilder(self._shape, selection, timeframes)
        self._series = {timeframe: CandleSeries(timeframe, self._builder) for timeframe in timeframes}
        self._watermark = Watermark(options.grace_us)
        self._continuity = {data_type: self._open_stream() for data_type in _WITH_IDS}
        self._earliest_us = NEVER_US
        self._dirty_us = NEVER_US
        self._stop_us = NEVER_US
        self._outages = Outages(instrument.key, self._primary, gaps)
        self._pending: dict[Timeframe, list[Array]] = {}

    def _open_stream(self) -> Continuity:
        options, day = self.options, self.day
        return Continuity(
            refuse_after_us=NEVER_US if day else options.revision_window_us,
            skew_us=options.max_clock_skew_us,
            grace_us=options.grace_us,
            floor_us=day.start_us if day else 0,
        )

    @property
    def gaps(self) -> list[Gap]:
        """The gaps known so far, open outages apart: what the gap ledger is written from."""
        return self._outages.gaps

    @property
    def open_outage_us(self) -> int:
        """Since when the feed is not provably alive (NEVER_US: it is)."""
        return self._outages.open_us

    @property
    def clock_us(self) -> int:
        """The arrival clock; 0 before the first row."""
        return self._watermark.us

    def trades(self) -> StreamCounters:
        """A copy of the accounting of the trade stream so far."""
        return replace(self._counter(DataType.TRADES))

    @property
    def started(self) -> bool:
        """True once the service start was declared or a row or promise came."""
        return self._watermark.us > 0

    def start(self, now_us: int) -> None:
        """Declare that the service runs from `now_us` on: what lies before is a stop, not silence."""
        if self.started or self.day is not None or self.gaps:
            return
        self._outages.started(now_us)
        self._watermark.promise(now_us)

    def resume(self, now_us: int) -> None:
        """Declare that the service runs again from `now_us` on, with the state of before `clock_us`: the time between
        is a stop (features.md 2.9)."""
        if self.started and now_us > self.clock_us:
            self._alive(self.clock_us)
            self._add_gap(self._outages.paused(self.clock_us, now_us))
            self.advance(now_us)

    def doubt(self, from_us: int) -> None:
        """Declare that the feed is not known to be alive since `from_us`: until the first row or heartbeat, what a
        connection that is still being made misses is a gap."""
        self._dirty_us = min(self._dirty_us, self._outages.disconnected(from_us))

    def know(self, gaps: Sequence[Gap], open_us: int = NEVER_US) -> None:
        """Replace the gaps known by a ledger that knows better, before rows are fed again (repair is replay).
        open_us: since when the feed is not provably alive."""
        self._outages.gaps, self._outages.open_us = list(gaps), open_us

    def succeed(self, live: Pipeline, settled: Sequence[Gap]) -> None:
        """Take the place of `live`, of which this pipeline has replayed all rows: know its gaps, some of which have
        come to an end, its clock, and what it counted that stored rows do not tell."""
        known = self.gaps
        self._outages.gaps, self._outages.open_us = list(live.gaps), live.open_outage_us
        for gap in settled:
            self._outages.settle(gap)
        unknown = [gap.from_us for gap in self.gaps if gap not in known]
        self._dirty_us = min([self._dirty_us, live.open_outage_us, *unknown])
        for data_type, theirs in live.counters.items():
            own = self._counter(data_type)
            own.clamped, own.gaps = theirs.clamped, theirs.gaps
        self.advance(live.clock_us)
        self.keep_rows = live.keep_rows

    def settle(self, gap: Gap) -> None:
        """Note how one of `gaps` ended. What candles say of it changes where they are still open to change."""
        self._dirty_us = min(self._dirty_us, self._outages.settle(gap))

    def warm(self, candles: Mapping[Timeframe, Array]) -> None:
        """Feed stored candles (CANDLE records in time order, ended before now) to what reads candles, so that its
        columns are there from the first publication on. They count as `warmup_bars`. Before the first row only.

        Raises:
            ValueError: rows were fed already.
        """
        if self._earliest_us != NEVER_US:
            raise ValueError("warm() comes before the first row; restore a snapshot instead")
        for timeframe, records in candles.items():
            if timeframe in self._series and len(records):
                self._series[timeframe].warm(records)

    def feed(self, events: Event | Sequence[Event]) -> None:
        """Take what one turn drained. Rows of one call are put into the order of arrival; across calls the arrival
        clock never goes back, and a row that comes too late for it is moved to it and counted (`clamped`)."""
        rows: dict[DataType, list[TickBatch]] = {}
        for event in [events] if isinstance(events, (Rows, Gap, Disconnect, Heartbeat)) else events:
            if isinstance(event, Rows):
                if len(event.batch):
                    rows.setdefault(event.data_type, []).append(event.batch)
                continue
            self._feed_rows(rows)
            rows = {}
            self._note(event)
        self._feed_rows(rows)

    def expect(self, rows: int) -> None:
        """Make room for `rows` trades at once, where a file says how many come."""
        for state in self._builder.states:
            state.expect(rows)

    def _note(self, event: Gap | Disconnect | Heartbeat) -> None:
        if isinstance(event, Heartbeat):
            self._alive(event.at_us)
        elif isinstance(event, Disconnect):
            # A connection that never lived leaves the doubt as it is.
            self.doubt(event.last_alive_us or event.at_us)
        elif event.data_type is self._primary:
            self._add_gap(event)
        else:
            self._counter(event.data_type).gaps += 1

    def _alive(self, at_us: int) -> None:
        ended = self._outages.alive(at_us)
        if ended is not None:
            self._add_gap(ended)

    def _add_gap(self, gap: Gap) -> None:
        self._counter(self._primary).gaps += 1
        self.gaps.append(gap)
        self._dirty_us = min(self._dirty_us, gap.from_us)

    def _counter(self, data_type: DataType) -> StreamCounters:
        return self.counters.setdefault(data_type, StreamCounters())

    def _feed_rows(self, by_type: dict[DataType, list[TickBatch]]) -> None:
        if not by_type:
            return
        ordered: dict[DataType, TickBatch] = {}
        for data_type in _BY_RANK:
            if data_type in by_type:
                ordered[data_type] = self._order(data_type, concat(by_type[data_type]))
        if not self.started:
            self.start(min(int(rows["local_timestamp"][0]) for rows in ordered.values()))
        for data_type, rows in ordered.items():
            self._watermark.saw(int(rows["local_timestamp"][-1]), RANK[data_type])
            if self.keep_rows:
                self.stored.append(rows)
        if self._primary in ordered:
            self._alive(int(ordered[self._primary]["local_timestamp"][0]))
        self._fold({data_type: self._judge(data_type, rows) for data_type, rows in ordered.items()})

    def _order(self, data_type: DataType, rows: TickBatch) -> TickBatch:
        lt = rows["local_timestamp"]
        if len(lt) > 1 and bool((lt[1:] < lt[:-1]).any()):
            rows = rows.take(np.argsort(lt, kind="stable"))
        rows, moved = in_arrival_order(rows, self._watermark.floor_for(RANK[data_type]))
        self._counter(data_type).clamped += moved
        return rows

    def _judge(self, data_type: DataType, rows: TickBatch) -> Judged:
        counter = self._counter(data_type)
        counter.received += len(rows)
        stream = self._continuity.get(data_type)
        if stream is None:
            return self._judge_state(counter, rows)
        judged = stream.judge(rows)
        for name in ("accepted", "duplicate", "invalid", "refused", "filtered", "late"):
            setattr(counter, name, int(stream.counts[name][0]))
        return judged

    def _judge_state(self, counter: StreamCounters, rows: TickBatch) -> Judged:
        """Rows without ids and prices of their own (book, ticker, options): only their times can be wrong."""
        ts, lt = rows["timestamp"], rows["local_timestamp"]
        bad = (ts < EARLIEST_US) | (ts >= LATEST_US) | (ts > lt + self.options.max_clock_skew_us)
        invalid = int(bad.sum())
        counter.invalid += invalid
        counter.accepted += len(rows) - invalid
        code = np.where(bad, INVALID_TIME, ACCEPTED).astype(np.uint8)
        return Judged(rows, code, np.zeros(len(rows), np.int8))

    def _fold(self, judged: dict[DataType, Judged]) -> None:
        if self.day is not None:
            self._fold_segment(judged)
            return
        if self._watermark.border_us == 0:
            self._watermark.border_us = self._first_border(judged)
        self._skip_silence(self._first_border(judged))
        at = dict.fromkeys(judged, 0)
        for border in borders(self._watermark.border_us, self._watermark.due()):
            limit = border + self.options.grace_us
            stops = {
                data_type: int(np.searchsorted(held.rows["local_timestamp"], limit, "left"))
                for data_type, held in judged.items()
            }
            self._fold_part(judged, at, stops)
            at = stops
            self._close(border)
        self._fold_part(judged, at, {data_type: len(held.rows) for data_type, held in judged.items()})

    def _skip_silence(self, border: int) -> None:
        """Before the first trade nothing is published: pass over whole days without rows in one step, up to the day of
        `border`, which is before every row not folded yet."""
        midnight = floor_us(border, DAY_US)
        if self._earliest_us != NEVER_US or midnight <= self._watermark.border_us:
            return
        for state in self._builder.states:
            state.settle(midnight)
        self._builder.skip_to(midnight)
        self._watermark.border_us = midnight

    def _first_border(self, judged: dict[DataType, Judged]) -> int:
        first = min(int(held.rows["local_timestamp"][0]) for held in judged.values())
        return floor_us(max(first - self.options.grace_us, 0), BORDER_US)

    def _fold_part(
        self, judged: dict[DataType, Judged], starts: dict[DataType, int], stops: dict[DataType, int]
    ) -> None:
        part = {
            data_type: held if starts[data_type] == 0 and stops[data_type] == len(held.rows)
            else held.slice(starts[data_type], stops[data_type])
            for data_type, held in judged.items()
            if stops[data_type] > starts[data_type]
        }  # fmt: skip
        if part:
            self._fold_segment(part)

    def _fold_segment(self, segment: dict[DataType, Judged]) -> None:
        for state in self._builder.states:
            state.fold(segment)
        primary = segment.get(self._primary)
        if primary is not None:
            state_like = self._primary not in _WITH_IDS
            first = primary.earliest_effective(self.options.grace_us) if state_like else primary.earliest_accepted()
            self._earliest_us = min(self._earliest_us, first)
        if self.day is None:
            changed = min((segment[key].earliest_changed() for key in _WITH_IDS if key in segment), default=NEVER_US)
            if changed < self._watermark.border_us:
                self._dirty_us = min(self._dirty_us, changed)

    def advance(self, now_us: int) -> None:
        """Promise that every row with local_timestamp < `now_us` was fed, and close what is due by then."""
        if self.day is not None:
            return
        if not self.started:
            self.start(now_us)
        self._watermark.promise(now_us)
        if self._watermark.border_us == 0:
            self._watermark.border_us = self._watermark.due()
        self._skip_silence(self._watermark.due())
        for border in borders(self._watermark.border_us, self._watermark.due()):
            self._close(border)

    def _close(self, border: int) -> None:
        """Close every candle that ends at `border`; all rows that arrived before border + grace are folded."""
        self._watermark.border_us = border
        settled = border + self.options.grace_us - self.options.revision_window_us
        for state in self._builder.states:
            state.settle(border)
        if self._earliest_us != NEVER_US:
            self._publish_closed(border)
            for series in self._series.values():
                series.forget(settled)
        if border % MINUTE_US == 0:
            self._builder.seal(floor_us(settled, MINUTE_US), tuple(self._series))

    def _publish_closed(self, border: int) -> None:
        """Publish the candles that ended by `border`, and what changed."""
        until = {timeframe: floor_us(border, timeframe.us) for timeframe in self._series}
        self._publish(until, floor_us(border, MINUTE_US))

    def _publish(self, until: dict[Timeframe, int], minutes_until: int) -> None:
        """Publish per timeframe the candles that open before `until`, and what changed; 1m candles up to
        `minutes_until` exist as children."""
        if self._earliest_us == NEVER_US:
            return
        gaps = self._outages.known()
        for timeframe, series in self._series.items():
            series.begin(self._earliest_us)
            if until[timeframe] <= series.first_us:
                continue
            span = Span(floor_us(self._earliest_us, MINUTE_US), minutes_until)
            rows = series.publish(until[timeframe], self._dirty_us, gaps, span)
            if rows:
                self._pending.setdefault(timeframe, []).extend(rows)
        self._dirty_us = NEVER_US

    def outputs(self, published_us: int | None = None) -> list[CandleBatch]:
        """Candles closed or revised since the last call, one batch per timeframe, shortest first.

        published_us: stamped as timestamp_out; None leaves close + grace there, which batch and replay publish.
        """
        if self._dirty_us != NEVER_US and self.day is None:
            self._publish_closed(self._watermark.border_us)
        pending, self._pending = self._pending, {}
        return [
            self._batch(timeframe, _joined(pending[timeframe]), published_us)
            for timeframe in self._series
            if pending.get(timeframe)
        ]

    def _batch(self, timeframe: Timeframe, rows: Array, published_us: int | None) -> CandleBatch:
        if published_us is not None:
            rows["timestamp_out"] = published_us
        layout = self._builder.plans[timeframe].layout
        fields: Mapping[str, Any] = rows.dtype.fields or {}
        texts = {name: of_code[rows[name]] for name, of_code in self._builder.codes.items() if name in fields}
        records = CandleRecords(rows, layout.names, {"quality": quality.NAMES[rows["quality"]], **texts})
        identities = digests(as_bytes(rows)[:, layout.content]) if self._identify else None
        return CandleBatch(
            self.instrument, timeframe, records, FEATURE_VERSION, self._absent, self.options.config_hash, identities
        )

    def preview(self, published_us: int) -> list[CandleBatch]:
        """The candles that are open, as they stand, one per timeframe: for display, never part of a series.

        Values as of a border (book, ticker) are null, as the border has not come. published_us: their timestamp_out.
        """
        if self.day is not None or self._earliest_us == NEVER_US:
            return []
        span = Span(floor_us(self._earliest_us, MINUTE_US), candles_open_before(self._watermark.us + 1, Timeframe.M1))
        gaps = self._outages.known()
        out: list[CandleBatch] = []
        for timeframe, series in self._series.items():
            row = series.preview(self._watermark.us, gaps, span)
            if row is not None:
                row["revision"] = 0
                out.append(self._batch(timeframe, row, published_us))
        return out

    def finish(self, stop_us: int) -> None:
        """End a finite input: the service stops at `stop_us`, and the candles still open are published as PARTIAL."""
        if self.day is not None:
            raise ValueError("a day of history ends with finish_day(), not finish()")
        self.advance(stop_us)
        self._alive(stop_us)
        self._dirty_us = min(self._dirty_us, self._outages.stopped(stop_us))
        self._stop(stop_us)
        until = {timeframe: candles_open_before(stop_us, timeframe) for timeframe in self._series}
        self._publish(until, candles_open_before(stop_us, Timeframe.M1))

    def _stop(self, stop_us: int) -> None:
        for state in self._builder.states:
            state.settle(ceil_us(stop_us, BORDER_US))

    def finish_day(self, stop_us: int | None = None) -> None:
        """Publish every candle of the day; with `stop_us` inside the day only those that open before it, which is
        where a service that did not come back stopped."""
        day = self.day
        if day is None:
            raise ValueError("finish_day() needs a pipeline with a day")
        end = day.end_us if stop_us is None else min(stop_us, day.end_us)
        self._stop(end)
        if self._earliest_us == NEVER_US and all(series.cold for series in self._series.values()):
            return
        for timeframe, series in self._series.items():
            if series.next_us == 0:
                series.begin(self._earliest_us)
            until = min(candles_open_before(end, timeframe), day.end_us)
            span = Span(floor_us(self._earliest_us, MINUTE_US), candles_open_before(end, Timeframe.M1))
            rows = series.publish_run(until, self.gaps, span)
            if len(rows):
                series.cold = False
                self._pending.setdefault(timeframe, []).append(rows)

    def snapshot(self) -> bytes:
        """The complete state as versioned bytes, without the ids seen (`ids_snapshot`)."""
        return snapshot.pack(self._tree(0))

    def border(self) -> Border:
        """The state at the end of the day's own file, before the next file's head is read: what the next day starts
        from, apart from the candles of this day (`handover`)."""
        if self.day is None:
            raise ValueError("border() needs a pipeline with a day")
        return Border(snapshot.pack(self._tree(self.day.end_us)), self.ids_snapshot())

    def handover(self, border: Border) -> tuple[bytes, bytes]:
        """(snapshot, ids) for the next day's pipeline: sequence state at the file border, candle state after the last
        candle of this day, which the head of the next file may still have changed (features.md 2.4)."""
        return snapshot.pack({**snapshot.unpack(border.state), "series": self._series_tree()}), border.ids

    def _series_tree(self) -> dict[str, Any]:
        return {str(timeframe): series.state() for timeframe, series in self._series.items()}

    def _tree(self, keep_from_us: int) -> dict[str, Any]:
        return {
            "instrument": self.instrument.key,
            "builder": self._builder.state(keep_from_us),
            "series": self._series_tree(),
            "streams": {str(key): [c.state, c.counts] for key, c in self._continuity.items()},
            "watermark": [self._watermark.us, self._watermark.rank, self._watermark.border_us],
            "times": [self._earliest_us, self._dirty_us, self._outages.open_us],
            "gaps": [asdict(gap) for gap in self.gaps],
            "counters": {str(key): asdict(value) for key, value in self.counters.items()},
            "pending": {str(timeframe): rows for timeframe, rows in self._pending.items()},
        }

    def restore(self, data: bytes) -> None:
        """Put back what `snapshot` gave, from a pipeline of the same instrument and groups. Live, the timeframes may
        differ: one that the snapshot lacks begins with its next whole candle."""
        tree = snapshot.unpack(data)
        self._builder.load(tree["builder"])
        for timeframe, series in self._series.items():
            state = tree["series"].get(str(timeframe))
            if state is not None:
                series.load(state)
            elif self.day is None and tree["watermark"][0]:
                series.begin_whole(tree["watermark"][0])
        for name, (state, counts) in tree["streams"].items():
            stream = self._continuity[DataType(name)]
            stream.state = state
            if self.day is None:
                stream.counts = counts
        self._watermark.us, self._watermark.rank, self._watermark.border_us = tree["watermark"]
        self._earliest_us, self._dirty_us, self._outages.open_us = tree["times"]
        if self.day is None:
            # A day of history has its own ledger and its own accounting.
            self._outages.gaps = [Gap.of_tree(gap) for gap in tree["gaps"]]
            self.counters = {DataType(name): StreamCounters(**value) for name, value in tree["counters"].items()}
            pending = {Timeframe(name): list(rows) for name, rows in tree["pending"].items()}
            self._pending = {timeframe: rows for timeframe, rows in pending.items() if timeframe in self._series}

    def ids_snapshot(self) -> bytes:
        """The ids seen on the current and the previous day, which a restart needs next to `snapshot`."""
        return snapshot.pack({str(key): stream.ids.export(stream.state) for key, stream in self._continuity.items()})

    def ids_mark(self) -> bytes:
        """How far the ids seen have got: with the logs of `ids_log` up to here, what `ids_snapshot` holds."""
        return snapshot.pack({str(key): stream.ids.mark(stream.state) for key, stream in self._continuity.items()})

    def ids_log(self, since: Mapping[DataType, tuple[int, int]]) -> dict[DataType, list[LoggedIds]]:
        """Keys of ids logged after the first n of a day, as (day, n) per data type; all that is held where none is
        named. The arrays stay as they are while the pipeline goes on."""
        return {
            key: stream.ids.log_since(stream.state, *since.get(key, (-1, 0)))
            for key, stream in self._continuity.items()
        }

    def restore_ids(self, data: bytes, logs: Mapping[DataType, tuple[Array, Array]] | None = None) -> None:
        """Put back what `ids_snapshot` gave, or with `logs`, the keys of the mark's day and of the day before, what
        `ids_mark` gave; after `restore`. Logs that go on behind the mark are taken as far as it says."""
        for name, content in snapshot.unpack(data).items():
            stream = self._continuity[DataType(name)]
            keys, previous = (content["log"], content["previous"]) if logs is None else logs[DataType(name)]
            stream.ids.restore(stream.state, content, keys, previous)


def _joined(rows: list[Array]) -> Array:
    return np.concatenate([as_bytes(part) for part in rows]).view(rows[0].dtype).reshape(-1)


def sorted_(timeframes: Sequence[Timeframe]) -> list[Timeframe]:
    """Timeframes, shortest first, each once."""
    return sorted(set(timeframes), key=lambda timeframe: timeframe.us)


def _shape(instrument: InstrumentDefinition, options: PipelineOptions, day: Day | None) -> RunShape:
    """Ring lengths: every bin that a row may still enter, or that a revision may still read."""
    if day is None:
        reach = options.revision_window_us + options.grace_us + options.max_clock_skew_us + 2 * MINUTE_US
    else:
        reach = DAY_US + day.tail_us + options.max_clock_skew_us + 2 * MINUTE_US
    return RunShape(
        slots15=ceil_us(reach, BORDER_US) // BORDER_US + 4,
        slots60=ceil_us(reach, MINUTE_US) // MINUTE_US + 4,
        grace_us=options.grace_us,
        floor_us=day.start_us if day else 0,
        inverse=instrument.inverse,
        multiplier=instrument.contract_size,
        parameters=options.parameters,
        expiry_us=instrument.expiry_us,
    )

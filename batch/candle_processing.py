"""Raw day files to candles: the job `candle-processing`.

A day is one pipeline: the rows of its files, then the heads of the next day's for what arrived after midnight. It
starts from the state that the day before left in `checkpoints/`, or cold, and the outcome says which (features.md 2.4,
5.3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, fields, replace
from datetime import date, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from batch import book_snapshots, day_files
from market_data_tick_handler.core import snapshot
from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.continuity import StreamCounters
from market_data_tick_handler.core.events import Gap, GapKind, Rows
from market_data_tick_handler.core.instruments import InstrumentDefinition, InstrumentType, parse_instrument_key
from market_data_tick_handler.core.options import PipelineOptions
from market_data_tick_handler.core.pipeline import Day, Pipeline
from market_data_tick_handler.core.ticks import DataType, TickBatch
from market_data_tick_handler.errors import ConfigError, DataError, MarketDataError, NotFound, OutOfRange
from market_data_tick_handler.storage.candle_files import replace_candles
from market_data_tick_handler.storage.checkpoints import get_checkpoint, put_checkpoint
from market_data_tick_handler.storage.gap_ledger import read_gaps
from market_data_tick_handler.storage.paths import day_start_us, days_between
from market_data_tick_handler.storage.raw_ticks import tick_file_rows


@dataclass(frozen=True, slots=True)
class DayOutcome:
    """What became of one instrument and day. status: done, missing (no raw file) or failed; `detail` says more.
    rows, counters: of all types of ticks together. snapshots: rows of the table with one row per book snapshot."""

    instrument: str
    day: date
    status: str
    detail: str = ""
    rows: int = 0
    candles: int = 0
    changed: int = 0
    counters: StreamCounters = field(default_factory=StreamCounters)
    snapshots: int = 0


@dataclass(frozen=True, slots=True)
class DayRun:
    """The candles of one day, shortest timeframe first, and what the next day starts from. counters: of all types."""

    candles: list[CandleBatch]
    state: bytes
    counters: StreamCounters


@dataclass(frozen=True, slots=True)
class Work:
    """One instrument over some days. fingerprint: of every option that changes values; a state made under another one
    is not used. cold: do not use earlier state at all. book_snapshots, per_snapshot: also write those tables."""

    root: Path
    instrument: InstrumentDefinition
    options: PipelineOptions
    days: tuple[date, ...]
    fingerprint: str
    cold: bool = False
    book_snapshots: bool = False
    per_snapshot: bool = False


def process(
    work: Sequence[Work], *, workers: int = 1, on_outcome: Callable[[DayOutcome], None] | None = None
) -> list[DayOutcome]:
    """Process every instrument, `workers` of them at a time in processes of their own; days of one follow in order."""
    outcomes: list[DayOutcome] = []

    def take(outcome: DayOutcome) -> None:
        outcomes.append(outcome)
        if on_outcome is not None:
            on_outcome(outcome)

    if workers <= 1 or len(work) <= 1:
        for item in work:
            for outcome in process_instrument(item):
                take(outcome)
        return outcomes
    with ProcessPoolExecutor(min(workers, len(work)), mp_context=get_context("spawn")) as pool:
        for results in pool.map(_process_all, work):
            for outcome in results:
                take(outcome)
    return outcomes


def _process_all(work: Work) -> list[DayOutcome]:
    return list(process_instrument(work))


def process_instrument(work: Work) -> Iterator[DayOutcome]:
    """Process the days of one instrument; a day that fails leaves the next one to start cold."""
    carried, why = _earlier_state(work)
    for day in work.days:
        key = work.instrument.key
        try:
            run = run_day(work.root, work.instrument, work.options, day, carried=carried)
            outcome = _write(work, day, run)
        except NotFound:
            yield DayOutcome(key, day, "missing", f"no raw {_primary(work)} of this day")
            carried, why = None, f"started cold: the day before has no raw {_primary(work)}"
            continue
        except (MarketDataError, OSError) as error:
            yield DayOutcome(key, day, "failed", str(error))
            carried, why = None, "started cold: the day before failed"
            continue
        yield replace(outcome, detail=why)
        carried, why = run.state, "state of the day before"


def _primary(work: Work) -> DataType:
    return day_files.inputs(work.instrument, work.options)[0]


def _write(work: Work, day: date, run: DayRun) -> DayOutcome:
    """Store what a day gave."""
    key, snapshots = work.instrument.key, 0
    changed = sum(replace_candles(work.root, batch, day) for batch in run.candles)
    if work.book_snapshots:
        book_snapshots.write_candles(work.root, run.candles, day)
    if work.per_snapshot:
        snapshots = book_snapshots.write_per_snapshot(work.root, work.instrument, work.options, day)
    put_checkpoint(work.root, day, key, _sealed(run.state, work.fingerprint))
    candles = sum(map(len, run.candles))
    return DayOutcome(key, day, "done", "", run.counters.received, candles, changed, run.counters, snapshots)


def _earlier_state(work: Work) -> tuple[bytes | None, str]:
    if work.cold or not work.days:
        return None, "started cold: asked to"
    held = get_checkpoint(work.root, work.days[0] - timedelta(days=1), work.instrument.key)
    if held is None:
        return None, "started cold: no state of the day before"
    try:
        tree = snapshot.unpack(held)
    except DataError as error:
        return None, f"started cold: {error}"
    if tree["fingerprint"] != work.fingerprint:
        return None, "started cold: the state of the day before was made with other settings"
    return tree["state"].tobytes(), "state of the day before"


def _sealed(state: bytes, fingerprint: str) -> bytes:
    return snapshot.pack({"fingerprint": fingerprint, "state": np.frombuffer(state, np.uint8)})


def run_day(
    root: Path, instrument: InstrumentDefinition, options: PipelineOptions, day: date, *, carried: bytes | None = None
) -> DayRun:
    """Compute one day from the raw files under `root`; nothing is written.

    carried: `DayRun.state` of the day before, None starts cold.

    Raises:
        NotFound: there is no raw file of the day. ConfigError: no selected group applies.
        CorruptObject, SchemaMismatch: a file cannot be read.
    """
    key = instrument.key
    types = day_files.inputs(instrument, options)
    if not types:
        raise ConfigError(
            f"{key}: expected a group that it has, came {' '.join(options.groups)}", key="features.groups"
        )
    gaps = [gap for gap in read_gaps(root, key, day, day) if gap.data_type is types[0]]
    found = day_files.require_primary(root, day, types, key, gaps)
    pipeline = Pipeline(instrument, options, day=Day(day_start_us(day)), gaps=gaps)
    if carried is not None:
        tree = snapshot.unpack(carried)
        pipeline.restore(tree["state"].tobytes())
        pipeline.restore_ids(tree["ids"].tobytes())
    if DataType.TRADES in found:
        pipeline.expect(tick_file_rows(day_files.day_file(root, day, DataType.TRADES, key)))
    for turn in day_files.turns(root, day, found, key):
        for rows in turn:
            _check_day(rows, pipeline.day, instrument)
        pipeline.feed([Rows(key, rows) for rows in turn])
    border = pipeline.border()
    counters = _total(pipeline.counters.values())
    followed = _feed_tail(pipeline, root, types, day)
    pipeline.finish_day(None if followed else _stop(gaps, day))
    state, ids = pipeline.handover(border)
    packed = snapshot.pack({"state": np.frombuffer(state, np.uint8), "ids": np.frombuffer(ids, np.uint8)})
    return DayRun(pipeline.outputs(), packed, counters)


def _total(counters: Iterable[StreamCounters]) -> StreamCounters:
    """The accounting of several streams as one."""
    parts = list(counters)
    return StreamCounters(*(sum(getattr(part, each.name) for part in parts) for each in fields(StreamCounters)))


def _check_day(rows: TickBatch, day: Day | None, instrument: InstrumentDefinition) -> None:
    """A day file holds what arrived on its day; rows of another one would fall into this day's bins."""
    if day is None or not len(rows):
        return
    first, last = int(rows["local_timestamp"].min()), int(rows["local_timestamp"].max())
    if first < day.start_us or last >= day.end_us:
        raise OutOfRange(
            f"{instrument.key}: expected rows received in [{day.start_us}, {day.end_us}) us in this day file, "
            f"got [{first}, {last}]; write the file again, cut by local_timestamp"
        )


def _feed_tail(pipeline: Pipeline, root: Path, types: Sequence[DataType], day: date) -> bool:
    """Feed the heads of the next day's files; False if there are none."""
    assert pipeline.day is not None
    key, following = pipeline.instrument.key, day + timedelta(days=1)
    found = day_files.stored(root, following, types, key)
    until_us = pipeline.day.end_us + pipeline.day.tail_us
    for turn in day_files.first_turns(root, following, found, key, until_us):
        pipeline.feed([Rows(key, rows) for rows in turn])
    return bool(found)


def _stop(gaps: Sequence[Gap], day: date) -> int | None:
    """Where the service stopped for good, if the ledger says that it did not come back this day."""
    end = day_start_us(day + timedelta(days=1))
    stops = [gap.from_us for gap in gaps if gap.kind is GapKind.NOT_RUNNING and gap.to_us >= end]
    return min(stops) if stops else None


def plan(
    root: Path,
    start: date,
    end: date,
    *,
    instruments: Sequence[str],
    prepare: Callable[[str], tuple[InstrumentDefinition, PipelineOptions, str]],
    cold: bool = False,
    book_snapshots: bool = False,
    per_snapshot: bool = False,
) -> list[Work]:
    """Work for `instruments`, or with none named for every instrument that has raw trades in the days, and every chain
    of options that has raw rows."""
    days = tuple(days_between(start, end))
    out: list[Work] = []
    for key in instruments or sorted(_with_rows(root, days)):
        instrument, options, fingerprint = prepare(key)
        if instruments or day_files.inputs(instrument, options):
            out.append(Work(root, instrument, options, days, fingerprint, cold, book_snapshots, per_snapshot))
    return out


def _with_rows(root: Path, days: Sequence[date]) -> set[str]:
    """Keys of the instruments that have a file of the type that makes their candles."""
    found: set[str] = set()
    for day in days:
        for data_type in (DataType.TRADES, DataType.OPTIONS):
            keys = {path.stem for path in day_files.day_file(root, day, data_type, "x").parent.glob("*.parquet")}
            found |= {key for key in keys if _is_chain(key) == (data_type is DataType.OPTIONS)}
    return found


def _is_chain(key: str) -> bool:
    return parse_instrument_key(key).instrument_type is InstrumentType.OPTION_CHAIN


def totals(outcomes: Sequence[DayOutcome]) -> dict[str, Any]:
    """Sums over outcomes, for the closing line."""
    return {
        "days": len(outcomes),
        "done": sum(outcome.status == "done" for outcome in outcomes),
        "rows": sum(outcome.rows for outcome in outcomes),
        "candles": sum(outcome.candles for outcome in outcomes),
        "changed": sum(outcome.changed for outcome in outcomes),
        "snapshots": sum(outcome.snapshots for outcome in outcomes),
    }

"""Drives pipelines from recordings, without queues, tasks or a clock: the same rows give the same bits at any speed."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from market_data_tick_handler.core.candle_batch import CandleBatch, concat_candles
from market_data_tick_handler.core.events import Event, Gap, Rows
from market_data_tick_handler.core.pipeline import Pipeline
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.storage.candle_files import CandleWriter
from market_data_tick_handler.storage.earlier_candles import EarlierCandles
from market_data_tick_handler.storage.gap_ledger import write_gaps
from market_data_tick_handler.storage.paths import gap_ledger_path, parse_path
from market_data_tick_handler.storage.raw_ticks import RawTickWriter
from streaming_service.accounting import StreamAccount, stream_accounts

OnCandles = Callable[[CandleBatch], None]
# A turn closes few candles, and each handing over costs the same for one candle as for thousands.
_GATHERED_CANDLES: Final = 4_096
_FLUSH_INTERVAL_S: Final = 5.0
# What the summary promises of a stream, in this order; late and clamped are views on accepted rows.
SUMMARY_COUNTS = ("received", "accepted", "duplicate", "invalid", "refused", "filtered")


@dataclass(slots=True)
class ReplayTotals:
    """How far a replay has got. `candles` are distinct candles, `revisions` rows published again."""

    rows: int = 0
    candles: int = 0
    revisions: int = 0
    clock_us: int = 0
    accounts: Mapping[tuple[str, DataType], StreamAccount] = field(default_factory=dict)

    def count_filtered(self, rows: Mapping[tuple[str, DataType], int]) -> None:
        """Add rows that the source left out, so that every row read is accounted for."""
        left_out = {
            key: self.accounts.get(key, StreamAccount()) + StreamAccount(received=count, filtered=count)
            for key, count in rows.items()
        }
        self.accounts = {**self.accounts, **left_out}

    def summary(self) -> dict[str, Any]:
        """The documented summary, ready for JSON."""
        streams = {
            f"{instrument}/{data_type}": {name: getattr(account, name) for name in SUMMARY_COUNTS}
            for (instrument, data_type), account in sorted(self.accounts.items())
        }
        return {"streams": streams, "candles": self.candles, "revisions": self.revisions}


class Replay:
    """Feeds one pipeline per instrument, made by `make_pipeline` at its first row, and stores what they publish.

    root: store directory; candles of an earlier run give way from the first new one of each day file on.
    store_ticks: also write the rows as stored and the gap ledger, from which batch computes the same candles;
        pipelines must then be made with keep_rows.
    """

    def __init__(
        self,
        *,
        root: Path,
        make_pipeline: Callable[[str], Pipeline],
        store_ticks: bool = False,
        on_candles: OnCandles | None = None,
    ) -> None:
        self.totals = ReplayTotals()
        self.pipelines: dict[str, Pipeline] = {}
        self._root = root
        self._make_pipeline = make_pipeline
        self._on_candles = on_candles
        self._candles = CandleWriter(root)
        self._over: list[Pipeline] = []
        self._ended: set[str] = set()
        self._stops: list[Gap] = []
        self._earlier = EarlierCandles(root)
        self._ticks = RawTickWriter(root) if store_ticks else None
        self._gathered: dict[tuple[str, Timeframe], list[CandleBatch]] = {}
        self._gathered_rows = 0
        self._flushed_s = time.monotonic()

    async def run(self, events: AsyncIterator[list[Event]], on_turn: Callable[[ReplayTotals], None]) -> ReplayTotals:
        """Take `events` to their end, then publish what is still open."""
        async for turn in events:
            self.feed(turn)
            on_turn(self.totals)
        return self.finish()

    def feed(self, events: list[Event]) -> None:
        """One turn: feed, publish, store."""
        groups: dict[str, list[Event]] = {}
        for event in events:
            groups.setdefault(event.instrument, []).append(event)
            if isinstance(event, Rows):
                self.totals.rows += len(event.batch)
        for instrument, own in groups.items():
            pipeline = self._pipeline(instrument)
            pipeline.feed(own)
            self.store(instrument)
        if time.monotonic() - self._flushed_s >= _FLUSH_INTERVAL_S:
            self._hand_over()
            self._candles.flush()
            self._flushed_s = time.monotonic()

    def begin(self, instrument: str, pipeline: Pipeline) -> None:
        """Go on with this pipeline of an instrument, in the place of the one before."""
        if instrument in self.pipelines:
            self._over.append(self.pipelines[instrument])
        self.pipelines[instrument] = pipeline
        self._ended.discard(instrument)

    def end(self, instrument: str, stop: Gap | None = None) -> None:
        """The pipeline of an instrument has published all that it shall. stop: what the ledger says of its end."""
        self._ended.add(instrument)
        if stop is not None:
            self._stops.append(stop)

    def store(self, instrument: str) -> None:
        """Take what the pipeline of an instrument published."""
        pipeline = self.pipelines[instrument]
        self._store(instrument, pipeline)
        self.totals.clock_us = max(self.totals.clock_us, pipeline.clock_us)

    def finish(self) -> ReplayTotals:
        """End of the recording: each instrument stops right after its own last row, whatever was replayed with it."""
        for instrument, pipeline in self.pipelines.items():
            if instrument not in self._ended:
                pipeline.finish(pipeline.clock_us + 1)
                self._store(instrument, pipeline)
        self._hand_over()
        self._candles.close()
        if self._ticks is not None:
            self._ticks.close()
            self._write_ledger(self._ticks.files)
        self.totals.accounts = self._accounts()
        return self.totals

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and self._ticks is not None:
            self._ticks.abandon()

    def _accounts(self) -> Mapping[tuple[str, DataType], StreamAccount]:
        accounts = stream_accounts(self.pipelines, {})
        for pipeline in self._over:
            for key, account in stream_accounts({pipeline.instrument.key: pipeline}, {}).items():
                accounts[key] = accounts.get(key, StreamAccount()) + account
        return accounts

    def _pipeline(self, instrument: str) -> Pipeline:
        if instrument not in self.pipelines:
            self.pipelines[instrument] = self._make_pipeline(instrument)
        return self.pipelines[instrument]

    def _store(self, instrument: str, pipeline: Pipeline) -> None:
        for batch in pipeline.outputs():
            again = int((batch["revision"] > 0).sum())
            self.totals.revisions += again
            self.totals.candles += len(batch) - again
            self._gathered.setdefault((instrument, batch.timeframe), []).append(batch)
            self._gathered_rows += len(batch)
            if self._on_candles is not None:
                self._on_candles(batch)
        if self._gathered_rows >= _GATHERED_CANDLES:
            self._hand_over()
        if self._ticks is None:
            return
        for ticks in pipeline.stored:
            self._ticks.write(instrument, ticks)
        pipeline.stored.clear()

    def _write_ledger(self, tick_files: Iterable[Path]) -> None:
        """The ledger tells of the same run as the tick files: what an earlier run wrote for their days goes."""
        for path in tick_files:
            named = parse_path(path.as_posix())
            (self._root / gap_ledger_path(named.day, named.name)).unlink(missing_ok=True)
        for pipeline in (*self._over, *self.pipelines.values()):
            write_gaps(self._root, pipeline.gaps)
        write_gaps(self._root, self._stops)

    def _hand_over(self) -> None:
        for batches in self._gathered.values():
            batch = concat_candles(batches)
            self._earlier.forget(batch)
            self._candles.write(batch)
        self._gathered.clear()
        self._gathered_rows = 0

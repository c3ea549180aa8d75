"""A live service in virtual time over journals on disk: feed, cut, kill, restart and repair it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from market_data_tick_handler.core.candle_batch import CandleBatch, concat_candles, newest_rows
from market_data_tick_handler.core.events import Disconnect, Event, Gap, Heartbeat, Rows
from market_data_tick_handler.core.features.registry import columns
from market_data_tick_handler.core.instruments import InstrumentDefinition, parse_instrument_key
from market_data_tick_handler.core.options import PipelineOptions
from market_data_tick_handler.core.parity import compare
from market_data_tick_handler.core.pipeline import Pipeline
from market_data_tick_handler.core.ticks import DataType, TickBatch, concat
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.testing import ManualClock, trades
from streaming_service.ingest import Cadence, Feed, Ingest
from streaming_service.recovery import Recovery, RecoveryOptions
from streaming_service.repair import Repairer, RepairOptions
from streaming_service.sink import Outlet
from streaming_service.tick_delivery import TickDelivery
from tests.parity.streams import batched
from tests.waiting import patience

S = 1_000_000
SPOT = parse_instrument_key("BINANCE:SPOT_PAIR:BTC-USDT")
# Quality and coverage tell of the feed, so that a gap shows in them.
ARRIVAL_FREE = {column.name for column in columns() if not column.depends_on_arrival} - {
    "quality",
    "coverage",
    "gap_ms",
}
START_US = 1_704_067_200_000_000 + 12 * 3_600 * S


def market(seconds: float, *, per_second: float = 4.0, seed: int = 1, start_us: int = START_US) -> TickBatch:
    """Trades with dense ids, each received 20 to 60 ms after it was made, in order of receipt."""
    rng = np.random.default_rng(seed)
    count = int(seconds * per_second)
    stamped = start_us + np.sort(rng.integers(0, int(seconds * S), count))
    received = np.maximum.accumulate(stamped + rng.integers(20_000, 60_000, count))
    prices = 42_000.0 + np.round(np.cumsum(rng.normal(0, 1.0, count)), 1)
    amounts = np.round(rng.lognormal(-3.0, 1.0, count), 3) + 0.001
    sides = rng.choice([1, -1], count)
    return trades(prices, amounts, sides=sides, timestamps=stamped, local_timestamps=received, first_id=1_000)


@dataclass
class Queue:
    """A gathering source that gives what a test has put into it."""

    waiting: list[Event] = field(default_factory=list)

    async def events(self) -> AsyncIterator[list[Event]]:
        yield []

    def drain(self) -> list[Event]:
        taken, self.waiting = self.waiting, []
        return taken


@dataclass
class Collector:
    """An outlet that keeps everything."""

    batches: list[CandleBatch] = field(default_factory=list)

    async def put(self, item: CandleBatch) -> None:
        self.batches.append(item)

    def rows(self, timeframe: str) -> list[dict]:
        return [row for batch in self.batches if batch.timeframe == timeframe for row in batch.rows()]


@dataclass
class Exchange:
    """Where missing trades can be asked for. `fail`: raised instead of an answer while there is one."""

    truth: TickBatch
    name: str = "exchange"
    fail: Exception | None = None
    complete: bool = True
    asked: list[Gap] = field(default_factory=list)

    async def fetch_trades(self, instrument: InstrumentDefinition, gap: Gap, margin_us: int) -> tuple[TickBatch, bool]:
        self.asked.append(gap)
        if self.fail is not None:
            raise self.fail
        stamped = self.truth["timestamp"]
        inside = (stamped >= gap.from_us - margin_us) & (stamped < gap.to_us + margin_us)
        rows = self.truth.take(inside)
        return rows.with_column("local_timestamp", rows["timestamp"]), self.complete


class World:
    """One instrument's service. `kill` forgets everything in memory; the constructor starts, or restarts, it.

    live: the trades that would arrive if nothing broke. tick_outlets: for ticks; `ticks.begin` is the test's to call.
    """

    def __init__(
        self,
        root: Path,
        live: TickBatch,
        *,
        clock: ManualClock | None = None,
        options: PipelineOptions | None = None,
        fetcher: Exchange | None = None,
        collector: Collector | None = None,
        warm: Callable[[Pipeline], None] = lambda pipeline: None,
        repair: RepairOptions | None = None,
        tick_outlets: Sequence[Outlet] = (),
    ) -> None:
        self.clock = ManualClock(START_US) if clock is None else clock
        self.options = (
            PipelineOptions(groups=("ohlcv", "flow", "returns", "indicators")) if options is None else options
        )
        self.live = live
        self.source = Queue()
        self.published = Collector() if collector is None else collector
        self.recovery = Recovery(root, clock=self.clock, options=RecoveryOptions())
        self.pipelines = {SPOT.key: self.recovery.open(SPOT.key, self.make, warm=warm)}
        self.ticks = TickDelivery(tick_outlets, clock=self.clock)
        self.ticks.admit(self.recovery.journal(SPOT.key), [DataType.TRADES], self.recovery.resumed_at(SPOT.key))
        # The connection is there at once.
        self.pipeline.know(self.pipeline.gaps)
        self.fetcher = Exchange(live) if fetcher is None else fetcher
        self.ingest = Ingest(
            self.pipelines,
            [Feed("queue", self.source)],
            clock=self.clock,
            cadence=Cadence.of(self.options.timeframes, self.options.grace_us),
            candle_outlets=[self.published],  # type: ignore[list-item]
            tick_outlets=tick_outlets,
            keeper=self.recovery,  # type: ignore[arg-type]
        )
        self.repairer = Repairer(
            self.pipelines,
            self.recovery,
            clock=self.clock,
            fetchers={SPOT.key: [self.fetcher]},
            between_turns=self.ingest.between_turns,
            options=RepairOptions() if repair is None else repair,
            on_put_back=self.ticks.deliver_fetched,
        )
        self._fed_us = self.clock.now_us()

    def make(self) -> Pipeline:
        return Pipeline(SPOT, self.options, identify=True)

    @property
    def pipeline(self) -> Pipeline:
        return self.pipelines[SPOT.key]

    async def run(self, seconds: float, *, step_s: float = 0.25, dead: bool = False, alive: bool = False) -> None:
        """Let time pass. dead: nothing arrives, and nothing proves life. alive: heartbeats prove it each second."""
        for _ in range(round(seconds / step_s)):
            self.clock.move(step_s)
            now_us = self.clock.now_us()
            local = self.live["local_timestamp"]
            low, high = np.searchsorted(local, [self._fed_us, now_us], "left").tolist()
            self._fed_us = now_us
            if not dead and high > low:
                self.source.waiting.append(Rows(SPOT.key, self.live.slice(low, high)))
            if alive:
                self.source.waiting.append(Heartbeat(SPOT.key, now_us))
            await self.ingest.turn()
            balanced = all(counters.balanced() for counters in self.pipeline.counters.values())
            assert balanced, self.pipeline.counters

    async def cut(self, seconds: float) -> None:
        """The connection is lost for so long; what was sent meanwhile never arrives."""
        last_us = self.clock.now_us()
        self.source.waiting.append(Disconnect(SPOT.key, last_us, last_us, "cut"))
        await self.run(seconds, dead=True)
        self.source.waiting.append(Heartbeat(SPOT.key, self.clock.now_us()))
        await self.ingest.turn()

    async def repair(self) -> None:
        """Carry on until no gap is under repair."""
        running = asyncio.create_task(self.repairer.run())
        try:
            async with patience(lambda: f"no gap under repair, there are {self.repairer.pending}"):
                await self.run(1.5)
                await self.clock.advance(0.3)
                while self.repairer.pending:
                    if running.done():
                        running.result()
                    # Time stands still while files are worked on in a thread.
                    if self.clock.sleeping:
                        await self.run(0.25)
                    await self.ingest.turn()
                    await asyncio.sleep(0)
        finally:
            running.cancel()

    def checkpoint(self) -> None:
        self.recovery.save(SPOT.key, self.recovery.capture(SPOT.key, self.pipeline))

    def kill(self) -> None:
        """As if the process died: what is not in the journals is gone, and their locks are free."""
        self.recovery.release()

    def stored(self) -> list[TickBatch]:
        """All rows as stored, fetched ones at their places."""
        return [batch for turn in self.recovery.journal(SPOT.key).read_merged() for batch in turn.batches]

    async def finish(self) -> None:
        """Publish the candles that are still open, as at the end of a recording."""
        await self.ingest.finish()

    def assert_equals_ungapped(self) -> None:
        """What was published last of every candle == a run that lost nothing, in all that does not follow arrival."""
        pipeline = Pipeline(SPOT, self.options)
        now_us = self.clock.now_us()
        pipeline.start(int(self.pipeline.gaps[0].to_us))
        pipeline.feed(Rows(SPOT.key, self.live.slice(0, int(np.searchsorted(self.live["local_timestamp"], now_us)))))
        pipeline.finish(now_us)
        whole = final(pipeline.outputs())
        for name, candles in self.final().items():
            left, right = (
                {key: column for key, column in side.columns.items() if key in ARRIVAL_FREE}
                for side in (candles, whole[name])
            )
            report = compare(left, right)
            assert report.ok, (name, report.by_kind(), report.differences[:4])

    def final(self) -> dict[str, CandleBatch]:
        """The last revision of every candle published."""
        return final(self.published.batches)

    def assert_equals_batch(self) -> None:
        """What was published last of every candle == batch over the rows as stored with the ledger, bit for bit."""
        stored = [concat(self.stored())]
        batch = {str(name): candles for name, candles in batched(self.pipeline, stored, self.options, SPOT).items()}
        mine = self.final()
        assert mine.keys() == batch.keys()
        for name, candles in mine.items():
            report = compare(candles.columns, batch[name].columns)
            assert report.ok, (name, report.by_kind(), report.differences[:4])
            assert report.compared > 0

    def assert_identities_are_unique(self) -> None:
        """No (timeframe, timestamp, revision) was published with two contents."""
        seen: dict[tuple[str, int, int], bytes] = {}
        for batch in self.published.batches:
            assert batch.digests is not None
            for timestamp, revision, digest in zip(batch["timestamp"], batch["revision"], batch.digests, strict=True):
                key = (str(batch.timeframe), int(timestamp), int(revision))
                assert seen.setdefault(key, digest.tobytes()) == digest.tobytes(), key


def final(batches: Sequence[CandleBatch]) -> dict[str, CandleBatch]:
    groups: dict[Timeframe, list[CandleBatch]] = {}
    for batch in batches:
        groups.setdefault(batch.timeframe, []).append(batch)
    return {str(timeframe): newest_rows(concat_candles(group)) for timeframe, group in groups.items()}

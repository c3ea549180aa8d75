"""Crashes, restarts and repairs in virtual time: the table of trades has every row of the journal, once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.ticks import DataType, TickBatch, concat
from market_data_tick_handler.errors import NotFound, SinkBusy
from market_data_tick_handler.storage.local_tables import read_table
from market_data_tick_handler.testing import ManualClock
from streaming_service.recovery import Recovery
from streaming_service.sink import Outlet, SinkItem, TickChannel
from streaming_service.sinks.tables.local import LocalTableSink
from streaming_service.sinks.tables.rows import tick_rows
from streaming_service.tick_delivery import TickDelivery
from tests.streaming_service.recovery_world import SPOT, START_US, World, market
from tests.streaming_service.sinks.tables.world import make_sink, table
from tests.waiting import patience

# Nothing goes out by itself: the spool is what a crash leaves.
NEVER_S = 1e9


class Straight(Outlet):
    """An outlet without a queue: what is put is written at once."""

    async def put(self, item: SinkItem) -> None:
        await self.sink.write(item)


class Tables:
    """The table of trades of one service, over its crashes."""

    def __init__(self, root: Path, clock: ManualClock) -> None:
        self.root = root
        self._clock = clock
        self.sink: LocalTableSink
        self.outlet: Straight

    async def start(self) -> None:
        self.sink = make_sink(self.root, clock=self._clock, timeout="1h", every_s=NEVER_S)
        self.outlet = Straight("tables", self.sink, clock=self._clock)
        await self.sink.open()
        # Only what a test flushes is in the spool.
        for job in self.sink._jobs:
            job.cancel()
        await asyncio.wait(self.sink._jobs)

    async def kill(self) -> None:
        """What is not in the spool is gone."""
        await self.sink._sending.stop()
        self.sink.spool.close()
        await self.sink.backend.aclose()

    async def stop(self) -> None:
        await self.sink.aclose()

    def rows(self) -> pa.Table:
        """What is in the table, as it came, but for when it left."""
        try:
            return read_table(table(self.root, "ticks_trades")).drop_columns(["timestamp_out"])
        except NotFound:
            return as_table([]).slice(0, 0)


def as_table(batches: list[TickBatch]) -> pa.Table:
    """Rows as the table has them."""
    batches = batches or [market(2)]
    return pa.Table.from_batches([tick_rows([Rows(SPOT.key, concat(batches))])]).drop_columns(["timestamp_out"])


def assert_same_rows(found: pa.Table, wanted: pa.Table) -> None:
    order = [(name, "ascending") for name in wanted.schema.names]
    assert found.num_rows == wanted.num_rows
    assert found.sort_by(order).equals(wanted.cast(found.schema).sort_by(order))


async def started(root: Path, tables: Tables, live: TickBatch, clock: ManualClock) -> World:
    """A service with its table, ready for its first turn."""
    await tables.start()
    world = World(root, live, clock=clock, tick_outlets=[tables.outlet])
    await world.ticks.begin()
    return world


@pytest.mark.parametrize("seed", range(10))
async def test_killed_at_any_moment_the_table_has_every_row_of_the_journal(tmp_path: Path, seed: int) -> None:
    """Rows that were in memory, rows of gaps, rows that were delivered in part: all are there once, bit for bit."""
    rng = np.random.default_rng(seed)
    live, clock = market(400, seed=seed), ManualClock(START_US)
    tables = Tables(tmp_path / "store", clock)
    world = await started(tmp_path / "state", tables, live, clock)
    for _ in range(4):
        for _ in range(int(rng.integers(1, 4))):
            await world.run(float(rng.uniform(1, 12)))
            if rng.random() < 0.5:
                await tables.sink.flush()
            if rng.random() < 0.4:
                world.checkpoint()
        if rng.random() < 0.4:
            await world.cut(float(rng.uniform(1, 5)))
        if rng.random() < 0.6:
            await world.run(4)
            await world.repair()
        await tables.kill()
        world.kill()
        clock.move(float(rng.uniform(0, 6)))
        world = await started(tmp_path / "state", tables, live, clock)
    await world.run(5)
    await world.repair()
    await tables.stop()
    assert sum(len(batch) for batch in world.stored()) > 100
    assert_same_rows(tables.rows(), as_table(world.stored()))
    assert world.ticks.lost == {"tables": 0}


async def test_rows_that_no_disk_but_the_journals_had_are_delivered_again(tmp_path: Path) -> None:
    clock = ManualClock(START_US)
    tables = Tables(tmp_path / "store", clock)
    world = await started(tmp_path / "state", tables, market(60), clock)
    await world.run(10)
    await tables.sink.flush()
    flushed = sum(len(batch) for batch in world.stored())
    await world.run(3)
    behind = sum(len(batch) for batch in world.stored()) - flushed
    await tables.kill()
    world.kill()
    world = await started(tmp_path / "state", tables, market(60), clock)
    assert world.ticks.again == {"tables": behind} and behind > 5
    await tables.stop()
    assert_same_rows(tables.rows(), as_table(world.stored()))


async def test_a_table_switched_on_later_begins_there_and_misses_nothing_from_then_on(tmp_path: Path) -> None:
    """Killed before the spool had a single row: what was journaled since the start is the table's, nothing before."""
    live, clock = market(120), ManualClock(START_US)
    before = World(tmp_path / "state", live, clock=clock)
    await before.run(20)
    count = sum(len(batch) for batch in before.stored())
    before.kill()
    tables = Tables(tmp_path / "store", clock)
    world = await started(tmp_path / "state", tables, live, clock)
    await world.run(10)
    await tables.kill()
    world.kill()
    world = await started(tmp_path / "state", tables, live, clock)
    await tables.stop()
    wanted = concat(world.stored())
    assert count > 50 and len(wanted) > count + 20
    assert_same_rows(tables.rows(), as_table([wanted.slice(count, len(wanted))]))


async def test_rows_of_a_repair_are_in_the_table_when_it_is_done_with_their_times(tmp_path: Path) -> None:
    live, clock = market(60), ManualClock(START_US)
    tables = Tables(tmp_path / "store", clock)
    world = await started(tmp_path / "state", tables, live, clock)
    await world.run(10)
    await world.cut(5)
    await world.run(5)
    await world.repair()
    assert world.repairer.counters.rows > 10
    await tables.stop()
    assert_same_rows(tables.rows(), as_table(world.stored()))


async def test_rows_of_a_repair_survive_a_crash_before_it_was_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fetched rows are in the journal, and the process dies before the pipeline has them."""
    live, clock = market(60), ManualClock(START_US)
    tables = Tables(tmp_path / "store", clock)
    world = await started(tmp_path / "state", tables, live, clock)
    await world.run(10)
    await world.cut(5)
    await world.run(5)
    await tables.sink.flush()
    flushed = len(concat(world.stored()))

    class Died(BaseException):
        """The process is gone."""

    def die(*args: object) -> None:
        raise Died

    with monkeypatch.context() as patched:
        patched.setattr(Recovery, "take_place", die)
        with pytest.raises(Died):
            await world.repair()
    journal = world.recovery.journal(SPOT.key)
    assert journal.fetched.numbering.counts[DataType.TRADES] > 10
    await tables.kill()
    world.kill()
    world = await started(tmp_path / "state", tables, live, clock)
    assert world.ticks.again == {"tables": len(concat(world.stored())) - flushed}
    await tables.stop()
    assert_same_rows(tables.rows(), as_table(world.stored()))


async def test_rows_that_the_journal_forgot_are_counted_as_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The spool took nothing for longer than journals are kept."""
    live, clock = market(60), ManualClock(START_US)
    tables = Tables(tmp_path / "store", clock)
    world = await started(tmp_path / "state", tables, live, clock)
    await world.run(10)
    await tables.sink.flush()
    have = sum(len(batch) for batch in world.stored())
    await world.run(10)
    log = world.recovery.journal(SPOT.key)._ticks
    log.rotate()
    await world.run(10)
    everything = concat(world.stored())
    log.forget(log.segments[-1].number)
    left = sum(len(batch) for batch in world.stored())
    await tables.kill()
    world.kill()
    world = await started(tmp_path / "state", tables, live, clock)
    lost = len(everything) - have - left
    assert world.ticks.lost == {"tables": lost} and lost > 20
    assert any("lost to a sink" in record.message for record in caplog.records)
    await tables.stop()
    at = [*range(have), *range(have + lost, len(everything))]
    assert_same_rows(tables.rows(), as_table([everything.take(np.array(at))]))


async def test_a_journal_that_lost_its_end_to_a_power_failure_hides_no_later_row(tmp_path: Path) -> None:
    """The spool is ahead of the journal then, and new rows must not be taken for those it has."""
    live, clock = market(60), ManualClock(START_US)
    tables = Tables(tmp_path / "store", clock)
    world = await started(tmp_path / "state", tables, live, clock)
    await world.run(10)
    log = world.recovery.journal(SPOT.key)._ticks
    path, size, kept = log.segments[-1].path, log.segments[-1].end, concat(world.stored())
    await world.run(5)
    gone = len(concat(world.stored())) - len(kept)
    await tables.sink.flush()
    await tables.kill()
    world.kill()
    with path.open("r+b") as file:
        file.truncate(size)
    world = await started(tmp_path / "state", tables, live, clock)
    await world.run(5)
    await tables.kill()
    world.kill()
    world = await started(tmp_path / "state", tables, live, clock)
    await tables.stop()
    assert gone > 10 and tables.rows().num_rows == gone + len(concat(world.stored()))


class Slow:
    """A sink that can say nothing for a while."""

    def __init__(self, busy: int = 0) -> None:
        self.open_now = asyncio.Event()
        self.busy = busy
        self.rows: list[Rows] = []

    async def open(self) -> None: ...

    async def write(self, batch: SinkItem) -> None:
        assert isinstance(batch, Rows)
        self.rows.append(batch)

    async def flush(self) -> None: ...

    async def aclose(self) -> None: ...

    async def resume_ticks(self, ends: Mapping[TickChannel, int]) -> Mapping[TickChannel, int]:
        await self.open_now.wait()
        if self.busy:
            self.busy -= 1
            raise SinkBusy("the disk is full")
        return dict.fromkeys(ends, 0)


def delivery(tmp_path: Path, sink: Slow, clock: ManualClock) -> tuple[TickDelivery, Straight]:
    """Ten seconds of rows in a journal, of which the sink has none."""
    outlet = Straight("slow", sink, clock=clock)
    world = World(tmp_path, market(20), clock=clock)
    ticks = TickDelivery([outlet], clock=clock)
    ticks.admit(world.recovery.journal(SPOT.key), [DataType.TRADES], None)
    return ticks, outlet


async def test_it_waits_for_a_sink_that_opens_late_and_asks_a_busy_one_again(tmp_path: Path) -> None:
    clock, sink = ManualClock(START_US), Slow(busy=3)
    first = World(tmp_path, market(20), clock=clock)
    await first.run(10)
    count = len(concat(first.stored()))
    first.kill()
    ticks, _ = delivery(tmp_path, sink, clock)
    begun = asyncio.create_task(ticks.begin())
    await clock.advance(5)
    assert not begun.done()
    sink.open_now.set()
    async with patience("a sink that is asked again until it takes the rows"):
        while not begun.done():
            await clock.advance(1)
    assert sum(len(rows.batch) for rows in sink.rows) == count > 20 and sink.busy == 0
    assert [rows.numbers.first for rows in sink.rows if rows.numbers is not None] == [1]


async def test_a_sink_that_was_given_up_holds_no_turn_up(tmp_path: Path) -> None:
    clock, sink = ManualClock(START_US), Slow()
    ticks, outlet = delivery(tmp_path, sink, clock)
    begun = asyncio.create_task(ticks.begin())
    await clock.advance(5)
    assert not begun.done()
    outlet.abandon()
    async with patience("a sink that is given up"):
        await begun
    await ticks.deliver_fetched(SPOT.key)
    assert sink.rows == []

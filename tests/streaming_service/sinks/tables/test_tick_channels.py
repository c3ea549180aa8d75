"""Numbered ticks: however often and in whatever pieces they are delivered, the table has each once."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from market_data_tick_handler.core.events import RowNumbers, Rows
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.testing.clock import ManualClock
from market_data_tick_handler.testing.ticks import BTC, START_US, trades
from streaming_service.sink import CountsTicks, TickChannel
from streaming_service.sinks.spool import Spool
from streaming_service.sinks.spool_records import Begun, Mark, SpoolState, decode, encode
from streaming_service.sinks.table_spool import TableSpool
from streaming_service.sinks.tables.definitions import live_tables
from streaming_service.sinks.tables.gathering import Gathered, channel_of, tick_channel
from streaming_service.sinks.tables.local import LocalTableSink
from tests.streaming_service.sinks.tables.world import make_sink, numbers
from tests.waiting import patience

FED = TickChannel(BTC, DataType.TRADES, "b1")


def ticks(first: int, count: int, birth: str = "b1", *, fetched: bool = False) -> Rows:
    """Rows whose price is their number."""
    batch = trades(np.arange(first, first + count), first_id=first)
    return Rows(BTC, batch, numbers=RowNumbers(birth, first, fetched))


def prices(store: Path) -> list[float]:
    return numbers(store, "ticks_trades", "price")


async def opened(store: Path) -> LocalTableSink:
    sink = make_sink(store, clock=ManualClock(START_US), timeout="1h")
    await sink.open()
    return sink


async def kill(sink: LocalTableSink) -> None:
    """What is not in the spool is gone, and nothing is sent any more."""
    for job in sink._jobs:
        job.cancel()
    await asyncio.wait(sink._jobs)
    await sink._sending.stop()
    sink.spool.close()
    await sink.backend.aclose()


@pytest.mark.parametrize("seed", range(20))
async def test_rows_delivered_again_in_other_pieces_are_there_once(tmp_path: Path, seed: int) -> None:
    """From where the spool was, over crashes, as fed and as fetched side by side."""
    chance = random.Random(seed)
    fed, fetched = FED, FED._replace(fetched=True)
    for _ in range(4):
        sink = await opened(tmp_path)
        at = dict(await sink.resume_ticks({fed: 0, fetched: 0}))
        for _ in range(chance.randint(1, 12)):
            channel = chance.choice([fed, fetched])
            # Some of it was delivered before.
            first, count = max(at[channel] - chance.randint(0, 5), 0) + 1, chance.randint(1, 9)
            await sink.write(ticks(first, count, fetched=channel.fetched))
            at[channel] = max(at[channel], first + count - 1)
            if chance.random() < 0.3:
                await sink.flush()
        if chance.random() < 0.7:
            await kill(sink)
        else:
            await sink.aclose()
    sink = await opened(tmp_path)
    ends = await sink.resume_ticks({fed: 0, fetched: 0})
    await sink.aclose()
    assert prices(tmp_path) == sorted([*range(1, ends[fed] + 1), *range(1, ends[fetched] + 1)])


async def test_a_channel_that_is_new_begins_for_good_where_it_was_said_to(tmp_path: Path) -> None:
    """Also when the process dies before the first row."""
    sink = await opened(tmp_path)
    assert await sink.resume_ticks({FED: 70}) == {FED: 70}
    await kill(sink)
    sink = await opened(tmp_path)
    assert isinstance(sink, CountsTicks)
    assert await sink.resume_ticks({FED: 90}) == {FED: 70}
    await sink.write(ticks(66, 10))
    await sink.aclose()
    assert prices(tmp_path) == [71, 72, 73, 74, 75]
    assert sink.repeated_rows == 5


async def test_another_journal_begins_anew_and_ends_the_one_before(tmp_path: Path) -> None:
    sink = await opened(tmp_path)
    await sink.resume_ticks({FED: 5, FED._replace(fetched=True): 3})
    await sink.resume_ticks({FED._replace(birth="b2"): 0})
    assert sink.spooled(tick_channel(FED), "ticks_trades") is None
    assert sink.spooled(tick_channel(FED._replace(fetched=True)), "ticks_trades") == Mark(3, 0)
    await sink.write(ticks(1, 3, "b2"))
    await sink.aclose()
    assert prices(tmp_path) == [1, 2, 3]


async def test_rows_without_numbers_are_taken_as_they_come(tmp_path: Path) -> None:
    """Beside numbered ones, whose numbers they do not move."""
    sink = await opened(tmp_path)
    await sink.resume_ticks({FED: 0})
    plain = Rows(BTC, trades(np.arange(4), first_id=1))
    for item in (ticks(1, 2), plain, plain, ticks(2, 2)):
        await sink.write(item)
    await sink.flush()
    marks = [sink.spooled(channel_of(item), "ticks_trades") for item in (plain, ticks(1, 1))]
    assert [mark and mark.sequence for mark in marks] == [8, 3]
    await sink.aclose()
    assert prices(tmp_path) == sorted([*range(4), *range(4), 1, 2, 3])


async def test_it_says_nothing_before_the_spool_is_open(tmp_path: Path) -> None:
    sink = make_sink(tmp_path, clock=ManualClock(START_US))
    asked = asyncio.create_task(sink.resume_ticks({FED: 2}))
    await asyncio.sleep(0)
    assert not asked.done()
    await sink.open()
    async with patience("the answer"):
        assert await asked == {FED: 2}
    await sink.aclose()


def test_each_piece_in_the_spool_says_how_far_it_goes(tmp_path: Path) -> None:
    """A crash between two pieces of one batch costs the second, which is delivered again."""
    definition = live_tables(timeframes=[], data_types=[DataType.TRADES])[0]
    spool = Spool(tmp_path, max_bytes=1 << 30).table(definition.name)
    gathered = Gathered(definition)
    for item in (ticks(1, 7), ticks(100, 3, fetched=True), ticks(8, 4)):
        gathered.add(item)
    told: list[tuple[int, dict[str, int]]] = []
    append = spool.append

    def noting(batch: pa.RecordBatch, *, now_us: int, marks: dict[str, Mark]) -> None:
        append(batch, now_us=now_us, marks=marks)
        told.append((batch.num_rows, {name: mark.sequence for name, mark in marks.items()}))

    spool.append = noting  # type: ignore[method-assign, assignment]
    gathered.move(gathered.items, spool, now_us=START_US, max_rows=5, bury=lambda item, reason: None)
    fed, repaired = tick_channel(FED), tick_channel(FED._replace(fetched=True))
    assert told == [(5, {fed: 5}), (5, {fed: 7, repaired: 102}), (4, {fed: 11})]
    spool.close()


def test_the_record_of_a_beginning_is_what_it_was_and_stays_in_the_state(tmp_path: Path) -> None:
    record = Begun({"a/trades@x": Mark(7, 0), "b/trades/repair@y": Mark(0, 0)})
    assert decode(encode(record))[0] == record
    state = SpoolState(marks={"a/trades@w": Mark(5, 9), "a/trades": Mark(2, 9), "b/trades@y": Mark(1, 9)}, out_us=9)
    state.apply(record)
    assert state.marks == {"a/trades": Mark(2, 9), "b/trades@y": Mark(1, 9), **record.marks} and state.out_us == 9
    assert SpoolState.of_tree(state.tree()) == state
    home = Spool(tmp_path, max_bytes=1 << 30)
    spool: TableSpool = home.table("t")
    spool.begin(record.marks, now_us=START_US)
    home.close()
    assert Spool(tmp_path, max_bytes=1 << 30).table("t").marks == dict(record.marks)

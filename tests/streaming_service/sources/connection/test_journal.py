"""A journal is read back as it was written, whatever happened to its end, and replays to the same candles."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

import numpy as np
import pytest

from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.events import Disconnect, Event, Gap, Heartbeat, Rows
from market_data_tick_handler.core.instruments import InstrumentDefinition
from market_data_tick_handler.core.options import PipelineOptions
from market_data_tick_handler.core.pipeline import Pipeline
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.errors import ConfigError, CorruptObject, NotFound
from market_data_tick_handler.testing import ManualClock
from streaming_service.source import PacedSource
from streaming_service.sources.connection.journal import JournalSource
from streaming_service.sources.connection.recorder import FrameRecorder
from streaming_service.sources.connection.recording import (
    PACKED_SUFFIX,
    SUFFIX,
    Closed,
    Frames,
    Opened,
    Promoted,
    RecordedFrames,
    Session,
    Turn,
    Wanted,
)
from streaming_service.sources.exchanges.protocol import KeepAlive
from tests.streaming_service.sources.connection.plain_venue import BTC, ETH, EXCHANGE, PlainVenue
from tests.streaming_service.sources.connection.running import CLOCK, running
from tests.streaming_service.sources.connection.venue_server import serving
from tests.waiting import until

T0 = 1_704_067_200_000_000
BOTH = (DataType.TRADES, DataType.BOOK)
STREAMS = ((BTC.key, DataType.BOOK), (BTC.key, DataType.TRADES))
VENUES = {EXCHANGE: PlainVenue()}


def recorder(path: Path, **options: int | bool) -> FrameRecorder:
    return FrameRecorder(path, exchange=EXCHANGE, started_us=T0, **options)  # type: ignore[arg-type]


def trade(number: int) -> bytes:
    return b'{"s": "BTCUSDT", "t": %d, "p": 1.5, "T": %d}' % (number, T0 + number)


def write_turns(path: Path, turns: int, **options: int | bool) -> FrameRecorder:
    """Turns of three trades each on one connection."""
    it = recorder(path, **options)
    it.opened(0, T0, STREAMS)
    for turn in range(turns):
        first = 3 * turn + 1
        local_us = T0 + 1_000 * turn + np.arange(3)
        it.frames(0, [trade(number) for number in range(first, first + 3)], local_us)
        it.turn(T0 + 1_000 * (turn + 1))
    return it


def ids_of(path: Path) -> list[int]:
    return [int(frame.split(b'"t": ')[1].split(b",")[0]) for each in RecordedFrames(path)
            if isinstance(each, Frames) for frame in each.frames]  # fmt: skip


async def replayed(path: Path, venue: PlainVenue | None = None) -> list[Event]:
    source = JournalSource(path, {EXCHANGE: PlainVenue() if venue is None else venue}, clock=CLOCK)
    assert isinstance(source, PacedSource)
    out: list[Event] = []
    async with aclosing(source.events()) as lists:  # type: ignore[type-var]
        async for events in lists:
            newest_us = max(
                (int(each.batch["local_timestamp"].max()) for each in events if isinstance(each, Rows)), default=0
            )
            assert newest_us <= source.fed_until_us
            out += events
    return out


def test_every_kind_of_record_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    gap = Gap(BTC.key, DataType.BOOK, T0, T0 + 5, "expected 3, came 7")
    lost = Disconnect(BTC.key, T0 + 9, T0 + 8, "connection lost", 1)
    beat = Heartbeat(BTC.key, T0 + 10, 1)
    it = recorder(tmp_path)
    it.opened(1, T0, STREAMS)
    it.frames(1, [b"", b"\x00\xff", b"x" * 70_000], np.array([T0, T0, T0 + 1]))
    it.promoted(1, 2, T0 + 2)
    it.wanted([ETH.key, BTC.key])
    it.closed(1, T0 + 3, T0 + 1, "closed by the other side: 1001 bye")
    for mark in (gap, lost, beat):
        it.mark(mark)
    it.turn(T0 + 11)
    it.close()
    session, opened, frames, *others = RecordedFrames(tmp_path)
    assert session == Session(EXCHANGE, T0, 0)
    assert opened == Opened(1, T0, EXCHANGE, STREAMS)
    assert isinstance(frames, Frames)
    assert (frames.connection, frames.frames) == (1, [b"", b"\x00\xff", b"x" * 70_000])
    assert frames.local_us.tolist() == [T0, T0, T0 + 1] and frames.local_us.dtype == np.int64
    assert others == [
        Promoted(1, 2, T0 + 2), Wanted((ETH.key, BTC.key) if ETH.key < BTC.key else (BTC.key, ETH.key)),
        Closed(1, T0 + 3, T0 + 1, "closed by the other side: 1001 bye"), gap, lost, beat, Turn(T0 + 11),
    ]  # fmt: skip


def test_a_turn_without_anything_writes_nothing(tmp_path: Path) -> None:
    it = recorder(tmp_path / "journal")
    it.turn(T0)
    it.close()
    assert not (tmp_path / "journal").exists()


@pytest.mark.parametrize("compress", [False, True])
def test_files_are_rotated_by_size_and_read_as_one(tmp_path: Path, compress: bool) -> None:
    it = write_turns(tmp_path, 100, max_bytes=2_000, compress=compress)
    it.close()
    files = sorted(path.name for path in tmp_path.iterdir())
    assert len(files) > 5
    packed = [name for name in files if name.endswith(PACKED_SUFFIX)]
    assert len(packed) == (len(files) - 1 if compress else 0)
    assert all(name.startswith(f"{EXCHANGE}-") for name in files)
    assert ids_of(tmp_path) == list(range(1, 301))
    assert RecordedFrames(tmp_path).torn == []


def test_files_are_rotated_by_time(tmp_path: Path) -> None:
    write_turns(tmp_path, 100, max_us=25_000, compress=False).close()
    assert len(list(tmp_path.iterdir())) == 4


def test_every_file_begins_with_what_is_open_so_that_it_can_be_read_alone(tmp_path: Path) -> None:
    write_turns(tmp_path, 100, max_bytes=2_000, compress=False).close()
    second = sorted(tmp_path.iterdir())[1]
    session, opened, *_ = RecordedFrames(second)
    assert session == Session(EXCHANGE, T0, 1)
    assert opened == Opened(0, T0, EXCHANGE, STREAMS, True)


@pytest.mark.parametrize("cut", [1, 5, 8, 60, 250])
def test_a_torn_end_costs_the_torn_turn_only(tmp_path: Path, cut: int) -> None:
    write_turns(tmp_path, 20, compress=False).close()
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-cut])
    recorded = RecordedFrames(tmp_path)
    numbers = [len(each.frames) for each in recorded if isinstance(each, Frames)]
    # A turn of three trades is about 220 bytes.
    assert len(numbers) == (18 if cut == 250 else 19)
    assert recorded.torn == [file]


@pytest.mark.parametrize("left", [0, 3])
def test_a_file_torn_in_its_head_is_empty(tmp_path: Path, left: int) -> None:
    write_turns(tmp_path, 3, compress=False).close()
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:left])
    recorded = RecordedFrames(tmp_path)
    assert list(recorded) == []
    assert recorded.torn == [file]


def test_damage_before_the_end_is_an_error(tmp_path: Path) -> None:
    write_turns(tmp_path, 20, compress=False).close()
    (file,) = tmp_path.iterdir()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(CorruptObject, match="fails its checksum"):
        list(RecordedFrames(tmp_path))


def test_a_compressed_file_that_is_damaged_is_an_error(tmp_path: Path) -> None:
    write_turns(tmp_path, 100, max_bytes=2_000).close()
    file = next(path for path in tmp_path.iterdir() if path.name.endswith(PACKED_SUFFIX))
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(CorruptObject):
        list(RecordedFrames(tmp_path))


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / f"other{SUFFIX}").write_bytes(b"exchange,symbol,timestamp\n")
    with pytest.raises(CorruptObject, match="begins with"):
        list(RecordedFrames(tmp_path))


def test_a_directory_without_journals_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="found none"):
        RecordedFrames(tmp_path)


def test_a_disk_that_fails_stops_the_journal_and_not_the_feed(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    it = write_turns(blocked / "journal", 5)
    it.close()
    assert "NotADirectoryError" in it.failed or "FileExistsError" in it.failed
    assert it.written_bytes == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
def test_a_disk_that_becomes_full_leaves_what_was_written_before(tmp_path: Path) -> None:
    it = write_turns(tmp_path, 5)
    assert it._file is not None
    it._file.close()
    it._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
    it.frames(0, [trade(100)], np.array([T0 + 90_000]))
    it.turn(T0 + 90_001)
    assert "No space left" in it.failed
    it.frames(0, [trade(101)], np.array([T0 + 90_002]))
    it.turn(T0 + 90_003)
    it.close()
    assert ids_of(tmp_path) == list(range(1, 16))


async def test_frames_of_a_connection_that_is_not_in_the_files_are_counted(tmp_path: Path) -> None:
    it = recorder(tmp_path)
    it.frames(5, [trade(1), trade(2)], np.array([T0, T0]))
    it.turn(T0 + 1)
    it.close()
    source = JournalSource(tmp_path, VENUES, clock=CLOCK)
    async with aclosing(source.events()) as lists:  # type: ignore[type-var]
        assert [events async for events in lists] == []
    assert source.replay.unknown_frames == 2


async def test_a_journal_of_an_unknown_venue_is_refused(tmp_path: Path) -> None:
    write_turns(tmp_path, 1).close()
    with pytest.raises(ConfigError, match="frames of 'plain'"):
        await anext(aiter(JournalSource(tmp_path, {}, clock=CLOCK).events()))


async def test_what_was_open_when_a_writer_died_is_an_outage_in_its_successor(tmp_path: Path) -> None:
    write_turns(tmp_path, 10).close()
    later = FrameRecorder(tmp_path, exchange=EXCHANGE, started_us=T0 + 60_000_000)
    later.opened(0, T0 + 61_000_000, STREAMS)
    later.frames(0, [trade(500)], np.array([T0 + 62_000_000]))
    later.turn(T0 + 62_000_001)
    later.close()
    events = await replayed(tmp_path)
    *before, after = [each for each in events if isinstance(each, Rows)]
    assert sum(len(each.batch) for each in before) == 30 and after.batch["id"].tolist() == [500]
    (lost,) = [each for each in events if isinstance(each, Disconnect)]
    assert (lost.at_us, lost.last_alive_us) == (T0 + 60_000_000, T0 + 10_000)
    assert events.index(lost) == len(before)


async def test_a_paced_replay_promises_nothing_that_it_has_not_yielded(tmp_path: Path) -> None:
    write_turns(tmp_path, 10).close()
    clock = ManualClock(T0, auto=True)
    source = JournalSource(tmp_path, VENUES, clock=clock, speed=0.001)
    async with aclosing(source.events()) as lists:  # type: ignore[type-var]
        async for events in lists:
            assert source.fed_until_us >= max(
                int(e.batch["local_timestamp"].max()) for e in events if isinstance(e, Rows)
            )
    # Nine turns of a millisecond, a thousand times slower.
    assert clock.monotonic_s() == pytest.approx(9.0, abs=0.1)


def candles(events: Sequence[Sequence[Event]], instrument: InstrumentDefinition) -> tuple[list[CandleBatch], list[Gap]]:
    """What a pipeline makes of these turns."""
    options = PipelineOptions(timeframes=(Timeframe.S15, Timeframe.M1), grace_us=100_000)
    pipeline = Pipeline(instrument, options)
    out: list[CandleBatch] = []
    for turn in events:
        pipeline.feed([each for each in turn if each.instrument == instrument.key])
        out += pipeline.outputs(published_us=0)
    pipeline.finish(pipeline.clock_us)
    return out + pipeline.outputs(published_us=0), pipeline.gaps


def comparable(events: Sequence[Event]) -> list[tuple[object, ...]]:
    return [
        (
            each.instrument,
            each.data_type,
            each.connection,
            *(column.tobytes() for column in each.batch.columns.values()),
        )
        if isinstance(each, Rows)
        else (each,)
        for each in events
    ]


async def test_a_replay_gives_the_rows_the_gaps_and_the_candles_of_the_live_run(tmp_path: Path) -> None:
    """A run with everything in it: outage, missing numbers, broken book, handover, silence, a dropped instrument."""
    venue = PlainVenue(keep_alive=KeepAlive(0.05))
    journal = FrameRecorder(tmp_path, exchange=EXCHANGE, started_us=CLOCK.now_us(), max_bytes=5_000)
    async with serving() as server, running(server, venue, [BTC, ETH], BOTH, recorder=journal) as run:
        await server.change_book()
        await server.change_book("ETHUSDT")
        await until(lambda: run.rows(DataType.BOOK) and run.rows(DataType.BOOK, ETH))
        await server.trade(count=20)
        await server.trade("ETHUSDT", count=5)
        await server.say(b"garbage " * 30)
        await until(lambda: len(run.ids()) == 20)
        server.live[0].cut()
        await until(run.disconnects)
        await until(lambda: server.live and run.source.status().connections[0].acknowledged)
        await server.trade(count=3, delivered=False)
        await server.trade(count=10)
        await server.trade(count=2, delivered=False)
        await server.trade(count=10)
        await until(lambda: 45 in run.ids())
        await server.change_book()
        await until(lambda: run.rows(DataType.BOOK)[-1].connection == 1)
        await server.change_book(skip=3)
        await server.change_book()
        await until(lambda: {gap.data_type for gap in run.gaps()} == set(BOTH))
        await server.say({"leave": 1})

        async def busy_until_replaced() -> bool:
            await server.trade()
            await server.change_book()
            return run.source.status().connections[0].renewals >= 1

        await until(busy_until_replaced, "the replacement", poll_s=0.001)
        beats = len(run.heartbeats())
        await until(lambda: len(run.heartbeats()) > beats)
        run.source.set_instruments([BTC])
        await server.trade("ETHUSDT", count=3)
        await server.trade(count=5)
        total = len(server.trades["BTCUSDT"])
        await until(lambda: total in run.ids())
    journal.close()
    assert run.heartbeats() and run.disconnects() and len(RecordedFrames(tmp_path).files) > 2

    again = await replayed(tmp_path, venue)
    assert comparable(again) == comparable(run.events)

    turns: list[list[Event]] = []
    async with aclosing(JournalSource(tmp_path, {EXCHANGE: venue}, clock=CLOCK).events()) as lists:  # type: ignore[type-var]
        async for events in lists:
            turns.append(events)
    live_candles, live_gaps = candles(run.turns, BTC)
    replay_candles, replay_gaps = candles(turns, BTC)
    assert live_gaps == replay_gaps and len(live_gaps) >= 2
    assert len(live_candles) == len(replay_candles) > 0
    for live, replay in zip(live_candles, replay_candles, strict=True):
        assert live.timeframe is replay.timeframe
        for name in live.columns:
            np.testing.assert_array_equal(live[name], replay[name], err_msg=name)

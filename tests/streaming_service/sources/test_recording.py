"""Recordings are played in order of arrival, with a promise that holds and at the pace asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_data_tick_handler.core.events import Disconnect, Event, Gap, Heartbeat, Rows
from market_data_tick_handler.core.ticks import DataType, TickBatch
from market_data_tick_handler.errors import ConfigError
from market_data_tick_handler.testing import ManualClock
from streaming_service.clock import SECOND_US
from streaming_service.source import PacedSource
from streaming_service.sources.recording import Chunk, RecordedSource, chunk_of, in_windows

START_US = 1_704_067_200_000_000
TIMES = st.lists(st.integers(0, 5_000), min_size=1, max_size=30)


def rows(*local_us: int, instrument: str = "A") -> Rows:
    times = np.array(local_us, np.int64)
    return Rows(instrument, TickBatch.build(DataType.TRADES, {"timestamp": times, "local_timestamp": times}))


class Tape:
    """A recording of given chunks."""

    def __init__(self, chunks: list[Chunk]) -> None:
        self.chunks_given = chunks
        self.step_us = 0

    async def chunks(self, *, step_us: int) -> AsyncIterator[Chunk]:
        self.step_us = step_us
        for chunk in self.chunks_given:
            yield chunk


@given(st.lists(TIMES, min_size=1, max_size=4), st.integers(1, 2_000))
def test_windows_lose_nothing_and_promise_only_what_they_keep(streams: list[list[int]], step_us: int) -> None:
    events = [rows(*sorted(times), instrument=str(k)) for k, times in enumerate(streams)]
    chunks = list(in_windows(events, step_us))
    for k, times in enumerate(streams):
        found = [
            time_us
            for chunk in chunks
            for event in chunk.events
            if isinstance(event, Rows) and event.instrument == str(k)
            for time_us in event.batch["local_timestamp"].tolist()
        ]
        assert found == sorted(times)
    for before, after in pairwise(chunks):
        assert before.last_us < before.until_us <= after.first_us
    assert chunks[-1].until_us == chunks[-1].last_us == max(max(times) for times in streams)
    assert all(chunk.last_us // step_us == chunk.first_us // step_us for chunk in chunks)


def test_a_row_out_of_order_stays_behind_those_before_it() -> None:
    (early, late) = in_windows([rows(100, 1_500, 900, 1_600)], 1_000)
    assert [event.batch["local_timestamp"].tolist() for event in early.events] == [[100]]  # type: ignore[union-attr]
    assert [event.batch["local_timestamp"].tolist() for event in late.events] == [[1_500, 900, 1_600]]  # type: ignore[union-attr]


def test_events_without_rows_have_their_place_too() -> None:
    events: list[Event] = [rows(10, 2_010), Disconnect("A", 1_020, 1_020, "lost"), Heartbeat("A", 2_030)]
    events.append(Gap("A", DataType.BOOK, 0, 3_040, "void"))
    assert [[type(event) for event in chunk.events] for chunk in in_windows(events, 1_000)] == [
        [Rows], [Disconnect], [Rows, Heartbeat], [Gap],
    ]  # fmt: skip


async def test_as_fast_as_possible_never_sleeps_and_says_how_far_it_got() -> None:
    clock = ManualClock()
    tape = Tape(
        [chunk_of([rows(START_US)], until_us=START_US + 5), chunk_of([rows(START_US + 9)], until_us=START_US + 9)]
    )
    source = RecordedSource(tape, speed=None, clock=clock)
    assert isinstance(source, PacedSource) and source.fed_until_us == 0
    fed = [source.fed_until_us async for _ in source.events()]
    assert fed == [START_US + 5, START_US + 9] and clock.monotonic_s() == 0.0


async def test_paced_the_promise_moves_on_with_the_clock_through_a_silence_but_not_past_the_next_row() -> None:
    clock = ManualClock()
    tape = Tape(
        [
            chunk_of([rows(START_US)], until_us=START_US),
            chunk_of([rows(START_US + 10 * SECOND_US)], until_us=START_US + 10 * SECOND_US),
        ]
    )
    source = RecordedSource(tape, speed=1.0, clock=clock)
    events = source.events()
    await anext(events)
    task = asyncio.ensure_future(anext(events))
    await clock.advance(4.0)
    assert source.fed_until_us == START_US + 4 * SECOND_US and not task.done()
    await clock.advance(6.0)
    assert len(await task) == 1
    await clock.advance(30.0)
    assert source.fed_until_us == START_US + 10 * SECOND_US
    assert [rest async for rest in events] == []


@pytest.mark.parametrize(("speed", "step_us"), [(1.0, 20_000), (60.0, 1_200_000), (None, 5_000_000)])
async def test_pieces_are_short_in_the_time_of_the_clock(speed: float | None, step_us: int) -> None:
    tape = Tape([])
    assert [events async for events in RecordedSource(tape, speed=speed, clock=ManualClock()).events()] == []
    assert tape.step_us == step_us


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan")])
def test_a_speed_that_is_none_is_refused(speed: float) -> None:
    with pytest.raises(ConfigError, match="above 0"):
        RecordedSource(Tape([]), speed=speed, clock=ManualClock())

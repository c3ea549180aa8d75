"""A replay by tardis-machine is a finite source and the way back to missing trades, and never waits for ever."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from market_data_tick_handler.core.events import Disconnect, Event, Rows
from market_data_tick_handler.core.instruments import instrument_from_venue_symbol
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.errors import SourceError, SourceUnavailable
from market_data_tick_handler.testing import ManualClock
from market_data_tick_handler.testing.tardis import Close, Drop, Garbage, Stall, Step, TardisMachineServer
from streaming_service.sources.exchanges.protocol import TradeRange
from streaming_service.sources.recording import RecordedSource
from streaming_service.sources.tardis_machine import MachineReplay, MachineTrades, Patience, replay_normalized
from tests.streaming_service.sources.normalised import TRADE, assert_same_rows, frames_of, rows_of, time_us
from tests.waiting import PATIENCE_S, patience

BTC = instrument_from_venue_symbol("binance-futures", "BTCUSDT")
START_US = 1_704_067_200_000_000
MINUTE_US = 60_000_000
TRADES = (DataType.TRADES,)
PATIENT = Patience(connect_s=PATIENCE_S, silence_s=PATIENCE_S)
# Long enough for a message on its way.
IMPATIENT = Patience(connect_s=PATIENCE_S, silence_s=2.0)
# No machine, nor anybody else, listens at port 1.
NOBODY = "ws://127.0.0.1:1"


def trade(number: int, at: str, **changes: Any) -> dict[str, Any]:
    """A trade stamped and received at `at` (mm:ss.ffffff past midnight)."""
    stamp = f"2024-01-01T00:{at}Z"
    return {**TRADE, "id": str(number), "timestamp": stamp, "localTimestamp": stamp, **changes}


def lost(at: str) -> dict[str, Any]:
    return {"type": "disconnect", "exchange": "binance-futures", "localTimestamp": f"2024-01-01T00:{at}Z"}


async def replayed(
    script: Sequence[Step], from_us: int = START_US, to_us: int = START_US + 5 * MINUTE_US
) -> list[Event]:
    async with TardisMachineServer(script) as server:
        lists = replay_normalized(server.url, [BTC], TRADES, from_us, to_us, patience=PATIENT)
        return [event async for events in lists for event in events]


async def gather(lists: AsyncIterator[list[Event]], got: list[Event]) -> None:
    async for events in lists:
        got += events


def ids(events: Sequence[Event]) -> list[int]:
    return [number for event in events if isinstance(event, Rows) for number in event.batch["id"].tolist()]


async def test_a_replay_gives_every_row_that_the_vendors_machine_recorded(samples_dir: Path) -> None:
    golden = samples_dir / "e2e-synthetic" / "golden"
    names = ["binance-futures__normalized.ndjson", "binance-futures__book_snapshot_5_0ms.ndjson"]
    messages = [json.loads(frame) for name in names for frame in frames_of(golden / name)]
    messages.sort(key=lambda message: time_us(message["localTimestamp"]))
    async with TardisMachineServer(messages) as server:
        replay = MachineReplay(server.url, [BTC], tuple(DataType), START_US, START_US + 5 * MINUTE_US)
        events = [event async for chunk in replay.chunks(step_us=1_000_000) for event in chunk.events]
    assert_same_rows(events, rows_of(messages))
    lost_us = [time_us(message["localTimestamp"]) for message in messages if message["type"] == "disconnect"]
    assert [event.at_us for event in events if isinstance(event, Disconnect)] == lost_us
    assert (replay.violations, replay.filtered) == (0, {})


async def test_minutes_are_asked_for_whole_and_cut_to_the_range() -> None:
    script = [trade(1, "00:29.999999"), trade(2, "00:30.000000"), trade(3, "01:10.000000"), trade(4, "01:10.000001")]
    async with TardisMachineServer(script) as server:
        lists = replay_normalized(server.url, [BTC], TRADES, START_US + 30_000_000, START_US + 70_000_001)
        events = [event async for events in lists for event in events]
        (asked,) = server.asked
    assert ids(events) == [2, 3]
    assert (asked.options[0]["from"], asked.options[0]["to"]) == (
        "2024-01-01T00:00:00.000000Z",
        "2024-01-01T00:02:00.000000Z",
    )


async def test_a_disconnect_stands_between_the_rows_before_and_after_it() -> None:
    events = await replayed([trade(1, "00:01.000"), lost("00:01.000"), trade(2, "00:09.000")])
    assert [type(event) for event in events] == [Rows, Disconnect, Rows]
    assert events[1] == Disconnect(
        BTC.key, START_US + 1_000_000, START_US + 1_000_000, "tardis-machine lost its connection to binance-futures"
    )


async def test_broken_messages_are_counted_and_the_others_used() -> None:
    async with TardisMachineServer([trade(1, "00:01.000"), Garbage(b"{"), trade(2, "00:02.000")]) as server:
        replay = MachineReplay(server.url, [BTC], TRADES, START_US, START_US + MINUTE_US)
        events = [event async for chunk in replay.chunks(step_us=10_000_000) for event in chunk.events]
    assert ids(events) == [1, 2] and replay.violations == 1


@pytest.mark.parametrize(
    ("ending", "error", "says"),
    [
        (Stall(), SourceUnavailable, "sent nothing for 2 s"),
        (Close(1011, "HttpError: status code: 401"), SourceUnavailable, "401"),
        (Close(1008, "Too much backpressure"), SourceUnavailable, "backpressure"),
        (Close(1008), SourceError, "no tardis-machine"),
        (Drop(), SourceUnavailable, "ended the replay early"),
    ],
)
async def test_a_replay_that_does_not_end_well_gives_what_came_and_then_fails(
    ending: Step, error: type[Exception], says: str
) -> None:
    got: list[Event] = []
    async with TardisMachineServer([trade(1, "00:01.000"), trade(2, "00:02.000"), ending]) as server:
        lists = replay_normalized(server.url, [BTC], TRADES, START_US, START_US + MINUTE_US, patience=IMPATIENT)
        with pytest.raises(error, match=says):
            await gather(lists, got)
    assert ids(got) == [1, 2]


async def test_a_machine_that_is_not_there_is_unavailable() -> None:
    lists = replay_normalized(NOBODY, [BTC], TRADES, START_US, START_US + MINUTE_US, patience=PATIENT)
    with pytest.raises(SourceUnavailable, match="is it running"):
        await gather(lists, [])


async def test_whoever_stops_early_hangs_up() -> None:
    # What came before a disconnect is given at once.
    async with TardisMachineServer([trade(1, "00:01.000"), lost("00:01.000"), Stall()]) as server:
        replay = MachineReplay(server.url, [BTC], TRADES, START_US, START_US + MINUTE_US, patience=PATIENT)
        chunks = replay.chunks(step_us=1_000_000)
        assert ids((await anext(chunks)).events) == [1]
        assert server.open == 1
        await chunks.aclose()  # type: ignore[attr-defined]
        async with patience("the client's leave"):
            await server.idle()


async def test_a_range_without_time_asks_nothing() -> None:
    async with TardisMachineServer([trade(1, "00:01.000")]) as server:
        assert [events async for events in replay_normalized(server.url, [BTC], TRADES, START_US, START_US)] == []
        assert server.asked == []


async def test_missing_trades_come_by_their_own_time_and_number() -> None:
    script = [
        trade(1, "00:59.000"),
        trade(2, "01:00.000"),
        trade(3, "01:02.000", localTimestamp="2024-01-01T00:01:07.000Z"),
        trade(4, "01:03.000", localTimestamp="2024-01-01T00:01:07.500Z"),
        trade(5, "01:05.000"),
    ]
    missing = TradeRange(START_US + 60_000_000, START_US + 65_000_000)
    async with TardisMachineServer(script) as server:
        trades = MachineTrades(server.url, patience=PATIENT)
        found = await trades.fetch_trades(BTC, missing)
        numbered = await trades.fetch_trades(BTC, TradeRange(missing.from_us, missing.to_us, first=3, last=3))
        nothing = await trades.fetch_trades(BTC, TradeRange(START_US + 120_000_000, START_US + 121_000_000))
    assert found["id"].tolist() == [2, 3, 4]
    assert found["local_timestamp"].tolist() == [START_US + 60_000_000, START_US + 67_000_000, START_US + 67_500_000]
    assert numbered["id"].tolist() == [3]
    assert nothing.data_type is DataType.TRADES and len(nothing) == 0


async def test_a_paced_replay_keeps_to_the_times_of_the_recording() -> None:
    script = [trade(1, "00:10.000"), trade(2, "00:10.500"), trade(3, "00:14.000")]
    clock = ManualClock(auto=True)
    async with TardisMachineServer(script) as server:
        replay = MachineReplay(server.url, [BTC], TRADES, START_US, START_US + MINUTE_US)
        source = RecordedSource(replay, speed=2.0, clock=clock)
        seen = [(clock.monotonic_s(), ids(events), source.fed_until_us - START_US) async for events in source.events()]
    assert [(at_s, numbers) for at_s, numbers, _ in seen] == [(0.0, [1]), (0.25, [2]), (2.0, [3])]
    assert [10_000_000 <= fed <= 14_000_000 for _, _, fed in seen] == [True] * 3

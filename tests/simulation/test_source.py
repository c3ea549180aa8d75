"""The simulated source: paced by a clock, honest about broken connections, and equal to its market."""

from __future__ import annotations

import numpy as np
import pytest

from market_data_tick_handler.core.events import Disconnect, Event, Gap, Heartbeat, Rows
from market_data_tick_handler.core.ticks import DataType, TickBatch, concat
from market_data_tick_handler.errors import ConfigError, InstrumentError
from market_data_tick_handler.testing import ManualClock
from streaming_service.clock import ScaledClock
from streaming_service.source import PacedSource
from streaming_service.sources.simulated import Disconnected, Duplicate, Invalid, Late, SimulatedSource, demo_faults

START_US = 1_704_144_600_000_000  # 2024-01-01 21:30 UTC
SPOT = "BINANCE:SPOT_PAIR:BTC-USDT"
PERPETUAL = "BINANCE-FUTURES:PERPETUAL:ETH-USDT"
SECOND_US = 1_000_000


def _source(clock: ManualClock | ScaledClock | None = None, **chosen: object) -> SimulatedSource:
    arguments: dict[str, object] = {"start_us": START_US, "duration_s": 120.0, "speed": None, **chosen}
    instruments = arguments.pop("instruments", [SPOT])
    return SimulatedSource(instruments, clock=clock or ManualClock(auto=True), **arguments)  # type: ignore[arg-type]


async def _all(source: SimulatedSource) -> list[Event]:
    return [event async for turn in source.events() for event in turn]


def _joined(events: list[Event], instrument: str, data_type: DataType) -> TickBatch:
    return concat(
        [e.batch for e in events if isinstance(e, Rows) and (e.instrument, e.data_type) == (instrument, data_type)]
    )


async def test_without_faults_it_gives_the_rows_of_its_markets() -> None:
    source = _source(instruments=[SPOT, PERPETUAL])
    events = await _all(source)
    for key, market in source.markets.items():
        for data_type, clean in market.clean_rows(START_US + 120 * SECOND_US).items():
            np.testing.assert_array_equal(_joined(events, key, data_type)["local_timestamp"], clean["local_timestamp"])
            assert source.injected[key, data_type].delivered == len(clean)


@pytest.mark.parametrize("speed", [1.0, 37.0, None])
async def test_speed_changes_no_row_and_no_count(speed: float | None) -> None:
    faults = (*demo_faults(), Disconnected(at_s=30.5, for_s=4.25), Duplicate(rate=0.1), Late(rate=0.1, up_to_s=20))
    base = _source(faults=faults)
    paced = _source(faults=faults, speed=speed)
    expected, events = await _all(base), await _all(paced)
    left, right = (_joined(each, SPOT, DataType.TRADES) for each in (expected, events))
    for name, column in left.columns.items():
        np.testing.assert_array_equal(column, right[name], err_msg=name)
    assert base.injected == paced.injected
    for kind in (Heartbeat, Gap, Disconnect):
        assert [e for e in expected if isinstance(e, kind)] == [e for e in events if isinstance(e, kind)]


async def test_simulated_time_follows_the_clock_times_the_speed() -> None:
    clock = ManualClock(auto=True)
    source = _source(clock, speed=200.0, duration_s=2_000.0)
    await _all(source)
    assert clock.monotonic_s() == pytest.approx(10.0, abs=0.05)


async def test_nothing_comes_before_its_time() -> None:
    clock = ManualClock(auto=True)
    source = _source(clock, speed=10.0)
    async for turn in source.events():
        simulated_us = START_US + int(clock.monotonic_s() * 10.0 * SECOND_US)
        for event in turn:
            if isinstance(event, Rows):
                assert event.batch["local_timestamp"][-1] < simulated_us
        assert source.fed_until_us <= simulated_us


async def test_with_a_scaled_clock_service_and_market_share_their_time() -> None:
    base = ManualClock(auto=True)
    clock = ScaledClock(start_us=START_US, speed=200.0, base=base)
    source = _source(clock, speed=1.0, duration_s=1_000.0)
    async for _ in source.events():
        assert source.fed_until_us <= clock.now_us() <= source.fed_until_us + 5 * SECOND_US
    assert base.monotonic_s() == pytest.approx(5.0, abs=0.05)


async def test_a_busy_service_gets_the_backlog_in_pieces() -> None:
    clock = ManualClock(auto=True)
    source = _source(clock, speed=1.0, duration_s=600.0)
    reached: list[int] = []
    async for _ in source.events():
        if not reached:
            clock.move(599.0)
        reached.append(source.fed_until_us)
    assert max(np.diff(reached)) == source.settings.slice_us == 60 * SECOND_US


async def test_every_simulated_second_has_a_heartbeat() -> None:
    events = await _all(_source(duration_s=10.0))
    beats = [event.at_us for event in events if isinstance(event, Heartbeat)]
    assert beats == [START_US + second * SECOND_US for second in range(11)]


async def test_a_disconnect_says_when_it_was_last_alive_and_ends_in_gaps_and_a_heartbeat() -> None:
    source = _source(instruments=[PERPETUAL], faults=[Disconnected(at_s=30.5, for_s=4.25)])
    events = await _all(source)
    at_us, back_us = START_US + 30_500_000, START_US + 34_750_000
    (disconnect,) = [event for event in events if isinstance(event, Disconnect)]
    gaps = [event for event in events if isinstance(event, Gap)]
    before = max(_last(event) for event in events[: events.index(disconnect)])
    assert disconnect.at_us == at_us
    assert disconnect.last_alive_us == before < at_us
    assert {gap.data_type for gap in gaps} == {DataType.BOOK, DataType.DERIVATIVE, DataType.LIQUIDATIONS}
    assert {(gap.from_us, gap.to_us) for gap in gaps} == {(disconnect.last_alive_us, back_us)}
    between = events[events.index(disconnect) + 1 : events.index(gaps[0])]
    assert between == []
    assert events[events.index(gaps[-1]) + 1] == Heartbeat(PERPETUAL, back_us)
    assert source.injected[PERPETUAL, DataType.TRADES].lost > 0


def _last(event: Event) -> int:
    match event:
        case Rows():
            return int(event.batch["local_timestamp"][-1])
        case Heartbeat():
            return event.at_us
        case _:
            return 0


async def test_overlapping_disconnects_are_one() -> None:
    events = await _all(_source(faults=[Disconnected(at_s=10, for_s=5), Disconnected(at_s=12, for_s=6)]))
    assert [event.at_us for event in events if isinstance(event, Disconnect)] == [START_US + 10 * SECOND_US]
    assert {event.to_us for event in events if isinstance(event, Gap)} == {START_US + 18 * SECOND_US}


async def test_a_fault_may_concern_one_instrument_only() -> None:
    source = _source(instruments=[SPOT, PERPETUAL], faults=[Disconnected(at_s=10, for_s=5, instruments=(PERPETUAL,))])
    events = await _all(source)
    assert {event.instrument for event in events if isinstance(event, Gap)} == {PERPETUAL}
    assert source.injected[SPOT, DataType.TRADES].lost == 0


async def test_the_counts_of_the_demo_say_what_a_receiver_will_see() -> None:
    source = _source(duration_s=2_000.0, faults=demo_faults())
    trades = _joined(await _all(source), SPOT, DataType.TRADES)
    counts = source.injected[SPOT, DataType.TRADES]
    bad = ~(trades["price"] > 0)
    good = trades["id"][~bad]
    assert counts.delivered == len(trades)
    assert counts.invalid == bad.sum() == 1
    assert counts.duplicate == len(good) - len(np.unique(good)) > 0
    assert counts.lost > 0
    assert counts.late > 0


async def test_a_start_inside_a_second_is_floored() -> None:
    assert _source(start_us=START_US + 123).settings.start_us == START_US


def test_it_says_how_far_it_has_got() -> None:
    source = _source()
    assert isinstance(source, PacedSource)
    assert source.fed_until_us == 0
    source.turn(START_US + SECOND_US)
    assert source.fed_until_us == START_US + SECOND_US


def test_what_cannot_be_simulated_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match=r"simulated\.speed"):
        _source(speed=0.0)
    with pytest.raises(ConfigError, match="rate"):
        _source(faults=[Invalid(rate=7.0)])
    with pytest.raises(InstrumentError):
        _source(instruments=["BTC"])

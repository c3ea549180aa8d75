"""ScriptedSource: what the script says, in its order."""

from __future__ import annotations

import pytest

from market_data_tick_handler.core.events import Event, Heartbeat
from market_data_tick_handler.errors import SourceUnavailable
from market_data_tick_handler.testing import ManualClock, ScriptedSource, rows, trades

BEAT = Heartbeat("BINANCE:SPOT_PAIR:BTC-USDT", 1)


async def _all(source: ScriptedSource) -> list[list[Event]]:
    return [turn async for turn in source.events()]


async def test_it_yields_turn_by_turn_and_ends() -> None:
    event = rows(trades([1.0, 2.0]))
    source = ScriptedSource([[event], [BEAT, BEAT]])
    assert await _all(source) == [[event], [BEAT, BEAT]]
    assert source.ended
    assert source.turns == 2


async def test_a_number_is_a_pause_on_the_given_clock() -> None:
    clock = ManualClock(auto=True)
    source = ScriptedSource([[BEAT], 2.5, [BEAT]], sleep=clock.sleep)
    assert len(await _all(source)) == 2
    assert clock.monotonic_s() == 2.5


async def test_a_pause_without_a_clock_is_refused() -> None:
    with pytest.raises(ValueError, match=r"clock\.sleep"):
        await _all(ScriptedSource([1.0]))


async def test_after_an_exception_the_next_iteration_goes_on() -> None:
    source = ScriptedSource([[BEAT], SourceUnavailable("expected a feed, came silence; wait"), [BEAT]])
    with pytest.raises(SourceUnavailable):
        await _all(source)
    assert not source.ended
    assert await _all(source) == [[BEAT]]
    assert source.ended
    assert source.iterations == 2

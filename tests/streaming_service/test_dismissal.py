"""An instrument is dismissed while it is repaired or saved: nothing fails, and when it comes again, all is there."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from market_data_tick_handler.core.events import Gap
from market_data_tick_handler.core.instruments import InstrumentDefinition
from market_data_tick_handler.core.ticks import TickBatch
from market_data_tick_handler.errors import ServiceEnded
from market_data_tick_handler.testing import ManualClock
from streaming_service.ingest import Cadence, Ingest
from tests.streaming_service.recovery_world import SPOT, Exchange, World, market
from tests.waiting import patience, until


@dataclass
class SlowExchange(Exchange):
    """Answers when it may."""

    may_answer: asyncio.Event = field(default_factory=asyncio.Event)

    async def fetch_trades(self, instrument: InstrumentDefinition, gap: Gap, margin_us: int) -> tuple[TickBatch, bool]:
        answer = await super().fetch_trades(instrument, gap, margin_us)
        await self.may_answer.wait()
        return answer


async def dismiss(world: World) -> None:
    """As the service does it."""
    async with world.recovery.alone(SPOT.key):
        world.recovery.close(SPOT.key, world.pipelines.pop(SPOT.key))


def admit(world: World) -> None:
    pipeline = world.recovery.open(SPOT.key, world.make, warm=lambda pipeline: None)
    world.pipelines[SPOT.key] = pipeline


async def with_a_gap(tmp_path: Path, fetcher: Exchange) -> World:
    world = World(tmp_path, fetcher.truth, fetcher=fetcher)
    await world.run(90)
    world.checkpoint()
    await world.cut(6)
    await world.run(60)
    return world


async def pass_time(world: World) -> None:
    """So that the repairer looks again."""
    await asyncio.sleep(0)
    await world.clock.advance(1.5)


@pytest.mark.parametrize("again", [False, True], ids=["gone", "there again"])
async def test_dismissed_while_its_trades_are_fetched(tmp_path: Path, again: bool) -> None:
    exchange = SlowExchange(market(600))
    world = await with_a_gap(tmp_path, exchange)
    repairs = asyncio.create_task(world.repairer.run())
    await until(lambda: exchange.asked or pass_time(world), "a question for the missing trades")
    await dismiss(world)
    if again:
        admit(world)
    exchange.may_answer.set()
    await until(lambda: world.clock.sleeping or world.ingest.turn(), "the next look")
    assert not repairs.done() and world.repairer.counters.repaired == again
    if not again:
        await until(lambda: not world.repairer.pending or pass_time(world), "nothing to repair any more")
        admit(world)
    repairs.cancel()
    await world.repair()
    assert world.repairer.counters.repaired >= 1
    await world.finish()
    world.assert_equals_batch()
    world.kill()


async def test_it_is_dismissed_when_what_was_fetched_is_in_its_place(tmp_path: Path) -> None:
    world = await with_a_gap(tmp_path, Exchange(market(600)))
    missing = world.recovery.add_missing
    begun, may_end, loop = asyncio.Event(), asyncio.Event(), asyncio.get_running_loop()

    def add_missing(key: str, gap: Gap, fetched: TickBatch, margin_us: int) -> int:
        loop.call_soon_threadsafe(begun.set)
        asyncio.run_coroutine_threadsafe(may_end.wait(), loop).result()
        return missing(key, gap, fetched, margin_us)

    world.recovery.add_missing = add_missing  # type: ignore[method-assign]
    repairs = asyncio.create_task(world.repairer.run())
    await until(lambda: begun.is_set() or pass_time(world), "a repair")
    going = asyncio.create_task(dismiss(world))
    for _ in range(5):
        await world.ingest.turn()
    assert not going.done() and SPOT.key in world.pipelines
    may_end.set()
    async with patience("the repair, then the dismissal"):
        while not going.done():
            await world.ingest.turn()
            await asyncio.sleep(0)
    assert not repairs.done() and world.repairer.counters.repaired == 1
    repairs.cancel()
    assert SPOT.key not in world.pipelines


async def test_dismissed_while_its_checkpoint_waits_for_its_turn(tmp_path: Path) -> None:
    world = await with_a_gap(tmp_path, Exchange(market(600)))
    noted, note = asyncio.Event(), world.recovery.note_deliveries

    def note_deliveries() -> None:
        note()
        noted.set()

    world.recovery.note_deliveries = note_deliveries  # type: ignore[method-assign]
    saving = asyncio.create_task(world.recovery.run(world.pipelines, world.ingest.between_turns))
    await until(lambda: world.clock.sleeping, "the first second")
    async with world.recovery.alone(SPOT.key):
        await world.run(120)
        assert world.recovery.due() == [SPOT.key]
        await world.clock.advance(1.5)
        await until(lambda: noted.is_set() or world.ingest.turn(), "what comes before the checkpoint")
        world.recovery.close(SPOT.key, world.pipelines.pop(SPOT.key))
    await until(lambda: world.clock.sleeping or world.ingest.turn(), "the next second")
    assert not saving.done()
    saving.cancel()


async def test_what_is_wanted_between_turns_that_never_come_is_refused() -> None:
    """Whoever changed something in the service's last moment would wait for ever."""
    ingest = Ingest({}, [], clock=ManualClock(0), cadence=Cadence(step_us=15_000_000, grace_us=0))
    ingest.close()
    await ingest.run()
    with pytest.raises(ServiceEnded, match="start it again"):
        await ingest.between_turns(lambda: None)


async def test_what_was_wanted_when_the_last_turn_failed_is_refused() -> None:
    ingest = Ingest({}, [], clock=ManualClock(0), cadence=Cadence(step_us=15_000_000, grace_us=0))

    def fail() -> None:
        raise KeyError("a fault of ours")

    running = asyncio.create_task(ingest.run())
    asked = [asyncio.create_task(ingest.between_turns(change)) for change in (fail, lambda: None)]
    with pytest.raises(KeyError, match="a fault of ours"):
        async with patience("the end of the turns"):
            await running
    async with patience("an answer"):
        answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(answer) for answer in answers] == [ServiceEnded, ServiceEnded]

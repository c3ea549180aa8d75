"""Ingest feeds every pipeline all of a turn at once, promises only what is true, and loses nothing unseen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import numpy as np
import pytest

from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.events import Disconnect, Event, Gap, Heartbeat, Rows
from market_data_tick_handler.core.instruments import parse_instrument_key
from market_data_tick_handler.core.ticks import DataType, TickBatch
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.errors import SinkBusy, SinkError, SinkRejected, SourceUnavailable
from market_data_tick_handler.testing import ManualClock, ScriptedSource, books, trades
from streaming_service.ingest import Cadence, Feed, Ingest
from streaming_service.sink import FullPolicy, Outlet, SinkItem
from tests.waiting import patience

BTC = "BINANCE:SPOT_PAIR:BTC-USDT"
ETH = "BINANCE:SPOT_PAIR:ETH-USDT"
T0 = 1_704_067_200_000_000
SECOND = 1_000_000
CADENCE = Cadence.of([Timeframe.S15, Timeframe.M1], 500_000)


class Recorder:
    """Stands where a pipeline stands and writes down what ingest did; publishes one candle per fed list."""

    def __init__(self) -> None:
        self.fed: list[list[Event]] = []
        self.advanced: list[int] = []
        self.finished: list[int] = []
        self.published: list[int | None] = []
        self.stored: list[TickBatch] = []
        self.clock_us = 0
        self._due = 0

    def feed(self, events: Event | Sequence[Event]) -> None:
        assert isinstance(events, Sequence)
        self.fed.append(list(events))
        self.stored += [event.batch for event in events if isinstance(event, Rows)]
        self._due += 1

    def advance(self, now_us: int) -> None:
        self.advanced.append(now_us)
        self.clock_us = max(self.clock_us, now_us)

    def finish(self, stop_us: int) -> None:
        self.finished.append(stop_us)

    def outputs(self, published_us: int | None = None) -> list[CandleBatch]:
        self.published.append(published_us)
        due, self._due = self._due, 0
        return [candle(index) for index in range(due)]


class Collector:
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.items: list[SinkItem] = []
        self.calls: list[str] = []

    async def open(self) -> None:
        self.calls.append("open")

    async def write(self, batch: SinkItem) -> None:
        self.items.append(batch)

    async def flush(self) -> None:
        self.calls.append("flush")

    async def aclose(self) -> None:
        self.calls.append("aclose")


class Failing(Collector):
    """A sink that raises what it is told, in order, then works."""

    def __init__(self, *errors: Exception) -> None:
        super().__init__()
        self._errors = list(errors)

    async def write(self, batch: SinkItem) -> None:
        if self._errors:
            raise self._errors.pop(0)
        await super().write(batch)


class Paced:
    """A recorded source that says how far it has got."""

    def __init__(self, fed_until_us: int) -> None:
        self.fed_until_us = fed_until_us

    async def events(self) -> AsyncIterator[list[Event]]:
        yield []


def candle(number: int) -> CandleBatch:
    return CandleBatch(parse_instrument_key(BTC), Timeframe.M1, {"timestamp": np.array([number])}, "1.0.0")


def tick(at_us: int, instrument: str = BTC) -> Rows:
    return Rows(instrument, trades([100.0], start_us=at_us - 1_000))


def ingest(
    *feeds: Feed, clock: ManualClock, keys: Sequence[str] = (BTC,), **options: object
) -> tuple[Ingest, list[Recorder]]:
    pipelines = {key: Recorder() for key in keys}
    made = Ingest(pipelines, feeds, clock=clock, cadence=CADENCE, **options)  # type: ignore[arg-type]
    return made, list(pipelines.values())


async def test_a_turn_feeds_each_instrument_once_with_the_events_of_all_sources() -> None:
    clock = ManualClock(T0)
    sources = [ScriptedSource([[tick(T0), tick(T0, ETH)], [tick(T0)]]), ScriptedSource([[tick(T0)]])]
    feeds = [Feed(str(number), source) for number, source in enumerate(sources)]
    driver, (btc, eth) = ingest(*feeds, clock=clock, keys=(BTC, ETH))
    for feed in feeds:
        await driver.pump(feed)
    await driver.turn()
    assert [len(events) for events in btc.fed] == [3]
    assert [len(events) for events in eth.fed] == [1]


async def test_live_sources_are_promised_up_to_now() -> None:
    clock = ManualClock(T0)
    driver, (btc,) = ingest(Feed("live", ScriptedSource([])), clock=clock)
    await driver.turn()
    clock.move(0.25)
    await driver.turn()
    assert btc.advanced == [T0, T0 + 250_000]


async def test_recorded_sources_are_promised_only_as_far_as_they_have_got() -> None:
    clock = ManualClock(T0 + 60 * SECOND)
    paced = Feed("paced", Paced(T0 + 2 * SECOND), recorded=True)
    plain = Feed("plain", ScriptedSource([[tick(T0 + SECOND)], 1000.0], sleep=clock.sleep), recorded=True)
    driver, (btc,) = ingest(paced, plain, clock=clock)
    pumping = asyncio.create_task(driver.pump(plain))
    await clock.advance(0.0)
    await driver.turn()
    assert btc.advanced == [T0 + SECOND]
    plain.last_us = T0 + 30 * SECOND
    await driver.turn()
    assert btc.advanced[-1] == T0 + 2 * SECOND
    pumping.cancel()


async def test_a_recorded_source_that_ended_holds_nothing_back() -> None:
    clock = ManualClock(T0 + 60 * SECOND)
    feed = Feed("plain", ScriptedSource([[tick(T0)]]), recorded=True)
    driver, (btc,) = ingest(feed, clock=clock)
    await driver.pump(feed)
    await driver.turn()
    assert feed.ended
    assert btc.advanced == [T0 + 60 * SECOND]


async def test_the_timer_wakes_at_the_moment_a_candle_is_due() -> None:
    clock = ManualClock(T0 + 14 * SECOND + 990_000)
    driver, (btc,) = ingest(clock=clock)
    tasks = [asyncio.create_task(driver.run()), asyncio.create_task(driver.tick())]
    await clock.advance(0.6)
    assert T0 + 15 * SECOND + 500_000 in btc.advanced
    gaps = np.diff([T0 + 14 * SECOND + 990_000, *btc.advanced])
    assert gaps.max() <= 50_000
    for task in tasks:
        task.cancel()


@pytest.mark.parametrize(
    ("now_us", "wait_s"),
    [(T0, 0.05), (T0 + 15 * SECOND + 480_000, 0.02), (T0 + 15 * SECOND + 500_000, 0.05), (T0 + 499_999, 0.0005)],
)
def test_the_wait_ends_at_close_plus_grace(now_us: int, wait_s: float) -> None:
    assert CADENCE.wait_s(now_us) == pytest.approx(wait_s)


async def test_rows_nobody_asked_for_are_counted_and_reach_no_pipeline() -> None:
    clock = ManualClock(T0)
    feed = Feed("x", ScriptedSource([[tick(T0, ETH), Rows(BTC, books([1.0, 2.0])), tick(T0)]]))
    driver, (btc,) = ingest(feed, clock=clock, data_types=[DataType.TRADES])
    await driver.pump(feed)
    await driver.turn()
    assert driver.homeless_rows == {(ETH, DataType.TRADES): 1, (BTC, DataType.BOOK): 2}
    assert [len(events) for events in btc.fed] == [1]


async def test_a_source_that_breaks_says_disconnect_for_each_of_its_instruments() -> None:
    clock = ManualClock(T0 + 5 * SECOND)
    feed = Feed("x", ScriptedSource([[tick(T0), tick(T0, ETH)], SourceUnavailable("gone")]))
    driver, recorders = ingest(feed, clock=clock, keys=(BTC, ETH))
    with pytest.raises(SourceUnavailable):
        await driver.pump(feed)
    await driver.turn()
    for recorder in recorders:
        (last,) = [event for event in recorder.fed[0] if isinstance(event, Disconnect)]
        assert (last.at_us, last.last_alive_us) == (T0 + 5 * SECOND, T0)


class Gathering(ScriptedSource):
    """A source that gathers: what it was given comes with the next drain."""

    def __init__(self, *events: Event) -> None:
        super().__init__([SourceUnavailable("gone")])
        self.gathered = list(events)

    def drain(self) -> list[Event]:
        gathered, self.gathered = self.gathered, []
        return gathered


async def test_only_the_feed_of_the_trades_vouches_for_an_instrument() -> None:
    """Books that go on prove nothing of trades that do not, and an outage of books is none of trades."""
    clock = ManualClock(T0 + 5 * SECOND)
    lost, beat = Disconnect(BTC, T0 + 2, T0 + 1, "lost"), Heartbeat(BTC, T0 + 3)
    book, gap = Rows(BTC, books([1.0], start_us=T0)), Gap(BTC, DataType.BOOK, T0, T0 + 1, "broken")
    feeds = [
        Feed("trades", Gathering(tick(T0), lost, beat), vouches_for=lambda key: key == BTC),
        Feed("books", Gathering(book, lost, beat, gap), vouches_for=lambda key: key != BTC),
    ]
    driver, (btc,) = ingest(*feeds, clock=clock)
    await driver.turn()
    (events,) = btc.fed
    assert [type(event) for event in events] == [Rows, Disconnect, Heartbeat, Rows, Gap]
    for feed in feeds:
        with pytest.raises(SourceUnavailable):
            await driver.pump(feed)
    await driver.turn()
    assert [event.reason for event in btc.fed[1] if isinstance(event, Disconnect)] == ["source trades broke"]


async def test_a_source_that_is_stopped_says_no_disconnect() -> None:
    clock = ManualClock(T0)
    feed = Feed("x", ScriptedSource([[tick(T0)], 1000.0], sleep=clock.sleep))
    driver, (btc,) = ingest(feed, clock=clock)
    pumping = asyncio.create_task(driver.pump(feed))
    await clock.advance(0.0)
    pumping.cancel()
    await asyncio.wait([pumping])
    await driver.turn()
    assert [type(event) for event in btc.fed[0]] == [Rows]


async def test_a_source_waits_while_too_many_rows_are_pending() -> None:
    clock = ManualClock(T0)
    source = ScriptedSource([[tick(T0)] for _ in range(10)])
    feed = Feed("x", source)
    driver, (btc,) = ingest(feed, clock=clock, max_pending_rows=3)
    pumping = asyncio.create_task(driver.pump(feed))
    await clock.advance(0.0)
    assert source.turns == 3
    await driver.turn()
    await clock.advance(0.0)
    assert source.turns == 6
    assert len(btc.fed[0]) == 3
    pumping.cancel()


async def test_candles_and_stored_rows_go_to_their_outlets_and_leave_the_pipeline() -> None:
    clock = ManualClock(T0)
    candles, ticks = Outlet("c", Collector(), clock=clock), Outlet("t", Collector(), clock=clock)
    feed = Feed("x", ScriptedSource([[tick(T0)]]))
    driver, (btc,) = ingest(feed, clock=clock, candle_outlets=[candles], tick_outlets=[ticks])
    await driver.pump(feed)
    await driver.turn()
    assert (candles.depth, ticks.depth) == (1, 1)
    assert btc.stored == []
    assert btc.published == [T0]


async def test_what_one_instrument_closed_is_written_while_the_next_ones_are_computed() -> None:
    """Hundreds of candles close at the same moment: nobody's waits for those of all others."""
    sink, keys = Collector(), (BTC, ETH, "BINANCE:SPOT_PAIR:SOL-USDT")
    written: list[int] = []

    class Watching(Recorder):
        def outputs(self, published_us: int | None = None) -> list[CandleBatch]:
            written.append(len(sink.items))
            return super().outputs(published_us)

    clock = ManualClock(T0)
    feed = Feed("live", ScriptedSource([[tick(T0, key) for key in keys]]))
    outlet = Outlet("sink", sink, clock=clock)
    pipelines = {key: Watching() for key in keys}
    driver = Ingest(pipelines, [feed], clock=clock, cadence=CADENCE, candle_outlets=[outlet])
    writing = asyncio.create_task(outlet.run())
    await driver.pump(feed)
    await driver.turn()
    outlet.close()
    await writing
    assert written == [0, 1, 2] and len(sink.items) == 3


async def test_the_last_turn_takes_what_is_pending_and_finish_closes_at_the_arrival_clock() -> None:
    clock = ManualClock(T0)
    feed = Feed("x", ScriptedSource([[tick(T0)]]))
    driver, (btc,) = ingest(feed, clock=clock)
    await driver.pump(feed)
    driver.close()
    await driver.run()
    await driver.finish()
    assert len(btc.fed) == 1
    assert btc.finished == [T0]


async def test_an_outlet_that_drops_loses_the_oldest_and_its_counts_add_up() -> None:
    sink = Collector()
    outlet = Outlet("x", sink, clock=ManualClock(), capacity=2, policy=FullPolicy.DROP_OLDEST)
    for number in range(5):
        await outlet.put(candle(number))
    outlet.close()
    await outlet.run()
    assert [int(item["timestamp"][0]) for item in sink.items if isinstance(item, CandleBatch)] == [3, 4]
    assert (outlet.counters.put, outlet.counters.dropped, outlet.counters.written) == (5, 3, 2)
    assert sink.calls == ["open", "flush", "aclose"]


async def test_an_outlet_that_blocks_waits_for_its_sink() -> None:
    sink = Collector()
    outlet = Outlet("x", sink, clock=ManualClock(), capacity=1, policy=FullPolicy.BLOCK)
    await outlet.put(candle(0))
    putting = asyncio.create_task(outlet.put(candle(1)))
    await asyncio.sleep(0)
    assert not putting.done()
    running = asyncio.create_task(outlet.run())
    await putting
    outlet.close()
    await running
    assert outlet.counters.written == 2


async def test_a_busy_sink_is_asked_again_after_the_time_it_named() -> None:
    clock = ManualClock(T0, auto=True)
    sink = Failing(SinkBusy("later", retry_after=3.0))
    outlet = Outlet("x", sink, clock=clock)
    await outlet.put(candle(0))
    outlet.close()
    await outlet.run()
    assert len(sink.items) == 1
    assert clock.now_us() == T0 + 3 * SECOND
    assert (outlet.counters.retries, outlet.counters.errors) == (1, 0)


async def test_a_sink_that_stays_busy_costs_the_batch_and_the_next_ones_go_on() -> None:
    clock = ManualClock(auto=True)
    sink = Failing(*[SinkBusy("later", retry_after=0.1) for _ in range(8)])
    outlet = Outlet("x", sink, clock=clock)
    await outlet.put(candle(0))
    await outlet.put(candle(1))
    outlet.close()
    await outlet.run()
    assert (outlet.counters.failed, outlet.counters.written, outlet.counters.errors) == (1, 1, 1)


async def test_an_outage_is_logged_once_a_minute_with_how_often_the_sink_failed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = ManualClock(T0, auto=True)
    sink = Failing(*[SinkError("refused") for _ in range(70)], SinkRejected("never", rows=[0]))
    outlet = Outlet("x", sink, clock=clock)
    for number in range(71):
        await outlet.put(candle(number))
        outlet.close()
        await outlet.run()
        await clock.sleep(1.0)
    assert outlet.counters.errors == 71
    told = [(record.errors, record.error) for record in caplog.records if record.message == "sink failed"]  # type: ignore[attr-defined]
    assert told == [(1, "refused"), (60, "refused"), (1, "never")]


async def test_rejected_rows_are_counted_as_failed() -> None:
    outlet = Outlet("x", Failing(SinkRejected("never", rows=[0])), clock=ManualClock())
    await outlet.put(candle(0))
    outlet.close()
    await outlet.run()
    assert (outlet.counters.failed, outlet.counters.written, outlet.counters.errors) == (1, 0, 1)


async def test_an_abandoned_outlet_holds_nobody_up_and_counts_every_row() -> None:
    outlet = Outlet("x", Collector(), clock=ManualClock(), capacity=1)
    await outlet.put(candle(0))
    putting = asyncio.create_task(outlet.put(candle(1)))
    await asyncio.sleep(0)
    outlet.abandon()
    await putting
    await outlet.put(candle(2))
    assert (outlet.counters.put, outlet.counters.failed) == (3, 3)


async def test_an_outlet_flushes_on_its_interval() -> None:
    clock = ManualClock()
    sink = Collector()
    outlet = Outlet("x", sink, clock=clock, flush_interval_s=5.0)
    flushing = asyncio.create_task(outlet.flush_periodically())
    await clock.advance(11.0)
    assert sink.calls == ["flush", "flush"]
    flushing.cancel()


async def test_nothing_is_turned_before_what_comes_before_turns_has_ended() -> None:
    """What an earlier run left is with the sinks before the first new row, what this one leaves behind the last."""
    recorder, sink, order = Recorder(), Collector(), asyncio.Event()
    outlet = Outlet("x", sink, clock=ManualClock())
    told: list[int] = []

    async def before() -> None:
        await order.wait()

    async def after() -> None:
        told.append(len(recorder.fed))

    feed = Feed("feed", ScriptedSource([[Rows(BTC, trades([1.0]))]]))
    ingest = Ingest(
        {BTC: recorder}, [feed], clock=ManualClock(T0), cadence=CADENCE, tick_outlets=[outlet],
        before_turns=before, after_turns=after,
    )  # fmt: skip
    running = asyncio.create_task(ingest.run())
    await ingest.pump(feed)
    for _ in range(20):
        await asyncio.sleep(0)
    assert recorder.fed == [] and outlet.depth == 0
    order.set()
    ingest.close()
    async with patience("the last turn"):
        await running
    assert len(recorder.fed) == 1 and outlet.depth == 1 and told == [1]

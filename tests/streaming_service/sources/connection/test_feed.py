"""A source on real sockets: nothing is lost unseen, whatever the other side does."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from market_data_tick_handler.core.events import Disconnect, Gap, Rows
from market_data_tick_handler.core.liveness import PaceLimits
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.errors import SourceUnavailable
from streaming_service.source import BufferedSource
from streaming_service.sources.connection.checks import LastTradeCheck
from streaming_service.sources.connection.feed import ExchangeSource
from streaming_service.sources.connection.link import LinkState
from streaming_service.sources.connection.rest import fetch_trades
from streaming_service.sources.exchanges.protocol import KeepAlive
from streaming_service.supervisor import RestartPolicy
from tests.streaming_service.sources.connection.plain_venue import BTC, ETH, PERP, PlainVenue
from tests.streaming_service.sources.connection.running import CLOCK, OPTIONS, SOON_SILENT, Running, running
from tests.streaming_service.sources.connection.venue_server import VenueServer, serving
from tests.waiting import PATIENCE_S, until

BOTH = (DataType.TRADES, DataType.BOOK)


def test_an_exchange_source_is_a_buffered_source() -> None:
    assert isinstance(ExchangeSource(PlainVenue(), [BTC], BOTH, clock=CLOCK), BufferedSource)


async def test_trades_arrive_once_in_order_and_stamped_with_their_receipt() -> None:
    async with serving() as server, running(server) as run:
        for _ in range(20):
            await server.trade(count=5)
        await until(lambda: len(run.ids()) == 100)
        assert run.ids() == list(range(1, 101))
        local_us = np.concatenate([rows.batch["local_timestamp"] for rows in run.rows(DataType.TRADES)])
        exchange_us = np.concatenate([rows.batch["timestamp"] for rows in run.rows(DataType.TRADES)])
        assert (np.diff(local_us) >= 0).all() and (local_us >= exchange_us).all()
        assert local_us[-1] <= CLOCK.now_us()
        assert run.gaps() == run.disconnects() == []


async def test_rows_of_a_turn_are_not_younger_than_the_turn() -> None:
    async with serving() as server, running(server) as run:
        for _ in range(50):
            await server.trade()
        await until(lambda: len(run.ids()) == 50)
        for turn in run.turns:
            newest_us = max(
                (int(each.batch["local_timestamp"][-1]) for each in turn if isinstance(each, Rows)), default=0
            )
            assert newest_us <= CLOCK.now_us()


async def test_a_cut_connection_is_one_disconnect_since_the_last_proof_of_life_and_no_gap() -> None:
    async with serving() as server, running(server) as run:
        await server.trade(count=3)
        await until(lambda: len(run.ids()) == 3)
        last_us = int(run.rows(DataType.TRADES)[-1].batch["local_timestamp"][-1])
        cut_us = CLOCK.now_us()
        server.live[0].cut()
        await until(run.disconnects)
        await server.trade(count=2, delivered=False)
        await until(lambda: server.live and run.source.status().connections[0].acknowledged)
        await server.trade(count=3)
        await until(lambda: len(run.ids()) == 6)
        # Past the patience for missing numbers.
        await until(lambda: run.source.status().missing == 2)
        (lost,) = run.disconnects()
        assert last_us <= lost.last_alive_us <= lost.at_us
        assert lost.last_alive_us <= cut_us + 100_000
        assert run.gaps() == []
        assert run.source.status().connections[0].reconnects == 1


async def test_an_outage_tells_which_numbers_to_fetch_and_history_brings_them() -> None:
    async with serving() as server, running(server) as run:
        await server.trade(count=3)
        await until(lambda: len(run.ids()) == 3)
        server.live[0].cut()
        await until(run.disconnects)
        await server.trade(count=250, delivered=False)
        await until(lambda: server.live and run.source.status().connections[0].acknowledged)
        await server.trade()
        await until(lambda: run.source.status().missing == 250)
        lost = run.disconnects()[0]
        gap = Gap(BTC.key, DataType.TRADES, lost.last_alive_us, CLOCK.now_us(), lost.reason)
        missing = run.source.missing_trades(gap)
        assert (missing.first, missing.last) == (4, 253)
        trades, complete = await fetch_trades(run.source.rest, run.source.venue, BTC, missing)
        assert complete and trades["id"].tolist() == list(range(4, 254))


async def test_a_half_open_connection_is_found_out_by_its_silence_and_replaced() -> None:
    """The server neither reads nor answers pings any more; TCP alone would never tell."""
    impatient = PaceLimits(floor_us=100_000, ceiling_us=300_000)
    async with serving() as server, running(server, silence=impatient, pong_within_s=1.0) as run:
        for _ in range(40):
            await server.trade()
        await until(lambda: len(run.ids()) == 40)
        stalled = server.live[0]
        stalled.stall()
        server.muted_peers.add(stalled)
        await until(run.disconnects)
        lost = run.disconnects()[0]
        assert "no answer to a ping" in lost.reason
        assert lost.at_us - lost.last_alive_us > 1_000_000
        await until(lambda: server.opened == 2 and run.source.status().connections[0].acknowledged)
        await server.trade()
        await until(lambda: 41 in run.ids())
        assert run.gaps() == []
        stalled.cut()


async def test_pings_keep_a_silent_connection_alive_and_prove_its_life() -> None:
    async with serving() as server, running(server, PlainVenue(keep_alive=KeepAlive(0.05))) as run:
        await server.trade()
        await until(lambda: len(run.heartbeats()) >= 5)
        beats = [beat.at_us for beat in run.heartbeats()]
        assert (np.diff(beats) >= 100_000).all()
        assert run.disconnects() == []
        assert server.opened == 1
        # A proof of life may have come with more than one ping, or with one just before.
        await until(lambda: run.source.status().connections[0].pings > 5)


async def test_application_level_pings_and_pongs_serve_as_well() -> None:
    venue = PlainVenue(keep_alive=KeepAlive(0.05, b'{"ping":1}'))
    async with serving() as server, running(server, venue) as run:
        await until(lambda: len([said for said in server.live[0].heard if "ping" in said]) > 10)
        await until(lambda: len(run.heartbeats()) > 3)
        assert run.source.status().unknown == 0
        assert run.disconnects() == []


@pytest.mark.parametrize(
    ("status", "headers", "wait_s"), [(429, {"Retry-After": "1"}, 1.0), (418, {}, 0.6), (429, {}, 0.3)]
)
async def test_a_refused_handshake_is_repeated_after_the_wait_that_was_asked_for(
    status: int, headers: dict[str, str], wait_s: float
) -> None:
    async with serving() as server:
        server.handshakes = [(status, headers)]
        started_s = CLOCK.monotonic_s()
        async with running(server, opened=False, too_many_s=0.3, banned_s=0.6) as run:
            await until(lambda: server.live)
            assert CLOCK.monotonic_s() - started_s >= wait_s
            await until(run.disconnects)
            assert str(status) in run.disconnects()[0].reason


async def test_a_wait_asked_for_by_the_venue_holds_for_all_its_connections() -> None:
    async with serving() as server:
        server.handshakes = [(429, {"Retry-After": "1"})]
        started_s = CLOCK.monotonic_s()
        venue = PlainVenue(per_connection=1)
        async with running(server, venue, [BTC, ETH], opened=False, connects_in_flight=1):
            await until(lambda: len(server.live) == 2)
            assert CLOCK.monotonic_s() - started_s >= 1.0


async def test_a_venue_that_is_not_there_is_an_outage_from_the_start_and_fails_when_the_budget_is_spent() -> None:
    policy = RestartPolicy(budget=3, base_s=0.01, cap_s=0.02)
    async with serving() as server:
        server.handshakes = [(503, {})] * 100
        started_us = CLOCK.now_us()
        async with running(server, opened=False, reconnect=policy) as run:
            await until(lambda: run.ended)
            assert isinstance(run.error, SourceUnavailable) and "503" in str(run.error)
            (lost,) = run.disconnects()
            assert started_us <= lost.last_alive_us <= lost.at_us
            assert len(server.handshakes) == 96


async def test_a_connection_that_says_nothing_before_it_ends_counts_as_a_failure() -> None:
    policy = RestartPolicy(budget=3, base_s=0.01, cap_s=0.02)
    async with serving() as server:
        server.acknowledges = False
        async with running(server, opened=False, reconnect=policy) as run:
            for number in range(1, 5):
                await until(lambda: server.opened == number)  # noqa: B023
                server.peers[-1].cut()
            await until(lambda: run.ended)
            assert isinstance(run.error, SourceUnavailable)
            assert server.opened == 4


async def test_a_venue_that_accepts_and_drops_again_is_not_up() -> None:
    """Whoever waits for it to be down for long enough to turn to another source would wait for ever."""
    async with serving() as server, running(server, reconnect=RestartPolicy(base_s=0.01, cap_s=0.02)) as run:
        await until(lambda: run.source.up, "up")
        server.acknowledges = False
        server.live[0].cut()
        for number in (2, 3, 4):
            await until(lambda: server.opened == number and is_open(run), "a connection")  # noqa: B023
            # The first one after good messages may be as good.
            assert run.source.up == (number == 2)
            server.peers[-1].cut()
        server.acknowledges = True
        await until(lambda: run.source.up, "up again")


def is_open(run: Running) -> bool:
    return run.source.status().connections[0].state is LinkState.OPEN


async def test_a_good_message_ends_a_row_of_failures() -> None:
    policy = RestartPolicy(budget=3, base_s=0.01, cap_s=0.02)
    async with serving() as server, running(server, reconnect=policy) as run:
        for number in range(1, 9):
            await until(lambda: server.live and run.source.status().connections[0].acknowledged)
            await server.trade()
            await until(lambda: number in run.ids())  # noqa: B023
            server.live[0].cut()
            await until(lambda: len(run.disconnects()) == number)  # noqa: B023
        assert not run.ended


async def test_a_hung_handshake_is_given_up() -> None:
    hearing: set[asyncio.StreamWriter] = set()

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hearing.add(writer)
        await reader.read(-1)
        writer.close()
        await writer.wait_closed()
        hearing.discard(writer)

    deaf = await asyncio.start_server(never, "127.0.0.1", 0)
    server = VenueServer()
    port = deaf.sockets[0].getsockname()[1]
    server.endpoints = server.endpoints.__class__(f"ws://127.0.0.1:{port}", f"http://127.0.0.1:{port}")
    async with running(server, opened=False, handshake_s=0.1) as run:
        await until(run.disconnects)
        assert "no connection" in run.disconnects()[0].reason
    deaf.close()
    await deaf.wait_closed()
    await until(lambda: not hearing, "the end of every connection")


async def test_garbage_is_counted_and_the_frames_around_it_are_kept() -> None:
    async with serving() as server, running(server) as run:
        await server.trade(count=2)
        await server.say(b"\x00 no JSON at all " * 20)
        await server.trade(count=2)
        await until(lambda: len(run.ids()) == 4)
        assert run.ids() == [1, 2, 3, 4]
        assert run.source.status().violations == 1
        assert run.gaps() == run.disconnects() == []


async def test_missing_numbers_on_a_living_connection_are_one_gap_between_their_neighbours() -> None:
    async with serving() as server, running(server) as run:
        await server.trade(count=3)
        await until(lambda: len(run.ids()) == 3)
        await server.trade(count=4, delivered=False)
        await server.trade(count=2)
        await until(run.gaps)
        rows = {number: int(each.batch["local_timestamp"][0]) for each in run.rows(DataType.TRADES)
                for number in each.batch["id"].tolist()}  # fmt: skip
        (gap,) = run.gaps()
        assert (gap.data_type, gap.from_us, gap.to_us) == (DataType.TRADES, rows[3], rows[8])
        assert "4..7" in gap.reason
        assert run.disconnects() == []


async def test_a_planned_replacement_overlaps_and_loses_nothing() -> None:
    venue = PlainVenue(max_age_s=0.5)
    async with serving() as server, running(server, venue, data_types=BOTH) as run:

        async def busy_until_replaced() -> bool:
            await server.trade()
            await server.change_book()
            return run.source.status().connections[0].renewals >= 3

        await until(busy_until_replaced, "three replacements", poll_s=0.001)
        total = len(server.trades["BTCUSDT"])
        await until(lambda: total in run.ids())
        assert sorted(set(run.ids())) == list(range(1, total + 1))
        assert run.disconnects() == run.gaps() == []
        assert server.opened >= 4
        books = [rows.batch for rows in run.rows(DataType.BOOK)]
        # The book goes on where it was: its times never step back over a handover.
        assert (np.diff(np.concatenate([batch["timestamp"] for batch in books])) >= 0).all()


async def test_a_connection_that_dies_while_its_replacement_works_already_is_no_outage() -> None:
    async with serving() as server, running(server, overlap_s=2 * PATIENCE_S, handover_s=3 * PATIENCE_S) as run:
        await server.trade(count=2)
        await until(lambda: len(run.ids()) == 2)
        await server.say({"leave": "maintenance"})
        await until(lambda: len(server.live) == 2)
        new = server.live[1]
        await until(lambda: new.heard)
        await server.trade(count=2)
        await until(lambda: run.ids().count(4) == 2)
        server.live[0].cut()
        await until(lambda: run.source.status().connections[0].connection == 1)
        await server.trade()
        await until(lambda: 5 in run.ids())
        assert run.disconnects() == run.gaps() == []


async def test_a_venue_that_asks_to_reconnect_is_obeyed_without_a_gap() -> None:
    async with serving() as server, running(server) as run:
        await server.trade(count=2)
        await server.say({"leave": "service upgrade soon"})
        await until(lambda: server.opened == 2 and len(server.live) == 1)
        await server.trade(count=2)
        await until(lambda: 4 in run.ids())
        assert sorted(set(run.ids())) == [1, 2, 3, 4]
        assert run.disconnects() == run.gaps() == []


async def test_a_replacement_that_fails_leaves_the_old_connection_in_place() -> None:
    async with serving() as server, running(server) as run:
        server.handshakes = [(503, {})] * 3
        await server.say({"leave": "now"})
        await until(lambda: not server.handshakes)
        await server.trade(count=2)
        await until(lambda: 2 in run.ids())
        assert run.disconnects() == []
        await until(lambda: run.source.status().connections[0].renewals == 1)


async def test_questions_of_the_venue_are_answered_within_a_turn() -> None:
    async with serving() as server, running(server) as run:
        await server.say({"test": 1})
        await until(lambda: {"answer": 1} in server.live[0].heard)
        assert run.source.status().unknown == 0


async def test_refused_subscriptions_and_unknown_messages_are_counted_and_prove_nothing() -> None:
    async with serving() as server:
        server.acknowledges = False
        async with running(server, PlainVenue(keep_alive=KeepAlive(0.05)), [BTC, ETH], opened=False) as run:
            await until(lambda: server.live and server.live[0].heard)
            await server.say({"refused": "no such symbol ETHUSDT"})
            await server.say({"what": "is this"})
            await server.say({"ack": 1})
            await server.trade()
            await until(lambda: run.source.status().refused == 1 and run.source.status().unknown == 1)
            await until(lambda: len(run.heartbeats(BTC)) > 3)
            assert run.heartbeats(ETH) == []


async def test_no_heartbeat_before_the_subscription_works() -> None:
    async with serving() as server:
        server.acknowledges = False
        async with running(server, PlainVenue(keep_alive=KeepAlive(0.02)), opened=False) as run:
            await until(lambda: (status := run.source.status().connections) and status[0].pings > 10)
            assert run.heartbeats() == []
            acknowledged_us = CLOCK.now_us()
            await server.say({"ack": 1})
            await until(run.heartbeats)
            assert run.heartbeats()[0].at_us >= acknowledged_us


async def test_a_dead_stream_on_a_living_connection_is_found_out_and_replaced_without_touching_others() -> None:
    venue = PlainVenue(keep_alive=KeepAlive(0.03), tells_last=True)
    async with serving() as server, running(server, venue, [BTC, ETH], stream_silence=SOON_SILENT) as run:
        await server.trade(count=2)
        await server.trade("ETHUSDT", count=2)
        await until(lambda: len(run.ids()) == 2 and len(run.ids(ETH)) == 2)
        last_us = int(run.rows(DataType.TRADES)[-1].batch["local_timestamp"][-1])
        server.mute.add("BTCUSDT")
        await server.trade(count=3)
        await until(run.disconnects)
        (lost,) = run.disconnects()
        assert lost.last_alive_us == last_us and "newer trades" in lost.reason
        server.mute.clear()
        # At once: a proof of life before it would end the outage, and the numbers be missing from then on.
        await server.trade()
        await until(lambda: run.source.status().connections[0].renewals >= 1)
        await server.trade()
        await server.trade("ETHUSDT")
        await until(lambda: {6, 7} <= set(run.ids()) and 3 in run.ids(ETH))
        assert run.disconnects(ETH) == [] and run.gaps() == []


async def test_an_answer_that_comes_while_nothing_is_read_calls_no_stream_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the venue has more than the stream brought may wait in the socket; the next answer tells."""
    venue = PlainVenue(keep_alive=KeepAlive(0.03), tells_last=True)
    missed, answers = LastTradeCheck.missed, []

    async def missed_while_held(*arguments: Any) -> bool | None:
        answers.append(await missed(*arguments))
        if answers[-1] and answers.count(True) == 1:
            run.source._load.held = True
            asyncio.get_running_loop().call_soon(setattr, run.source._load, "held", False)
        return answers[-1]

    monkeypatch.setattr(LastTradeCheck, "missed", missed_while_held)
    async with serving() as server, running(server, venue, stream_silence=SOON_SILENT) as run:
        await server.trade(count=2)
        await until(lambda: len(run.ids()) == 2)
        server.mute.add("BTCUSDT")
        await server.trade(count=3)
        await until(run.disconnects)
        assert answers.count(True) >= 2


async def test_a_quiet_stream_is_proven_quiet_and_goes_on_proving_its_life() -> None:
    venue = PlainVenue(keep_alive=KeepAlive(0.03), tells_last=True)
    async with serving() as server, running(server, venue, stream_silence=SOON_SILENT) as run:
        await server.trade(count=2)
        await until(lambda: sum("/last" in path for path in server.requests) >= 3)
        asked_us = CLOCK.now_us()
        await until(lambda: run.heartbeats() and run.heartbeats()[-1].at_us > asked_us)
        assert run.disconnects() == run.gaps() == []
        assert server.opened == 1


async def test_books_come_into_step_after_their_changes_flow() -> None:
    async with serving() as server, running(server, data_types=BOTH) as run:
        assert server.requests == []
        for _ in range(3):
            await server.change_book()
        await until(lambda: any("/depth" in path for path in server.requests))
        await until(lambda: run.rows(DataType.BOOK))
        count = len(run.rows(DataType.BOOK))
        await server.change_book()
        await until(lambda: len(run.rows(DataType.BOOK)) > count)
        assert server.requests == ["/depth?symbol=BTCUSDT"]


@pytest.mark.parametrize("in_band", [False, True])
async def test_a_broken_book_is_a_gap_of_its_own_and_only_it_is_fetched_again(in_band: bool) -> None:
    venue = PlainVenue(snapshots=not in_band, in_band=in_band)
    async with serving() as server, running(server, venue, [BTC, ETH], BOTH) as run:
        if in_band:
            for symbol in ("BTCUSDT", "ETHUSDT"):
                await server.say(server._snapshot(symbol))
        else:
            await server.change_book()
            await server.change_book("ETHUSDT")
        await until(lambda: run.rows(DataType.BOOK) and run.rows(DataType.BOOK, ETH))
        fetched = Counter(server.requests)
        await server.change_book(skip=2)
        await until(lambda: run.source.status().resyncs == 1)
        await until(run.gaps)
        await server.change_book("ETHUSDT")
        await server.change_book()
        (gap,) = run.gaps()
        assert gap.data_type is DataType.BOOK and "expected" in gap.reason
        after = run.rows(DataType.BOOK)[-1].batch
        assert gap.from_us < gap.to_us <= int(after["local_timestamp"][-1])
        assert run.gaps(ETH) == []
        again = Counter(server.requests) - fetched
        assert again == ({} if in_band else {"/depth?symbol=BTCUSDT": 1})
        assert [said for said in server.live[0].heard if "book" in said] == ([{"book": "BTCUSDT"}] if in_band else [])


async def test_a_book_whose_snapshots_fail_is_tried_again_within_bounds_and_then_renews_the_connection() -> None:
    async with serving() as server:
        server.answers = [(500, {})] * 100
        async with running(server, data_types=BOTH) as run:
            await server.change_book()
            await until(lambda: run.source.status().connections[0].renewals >= 1)
            assert len(server.requests) >= 20
            server.answers.clear()
            await server.change_book()
            await until(lambda: run.rows(DataType.BOOK))
            assert run.disconnects() == []


async def test_polled_values_come_as_rows_of_their_stream() -> None:
    venue = PlainVenue(poll_s=0.05)
    async with serving() as server, running(server, venue, [PERP], [DataType.TRADES, DataType.DERIVATIVE]) as run:
        await until(lambda: len(run.rows(DataType.DERIVATIVE, PERP)) >= 3)
        assert run.rows(DataType.DERIVATIVE, PERP)[0].batch["open_interest"].tolist() == [7.0]
        server.answers = [(400, {})]
        await until(lambda: not server.answers)
        count = len(run.rows(DataType.DERIVATIVE, PERP))
        await until(lambda: len(run.rows(DataType.DERIVATIVE, PERP)) > count)


async def test_without_turns_the_buffer_stays_bounded_and_nothing_is_dropped() -> None:
    async with serving() as server, running(server, hold_frames=500, turn_frames=100) as run:
        run.reads = False
        sending = asyncio.create_task(server.trade(count=20_000))
        await until(lambda: run.source.status().holds == 1)
        held = run.source.status()
        # One read of the socket may go beyond the bound.
        assert 500 <= held.buffered < 500 + 65_536 // 60
        # Whoever reads does so in some of these turns of the loop.
        for _ in range(200):
            await asyncio.sleep(0)
        assert run.source.status().buffered == held.buffered
        run.reads = True
        await sending
        await until(lambda: len(run.ids()) == 20_000, "everything")
        assert run.ids() == list(range(1, 20_001))
        assert run.source.status().holds > 1
        assert run.disconnects() == run.gaps() == []


async def test_a_held_connection_is_not_taken_for_dead() -> None:
    venue = PlainVenue(keep_alive=KeepAlive(0.02))
    async with serving() as server, running(server, venue, hold_frames=50, pong_within_s=0.5) as run:
        run.reads = False
        await server.trade(count=200)
        await until(lambda: run.source.status().holds == 1)
        end_s = CLOCK.monotonic_s() + 1.5
        await until(lambda: CLOCK.monotonic_s() > end_s)
        run.reads = True
        await until(lambda: len(run.ids()) == 200)
        assert run.disconnects() == []
        assert server.opened == 1


async def test_a_full_buffer_asks_for_a_turn_at_once() -> None:
    async with serving() as server, running(server, yield_s=PATIENCE_S, turn_frames=50, opened=False) as run:
        await until(lambda: server.live)
        await server.trade(count=40)
        await until(lambda: run.source.status().buffered >= 40)
        assert run.ids() == []
        await server.trade(count=10)
        await until(lambda: len(run.ids()) >= 49)


async def test_large_messages_count_by_their_bytes() -> None:
    async with serving() as server, running(server, yield_s=PATIENCE_S, turn_bytes=100_000, opened=False) as run:
        await until(lambda: server.live)
        await server.say({"what": "x" * 200_000})
        await until(lambda: run.source.status().unknown == 1)


async def test_instruments_are_added_and_dropped_while_the_others_go_on() -> None:
    venue = PlainVenue(per_connection=1)
    async with serving() as server, running(server, venue, [BTC]) as run:
        await server.trade()
        await until(lambda: run.ids() == [1])
        first = server.live[0]
        run.source.set_instruments([BTC, ETH])
        await until(lambda: len(server.live) == 2)
        await until(lambda: all(each.acknowledged for each in run.source.status().connections))
        await server.trade("ETHUSDT")
        await server.trade()
        await until(lambda: run.ids(ETH) == [1] and run.ids() == [1, 2])
        run.source.set_instruments([BTC])
        await until(lambda: len(server.live) == 1)
        await server.trade()
        await until(lambda: run.ids() == [1, 2, 3])
        assert server.live == [first]
        assert run.disconnects() == run.disconnects(ETH) == []
        assert [each.key for each in run.source.instruments] == [BTC.key]


async def test_rows_of_a_dropped_instrument_on_a_shared_connection_are_left_out_and_counted() -> None:
    async with serving() as server, running(server, PlainVenue(), [BTC, ETH]) as run:
        run.source.set_instruments([BTC])
        await server.trade("ETHUSDT", count=3)
        await server.trade()
        await until(lambda: run.ids() == [1])
        assert run.ids(ETH) == []
        assert run.source.status().unwanted == {(ETH.key, DataType.TRADES): 3}
        run.source.set_instruments([BTC, ETH])
        await server.trade("ETHUSDT")
        await until(lambda: run.ids(ETH) == [4])
        assert server.opened == 1


async def test_the_status_tells_what_the_connection_does() -> None:
    async with serving() as server, running(server) as run:
        traded_us = CLOCK.now_us()
        await server.trade(count=10)
        await until(lambda: len(run.ids()) == 10)
        most_us = CLOCK.now_us() - traded_us
        status = run.source.status()
        (connection,) = status.connections
        assert (status.exchange, connection.state, connection.frames) == ("plain", LinkState.OPEN, 11)
        assert connection.bytes > 500 and connection.streams == 1
        assert connection.since_us <= connection.last_frame_us <= connection.last_proof_us <= CLOCK.now_us()
        assert connection.silence_us == OPTIONS.silence.ceiling_us
        assert connection.offset_us is not None and 0 <= connection.offset_us <= most_us


async def test_closing_the_source_closes_its_connections_and_says_no_outage() -> None:
    async with serving() as server:
        async with running(server) as run:
            await server.trade()
            await until(lambda: run.ids() == [1])
        assert run.ended
        await until(lambda: not server.live)
        assert run.disconnects() == []


async def test_a_source_can_be_run_again_after_it_failed() -> None:
    policy = RestartPolicy(budget=1, base_s=0.01, cap_s=0.02)
    async with serving() as server:
        async with running(server, reconnect=policy) as run:
            await server.trade()
            await until(lambda: run.ids() == [1])
            server.handshakes = [(503, {})] * 2
            server.live[0].cut()
            await until(lambda: run.ended)
            again = asyncio.create_task(run.run())
            await until(lambda: server.live and server.live[0].heard)
            await until(lambda: run.source.status().connections[0].acknowledged)
            await server.trade()
            await until(lambda: run.ids() == [1, 2])
            again.cancel()
            await asyncio.gather(again, return_exceptions=True)
        assert len(run.disconnects()) == 1


def test_it_works_on_uvloop() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def scenario() -> Running:
        # The replacement has no changes of the book to wait for: nothing happens on the market by then.
        books = replace(OPTIONS.books, answer_s=0.2)
        async with (
            serving() as server,
            running(server, data_types=BOTH, hold_frames=300, turn_frames=50, books=books) as run,
        ):
            run.reads = False
            sending = asyncio.create_task(server.trade(count=3_000))
            await until(lambda: run.source.status().holds)
            run.reads = True
            await sending
            await until(lambda: len(run.ids()) == 3_000)
            server.live[0].cut()
            await until(run.disconnects)
            await until(lambda: server.live and run.source.status().connections[0].acknowledged)
            await server.trade()
            await until(lambda: 3_001 in run.ids())
            await server.say({"leave": 1})
            await until(lambda: run.source.status().connections[0].renewals == 1)
        return run

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        run = runner.run(scenario())
    assert run.ids() == list(range(1, 3_002))
    assert len(run.of(Disconnect)) == 1

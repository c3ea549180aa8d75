"""Candles over real sockets: snapshot and tail, policies, slow clients, the end of the service."""

from __future__ import annotations

import asyncio
import socket as sockets
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import orjson
import pytest
import websockets
from aiohttp import ClientSession, TCPConnector, WSMsgType

from market_data_tick_handler.core.candle_batch import CandleBatch, concat_candles
from market_data_tick_handler.core.features.registry import columns
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.testing import ManualClock
from market_data_tick_handler.wire import CandleEncoder
from tests.streaming_service.serving.serving_world import (
    BTC_1M,
    CALM,
    ETH_1M,
    listening,
    numbers,
    read,
    read_until_closed,
    world,
)
from tests.waiting import PATIENCE_S, patience, until
from tests.wire.candles import BTC, ETH, candles

BIG = replace(CALM, history_frames=10_000, client_frames=10_000, client_bytes=1 << 30, history_bytes=1 << 30)


async def test_history_comes_oldest_first_and_then_the_tail() -> None:
    async with world() as served:
        await served.sink.write(candles(0, 10))
        async with served.connect(BTC_1M, history=4) as socket:
            assert numbers(await read(socket, 4)) == [7, 8, 9, 10]
            await served.sink.write(candles(10, 2))
            assert numbers(await read(socket, 2)) == [11, 12]


async def test_messages_are_those_of_the_wire_format() -> None:
    batch = candles(0, 1)
    async with world() as served, served.connect(BTC_1M) as socket:
        await listening(served)
        await served.sink.write(batch)
        async with patience("a message"):
            assert (await socket.receive_str()).encode() == CandleEncoder().messages(batch)[0]


async def test_snapshot_and_tail_have_no_hole_and_no_duplicate_while_candles_are_published() -> None:
    """Subscribers come at any time, with history and numbers of their own, while two channels are written to."""
    total = 1_500
    async with world(BIG) as served:

        async def publish() -> None:
            for number in range(0, total, 3):
                await served.sink.write(candles(number, 3))
                await served.sink.write(candles(number, 3, key=ETH))
                await asyncio.sleep(0)

        async def follow(index: int) -> None:
            await until(lambda: served.sink.hub.counters.messages >= index * 70)
            query: dict[str, Any] = {"history": 5} if index % 2 else {"since": [f"{BTC_1M}@{index * 20}"]}
            async with served.connect(BTC_1M, ETH_1M, **query) as socket:
                seen: list[dict[str, Any]] = []
                ended: set[str] = set()
                while ended != {BTC, ETH}:
                    (message,) = await read(socket, 1)
                    seen.append(message)
                    if message["sequence"] == total:
                        ended.add(message["instrument_id"])
                for channel in (BTC_1M, ETH_1M):
                    got = numbers(seen, channel)
                    assert got == list(range(got[0], total + 1)), (index, channel)
                if "since" in query:
                    assert numbers(seen, BTC_1M)[0] == index * 20 + 1

        # Every part of it waits with patience of its own.
        await asyncio.gather(publish(), *(follow(index) for index in range(12)))


async def test_history_holds_the_newest_candles_as_they_stand_even_where_older_ones_were_revised_last() -> None:
    async with world() as served:
        await served.sink.write(candles(0, 6))
        revised = candles(1, 1, revision=1).numbered(candles(6, 1).sequences)  # type: ignore[arg-type]
        await served.sink.write(revised)
        async with served.connect(BTC_1M, history=2) as socket:
            seen = await read(socket, 3)
            assert numbers(seen) == [5, 6, 7]
            opens = {message["timestamp"]: message["revision"] for message in seen}
            assert sorted(opens)[-2:] == [message["timestamp"] for message in seen[:2]]


async def test_a_number_that_memory_no_longer_has_is_answered_by_a_gap_and_what_there_is() -> None:
    async with world(replace(CALM, history_frames=5)) as served:
        await served.sink.write(candles(0, 20))
        async with served.connect(BTC_1M, since=f"{BTC_1M}@3") as socket:
            gap, *rest = await read(socket, 6)
            assert gap == {
                "v": 1, "type": "gap", "channel": BTC_1M, "from": 4, "to": 15, "reason": "evicted",
            }  # fmt: skip
            assert numbers(rest) == [16, 17, 18, 19, 20]


async def test_a_number_from_before_a_restart_is_completed_by_a_gap_when_the_channel_speaks_again() -> None:
    async with world() as served, served.connect(BTC_1M, since=f"{BTC_1M}@57") as socket:
        await listening(served)
        await served.sink.write(candles(59, 2))
        gap, *rest = await read(socket, 3)
        assert (gap["from"], gap["to"], gap["reason"]) == (58, 59, "evicted")
        assert numbers(rest) == [60, 61]


async def test_numbers_that_begin_anew_are_told_of_so_that_the_reader_goes_on_behind_to() -> None:
    async with world() as served:
        await served.sink.write(candles(0, 3))
        async with served.connect(BTC_1M, since=f"{BTC_1M}@900") as socket:
            gap, *rest = await read(socket, 4)
            assert gap["reason"] == "renumbered" and gap["to"] + 1 == numbers(rest)[0] == 1


async def test_what_the_sink_itself_never_got_is_a_gap_for_those_who_listen_and_those_who_come_later() -> None:
    async with world() as served, served.connect(BTC_1M) as early:
        await listening(served)
        await served.sink.write(candles(0, 2))
        await served.sink.write(candles(6, 2))
        async with served.connect(BTC_1M, history=10) as late:
            for socket in (early, late):
                first, second, gap, *rest = await read(socket, 5)
                assert numbers([first, second, *rest]) == [1, 2, 7, 8]
                assert (gap["type"], gap["from"], gap["to"], gap["reason"]) == ("gap", 3, 6, "lost")
        assert served.sink.report()["lost"] == 4


async def test_a_candle_delivered_again_is_passed_over() -> None:
    async with world() as served, served.connect(BTC_1M) as socket:
        await listening(served)
        await served.sink.write(candles(0, 3))
        await served.sink.write(candles(1, 3))
        assert numbers(await read(socket, 4)) == [1, 2, 3, 4]
        assert served.sink.report()["repeated"] == 2


async def test_without_a_journal_numbers_go_on_and_do_not_continue_those_of_an_earlier_run() -> None:
    async with world() as served, served.connect(BTC_1M) as socket:
        await listening(served)
        await served.sink.write(candles(0, 2, sequences=False))
        await served.sink.write(candles(2, 2, sequences=False))
        got = numbers(await read(socket, 4))
        assert got == list(range(got[0], got[0] + 4)) and got[0] > 1_600_000_000_000


async def test_patterns_cover_channels_that_begin_later() -> None:
    async with world() as served:
        await served.sink.write(candles(0, 1))
        async with served.connect(f"candles:{BTC}:*", "candles:*:15s", history=1) as socket:
            assert numbers(await read(socket, 1)) == [1]
            await served.sink.write(candles(0, 1, timeframe=Timeframe.M5))
            await served.sink.write(candles(0, 1, key=ETH, timeframe=Timeframe.S15))
            await served.sink.write(candles(0, 1, key=ETH))
            await served.sink.write(candles(1, 1))
            seen = await read(socket, 3)
            assert [(each["instrument_id"], each["timeframe"]) for each in seen] == [
                (BTC, "5m"), (ETH, "15s"), (BTC, "1m"),
            ]  # fmt: skip


async def test_a_channel_asked_for_by_name_and_by_pattern_comes_once() -> None:
    async with world() as served:
        await served.sink.write(candles(0, 1))
        async with served.connect(BTC_1M, f"candles:{BTC}:*", "candles:*", history=1) as socket:
            await listening(served)
            await served.sink.write(candles(1, 1))
            assert numbers(await read(socket, 2)) == [1, 2]


async def test_candles_in_progress_come_to_those_who_asked_and_end_with_the_final_one() -> None:
    clock = ManualClock()
    async with (
        world(replace(CALM, open_interval_s=0.25), clock=clock) as served,
        served.connect(BTC_1M, open=1) as both,
        served.connect(BTC_1M) as finals,
    ):
        await listening(served, 2)
        served.sink.write_open(candles(0, 1, close=100.7))
        assert [(each["is_final"], each["close"]) for each in await read(both, 1)] == [(False, 100.7)]
        served.sink.write_open(candles(0, 1, close=100.8))
        served.sink.write_open(candles(0, 1, close=100.9))
        await clock.advance(0.25)
        assert [(each["is_final"], each["close"]) for each in await read(both, 1)] == [(False, 100.9)]
        clock.move(0.25)
        served.sink.write_open(candles(0, 1, close=101.0))
        served.sink.write_open(candles(0, 1, close=101.1))
        await served.sink.write(candles(0, 1))
        served.sink.write_open(candles(0, 1, close=99.0))
        await served.sink.write(candles(1, 1))
        for socket in (both, finals):
            assert [each["is_final"] for each in await read(socket, 2)] == [True, True]


def throttled() -> ClientSession:
    """A connection whose client takes next to nothing into its buffers."""

    def make_socket(address: Any) -> sockets.socket:
        made = sockets.socket(address[0], address[1], address[2])
        made.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4_096)
        return made

    return ClientSession(connector=TCPConnector(socket_factory=make_socket), read_bufsize=1_024)


@pytest.mark.parametrize("policy", ["drop_oldest", "latest"])
async def test_a_slow_client_loses_the_old_is_told_so_and_ends_with_the_newest(policy: str) -> None:
    options = replace(CALM, client_frames=20, history_frames=10)
    async with world(options) as served, throttled() as session:
        url = f"{served.url}/ws?channels={BTC_1M}&policy={policy}"
        async with session.ws_connect(url, max_msg_size=0) as socket:
            await listening(served)
            total = 6_000
            for number in range(0, total, 20):
                await served.sink.write(candles(number, 20, **padding()))
            assert served.sink.report()["dropped"] > 0
            seen: list[dict[str, Any]] = []
            while not seen or seen[-1]["type"] != "candle" or seen[-1]["sequence"] != total:
                seen += await read(socket, 1)
            spans = [
                (each["sequence"],) * 2 if each["type"] == "candle" else (each["from"], each["to"]) for each in seen
            ]
            assert spans[0][0] == 1
            assert all(later[0] == earlier[1] + 1 for earlier, later in pairwise(spans))
            told = sum(each["count"] for each in seen if each["type"] == "dropped")
            assert told == served.sink.report()["dropped"] == total - len(numbers(seen))


def padding() -> dict[str, Any]:
    """Columns that make a message a few kilobytes long, as real ones are."""
    names = [column.name for column in columns(["flow", "returns"]) if column.dtype == "float64"]
    return dict.fromkeys(names, 0.123456789012345)


async def test_a_client_that_may_lose_nothing_is_disconnected_when_it_is_too_slow_and_goes_on_where_it_was() -> None:
    options = replace(CALM, client_frames=50, history_frames=20_000, history_bytes=1 << 30, close_s=0.5)
    async with world(options) as served, throttled() as session:
        total = 5_000
        async with session.ws_connect(f"{served.url}/ws?channels={BTC_1M}", max_msg_size=0) as socket:
            await listening(served)
            for number in range(0, total, 20):
                await served.sink.write(candles(number, 20, **padding()))
            assert len(served.sink.hub) == 0
            assert served.sink.report()["ended_slow"] == 1
            seen, _ = await read_until_closed(socket)
        got = numbers(seen)
        assert got == list(range(1, len(got) + 1)) and len(got) < total
        # The server remembers enough, so the second connection brings the rest.
        async with session.ws_connect(
            f"{served.url}/ws?channels={BTC_1M}&since={BTC_1M}@{got[-1] if got else 0}", max_msg_size=0
        ) as socket:
            rest: list[dict[str, Any]] = []
            while numbers(rest[-1:]) != [total]:
                rest += await read(socket, 1)
        assert got + numbers(rest) == list(range(1, total + 1))


async def test_a_client_that_reads_in_time_gets_the_close_code_of_a_slow_one() -> None:
    """The socket is full when the queue overflows; once the client reads on, it learns why it was ended."""
    options = replace(CALM, client_frames=50, history_frames=10)
    async with (
        world(options) as served,
        throttled() as session,
        session.ws_connect(f"{served.url}/ws?channels={BTC_1M}", max_msg_size=0) as socket,
    ):
        await listening(served)
        for number in range(0, 100_000, 20):
            if served.sink.report()["ended_slow"]:
                break
            await served.sink.write(candles(number, 20, **padding()))
        _, code = await read_until_closed(socket)
        assert code == 4008


async def test_a_client_that_takes_nothing_is_disconnected_though_its_policy_drops() -> None:
    options = replace(CALM, client_frames=10, stall_s=0.2, close_s=0.1)
    async with world(options) as served, throttled() as session:
        url = f"{served.url}/ws?channels={BTC_1M}&policy=drop_oldest"
        async with session.ws_connect(url, max_msg_size=0):
            await listening(served)
            for number in range(0, 5_000, 20):
                await served.sink.write(candles(number, 20, **padding()))
            await listening(served, 0)
            assert served.sink.report()["ended_slow"] == 1


async def test_one_slow_client_holds_nobody_else_up() -> None:
    options = replace(CALM, client_frames=5_000, client_bytes=1 << 30)
    async with world(options) as served, throttled() as session:
        slow_url = f"{served.url}/ws?channels={BTC_1M}"
        async with session.ws_connect(slow_url, max_msg_size=0), served.connect(BTC_1M) as quick:
            await listening(served, 2)
            reading = asyncio.create_task(read(quick, 2_000))
            for number in range(0, 2_000, 20):
                await served.sink.write(candles(number, 20, **padding()))
            assert numbers(await reading) == list(range(1, 2_001))


async def test_all_that_one_turn_brings_is_written_at_once() -> None:
    """Counted at the transport: several candles for a subscriber within one turn of the loop are one write."""
    async with world() as served, served.connect(BTC_1M) as socket:
        await listening(served)
        (connection,) = served.sink.hub.receivers
        transport = connection._request.transport  # type: ignore[attr-defined]
        writes: list[bytes] = []
        original = transport.write

        class Counting:
            def __getattr__(self, name: str) -> Any:
                return getattr(transport, name)

            def write(self, data: bytes) -> None:
                writes.append(data)
                original(data)

        connection._request._protocol.transport = Counting()  # type: ignore[attr-defined]
        await served.sink.write(concat(candles(number, 1) for number in range(8)))
        assert numbers(await read(socket, 8)) == list(range(1, 9))
        assert len(writes) == 1


def concat(batches: Iterable[CandleBatch]) -> CandleBatch:
    return concat_candles(list(batches))


async def test_when_the_service_stops_subscribers_get_what_waits_and_the_close_code_of_a_departure() -> None:
    async with world() as served, served.connect(BTC_1M) as socket:
        await listening(served)
        reading = asyncio.create_task(read_until_closed(socket))
        await served.sink.write(candles(0, 5))
        await served.sink.aclose()
        seen, code = await reading
        assert numbers(seen) == [1, 2, 3, 4, 5] and code == 1001
        status, problem = await served.get("/ws", channels=BTC_1M)
        assert status == 426 and "WebSocket" in problem["error"]


async def test_a_subscriber_beyond_the_limit_is_turned_away_with_the_reason() -> None:
    async with world(replace(CALM, max_subscribers=1)) as served, served.connect(BTC_1M):
        await listening(served)
        headers = {
            "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        }  # fmt: skip
        url = f"{served.url}/ws?channels={BTC_1M}"
        async with served.session.get(url, headers=headers) as response:
            assert response.status == 503
            assert "max_subscribers" in (await response.json())["hint"]


async def test_those_who_leave_leave_nothing_behind() -> None:
    async with world() as served:
        await served.sink.write(candles(0, 1))
        for _ in range(3):
            async with served.connect(BTC_1M, ETH_1M, "candles:*:5m", open=1, history=1) as socket:
                await read(socket, 1)
        await listening(served, 0)
        hub = served.sink.hub
        assert not any(channel.receivers or channel.open_receivers for channel in hub.channels.values())
        await served.sink.write(candles(0, 1, key=ETH))
        assert served.sink.report()["waiting_bytes"] == 0


async def test_memory_of_all_channels_together_is_bounded() -> None:
    options = replace(CALM, history_bytes=400_000)
    async with world(options) as served:
        for index in range(40):
            key = f"BINANCE:SPOT_PAIR:C{index:02d}-USDT"
            await served.sink.write(candles(0, 100, key=key))
        for index in range(40):
            await served.sink.write(candles(100, 1, key=f"BINANCE:SPOT_PAIR:C{index:02d}-USDT"))
        report = served.sink.report()
        assert report["history_bytes"] <= 400_000 and report["channels"] == 40
        assert all(channel.entries for channel in served.sink.hub.channels.values())


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ({}, "channels"),
        ({"channels": "trades:x"}, "channels"),
        ({"channels": BTC_1M, "history": "many"}, "history"),
        ({"channels": BTC_1M, "history": "-1"}, "history"),
        ({"channels": BTC_1M, "policy": "hope"}, "policy"),
        ({"channels": BTC_1M, "since": "17"}, "since"),
        ({"channels": BTC_1M, "chanels": "x"}, "chanels"),
    ],
)
async def test_a_bad_request_says_what_was_expected(query: dict[str, str], named: str) -> None:
    async with world() as served:
        status, problem = await served.get("/ws", **query)
        assert status == 400
        assert set(problem) == {"error", "expected", "hint"}
        assert named in problem["error"] and problem["expected"]


async def test_an_independent_client_reads_pings_and_closes() -> None:
    """The websockets library checks frames more strictly than the client from the server's own family."""
    async with world() as served:
        await served.sink.write(candles(0, 300, **padding()))
        address = served.url.replace("http", "ws", 1)
        patient: dict[str, Any] = {"open_timeout": PATIENCE_S, "close_timeout": PATIENCE_S, "ping_interval": None}
        url = f"{address}/ws?channels={BTC_1M}&history=300"
        async with websockets.connect(url, max_size=None, **patient) as socket:
            async with patience("messages and a pong"):
                seen = [orjson.loads(await socket.recv()) for _ in range(300)]
                await (await socket.ping())
            assert numbers(seen) == list(range(1, 301))
        assert socket.close_code == 1000


async def test_the_server_pings_and_gives_a_dead_connection_up() -> None:
    async with (
        world(replace(CALM, heartbeat_s=0.2)) as served,
        served.session.ws_connect(f"{served.url}/ws?channels={BTC_1M}", autoping=False) as socket,
    ):
        async with patience("a ping"):
            assert (await socket.receive()).type is WSMsgType.PING
        await listening(served, 0)

"""Over a WebSocket: snapshot, then tail; after a break what came in between, or a gap."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import pytest

from market_data_tick_handler.client import CandleGap, GapReason, LiveFeatureStream
from market_data_tick_handler.client.subscription import make_subscription
from market_data_tick_handler.client.websocket_request import WebSocketRequest, websocket_parts
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.errors import ConfigError, NotFound, NotInstalled, SchemaMismatch, SourceUnavailable
from market_data_tick_handler.storage.candle_files import CandleWriter
from market_data_tick_handler.wire import Encoding
from tests.client.made import ALERT, CHANNEL, HASTY, closes, encoded, reader, shown, take
from tests.client.websocket_server import CandleServer, candle_server
from tests.servers.ports import free_port
from tests.servers.tcp_proxy import tcp_proxy
from tests.waiting import until
from tests.wire.candles import BTC, ETH, candles

CALL = "DERIBIT:OPTION:BTC-USD-50000-241225-CALL"


def live(server: CandleServer, symbol: Any = "BTC-USDT", **arguments: Any) -> LiveFeatureStream:
    return LiveFeatureStream(symbol, **{"exchange": "binance", "transport": server.url, "timing": HASTY, **arguments})


async def served(server: CandleServer, count: int = 1) -> None:
    await until(lambda: len(server.connections) == count, f"{count} connections")


@pytest.mark.parametrize("encoding", list(Encoding))
async def test_the_snapshot_comes_first_then_the_tail(encoding: Encoding) -> None:
    async with candle_server(encoding=encoding) as server:
        server.publish(candles(0, 30))
        async with live(server, history=10) as stream:
            items = await take(stream, 10)
            await served(server)
            server.publish(candles(30, 3))
            items += await take(stream, 3)
        assert shown(items) == list(range(21, 34))
        assert closes(items) == [index + 100.5 for index in range(20, 33)]
        assert items[-1]["hft_features"]["rsi_5"] == 55.25
        assert server.requests == [{"channels": CHANNEL, "history": "10", "policy": "block", "open": "0"}]


async def test_after_a_break_it_goes_on_where_it_stood() -> None:
    async with candle_server() as server:
        server.publish(candles(0, 5))
        async with reader(live(server, policy="drop_oldest")) as reads:
            await reads.has(5)
            await served(server)
            for first in (5, 15):
                server.cut()
                server.publish(candles(first, 10))
                await reads.has(first + 10)
                await served(server)
            assert reads.numbers == list(range(1, 26)) and reads.gaps == []
        assert [request.get("since") for request in server.requests] == [None, f"{CHANNEL}@4", f"{CHANNEL}@14"]
        assert {request["policy"] for request in server.requests} == {"drop_oldest"}


async def test_what_the_server_no_longer_has_comes_from_the_store_and_then_is_a_gap(tmp_path: Path) -> None:
    writer = CandleWriter(tmp_path)
    writer.write(candles(0, 12, quality="COMPLETE"))
    writer.close()
    async with candle_server(kept=5) as server:
        server.publish(candles(0, 5, quality="COMPLETE"))
        async with reader(live(server, store=tmp_path)) as reads:
            await reads.has(5)
            await served(server)
            server.status = 503
            server.cut()
            server.publish(candles(5, 15, quality="COMPLETE"))
            server.status = None
            await reads.has(20)
            numbers = [number for number in reads.numbers if number is not None]
            assert numbers == [*range(1, 13), *range(16, 21)]
            (gap,) = reads.gaps
            assert (gap.reason, gap.missing, gap.to_sequence) == (GapReason.LOST, 3, 15)
            assert reads.items.index(gap) == 12


async def test_a_gap_with_nothing_behind_it_is_told_when_something_else_comes(tmp_path: Path) -> None:
    writer = CandleWriter(tmp_path)
    writer.write(candles(0, 3, quality="COMPLETE"))
    writer.close()
    async with candle_server() as server, live(server, ["BTC-USDT", "ETH-USDT"], store=tmp_path) as stream:
        await served(server)
        server.publish(candles(0, 2))
        server.tell("gap", CHANNEL, 3, 5)
        server.publish(candles(0, key=ETH))
        items = await take(stream, 5)
        assert closes(items) == [100.5, 101.5, 102.5, 100.5]
        gap = items[3]
        assert isinstance(gap, CandleGap) and (gap.missing, gap.to_sequence) == (2, 5)


async def test_a_number_that_the_server_left_out_is_asked_for_again() -> None:
    async with candle_server() as server:
        async with reader(live(server)) as reads:
            await served(server)
            server.publish(candles(0, 2))
            await reads.has(2)
            server.lose = 3
            server.publish(candles(2, 5))
            await reads.has(7)
            assert reads.numbers == list(range(1, 8)) and reads.gaps == []
        assert [request.get("since") for request in server.requests] == [None, f"{CHANNEL}@1"]


async def test_a_number_that_the_server_leaves_out_again_is_a_gap() -> None:
    async with candle_server() as server, reader(live(server)) as reads:
        await served(server)
        server.publish(candles(0, 2))
        await reads.has(2)
        server.publish(candles(3), [4])
        await reads.has(4)
        assert shown(reads.items) == [1, 2, ("lost", 3, 3), 4]


async def test_what_the_servers_policy_dropped_is_a_gap() -> None:
    async with candle_server() as server, live(server) as stream:
        await served(server)
        server.publish(candles(0, 2))
        server.tell("dropped", CHANNEL, 3, 7)
        server.publish(candles(7))
        server.tell("dropped", CHANNEL, 1, 8)
        server.tell("dropped", "candles:BINANCE:SPOT_PAIR:ETH-USDT:1m", 1, 8)
        server.publish(candles(8))
        assert shown(await take(stream, 5)) == [1, 2, ("dropped", 3, 7), 8, 9]
        assert stream.stats.dropped == 5


async def test_with_latest_numbers_that_are_left_out_are_as_asked_for() -> None:
    async with candle_server() as server, live(server, policy="latest") as stream:
        await served(server)
        server.publish(candles(0))
        assert shown(await take(stream, 1)) == [1]
        server.publish(candles(6))
        assert shown(await take(stream, 1)) == [7]
        assert len(server.requests) == 1


async def test_messages_that_come_twice_are_given_once() -> None:
    async with candle_server() as server, live(server) as stream:
        await served(server)
        for index in range(5):
            server.publish(candles(index))
            server.send(CHANNEL, encoded(candles(index))[0].decode())
        assert shown(await take(stream, 5)) == [1, 2, 3, 4, 5]
        await until(lambda: stream.stats.repeated == 5, "the repetitions")


async def test_a_server_whose_numbers_begin_anew() -> None:
    async with candle_server() as server:
        server.publish(candles(0, 5))
        async with reader(live(server)) as reads:
            await reads.has(5)
            await served(server)
            server.forget()
            server.publish(candles(5, 3), [1, 2, 3])
            await until(lambda: len(reads.items) == 9, "the new numbers")
            assert shown(reads.items) == [1, 2, 3, 4, 5, ("renumbered", 6, None), 1, 2, 3]
            assert closes(reads.items) == [index + 100.5 for index in range(8)]


async def test_numbers_that_began_anew_while_we_were_away_are_recognised_although_they_are_higher() -> None:
    async with candle_server() as server:
        server.publish(candles(0, 5))
        async with reader(live(server)) as reads:
            await reads.has(5)
            await served(server)
            server.status = 503
            server.cut()
            server.forget()
            server.publish(candles(5, 20), range(1, 21))
            server.status = None
            await reads.has(20)
            assert closes(reads.items) == [index + 100.5 for index in range(25)]
            assert shown(reads.items)[5:7] == [("renumbered", 6, None), 1]
            assert reads.stream.stats.renumbered == 1


async def test_a_server_may_say_itself_that_numbers_began_anew() -> None:
    async with candle_server() as server:
        server.publish(candles(0, 5))
        async with reader(live(server)) as reads:
            await reads.has(5)
            await served(server)
            server.tell("gap", CHANNEL, 6, 0, reason="renumbered")
            server.publish(candles(5, 2), [1, 2])
            await until(lambda: len(reads.items) == 8, "the new numbers")
            assert shown(reads.items)[5:] == [("renumbered", 6, None), 1, 2]
            assert len(server.requests) == 1


async def test_candles_in_progress_come_if_asked_for() -> None:
    async with candle_server() as server, live(server, include_open=True) as stream:
        await served(server)
        server.publish(candles(0, close=1.0), [1], is_final=False)
        server.publish(candles(0))
        items = await take(stream, 1)
        if not items[0]["is_final"]:
            items += await take(stream, 1)
        assert items[-1]["is_final"] and items[-1]["close"] == 100.5
        server.publish(candles(1, close=2.0), [1], is_final=False)
        (current,) = await take(stream, 1)
        assert (current["is_final"], current["close"]) == (False, 2.0)
        assert server.requests[0]["open"] == "1"


async def test_options_of_an_underlying_are_asked_for_by_a_pattern() -> None:
    async with candle_server() as server:
        server.publish(candles(0, 2, key=CALL))
        server.publish(candles(0, 2, key=ETH))
        async with live(server, None, underlying="BTC", exchange="deribit") as stream:
            assert [item["instrument_id"] for item in await take(stream, 2)] == [CALL, CALL]
            await served(server)
            server.cut()
            server.publish(candles(2, key=CALL))
            assert shown(await take(stream, 1)) == [3]
        assert server.requests[0]["channels"] == "candles:DERIBIT:OPTION:BTC-*:1m"
        assert server.requests[1]["since"] == f"candles:{CALL}:1m@1"


async def test_several_series_one_of_which_begins_later() -> None:
    async with candle_server() as server:
        server.publish(candles(0, 3))
        async with live(server, ["BTC-USDT", "ETH-USDT"]) as stream:
            await take(stream, 3)
            await served(server)
            server.cut()
            # Its first number is none that anybody could know.
            server.publish(candles(40, 2, key=ETH))
            server.publish(candles(3))
            items = await take(stream, 3)
            assert sorted(shown(items)) == [4, 41, 42]


def test_many_channels_are_spread_over_connections_whose_addresses_are_short_enough() -> None:
    symbols = [f"C{number}-USDT" for number in range(200)]
    made = make_subscription(symbols, ["1m", "5m"], exchange="binance")
    parts = list(websocket_parts(made))
    assert [name for part in parts for name in part] == list(made.names)
    assert len(parts) > 1
    for part in parts:
        request = WebSocketRequest(
            "wss://candles.example.com:8080/some/path",
            part,
            token="secret",
            history=10_000,
            policy="drop_oldest",
            include_open=True,
        )
        address = request.url(dict.fromkeys(part, 10**9))
        assert len(address) < 8_000 and address.count("@") == len(part) and "secret" not in address


def test_where_there_are_too_many_numbers_to_tell_the_others_are_asked_for_everything() -> None:
    pattern = "candles:DERIBIT:OPTION:BTC-*:1m"
    request = WebSocketRequest("ws://h", [pattern], token="", history=3, policy="block", include_open=False)
    assert "history=3" in request.url({CHANNEL: 7}) and f"since={CHANNEL}@6" in request.url({CHANNEL: 7})
    many = {f"candles:DERIBIT:OPTION:BTC-USD-{strike}-241225-CALL:1m": 5 for strike in range(10_000, 11_000)}
    address = request.url(many)
    assert len(address) < 8_000 and "history=1000" in address and 10 < address.count("@4") < 1_000


async def test_channels_of_several_connections_come_in_one_stream() -> None:
    symbols = [f"C{number}-USDT" for number in range(100)]
    keys = [f"BINANCE:SPOT_PAIR:{symbol}" for symbol in symbols]
    async with candle_server() as server:
        async with live(server, symbols) as stream:
            await served(server, 2)
            for key in keys:
                server.publish(candles(0, 2, key=key))
            items = await take(stream, 200)
        assert sorted({item["instrument_id"] for item in items}) == sorted(keys)


async def test_a_slow_subscriber_with_block_is_waited_for() -> None:
    async with candle_server(kept=5_000) as server:
        server.publish(candles(0, 3_000))
        async with live(server, history=3_000, buffer=5) as stream:
            await until(lambda: stream.stats.buffered == 5, "a full buffer")
            assert shown(await take(stream, 3_000)) == list(range(1, 3_001))


@pytest.mark.parametrize("way", ["argument", "address"])
async def test_a_token_lets_one_in(way: str) -> None:
    async with candle_server(token="secret") as server:
        server.publish(candles(0))
        given = {"token": "secret"} if way == "argument" else {"transport": f"{server.url}/ws?token=secret"}
        async with live(server, **given) as stream:
            assert shown(await take(stream, 1)) == [1]
        # It is in a header, which servers do not log.
        assert "token" not in server.requests[0]


async def test_without_the_token_one_is_told_so() -> None:
    async with candle_server(token="secret") as server, live(server, token="wrong") as stream:
        with pytest.raises(ConfigError, match=r"token: .*\(401\): an unknown token"):
            await take(stream, 1)


async def test_an_unknown_channel_is_an_error() -> None:
    async with candle_server() as server, live(server, "NOBODY-USDT") as stream:
        with pytest.raises(NotFound, match="no such channel"):
            await take(stream, 1)


async def test_a_request_that_the_server_does_not_take_is_an_error() -> None:
    async with candle_server() as server:
        server.status = 400
        async with live(server) as stream:
            with pytest.raises(ConfigError, match=r"\(400\): not now"):
                await take(stream, 1)


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_server_that_cannot_now_is_tried_again(status: int) -> None:
    async with candle_server() as server:
        server.publish(candles(0))
        server.status = status
        async with live(server) as stream:
            await until(lambda: bool(stream.stats.last_error), "a failure")
            server.status = None
            assert shown(await take(stream, 1)) == [1]


async def test_a_server_that_is_not_there_is_tried_for_as_long_as_one_is_told() -> None:
    address = f"ws://127.0.0.1:{free_port()}"
    async with LiveFeatureStream(
        "BTC-USDT", exchange="binance", transport=address, timing=HASTY, retry_for_s=0.2
    ) as stream:
        with pytest.raises(SourceUnavailable, match=f"{address}: no connection for 0.2 s"):
            await take(stream, 1)


async def test_a_later_version_ends_the_stream_with_a_reason() -> None:
    async with candle_server() as server, live(server) as stream:
        await served(server)
        server.send(CHANNEL, encoded(candles(0))[0].replace(b'"v":1', b'"v":2').decode())
        with pytest.raises(SchemaMismatch, match="expected version 1"):
            await take(stream, 1)


async def test_frames_that_mean_nothing_are_counted_or_passed_over() -> None:
    async with candle_server() as server, live(server) as stream:
        await served(server)
        for frame in ("{broken", '{"type":"something new","v":1}', "[]", b"\xc1"):
            server.send(CHANNEL, frame)
        server.publish(candles(0))
        assert shown(await take(stream, 1)) == [1]
        assert stream.stats.unreadable == 3


async def test_a_way_that_stalls_is_noticed() -> None:
    async with candle_server() as server:
        port = int(server.url.rpartition(":")[2])
        async with tcp_proxy("127.0.0.1", port) as proxy:
            stream = live(server, transport=f"ws://127.0.0.1:{proxy.port}", timing=ALERT)
            async with reader(stream) as reads:
                await served(server)
                server.publish(candles(0))
                await reads.has(1)
                proxy.drop_answers = True
                server.publish(candles(1, 3))
                await until(lambda: not stream.stats.connected, "the silence is noticed")
                proxy.drop_answers = False
                await reads.has(4)
                assert reads.numbers == [1, 2, 3, 4] and reads.gaps == []


async def test_without_the_package_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "websockets.asyncio.client", None)
    async with LiveFeatureStream(BTC, transport="ws://127.0.0.1:1") as stream:
        with pytest.raises(NotInstalled, match="pip install 'websockets"):
            await take(stream, 1)


@pytest.mark.parametrize("seed", range(3))
async def test_under_any_misfortune_it_ends_with_exactly_the_candles(seed: int) -> None:
    chance = random.Random(seed)
    async with candle_server(kept=400) as server:
        port = int(server.url.rpartition(":")[2])
        async with tcp_proxy("127.0.0.1", port) as proxy:
            stream = live(server, transport=f"ws://127.0.0.1:{proxy.port}", buffer=chance.choice([3, 1_000]))
            async with reader(stream) as reads:
                await served(server)
                server.publish(candles(0))
                await reads.has(1)
                for index in range(1, 200):
                    server.publish(candles(index))
                    match chance.randrange(30):
                        case 0:
                            proxy.cut()
                        case 1:
                            server.lose = chance.randrange(1, 4)
                        case 2:
                            if server.status is None and not server.lose:
                                await reads.has(index + 1)
                        case 3:
                            server.status = None if server.status else 503
                server.status, server.lose = None, 0
                server.publish(candles(200))
                await reads.has(201)
                assert reads.numbers == list(range(1, 202)) and reads.gaps == []


async def test_a_gap_before_anything_was_seen_is_none() -> None:
    async with candle_server() as server, live(server) as stream:
        await served(server)
        server.tell("gap", CHANNEL, 1, 9)
        server.publish(candles(9))
        (candle,) = await take(stream, 1)
        assert not isinstance(candle, CandleGap) and candle.sequence == 10
        assert Timeframe.M1.value in candle.channel

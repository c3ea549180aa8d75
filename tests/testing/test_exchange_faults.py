"""Every fault of the simulated exchange does what it says, when it says, and is counted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from websockets.asyncio.client import connect

from market_data_tick_handler.core.ticks import BUY
from market_data_tick_handler.errors import ConfigError
from market_data_tick_handler.testing import ManualClock
from market_data_tick_handler.testing.exchange import (
    SILENT,
    BookBreak,
    ClockStep,
    Close,
    Cut,
    Drop,
    Duplicate,
    Fault,
    Garbage,
    Maintenance,
    Mute,
    RateLimit,
    Rates,
    Reorder,
    SimulatedExchange,
    Slow,
    Stall,
)
from tests.testing.exchange_client import START_US, Client, client_of, get
from tests.waiting import PATIENCE_S, patience, until

STREAMS = ["btcusdt@trade", "ethusdt@trade", "btcusdt@depth@100ms"]
PATH = "/stream?timeUnit=microsecond&streams=" + "/".join(STREAMS)


@contextlib.asynccontextmanager
async def opened(script: Sequence[Fault] = ()) -> AsyncIterator[tuple[SimulatedExchange, ManualClock, Client]]:
    """A silent Binance, its clock, and a client of two trade streams and a book."""
    clock = ManualClock(START_US)
    exchange = SimulatedExchange("binance", ["BTCUSDT", "ETHUSDT"], clock=clock, rates=SILENT, script=script)
    async with exchange, client_of(exchange.sockets + PATH) as client:
        await client.settle()
        yield exchange, clock, client


def trade(exchange: SimulatedExchange, count: int = 1, symbol: str = "BTCUSDT") -> None:
    for _ in range(count):
        exchange.trade(symbol, 60_000, 1, BUY)


async def numbers(client: Client) -> list[int]:
    """Numbers of the trades that came, counted from the first that was made."""
    return [message["data"]["t"] - 5_000_001 for message in await client.news() if message["stream"] == STREAMS[0]]


async def test_cut_ends_connections_without_a_close_frame_and_refuses_new_ones_for_a_time() -> None:
    async with opened() as (exchange, clock, client):
        exchange.inject(Cut(duration_s=5.0))
        await client.ended()
        assert client.socket.close_code == 1006
        for _ in range(2):
            with pytest.raises(ConnectionRefusedError):
                async with client_of(exchange.sockets + PATH):
                    raise AssertionError("connected")
            assert (await get(exchange, "/api/v3/ping")).status == 200
            await clock.advance(2.4)
        await clock.advance(1.0)
        async with client_of(exchange.sockets + PATH) as again:
            await again.settle()
            trade(exchange)
            assert await numbers(again) == [0]
    assert exchange.counters.faults == {"Cut": 1} and exchange.counters.connections == 2


async def test_a_cut_without_duration_lets_clients_come_back_at_once() -> None:
    async with opened() as (exchange, _, client):
        exchange.inject(Cut())
        await client.ended()
        async with client_of(exchange.sockets + PATH) as again:
            await again.settle()
            assert exchange.open_connections == 1


async def test_stall_says_nothing_more_not_even_pong_and_keeps_the_connection() -> None:
    async with opened() as (exchange, clock, client):
        exchange.inject(Stall())
        trade(exchange, 3)
        pong = asyncio.ensure_future(await client.socket.ping())
        await client.socket.send('{"method": "LIST_SUBSCRIPTIONS", "id": 1}')
        async with client_of(exchange.sockets + PATH) as fresh:
            await fresh.settle()
            trade(exchange)
            assert await numbers(fresh) == [3], "a new connection is alive"
        await clock.advance(30.0)
        assert not pong.done() and not client.closed.is_set() and client.inbox == []
        assert exchange.counters.withheld["Stall"] == 4
        await client.socket.close()
        await client.ended()

        async def forgotten() -> bool:
            await clock.advance(1.0)
            return exchange.open_connections == 0

        await until(forgotten)


async def test_a_lasting_stall_catches_connections_that_open_meanwhile() -> None:
    async with opened() as (exchange, clock, _):
        exchange.inject(Stall(duration_s=10.0))
        async with client_of(exchange.sockets + PATH) as during:
            await until(lambda: exchange.open_connections == 2)
            await clock.advance(11.0)
            async with client_of(exchange.sockets + PATH) as after:
                await after.settle()
                trade(exchange)
                assert await numbers(after) == [0]
            assert during.inbox == []


async def test_slow_frames_are_late_and_in_order_acknowledgements_among_them() -> None:
    async with opened() as (exchange, clock, client):
        exchange.inject(Slow(delay_s=2.0, duration_s=3.0))
        trade(exchange)
        listing = {"method": "LIST_SUBSCRIPTIONS", "id": 1}
        assert await client.ask(listing) == []
        await clock.advance(1.5)
        trade(exchange)
        assert await client.news() == []
        await clock.advance(0.5)
        [first, listed] = await client.news()
        assert first["data"]["t"] == 5_000_001 and listed["id"] == 1
        await clock.advance(1.2)
        # The delay is over, and what is sent now still waits behind what is late.
        trade(exchange)
        assert await client.news() == []
        await clock.advance(0.5)
        assert await numbers(client) == [1, 2]
        trade(exchange)
        assert await numbers(client) == [3]


async def test_garbage_is_one_unreadable_frame_more() -> None:
    async with opened() as (exchange, _, client):
        trade(exchange)
        exchange.inject(Garbage())
        exchange.inject(Garbage(form="truncated"))
        trade(exchange)
        [one, text, truncated, two] = await client.news()
    assert isinstance(text, str) and isinstance(truncated, str)
    assert truncated.startswith('{"stream":"btcusdt@trade"')
    assert (one["data"]["t"], two["data"]["t"]) == (5_000_001, 5_000_002)
    assert exchange.counters.frames["garbage"] == 2


async def test_duplicate_sends_the_last_trades_again() -> None:
    async with opened() as (exchange, _, client):
        trade(exchange, 4)
        exchange.inject(Duplicate(count=2))
        assert await numbers(client) == [0, 1, 2, 3, 2, 3]
        assert len(exchange.truth("BTCUSDT")) == 4


async def test_reorder_swaps_neighbours() -> None:
    async with opened() as (exchange, _, client):
        exchange.inject(Reorder(count=2))
        trade(exchange, 6)
        assert await numbers(client) == [1, 0, 3, 2, 4, 5]


async def test_drop_leaves_a_hole_that_rest_can_fill() -> None:
    async with opened() as (exchange, _, client):
        trade(exchange)
        exchange.inject(Drop(count=3, symbol="btcusdt"))
        trade(exchange, 2)
        trade(exchange, 1, "ETHUSDT")
        trade(exchange, 2)
        messages = await client.news()
        history = (await get(exchange, "/api/v3/historicalTrades?symbol=BTCUSDT&fromId=5000002&limit=3")).body
    came = [(message["data"]["s"], message["data"]["t"] - 5_000_001) for message in messages]
    assert came == [("BTCUSDT", 0), ("ETHUSDT", 0), ("BTCUSDT", 4)]
    assert [row["id"] - 5_000_001 for row in history] == [1, 2, 3]
    assert exchange.counters.withheld == {"Drop": 3}


async def test_book_break_leaves_out_one_update() -> None:
    async with opened() as (exchange, _, client):
        exchange.inject(BookBreak())
        updates = []
        for price in (59_000, 58_000, 57_000):
            exchange.set_level("BTCUSDT", 1, price, 1)
            exchange.publish_book("BTCUSDT")
            updates += await client.news()
    assert [update["data"]["b"][0][0][:5] for update in updates] == ["58000", "57000"]
    assert updates[0]["data"]["u"] + 1 == updates[1]["data"]["U"]
    assert exchange.counters.withheld == {"BookBreak": 1}


async def test_mute_silences_one_kind_of_data_while_the_others_go_on() -> None:
    async with opened() as (exchange, clock, client):
        exchange.inject(Mute(kind="trades", symbol="BTCUSDT", duration_s=4.0))
        trade(exchange, 2)
        trade(exchange, 1, "ETHUSDT")
        exchange.set_level("BTCUSDT", 1, 59_000, 1)
        exchange.publish_book("BTCUSDT")
        assert [message["stream"] for message in await client.news()] == ["ethusdt@trade", "btcusdt@depth@100ms"]
        await clock.advance(5.0)
        trade(exchange)
        assert await numbers(client) == [2]
    assert exchange.counters.withheld == {"Mute": 2}


@pytest.mark.parametrize("status", [418, 429])
async def test_rate_limit_refuses_calls_and_handshakes_and_says_for_how_long(status: Any) -> None:
    async with opened() as (exchange, clock, client):
        exchange.inject(RateLimit(status=status, duration_s=30.0))
        reply = await get(exchange, "/api/v3/depth?symbol=BTCUSDT")
        assert (reply.status, reply.headers["Retry-After"], reply.body["code"]) == (status, "30", -1003)
        with pytest.raises(Exception, match=str(status)):
            async with client_of(exchange.sockets + PATH):
                raise AssertionError("connected")
        trade(exchange)
        assert await numbers(client) == [0], "connections that are open stay"
        await clock.advance(30.0)
        assert (await get(exchange, "/api/v3/depth?symbol=BTCUSDT")).status == 200
    assert exchange.counters.refused == 1


async def test_rate_limit_may_be_for_one_of_the_two_and_name_another_time() -> None:
    async with opened() as (exchange, _, _client):
        exchange.inject(RateLimit(where="handshake", retry_after_s=7))
        assert (await get(exchange, "/api/v3/ping")).status == 200
        await exchange.heal()
        exchange.inject(RateLimit(where="rest", retry_after_s=7))
        reply = await get(exchange, "/api/v3/ping")
        assert (reply.status, reply.headers["Retry-After"]) == (429, "7")
        async with client_of(exchange.sockets + PATH) as other:
            await other.settle()


async def test_close_has_a_code_and_a_reason() -> None:
    async with opened() as (exchange, _, client):
        exchange.inject(Close(code=1012, reason="restart"))
        await client.ended()
        assert (client.socket.close_code, client.socket.close_reason) == (1012, "restart")
    assert exchange.counters.ended == {"Close": 1}


async def test_a_client_that_does_not_answer_a_close_frame_is_cut() -> None:
    clock = ManualClock(START_US)
    exchange = SimulatedExchange("binance", ["BTCUSDT"], clock=clock, rates=SILENT)
    async with exchange:
        port = int(exchange.sockets.rsplit(":", 1)[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        key = "AAAAAAAAAAAAAAAAAAAAAA=="
        writer.write(
            f"GET /stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        await until(lambda: exchange.open_connections == 1)
        exchange.inject(Close(code=1001))
        await clock.advance(7.0)
        async with patience("the end of the connection"):
            with contextlib.suppress(ConnectionResetError):
                await reader.read()
        await until(lambda: exchange.open_connections == 0)
        writer.close()
        with contextlib.suppress(ConnectionResetError):
            await writer.wait_closed()


async def test_clock_step_moves_the_timestamps_of_the_exchange_for_a_time() -> None:
    async with opened() as (exchange, clock, client):
        exchange.inject(ClockStep(step_us=-5_000_000, duration_s=10.0))
        trade(exchange)
        await clock.advance(11.0)
        trade(exchange)
        stamps = [message["data"]["T"] for message in await client.news()]
    assert stamps == [START_US - 5_000_000, START_US + 11_000_000]
    assert exchange.truth("BTCUSDT")["timestamp"].tolist() == stamps


@pytest.mark.parametrize(
    ("name", "symbol", "path", "part"),
    [
        ("binance", "BTCUSDT", "/stream", {"e": "serverShutdown"}),
        ("okex", "BTC-USDT", "/ws/v5/business", {"event": "notice", "code": "64008"}),
        ("deribit", "BTC-PERPETUAL", "/ws/api/v2", {"method": "subscription"}),
    ],
)
async def test_maintenance_is_announced_in_the_venue_s_words(
    name: str, symbol: str, path: str, part: dict[str, Any]
) -> None:
    exchange = SimulatedExchange(name, [symbol], clock=ManualClock(START_US), rates=SILENT)
    async with exchange, client_of(exchange.sockets + path) as client:
        await client.settle()
        exchange.inject(Maintenance())
        [message] = await client.news()
    assert part.items() <= message.items()


@pytest.mark.parametrize("name", ["binance-futures", "bybit", "bybit-spot"])
def test_maintenance_of_a_venue_that_announces_none_is_an_error(name: str) -> None:
    with pytest.raises(ConfigError, match="announces no maintenance"):
        SimulatedExchange(name, ["BTCUSDT"], clock=ManualClock(START_US), script=[Maintenance(at_s=1.0)])


async def test_a_script_runs_by_the_clock() -> None:
    script = [Garbage(at_s=3.0), Mute(kind="trades", at_s=5.0, duration_s=2.0), Cut(at_s=10.0)]
    async with opened(script) as (exchange, clock, client):
        seen = []
        for second in range(10):
            trade(exchange)
            if any(isinstance(message, str) for message in await client.news()):
                seen.append(second)
            await clock.advance(1.0)
        await client.ended()
    assert seen == [3]
    assert exchange.counters.faults == {"Garbage": 1, "Mute": 1, "Cut": 1}
    assert exchange.counters.withheld == {"Mute": 2}


async def test_heal_ends_what_lasts() -> None:
    async with opened() as (exchange, _, client):
        exchange.inject(Mute(kind="trades"))
        exchange.inject(ClockStep(step_us=1_000_000))
        exchange.inject(Cut(duration_s=None))
        await client.ended()
        await exchange.heal()
        async with client_of(exchange.sockets + PATH) as again:
            await again.settle()
            trade(exchange)
            [message] = await again.news()
            assert message["data"]["T"] == START_US


def test_faults_refuse_negative_times() -> None:
    with pytest.raises(ValueError, match="0 or more"):
        Cut(duration_s=-1.0)
    with pytest.raises(ValueError, match="0 or more"):
        Rates(orders=-1.0)


async def test_a_client_that_reads_nothing_is_thrown_out() -> None:
    clock = ManualClock(START_US)
    exchange = SimulatedExchange("binance", ["BTCUSDT"], clock=clock, rates=SILENT)
    async with (
        exchange,
        connect(
            exchange.sockets + PATH, open_timeout=PATIENCE_S, ping_interval=None, max_queue=1, close_timeout=0.1
        ) as socket,
    ):
        await (await socket.ping())
        big = [(60_000.0 + step / 100, 1.0) for step in range(20_000)]
        for _ in range(40):
            exchange.order("BTCUSDT", big, BUY)
            if exchange.counters.overflows:
                break
        assert exchange.counters.overflows == 1
        await until(lambda: exchange.open_connections == 0)

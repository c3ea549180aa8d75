"""Addresses of services and of Redis, and what is said of those where nobody answers, or somebody else does."""

from __future__ import annotations

import asyncio

import pytest

from market_data_tick_handler.commands.watch_place import RedisPlaceOfCandles, ServicePlace, make_place
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.errors import ConfigError, MarketDataError, NotFound, SchemaMismatch, SourceUnavailable
from tests.commands.watched import BTC, ETH
from tests.servers.ports import free_port
from tests.servers.redis_server import redis_server
from tests.streaming_service.serving.serving_world import NOW_US, Said, world


@pytest.mark.parametrize(
    ("address", "name", "transport"),
    [
        ("localhost:8080", "http://localhost:8080", "ws://localhost:8080/ws"),
        ("http://host:8080/", "http://host:8080", "ws://host:8080/ws"),
        ("ws://host:8080/ws", "http://host:8080", "ws://host:8080/ws"),
        ("HTTPS://host/md", "https://host/md", "wss://host/md/ws"),
        ("wss://host/md/ws", "https://host/md", "wss://host/md/ws"),
        ("http://[::1]:8080", "http://[::1]:8080", "ws://[::1]:8080/ws"),
    ],
)
def test_one_address_means_the_pages_and_the_socket_of_a_service(address: str, name: str, transport: str) -> None:
    place = make_place(address)
    assert isinstance(place, ServicePlace)
    assert (place.name, place.transport) == (name, transport)


def test_a_token_in_the_address_is_used_and_not_shown() -> None:
    place = make_place("http://host:8080/?token=secret")
    assert place.token == "secret"
    assert "secret" not in place.name + place.transport


@pytest.mark.parametrize("scheme", ["redis", "rediss", "redis+cluster", "redis+sentinel"])
def test_addresses_of_redis_are_shown_without_their_password(scheme: str) -> None:
    place = make_place(f"{scheme}://user:password@host:6380/0")
    assert isinstance(place, RedisPlaceOfCandles)
    assert place.name == "redis host:6380"


@pytest.mark.parametrize("address", ["ftp://host", "http://", "http://host:none", "redis+sentinel://host"])
def test_what_is_no_address_is_a_configuration_error(address: str) -> None:
    with pytest.raises(ConfigError):
        make_place(address)


def test_certificates_that_are_not_there_are_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="certificates"):
        make_place("https://host", ca_file="/nowhere/ca.pem")


async def test_a_service_says_what_it_has_and_how_it_is() -> None:
    health = {"status": "ok", "service_time_us": NOW_US, "blind": [f"{BTC}/trades"]}
    health["data_types"] = {"trades": {"instruments": {BTC: {"status": "stale", "required": True, "gaps": 1}}}}
    async with world(said=Said(health=health), timeframes=(Timeframe.M5, Timeframe.S15)) as served:
        place = make_place(served.url)
        assert await place.find() == dict.fromkeys((BTC, ETH), (Timeframe.S15, Timeframe.M5))
        assert await place.health() == health
        (alert,) = await place.alerts()
        assert (alert.name, alert.is_critical, alert.subject) == ("StreamBlind", True, f"{BTC}/trades")


async def test_a_service_beyond_this_machine_asks_for_its_token() -> None:
    async with world(host="0.0.0.0", token="secret") as served:
        assert list(await make_place(served.url, token="secret").find()) == [BTC, ETH]
        for token in ("", "wrong"):
            with pytest.raises(ConfigError, match=r"--token: .*refused"):
                await make_place(served.url, token=token).find()


async def test_where_nobody_listens_it_is_said_what_to_do() -> None:
    with pytest.raises(SourceUnavailable, match=r"no service answers at .*tick-handler serve"):
        await make_place(f"127.0.0.1:{free_port()}").find()
    with pytest.raises(SourceUnavailable, match="no answer from redis"):
        await make_place(f"redis://127.0.0.1:{free_port()}").find()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", NotFound),
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy", SourceUnavailable),
        (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 15\r\n\r\n{\"error\": \"no\"}", SchemaMismatch),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n", SchemaMismatch),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>", SchemaMismatch),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", SchemaMismatch),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", SchemaMismatch),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\n{\"instruments\": [\"x\"]}", SchemaMismatch),
        (b"+PONG\r\n", SourceUnavailable),
        (b"", SourceUnavailable),
    ],
)  # fmt: skip
async def test_whatever_else_answers_there_is_a_typed_error(answer: bytes, error: type[MarketDataError]) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        with pytest.raises(error):
            await make_place(f"127.0.0.1:{server.sockets[0].getsockname()[1]}").find()


async def test_series_are_found_in_redis_among_whatever_else_is_there() -> None:
    with redis_server() as server:
        for name in (f"candles:{BTC}:1m", f"candles:{BTC}:15s", f"candles:{ETH}:5m", "candles:of-somebody-else"):
            server.command("XADD", name, "1-0", "json", "{}")
        server.command("SET", f"candles:{ETH}:1h", "no stream")
        place = make_place(server.url)
        assert await place.find() == {BTC: (Timeframe.S15, Timeframe.M1), ETH: (Timeframe.M5,)}
        assert await place.health() is None and await place.alerts() == []


async def test_a_redis_that_does_not_let_us_in_is_a_configuration_error() -> None:
    with redis_server(acl={"reader": "on >secret ~candles:* &* +@read"}) as server:
        place = make_place(server.url_as("reader", "wrong"))
        with pytest.raises(ConfigError, match="refused"):
            await place.find()

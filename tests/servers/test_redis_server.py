"""The server of the tests does what tests ask of it: else they would prove nothing."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from tests.servers.ports import HOST, free_port
from tests.servers.redis_server import RedisServer, redis_server
from tests.servers.tcp_proxy import tcp_proxy
from tests.waiting import PATIENCE_S, patience, until


def entries(server: RedisServer) -> int:
    with server.client() as client:
        return int(client.xlen("a stream"))


def test_a_killed_server_comes_back_on_its_port_with_what_it_acknowledged() -> None:
    with redis_server() as server:
        server.command("XADD", "a stream", "1-0", "field", "value")
        port = server.port
        server.kill()
        with pytest.raises(redis.ConnectionError):
            server.command("PING")
        server.start()
        assert (server.port, entries(server)) == (port, 1)
        server.restart(keep_data=True, kill=False)
        assert entries(server) == 1
        server.restart(keep_data=False)
        assert entries(server) == 0


def test_a_server_listens_where_it_is_told() -> None:
    port = free_port()
    with redis_server(port=port) as server:
        assert server.url == f"redis://{HOST}:{port}/0"


def test_only_clients_that_trust_the_authority_speak_with_a_tls_server() -> None:
    with redis_server(tls=True) as server:
        assert server.command("PING")
        stranger = redis.Redis.from_url(server.url.partition("?")[0])
        with pytest.raises(redis.ConnectionError, match="certificate"), stranger:
            stranger.ping()
        server.restart(keep_data=True)
        assert server.command("PING")


def test_users_may_do_what_their_rules_say() -> None:
    with redis_server(acl={"reader": "on >secret ~candles:* +get"}) as server:
        with redis.Redis.from_url(server.url_as("reader", "secret")) as reader:
            assert reader.get("candles:x") is None
            with pytest.raises(redis.exceptions.NoPermissionError):
                reader.set("candles:x", "1")
        with pytest.raises(redis.AuthenticationError), redis.Redis(port=server.port) as nobody:
            nobody.ping()


def test_a_frozen_server_answers_once_it_thaws() -> None:
    with redis_server() as server:
        server.freeze()
        impatient = redis.Redis.from_url(server.url, socket_timeout=0.05, retry=None)
        with pytest.raises(redis.TimeoutError), impatient:
            impatient.ping()
        server.thaw()
        assert server.command("PING")


async def test_the_proxy_loses_as_many_messages_as_it_is_told_and_no_others() -> None:
    async with AsyncExitStack() as stack:
        server = stack.enter_context(redis_server())
        proxy = await stack.enter_async_context(tcp_proxy(HOST, server.port))
        client = await stack.enter_async_context(redis.asyncio.Redis(port=proxy.port))
        subscriber = await stack.enter_async_context(client.pubsub(ignore_subscribe_messages=True))
        await subscriber.subscribe("channel")
        await subscriber.get_message(timeout=PATIENCE_S)
        proxy.drop_messages = 2
        with server.client() as publisher:
            for number in range(5):
                publisher.publish("channel", f"{number}" * 50_000)
        heard: list[bytes] = []
        async with patience("three messages"):
            while len(heard) < 3:
                message = await subscriber.get_message(timeout=PATIENCE_S)
                heard += [message["data"][:1]] if message else []
        assert heard == [b"2", b"3", b"4"]
        assert proxy.lost_messages == 2


async def test_the_proxy_swallows_answers_cuts_and_refuses() -> None:
    with redis_server() as server:
        async with tcp_proxy(HOST, server.port) as proxy:
            client = redis.asyncio.Redis(port=proxy.port, socket_timeout=PATIENCE_S, retry=Retry(NoBackoff(), 0))
            async with client:
                assert await client.set("key", "before")
                proxy.drop_answers = True
                unanswered: asyncio.Future[Any] = asyncio.ensure_future(client.set("key", "answer lost"))
                await until(lambda: proxy.lost_answer_bytes, "an answer that is swallowed")
                assert server.command("GET", "key") == b"answer lost"
                assert not unanswered.done()
                proxy.drop_answers = False
                proxy.cut()
                proxy.refuse = True
                with pytest.raises(redis.ConnectionError):
                    await unanswered
                with pytest.raises(redis.ConnectionError):
                    await client.set("key", "never sent")
                assert server.command("GET", "key") == b"answer lost"

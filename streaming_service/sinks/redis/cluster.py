"""Round trips to a cluster, whose servers each hold some of the series."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.exceptions import ConnectionError, RedisClusterException, RedisError, ResponseError

from market_data_tick_handler.wire.redis_urls import RedisAddress
from streaming_service.sinks.redis.link import Command

# These go to any server, which passes messages on to the others.
_KEYLESS: Final = frozenset({b"PUBLISH", b"PING"})


class ClusterLink:
    """A cluster. Its servers know nothing of each other's round trips, so nothing is carried out as a whole."""

    all_or_none = False

    def __init__(self, address: RedisAddress, options: dict[str, Any], *, timeout_s: float) -> None:
        kept = {name: value for name, value in options.items() if name not in ("host", "port", "db")}
        self._timeout_s = timeout_s
        self._nodes = address.hosts
        self._options = {**kept, "ssl": address.tls, "socket_timeout": timeout_s}
        self._client: RedisCluster | None = None

    @property
    def connected(self) -> bool:
        return self._client is not None

    async def connect(self) -> None:
        await self.disconnect()
        client = RedisCluster(startup_nodes=[ClusterNode(host, port) for host, port in self._nodes], **self._options)
        try:
            async with asyncio.timeout(2 * self._timeout_s):
                await client.initialize()
        except BaseException:
            await _close(client)
            raise
        self._client = client

    async def call(self, commands: Sequence[Command]) -> list[Any]:
        if self._client is None:
            raise ConnectionError("not connected")
        pipeline = self._client.pipeline()
        for command in commands:
            anywhere = {"target_nodes": self._client.get_default_node()} if command[0] in _KEYLESS else {}
            pipeline.execute_command(*_named(command), **anywhere)
        async with asyncio.timeout(self._timeout_s):
            answers: list[Any] = await pipeline.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, Exception) and not isinstance(answer, ResponseError):
                raise answer
        return answers

    async def call_together(self, commands: Sequence[Command]) -> list[Any]:
        return await self.call(commands)

    async def disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await _close(client)

    async def aclose(self) -> None:
        await self.disconnect()


def _named(command: Command) -> tuple[str | bytes, ...]:
    """With the name as the cluster's client knows it, which goes by it to find the key."""
    words = 2 if command[0] == b"XINFO" else 1
    return (b" ".join(command[:words]).decode(), *command[words:])


async def _close(client: RedisCluster) -> None:
    with suppress(RedisError, RedisClusterException, OSError, TimeoutError):
        await client.aclose()
    # A client that failed counts itself as closed, whatever connections it has.
    for nodes in ("nodes_cache", "startup_nodes"):
        with suppress(RedisError, OSError, TimeoutError):
            await client.nodes_manager.aclose(nodes)

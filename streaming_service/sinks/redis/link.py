"""Round trips to Redis: commands go out together, answers come back in their order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.connection import AbstractConnection, Connection, ConnectionPool, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, ExecAbortError, RedisError, ResponseError

from market_data_tick_handler.errors import ConfigError
from market_data_tick_handler.wire.redis_urls import RedisAddress, RedisMode

Command = tuple[bytes, ...]

_MULTI: Final = b"*1\r\n$5\r\nMULTI\r\n"
_EXEC: Final = b"*1\r\n$4\r\nEXEC\r\n"
# The sink repeats by itself, in order and with its own limits.
_NO_RETRY: Final = Retry(NoBackoff(), 0)


class Link(Protocol):
    """A way to Redis. After an exception that is no answer of the server, what was sent may have been carried out."""

    all_or_none: bool
    """Whether `call_together` is carried out whole or not at all."""

    @property
    def connected(self) -> bool: ...

    async def connect(self) -> None: ...

    async def call(self, commands: Sequence[Command]) -> list[Any]:
        """One answer per command; an error that the server answers stands in its place."""
        ...

    async def call_together(self, commands: Sequence[Command]) -> list[Any]:
        """As `call`. With `all_or_none`, an answer that refuses the whole is raised."""
        ...

    async def disconnect(self) -> None: ...

    async def aclose(self) -> None: ...


def make_link(address: RedisAddress, *, timeout_s: float) -> Link:
    """The way to what stands behind an address; no connection yet.

    Raises:
        ConfigError: an option in the address has no meaning.
    """
    try:
        options: dict[str, Any] = dict(parse_url(address.server_url))
        connection_class = options.pop("connection_class", Connection)
        # Every round trip has one deadline of its own; one more per answer costs more than the answer.
        options |= {"socket_timeout": None, "socket_connect_timeout": timeout_s, "retry": _NO_RETRY, "protocol": 2}
        if address.mode is RedisMode.CLUSTER:
            return ClusterLink(address, options, timeout_s=timeout_s)
        if address.mode is RedisMode.SENTINEL:
            return DirectLink(_sentinel_pool(address, options), timeout_s=timeout_s)
        connection_class(**options)  # raises on an option it does not know
        return DirectLink(ConnectionPool(connection_class, **options), timeout_s=timeout_s)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"not an address of Redis: {error}", key="serve.redis_url") from error


def _sentinel_pool(address: RedisAddress, options: dict[str, Any]) -> ConnectionPool:
    del options["host"], options["port"]
    shared = {name: value for name, value in options.items() if name.startswith(("socket_", "ssl_", "retry"))}
    for name in ("username", "password"):
        # The sentinels have users of their own.
        if f"sentinel_{name}" in options:
            shared[name] = options.pop(f"sentinel_{name}")
    shared |= {"ssl": address.tls, "socket_timeout": options["socket_connect_timeout"]}
    sentinel = Sentinel(list(address.hosts), sentinel_kwargs=shared, **options)  # type: ignore[no-untyped-call]
    pool: ConnectionPool = sentinel.master_for(address.service, ssl=address.tls).connection_pool
    return pool


def frame(command: Command) -> list[bytes]:
    """A command as the protocol writes it, in pieces, so that large values are not copied on the way."""
    pieces = [b"*%d\r\n" % len(command)]
    for argument in command:
        pieces += (b"$%d\r\n" % len(argument), argument, b"\r\n")
    return pieces


class DirectLink:
    """One connection of its own, to a single server or to the master that sentinels name."""

    all_or_none = True

    def __init__(self, pool: ConnectionPool, *, timeout_s: float) -> None:
        self._pool = pool
        self._timeout_s = timeout_s
        self._connection: AbstractConnection | None = None

    @property
    def connected(self) -> bool:
        return self._connection is not None and self._connection.is_connected

    async def connect(self) -> None:
        await self.disconnect()
        connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        self._connection = connection
        async with asyncio.timeout(2 * self._timeout_s):
            await connection.connect()  # type: ignore[no-untyped-call]

    async def call(self, commands: Sequence[Command]) -> list[Any]:
        pieces = [piece for command in commands for piece in frame(command)]
        return await self._exchange(pieces, len(commands))

    async def call_together(self, commands: Sequence[Command]) -> list[Any]:
        pieces = [_MULTI, *(piece for command in commands for piece in frame(command)), _EXEC]
        *queued, executed = await self._exchange(pieces, len(commands) + 2)
        if isinstance(executed, list):
            return executed
        # The first refusal says more than that the whole was given up.
        refused = [answer for answer in queued if isinstance(answer, ResponseError)]
        if isinstance(executed, ExecAbortError) and refused:
            raise refused[0]
        raise (
            executed
            if isinstance(executed, RedisError)
            else ConnectionError(f"unexpected answer to EXEC: {executed!r}")
        )

    async def disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(RedisError, OSError, TimeoutError):
                await connection.disconnect(nowait=True)

    async def aclose(self) -> None:
        await self.disconnect()
        await self._pool.disconnect()
        sentinels = getattr(self._pool, "sentinel_manager", None)
        for client in getattr(sentinels, "sentinels", ()):
            await _close(client)

    async def _exchange(self, pieces: list[bytes], answers: int) -> list[Any]:
        connection = self._connection
        if connection is None or not connection.is_connected:
            raise ConnectionError("not connected")
        async with asyncio.timeout(self._timeout_s):
            await connection.send_packed_command(pieces, check_health=False)
            return [await _answer(connection) for _ in range(answers)]


async def _answer(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response(disable_decoding=True, disconnect_on_error=False)
    except ConnectionError:
        raise
    except ResponseError as refused:
        return refused


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
        nodes = [ClusterNode(host, port) for host, port in self._nodes]
        client = RedisCluster(startup_nodes=nodes, **self._options)
        try:
            async with asyncio.timeout(2 * self._timeout_s):
                await client.initialize()
        except BaseException:
            await client.aclose()
            raise
        self._client = client

    async def call(self, commands: Sequence[Command]) -> list[Any]:
        if self._client is None:
            raise ConnectionError("not connected")
        async with asyncio.timeout(self._timeout_s):
            return await self._pipelined(self._client, commands)

    async def call_together(self, commands: Sequence[Command]) -> list[Any]:
        return await self.call(commands)

    async def disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await _close(client)
            # A client that failed counts itself as closed, whatever connections it has.
            for nodes in ("nodes_cache", "startup_nodes"):
                with suppress(RedisError, OSError, TimeoutError):
                    await client.nodes_manager.aclose(nodes)

    async def aclose(self) -> None:
        await self.disconnect()

    async def _pipelined(self, client: RedisCluster, commands: Sequence[Command]) -> list[Any]:
        """Commands on keys go to their servers in one round trip each; messages to any, as all pass them on."""
        keyed = [place for place, command in enumerate(commands) if command[0] not in _KEYLESS]
        pipeline = client.pipeline()
        for place in keyed:
            pipeline.execute_command(*_named(commands[place]))
        answers: list[Any] = [None] * len(commands)
        if keyed:
            for place, answer in zip(keyed, await pipeline.execute(raise_on_error=False), strict=True):
                answers[place] = answer
        rest = [place for place, command in enumerate(commands) if command[0] in _KEYLESS]
        for place in rest:
            answers[place] = await _tolerated(client, commands[place])
        broken = [answer for answer in answers if isinstance(answer, ConnectionError | OSError | TimeoutError)]
        if broken:
            raise broken[0]
        return answers


_KEYLESS: Final = frozenset({b"PUBLISH", b"PING"})


def _named(command: Command) -> tuple[str | bytes, ...]:
    """With the name as the cluster's client knows it, which goes by it to find the key."""
    words = 2 if command[0] == b"XINFO" else 1
    return (b" ".join(command[:words]).decode(), *command[words:])


async def _tolerated(client: RedisCluster, command: Command) -> Any:
    try:
        return await client.execute_command(*_named(command))
    except ResponseError as refused:
        return refused


async def _close(client: Redis | RedisCluster) -> None:
    with suppress(RedisError, OSError, TimeoutError):
        await client.aclose()

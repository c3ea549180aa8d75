"""Round trips to Redis: commands go out together, answers come back in their order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain
from typing import Any, Final, Protocol

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
# Options of redis-py's pools; the sink has one connection.
_OF_POOLS: Final = ("max_connections", "timeout")
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
        for name in _OF_POOLS:
            options.pop(name, None)
        # Every round trip has one deadline of its own; one more per answer costs more than the answer.
        options |= {"socket_timeout": None, "socket_connect_timeout": timeout_s, "retry": _NO_RETRY, "protocol": 2}
        if address.mode is RedisMode.CLUSTER:
            from streaming_service.sinks.redis.cluster import ClusterLink

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


def frame(command: Command) -> tuple[bytes, bytes, bytes]:
    """A command as the protocol writes it, in pieces: what is long comes last and is not copied."""
    *short, last = command
    head = [b"*%d\r\n" % len(command), *(b"$%d\r\n%b\r\n" % (len(part), part) for part in short)]
    head.append(b"$%d\r\n" % len(last))
    return b"".join(head), last, b"\r\n"


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
        return await self._exchange(list(chain.from_iterable(map(frame, commands))), len(commands))

    async def call_together(self, commands: Sequence[Command]) -> list[Any]:
        pieces = [_MULTI, *chain.from_iterable(map(frame, commands)), _EXEC]
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
            with suppress(RedisError, OSError, TimeoutError):
                await client.aclose()

    async def _exchange(self, pieces: list[bytes], answers: int) -> list[Any]:
        connection = self._connection
        if connection is None or not connection.is_connected:
            raise ConnectionError("not connected")
        async with asyncio.timeout(self._timeout_s):
            await connection.send_packed_command(pieces, check_health=False)
            return await _read(connection, answers)


async def _read(connection: AbstractConnection, count: int) -> list[Any]:
    answers: list[Any] = []
    while len(answers) < count:
        try:
            answers.append(await connection.read_response(disable_decoding=True, disconnect_on_error=False))
        except ConnectionError:
            raise
        except ResponseError as refused:
            answers.append(refused)
    return answers

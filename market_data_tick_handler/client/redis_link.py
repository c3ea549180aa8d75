"""Connections of a reader to Redis: one that listens, one that asks; to one server, through sentinels, to a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, Protocol

from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.connection import AbstractConnection, Connection, ConnectionPool, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    NoPermissionError,
    RedisClusterException,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError

from market_data_tick_handler.client.certificates import causes, untrusted
from market_data_tick_handler.errors import ConfigError, MarketDataError, SourceError
from market_data_tick_handler.wire.redis_urls import RedisAddress, RedisMode

Command = tuple[bytes, ...]
# What a connection may end with; redis-py counts errors of clusters among none of its own.
FAILURES: Final = (RedisError, RedisClusterException, OSError, TimeoutError)
_NO_RETRY: Final = Retry(NoBackoff(), 0)
# Answers that may be different later, by the first word.
_TEMPORARY: Final = frozenset(
    {"LOADING", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "MOVED", "ASK", "READONLY", "UNKILLABLE", "OOM"}
)
_DENIED: Final = frozenset({"NOPERM", "NOAUTH", "WRONGPASS"})
# On keys and channels `candles:*` and `marks:*`.
RIGHTS: Final = "SUBSCRIBE, PSUBSCRIBE, PING, XRANGE, XREVRANGE, EXISTS and SCAN"
_SCANNED: Final = b"1000"
_MOST_SCANS: Final = 1_000


class Asking(Protocol):
    """A way to ask."""

    async def call(self, commands: Sequence[Command]) -> list[Any]:
        """One answer per command; a refusal is raised."""
        ...

    async def streams(self, pattern: str, most: int) -> list[str]:
        """Names of streams that match, `most` at most."""
        ...


class Line:
    """One connection of its own."""

    def __init__(self, connection: AbstractConnection, timeout_s: float) -> None:
        self._connection = connection
        self._timeout_s = timeout_s

    async def call(self, commands: Sequence[Command]) -> list[Any]:
        async with asyncio.timeout(self._timeout_s):
            await self.send(commands)
            answers = [await self._answer() for _ in commands]
        for answer in answers:
            if isinstance(answer, ResponseError):
                raise answer
        return answers

    async def streams(self, pattern: str, most: int) -> list[str]:
        found: list[str] = []
        cursor = b"0"
        for _ in range(_MOST_SCANS):
            command = (b"SCAN", cursor, b"MATCH", pattern.encode(), b"COUNT", _SCANNED, b"TYPE", b"stream")
            ((cursor, names),) = await self.call([command])
            found += [name.decode() for name in names]
            if cursor == b"0" or len(found) >= most:
                break
        return list(dict.fromkeys(found))[:most]

    async def send(self, commands: Sequence[Command]) -> None:
        """Ask, without waiting for the answers."""
        pieces: list[bytes] = []
        for command in commands:
            pieces.append(b"*%d\r\n" % len(command))
            for argument in command:
                pieces += (b"$%d\r\n" % len(argument), argument, b"\r\n")
        await self._connection.send_packed_command([b"".join(pieces)], check_health=False)

    async def read(self) -> Any:
        """What comes next, whenever it comes."""
        return await self._connection.read_response(disable_decoding=True, disconnect_on_error=False)

    async def close(self) -> None:
        """Let go of it."""
        with suppress(*FAILURES):
            await self._connection.disconnect(nowait=True)

    async def _answer(self) -> Any:
        try:
            return await self.read()
        except RedisConnectionError:
            raise
        except ResponseError as refused:
            return refused


class ClusterAsking:
    """Asks whichever server of a cluster knows."""

    def __init__(self, client: RedisCluster, timeout_s: float) -> None:
        self._client = client
        self._timeout_s = timeout_s

    async def call(self, commands: Sequence[Command]) -> list[Any]:
        pipeline = self._client.pipeline()
        for command in commands:
            pipeline.execute_command(command[0].decode(), *command[1:])
        async with asyncio.timeout(self._timeout_s):
            answers: list[Any] = await pipeline.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    async def streams(self, pattern: str, most: int) -> list[str]:
        found: list[str] = []
        async with asyncio.timeout(self._timeout_s):
            async for name in self._client.scan_iter(match=pattern, count=int(_SCANNED), _type="stream"):
                found.append(name.decode())
                if len(found) >= most:
                    break
        return found


class RedisPlace:
    """What stands behind an address, to be connected to as often as needed.

    Raises:
        ConfigError: an option in the address has no meaning.
    """

    def __init__(self, address: RedisAddress, *, timeout_s: float) -> None:
        self._address = address
        self._timeout_s = timeout_s
        try:
            options: dict[str, Any] = dict(parse_url(address.server_url))
            self._kind: type[AbstractConnection] = options.pop("connection_class", Connection)
            # Round trips have one deadline each; one more per answer costs more than the answer.
            options |= {"socket_timeout": None, "socket_connect_timeout": timeout_s, "retry": _NO_RETRY, "protocol": 2}
            self._options = options
            if address.mode is not RedisMode.SENTINEL:
                self._kind(**options)  # raises on an option it does not know
        except (TypeError, ValueError) as error:
            raise ConfigError(f"not an address of Redis: {error}", key="transport") from error

    @property
    def name(self) -> str:
        """The address without its password."""
        return "redis " + ",".join(f"{host}:{port}" for host, port in self._address.hosts)

    @asynccontextmanager
    async def connect(self, *, attempt: int = 0) -> AsyncIterator[tuple[Line, Asking]]:
        """A connection to listen on and one to ask on. attempt: which try it is; a cluster is listened to at another
        server each time, as all pass messages on."""
        if self._address.mode is RedisMode.CLUSTER:
            async with self._cluster(attempt) as ways:
                yield ways
            return
        pool = self._sentinel_pool() if self._address.mode is RedisMode.SENTINEL else None
        lines: list[Line] = []
        try:
            for _ in range(2):
                lines.append(await self._line(self._kind(**self._options) if pool is None else pool.make_connection()))  # type: ignore[no-untyped-call]
            yield lines[0], lines[1]
        finally:
            for line in lines:
                await line.close()
            if pool is not None:
                for client in getattr(getattr(pool, "sentinel_manager", None), "sentinels", ()):
                    with suppress(*FAILURES):
                        await client.aclose()

    async def _line(self, connection: AbstractConnection) -> Line:
        try:
            async with asyncio.timeout(2 * self._timeout_s):
                await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException:
            with suppress(*FAILURES):
                await connection.disconnect(nowait=True)
            raise
        return Line(connection, self._timeout_s)

    @asynccontextmanager
    async def _cluster(self, attempt: int) -> AsyncIterator[tuple[Line, Asking]]:
        hosts = self._address.hosts
        shared = {name: value for name, value in self._options.items() if name not in ("host", "port", "db")}
        nodes = [ClusterNode(host, port) for host, port in hosts]
        kept = {**shared, "ssl": self._address.tls, "socket_timeout": self._timeout_s}
        client = RedisCluster(startup_nodes=nodes, **kept)
        try:
            async with asyncio.timeout(2 * self._timeout_s):
                await client.initialize()
            host, port = hosts[attempt % len(hosts)]
            line = await self._line(self._kind(**{**self._options, "host": host, "port": port}))
            try:
                yield line, ClusterAsking(client, self._timeout_s)
            finally:
                await line.close()
        finally:
            with suppress(*FAILURES):
                await client.aclose()

    def _sentinel_pool(self) -> ConnectionPool:
        address = self._address
        options = {name: value for name, value in self._options.items() if name not in ("host", "port")}
        shared = {name: value for name, value in options.items() if name.startswith(("socket_", "ssl_", "retry"))}
        for name in ("username", "password"):
            # The sentinels have users of their own.
            if f"sentinel_{name}" in options:
                shared[name] = options.pop(f"sentinel_{name}")
        shared |= {"ssl": address.tls, "socket_timeout": self._timeout_s}
        sentinel = Sentinel(list(address.hosts), sentinel_kwargs=shared, **options)  # type: ignore[no-untyped-call]
        pool: ConnectionPool = sentinel.master_for(address.service, ssl=address.tls).connection_pool
        return pool


def lasting_error(error: BaseException, place: str) -> MarketDataError | None:
    """What never works, as an error that says so; None for what may work at the next try."""
    if (found := untrusted(error, place, "rediss://...?ssl_ca_certs=/path/ca.pem")) is not None:
        return found
    for cause in causes(error):
        denied = isinstance(cause, AuthenticationError | AuthorizationError | NoPermissionError)
        if denied or str(cause).partition(" ")[0] in _DENIED:
            return ConfigError(
                f"{place}: expected a user who may subscribe and read streams, was refused: {cause}",
                key="transport",
                hint="redis://user:password@host; it needs " + RIGHTS,
            )
    word = str(error).partition(" ")[0]
    # redis-py makes errors of connections of some refusals, which are temporary.
    refused = isinstance(error, ResponseError) and not isinstance(error, RedisConnectionError)
    if refused and word not in _TEMPORARY:
        return SourceError(f"{place}: expected streams of candles, the server says: {error}")
    return None

"""Addresses of Redis: one server, servers under sentinels, a cluster; with and without TLS."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from market_data_tick_handler.errors import ConfigError

_SENTINEL_PORT: Final = 26_379
_PORT: Final = 6_379
_FORMS: Final = (
    "redis://[user:password@]host:port/db, rediss://... over TLS, unix:///path, redis+cluster://host:port,host:port, "
    "or redis+sentinel://host:port,host:port/service[/db]"
)


class RedisMode(StrEnum):
    """What stands behind an address."""

    SINGLE = "single"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """An address taken apart. Its text holds a password: `repr` does not show it.

    hosts: where to ask; one for a single server. service: the name that sentinels know. server_url: the address that
    redis-py understands, of the first host, with user, database and options, for its `from_url`.
    """

    mode: RedisMode
    hosts: tuple[tuple[str, int], ...]
    service: str
    tls: bool
    server_url: str

    def __repr__(self) -> str:
        hosts = ",".join(f"{host}:{port}" for host, port in self.hosts)
        return f"RedisAddress({self.mode}, {hosts}{self.service and '/'}{self.service}{', TLS' if self.tls else ''})"


def parse_redis_url(url: str, *, ca_file: str = "") -> RedisAddress:
    """The parts of an address; `ca_file` (PEM) is what a TLS server must be signed by, unless the query says so.

    Raises:
        ConfigError: not such an address. The message does not repeat it, as it may hold a password.
    """
    try:
        parts = urlsplit(url)
        scheme, _, kind = parts.scheme.partition("+")
        mode = RedisMode(kind or RedisMode.SINGLE)
        user, at, places = parts.netloc.rpartition("@")
        hosts = tuple(
            _host(place, _SENTINEL_PORT if mode is RedisMode.SENTINEL else _PORT) for place in places.split(",")
        )
    except ValueError as error:
        raise _wrong(str(error)) from None
    if scheme not in ("redis", "rediss", "unix") or (scheme == "unix" and mode is not RedisMode.SINGLE):
        raise _wrong(f"the scheme is {parts.scheme!r}")
    if mode is RedisMode.SINGLE and len(hosts) > 1:
        raise _wrong("several hosts need redis+cluster:// or redis+sentinel://")
    service, path = _service(parts.path) if mode is RedisMode.SENTINEL else ("", parts.path)
    tls = scheme == "rediss"
    query = dict(parse_qsl(parts.query))
    if tls and ca_file:
        query.setdefault("ssl_ca_certs", ca_file)
    # Without brackets an IPv6 address and its port could not be told apart.
    host, port = hosts[0]
    netloc = parts.netloc if scheme == "unix" else f"{user}{at}{f'[{host}]' if ':' in host else host}:{port}"
    server_url = urlunsplit((scheme, netloc, path, urlencode(query, quote_via=quote), ""))
    return RedisAddress(mode, hosts, service, tls, server_url)


def _host(place: str, default_port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{place}")
    return parts.hostname or "127.0.0.1", parts.port or default_port


def _service(path: str) -> tuple[str, str]:
    service, _, database = path.strip("/").partition("/")
    if not service:
        raise _wrong("sentinels need the name of the service behind the hosts")
    return service, f"/{database or 0}"


def _wrong(why: str) -> ConfigError:
    return ConfigError(f"not an address of Redis: {why}", key="serve.redis_url", hint=f"expected {_FORMS}")

"""Which way candles come: what an address, or the settings, say."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from market_data_tick_handler.client.bus_feed import CandleBus
from market_data_tick_handler.errors import ConfigError
from market_data_tick_handler.wire.redis_urls import parse_redis_url

REDIS_SCHEMES: Final = (
    "redis",
    "rediss",
    "unix",
    "redis+cluster",
    "rediss+cluster",
    "redis+sentinel",
    "rediss+sentinel",
)
WEBSOCKET_SCHEMES: Final = ("ws", "wss")
_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}
_FORMS: Final = "redis://, rediss:// (and +cluster, +sentinel), ws:// or wss://, or the bus of the same process"


def transport_scheme(transport: str | CandleBus) -> str:
    """`redis`, `ws`, or empty for a bus.

    Raises:
        ConfigError: none of them.
    """
    if not isinstance(transport, str):
        if not hasattr(transport, "subscribe"):
            raise ConfigError(f"expected {_FORMS}; got a {type(transport).__name__}", key="transport")
        return ""
    scheme = urlsplit(transport).scheme.lower()
    if scheme in REDIS_SCHEMES:
        parse_redis_url(transport)
        return "redis"
    if scheme in WEBSOCKET_SCHEMES:
        return "ws"
    # Not the address itself, which may hold a password.
    raise ConfigError(f"expected {_FORMS}; the scheme is {scheme!r}", key="transport")


def default_exchange() -> str:
    """Exchange of a bare symbol, as the settings of this process have it."""
    from market_data_tick_handler.config import get_config

    return get_config().default_exchange


def configured_transport() -> tuple[str, str, str]:
    """Address, token and certificate file of the service that the settings of this process speak of.

    Raises:
        ConfigError: the settings cannot be read, or name no port.
    """
    # Reading settings needs more imports than everything else here.
    from market_data_tick_handler.config import Transport, get_config

    settings = get_config()
    if settings.serve.transport is Transport.REDIS:
        return settings.serve.redis_url.get_secret_value(), "", settings.serve.redis_ca_file
    host, port = settings.monitoring.host, settings.monitoring.port
    if not port:
        raise ConfigError(
            "expected a port to find the service on, got 0 (any)",
            key="monitoring.port",
            hint="give LiveFeatureStream its transport=",
        )
    host = _EVERYWHERE.get(host, host)
    place = f"[{host}]" if ":" in host else host
    return f"ws://{place}:{port}/ws", settings.monitoring.auth_token.get_secret_value(), ""

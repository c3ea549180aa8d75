"""Where `watch` looks: a running service, which also says how its feeds are, or a Redis, which has candles alone."""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, Final, NoReturn, Protocol
from urllib.parse import parse_qsl, urlsplit

from market_data_tick_handler.client.transport import REDIS_SCHEMES
from market_data_tick_handler.commands.watch_board import Alert
from market_data_tick_handler.commands.watch_series import MOST_SERIES, Series
from market_data_tick_handler.core.timeframes import ALL_TIMEFRAMES, Timeframe
from market_data_tick_handler.errors import ConfigError, MarketDataError, NotFound, SchemaMismatch, SourceUnavailable
from market_data_tick_handler.wire.channels import parse_candle_channel

_TIMEOUT_S: Final = 3.0
# Answers of services are much smaller; whatever else stands there need not be read to its end.
_MOST_BYTES: Final = 64 << 20
_SAID: Final = 200
_SCHEMES: Final = {"http": ("http", "ws"), "https": ("https", "wss"), "ws": ("http", "ws"), "wss": ("https", "wss")}
_FORMS: Final = "http://host:port, ws://host:port (https, wss over TLS), redis://host:port or its other forms"


class Place(Protocol):
    """name: the address without what is secret. transport: what the client connects to. is_service: it can say how it
    is. lists_series: those that have no candle yet too. asks_every_s: how often it is asked how it is. finds_every_s:
    how often it is worth looking for instruments that came or went."""

    is_service: bool
    lists_series: bool
    name: str
    transport: str
    token: str
    ca_file: str
    asks_every_s: float
    finds_every_s: float

    async def find(self) -> Series:
        """The series that it has.

        Raises:
            SourceUnavailable: it does not answer. ConfigError: it does not let us in. NotFound: it has no candles to
            give. SchemaMismatch: it is something else.
        """
        ...

    async def health(self) -> Mapping[str, Any] | None:
        """The document of `/health`; None where there is none. Raises as `find`."""
        ...

    async def alerts(self) -> list[Alert]:
        """What is wrong there now, the worst first. Raises as `find`."""
        ...


def make_place(address: str, *, token: str = "", ca_file: str = "") -> Place:
    """The place that an address means; without a scheme it is that of a service.

    Raises:
        ConfigError: it is no address.
    """
    text = address.strip()
    if "://" not in text:
        text = f"http://{text}"
    scheme = urlsplit(text).scheme.lower()
    if scheme in REDIS_SCHEMES:
        return RedisPlaceOfCandles(text, ca_file=ca_file)
    if scheme in _SCHEMES:
        return ServicePlace(text, token=token, ca_file=ca_file)
    raise ConfigError(f"expected {_FORMS}; the scheme is {scheme!r}", key="--from")


class ServicePlace:
    """The port of a service: REST beside the WebSocket."""

    is_service = True
    lists_series = True
    asks_every_s = 2.0
    finds_every_s = 10.0

    def __init__(self, url: str, *, token: str = "", ca_file: str = "") -> None:
        try:
            parts = urlsplit(url)
            port = f":{parts.port}" if parts.port else ""
        except ValueError as error:
            raise ConfigError(f"expected {_FORMS}; {error}", key="--from") from None
        if not parts.hostname:
            raise ConfigError(f"expected {_FORMS}; there is no host in it", key="--from")
        http_scheme, socket_scheme = _SCHEMES[parts.scheme.lower()]
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        path = parts.path.rstrip("/").removesuffix("/ws")
        self.name = f"{http_scheme}://{host}{port}{path}"
        self.transport = f"{socket_scheme}://{host}{port}{path}/ws"
        self.token = token or dict(parse_qsl(parts.query)).get("token", "")
        self.ca_file = ca_file
        self._opener = _opener(ca_file)

    async def find(self) -> Series:
        document = await self._get("/api/instruments")
        try:
            # The shortest first, whatever the order of the settings.
            return {
                each["instrument"]: tuple(tf for tf in ALL_TIMEFRAMES if tf.value in each["channels"])
                for each in document["instruments"]
            }
        except (KeyError, TypeError, AttributeError):
            raise self._stranger("instruments") from None

    async def health(self) -> Mapping[str, Any]:
        return await self._get("/health")

    async def alerts(self) -> list[Alert]:
        document = await self._get("/api/alerts")
        try:
            return [
                Alert(
                    is_critical=each["severity"] == "critical",
                    name=str(each["name"]),
                    subject=str(each["subject"]),
                    text=str(each["text"]),
                    since_us=int(each["since_us"]),
                )
                for each in document["alerts"]
            ]
        except (KeyError, TypeError, ValueError):
            raise self._stranger("alerts") from None

    def _stranger(self, what: str) -> SchemaMismatch:
        return SchemaMismatch(f"{self.name}: expected the {what} of a tick-handler service, something else answers")

    async def _get(self, path: str) -> Mapping[str, Any]:
        return await asyncio.to_thread(self._fetch, path)

    def _fetch(self, path: str) -> Mapping[str, Any]:
        headers = {"Accept": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        request = urllib.request.Request(self.name + path, headers=headers)
        try:
            with self._opener.open(request, timeout=_TIMEOUT_S) as response:
                found = json.loads(response.read(_MOST_BYTES))
        except urllib.error.HTTPError as error:
            with error:
                self._refuse(path, error)
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, ssl.SSLCertVerificationError):
                raise ConfigError(
                    f"{self.name}: the certificate is not trusted: {reason.verify_message}", key="--ca-file"
                ) from None
            raise SourceUnavailable(
                f"no service answers at {self.name}: {reason}; start one with `tick-handler serve`, or say where it is"
            ) from None
        except ValueError:
            raise SchemaMismatch(f"{self.name}{path}: expected JSON of a tick-handler service, got none") from None
        if not isinstance(found, dict):
            raise SchemaMismatch(f"{self.name}{path}: expected a JSON object, got {type(found).__name__}")
        return found

    def _refuse(self, path: str, error: urllib.error.HTTPError) -> NoReturn:
        said = _said(error)
        if error.code in (401, 403):
            raise ConfigError(
                f"{self.name}: expected a token that is known, was refused ({error.code}): {said}",
                key="--token",
                hint="the service's monitoring.auth_token",
            )
        if error.code == 404:
            raise NotFound(f"{self.name} serves no candles ({path} is not there); does it run in mode serve?")
        if error.code >= 500 or error.code in (408, 429):
            raise SourceUnavailable(f"{self.name}{path}: {error.code} {said}")
        raise SchemaMismatch(f"{self.name}{path}: expected a tick-handler service, got {error.code} {said}")


class RedisPlaceOfCandles:
    """A Redis that services publish to."""

    is_service = False
    lists_series = False
    asks_every_s = 2.0
    # It means to go through all keys there.
    finds_every_s = 60.0
    token = ""

    def __init__(self, url: str, *, ca_file: str = "") -> None:
        from market_data_tick_handler.client.redis_link import RedisPlace
        from market_data_tick_handler.wire.redis_urls import parse_redis_url

        self.transport, self.ca_file = url, ca_file
        self._place = RedisPlace(parse_redis_url(url, ca_file=ca_file), timeout_s=_TIMEOUT_S)
        self.name = self._place.name

    async def find(self) -> Series:
        from market_data_tick_handler.client.redis_link import FAILURES, lasting_error

        try:
            async with self._place.connect() as (_, asking):
                names = await asking.streams("candles:*", MOST_SERIES * len(ALL_TIMEFRAMES))
        except FAILURES as error:
            lasting = lasting_error(error, self.name)
            if lasting is not None:
                raise lasting from error
            raise SourceUnavailable(f"no answer from {self.name}: {str(error) or type(error).__name__}") from error
        found: dict[str, set[Timeframe]] = {}
        for name in names:
            try:
                channel = parse_candle_channel(name)
            except MarketDataError:
                continue  # somebody else's
            found.setdefault(channel.key, set()).add(channel.timeframe)
        return {key: tuple(tf for tf in ALL_TIMEFRAMES if tf in found[key]) for key in sorted(found)}

    async def health(self) -> None:
        return None

    async def alerts(self) -> list[Alert]:
        return []


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The token is for the place that was named."""

    def redirect_request(self, *request: Any) -> None:
        return None


def _opener(ca_file: str) -> urllib.request.OpenerDirector:
    if not ca_file:
        return urllib.request.build_opener(_NoRedirects)
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise ConfigError(f"expected a file of certificates (PEM), got: {error}", key="--ca-file") from error
    return urllib.request.build_opener(_NoRedirects, urllib.request.HTTPSHandler(context=context))


def _said(error: urllib.error.HTTPError) -> str:
    """What the answer says was wrong."""
    try:
        body = error.read(_MOST_BYTES).decode(errors="replace")
        document = json.loads(body)
        return str(document.get("error") or document)[:_SAID] if isinstance(document, dict) else body[:_SAID]
    except (OSError, ValueError, http.client.HTTPException):
        return str(error.reason)

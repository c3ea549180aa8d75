"""Tardis.dev's HTTP API, from lines of raw feeds.

https://docs.tardis.dev/api/http
"""

from __future__ import annotations

import gzip
import json
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

import pyarrow as pa

from market_data_tick_handler.testing.tardis.loopback import LoopbackServer

if TYPE_CHECKING:
    from aiohttp import web

_MINUTE_TEXT: Final = 16


@dataclass(frozen=True, slots=True)
class Fault:
    """An answer of the API that is no data: its status, headers such as Retry-After, and the code of its body."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    message: str = "fault"


class TardisApiServer(LoopbackServer):
    """Tardis.dev's HTTP API: raw data feeds by the minute, exchanges, and what a key may read.

    feeds: exchange -> lines of the feed's own format, `<28 characters of time> <JSON>`, an empty line where the
    recorder lost its connection. api_key: required for every day but the first of a month; None: for none. encoding: of
    bodies. slice_minutes: what is suggested for requests with filters. `faults` are answered first, one per request to
    a feed.
    `requests` lists the queries of all requests to feeds.
    """

    def __init__(
        self,
        feeds: Mapping[str, Iterable[bytes]],
        *,
        api_key: str | None = None,
        encoding: Literal["gzip", "zstd"] = "gzip",
        slice_minutes: int = 1,
        faults: Iterable[Fault] = (),
    ) -> None:
        super().__init__()
        self.requests: list[dict[str, str]] = []
        self.faults = deque(faults)
        self._api_key = api_key
        self._encoding = encoding
        self._slice_minutes = slice_minutes
        self._minutes = {exchange: _by_minute(lines) for exchange, lines in feeds.items()}

    @property
    def endpoint(self) -> str:
        """What the vendor's clients call endpoint, `/v1` included."""
        return f"http://127.0.0.1:{self.port}/v1"

    def _application(self) -> web.Application:
        from aiohttp import web

        app = web.Application()
        app.router.add_get("/v1/data-feeds/{exchange}", self._feed)
        app.router.add_get("/v1/exchanges", self._exchanges)
        app.router.add_get("/v1/exchanges/{exchange}", self._exchange)
        app.router.add_get("/v1/api-key-info", self._key_info)
        return app

    async def _feed(self, request: web.Request) -> web.Response:
        from aiohttp import web

        query = dict(request.query)
        self.requests.append(query)
        if self.faults:
            fault = self.faults.popleft()
            return _refusal(fault.status, fault.message, fault.headers)
        minutes = self._minutes.get(request.match_info["exchange"])
        if minutes is None:
            return _refusal(404, f"exchange {request.match_info['exchange']!r} is not supported")
        try:
            start = datetime.fromisoformat(query["from"]).replace(tzinfo=UTC) + timedelta(minutes=int(query["offset"]))
        except (KeyError, ValueError):
            return _refusal(400, "expected 'from' in ISO 8601 format and an integer 'offset'")
        if self._api_key is not None and start.day != 1 and not self._authorised(request):
            return _refusal(401, "invalid API key")
        filters = json.loads(query["filters"]) if "filters" in query else []
        size = int(query.get("sliceSize", 1)) if filters else 1
        lines = [
            line
            for minute in range(size)
            for line in minutes.get(f"{start + timedelta(minutes=minute):%Y-%m-%dT%H:%M}", ())
            if not line or not filters or _passes(line, filters)
        ]
        headers = {
            "Content-Encoding": self._encoding,
            "x-slice-size": str(size),
            "x-suggested-slice-size": str(self._slice_minutes),
        }
        return web.Response(body=self._compress(b"".join(line + b"\n" for line in lines)), headers=headers)

    async def _exchanges(self, _: web.Request) -> web.Response:
        from aiohttp import web

        return web.json_response([self._details(exchange) for exchange in sorted(self._minutes)])

    async def _exchange(self, request: web.Request) -> web.Response:
        from aiohttp import web

        exchange = request.match_info["exchange"]
        if exchange not in self._minutes:
            return _refusal(404, f"exchange {exchange!r} is not supported")
        return web.json_response(self._details(exchange))

    async def _key_info(self, request: web.Request) -> web.Response:
        from aiohttp import web

        if not self._authorised(request):
            return _refusal(401, "invalid API key")
        return web.json_response([{"exchange": exchange, "accessType": "pro"} for exchange in sorted(self._minutes)])

    def _authorised(self, request: web.Request) -> bool:
        return request.headers.get("Authorization") == f"Bearer {self._api_key}"

    def _details(self, exchange: str) -> dict[str, Any]:
        minutes = self._minutes[exchange]
        messages = [_channel(line) for lines in minutes.values() for line in lines if line]
        named = [message for message in messages if message is not None]
        return {
            "id": exchange,
            "name": exchange,
            "enabled": True,
            "availableSince": f"{min(minutes, default='1970-01-01T00:00')}:00.000Z",
            "availableChannels": sorted({channel for channel, _ in named}),
            "availableSymbols": [{"id": symbol} for symbol in sorted({symbol for _, symbol in named})],
        }

    def _compress(self, body: bytes) -> bytes:
        if self._encoding == "gzip":
            return gzip.compress(body, mtime=0)
        compressed: bytes = pa.compress(body, codec="zstd", asbytes=True)
        return compressed


def _refusal(status: int, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    from aiohttp import web

    return web.json_response({"code": status, "message": message}, status=status, headers=headers)


def _by_minute(lines: Iterable[bytes]) -> dict[str, list[bytes]]:
    """Lines by the minute of their time; an empty line belongs to the minute of the line before it."""
    minutes: dict[str, list[bytes]] = {}
    minute = ""
    for line in lines:
        stripped = line.rstrip(b"\r\n")
        minute = stripped[:_MINUTE_TEXT].decode() if stripped else minute
        minutes.setdefault(minute, []).append(stripped)
    return minutes


def _passes(line: bytes, filters: Sequence[Mapping[str, Any]]) -> bool:
    found = _channel(line)
    if found is None:
        return False
    channel, symbol = found
    return any(
        each["channel"] == channel and (not each.get("symbols") or symbol in each["symbols"]) for each in filters
    )


def _channel(line: bytes) -> tuple[str, str] | None:
    """Channel and symbol of a message of Binance, Bybit, Deribit or OKX, as filters name them."""
    message = json.loads(line[29:])
    if "stream" in message:
        symbol, _, stream = message["stream"].partition("@")
        return stream.partition("@")[0], symbol
    if "topic" in message:
        channel, _, symbol = message["topic"].rpartition(".")
        return channel, symbol
    if isinstance(message.get("params"), dict) and "channel" in message["params"]:
        parts = message["params"]["channel"].split(".")
        return parts[0], parts[1] if len(parts) > 1 else ""
    if isinstance(message.get("arg"), dict):
        argument = message["arg"]
        # Liquidations are subscribed by the kind of instrument; each message is of one of them.
        members = [each["instId"] for each in message.get("data", []) if "instId" in each]
        symbol = argument.get("instId") or argument.get("instFamily") or (members[0] if members else "")
        return argument.get("channel", ""), symbol
    return None

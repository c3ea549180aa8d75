"""Changing a running service over HTTP: /admin, for whoever has the token."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import Annotated, Literal

import msgspec
from aiohttp import web

from market_data_tick_handler.core.instruments import InstrumentDefinition
from market_data_tick_handler.core.timeframes import Timeframe, parse_timeframe
from market_data_tick_handler.errors import MarketDataError, ServiceEnded
from streaming_service.changes import Change, HotChanges

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _Instruments(msgspec.Struct, forbid_unknown_fields=True):
    """Keys or symbols to take in and to let go."""

    add: list[str] = []
    remove: list[str] = []


class _Timeframes(msgspec.Struct, forbid_unknown_fields=True):
    timeframes: Annotated[list[str], msgspec.Meta(min_length=1)]


class _Level(msgspec.Struct, forbid_unknown_fields=True):
    level: Literal["debug", "info", "warning", "error"]


class Admin:
    """Handlers of `/admin/*`.

    token: what `Authorization: Bearer` must carry; empty closes the door altogether.
    current: instruments and timeframes of the service. define: instruments with the contract sizes of the settings.
    """

    def __init__(
        self,
        changes: HotChanges,
        *,
        token: str,
        current: Callable[[], tuple[Sequence[InstrumentDefinition], Sequence[Timeframe]]],
        define: Callable[[Sequence[str]], Sequence[InstrumentDefinition]],
    ) -> None:
        self._changes = changes
        self._token = token
        self._current = current
        self._define = define

    def routes(self) -> list[web.RouteDef]:
        """The routes, each behind the token."""
        return [
            web.get("/admin", self._guarded(self._get)),
            web.post("/admin/instruments", self._guarded(self._post_instruments)),
            web.post("/admin/timeframes", self._guarded(self._post_timeframes)),
            web.post("/admin/log-level", self._guarded(self._post_level)),
        ]

    def _guarded(self, handler: Handler) -> Handler:
        async def guarded(request: web.Request) -> web.StreamResponse:
            if not self._token:
                return _refused(403, "no token is configured; set monitoring.auth_token to open /admin")
            given = request.headers.get("Authorization", "").removeprefix("Bearer ")
            if not hmac.compare_digest(given.encode(), self._token.encode()):
                return _refused(401, "expected `Authorization: Bearer <monitoring.auth_token>`")
            try:
                return await handler(request)
            except ServiceEnded as error:
                return _refused(503, str(error))
            except (msgspec.ValidationError, msgspec.DecodeError, MarketDataError) as error:
                return _refused(400, str(error))

        return guarded

    async def _get(self, request: web.Request) -> web.Response:
        instruments, timeframes = self._current()
        names = [instrument.key for instrument in instruments]
        return web.json_response({"instruments": names, "timeframes": [str(each) for each in timeframes]})

    async def _post_instruments(self, request: web.Request) -> web.Response:
        wanted = msgspec.json.decode(await request.read(), type=_Instruments)
        running, _ = self._current()
        known = {instrument.key: instrument for instrument in running}
        known |= {instrument.key: instrument for instrument in self._define(wanted.add)}
        for instrument in self._define(wanted.remove):
            known.pop(instrument.key, None)
        return await self._apply(Change(instruments=tuple(known.values())))

    async def _post_timeframes(self, request: web.Request) -> web.Response:
        wanted = msgspec.json.decode(await request.read(), type=_Timeframes)
        chosen = sorted({parse_timeframe(name) for name in wanted.timeframes}, key=lambda timeframe: timeframe.us)
        return await self._apply(Change(timeframes=tuple(chosen)))

    async def _post_level(self, request: web.Request) -> web.Response:
        wanted = msgspec.json.decode(await request.read(), type=_Level)
        return await self._apply(Change(level=wanted.level))

    async def _apply(self, change: Change) -> web.Response:
        return web.json_response(asdict(await self._changes.apply(change)))


def _refused(status: int, why: str) -> web.Response:
    return web.json_response({"error": why}, status=status)

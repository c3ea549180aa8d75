"""The HTTP face of the service: /live /ready /health /metrics, and what else is mounted on its port."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final

from aiohttp import web

from market_data_tick_handler.errors import ConfigError

METRICS_CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
# How long a request that is being answered may hold up the end of the service.
_GOODBYE_S: Final = 1.0
_MAX_BODY_BYTES: Final = 64 * 1024


class MonitoringServer:
    """Serves what the callables say at the time of each request.

    `blind` names what keeps the service from being ready; empty means ready. `/live` answers as long as the event loop
    turns, because nothing but the loop is behind it.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        blind: Callable[[], list[str]],
        health: Callable[[], dict[str, Any]],
        metrics: Callable[[], bytes],
        routes: Sequence[web.AbstractRouteDef] = (),
    ) -> None:
        self._host, self._wanted_port = host, port
        self._blind, self._health, self._metrics = blind, health, metrics
        self._routes = routes
        self._runner: web.AppRunner | None = None
        self.port = port

    @property
    def url(self) -> str:
        """Address of the server; after `start` with the port that it really has."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}"

    async def start(self) -> None:
        """Listen.

        Raises:
            ConfigError: the address is taken or not ours.
        """
        app = web.Application(client_max_size=_MAX_BODY_BYTES)
        app.router.add_get("/live", self._get_live)
        app.router.add_get("/ready", self._get_ready)
        app.router.add_get("/health", self._get_health)
        app.router.add_get("/metrics", self._get_metrics)
        app.add_routes(self._routes)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=_GOODBYE_S)
        await runner.setup()
        site = web.TCPSite(runner, self._host, self._wanted_port)
        try:
            await site.start()
        except OSError as error:
            await runner.cleanup()
            raise ConfigError(
                f"cannot listen on {self._host}:{self._wanted_port}: {error.strerror or error}",
                key="monitoring.port",
                hint="choose another port, or 0 for any free one",
            ) from error
        self._runner = runner
        self.port = runner.addresses[0][1]

    async def aclose(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _get_live(self, request: web.Request) -> web.Response:
        return _json({"live": True})

    async def _get_ready(self, request: web.Request) -> web.Response:
        blind = self._blind()
        return _json({"ready": not blind, "blind": blind}, status=503 if blind else 200)

    async def _get_health(self, request: web.Request) -> web.Response:
        return _json(self._health())

    async def _get_metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=self._metrics(), headers={"Content-Type": METRICS_CONTENT_TYPE})


def _json(document: dict[str, Any], *, status: int = 200) -> web.Response:
    return web.json_response(document, status=status, dumps=lambda value: json.dumps(value, allow_nan=False))

"""What answers on the service's port beside monitoring: /admin, and in mode serve REST, WebSocket and pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from market_data_tick_handler.config import define_instruments
from market_data_tick_handler.config.settings import Mode, Settings
from market_data_tick_handler.core.events import Gap
from market_data_tick_handler.core.instruments import InstrumentDefinition
from market_data_tick_handler.core.pipeline import Pipeline
from market_data_tick_handler.core.timeframes import Timeframe
from streaming_service.changes import HotChanges
from streaming_service.clock import Clock
from streaming_service.monitoring.admin import Admin
from streaming_service.outputs import Outputs
from streaming_service.serving.application import ServingRoutes
from streaming_service.serving.books import LatestBooks
from streaming_service.serving.view import ServiceView, known_gaps

if TYPE_CHECKING:
    from aiohttp import web


class Routed(Protocol):
    """The service, as far as it is asked over HTTP."""

    settings: Settings
    outputs: Outputs
    books: LatestBooks
    changes: HotChanges

    @property
    def clock(self) -> Clock: ...

    @property
    def pipelines(self) -> Mapping[str, Pipeline]: ...

    @property
    def instruments(self) -> Sequence[InstrumentDefinition]: ...

    @property
    def timeframes(self) -> Sequence[Timeframe]: ...


def service_routes(service: Routed, *, health: Callable[[], Mapping[str, Any]], wall: Clock) -> list[web.RouteDef]:
    """health: the `/health` document. wall: for how long alerts are shown."""
    settings = service.settings
    token = settings.monitoring.auth_token.get_secret_value()

    def current() -> tuple[Sequence[InstrumentDefinition], Sequence[Timeframe]]:
        return service.instruments, service.timeframes

    admin = Admin(service.changes, token=token, current=current, define=partial(define_instruments, settings))
    if Mode.SERVE not in settings.modes:
        return admin.routes()
    view = ServiceView(
        current=current,
        health=health,
        now_us=service.clock.now_us,
        gaps=partial(_gaps, service),
        latest_book=service.books.latest,
        store=settings.persist.path if Mode.PERSIST in settings.modes else None,
    )
    serving = ServingRoutes(service.outputs.serving, view, host=settings.monitoring.host, token=token, wall=wall)
    return [*admin.routes(), *serving.routes()]


def _gaps(service: Routed, key: str) -> Sequence[Gap]:
    pipeline = service.pipelines.get(key)
    return () if pipeline is None else known_gaps(pipeline, service.clock.now_us())

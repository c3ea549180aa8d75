"""The service as a library: one object inside somebody else's asyncio program or notebook.

Nothing of the process is touched: no signal handlers, no event loop policy, no logging set up. Several may run beside
each other.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from market_data_tick_handler.client import LiveFeatureStream
from market_data_tick_handler.config import Kind, Mode, Settings, Target, load_settings
from market_data_tick_handler.core.instruments import resolve_instrument
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.errors import ConfigError, MarketDataError, NotInstalled
from market_data_tick_handler.storage.compilation import compile_on_first_run

if TYPE_CHECKING:
    from streaming_service.app import Service
    from streaming_service.clock import Clock
    from streaming_service.feeds import Inputs
    from streaming_service.sink import Sink

log = logging.getLogger(__name__)

_PORT: Final = "monitoring.port"


class StreamingState(StrEnum):
    """Where a service stands."""

    CREATED = "created"
    STARTING = "starting"
    STREAMING = "streaming"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamingStatus:
    """How a service is doing.

    url: where it answers HTTP and WebSockets; empty while, or where, it does not. candles: published for the first
    time; revisions: published again. waiting_for: what it is not ready for yet. error: what it ended with.
    """

    state: StreamingState
    url: str
    instruments: tuple[str, ...]
    timeframes: tuple[str, ...]
    candles: int
    revisions: int
    waiting_for: tuple[str, ...]
    error: str

    @property
    def ready(self) -> bool:
        """Whether every required stream is live and every sink takes candles."""
        return self.state is StreamingState.STREAMING and not self.waiting_for


def create_integrated_streaming_service(
    symbol: str | Sequence[str] | None = None,
    exchange: str | None = None,
    timeframes: str | Timeframe | Sequence[str | Timeframe] | None = None,
    enable_bigquery: bool = False,
    *,
    config_file: str | os.PathLike[str] | None = None,
    env_file: str | os.PathLike[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    listen: bool = True,
    publish_open_candles: bool = False,
) -> IntegratedStreamingService:
    """A service with the settings that `tick-handler stream` would have here, and these arguments on top.

    >>> import asyncio
    >>> from market_data_tick_handler import CandleGap, create_integrated_streaming_service
    >>> async def watch(count):
    ...     service = create_integrated_streaming_service(
    ...         symbol="BTC-USDT", exchange="binance", timeframes=["1m", "5m"], overrides={"simulation.speed": "300x"}
    ...     )
    ...     found = []
    ...     async with service.stream("1m") as candles, service:
    ...         async for candle in candles:
    ...             if isinstance(candle, CandleGap) or candle.is_revision:
    ...                 continue
    ...             found.append((candle["symbol"], candle["close"], candle["trade_count"]))
    ...             if len(found) == count:
    ...                 return found
    >>> asyncio.run(watch(3))
    [('BTC-USDT', 67070.87, 1253), ('BTC-USDT', 67038.38, 1277), ('BTC-USDT', 67056.3, 1129)]

    symbol: one or several: canonical keys, or symbols of `exchange`. exchange: without a symbol, that of the bare
    symbols in the settings. timeframes: any of 15s 1m 5m 15m 1h 4h 24h.
    enable_bigquery: write to BigQuery as well as serve (`persist.target: bigquery`); otherwise candles are served, and
    written nowhere.
    config_file, env_file: as for `load_settings`; by default streaming.yaml and .env of the working directory.
    overrides: any settings by dotted key, stronger than everything else: `{"modes": ["serve", "persist"]}` keeps
    candles as Parquet.
    listen: answer HTTP and WebSockets; where no settings name a port, on any free one.
    publish_open_candles: publish what is open at the end, as PARTIAL.

    Raises:
        ConfigError: a setting is unknown, malformed, or cannot be combined with the others.
        InstrumentError: a symbol means no instrument.
        NotInstalled: the settings ask for an extra that is not installed.
    """
    modes = [Mode.SERVE.value, *([Mode.PERSIST.value] if enable_bigquery else [])]
    target = {"persist.target": Target.BIGQUERY.value} if enable_bigquery else {}
    settings = integrated_settings(
        symbol,
        exchange,
        timeframes,
        config_file=config_file,
        env_file=env_file,
        overrides={"modes": modes, **target, **(overrides or {})},
    )
    return IntegratedStreamingService(settings, listen=listen, publish_open_candles=publish_open_candles)


def integrated_settings(
    symbol: str | Sequence[str] | None = None,
    exchange: str | None = None,
    timeframes: str | Timeframe | Sequence[str | Timeframe] | None = None,
    *,
    config_file: str | os.PathLike[str] | None = None,
    env_file: str | os.PathLike[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """Settings of a service inside another program; arguments and errors are those of
    `create_integrated_streaming_service`."""
    symbols = _listed(symbol)
    usual = exchange or (load_settings(config_file, env_file, overrides).settings.default_exchange if symbols else "")
    chosen: dict[str, Any] = {
        "instruments": [resolve_instrument(each, exchange, usual).key for each in symbols] or None,
        "default_exchange": exchange.lower() if exchange and not symbols else None,
        "candles.timeframes": _listed(timeframes) or None,
    }
    given = {key: value for key, value in chosen.items() if value is not None}
    loaded = load_settings(config_file, env_file, {**given, **(overrides or {})})
    settings = loaded.settings
    if loaded.origin(_PORT).kind is Kind.DEFAULT:
        # Nobody asked for the usual port, and another service of the process may have it.
        settings = settings.model_copy(update={"monitoring": settings.monitoring.model_copy(update={"port": 0})})
    return settings


class IntegratedStreamingService:
    """The live service with these settings; `create_integrated_streaming_service` makes them from a few arguments.

    `await start_streaming()` runs it to its end; `async with service:` runs it beside the block, and drains afterwards.
    It runs once.

    inputs: feeds and their clock, by default from the settings. sinks: more sinks for candles, by name; tick_sinks: for
    ticks, for which everything else waits.

    Raises:
        ConfigError, NotInstalled, InstrumentError: the settings cannot be carried out.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        inputs: Inputs | None = None,
        sinks: Mapping[str, Sink] | None = None,
        tick_sinks: Mapping[str, Sink] | None = None,
        wall: Clock | None = None,
        listen: bool = True,
        publish_open_candles: bool = False,
    ) -> None:
        self.settings = settings
        self._service = _application()(
            settings,
            inputs=inputs,
            sinks=sinks,
            tick_sinks=tick_sinks,
            wall=wall,
            listen=listen,
            publish_open_candles=publish_open_candles,
        )
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start_streaming(self, duration: float | None = None) -> None:
        """Run until `stop_streaming`, for `duration` seconds (None or 0: endless), or until every source has ended.

        When this is cancelled the service drains first, for `shutdown.deadline` at most; cancelled again it aborts.

        Raises:
            ConfigError: the address to listen on is taken.
            TaskFailed: a part failed beyond its budget.
            DrainTimeout: not everything was written within the deadline.
            MarketDataError: it was started before.
        """
        await self._attend(self._begin(duration))

    async def stop_streaming(self) -> None:
        """Stop the sources, publish and write what came, and return; nothing if it was not started.

        Raises:
            TaskFailed, DrainTimeout, ConfigError: what the service ended with, as `start_streaming` does.
        """
        if self._task is not None:
            self._stop.set()
            await self._attend(self._task)

    async def __aenter__(self) -> Self:
        task = self._begin(None)
        started = asyncio.create_task(self._service.started.wait(), name="wait for the start")
        try:
            await asyncio.wait([task, started], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self._drain_or_abort(task)
            raise
        finally:
            started.cancel()
        if task.done():
            task.result()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.stop_streaming()
        except MarketDataError as failure:
            if error is None:
                raise
            # What went wrong in the block is what its reader looks for.
            error.add_note(f"the streaming service failed, too: {failure}")

    def stream(
        self,
        timeframe: str | Timeframe | Sequence[str | Timeframe] | None = None,
        *,
        symbol: str | Sequence[str] | None = None,
        history: int = 0,
        policy: str = "block",
        buffer: int = 1_000,
        store: str | os.PathLike[str] | None = None,
    ) -> LiveFeatureStream:
        """Candles of this service as they close, without a detour over a network; any number of streams.

        It can be made, and entered, before the service starts, so that nothing is missed; it ends with the service.

        timeframe, symbol: one or several; by default all of the service. history: stored candles that come first.
        policy, buffer: as for `LiveFeatureStream`. With `block` a stream that is not read holds the others up in the
        end, and the drain. store: directory of stored candles; by default where the service itself keeps them.

        Raises:
            ConfigError: no such timeframe, or history without a store.
            InstrumentError: no such instrument.
        """
        root = self._store() if store is None else str(os.fspath(store))
        if history and root is None:
            raise ConfigError(
                f"expected a store to take {history} candles of history from, there is none",
                key="history",
                hint='give store=, or keep candles: overrides={"modes": ["serve", "persist"]}',
            )
        keys = [resolve_instrument(each, None, self.settings.default_exchange).key for each in _listed(symbol)]
        unknown = sorted(set(keys) - set(self.instruments))
        if unknown:
            raise ConfigError(
                f"{', '.join(unknown)} is not an instrument of this service",
                key="symbol",
                hint=f"it has {', '.join(self.instruments)}",
            )
        return LiveFeatureStream(
            keys or self.instruments,
            timeframe=_listed(timeframe) or self._service.timeframes,
            history=history,
            transport=self._service.bus,
            store=root,
            policy=policy,
            buffer=buffer,
            clock=self._service.clock,
        )

    @property
    def instruments(self) -> tuple[str, ...]:
        """Keys of its instruments."""
        return tuple(instrument.key for instrument in self._service.instruments)

    @property
    def url(self) -> str:
        """Where it answers HTTP, and WebSockets under `/ws`; empty while, or where, it does not."""
        running = self._state() in (StreamingState.STREAMING, StreamingState.DRAINING)
        return self._service.url if running else ""

    def status(self) -> StreamingStatus:
        """How it is doing, in short."""
        service, task = self._service, self._task
        error = None if task is None or not task.done() or task.cancelled() else task.exception()
        running = self._state() is StreamingState.STREAMING
        return StreamingStatus(
            state=self._state(),
            url=self.url,
            instruments=self.instruments,
            timeframes=tuple(str(timeframe) for timeframe in service.timeframes),
            candles=service.metrics.candles,
            revisions=service.metrics.revisions,
            waiting_for=tuple(service.not_ready()) if running else (),
            error="" if error is None else str(error),
        )

    def health(self) -> dict[str, Any]:
        """The `/health` document (docs/reference/health.md)."""
        return self._service.health_report()

    def _state(self) -> StreamingState:
        service, task = self._service, self._task
        if task is None:
            return StreamingState.CREATED
        if task.done():
            failed = task.cancelled() or task.exception() is not None
            return StreamingState.FAILED if failed else StreamingState.STOPPED
        if not service.started.is_set():
            return StreamingState.STARTING
        return StreamingState.DRAINING if service.draining or self._stop.is_set() else StreamingState.STREAMING

    def _begin(self, duration: float | None) -> asyncio.Task[None]:
        if self._task is not None:
            raise MarketDataError(
                f"expected a service that was not started before, this one is {self._state()}: create another one"
            )
        self._task = asyncio.create_task(self._run(duration), name="streaming service")
        return self._task

    async def _run(self, duration: float | None) -> None:
        try:
            # As warnings they reach a notebook, which shows nothing below.
            await asyncio.to_thread(compile_on_first_run, log.warning)
            await self._service.run(self._stop, duration)
        finally:
            # An aborted service has not closed it, and whoever reads must not wait for ever.
            await self._service.bus.aclose()

    async def _attend(self, task: asyncio.Task[None]) -> None:
        """Wait for the end of the service, and pass on what it ended with."""
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            await self._drain_or_abort(task)
            raise
        task.result()

    async def _drain_or_abort(self, task: asyncio.Task[None]) -> None:
        """The one who waits was cancelled: drain, and abort when cancelled again."""
        self._stop.set()
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait([task])
        if not task.cancelled() and (failure := task.exception()) is not None:
            # The cancellation is what the waiting one gets to see.
            log.error("service failed", extra={"error": str(failure)})

    def _store(self) -> str | None:
        settings = self.settings
        keeps = Mode.PERSIST in settings.modes and settings.persist.target is Target.PARQUET
        return settings.persist.path if keeps else None


def _application() -> type[Service]:
    try:
        from streaming_service.app import Service
    except ModuleNotFoundError as error:
        raise NotInstalled(
            f"the live service needs the package {error.name}: pip install 'market-data-tick-handler[streaming]'"
        ) from error
    return Service


def _listed(given: str | Timeframe | Sequence[str | Timeframe] | None) -> list[str]:
    """One or several, as a list of texts; a text may name several, with commas or spaces."""
    if given is None:
        return []
    texts = [given] if isinstance(given, str) else given
    return [part for text in texts for part in str(text).replace(",", " ").split()]

"""Where candles and ticks of a service go: the sinks that the settings ask for, each behind its outlet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, TextIO

from market_data_tick_handler.config.settings import Mode, Settings, Target, Transport
from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.ticks import DataType
from streaming_service.clock import Clock
from streaming_service.monitoring.metrics import Sample
from streaming_service.serving.options import ServingOptions
from streaming_service.serving.sink import ServingSink
from streaming_service.sink import BUSY_ATTEMPTS, FullPolicy, Outlet, Sink
from streaming_service.sinks.bus import InProcessBus
from streaming_service.sinks.terminal import TerminalSink

if TYPE_CHECKING:
    from streaming_service.sinks.bigquery.sink import BigQuerySink
    from streaming_service.sinks.redis.marks import MarkSource
    from streaming_service.sinks.redis.sink import RedisSink

FLUSH_INTERVAL_S: Final = 5.0
# A flush of the spool is what makes its rows outlive the process.
_FLUSHED: Final[Mapping[str, float]] = {"bigquery": 1.0}
# What is stored must not have holes; what is watched may be late for itself only.
_STORED: Final = ("parquet", "bigquery", "ticks")
# What a restart delivers again. Redis bounds what waits for it itself, and must hold nobody up.
_DURABLE: Final = ("parquet", "bigquery", "redis")
# Takes everything at once, and is no slower than the turn that closes a thousand candles.
_NEVER_WAITS: Final = ("websocket",)
# Tries of a sink whose disk is full, up to ten seconds apart, before rows count as lost: ten minutes.
_PATIENT: Final = 64


class _TakesOpenCandles(Protocol):
    def write_open(self, batch: CandleBatch) -> None: ...


class Outputs:
    """The outlets of one service.

    terminal: a stream that gets one line per candle. more: further sinks for candles, by name. journaled: day files are
    written from journals, and not as rows come. speed: of the service's clock, in seconds per second of `wall`.
    marks: what is said on the marks channels of Redis.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        wall: Clock,
        speed: float,
        terminal: TextIO | None,
        more: Mapping[str, Sink],
        journaled: bool,
        marks: Callable[[], MarkSource],
    ) -> None:
        self.bus = InProcessBus()
        self.serving = ServingSink(ServingOptions.of(settings.serve), clock=wall)
        self.redis: RedisSink | None = None
        self._settings = settings
        self._wall = wall
        self._speed = speed
        if Mode.SERVE in settings.modes and settings.serve.transport is Transport.REDIS:
            from streaming_service.sinks.redis.options import RedisOptions
            from streaming_service.sinks.redis.sink import RedisSink as Redis

            self.redis = Redis(RedisOptions.of(settings.serve), clock=wall, marks=marks())
        self.bigquery = self._bigquery() if self._persists(Target.BIGQUERY) else None
        self.candles = [self._outlet(name, sink) for name, sink in self._candle_sinks(terminal, more)]
        self.ticks = [self._outlet(name, sink) for name, sink in self._tick_sinks(journaled)]
        if self.bigquery is not None and settings.persist.store_ticks:
            self.ticks += [outlet for outlet in self.candles if outlet.sink is self.bigquery]

    @property
    def all(self) -> list[Outlet]:
        """Every outlet."""
        return list(dict.fromkeys([*self.candles, *self.ticks]))

    @property
    def durable(self) -> dict[str, Outlet]:
        """Outlets of sinks that must end with every candle, also over a crash."""
        return {outlet.name: outlet for outlet in self.candles if outlet.name in _DURABLE}

    def write_open(self, batch: CandleBatch) -> None:
        """A candle in progress, to whoever shows such."""
        watched: list[_TakesOpenCandles | None] = [self.serving if self.serving.is_open else None, self.redis]
        for sink in watched:
            if sink is not None:
                sink.write_open(batch)

    def not_ready(self) -> list[str]:
        """Sinks that keep the service from being ready, and why."""
        return [] if self.redis is None else self.redis.not_ready()

    def report(self) -> dict[str, Any]:
        """For /health: what sinks tell of themselves."""
        told: dict[str, Any] = {"websocket": self.serving.report()} if self.serving.is_open else {}
        if self.redis is not None:
            told["redis"] = self.redis.report()
        if self.bigquery is not None:
            told["bigquery"] = [asdict(table) for table in self.bigquery.report()]
        return told

    def samples(self) -> Iterator[Sample]:
        """Metrics of sinks that have some of their own."""
        if self.redis is not None:
            from streaming_service.sinks.redis.samples import redis_samples

            yield from redis_samples(self.redis)

    def _persists(self, target: Target) -> bool:
        return Mode.PERSIST in self._settings.modes and self._settings.persist.target is target

    def _bigquery(self) -> BigQuerySink:
        from streaming_service.sinks.bigquery.sink import BigQuerySink as BigQuery

        settings = self._settings
        enabled = [DataType(name) for name in settings.data_types.enabled()]
        return BigQuery(
            settings.persist.bigquery,
            timeframes=settings.candles.timeframes,
            data_types=enabled if settings.persist.store_ticks else (),
            chains=DataType.OPTIONS in enabled,
            groups=[str(group) for group in settings.features.groups],
            clock=self._wall,
            service=settings.serve.service,
        )

    def _candle_sinks(self, terminal: TextIO | None, more: Mapping[str, Sink]) -> Iterator[tuple[str, Sink]]:
        settings = self._settings
        if Mode.SERVE in settings.modes:
            yield "bus", self.bus
            yield "websocket", self.serving
        if self.redis is not None:
            yield "redis", self.redis
        if self.bigquery is not None:
            yield "bigquery", self.bigquery
        if self._persists(Target.PARQUET):
            from streaming_service.sinks.parquet import ParquetSink

            yield "parquet", ParquetSink(partial(_candle_writer, settings.persist.path))
        if terminal is not None:
            yield "terminal", TerminalSink(grace_us=settings.candles.grace_us, speed=self._speed, stream=terminal)
        yield from more.items()

    def _tick_sinks(self, journaled: bool) -> Iterator[tuple[str, Sink]]:
        if self._persists(Target.PARQUET) and self._settings.persist.store_ticks and not journaled:
            from streaming_service.sinks.ticks import RawTickSink

            yield "ticks", RawTickSink(partial(_tick_writer, self._settings.persist.path))

    def _outlet(self, name: str, sink: Sink) -> Outlet:
        stored = name in _STORED
        return Outlet(
            name,
            sink,
            clock=self._wall,
            capacity=self._settings.persist.queue_size if stored else self._settings.serve.queue_size,
            policy=FullPolicy.BLOCK if stored or name in _NEVER_WAITS else FullPolicy.DROP_OLDEST,
            flush_interval_s=_FLUSHED.get(name, FLUSH_INTERVAL_S) if stored or name in _DURABLE else None,
            busy_attempts=_PATIENT if stored else BUSY_ATTEMPTS,
        )


def _candle_writer(path: str) -> Any:
    from market_data_tick_handler.storage.candle_files import CandleWriter

    return CandleWriter(path)


def _tick_writer(path: str) -> Any:
    from market_data_tick_handler.storage.raw_ticks import RawTickWriter

    return RawTickWriter(path, existing="append")

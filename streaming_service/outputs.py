"""Where candles and ticks of a service go: the sinks that the settings ask for, each behind its outlet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, TextIO

from market_data_tick_handler.config.settings import Mode, Settings, Target, Transport
from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.instruments import InstrumentDefinition
from market_data_tick_handler.core.ticks import DataType
from streaming_service.clock import Clock
from streaming_service.monitoring.metrics import Sample
from streaming_service.numbering import ChannelNumbers, first_number
from streaming_service.serving.options import ServingOptions
from streaming_service.serving.samples import websocket_samples
from streaming_service.serving.sink import ServingSink
from streaming_service.sink import BUSY_ATTEMPTS, FullPolicy, Outlet, Sink
from streaming_service.sinks.bus import InProcessBus
from streaming_service.sinks.terminal import TerminalSink

if TYPE_CHECKING:
    from streaming_service.sinks.bigquery.sink import BigQuerySink
    from streaming_service.sinks.marks import MarkSource
    from streaming_service.sinks.redis.sink import RedisSink
    from streaming_service.sinks.tables.local import LocalTableSink
    from streaming_service.sinks.tables.sink import TableSink

FLUSH_INTERVAL_S: Final = 5.0
# A flush of the spool is what makes its rows outlive the process.
_FLUSHED: Final[Mapping[str, float]] = {"bigquery": 1.0, "tables": 1.0}
# What is stored must not have holes; what is watched may be late for itself only.
_STORED: Final = ("parquet", "tables", "bigquery", "ticks")
# What a restart delivers again. Redis bounds what waits for it itself, and must hold nobody up.
_DURABLE: Final = ("parquet", "tables", "bigquery", "redis")
# Takes everything at once, and is no slower than the turn that closes a thousand candles.
_NEVER_WAITS: Final = ("websocket", "metered")
# Batches for a program that takes ticks; a turn makes one or a few.
_TICKS_WAITING: Final = 64
# Tries of a sink whose disk is full, up to ten seconds apart, before rows count as lost: ten minutes.
_PATIENT: Final = 64


class _TakesOpenCandles(Protocol):
    def write_open(self, batch: CandleBatch) -> None: ...


class Outputs:
    """The outlets of one service.

    terminal: a stream that gets one line per candle. more: further sinks for candles, by name; for stored ticks too
    where they say `takes_ticks`. journaled: day files are
    written from journals, and not as rows come. speed: of the service's clock, in seconds per second of `wall`.
    marks: what the sink of a name says on the channels of marks. ticks: sinks for ticks, by name, for which everything
    else waits.
    instruments: those of now.
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
        marks: Callable[[str], MarkSource],
        instruments: Callable[[], Iterable[InstrumentDefinition]],
        ticks: Mapping[str, Sink] | None = None,
    ) -> None:
        self.bus = InProcessBus()
        told = marks("websocket") if Mode.SERVE in settings.modes else None
        self.serving = ServingSink(ServingOptions.of(settings.serve), clock=wall, marks=told)
        self.redis: RedisSink | None = None
        self._settings = settings
        self._instruments = instruments
        self._wall = wall
        self._speed = speed
        if Mode.SERVE in settings.modes and settings.serve.transport is Transport.REDIS:
            from streaming_service.sinks.redis.options import RedisOptions
            from streaming_service.sinks.redis.sink import RedisSink as Redis

            self.redis = Redis(RedisOptions.of(settings.serve), clock=wall, marks=marks("redis"))
        self.bigquery = self._bigquery() if self._persists(Target.BIGQUERY) else None
        self.tables = self._tables() if self._persists(Target.PARQUET) and settings.persist.tables else None
        self.candles = [self._outlet(name, sink) for name, sink in self._candle_sinks(terminal, more)]
        self.ticks = [self._outlet(name, sink) for name, sink in self._tick_sinks(journaled)]
        self.ticks += [Outlet(name, sink, clock=wall, capacity=_TICKS_WAITING) for name, sink in (ticks or {}).items()]
        if settings.keeps_ticks:
            takers: dict[str, Sink] = dict(self._table_sinks)
            takers |= {name: sink for name, sink in more.items() if getattr(sink, "takes_ticks", False)}
            there = {outlet.name: outlet for outlet in self.candles}
            self.ticks += [there.get(name) or self._outlet(name, sink) for name, sink in takers.items()]

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
        if self.tables is not None:
            told["tables"] = [asdict(table) for table in self.tables.report()]
        for name, sink in self._table_sinks.items():
            from streaming_service.sinks.tables.samples import cost_report

            told.setdefault("cost", {})[name] = cost_report(sink, self._wall.now_us())
        return told

    def samples(self) -> Iterator[Sample]:
        """Metrics of sinks that have some of their own."""
        if Mode.SERVE in self._settings.modes:
            yield from websocket_samples(self.serving)
        if self.redis is not None:
            from streaming_service.sinks.redis.samples import redis_samples

            yield from redis_samples(self.redis)
        for name, sink in self._table_sinks.items():
            from streaming_service.sinks.tables.samples import table_samples

            yield from table_samples(name, sink, self._wall.now_us())

    @property
    def _table_sinks(self) -> Mapping[str, TableSink]:
        """Sinks of tables, by the name of their outlet."""
        found: dict[str, TableSink | None] = {"bigquery": self.bigquery, "tables": self.tables}
        return {name: sink for name, sink in found.items() if sink is not None}

    def _persists(self, target: Target) -> bool:
        settings = self._settings
        return (settings.keeps_candles or settings.keeps_ticks) and settings.persist.target is target

    def _bigquery(self) -> BigQuerySink:
        from streaming_service.sinks.bigquery.sink import BigQuerySink as BigQuery

        settings = self._settings
        enabled = [DataType(name) for name in settings.data_types.enabled()]
        return BigQuery(
            settings.persist.bigquery,
            timeframes=settings.candles.timeframes if settings.keeps_candles else (),
            data_types=enabled if settings.keeps_ticks else (),
            chains=DataType.OPTIONS in enabled,
            groups=[str(group) for group in settings.features.groups],
            clock=self._wall,
            service=settings.serve.service,
            instruments=self._instruments,
        )

    def _tables(self) -> LocalTableSink:
        from streaming_service.sinks.tables.local import LocalTableSink as LocalTables

        return LocalTables(
            self._settings.persist,
            groups=[str(group) for group in self._settings.features.groups],
            clock=self._wall,
            service=self._settings.serve.service,
        )

    def _candle_sinks(self, terminal: TextIO | None, more: Mapping[str, Sink]) -> Iterator[tuple[str, Sink]]:
        settings = self._settings
        if Mode.SERVE in settings.modes:
            yield "bus", self.bus
            yield "websocket", self.serving
        if self.redis is not None:
            yield "redis", self.redis
        if settings.keeps_candles and self.bigquery is not None:
            yield "bigquery", self.bigquery
        if settings.keeps_candles and self._persists(Target.PARQUET):
            from streaming_service.sinks.parquet import ParquetSink

            yield "parquet", ParquetSink(partial(_candle_writer, settings.persist.path))
        if settings.keeps_candles and self.tables is not None:
            yield "tables", self.tables
        if terminal is not None and settings.modes != (Mode.TICKS,):
            yield "terminal", TerminalSink(grace_us=settings.candles.grace_us, speed=self._speed, stream=terminal)
        yield from more.items()

    def _tick_sinks(self, journaled: bool) -> Iterator[tuple[str, Sink]]:
        if self._persists(Target.PARQUET) and self._settings.keeps_ticks and not journaled:
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
            numbers=ChannelNumbers(first_number(self._wall.now_us())) if sink is self.bus else None,
        )


def _candle_writer(path: str) -> Any:
    from market_data_tick_handler.storage.candle_files import CandleWriter

    return CandleWriter(path)


def _tick_writer(path: str) -> Any:
    from market_data_tick_handler.storage.raw_ticks import RawTickWriter

    return RawTickWriter(path, existing="append")

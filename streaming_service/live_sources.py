"""Live sources from the settings: per exchange and data type the chosen source and those that stand in for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from market_data_tick_handler.config.settings import Settings, SourceName
from market_data_tick_handler.core.instruments import InstrumentDefinition, data_types_for
from market_data_tick_handler.core.liveness import PaceLimits
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.errors import ConfigError
from streaming_service.clock import Clock
from streaming_service.failover import FailoverSource, LiveSource
from streaming_service.fetchers import ExchangeFetcher, RestFetcher, TardisFetcher
from streaming_service.ingest import Feed
from streaming_service.repair import TradeFetcher
from streaming_service.sources.connection.feed import ExchangeSource
from streaming_service.sources.connection.options import ConnectionOptions
from streaming_service.sources.connection.recorder import FrameRecorder
from streaming_service.sources.connection.status import ConnectionStatus, SourceStatus
from streaming_service.sources.exchanges.protocol import Endpoints, Venue
from streaming_service.sources.exchanges.venues import VENUES
from streaming_service.sources.tardis_machine.replay import MachineTrades
from streaming_service.sources.tardis_machine.venue import TardisMachine
from streaming_service.sources.tardis_replay.client import TardisAccess
from streaming_service.sources.tardis_replay.replay import TardisTrades

LIVE: Final = (SourceName.TARDIS_REALTIME, SourceName.EXCHANGE)
Chain = tuple[SourceName, ...]


@dataclass(slots=True)
class LiveSources:
    """The feeds of a live service, what runs behind them, and where missing trades are fetched.

    sources: every connection shell, by feed and name of the source.
    """

    feeds: list[Feed] = field(default_factory=list)
    sources: dict[tuple[str, SourceName], ExchangeSource] = field(default_factory=dict)
    failovers: dict[str, FailoverSource] = field(default_factory=dict)
    fetchers: dict[str, list[TradeFetcher]] = field(default_factory=dict)
    recorders: list[FrameRecorder] = field(default_factory=list)
    _exchanges: dict[str, str] = field(default_factory=dict)

    def report(self, now_us: int) -> dict[str, Any]:
        """For /health: per feed which source is in use, and how its connections are."""
        return {
            feed.name: {
                "active": self._active(feed.name),
                "switches": self.failovers[feed.name].switches if feed.name in self.failovers else 0,
                "sources": {
                    str(name): source_report(source.status(), now_us)
                    for (owner, name), source in self.sources.items()
                    if owner == feed.name
                },
            }
            for feed in self.feeds
        }

    def _active(self, feed: str) -> str:
        if feed in self.failovers:
            return self.failovers[feed].active
        return next(str(name) for owner, name in self.sources if owner == feed)

    def close(self) -> None:
        """End the recordings."""
        for recorder in self.recorders:
            recorder.close()

    def set_instruments(self, instruments: Sequence[InstrumentDefinition]) -> None:
        """Make every source carry exactly the instruments of its exchange.

        Raises:
            ConfigError: an exchange has no source in this process.
        """
        strangers = sorted({each.exchange for each in instruments} - set(self._exchanges.values()))
        if strangers:
            raise ConfigError(
                f"exchanges {', '.join(strangers)} have no connection in this process",
                key="instruments",
                hint="restart with an instrument of the exchange, or start a process for it",
            )
        for (feed, _), source in self.sources.items():
            source.set_instruments([each for each in instruments if each.exchange == self._exchanges[feed]])


class _Maker:
    """Makes the sources of one service."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._options = _connection_options(settings)
        self.made = LiveSources()

    def add(
        self, exchange: str, chain: Chain, data_types: Sequence[DataType], members: Sequence[InstrumentDefinition]
    ) -> None:
        """One feed: the instruments of an exchange, of data types that share their sources."""
        feed = f"{exchange}:{'+'.join(data_types)}"
        live = [name for name in chain if name in LIVE]
        sources = [(str(name), self._source(feed, name, exchange, data_types, members)) for name in live]
        source: LiveSource = sources[0][1]
        if len(sources) > 1:
            failover = self._settings.failover
            source = self.made.failovers[feed] = FailoverSource(
                sources, clock=self._clock, after_s=failover.after.s, back_after_s=failover.back_after.s
            )
        self.made.feeds.append(Feed(feed, source))
        self.made._exchanges[feed] = exchange
        if DataType.TRADES in data_types:
            for member in members:
                self.made.fetchers[member.key] = list(self._fetchers(feed, chain, exchange))

    def _source(
        self,
        feed: str,
        name: SourceName,
        exchange: str,
        data_types: Sequence[DataType],
        members: Sequence[InstrumentDefinition],
    ) -> ExchangeSource:
        source = ExchangeSource(
            self._venue(name, exchange),
            members,
            data_types,
            clock=self._clock,
            endpoints=self._endpoints(exchange) if name is SourceName.EXCHANGE else None,
            options=self._options,
            recorder=self._recorder(feed, name, exchange),
        )
        self.made.sources[feed, name] = source
        return source

    def _venue(self, name: SourceName, exchange: str) -> Venue:
        if name is SourceName.TARDIS_REALTIME:
            return TardisMachine(self._settings.tardis.machine_url)
        venue = VENUES.get(exchange)
        if venue is None:
            raise ConfigError(
                f"there is no adapter for exchange {exchange!r}",
                key="data_types.*.source",
                hint=f"use tardis_realtime, or one of: {', '.join(sorted(VENUES))}",
            )
        return venue

    def _endpoints(self, exchange: str) -> Endpoints | None:
        chosen = self._settings.exchange.endpoints.get(exchange)
        return None if chosen is None else Endpoints(chosen.sockets, chosen.rest)

    def _recorder(self, feed: str, name: SourceName, exchange: str) -> FrameRecorder | None:
        record = self._settings.record
        if not record.enabled:
            return None
        folder = Path(record.path) / f"{name}-{feed.replace(':', '-')}"
        recorder = FrameRecorder(folder, exchange=exchange, started_us=self._clock.now_us())
        self.made.recorders.append(recorder)
        return recorder

    def _fetchers(self, feed: str, chain: Chain, exchange: str) -> Iterator[TradeFetcher]:
        """Where the missing trades of a feed are: the exchange first, which knows them at once."""
        direct = self.made.sources.get((feed, SourceName.EXCHANGE))
        if direct is not None:
            yield ExchangeFetcher(direct)
        elif exchange in VENUES:
            endpoints = self._endpoints(exchange)
            yield RestFetcher(VENUES[exchange], self._clock, None if endpoints is None else endpoints.rest)
        if SourceName.TARDIS_REALTIME in chain:
            yield TardisFetcher(MachineTrades(self._settings.tardis.machine_url), "tardis-machine")
        if SourceName.TARDIS_REPLAY in chain:
            yield TardisFetcher(TardisTrades(VENUES, tardis_access(self._settings)), "tardis")


def live_sources(settings: Settings, instruments: Sequence[InstrumentDefinition], clock: Clock) -> LiveSources:
    """The sources of every enabled data type of every instrument.

    Raises:
        ConfigError: an exchange has no adapter.
    """
    maker = _Maker(settings, clock)
    for exchange, members in _by_exchange(instruments).items():
        for chain, data_types in _by_chain(settings, members).items():
            maker.add(exchange, chain, data_types, members)
    return maker.made


def source_report(status: SourceStatus, now_us: int) -> dict[str, Any]:
    """One source as JSON: ages in seconds, counts by `instrument/data_type`."""
    return {
        "connections": [_connection_report(each, now_us) for each in status.connections],
        "buffered_frames": status.buffered,
        "holds": status.holds,
        "refused": status.refused,
        "violations": status.violations,
        "unknown": status.unknown,
        "missing": status.missing,
        "book_resyncs": status.resyncs,
        "rest": {"calls": status.rest_calls, "failures": status.rest_failures, "weight_used": status.weight_used},
        "filtered": {f"{key}/{data_type}": rows for (key, data_type), rows in status.filtered.items()},
        "repeated": {f"{key}/{data_type}": rows for (key, data_type), rows in status.repeated.items()},
        "unwanted": {f"{key}/{data_type}": rows for (key, data_type), rows in status.unwanted.items()},
        "recording_failed": status.journal_failed,
    }


def _connection_report(status: ConnectionStatus, now_us: int) -> dict[str, Any]:
    return {
        "path": status.path,
        "state": status.state,
        "streams": status.streams,
        "acknowledged": status.acknowledged,
        "frames": status.frames,
        "reconnects": status.reconnects,
        "renewals": status.renewals,
        "last_frame_age_s": _age_s(status.last_frame_us, now_us),
        "last_proof_of_life_age_s": _age_s(status.last_proof_us, now_us),
        "believable_silence_s": round(status.silence_us / 1e6, 3),
        "clock_offset_ms": None if status.offset_us is None else round(status.offset_us / 1e3, 3),
        "last_error": status.last_error,
    }


def _age_s(then_us: int, now_us: int) -> float | None:
    return round((now_us - then_us) / 1e6, 3) if then_us else None


def tardis_access(settings: Settings) -> TardisAccess:
    """How the settings reach Tardis.dev."""
    tardis = settings.tardis
    access = TardisAccess(api_key=tardis.api_key.get_secret_value(), endpoint=tardis.api_url)
    return access if tardis.cache_dir is None else replace(access, cache_dir=tardis.cache_dir)


def _by_exchange(instruments: Sequence[InstrumentDefinition]) -> Mapping[str, list[InstrumentDefinition]]:
    groups: dict[str, list[InstrumentDefinition]] = {}
    for instrument in instruments:
        groups.setdefault(instrument.exchange, []).append(instrument)
    return groups


def _by_chain(settings: Settings, members: Sequence[InstrumentDefinition]) -> Mapping[Chain, list[DataType]]:
    """Data types that some member has, by the sources they are read from."""
    there = {data_type for member in members for data_type in data_types_for(member.instrument_type)}
    groups: dict[Chain, list[DataType]] = {}
    for name, section in settings.data_types.enabled().items():
        if section.source in LIVE and DataType(name) in there:
            chain = tuple(dict.fromkeys((section.source, *section.fallback)))
            groups.setdefault(chain, []).append(DataType(name))
    return groups


def _connection_options(settings: Settings) -> ConnectionOptions:
    exchange = settings.exchange
    limits = PaceLimits(floor_us=exchange.shortest_silence.us, ceiling_us=exchange.longest_silence.us)
    return ConnectionOptions(pong_within_s=exchange.pong_timeout.s, silence=limits)

"""Live sources from the settings: per exchange and data type the chosen source and those that stand in for it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from market_data_tick_handler.config.settings import Settings, SourceName
from market_data_tick_handler.core.instruments import (
    InstrumentDefinition,
    InstrumentType,
    data_types_for,
    parse_instrument_key,
)
from market_data_tick_handler.core.liveness import PaceLimits
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.errors import ConfigError
from streaming_service.clock import Clock
from streaming_service.failover import FailoverSource, LiveSource
from streaming_service.fetchers import ExchangeFetcher, RestFetcher, TardisFetcher
from streaming_service.ingest import Feed
from streaming_service.repair import TradeFetcher
from streaming_service.run_log import FOLDER, RecordedSource, RunLog
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

log = logging.getLogger(__name__)

LIVE: Final = (SourceName.TARDIS_REALTIME, SourceName.EXCHANGE)
Chain = tuple[SourceName, ...]


@dataclass(slots=True)
class LiveSources:
    """The feeds of a live service, what runs behind them, and where missing trades are fetched.

    sources: every connection shell, by feed and name of the source. recorders: of their frames, and run_log of the
    rest, where recording is on.
    """

    feeds: list[Feed] = field(default_factory=list)
    sources: dict[tuple[str, SourceName], ExchangeSource] = field(default_factory=dict)
    failovers: dict[str, FailoverSource] = field(default_factory=dict)
    fetchers: dict[str, list[TradeFetcher]] = field(default_factory=dict)
    recorders: dict[tuple[str, SourceName], FrameRecorder] = field(default_factory=dict)
    run_log: RunLog | None = None
    _carried: dict[str, tuple[str, frozenset[DataType]]] = field(default_factory=dict)
    _chains: dict[str, Chain] = field(default_factory=dict)
    _fetchers: dict[str, list[TradeFetcher]] = field(default_factory=dict)

    def carry(
        self, feed: Feed, exchange: str, data_types: Sequence[DataType], chain: Chain, fetchers: Sequence[TradeFetcher]
    ) -> None:
        """One more feed: what it carries of an exchange, from which sources, and where its missing trades are."""
        self.feeds.append(feed)
        self._carried[feed.name] = (exchange, frozenset(data_types))
        self._chains[feed.name] = chain
        if DataType.TRADES in data_types:
            self._fetchers[exchange] = list(fetchers)

    def report(self, now_us: int) -> dict[str, Any]:
        """For /health: per feed which source is in use, and how its connections are."""
        return {
            feed.name: {
                "active": self.active(feed.name),
                "switches": self.failovers[feed.name].switches if feed.name in self.failovers else 0,
                "order": [str(name) for name in self._chains[feed.name]],
                "missing_trades_from": [fetcher.name for fetcher in self._missing_from(feed.name)],
                "sources": {
                    str(name): source_report(source.status(), now_us)
                    for (owner, name), source in self.sources.items()
                    if owner == feed.name
                },
            }
            for feed in self.feeds
        }

    def _missing_from(self, feed: str) -> Sequence[TradeFetcher]:
        exchange, data_types = self._carried[feed]
        return self._fetchers[exchange] if DataType.TRADES in data_types else ()

    def active(self, feed: str) -> str:
        """Name of the source whose rows a feed uses."""
        if feed in self.failovers:
            return self.failovers[feed].active
        return next(str(name) for owner, name in self.sources if owner == feed)

    def close(self) -> None:
        """End the recordings."""
        for recorder in self.recorders.values():
            recorder.close()
        if self.run_log is not None:
            self.run_log.close()

    def check(self, instruments: Sequence[InstrumentDefinition]) -> None:
        """Whether the feeds can carry these instruments.

        Raises:
            ConfigError: no feed of this process carries what the candles of one of them are made of.
        """
        carried = {(exchange, data_type) for exchange, types in self._carried.values() for data_type in types}
        strangers = [each.key for each in instruments if (each.exchange, primary_type(each)) not in carried]
        if strangers:
            raise ConfigError(
                f"{', '.join(strangers)}: this process has no connection for it",
                key="instruments",
                hint="restart with the instrument, or start a process for its exchange",
            )

    def set_instruments(self, instruments: Sequence[InstrumentDefinition]) -> None:
        """Make every source carry exactly the instruments of its exchange. Raises as `check`."""
        self.check(instruments)
        for each in instruments:
            self.note_fetchers(each)
        for (feed, _), source in self.sources.items():
            exchange, _types = self._carried[feed]
            source.set_instruments([each for each in instruments if each.exchange == exchange])

    def note_fetchers(self, instrument: InstrumentDefinition) -> None:
        """The missing trades of an instrument are where those of its exchange are."""
        if instrument.exchange in self._fetchers:
            self.fetchers[instrument.key] = self._fetchers[instrument.exchange]


def primary_type(instrument: InstrumentDefinition) -> DataType:
    """The data type that makes candles."""
    return DataType.OPTIONS if instrument.instrument_type is InstrumentType.OPTION_CHAIN else DataType.TRADES


class _Maker:
    """Makes the sources of one service."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._options = _connection_options(settings)
        self._started_us = clock.now_us()
        self.made = LiveSources()
        if settings.record.enabled:
            self.made.run_log = RunLog(Path(settings.record.path) / FOLDER, started_us=self._started_us)

    def add(self, wanted: WantedFeed) -> None:
        """One feed more."""
        feed, exchange, chain = wanted.name, wanted.exchange, wanted.chain
        data_types, members = wanted.data_types, wanted.members
        if SourceName.TRADE_TRANSFORMATION in chain:
            # One candle must not mix what a venue told with what was made of its trades.
            log.warning(
                "trade_transformation stands in for no outage: as a source it replaces the venue's own",
                extra={"feed": feed},
            )
        live = [name for name in chain if name in LIVE]
        sources = [(str(name), self._source(feed, name, exchange, data_types, members)) for name in live]
        source: LiveSource = sources[0][1]
        if len(sources) > 1:
            failover = self._settings.failover
            source = self.made.failovers[feed] = FailoverSource(
                sources,
                clock=self._clock,
                after_s=failover.after.s,
                back_after_s=failover.back_after.s,
                on_switch=partial(self._note_switch, feed),
            )
        there = frozenset(data_types)
        made = Feed(feed, source, vouches_for=lambda key: primary_type(parse_instrument_key(key)) in there)
        self.made.carry(made, exchange, data_types, chain, list(self._fetchers(feed, chain, exchange)))
        for member in members:
            self.made.note_fetchers(member)

    def _source(
        self,
        feed: str,
        name: SourceName,
        exchange: str,
        data_types: Sequence[DataType],
        members: Sequence[InstrumentDefinition],
    ) -> ExchangeSource:
        source = ExchangeSource(
            venue_of(self._settings, name, exchange),
            members,
            data_types,
            clock=self._clock,
            endpoints=endpoints_of(self._settings, exchange) if name is SourceName.EXCHANGE else None,
            options=self._options,
            recorder=self._recorder(feed, name, exchange),
        )
        self.made.sources[feed, name] = source
        return source

    def _recorder(self, feed: str, name: SourceName, exchange: str) -> FrameRecorder | None:
        record = self._settings.record
        if not record.enabled:
            return None
        recorder = FrameRecorder(
            Path(record.path) / _folder(feed, name), exchange=exchange, started_us=self._started_us
        )
        self.made.recorders[feed, name] = recorder
        return recorder

    def begin_record(self) -> None:
        """Everything is made: tell the recording of what it consists."""
        if self.made.run_log is not None:
            told = (RecordedSource(feed, str(name), _folder(feed, name)) for feed, name in self.made.recorders)
            self.made.run_log.run_began(told)

    def _note_switch(self, feed: str, active: str) -> None:
        if self.made.run_log is not None:
            self.made.run_log.switched(feed, active, self._clock.now_us())

    def _fetchers(self, feed: str, chain: Chain, exchange: str) -> Iterator[TradeFetcher]:
        """Where the missing trades of a feed are: the exchange first, which knows them at once."""
        direct = self.made.sources.get((feed, SourceName.EXCHANGE))
        if direct is not None:
            yield ExchangeFetcher(direct)
        elif exchange in VENUES:
            endpoints = endpoints_of(self._settings, exchange)
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
    for wanted in wanted_feeds(settings, instruments):
        maker.add(wanted)
    maker.begin_record()
    return maker.made


@dataclass(frozen=True, slots=True)
class WantedFeed:
    """The instruments of an exchange, of data types that share their sources: `chain`, the first of which is used
    while it works."""

    exchange: str
    chain: Chain
    data_types: tuple[DataType, ...]
    members: tuple[InstrumentDefinition, ...]

    @property
    def name(self) -> str:
        return f"{self.exchange}:{'+'.join(self.data_types)}"


def wanted_feeds(settings: Settings, instruments: Sequence[InstrumentDefinition]) -> list[WantedFeed]:
    """The feeds of every enabled data type that comes over the network."""
    return [
        WantedFeed(exchange, chain, tuple(data_types), tuple(members))
        for exchange, members in _by_exchange(instruments).items()
        for chain, data_types in _by_chain(settings, members).items()
    ]


def venue_of(settings: Settings, name: SourceName, exchange: str) -> Venue:
    """Who is talked to for an exchange, by a source that is live.

    Raises:
        ConfigError: there is no adapter.
    """
    if name is SourceName.TARDIS_REALTIME:
        return TardisMachine(settings.tardis.machine_url)
    venue = VENUES.get(exchange)
    if venue is None:
        raise ConfigError(
            f"there is no adapter for exchange {exchange!r}",
            key="data_types.*.source",
            hint=f"use tardis_realtime, or one of: {', '.join(sorted(VENUES))}",
        )
    return venue


def endpoints_of(settings: Settings, exchange: str) -> Endpoints | None:
    """Servers that stand in for the real ones of an exchange."""
    chosen = settings.exchange.endpoints.get(exchange)
    return None if chosen is None else Endpoints(chosen.sockets, chosen.rest)


def _folder(feed: str, name: SourceName) -> str:
    """Where the frames of a source are recorded, below `record.path`."""
    return f"{name}-{feed.replace(':', '-')}"


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

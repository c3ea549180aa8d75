"""The connections a service would open, and what the other sides allow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from market_data_tick_handler.config.feeds import LIVE_SOURCES
from market_data_tick_handler.config.settings import Mode, Settings, SourceName, Target, Transport
from market_data_tick_handler.core.instruments import InstrumentDefinition, InstrumentType
from market_data_tick_handler.wire.redis_urls import RedisMode, parse_redis_url
from streaming_service.feeds import check_sources
from streaming_service.planning.rates import Rates
from streaming_service.sources.connection.options import RestOptions
from streaming_service.sources.exchanges.protocol import Bounded, Chains, Venue

_SHARE: Final = RestOptions().share


@dataclass(frozen=True, slots=True, kw_only=True)
class Connections:
    """The connections of one feed to one source, or to one target.

    stands_by: opened while the sources before it are down. sockets: at a time. streams: instruments times data types.
    load: what the fullest socket carries of `bound`, both in `unit`; chosen: the bound is ours. allowed: sockets from
    one address, None where nobody says. rest_start, rest_minute: weight of REST calls at the start, and per minute
    from then on; rest_limit: a minute.
    """

    name: str
    source: str
    address: str
    sockets: int
    stands_by: bool = False
    streams: int = 0
    load: int = 0
    bound: int | None = None
    unit: str = ""
    chosen: bool = False
    allowed: int | None = None
    rest_start: int = 0
    rest_minute: float = 0.0
    rest_limit: int | None = None

    def warnings(self) -> Iterator[str]:
        """What the other side would not bear."""
        if self.allowed is not None and self.sockets > self.allowed:
            yield (
                f"{self.name} from {self.source}: {self.sockets} connections, and {self.allowed} are allowed from one "
                "address; spread the instruments over several"
            )
        if self.bound is not None and self.load > self.bound:
            yield (
                f"{self.name} from {self.source}: one subscription takes {self.load:,} of {self.bound:,} {self.unit}; "
                "it cannot be divided"
            )
        if self.rest_limit is not None and self.rest_minute > self.rest_limit * _SHARE:
            yield (
                f"{self.name} from {self.source}: REST calls weigh {self.rest_minute:,.0f} a minute, and "
                f"{self.rest_limit * _SHARE:,.0f} of the venue's {self.rest_limit:,} are used at most"
            )
        if self.rest_limit is not None and self.rest_start > self.rest_limit * _SHARE:
            minutes = self.rest_start / (self.rest_limit * _SHARE)
            yield f"{self.name} from {self.source}: it takes {minutes:.1f} minutes until every order book is there"


def plan_connections(
    settings: Settings, instruments: Sequence[InstrumentDefinition], rates: Rates
) -> list[Connections]:
    """Every connection, those to sources first.

    Raises:
        ConfigError: sources do not go together, an exchange has no adapter, an address is none. InstrumentError: a
            source does not have an instrument.
    """
    return [*_sources(settings, instruments, rates), *_targets(settings)]


def _sources(settings: Settings, instruments: Sequence[InstrumentDefinition], rates: Rates) -> Iterator[Connections]:
    (first, *_) = sorted(check_sources(settings))
    if first not in LIVE_SOURCES:
        yield Connections(name="all instruments", source=str(first), address=_recorded(settings, first), sockets=0)
        return
    from streaming_service.live_sources import endpoints_of, venue_of, wanted_feeds

    for feed in wanted_feeds(settings, instruments):
        for place, name in enumerate(each for each in feed.chain if each in LIVE_SOURCES):
            venue = _with_chains(venue_of(settings, name, feed.exchange), feed.members, rates)
            endpoints = endpoints_of(settings, feed.exchange) if name is SourceName.EXCHANGE else None
            subscriptions = venue.subscriptions(feed.members, feed.data_types)
            polls = venue.polls(feed.members, feed.data_types)
            books = [venue.snapshot(each) for each in feed.members] if "book_snapshot_5" in feed.data_types else []
            bounds = venue.bounds if isinstance(venue, Bounded) else None
            yield Connections(
                name=feed.name,
                source=str(name),
                address=(venue.endpoints if endpoints is None else endpoints).sockets,
                stands_by=place > 0,
                sockets=len(subscriptions),
                streams=len(frozenset().union(*(each.streams for each in subscriptions))),
                load=max((each.load for each in subscriptions), default=0),
                bound=None if bounds is None else bounds.load,
                unit="" if bounds is None else bounds.unit,
                chosen=bounds is not None and bounds.chosen,
                allowed=None if bounds is None else bounds.connections,
                rest_start=sum(book[0].weight for book in books if book is not None),
                rest_minute=sum(poll.request.weight * 60.0 / poll.every_s for poll in polls),
                rest_limit=venue.weight_per_minute if name is SourceName.EXCHANGE else None,
            )


def _with_chains(venue: Venue, instruments: Sequence[InstrumentDefinition], rates: Rates) -> Venue:
    """The venue as it is once it was asked for the options of its chains: here so many, whatever they are called."""
    chains = [each for each in instruments if each.instrument_type is InstrumentType.OPTION_CHAIN]
    if not chains or not isinstance(venue, Chains) or not venue.chains_first:
        return venue
    return venue.with_chains(
        {
            chain.key: [f"{chain.base}-1JAN30-{strike}-C" for strike in range(1, rates.options_per_chain + 1)]
            for chain in chains
        }
    )


def _recorded(settings: Settings, name: SourceName) -> str:
    return {
        SourceName.FILES: ", ".join(map(str, settings.files.paths)),
        SourceName.TARDIS_REPLAY: settings.tardis.api_url,
    }.get(name, "in the process")


def _targets(settings: Settings) -> Iterator[Connections]:
    if Mode.SERVE in settings.modes and settings.serve.transport is Transport.REDIS:
        address = parse_redis_url(settings.serve.redis_url.get_secret_value(), ca_file=settings.serve.redis_ca_file)
        places = ", ".join(f"{host}:{port}" for host, port in address.hosts)
        cluster = address.mode is RedisMode.CLUSTER
        yield Connections(name="candles", source="redis", address=places, sockets=len(address.hosts) if cluster else 1)
    if (settings.keeps_candles or settings.keeps_ticks) and settings.persist.target is Target.BIGQUERY:
        bigquery = settings.persist.bigquery
        yield Connections(
            name="tables",
            source="bigquery",
            address=f"{bigquery.api_endpoint or 'bigquery.googleapis.com'}, "
            f"{bigquery.grpc_endpoint or 'bigquerystorage.googleapis.com'}",
            # One for calls and one for appends, whatever the number of tables.
            sockets=2,
        )
    monitoring = settings.monitoring
    yield Connections(
        name="pages, metrics, subscribers",
        source="http",
        address=f"{monitoring.host}:{monitoring.port}, to listen on",
        sockets=0,
    )

"""How one talks to Deribit: connections, subscriptions, heartbeats, REST calls.

Without credentials Deribit sends trades, books and tickers at most every 100 ms. Books come with a snapshot of their
own after each subscription. A lost heartbeat ends the connection, so every connection asks for them first.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from market_data_tick_handler.core.instruments import InstrumentDefinition, chain_of
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.errors import InstrumentError
from streaming_service.sources.exchanges.deribit.chains import chain_request, read_chain
from streaming_service.sources.exchanges.deribit.channels import CARRIED, EXCHANGE, is_chain, wire_name
from streaming_service.sources.exchanges.deribit.control import (
    ask_for_heartbeats,
    read_control,
    subscribe,
    unsubscribe,
)
from streaming_service.sources.exchanges.deribit.decoder import DeribitDecoder
from streaming_service.sources.exchanges.deribit.frames import BOOK, TICKER
from streaming_service.sources.exchanges.deribit.history import DeribitTradeHistory, last_trade_request
from streaming_service.sources.exchanges.protocol import (
    ConnectionBounds,
    Control,
    Decoder,
    Endpoints,
    KeepAlive,
    Poll,
    Request,
    Stream,
    Subscription,
)

PATH: Final = "/ws/api/v2"
# Deribit refuses requests that are too long ("request entity too large" beyond some 250 channels of options).
CHANNELS_PER_MESSAGE: Final = 200
# Our choice: a whole chain of BTC fits into three of the 32 connections that Deribit allows an address.
CHANNELS_PER_CONNECTION: Final = 500
CONNECTIONS: Final = 32
# A subscription costs 3,000 of the 10,000 credits that come in a second.
PAUSE_S: Final = 0.35
HEARTBEAT_S: Final = 10
_INTERVAL: Final = "100ms"
_ENDPOINTS: Final = Endpoints("wss://streams.deribit.com", "https://www.deribit.com")
_KEEP_ALIVE: Final = KeepAlive(HEARTBEAT_S)
_BOUNDS: Final = ConnectionBounds(load=CHANNELS_PER_CONNECTION, unit="channels", chosen=True, connections=CONNECTIONS)
_HISTORY: Final = DeribitTradeHistory()


@dataclass(frozen=True, slots=True)
class _Unit:
    """Channels that stay together on a connection, and the streams that come over them."""

    channels: tuple[str, ...]
    streams: frozenset[Stream]


@dataclass(frozen=True, slots=True)
class DeribitVenue:
    """Deribit; see `protocol.Venue`, and `chains.Chains` for whole option chains.

    chains: by key of a chain, the symbols of its options as Deribit writes them.
    """

    chains: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    exchange: str = EXCHANGE
    endpoints: Endpoints = _ENDPOINTS
    keep_alive: KeepAlive = _KEEP_ALIVE
    max_age_s: float | None = None
    # Twenty requests a second.
    weight_per_minute: int = 1_200
    history: DeribitTradeHistory = _HISTORY
    bounds: ConnectionBounds = _BOUNDS

    def decoder(
        self, instruments: Sequence[InstrumentDefinition], data_types: Collection[DataType], *, connection: int = 0
    ) -> Decoder:
        """A fresh decoder for one connection."""
        return DeribitDecoder(instruments, data_types, connection=connection)

    def subscriptions(
        self, instruments: Sequence[InstrumentDefinition], data_types: Collection[DataType]
    ) -> list[Subscription]:
        """The connections these streams need; every chain has its own, as its options change.

        The rows of `options_chain` of a single option are a stream of its chain.

        Raises:
            InstrumentError: a chain whose options are not known yet.
        """
        single = [unit for instrument in instruments if (unit := _unit(instrument, data_types)) is not None]
        found = list(_connections(single))
        for instrument in instruments:
            if is_chain(instrument) and DataType.OPTIONS in data_types:
                found.extend(_connections(self._options(instrument)))
        return found

    def control(self, frame: bytes) -> Control:
        """What a frame without data means."""
        return read_control(frame)

    def snapshot(self, instrument: InstrumentDefinition) -> tuple[Request, Callable[[bytes], bytes]] | None:
        """None: books come in-band."""
        return None

    def resubscribe(self, instrument: InstrumentDefinition) -> tuple[bytes, ...]:
        """Messages after which Deribit sends this instrument's book afresh."""
        if DataType.BOOK not in instrument.data_types:
            return ()
        channels = [_channel(BOOK, instrument)]
        return unsubscribe(channels), subscribe(channels)

    def polls(self, instruments: Sequence[InstrumentDefinition], data_types: Collection[DataType]) -> list[Poll]:
        """None: tickers carry the open interest."""
        return []

    def last_trade(self, instrument: InstrumentDefinition) -> Request | None:
        """REST call whose body `history.read` understands and whose newest row is the last trade."""
        return last_trade_request(instrument) if DataType.TRADES in instrument.data_types else None

    @property
    def chains_first(self) -> bool:
        """True: each option has a ticker of its own, and there is none of a chain."""
        return True

    def chain_request(self, chain: InstrumentDefinition) -> Request:
        """The request for the live options of a chain."""
        return chain_request(chain)

    def read_chain(self, chain: InstrumentDefinition, body: bytes) -> tuple[str, ...]:
        """The symbols of its options, as Deribit writes them, by expiry and strike.

        Raises:
            ProtocolViolation: the body is not what Deribit documents.
        """
        return read_chain(chain, body)

    def with_chains(self, options: Mapping[str, Sequence[str]]) -> DeribitVenue:
        """The same venue, which now knows of what these chains consist."""
        return replace(self, chains={**self.chains, **{key: tuple(names) for key, names in options.items()}})

    def _options(self, chain: InstrumentDefinition) -> list[_Unit]:
        names = self.chains.get(chain.key)
        if names is None:
            raise InstrumentError(
                f"{chain.key}: expected the list of its options, which Deribit subscribes one by one; "
                "ask for it with chain_request, read it with read_chain, and pass it to with_chains"
            )
        stream: frozenset[Stream] = frozenset({(chain.key, DataType.OPTIONS)})
        return [_Unit((f"{TICKER}.{wire_name(name)}.{_INTERVAL}",), stream) for name in names]


def _unit(instrument: InstrumentDefinition, data_types: Collection[DataType]) -> _Unit | None:
    """Channels and streams of one instrument that is no chain; None where it has none of these types."""
    if is_chain(instrument):
        return None
    wanted = [data_type for data_type in instrument.data_types if data_type in data_types]
    if not wanted:
        return None
    channels = tuple(
        _channel(kind, instrument) for kind, carried in CARRIED.items() if not set(carried).isdisjoint(wanted)
    )
    streams = frozenset(
        (chain_of(instrument).key if data_type is DataType.OPTIONS else instrument.key, data_type)
        for data_type in wanted
    )
    return _Unit(channels, streams)


def _channel(kind: str, instrument: InstrumentDefinition) -> str:
    return f"{kind}.{wire_name(instrument.venue_symbol)}.{_INTERVAL}"


def _connections(units: Sequence[_Unit]) -> Iterator[Subscription]:
    """Units in order, as many to a connection as it takes."""
    held: list[_Unit] = []
    count = 0
    for unit in units:
        if held and count + len(unit.channels) > CHANNELS_PER_CONNECTION:
            yield _subscription(held)
            held, count = [], 0
        held.append(unit)
        count += len(unit.channels)
    if held:
        yield _subscription(held)


def _subscription(units: Sequence[_Unit]) -> Subscription:
    channels = [channel for unit in units for channel in unit.channels]
    requests = [
        subscribe(channels[start : start + CHANNELS_PER_MESSAGE])
        for start in range(0, len(channels), CHANNELS_PER_MESSAGE)
    ]
    return Subscription(
        path=PATH,
        messages=(ask_for_heartbeats(HEARTBEAT_S), *requests),
        streams=frozenset[Stream]().union(*(unit.streams for unit in units)),
        pause_s=PAUSE_S,
        load=len(channels),
    )

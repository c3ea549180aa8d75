"""How one talks to OKX: which sockets carry what, keep-alive, REST calls.

Trades, every single one, come over the socket `business`, all else over `public`. Limits: 480 subscribe and unsubscribe
requests an hour and connection, 64 KB a message, three new connections a second and address; 30 s without any message
end a connection. There is none on channels per connection.
https://www.okx.com/docs-v5/en/#overview-websocket-connect
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec

from market_data_tick_handler.core.instruments import InstrumentDefinition, InstrumentType, chain_of
from market_data_tick_handler.core.ticks import DataType
from streaming_service.sources.exchanges.okx.chains import chain_polls, chain_request, read_chain
from streaming_service.sources.exchanges.okx.control import PING, read_control
from streaming_service.sources.exchanges.okx.decoder import ALL_TRADES, BOOKS, LIQUIDATION_ORDERS, OkxDecoder
from streaming_service.sources.exchanges.okx.history import OkxTradeHistory, last_trade_request
from streaming_service.sources.exchanges.okx.options import MEMBER_CHANNELS, SUMMARY_CHANNEL
from streaming_service.sources.exchanges.okx.tickers import CHANNELS as TICKER_CHANNELS
from streaming_service.sources.exchanges.okx.tickers import FUNDING_CHANNEL, INDEX_CHANNEL, has_funding, index_of
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

PUBLIC: Final = "/ws/v5/public"
BUSINESS: Final = "/ws/v5/business"
# Our choice: what one connection carries is what is lost when it breaks. A chain is not divided.
CHANNELS_PER_CONNECTION: Final = 240
# Half of what the venue takes.
BYTES_PER_MESSAGE: Final = 32_768
PAUSE_S: Final = 0.35
_ENDPOINTS: Final = Endpoints("wss://ws.okx.com:8443", "https://www.okx.com")
_KEEP_ALIVE: Final = KeepAlive(20.0, PING)
_BOUNDS: Final = ConnectionBounds(load=CHANNELS_PER_CONNECTION, unit="channels", chosen=True)
_HISTORY: Final = OkxTradeHistory()
# The name of an instrument type within a subscription.
_INSTRUMENT_TYPES: Final = {"okex-swap": "SWAP", "okex-futures": "FUTURES"}

# (channel, what names it, the name): the `arg` of a subscription.
_Arg = tuple[str, str, str]


@dataclass(slots=True)
class _Unit:
    """Channels that stay together on one connection, and the streams that come over them."""

    args: dict[_Arg, None] = field(default_factory=dict)
    streams: set[Stream] = field(default_factory=set)

    def add(self, stream: Stream, *args: _Arg) -> None:
        self.args.update(dict.fromkeys(args))
        self.streams.add(stream)


@dataclass(frozen=True, slots=True)
class OkxVenue:
    """One of the four OKX exchanges; see `protocol.Venue`, and `chains` for whole option chains.

    chains: by key of a chain, the symbols of its options, where they are to be subscribed one by one.
    """

    exchange: str
    chains: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    endpoints: Endpoints = _ENDPOINTS
    keep_alive: KeepAlive = _KEEP_ALIVE
    max_age_s: float | None = None
    # Twenty requests in two seconds for most calls.
    weight_per_minute: int = 600
    history: OkxTradeHistory = _HISTORY
    bounds: ConnectionBounds = _BOUNDS

    def decoder(
        self, instruments: Sequence[InstrumentDefinition], data_types: Collection[DataType], *, connection: int = 0
    ) -> Decoder:
        """A fresh decoder for one connection."""
        return OkxDecoder(self.exchange, instruments, data_types, connection=connection)

    def subscriptions(
        self, instruments: Sequence[InstrumentDefinition], data_types: Collection[DataType]
    ) -> list[Subscription]:
        """The connections these streams need. The rows of `options_chain` of an option are a stream of its chain, and
        each chain has a connection of its own."""
        wanted = [(each, kind) for each in instruments for kind in each.data_types if kind in data_types]
        trades = {each.key: _Unit() for each, kind in wanted if kind is DataType.TRADES}
        others = {each.key: _Unit() for each, kind in wanted if kind in (DataType.BOOK, DataType.DERIVATIVE)}
        market = _Unit()
        chains: dict[str, _Unit] = {}
        for each, kind in wanted:
            stream = (each.key, kind)
            if kind is DataType.TRADES:
                trades[each.key].add(stream, _of(ALL_TRADES, each))
            elif kind is DataType.BOOK:
                others[each.key].add(stream, _of(BOOKS, each))
            elif kind is DataType.DERIVATIVE:
                others[each.key].add(stream, *_ticker_args(each))
            elif kind is DataType.LIQUIDATIONS:
                market.add(stream, (LIQUIDATION_ORDERS, "instType", _INSTRUMENT_TYPES[self.exchange]))
            else:
                chain = chain_of(each)
                chains.setdefault(chain.key, _Unit()).add((chain.key, kind), *self._chain_args(each))
        return [
            *_connections(BUSINESS, trades.values()),
            *_connections(PUBLIC, [*others.values(), *([market] if market.args else [])]),
            *(_subscription(PUBLIC, chain) for chain in chains.values()),
        ]

    def control(self, frame: bytes) -> Control:
        """What a frame without data means."""
        return read_control(frame)

    def snapshot(self, instrument: InstrumentDefinition) -> tuple[Request, Callable[[bytes], bytes]] | None:
        """None: books come in-band."""
        return None

    def resubscribe(self, instrument: InstrumentDefinition) -> tuple[bytes, ...]:
        """Messages after which OKX sends a snapshot of this instrument's book."""
        if DataType.BOOK not in instrument.data_types:
            return ()
        book = [_of(BOOKS, instrument)]
        return _request("unsubscribe", book), _request("subscribe", book)

    def polls(self, instruments: Sequence[InstrumentDefinition], data_types: Collection[DataType]) -> list[Poll]:
        """Quotes, open interest and mark prices of chains of which no option is subscribed to by itself."""
        if DataType.OPTIONS not in data_types:
            return []
        chains = {each.key: each for each in instruments if each.instrument_type is InstrumentType.OPTION_CHAIN}
        single = {chain_of(each).key for each in instruments if each.instrument_type is InstrumentType.OPTION}
        return [
            poll
            for key, chain in chains.items()
            if key not in single and key not in self.chains
            for poll in chain_polls(chain)
        ]

    def last_trade(self, instrument: InstrumentDefinition) -> Request | None:
        """REST call whose body `history.read` understands and whose newest row is the last trade."""
        return last_trade_request(instrument) if DataType.TRADES in instrument.data_types else None

    @property
    def chains_first(self) -> bool:
        """False: a family has channels of its own, and polls for the rest."""
        return False

    def chain_request(self, chain: InstrumentDefinition) -> Request:
        """The request for the live options of a chain."""
        return chain_request(chain)

    def read_chain(self, chain: InstrumentDefinition, body: bytes) -> tuple[str, ...]:
        """The symbols of its options, by expiry and strike.

        Raises:
            ProtocolViolation: the body is not what OKX documents.
        """
        return read_chain(chain, body)

    def with_chains(self, options: Mapping[str, Sequence[str]]) -> OkxVenue:
        """The same venue, which now subscribes the options of these chains one by one."""
        return replace(self, chains={**self.chains, **{key: tuple(names) for key, names in options.items()}})

    def _chain_args(self, option: InstrumentDefinition) -> Iterator[_Arg]:
        """Of an option, or of a chain and those of its options that are known."""
        family = f"{option.base}-{option.quote}"
        yield SUMMARY_CHANNEL, "instFamily", family
        yield INDEX_CHANNEL, "instId", family
        single = option.instrument_type is InstrumentType.OPTION
        for symbol in (option.venue_symbol,) if single else self.chains.get(option.key, ()):
            for channel in MEMBER_CHANNELS:
                yield channel, "instId", symbol


def _of(channel: str, instrument: InstrumentDefinition) -> _Arg:
    return channel, "instId", instrument.venue_symbol


def _ticker_args(instrument: InstrumentDefinition) -> Iterator[_Arg]:
    for channel in (*TICKER_CHANNELS, *((FUNDING_CHANNEL,) if has_funding(instrument) else ())):
        yield _of(channel, instrument)
    yield INDEX_CHANNEL, "instId", index_of(instrument)


def _connections(path: str, units: Collection[_Unit]) -> Iterator[Subscription]:
    """Units in order, as many to a connection as it carries; those that share an index share its channel."""
    held = _Unit()
    for unit in units:
        if held.args and len(held.args | unit.args) > CHANNELS_PER_CONNECTION:
            yield _subscription(path, held)
            held = _Unit()
        held.args |= unit.args
        held.streams |= unit.streams
    if held.args:
        yield _subscription(path, held)


def _subscription(path: str, unit: _Unit) -> Subscription:
    messages = tuple(_request("subscribe", part) for part in _parts(unit.args))
    return Subscription(
        path=path, messages=messages, streams=frozenset(unit.streams), pause_s=PAUSE_S, load=len(unit.args)
    )


def _parts(args: Collection[_Arg]) -> Iterator[list[_Arg]]:
    """As many of `args` at a time as go into a message."""
    held: list[_Arg] = []
    size = 0
    for arg in args:
        length = len(_request("", [arg]))
        if held and size + length > BYTES_PER_MESSAGE:
            yield held
            held, size = [], 0
        held.append(arg)
        size += length
    if held:
        yield held


def _request(op: str, args: Sequence[_Arg]) -> bytes:
    return msgspec.json.encode({"op": op, "args": [{"channel": channel, what: name} for channel, what, name in args]})

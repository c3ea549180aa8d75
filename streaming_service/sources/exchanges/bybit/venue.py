"""How to talk to Bybit v5: connections, subscriptions, keep-alive, and what frames without data mean.

https://bybit-exchange.github.io/docs/v5/ws/connect
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import msgspec

from market_data_tick_handler.core.instruments import InstrumentDefinition, InstrumentType, chain_of
from market_data_tick_handler.core.ticks import DataType
from streaming_service.sources.exchanges.bybit.decoder import BybitDecoder
from streaming_service.sources.exchanges.bybit.frames import UNREADABLE, wrap_chain
from streaming_service.sources.exchanges.bybit.history import RecentTrades, recent_trades
from streaming_service.sources.exchanges.bybit.topics import (
    book_topic,
    category,
    liquidation_topic,
    ticker_topic,
    trade_topic,
)
from streaming_service.sources.exchanges.protocol import (
    ConnectionBounds,
    Control,
    Decoder,
    Endpoints,
    KeepAlive,
    Meaning,
    Poll,
    Request,
    Stream,
    Subscription,
    TradeHistory,
)

TOPICS_PER_MESSAGE: Final = 10
# All topics of one connection together, as JSON; options also have a limit on their number.
CHARACTERS_PER_CONNECTION: Final = 21_000
TOPICS_PER_OPTION_CONNECTION: Final = 2_000
# Bybit names no limit on messages; this spreads the messages of a full connection over two seconds.
PAUSE_S: Final = 0.02
PING_S: Final = 5.0
# 600 requests in 5 seconds: https://bybit-exchange.github.io/docs/v5/rate-limit
REQUESTS_PER_MINUTE: Final = 7_200
CHAIN_POLL_S: Final = 10.0

_CHAIN: Final = InstrumentType.OPTION_CHAIN
_ENDPOINTS: Final = Endpoints("wss://stream.bybit.com", "https://api.bybit.com")
_KEEP_ALIVE: Final = KeepAlive(PING_S, b'{"op":"ping"}')
_BOUNDS: Final = ConnectionBounds(load=CHARACTERS_PER_CONNECTION, unit="characters of topics")
_HISTORY: Final = RecentTrades()
_AGAIN: Final = "already subscribed"


class _Topics(msgspec.Struct):
    failTopics: list[str] = []


class _Answer(msgspec.Struct):
    """Linear, inverse and spot answer with `op` and `ret_msg`, options with lists of topics and a pong of their own."""

    op: str | None = None
    success: bool | None = None
    ret_msg: str | None = None
    type: str | None = None
    data: _Topics | None = None


_decode: Final = msgspec.json.Decoder(_Answer).decode


@dataclass(slots=True)
class _Connection:
    """Topics that share a socket, and the streams that they carry."""

    topics: list[str] = field(default_factory=list)
    streams: set[Stream] = field(default_factory=set)
    characters: int = 0


@dataclass(frozen=True, slots=True)
class BybitVenue:
    """`Venue` of one of the three exchanges; they differ in their sockets only, which the instruments tell."""

    exchange: str
    endpoints: Endpoints = _ENDPOINTS
    keep_alive: KeepAlive = _KEEP_ALIVE
    max_age_s: float | None = None
    weight_per_minute: int = REQUESTS_PER_MINUTE
    history: TradeHistory | None = _HISTORY
    bounds: ConnectionBounds = _BOUNDS

    def decoder(
        self, instruments: Sequence[InstrumentDefinition], data_types: Collection[DataType], *, connection: int = 0
    ) -> Decoder:
        """A fresh decoder for one connection."""
        return BybitDecoder(instruments, data_types, connection=connection)

    def subscriptions(
        self, instruments: Sequence[InstrumentDefinition], data_types: Collection[DataType]
    ) -> list[Subscription]:
        """The connections these streams need. A chain that is polled gets one without topics, for its rows to be of."""
        markets: dict[str, list[_Connection]] = {}
        topics = _topics(instruments, data_types)
        for (market, topic), streams in topics.items():
            connections = markets.setdefault(market, [_Connection()])
            if not _fits(connections[-1], topic, market):
                connections.append(_Connection())
            connections[-1].topics.append(topic)
            connections[-1].characters += _characters(topic)
            connections[-1].streams |= streams
        if chains := _polled_chains(instruments, data_types):
            markets.setdefault("option", [_Connection()])[0].streams |= {(key, DataType.OPTIONS) for key in chains}
        return [
            Subscription(
                path=f"/v5/public/{market}",
                messages=tuple(_messages("subscribe", connection.topics)),
                streams=frozenset(connection.streams),
                pause_s=PAUSE_S,
                load=connection.characters,
            )
            for market, connections in markets.items()
            for connection in connections
        ]

    def control(self, frame: bytes) -> Control:
        """What a frame without data means."""
        try:
            answer = _decode(frame)
        except UNREADABLE:
            return Control(Meaning.UNKNOWN, frame.decode("utf-8", "replace"))
        text = answer.ret_msg or ""
        if answer.op == "pong" or (answer.op == "ping" and answer.success is not False):
            return Control(Meaning.ALIVE)
        if answer.type == "COMMAND_RESP" and answer.data is not None and answer.data.failTopics:
            return Control(Meaning.REFUSED, " ".join([text, *answer.data.failTopics]).strip())
        if answer.op in ("subscribe", "unsubscribe") or answer.type == "COMMAND_RESP":
            if answer.success or _AGAIN in text:
                return Control(Meaning.ACKNOWLEDGED, text)
            if answer.op != "unsubscribe":
                return Control(Meaning.REFUSED, text)
        return Control(Meaning.UNKNOWN, frame.decode("utf-8", "replace"))

    def snapshot(self, instrument: InstrumentDefinition) -> tuple[Request, Callable[[bytes], bytes]] | None:
        """None: books come in-band."""
        return None

    def resubscribe(self, instrument: InstrumentDefinition) -> tuple[bytes, ...]:
        """Messages after which Bybit sends a snapshot of this instrument's book."""
        topics = [book_topic(instrument)]
        return (*_messages("unsubscribe", topics), *_messages("subscribe", topics))

    def polls(self, instruments: Sequence[InstrumentDefinition], data_types: Collection[DataType]) -> list[Poll]:
        """Tickers of all options of a coin, for chains of which no option is among `instruments`."""
        bases = dict.fromkeys(chain.base for chain in _polled_chains(instruments, data_types).values())
        return [
            Poll(
                Request(f"/v5/market/tickers?category=option&baseCoin={base}"), CHAIN_POLL_S, partial(wrap_chain, base)
            )
            for base in bases
        ]

    def last_trade(self, instrument: InstrumentDefinition) -> Request | None:
        """REST call whose body `history.read` understands and whose newest row is the last trade; a chain has none."""
        return None if instrument.instrument_type is _CHAIN else recent_trades(instrument, limit=1)


def _topics(
    instruments: Sequence[InstrumentDefinition], data_types: Collection[DataType]
) -> dict[tuple[str, str], set[Stream]]:
    """Streams by (market, topic), instrument by instrument."""
    found: dict[tuple[str, str], set[Stream]] = {}
    makers = {
        DataType.BOOK: book_topic,
        DataType.TRADES: trade_topic,
        DataType.DERIVATIVE: ticker_topic,
        DataType.OPTIONS: ticker_topic,
        DataType.LIQUIDATIONS: liquidation_topic,
    }
    for instrument in instruments:
        if instrument.instrument_type is _CHAIN:
            continue
        for data_type, topic in makers.items():
            if data_type in data_types and data_type in instrument.data_types:
                key = chain_of(instrument).key if data_type is DataType.OPTIONS else instrument.key
                found.setdefault((category(instrument), topic(instrument)), set()).add((key, data_type))
    return found


def _polled_chains(
    instruments: Sequence[InstrumentDefinition], data_types: Collection[DataType]
) -> dict[str, InstrumentDefinition]:
    """Chains whose options are not subscribed to one by one."""
    if DataType.OPTIONS not in data_types:
        return {}
    listed = {chain_of(each).key for each in instruments if each.instrument_type is InstrumentType.OPTION}
    return {each.key: each for each in instruments if each.instrument_type is _CHAIN and each.key not in listed}


def _fits(connection: _Connection, topic: str, market: str) -> bool:
    if market == "option" and len(connection.topics) >= TOPICS_PER_OPTION_CONNECTION:
        return False
    return connection.characters + _characters(topic) <= CHARACTERS_PER_CONNECTION


def _characters(topic: str) -> int:
    """Length of a topic in an array of JSON: with its quotes and a comma."""
    return len(topic) + 3


def _messages(op: str, topics: Sequence[str]) -> Iterator[bytes]:
    for start in range(0, len(topics), TOPICS_PER_MESSAGE):
        yield msgspec.json.encode({"op": op, "args": topics[start : start + TOPICS_PER_MESSAGE]})

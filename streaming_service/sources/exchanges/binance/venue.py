"""How to talk to Binance: its four markets as venues."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

import msgspec

from market_data_tick_handler.core.instruments import InstrumentDefinition, InstrumentType
from market_data_tick_handler.core.ticks import DataType
from streaming_service.sources.exchanges.binance.decoder import MarketDecoder
from streaming_service.sources.exchanges.binance.frames import SHUTDOWN, UNREADABLE
from streaming_service.sources.exchanges.binance.history import NumberedHistory, RecentHistory
from streaming_service.sources.exchanges.binance.joining import FuturesJoining, Joining, SpotJoining
from streaming_service.sources.exchanges.binance.options import ALL_TICKERS, OptionsDecoder, chain_key_of, underlying_of
from streaming_service.sources.exchanges.binance.subscriptions import Limits, Wants, subscribe
from streaming_service.sources.exchanges.protocol import (
    ConnectionBounds,
    Control,
    Decoder,
    Endpoints,
    Headers,
    KeepAlive,
    Meaning,
    Poll,
    Request,
    Subscription,
    Venue,
)

_DAY_S: Final = 86_400.0
_PING_S: Final = 10.0
_SNAPSHOT_LEVELS: Final = 1_000
_POLL_S: Final = 5.0
# Part of the weight per minute that polls may take; snapshots and repair have the rest.
_POLL_SHARE: Final = 0.5
_USED_WEIGHT: Final = "x-mbx-used-weight-1m"


class BinanceVenue:
    """What the four markets share; see `protocol.Venue`."""

    exchange: str
    endpoints: Endpoints
    limits: Limits
    history: NumberedHistory | RecentHistory

    @property
    def keep_alive(self) -> KeepAlive:
        return KeepAlive(_PING_S)

    @property
    def max_age_s(self) -> float | None:
        return _DAY_S

    @property
    def weight_per_minute(self) -> int:
        return self.limits.weight_per_minute

    @property
    def bounds(self) -> ConnectionBounds:
        return ConnectionBounds(load=self.limits.streams, unit="streams")

    def control(self, frame: bytes) -> Control:
        """What a frame without data means: `{"result":null,"id":1}`, an error, or that the server will stop."""
        text = frame.decode("utf-8", "replace")
        try:
            answer = msgspec.json.decode(frame)
        except UNREADABLE:
            return Control(Meaning.UNKNOWN, text)
        if not isinstance(answer, dict):
            return Control(Meaning.UNKNOWN, text)
        if SHUTDOWN in text:
            return Control(Meaning.RECONNECT, text)
        if "error" in answer or ("code" in answer and "msg" in answer):
            return Control(Meaning.REFUSED, text)
        return Control(Meaning.ACKNOWLEDGED if "result" in answer else Meaning.UNKNOWN, text)

    def resubscribe(self, instrument: InstrumentDefinition) -> tuple[bytes, ...]:
        """Empty: books start from `snapshot`, or are whole in each message."""
        return ()

    def last_trade(self, instrument: InstrumentDefinition) -> Request | None:
        if instrument.instrument_type is InstrumentType.OPTION_CHAIN:
            return None
        return self.history.last_trade(instrument)

    def used_weight(self, headers: Headers) -> int | None:
        for name, value in headers.items():
            if name.lower() == _USED_WEIGHT and value.isdigit():
                return int(value)
        return None


class MarketVenue(BinanceVenue):
    """Spot, USD-M and COIN-M.

    sockets: path of a connection by the data types that go over it. depth: what follows `@depth`. rest: path of the
    REST interface. snapshot_weight: of 1000 levels. pair_of: see `MarketDecoder`.
    """

    def __init__(
        self,
        exchange: str,
        endpoints: Endpoints,
        *,
        limits: Limits,
        history: NumberedHistory | RecentHistory,
        joining: Joining,
        sockets: Mapping[str, Collection[DataType]],
        depth: str,
        rest: str,
        snapshot_weight: int,
        pair_of: Callable[[InstrumentDefinition], str] | None = None,
    ) -> None:
        self.exchange, self.endpoints, self.limits, self.history = exchange, endpoints, limits, history
        self._joining = joining
        self._sockets = sockets
        self._depth = depth
        self._rest = rest
        self._snapshot_weight = snapshot_weight
        self._pair_of = pair_of

    def decoder(
        self, instruments: Sequence[InstrumentDefinition], data_types: Collection[DataType], *, connection: int = 0
    ) -> Decoder:
        return MarketDecoder(
            instruments, data_types, joining=self._joining, pair_of=self._pair_of, connection=connection
        )

    def subscriptions(
        self, instruments: Sequence[InstrumentDefinition], data_types: Collection[DataType]
    ) -> list[Subscription]:
        out: list[Subscription] = []
        for path, carried in self._sockets.items():
            wants = []
            for instrument in instruments:
                types = [each for each in instrument.data_types if each in data_types and each in carried]
                if types:
                    names = tuple(name for each in types for name in self._names(instrument, each))
                    wants.append(Wants(names, frozenset((instrument.key, each) for each in types)))
            out.extend(subscribe(path, wants, self.limits))
        return out

    def snapshot(self, instrument: InstrumentDefinition) -> tuple[Request, Callable[[bytes], bytes]] | None:
        query = f"symbol={instrument.venue_symbol}&limit={_SNAPSHOT_LEVELS}"
        return Request(f"{self._rest}/depth?{query}", self._snapshot_weight), _generated(instrument, "depthSnapshot")

    def polls(self, instruments: Sequence[InstrumentDefinition], data_types: Collection[DataType]) -> list[Poll]:
        """Open interest, as often as the weight allows for so many instruments."""
        if DataType.DERIVATIVE not in data_types:
            return []
        asked = [instrument for instrument in instruments if DataType.DERIVATIVE in instrument.data_types]
        every_s = max(_POLL_S, 60.0 * len(asked) / (self.weight_per_minute * _POLL_SHARE))
        return [
            Poll(
                Request(f"{self._rest}/openInterest?symbol={instrument.venue_symbol}"),
                every_s,
                _generated(instrument, "openInterest"),
            )
            for instrument in asked
        ]

    def _names(self, instrument: InstrumentDefinition, data_type: DataType) -> list[str]:
        symbol = instrument.venue_symbol.lower()
        match data_type:
            case DataType.TRADES:
                return [f"{symbol}@trade"]
            case DataType.BOOK:
                return [f"{symbol}@depth{self._depth}"]
            case DataType.DERIVATIVE:
                index = [] if self._pair_of is None else [f"{self._pair_of(instrument).lower()}@indexPrice@1s"]
                return [f"{symbol}@markPrice@1s", f"{symbol}@ticker", *index]
            case _:
                return [f"{symbol}@forceOrder"]


class OptionsVenue(BinanceVenue):
    """European options. Summaries come per underlying, whatever options of it are wanted."""

    exchange = "binance-european-options"
    endpoints = Endpoints("wss://fstream.binance.com", "https://eapi.binance.com")
    limits = Limits(streams=200, pause_s=0.15, weight_per_minute=400)
    history = RecentHistory("/eapi/v1", limit=500)

    def decoder(
        self, instruments: Sequence[InstrumentDefinition], data_types: Collection[DataType], *, connection: int = 0
    ) -> Decoder:
        return OptionsDecoder(instruments, data_types, connection=connection)

    def subscriptions(
        self, instruments: Sequence[InstrumentDefinition], data_types: Collection[DataType]
    ) -> list[Subscription]:
        """Trades and books of options on /public; of chains, and of options for their chain, on /market. Open interest
        is a stream per expiry, so that it comes for the expiries of the options that are among `instruments`."""
        public, market = [], []
        for instrument in instruments:
            symbol, key = instrument.venue_symbol.lower(), instrument.key
            types = [each for each in instrument.data_types if each in data_types]
            single = [each for each in types if each is not DataType.OPTIONS]
            if single:
                names = {DataType.TRADES: f"{symbol}@optionTrade", DataType.BOOK: f"{symbol}@depth20@100ms"}
                public.append(Wants(tuple(names[each] for each in single), frozenset((key, each) for each in single)))
            if DataType.OPTIONS in types:
                market.append(_chain_wants(instrument))
        return [
            *subscribe("/public/stream", public, self.limits),
            *subscribe("/market/stream", sorted(market, key=lambda want: want.names), self.limits),
        ]

    def snapshot(self, instrument: InstrumentDefinition) -> tuple[Request, Callable[[bytes], bytes]] | None:
        return None

    def polls(self, instruments: Sequence[InstrumentDefinition], data_types: Collection[DataType]) -> list[Poll]:
        """Last prices of all options: their stream is one per option, on another socket than the summaries."""
        if DataType.OPTIONS not in data_types or not instruments:
            return []
        return [Poll(Request("/eapi/v1/ticker", 5), _POLL_S, _wrap(f"{ALL_TICKERS}@arr"))]


def _chain_wants(instrument: InstrumentDefinition) -> Wants:
    underlying = underlying_of(instrument).lower()
    names = [f"{underlying}@optionMarkPrice"]
    if instrument.instrument_type is InstrumentType.OPTION:
        names.append(f"{underlying}@optionOpenInterest@{instrument.venue_symbol.split('-')[1]}")
    return Wants(tuple(names), frozenset({(chain_key_of(instrument), DataType.OPTIONS)}))


def _generated(instrument: InstrumentDefinition, channel: str) -> Callable[[bytes], bytes]:
    return _wrap(f"{instrument.venue_symbol.lower()}@{channel}")


def _wrap(stream: str) -> Callable[[bytes], bytes]:
    """How the vendor of raw history writes what did not come over the socket."""
    head = b'{"stream":%b,"generated":true,"data":' % msgspec.json.encode(stream)
    return lambda body: head + body + b"}"


_DERIVATIVE_LIMITS: Final = Limits(streams=200, pause_s=0.15, weight_per_minute=2_400)

VENUES: Final[Mapping[str, Venue]] = {
    venue.exchange: venue
    for venue in (
        MarketVenue(
            "binance",
            Endpoints("wss://stream.binance.com", "https://api.binance.com"),
            limits=Limits(streams=1_024, pause_s=0.25, weight_per_minute=6_000),
            history=NumberedHistory(),
            joining=SpotJoining(),
            sockets={"/stream?timeUnit=microsecond": (DataType.TRADES, DataType.BOOK)},
            depth="@100ms",
            rest="/api/v3",
            snapshot_weight=50,
        ),
        MarketVenue(
            "binance-futures",
            Endpoints("wss://fstream.binance.com", "https://fapi.binance.com"),
            limits=_DERIVATIVE_LIMITS,
            history=RecentHistory("/fapi/v1", limit=1_000),
            joining=FuturesJoining(),
            sockets={
                "/public/stream": (DataType.TRADES, DataType.BOOK),
                "/market/stream": (DataType.DERIVATIVE, DataType.LIQUIDATIONS),
            },
            depth="@0ms",
            rest="/fapi/v1",
            snapshot_weight=20,
        ),
        MarketVenue(
            "binance-delivery",
            Endpoints("wss://dstream.binance.com", "https://dapi.binance.com"),
            limits=_DERIVATIVE_LIMITS,
            history=RecentHistory("/dapi/v1", limit=1_000),
            joining=FuturesJoining(),
            sockets={"/stream": tuple(DataType)},
            depth="@0ms",
            rest="/dapi/v1",
            snapshot_weight=20,
            pair_of=lambda instrument: instrument.base + instrument.quote,
        ),
        OptionsVenue(),
    )
}

"""What an exchange adapter is made of: pure decoding, and a description of how one talks to the venue.

Theory of operation. A `Venue` has no socket, no clock and no `await`. It says which connections carry which streams
(`subscriptions`), what a frame that is no data means (`control`), and which REST calls answer which question. Its
`Decoder` turns frames into tick columns. Everything that moves bytes is the shell in `connection/`, one for all
venues. What comes over REST and belongs into a stream (book snapshots, polled open interest) is put into a frame of
the venue's own layout, marked `"generated": true`, and goes through `Decoder.decode` like any other: a recording of
frames is then all that a replay needs, and it is the layout in which Tardis.dev stores raw history.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, runtime_checkable

from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.instruments import InstrumentDefinition
from market_data_tick_handler.core.order_book import BookChanges
from market_data_tick_handler.core.ticks import Array, DataType, TickBatch
from market_data_tick_handler.errors import ProtocolViolation

Stream = tuple[str, DataType]


@dataclass(frozen=True, slots=True)
class Numbers:
    """Sequence numbers of a stream whose venue counts every message by one: what is missing between them was lost.

    `numbers`: int64, in the order of the frames, of every message of the stream, those without rows (no trades, other
    parties) among them. `local_us`: when each arrived.
    """

    instrument: str
    data_type: DataType
    numbers: Array
    local_us: Array


@dataclass(frozen=True, slots=True)
class Break:
    """The other side says that it lost its own feed (a tardis-machine does): at `local_us`, for these instruments."""

    instruments: tuple[str, ...]
    local_us: int
    reason: str


@dataclass(slots=True)
class Decoded:
    """What became of every frame of one batch.

    rows: per instrument and data type, rows in the order of the frames; books as `book_snapshot_5`.
    changes: the normalised book changes behind the book rows, (instrument key, changes).
    numbers: see `Numbers`; only streams whose numbers are dense.
    resync: instrument key -> why its book is void until the next snapshot (sequence break, crossed).
    filtered: frames or rows per stream that look like data and are none of ours.
    control: indices of frames that are no data (acknowledgements, pongs, errors): for `Venue.control`.
    violations: one per frame, or row of a frame, that breaks the venue's layout; the good rest of it is used.
    breaks: see `Break`.
    """

    rows: list[Rows] = field(default_factory=list)
    changes: list[tuple[str, BookChanges]] = field(default_factory=list)
    numbers: list[Numbers] = field(default_factory=list)
    resync: dict[str, str] = field(default_factory=dict)
    filtered: dict[Stream, int] = field(default_factory=dict)
    control: list[int] = field(default_factory=list)
    violations: list[ProtocolViolation] = field(default_factory=list)
    breaks: list[Break] = field(default_factory=list)


class Decoder(Protocol):
    """Frames of one connection to tick columns. Holds what the venue's protocol needs remembered: books, tickers."""

    def decode(self, frames: Sequence[bytes], local_us: Array) -> Decoded:
        """Everything in `frames`, which arrived at `local_us` (int64 microseconds, one per frame, increasing)."""
        ...

    def reset(self) -> None:
        """The connection ended: what was learned from it is void."""
        ...


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where a venue listens: scheme and host of its sockets (`wss://fstream.binance.com`) and of its REST interface
    (`https://fapi.binance.com`). Paths are the venue's own, so that a server on loopback can stand in for it."""

    sockets: str
    rest: str


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """What is sent every `interval_s` to learn whether the other side is there; no message: a WebSocket ping."""

    interval_s: float
    message: bytes = b""


@dataclass(frozen=True, slots=True)
class Subscription:
    """One connection: where to, what to send once it is open, and what will come over it.

    path: path and query below `Endpoints.sockets`. messages: sent in this order, `pause_s` apart (the venue's limit on
    inbound messages). streams: what it carries. load: how much it takes of `ConnectionBounds.load`; for plans only.
    """

    path: str
    messages: tuple[bytes, ...]
    streams: frozenset[Stream]
    pause_s: float = 0.0
    load: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionBounds:
    """What connections to a venue may be, for plans.

    load: of one connection, in `unit`; chosen: by us, where the venue sets no bound, or a wider one. connections: at a
    time from one address, None where the venue does not say.
    """

    load: int
    unit: str
    chosen: bool = False
    connections: int | None = None


@runtime_checkable
class Bounded(Protocol):
    """Optional part of a venue: it can say what `subscriptions` keeps within."""

    @property
    def bounds(self) -> ConnectionBounds: ...


class Meaning(StrEnum):
    """What a frame without data says. ALIVE: pong or heartbeat. ACKNOWLEDGED: a subscription works. ANSWER: reply at
    once (`Control.reply`). REFUSED: this subscription never works, the others do. RECONNECT: the venue ends this
    connection (maintenance, 24 hours, overload). UNKNOWN: counted and logged."""

    ALIVE = "alive"
    ACKNOWLEDGED = "acknowledged"
    ANSWER = "answer"
    REFUSED = "refused"
    RECONNECT = "reconnect"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Control:
    """One frame without data, understood. `text` is the venue's own words."""

    meaning: Meaning
    text: str = ""
    reply: bytes = b""


@dataclass(frozen=True, slots=True)
class Request:
    """A REST call: path and query below `Endpoints.rest`. `weight` counts against the venue's limit per minute.
    headers: what the venue wants said besides, as (name, value)."""

    path: str
    weight: int = 1
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Poll:
    """A REST call repeated every `every_s`, whose body `frame` wraps as a generated frame."""

    request: Request
    every_s: float
    frame: Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class TradeRange:
    """Trades that are missing: stamped in [from_us, to_us), and, where numbers are dense, numbered first..last."""

    from_us: int
    to_us: int
    first: int | None = None
    last: int | None = None


@dataclass(frozen=True, slots=True)
class TradePage:
    """One answer: its trades (local_timestamp equals timestamp), and the request for the next page, None after the
    last one. `complete` is False where the venue does not reach back to the start of the range."""

    trades: TickBatch
    next: Request | None = None
    complete: bool = True


class TradeHistory(Protocol):
    """Missing trades over REST."""

    def first(self, instrument: InstrumentDefinition, missing: TradeRange) -> Request:
        """The request for the first page."""
        ...

    def read(self, instrument: InstrumentDefinition, missing: TradeRange, body: bytes) -> TradePage:
        """Understand an answer; rows outside `missing` are left out.

        Raises:
            ProtocolViolation: the body is not what the venue documents.
        """
        ...


class Venue(Protocol):
    """How to talk to one venue. Stateless.

    exchange: Tardis id. endpoints: the real ones. keep_alive: what proves that the connection works. max_age_s: the
    venue closes every connection after this long (None: it does not). weight_per_minute: its limit on REST weight.
    history: None where the venue has no trades over REST.
    """

    @property
    def exchange(self) -> str: ...

    @property
    def endpoints(self) -> Endpoints: ...

    @property
    def keep_alive(self) -> KeepAlive: ...

    @property
    def max_age_s(self) -> float | None: ...

    @property
    def weight_per_minute(self) -> int: ...

    @property
    def history(self) -> TradeHistory | None: ...

    def decoder(
        self, instruments: Sequence[InstrumentDefinition], data_types: Collection[DataType], *, connection: int = 0
    ) -> Decoder:
        """A fresh decoder for one connection."""
        ...

    def subscriptions(
        self, instruments: Sequence[InstrumentDefinition], data_types: Collection[DataType]
    ) -> list[Subscription]:
        """The connections these streams need, within the venue's limits on streams per connection and message."""
        ...

    def control(self, frame: bytes) -> Control:
        """What a frame without data means."""
        ...

    def snapshot(self, instrument: InstrumentDefinition) -> tuple[Request, Callable[[bytes], bytes]] | None:
        """REST call for the book, and how its body becomes a generated frame; None where books come in-band."""
        ...

    def resubscribe(self, instrument: InstrumentDefinition) -> tuple[bytes, ...]:
        """Messages after which the venue sends this instrument's book afresh; empty where `snapshot` does it."""
        ...

    def polls(self, instruments: Sequence[InstrumentDefinition], data_types: Collection[DataType]) -> list[Poll]:
        """What the venue gives over REST only."""
        ...

    def last_trade(self, instrument: InstrumentDefinition) -> Request | None:
        """REST call whose body `history.read` understands and whose newest row is the last trade; None: not there."""
        ...


@runtime_checkable
class Chains(Protocol):
    """Optional part of a venue: it can list what an option chain consists of.

    chains_first: its chains are subscribed option by option, so that their options have to be asked for before.
    """

    @property
    def chains_first(self) -> bool: ...

    def chain_request(self, chain: InstrumentDefinition) -> Request:
        """The request for the live options of a chain."""
        ...

    def read_chain(self, chain: InstrumentDefinition, body: bytes) -> tuple[str, ...]:
        """The symbols of its options, as the venue writes them, by expiry and strike.

        Raises:
            ProtocolViolation: the body is not what the venue documents.
        """
        ...

    def with_chains(self, options: Mapping[str, Sequence[str]]) -> Venue:
        """The same venue, which now knows of what chains (by key) consist."""
        ...


Headers = Mapping[str, str]


class Limits(Protocol):
    """Optional part of a venue: what its REST headers say of the weight used."""

    def used_weight(self, headers: Headers) -> int | None:
        """Weight used in the current minute; None where the headers do not say."""
        ...

"""How a venue speaks: the boundary between the simulated market and what goes over the wire.

Theory of operation. An `Event` of the market has one or more keys (`trades:BTCUSDT`). A client subscribes to channels,
the names of the venue's own streams; the dialect gives each the key it listens to. When an event happens, the exchange
looks which channels of which connections have one of its keys, and asks the dialect for the frames of each channel.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

import orjson

from market_data_tick_handler.testing.exchange.faults import Kind
from market_data_tick_handler.testing.exchange.market import Fill, Market

if TYPE_CHECKING:
    from market_data_tick_handler.testing.exchange.session import Session

_WHOLE: Final = re.compile(r"-?[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Event:
    """Something that subscribers hear of. fills: the trades of one order, or one liquidation."""

    kind: Kind
    market: Market
    at_us: int
    fills: tuple[Fill, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a REST call returns."""

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ConnectionRules:
    """What the venue does to a connection by itself; None: nothing.

    messages_per_s: more from the client end it (close 1008). streams: so do more subscriptions. ping_every_s,
    pong_within_s: WebSocket pings, and how long their answer may take. idle_s: the client must say something, or
    there must be data, this often; `idle_close`: code and reason otherwise. max_age_s: it ends then.
    """

    messages_per_s: int | None = None
    streams: int | None = None
    ping_every_s: float | None = None
    pong_within_s: float = 60.0
    idle_s: float | None = None
    idle_close: tuple[int, str] = (1000, "")
    max_age_s: float | None = None


class Desk:
    """What a dialect may know and do.

    markets: by venue symbol, upper case. now_us: the clock of the exchange, steps included.
    """

    def __init__(self, now_us: Callable[[], int], flush: Callable[[Market], None]) -> None:
        self.markets: dict[str, Market] = {}
        self.now_us = now_us
        self._flush = flush

    @property
    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        return self.now_us() // 1_000

    def flush(self, market: Market) -> None:
        """Publish what changed in the book, so that a snapshot taken now continues exactly."""
        self._flush(market)


class Dialect(Protocol):
    """One venue.

    rules: see `ConnectionRules`. resolution_us: what its timestamps count in. dense_book: its book numbers count by
    one. first_number: number of the first trade. liquidations_are_trades: they come in the trade stream.
    """

    rules: ConnectionRules
    resolution_us: int
    dense_book: bool
    first_number: int
    liquidations_are_trades: bool

    def new_id(self, market: Market, number: int) -> str:
        """Id of a new trade."""
        ...

    def listens(self, path: str) -> bool:
        """Whether the venue has a socket at this path."""
        ...

    def greet(self, session: Session, query: Mapping[str, str]) -> None:
        """A client connected."""
        ...

    def receive(self, session: Session, text: str) -> None:
        """A client said something."""
        ...

    def beat(self, session: Session, now_us: int) -> None:
        """A second passed."""
        ...

    def keys(self, event: Event) -> list[str]:
        """Keys that hear of it."""
        ...

    def encode(self, channel: str, flavour: str, event: Event) -> list[bytes]:
        """Frames of one channel. flavour: what the dialect noted in `Session.flavour`."""
        ...

    def answer(self, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> Answer:
        """A REST call."""
        ...

    def refusal(self, status: int, retry_after_s: int) -> Answer:
        """The venue's answer to too many calls."""
        ...

    def maintenance(self) -> bytes | None:
        """The frame that announces the end of the connection; None: the venue has none."""
        ...


def encode_json(value: Any) -> bytes:
    """Compact JSON."""
    return orjson.dumps(value)


def whole(query: Mapping[str, str], name: str, default: int | None = None) -> int | None:
    """An integer parameter of a query; `default` where it is absent or no integer."""
    text = query.get(name, "")
    return int(text) if _WHOLE.fullmatch(text) else default


def limit_of(query: Mapping[str, str], name: str, *, default: int, most: int) -> int:
    """How many rows a query asks for, at most `most`."""
    return max(min(whole(query, name, default) or default, most), 1)

"""The simulated exchange: a server on loopback that speaks a venue's public protocol and knows the whole truth."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from market_data_tick_handler.core.ticks import TickBatch
from market_data_tick_handler.errors import ConfigError
from market_data_tick_handler.testing.exchange.book import ASK, BID
from market_data_tick_handler.testing.exchange.clock import Clock
from market_data_tick_handler.testing.exchange.counters import Counters
from market_data_tick_handler.testing.exchange.dialect import Desk, Event
from market_data_tick_handler.testing.exchange.dialects import dialect_for
from market_data_tick_handler.testing.exchange.faults import Cut, Fault, FaultBoard, Maintenance
from market_data_tick_handler.testing.exchange.floor import Floor
from market_data_tick_handler.testing.exchange.keeper import keep
from market_data_tick_handler.testing.exchange.listing import Listing
from market_data_tick_handler.testing.exchange.lobby import Lobby
from market_data_tick_handler.testing.exchange.market import Ticker
from market_data_tick_handler.testing.exchange.schedule import Rates, Schedule
from market_data_tick_handler.testing.exchange.session import socket_frame

if TYPE_CHECKING:
    from market_data_tick_handler.testing.exchange.server import Server

_SECOND_US: Final = 1_000_000
_CHUNK_BYTES: Final = 256 * 1024

Side = list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Burst:
    """Trades of one market that were made at once, as frames ready for the wire."""

    symbol: str
    frames: Sequence[bytes]


class SimulatedExchange:
    """An exchange to connect to: `async with SimulatedExchange("binance", ["BTCUSDT"], clock=clock) as exchange`.

    exchange: Tardis id: binance, binance-futures, binance-delivery, deribit, bybit, bybit-spot, okex, okex-swap,
    okex-futures. symbols: venue symbols or canonical keys; a Deribit option chain lists twelve options.
    clock: what time it is and how to sleep; `LoopClock`, `ManualClock` or the service's own.
    seed: the same seed gives the same market. rates: what happens by itself, `SILENT` for nothing.
    script: faults, each `at_s` after opening.

    Raises:
        InstrumentError: an exchange that cannot be simulated, or a symbol it does not list.
        ConfigError: a fault that the venue does not have.
    """

    def __init__(
        self,
        exchange: str,
        symbols: Sequence[str],
        *,
        clock: Clock,
        seed: int = 0,
        rates: Rates | None = None,
        script: Sequence[Fault] = (),
    ) -> None:
        self.exchange = exchange
        self.counters = Counters()
        self._symbols, self._clock, self._seed = tuple(symbols), clock, seed
        self._rates = Rates() if rates is None else rates
        self._script = tuple(script)
        self._board = FaultBoard()
        self._desk = Desk(self.now_us, lambda market: self._floor.flush(market))
        self._dialect = dialect_for(exchange, self._desk)
        self._lobby = Lobby(self._dialect, clock, self._board, self.counters)
        self._floor = Floor(self._dialect, self._desk, self._lobby.publish)
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: Server | None = None
        for fault in self._script:
            self._check(fault)

    async def __aenter__(self) -> SimulatedExchange:
        from market_data_tick_handler.testing.exchange.server import Server

        start_us = self._clock.now_us()
        self._floor.open(self.exchange, self._symbols, seed=self._seed, start_us=start_us)
        self._server = Server(self._lobby)
        await self._server.open()
        traded = [(symbol, market.has_liquidations) for symbol, market in self._desk.markets.items()]
        schedule = Schedule(self._rates, traded, seed=self._seed, start_us=start_us)
        self._spawn(keep(self._lobby.sessions, self._dialect, self._clock), "keeper")
        if schedule:
            self._spawn(self._floor.live(schedule, self._clock, self._board), "market")
        for fault in self._script:
            self._spawn(self._later(fault, start_us), type(fault).__name__)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        done = await asyncio.gather(*self._tasks, return_exceptions=True)
        self._lobby.cut()
        if self._server is not None:
            await self._server.close()
        failed = [result for result in done if isinstance(result, Exception)]
        if failed and error is None:
            raise failed[0]

    @property
    def sockets(self) -> str:
        """`ws://127.0.0.1:port`: paths below it are the venue's own."""
        return f"ws://127.0.0.1:{self._running.sockets.port}"

    @property
    def rest(self) -> str:
        """`http://127.0.0.1:port`: paths below it are the venue's own."""
        return f"http://127.0.0.1:{self._running.rest.port}"

    @property
    def symbols(self) -> tuple[str, ...]:
        """Venue symbols of everything listed."""
        return tuple(self._desk.markets)

    @property
    def open_connections(self) -> int:
        """How many sockets are open now."""
        return len(self._lobby.sessions)

    @property
    def subscribed(self) -> frozenset[str]:
        """Channels that somebody is subscribed to, in the venue's own words."""
        return frozenset(channel for session in self._lobby.sessions for channel in session.channels)

    def now_us(self) -> int:
        """The exchange's own clock: steps included."""
        now_us = self._clock.now_us()
        return now_us + self._board.step_us(now_us)

    def truth(self, symbol: str) -> TickBatch:
        """Every trade ever made, whoever heard of it; local_timestamp = timestamp."""
        return self._floor.market(symbol).truth()

    def liquidation_truth(self, symbol: str) -> TickBatch:
        """Every liquidation ever made. Side 1: a short was closed by buying. Ids are left out."""
        return self._floor.market(symbol).liquidation_truth()

    def book(self, symbol: str, depth: int | None = None) -> tuple[Side, Side]:
        """(bids, asks) as (price, amount), best first, as a subscriber knows them after the last update."""
        market = self._floor.market(symbol)
        window, listing = market.window(None), market.listing
        bids, asks = (
            [(listing.price(price), listing.amount(amount)) for price, amount in list(side.items())[:depth]]
            for side in (window.bids, window.asks)
        )
        return bids, asks

    def ticker(self, symbol: str) -> Ticker:
        """State of the contract as subscribers know it, in units of its listing."""
        return self._floor.market(symbol).view.ticker

    def listing(self, symbol: str) -> Listing:
        """The instrument and the grid of its prices and amounts."""
        return self._floor.market(symbol).listing

    def trade(self, symbol: str, price: float, amount: float, side: int, *, at_us: int | None = None) -> int:
        """Make a trade, side 1 (taker bought) or -1; its number. at_us: its timestamp, now unless given."""
        return self.order(symbol, [(price, amount)], side, at_us=at_us)

    def order(self, symbol: str, fills: Sequence[tuple[float, float]], side: int, *, at_us: int | None = None) -> int:
        """Make the trades of one taker order, (price, amount) each; the number of the first."""
        market = self._floor.market(symbol)
        listing = market.listing
        parts = [(listing.price_units(price), listing.amount_units(amount), side) for price, amount in fills]
        return self._floor.trade(market, parts, self._floor.stamp(at_us))

    def liquidate(self, symbol: str, price: float, amount: float, side: int, *, at_us: int | None = None) -> None:
        """Liquidate somebody: side -1 closes a long by selling, 1 a short by buying."""
        market = self._floor.market(symbol)
        listing = market.listing
        self._floor.liquidate(
            market, (listing.price_units(price), listing.amount_units(amount), side), self._floor.stamp(at_us)
        )

    def set_level(self, symbol: str, side: int, price: float, amount: float) -> None:
        """Change one level of the book, side 1 bid or -1 ask; amount 0 removes it. `publish_book` tells subscribers."""
        listing = self._floor.market(symbol).listing
        book_side = BID if side > 0 else ASK
        self._floor.market(symbol).book.set(book_side, listing.price_units(price), listing.amount_units(amount))

    def publish_book(self, symbol: str) -> None:
        """Send what changed in the book since the last time as one update."""
        self._floor.flush(self._floor.market(symbol))

    def set_ticker(self, symbol: str, **values: int | float) -> None:
        """Change fields of the ticker (names and units of `Ticker`), and send it."""
        market = self._floor.market(symbol)
        fields: dict[str, Any] = {**values, "at_us": self._floor.stamp()}
        market.ticker = replace(market.ticker, **fields)
        self._floor.publish_ticker(market)

    def inject(self, fault: Fault) -> None:
        """Let it happen now, whatever its `at_s`.

        Raises:
            ConfigError: the venue has no message for it.
        """
        self._check(fault)
        self.counters.faults[type(fault).__name__] += 1
        if fault.duration_s != 0:
            self._board.put(fault, self._clock.now_us())
        if isinstance(fault, Cut):
            self._cut(fault)
        self._lobby.strike(fault)

    async def heal(self) -> None:
        """End every lasting fault; stalled connections stay dead."""
        self._board.clear()
        await self._running.sockets.open()

    def encode_burst(self, symbol: str, count: int) -> Burst:
        """Make `count` trades, one unit of the venue's time apart, without telling anybody: `burst` does.

        Raises:
            RuntimeError: nobody is subscribed to trades of this symbol.
        """
        market = self._floor.market(symbol)
        session, channel = self._lobby.subscriber(Event("trades", market, 0))
        start_us, frames = self._floor.stamp(), []
        for number in range(count):
            at_us = start_us + number * self._dialect.resolution_us
            event = Event("trades", market, at_us, market.trade(market.draw_order()[:1], at_us))
            frames += [socket_frame(frame) for frame in self._dialect.encode(channel, session.flavour, event)]
        return Burst(symbol, frames)

    async def burst(self, burst: Burst, *, frames_per_s: float | None = None, chunk_bytes: int = _CHUNK_BYTES) -> int:
        """Send encoded trades over the connection that subscribed to them first, at a rate or as fast as it reads.

        Returns how many went out. Faults do not touch them.
        """
        session, _ = self._lobby.subscriber(Event("trades", self._floor.market(burst.symbol), 0))
        return await session.pour(burst.frames, frames_per_s, chunk_bytes)

    @property
    def _running(self) -> Server:
        if self._server is None:
            raise RuntimeError("the exchange is not open; use `async with SimulatedExchange(...) as exchange`")
        return self._server

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._tasks.add(asyncio.get_running_loop().create_task(work, name=f"{self.exchange}-{name}"))

    def _check(self, fault: Fault) -> None:
        if isinstance(fault, Maintenance) and self._dialect.maintenance() is None:
            raise ConfigError(f"{self.exchange} announces no maintenance over its sockets", hint="use Close or Cut")

    async def _later(self, fault: Fault, start_us: int) -> None:
        wait_us = start_us + round(fault.at_s * _SECOND_US) - self._clock.now_us()
        await self._clock.sleep(max(wait_us, 0) / _SECOND_US)
        self.inject(fault)

    def _cut(self, fault: Cut) -> None:
        self._lobby.cut()
        if fault.duration_s != 0:
            self._running.sockets.refuse()
        if fault.duration_s:
            self._spawn(self._reopen(fault.duration_s), "reopen")

    async def _reopen(self, after_s: float) -> None:
        await self._clock.sleep(after_s)
        if not any(isinstance(fault, Cut) for _, fault in self._board.in_force(self._clock.now_us())):
            await self._running.sockets.open()

"""The trading floor: every market of the exchange, what happens there, and who is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from market_data_tick_handler.errors import InstrumentError
from market_data_tick_handler.testing.exchange.clock import Clock
from market_data_tick_handler.testing.exchange.dialect import Desk, Dialect, Event
from market_data_tick_handler.testing.exchange.faults import FaultBoard
from market_data_tick_handler.testing.exchange.listing import listings_for
from market_data_tick_handler.testing.exchange.market import Market
from market_data_tick_handler.testing.exchange.schedule import Schedule

_SECOND_US: Final = 1_000_000
# Happenings between two turns for everybody else, when the schedule is behind.
_AT_ONCE: Final = 200

Part = tuple[int, int, int]


class Floor:
    """Markets by venue symbol, in `desk.markets`. publish: tells subscribers of an event."""

    def __init__(self, dialect: Dialect, desk: Desk, publish: Callable[[Event], None]) -> None:
        self._dialect, self._desk, self._publish = dialect, desk, publish

    def open(self, exchange: str, symbols: Sequence[str], *, seed: int, start_us: int) -> None:
        """List every symbol.

        Raises:
            InstrumentError: not one of the exchange.
        """
        for symbol in symbols:
            for listing in listings_for(exchange, symbol, start_us):
                self._desk.markets[listing.symbol] = Market(
                    listing,
                    seed=seed,
                    start_us=self.stamp(start_us),
                    dense_book=self._dialect.dense_book,
                    first_number=self._dialect.first_number,
                    new_id=self._dialect.new_id,
                )

    def market(self, symbol: str) -> Market:
        """The market of a venue symbol in any case.

        Raises:
            InstrumentError: not listed.
        """
        market = self._desk.markets.get(symbol.upper())
        if market is None:
            raise InstrumentError(f"{symbol!r} is not listed here", candidates=list(self._desk.markets))
        return market

    def stamp(self, at_us: int | None = None) -> int:
        """A time, now unless given, as fine as the venue's."""
        resolution_us = self._dialect.resolution_us
        return (self._desk.now_us() if at_us is None else at_us) // resolution_us * resolution_us

    def trade(self, market: Market, parts: Sequence[Part], at_us: int) -> int:
        """One taker order; the number of its first trade."""
        fills = market.trade(parts, at_us)
        self._publish(Event("trades", market, at_us, fills))
        return fills[0].number

    def liquidate(self, market: Market, part: Part, at_us: int) -> None:
        """A liquidation, or the trade that it is at some venues."""
        if self._dialect.liquidations_are_trades:
            self._publish(Event("trades", market, at_us, market.trade([part], at_us, "T")))
        else:
            self._publish(Event("liquidations", market, at_us, (market.liquidate(*part, at_us),)))

    def flush(self, market: Market, at_us: int | None = None) -> None:
        """Send what changed in a book."""
        market.flush()
        self._publish(Event("book", market, self.stamp() if at_us is None else at_us))

    def publish_ticker(self, market: Market) -> None:
        """Send the ticker as it is."""
        market.publish_ticker()
        self._publish(Event("ticker", market, market.ticker.at_us))

    async def live(self, schedule: Schedule, clock: Clock, board: FaultBoard) -> None:
        """Let everything happen when it is due, for ever."""
        behind = 0
        while True:
            wait_us = schedule.next_us - clock.now_us()
            if wait_us > 0:
                await clock.sleep(wait_us / _SECOND_US)
                behind = 0
                continue
            at_us, kind, symbol = schedule.pop()
            self._happen(kind, self._desk.markets[symbol], self.stamp(at_us + board.step_us(clock.now_us())))
            behind += 1
            if behind % _AT_ONCE == 0:
                await asyncio.sleep(0)

    def _happen(self, kind: str, market: Market, at_us: int) -> None:
        if kind == "orders":
            self.trade(market, market.draw_order(), at_us)
        elif kind == "book_changes":
            market.book.change()
        elif kind == "books":
            self.flush(market, at_us)
        elif kind == "tickers":
            owner = self._index_owner(market)
            market.draw_ticker(at_us, index=None if owner is market else owner.ticker.index)
            self.publish_ticker(market)
        else:
            self.liquidate(market, market.draw_liquidation(), at_us)

    def _index_owner(self, market: Market) -> Market:
        """The first contract on the same pair; the others have its index."""
        pair = market.listing.instrument.base, market.listing.instrument.quote, market.is_option
        for other in self._desk.markets.values():
            instrument = other.listing.instrument
            if (instrument.base, instrument.quote, other.is_option) == pair:
                return other
        return market

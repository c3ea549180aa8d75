"""The market of one instrument: its trades, book, ticker and liquidations, all of it remembered as the truth.

Everything random comes from generators seeded by (seed, symbol, kind), so the same seed gives the same market whatever
else the exchange lists.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

import numpy as np

from market_data_tick_handler.core.ids import encode_id_texts
from market_data_tick_handler.core.instruments import InstrumentType
from market_data_tick_handler.core.ticks import BUY, ID_INTEGER, SELL, DataType, TickBatch
from market_data_tick_handler.testing.exchange.book import ASK, BID, Book, Window
from market_data_tick_handler.testing.exchange.listing import Listing

FUNDING_DECIMALS: Final = 8
FUNDING_EVERY_US: Final = 8 * 3_600 * 1_000_000
_MOST_FILLS: Final = 3
_START_FUNDING: Final = 10_000
_START_INTEREST: Final = 20_000


@dataclass(frozen=True, slots=True)
class Fill:
    """One trade. number: counts by one per instrument. order: fills of one taker order share it. liquidation: Deribit's
    flag, T (taker), M (maker), MT, or empty. price, amount: units of the listing."""

    number: int
    id: str
    order: int
    price: int
    amount: int
    side: int
    at_us: int
    liquidation: str = ""


@dataclass(frozen=True, slots=True)
class Ticker:
    """State of a contract. Prices in units of the listing's price, open_interest of its amount, rates of 10**-8; iv and
    spread in percent of volatility (options)."""

    at_us: int
    last: int
    mark: int
    index: int
    open_interest: int
    funding_rate: int
    predicted_rate: int
    funding_us: int
    iv: float = 60.0


@dataclass(frozen=True, slots=True)
class TickerView:
    """A ticker with the (price, amount) of the best levels, as it was published."""

    ticker: Ticker
    bid: tuple[int, int]
    ask: tuple[int, int]


class Market:
    """One instrument.

    new_id: the venue's id of the trade with this number. dense_book: change numbers of the book count by one.
    first_number: number of the first trade.
    """

    def __init__(
        self,
        listing: Listing,
        *,
        seed: int,
        start_us: int,
        dense_book: bool,
        first_number: int,
        new_id: Callable[[Market, int], str],
    ) -> None:
        self.listing = listing
        self.next_number = first_number
        self.fills: list[Fill] = []
        self.liquidations: list[Fill] = []
        # (first, last) index into `fills`: neighbours of one order and price.
        self.aggregates: list[tuple[int, int]] = []
        self._new_id = new_id
        self._orders = 0
        self._rngs = {kind: Random(f"{seed}/{listing.symbol}/{kind}") for kind in ("trades", "book", "ticker", "liq")}
        self.book = Book(
            self._rngs["book"], centre=listing.start_price, tick=listing.tick, step=listing.step,
            typical=listing.typical, dense=dense_book,
        )  # fmt: skip
        self.windows: dict[int | None, Window] = {}
        self.window(None)
        self.ticker = self._first_ticker(start_us)
        self.view = self.previous_view = self._view()

    @property
    def symbol(self) -> str:
        """Venue symbol, upper case."""
        return self.listing.symbol

    @property
    def is_option(self) -> bool:
        """Whether the ticker has greeks."""
        return self.listing.instrument.instrument_type is InstrumentType.OPTION

    @property
    def has_liquidations(self) -> bool:
        """Whether positions in it can be liquidated."""
        return DataType.LIQUIDATIONS in self.listing.instrument.data_types

    def window(self, depth: int | None) -> Window:
        """The feed of this depth, started when it is asked for the first time."""
        if depth not in self.windows:
            self.windows[depth] = Window(depth)
            self.windows[depth].start(self.book)
        return self.windows[depth]

    def flush(self) -> None:
        """Renew every window: what changed since the last time is one message."""
        for window in self.windows.values():
            window.renew(self.book)
        self.book.published()

    def trade(self, parts: Sequence[tuple[int, int, int]], at_us: int, liquidation: str = "") -> tuple[Fill, ...]:
        """Record one taker order: (price, amount, side) of each fill."""
        self._orders += 1
        made = []
        for price, amount, side in parts:
            number = self.next_number
            self.next_number += 1
            fill = Fill(number, self._new_id(self, number), self._orders, price, amount, side, at_us, liquidation)
            self._remember(fill)
            made.append(fill)
        self.ticker = _changed(self.ticker, at_us=max(at_us, self.ticker.at_us), last=parts[-1][0])
        return tuple(made)

    def liquidate(self, price: int, amount: int, side: int, at_us: int) -> Fill:
        """Record a liquidation that is no trade of its own. side: of the liquidation order; SELL: a long is closed."""
        fill = Fill(0, "", 0, price, amount, side, at_us)
        self.liquidations.append(fill)
        return fill

    def draw_order(self) -> list[tuple[int, int, int]]:
        """A taker order at the touch, in one to three fills."""
        rng, listing = self._rngs["trades"], self.listing
        side = rng.choice((BUY, SELL))
        price, _ = self.book.best(ASK if side == BUY else BID)
        count = 1 + min(int(rng.expovariate(2.0)), _MOST_FILLS - 1)
        sizes = (
            max(round(rng.expovariate(1 / listing.typical) / listing.step), 1) * listing.step for _ in range(count)
        )
        return [(price + side * k // 2 * listing.tick, size, side) for k, size in enumerate(sizes)]

    def draw_liquidation(self) -> tuple[int, int, int]:
        """(price, amount, side) near the touch."""
        rng, listing = self._rngs["liq"], self.listing
        side = rng.choice((BUY, SELL))
        price, _ = self.book.best(ASK if side == BUY else BID)
        return price + side * listing.tick, rng.randrange(1, 5) * listing.typical // listing.step * listing.step, side

    def draw_ticker(self, at_us: int, *, index: int | None = None) -> None:
        """Let mark, index, open interest and, now and then, funding move. index: known already, as others share it."""
        rng, old, tick = self._rngs["ticker"], self.ticker, self.listing.tick
        drift = rng.randrange(-3, 4) if rng.random() < 0.1 else 0
        funding_us = old.funding_us if at_us < old.funding_us else old.funding_us + FUNDING_EVERY_US
        self.ticker = Ticker(
            at_us=max(at_us, old.at_us),
            last=old.last,
            mark=self.book.mid + rng.randrange(-2, 3) * tick,
            index=self.book.mid + rng.randrange(-5, 6) * tick if index is None else index,
            open_interest=max(old.open_interest + rng.randrange(-5, 6) * self.listing.step, self.listing.step),
            funding_rate=old.funding_rate + drift * 100,
            predicted_rate=old.predicted_rate + drift * 50,
            funding_us=funding_us,
            iv=round(min(max(old.iv + rng.uniform(-0.5, 0.5), 20.0), 150.0), 2),
        )

    def publish_ticker(self) -> None:
        """Let `view` be what subscribers know from now on."""
        self.previous_view, self.view = self.view, self._view()

    def truth(self) -> TickBatch:
        """Every trade ever made, local_timestamp = timestamp."""
        batch = self._batch(DataType.TRADES, self.fills)
        texts = [fill.id for fill in self.fills]
        ids, kinds = encode_id_texts(texts)
        columns = {**batch.columns, "id": ids, "id_kind": kinds}
        if (kinds != ID_INTEGER).any():
            columns["id_text"] = np.array(texts, dtype=object)
        return TickBatch.build(DataType.TRADES, columns)

    def liquidation_truth(self) -> TickBatch:
        """Every liquidation ever made, without ids."""
        return self._batch(DataType.LIQUIDATIONS, self.liquidations)

    def _view(self) -> TickerView:
        return TickerView(self.ticker, self.book.best(BID), self.book.best(ASK))

    def _batch(self, data_type: DataType, fills: Sequence[Fill]) -> TickBatch:
        at_us = np.array([fill.at_us for fill in fills], np.int64)
        return TickBatch.build(
            data_type,
            {
                "timestamp": at_us,
                "local_timestamp": at_us,
                "side": np.array([fill.side for fill in fills], np.int8),
                "price": np.array([self.listing.price(fill.price) for fill in fills]),
                "amount": np.array([self.listing.amount(fill.amount) for fill in fills]),
            },
        )

    def _remember(self, fill: Fill) -> None:
        index = len(self.fills)
        last = self.fills[-1] if self.fills else None
        if last is not None and (last.order, last.price) == (fill.order, fill.price):
            self.aggregates[-1] = (self.aggregates[-1][0], index)
        else:
            self.aggregates.append((index, index))
        self.fills.append(fill)
        if fill.liquidation:
            # The flag names the liquidated party; a maker was on the other side of the taker.
            side = fill.side if fill.liquidation == "T" else -fill.side
            self.liquidations.append(Fill(0, fill.id, fill.order, fill.price, fill.amount, side, fill.at_us))

    def _first_ticker(self, start_us: int) -> Ticker:
        mid = self.book.mid
        return Ticker(
            at_us=start_us,
            last=mid,
            mark=mid,
            index=mid,
            open_interest=_START_INTEREST * self.listing.typical // self.listing.step * self.listing.step,
            funding_rate=_START_FUNDING,
            predicted_rate=_START_FUNDING // 2,
            funding_us=(start_us // FUNDING_EVERY_US + 1) * FUNDING_EVERY_US,
        )


def _changed(ticker: Ticker, *, at_us: int, last: int) -> Ticker:
    return Ticker(
        at_us, last, ticker.mark, ticker.index, ticker.open_interest, ticker.funding_rate, ticker.predicted_rate,
        ticker.funding_us, ticker.iv,
    )  # fmt: skip

"""OKX v5 over REST: books, trades backwards by id or time, tickers, instruments.

https://www.okx.com/docs-v5/en/#order-book-trading-market-data-get-trades-history
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from market_data_tick_handler.core.ticks import BUY
from market_data_tick_handler.testing.exchange.book import ASK, BID
from market_data_tick_handler.testing.exchange.dialect import Answer, Desk, encode_json, limit_of, whole
from market_data_tick_handler.testing.exchange.listing import decimal_text, stripped
from market_data_tick_handler.testing.exchange.market import FUNDING_DECIMALS, FUNDING_EVERY_US, Fill, Market

_HISTORY_ROWS: Final = 100
_RECENT_ROWS: Final = 500
_LEVELS: Final = 400

Call = Callable[[Market, Mapping[str, str]], list[Any]]


class OkxRest:
    """Calls below `/api/v5`, and the rows they share with the sockets."""

    def __init__(self, kind: str, desk: Desk) -> None:
        self._type, self._desk = kind, desk
        self._calls: dict[str, Call] = {
            "/api/v5/market/books": self._books,
            "/api/v5/market/trades": self._trades,
            "/api/v5/market/history-trades": self._history,
            "/api/v5/market/ticker": lambda market, query: [self.ticker_row("tickers", market)],
            "/api/v5/public/mark-price": lambda market, query: [self.ticker_row("mark-price", market)],
            "/api/v5/public/open-interest": lambda market, query: [self.ticker_row("open-interest", market)],
            "/api/v5/public/funding-rate": lambda market, query: [self.ticker_row("funding-rate", market)],
        }

    def answer(self, path: str, query: Mapping[str, str]) -> Answer:
        """The rows, or the venue's error."""
        if path == "/api/v5/public/time":
            return _rows([{"ts": str(self._desk.now_ms)}])
        if path == "/api/v5/public/instruments":
            return _rows(self._instruments(query))
        call = self._calls.get(path)
        if call is None:
            return Answer(encode_json({"code": "404", "msg": "Not Found", "data": {}}), 404)
        market = self._desk.markets.get(query.get("instId", ""))
        if market is None:
            return Answer(encode_json({"code": "51001", "msg": "Instrument ID does not exist", "data": []}))
        return _rows(call(market, query))

    def trade(self, market: Market, fill: Fill) -> dict[str, str]:
        """One trade."""
        return {
            "instId": market.symbol,
            "tradeId": fill.id,
            "px": stripped(market.listing.price_text(fill.price)),
            "sz": stripped(market.listing.amount_text(fill.amount)),
            "side": "buy" if fill.side == BUY else "sell",
            "ts": str(fill.at_us // 1_000),
            "source": "0",
        }

    def levels(self, market: Market, levels: list[tuple[int, int]]) -> list[list[str]]:
        """Price, amount, a field that is always 0, number of orders."""
        listing = market.listing
        return [
            [
                stripped(listing.price_text(price)),
                stripped(listing.amount_text(amount)) if amount else "0",
                "0",
                "1" if amount else "0",
            ]
            for price, amount in levels
        ]

    def ticker_row(self, channel: str, market: Market) -> dict[str, str]:
        """The row of a ticker channel."""
        state, listing = market.ticker, market.listing
        at = str(state.at_us // 1_000)
        head = {"instId": market.symbol, "instType": self._type}
        if channel == "mark-price":
            return {**head, "markPx": stripped(listing.price_text(state.mark)), "ts": at}
        if channel == "open-interest":
            interest = stripped(listing.amount_text(state.open_interest))
            return {**head, "oi": interest, "oiCcy": interest, "ts": at}
        if channel == "funding-rate":
            return {**head, **self._funding(market), "ts": at}
        if channel == "index-tickers":
            price = stripped(listing.price_text(state.index))
            name = "-".join(market.symbol.split("-")[:2])
            return {
                "instId": name, "idxPx": price, "open24h": price, "high24h": price, "low24h": price, "sodUtc0": price,
                "sodUtc8": price, "ts": at,
            }  # fmt: skip
        (bid, bid_amount), (ask, ask_amount) = market.book.best(BID), market.book.best(ASK)
        last = stripped(listing.price_text(state.last))
        return {
            **head, "last": last, "lastSz": "1", "askPx": stripped(listing.price_text(ask)),
            "askSz": stripped(listing.amount_text(ask_amount)), "bidPx": stripped(listing.price_text(bid)),
            "bidSz": stripped(listing.amount_text(bid_amount)), "open24h": last, "high24h": last, "low24h": last,
            "sodUtc0": last, "sodUtc8": last, "volCcy24h": "0", "vol24h": "0", "ts": at,
        }  # fmt: skip

    def _funding(self, market: Market) -> dict[str, str]:
        state = market.ticker
        return {
            "fundingRate": stripped(decimal_text(state.funding_rate, FUNDING_DECIMALS)),
            "fundingTime": str(state.funding_us // 1_000),
            "nextFundingRate": stripped(decimal_text(state.predicted_rate, FUNDING_DECIMALS)),
            "nextFundingTime": str((state.funding_us + FUNDING_EVERY_US) // 1_000),
            "method": "current_period",
        }

    def _books(self, market: Market, query: Mapping[str, str]) -> list[Any]:
        depth = limit_of(query, "sz", default=1, most=_LEVELS)
        body = {
            "asks": self.levels(market, market.book.levels(ASK, depth)),
            "bids": self.levels(market, market.book.levels(BID, depth)),
            "ts": str(self._desk.now_ms),
            "seqId": market.book.last_id,
        }
        return [body]

    def _trades(self, market: Market, query: Mapping[str, str]) -> list[Any]:
        newest = market.fills[-limit_of(query, "limit", default=100, most=_RECENT_ROWS) :]
        return [self.trade(market, fill) for fill in reversed(newest)]

    def _history(self, market: Market, query: Mapping[str, str]) -> list[Any]:
        """Newest first: older than `after`, newer than `before`; type 1 counts ids, type 2 milliseconds."""
        by_time = query.get("type", "1") == "2"
        after, before = whole(query, "after"), whole(query, "before")
        limit = limit_of(query, "limit", default=_HISTORY_ROWS, most=_HISTORY_ROWS)
        page: list[Fill] = []
        for fill in reversed(market.fills):
            at = fill.at_us // 1_000 if by_time else fill.number
            if before is not None and at <= before:
                break
            if after is None or at < after:
                page.append(fill)
                if len(page) == limit:
                    break
        return [self.trade(market, fill) for fill in page]

    def _instruments(self, query: Mapping[str, str]) -> list[Any]:
        return [
            {
                "instId": market.symbol,
                "instType": self._type,
                "baseCcy": market.listing.instrument.base if self._type == "SPOT" else "",
                "quoteCcy": market.listing.instrument.quote if self._type == "SPOT" else "",
                "settleCcy": market.listing.instrument.settle,
                "ctVal": "" if self._type == "SPOT" else f"{market.listing.instrument.contract_size:g}",
                "expTime": str(market.listing.instrument.expiry_us // 1_000 or ""),
                "tickSz": stripped(market.listing.price_text(market.listing.tick)),
                "lotSz": stripped(market.listing.amount_text(market.listing.step)),
                "state": "live",
            }
            for market in self._desk.markets.values()
            if query.get("instType") == self._type and query.get("instId", market.symbol) == market.symbol
        ]


def _rows(rows: list[Any]) -> Answer:
    return Answer(encode_json({"code": "0", "msg": "", "data": rows}))

"""Bybit v5 over REST, and how the venue writes numbers: the last trades, books, tickers, open interest.

https://bybit-exchange.github.io/docs/v5/market/recent-trade
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from market_data_tick_handler.core.ticks import BUY
from market_data_tick_handler.testing.exchange.book import ASK, BID
from market_data_tick_handler.testing.exchange.dialect import Answer, Desk, encode_json, limit_of
from market_data_tick_handler.testing.exchange.listing import decimal_text, stripped
from market_data_tick_handler.testing.exchange.market import FUNDING_DECIMALS, Fill, Market, TickerView

_SPOT_TRADES: Final = 60
_TRADES: Final = 1_000
_REST_DEPTH: Final = 500


class BybitRest:
    """Calls below `/v5/market`."""

    def __init__(self, exchange: str, desk: Desk) -> None:
        self._desk = desk
        self._spot = exchange == "bybit-spot"

    def answer(self, path: str, query: Mapping[str, str]) -> Answer:
        """The result, or the venue's error."""
        calls = {
            "/v5/market/recent-trade": self._recent_trades,
            "/v5/market/orderbook": self._orderbook,
            "/v5/market/tickers": self._tickers,
            "/v5/market/open-interest": self._interest,
        }
        if path == "/v5/market/time":
            return self._result(
                {"timeSecond": str(self._desk.now_ms // 1_000), "timeNano": f"{self._desk.now_us()}000"}
            )
        if path == "/v5/market/instruments-info":
            return self._instruments(query)
        if path not in calls:
            return Answer(b"", 404)
        market = self._desk.markets.get(query.get("symbol", ""))
        if market is None or self.category(market) != query.get("category"):
            return self._failure(10001, "params error: symbol invalid")
        return calls[path](market, query)

    def refusal(self, status: int, retry_after_s: int) -> Answer:
        """Too many visits."""
        body = self._failure(10006, "Too many visits. Exceeded the API Rate Limit.").body
        return Answer(body, status, {"Retry-After": str(retry_after_s)})

    def category(self, market: Market) -> str:
        """spot, linear or inverse."""
        if self._spot:
            return "spot"
        return "inverse" if market.listing.instrument.quote == "USD" else "linear"

    def price(self, market: Market, units: int) -> str:
        """Spot writes no trailing zeros."""
        text = market.listing.price_text(units)
        return stripped(text) if self._spot else text

    def amount(self, market: Market, units: int) -> str:
        """No trailing zeros; a level that is gone has 0."""
        return stripped(market.listing.amount_text(units)) if units else "0"

    def sequence(self, fill: Fill) -> int:
        """The cross sequence: fills of one order share it."""
        return 700_000_000_000 + fill.order

    def levels(self, market: Market, levels: list[tuple[int, int]]) -> list[list[str]]:
        """(price, amount) as texts."""
        return [[self.price(market, price), self.amount(market, amount)] for price, amount in levels]

    def ticker_fields(self, market: Market, view: TickerView) -> dict[str, str]:
        """Everything a ticker says."""
        last = self.price(market, view.ticker.last)
        common = {"symbol": market.symbol, "lastPrice": last, "prevPrice24h": last, "price24hPcnt": "0"}
        if self._spot:
            return {**common, "highPrice24h": last, "lowPrice24h": last, "volume24h": "0", "turnover24h": "0"}
        state, (bid, bid_amount), (ask, ask_amount) = view.ticker, view.bid, view.ask
        funding = (
            {}
            if market.listing.instrument.expiry_us
            else {
                "nextFundingTime": str(state.funding_us // 1_000),
                "fundingRate": stripped(decimal_text(state.funding_rate, FUNDING_DECIMALS)),
            }
        )
        return {
            **common,
            "markPrice": self.price(market, state.mark),
            "indexPrice": self.price(market, state.index),
            "openInterest": self.amount(market, state.open_interest),
            **funding,
            "bid1Price": self.price(market, bid),
            "bid1Size": self.amount(market, bid_amount),
            "ask1Price": self.price(market, ask),
            "ask1Size": self.amount(market, ask_amount),
        }

    def _recent_trades(self, market: Market, query: Mapping[str, str]) -> Answer:
        most = _SPOT_TRADES if self._spot else _TRADES
        limit = limit_of(query, "limit", default=_SPOT_TRADES if self._spot else 500, most=most)
        rows = [
            {
                "execId": fill.id,
                "symbol": market.symbol,
                "price": self.price(market, fill.price),
                "size": self.amount(market, fill.amount),
                "side": "Buy" if fill.side == BUY else "Sell",
                "time": str(fill.at_us // 1_000),
                "isBlockTrade": False,
                "isRPITrade": False,
                "seq": str(self.sequence(fill)),
            }
            for fill in reversed(market.fills[-limit:])
        ]
        return self._result({"category": query["category"], "list": rows})

    def _orderbook(self, market: Market, query: Mapping[str, str]) -> Answer:
        depth = limit_of(query, "limit", default=1 if self._spot else 25, most=_REST_DEPTH)
        result = {
            "s": market.symbol,
            "b": self.levels(market, market.book.levels(BID, depth)),
            "a": self.levels(market, market.book.levels(ASK, depth)),
            "ts": self._desk.now_ms,
            "u": market.window(None).count,
            "seq": market.book.last_id,
            "cts": self._desk.now_ms,
        }
        return self._result(result)

    def _tickers(self, market: Market, query: Mapping[str, str]) -> Answer:
        return self._result({"category": query["category"], "list": [self.ticker_fields(market, market.view)]})

    def _interest(self, market: Market, query: Mapping[str, str]) -> Answer:
        row = {
            "openInterest": self.amount(market, market.ticker.open_interest),
            "timestamp": str(market.ticker.at_us // 1_000),
        }
        return self._result({"symbol": market.symbol, "category": query["category"], "list": [row]})

    def _instruments(self, query: Mapping[str, str]) -> Answer:
        rows = [
            {
                "symbol": market.symbol,
                "status": "Trading",
                "baseCoin": market.listing.instrument.base,
                "quoteCoin": market.listing.instrument.quote,
                "priceFilter": {"tickSize": self.price(market, market.listing.tick)},
            }
            for market in self._desk.markets.values()
            if self.category(market) == query.get("category")
        ]
        return self._result({"category": query.get("category", ""), "list": rows, "nextPageCursor": ""})

    def _result(self, result: dict[str, Any]) -> Answer:
        body = {"retCode": 0, "retMsg": "OK", "result": result, "retExtInfo": {}, "time": self._desk.now_ms}
        return Answer(encode_json(body))

    def _failure(self, code: int, message: str) -> Answer:
        body = {"retCode": code, "retMsg": message, "result": {}, "retExtInfo": {}, "time": self._desk.now_ms}
        return Answer(encode_json(body))

"""Binance over REST: depth, trades by id, open interest, with the weight the venue counts and refuses by.

https://developers.binance.com/docs/binance-spot-api-docs/rest-api
https://developers.binance.com/docs/derivatives/usds-margined-futures/market-data/rest-api
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from typing import Any, Final

from market_data_tick_handler.core.ticks import SELL
from market_data_tick_handler.testing.exchange.book import ASK, BID
from market_data_tick_handler.testing.exchange.dialect import Answer, Desk, encode_json, limit_of, whole
from market_data_tick_handler.testing.exchange.market import Fill, Market

_MINUTE_US: Final = 60_000_000
_HOUR_MS: Final = 3_600_000
_WEIGHTS_PER_MINUTE: Final = {"binance": 6_000, "binance-futures": 2_400, "binance-delivery": 2_400}
_PREFIXES: Final = {
    "binance": ("/api/v3/", "/api/v1/"),
    "binance-futures": ("/fapi/v1/",),
    "binance-delivery": ("/dapi/v1/",),
}
# (up to this many levels, weight)
_SPOT_DEPTH: Final = ((100, 5), (500, 25), (1_000, 50), (5_000, 250))
_FUTURES_DEPTH: Final = ((50, 2), (100, 5), (500, 10), (1_000, 20))
_SPOT_WEIGHTS: Final = {"trades": 25, "historicalTrades": 25, "aggTrades": 4, "exchangeInfo": 20}
_FUTURES_WEIGHTS: Final = {"trades": 5, "historicalTrades": 20, "aggTrades": 20}

Text = Callable[[Market, int], str]


class BinanceRest:
    """Calls below `/api/v3`, `/fapi/v1` or `/dapi/v1`. price, amount: how the venue writes numbers."""

    def __init__(self, exchange: str, desk: Desk, price: Text, amount: Text) -> None:
        self._exchange, self._desk, self._price, self._amount = exchange, desk, price, amount
        self._spot = exchange == "binance"
        self._delivery = exchange == "binance-delivery"
        self._minute, self._used = 0, 0
        self._calls: dict[str, Callable[[Mapping[str, str], Mapping[str, str]], Answer]] = {
            "depth": self._depth,
            "trades": self._trades,
            "historicalTrades": self._historical,
            "aggTrades": self._aggregates,
            "exchangeInfo": lambda query, headers: self._info(),
            "time": lambda query, headers: Answer(encode_json({"serverTime": desk.now_ms})),
            "ping": lambda query, headers: Answer(b"{}"),
        }
        if not self._spot:
            self._calls["openInterest"] = self._interest

    def answer(self, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> Answer:
        """The body, or the venue's error; what it weighed is in a header."""
        prefix = next((prefix for prefix in _PREFIXES[self._exchange] if path.startswith(prefix)), None)
        call = None if prefix is None else self._calls.get(path.removeprefix(prefix))
        if prefix is None or call is None:
            return Answer(b"", 404)
        used = self._weigh(path.removeprefix(prefix), query)
        if used > _WEIGHTS_PER_MINUTE[self._exchange]:
            return self.refusal(429, 60 - self._desk.now_us() // 1_000_000 % 60)
        answer = call(query, headers)
        return Answer(answer.body, answer.status, {**answer.headers, "X-MBX-USED-WEIGHT-1M": str(used)})

    def refusal(self, status: int, retry_after_s: int) -> Answer:
        """Too much weight, or banned for it."""
        message = "Too many requests." if status == 429 else "Way too many requests; IP banned."
        return _error(-1003, message, status, {"Retry-After": str(retry_after_s)})

    def aggregate(self, market: Market, index: int, unit: int) -> dict[str, Any]:
        """One aggregated trade: neighbours of one order and price."""
        start, stop = market.aggregates[index]
        fills = market.fills[start : stop + 1]
        body = {
            "a": index + 1,
            "p": self._price(market, fills[0].price),
            "q": self._amount(market, sum(fill.amount for fill in fills)),
            "f": fills[0].number,
            "l": fills[-1].number,
            "T": fills[0].at_us // unit,
            "m": fills[0].side == SELL,
        }
        return {**body, "M": True} if self._spot else body

    def _weigh(self, name: str, query: Mapping[str, str]) -> int:
        minute = self._desk.now_us() // _MINUTE_US
        if minute != self._minute:
            self._minute, self._used = minute, 0
        if name == "depth":
            table = _SPOT_DEPTH if self._spot else _FUTURES_DEPTH
            levels = whole(query, "limit", 100 if self._spot else 500) or 0
            self._used += next((weight for most, weight in table if levels <= most), table[-1][1])
        else:
            self._used += (_SPOT_WEIGHTS if self._spot else _FUTURES_WEIGHTS).get(name, 1)
        return self._used

    def _market(self, query: Mapping[str, str]) -> Market | Answer:
        symbol = query.get("symbol")
        if not symbol:
            return _error(-1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.")
        return self._desk.markets.get(symbol) or _error(-1121, "Invalid symbol.")

    def _depth(self, query: Mapping[str, str], headers: Mapping[str, str]) -> Answer:
        market = self._market(query)
        if isinstance(market, Answer):
            return market
        depth = limit_of(query, "limit", default=100 if self._spot else 500, most=5_000 if self._spot else 1_000)
        body: dict[str, Any] = {"lastUpdateId": market.book.last_id}
        if not self._spot:
            body["E"] = body["T"] = self._desk.now_ms
        if self._delivery:
            body["symbol"], body["pair"] = market.symbol, market.symbol.partition("_")[0]
        for name, side in (("bids", BID), ("asks", ASK)):
            levels = market.book.levels(side, depth)
            body[name] = [[self._price(market, price), self._amount(market, amount)] for price, amount in levels]
        return Answer(encode_json(body))

    def _trades(self, query: Mapping[str, str], headers: Mapping[str, str]) -> Answer:
        market = self._market(query)
        if isinstance(market, Answer):
            return market
        newest = market.fills[-limit_of(query, "limit", default=500, most=1_000) :]
        return self._rows(market, newest, headers)

    def _historical(self, query: Mapping[str, str], headers: Mapping[str, str]) -> Answer:
        # Market data of futures that is looked up in a database needs a key, though no signature.
        if not self._spot and not headers.get("X-MBX-APIKEY"):
            return _error(-2014, "API-key format invalid.", 401)
        market = self._market(query)
        if isinstance(market, Answer):
            return market
        first = whole(query, "fromId")
        if first is None:
            return self._trades(query, headers)
        start = max(first - (market.fills[0].number if market.fills else 0), 0)
        page = market.fills[start : start + limit_of(query, "limit", default=500, most=1_000)]
        return self._rows(market, page, headers)

    def _rows(self, market: Market, fills: list[Fill], headers: Mapping[str, str]) -> Answer:
        micro = self._spot and headers.get("X-MBX-TIME-UNIT", "").upper() == "MICROSECOND"
        return Answer(encode_json([self._row(market, fill, 1 if micro else 1_000) for fill in fills]))

    def _row(self, market: Market, fill: Fill, unit: int) -> dict[str, Any]:
        quote = market.listing.price(fill.price) * market.listing.amount(fill.amount)
        row: dict[str, Any] = {
            "id": fill.number,
            "price": self._price(market, fill.price),
            "qty": self._amount(market, fill.amount),
            "baseQty" if self._delivery else "quoteQty": f"{quote:.8f}",
            "time": fill.at_us // unit,
            "isBuyerMaker": fill.side == SELL,
        }
        return {**row, "isBestMatch": True} if self._spot else row

    def _aggregates(self, query: Mapping[str, str], headers: Mapping[str, str]) -> Answer:
        market = self._market(query)
        if isinstance(market, Answer):
            return market
        limit = limit_of(query, "limit", default=500, most=1_000)
        start_ms, end_ms, first = (whole(query, name) for name in ("startTime", "endTime", "fromId"))
        count = len(market.aggregates)
        if first is not None:
            chosen = range(max(first - 1, 0), count)
        elif start_ms is None and end_ms is None:
            chosen = range(max(count - limit, 0), count)
        else:
            if not self._spot and start_ms is not None and end_ms is not None and end_ms - start_ms > _HOUR_MS:
                return _error(-4188, "Timestamp range is too large, expected at most one hour.")
            chosen = range(self._since(market, start_ms or 0), self._since(market, (end_ms or 2**53) + 1))
        micro = self._spot and headers.get("X-MBX-TIME-UNIT", "").upper() == "MICROSECOND"
        rows = [self.aggregate(market, index, 1 if micro else 1_000) for index in chosen[:limit]]
        return Answer(encode_json(rows))

    def _since(self, market: Market, at_ms: int) -> int:
        """Index of the first aggregate at or after a time."""
        return bisect_left(market.aggregates, at_ms, key=lambda pair: market.fills[pair[0]].at_us // 1_000)

    def _interest(self, query: Mapping[str, str], headers: Mapping[str, str]) -> Answer:
        market = self._market(query)
        if isinstance(market, Answer):
            return market
        interest = market.listing.amount_text(market.ticker.open_interest)
        if not self._delivery:
            body = {"openInterest": interest, "symbol": market.symbol, "time": market.ticker.at_us // 1_000}
        else:
            dated = market.listing.instrument.expiry_us
            body = {
                "symbol": market.symbol,
                "pair": market.symbol.partition("_")[0],
                "openInterest": interest,
                "contractType": "CURRENT_QUARTER" if dated else "PERPETUAL",
                "time": market.ticker.at_us // 1_000,
            }
        return Answer(encode_json(body))

    def _info(self) -> Answer:
        symbols = [
            {
                "symbol": market.symbol,
                "status": "TRADING",
                "baseAsset": market.listing.instrument.base,
                "quoteAsset": market.listing.instrument.quote,
            }
            for market in self._desk.markets.values()
        ]
        limit = {
            "rateLimitType": "REQUEST_WEIGHT",
            "interval": "MINUTE",
            "intervalNum": 1,
            "limit": _WEIGHTS_PER_MINUTE[self._exchange],
        }
        body = {"timezone": "UTC", "serverTime": self._desk.now_ms, "rateLimits": [limit], "symbols": symbols}
        return Answer(encode_json(body))


def _error(code: int, message: str, status: int = 400, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(encode_json({"code": code, "msg": message}), status, headers or {})

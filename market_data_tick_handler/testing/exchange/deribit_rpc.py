"""Deribit's public methods, the same over REST and WebSocket: trades by sequence or time, books, instruments, tickers.

https://docs.deribit.com/api-reference/market-data/public-get_last_trades_by_instrument
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from market_data_tick_handler.core.instruments import InstrumentType
from market_data_tick_handler.core.ticks import BUY
from market_data_tick_handler.testing.exchange.book import ASK, BID
from market_data_tick_handler.testing.exchange.dialect import Desk, limit_of, whole
from market_data_tick_handler.testing.exchange.listing import start_price_of
from market_data_tick_handler.testing.exchange.market import FUNDING_DECIMALS, Fill, Market
from market_data_tick_handler.testing.exchange.options import quote_option

_TRADES: Final = 1_000
_DEFAULT_TRADES: Final = 10
_NEVER_MS: Final = 32_503_708_800_000
_HALF_SPREAD_IV: Final = 1.5

Params = Mapping[str, str]


class DeribitError(Exception):
    """A JSON-RPC error."""

    def __init__(self, code: int, message: str) -> None:
        self.code = code
        super().__init__(message)

    def body(self) -> dict[str, Any]:
        """As the venue writes it."""
        return {"code": self.code, "message": str(self)}


class DeribitMethods:
    """`public/...`; parameters are texts."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._calls: dict[str, Callable[[Params], Any]] = {
            "public/get_time": lambda params: desk.now_ms,
            "public/get_instruments": self._instruments,
            "public/get_order_book": self._order_book,
            "public/ticker": lambda params: ticker_body(desk, self._market(params)),
            "public/get_last_trades_by_instrument": self._trades_by_number,
            "public/get_last_trades_by_instrument_and_time": self._trades_by_time,
            "public/get_book_summary_by_currency": self._summaries,
        }

    def call(self, method: str, params: Params) -> Any:
        """The result.

        Raises:
            DeribitError: unknown method or instrument, or a parameter is missing.
        """
        if method not in self._calls:
            raise DeribitError(-32601, "Method not found")
        return self._calls[method](params)

    def _market(self, params: Params) -> Market:
        name = params.get("instrument_name", "")
        market = self._desk.markets.get(name.upper())
        if market is None:
            raise DeribitError(13020 if name else -32602, "instrument_not_found" if name else "Invalid params")
        return market

    def _trades_by_number(self, params: Params) -> dict[str, Any]:
        market = self._market(params)
        first, last = whole(params, "start_seq"), whole(params, "end_seq")
        origin = market.fills[0].number if market.fills else 0
        start = 0 if first is None else max(first - origin, 0)
        stop = len(market.fills) if last is None else max(last - origin + 1, 0)
        return self._page(market, market.fills[start:stop], params)

    def _trades_by_time(self, params: Params) -> dict[str, Any]:
        market = self._market(params)
        first, last = whole(params, "start_timestamp"), whole(params, "end_timestamp")
        if first is None or last is None:
            raise DeribitError(-32602, "Invalid params")
        return self._page(market, [fill for fill in market.fills if first <= fill.at_us // 1_000 <= last], params)

    def _page(self, market: Market, fills: Sequence[Fill], params: Params) -> dict[str, Any]:
        """`asc`: from the oldest on. Otherwise from the newest back."""
        count = limit_of(params, "count", default=_DEFAULT_TRADES, most=_TRADES)
        page = fills[:count] if params.get("sorting") == "asc" else list(reversed(fills[-count:]))
        return {"trades": [trade_body(market, fill) for fill in page], "has_more": len(fills) > count}

    def _order_book(self, params: Params) -> dict[str, Any]:
        market, depth = self._market(params), limit_of(params, "depth", default=5, most=10_000)
        listing = market.listing
        bids, asks = (
            [[listing.price(price), listing.amount(amount)] for price, amount in market.book.levels(side, depth)]
            for side in (BID, ASK)
        )
        return {**ticker_body(self._desk, market), "change_id": market.book.last_id, "bids": bids, "asks": asks}

    def _instruments(self, params: Params) -> list[dict[str, Any]]:
        currency, kind = params.get("currency", "any"), params.get("kind", "any")
        return [
            _instrument(market)
            for market in self._desk.markets.values()
            if kind in ("any", kind_of(market)) and currency in ("any", currency_of(market))
        ]

    def _summaries(self, params: Params) -> list[dict[str, Any]]:
        currency, kind = params.get("currency", "any"), params.get("kind", "any")
        return [
            {
                "instrument_name": instrument_name(market),
                "open_interest": market.listing.amount(market.ticker.open_interest),
                "mark_price": market.listing.price(market.ticker.mark),
                "last": market.listing.price(market.ticker.last),
                "creation_timestamp": self._desk.now_ms,
            }
            for market in self._desk.markets.values()
            if kind in ("any", kind_of(market)) and currency in ("any", currency_of(market))
        ]


def instrument_name(market: Market) -> str:
    """The venue's spelling: a decimal point in a strike is a lower-case d."""
    return re.sub(r"(?<=\d)D(?=\d)", "d", market.symbol)


def kind_of(market: Market) -> str:
    """future, option or spot."""
    kind = market.listing.instrument.instrument_type
    if kind is InstrumentType.OPTION:
        return "option"
    return "spot" if kind is InstrumentType.SPOT_PAIR else "future"


def currency_of(market: Market) -> str:
    """What the venue files an instrument under: its base, or its stable coin."""
    instrument = market.listing.instrument
    return instrument.base if instrument.quote == "USD" else instrument.quote


def trade_body(market: Market, fill: Fill) -> dict[str, Any]:
    """One trade."""
    listing, option = market.listing, market.is_option
    body: dict[str, Any] = {
        "trade_seq": fill.number,
        "trade_id": fill.id,
        "timestamp": fill.at_us // 1_000,
        "tick_direction": 1,
        "price": listing.price(fill.price),
        "mark_price": listing.price(market.ticker.mark),
        "instrument_name": instrument_name(market),
        "index_price": listing.price(market.ticker.index) if not option else float(_base_price(market)),
        "direction": "buy" if fill.side == BUY else "sell",
        "amount": listing.amount(fill.amount),
        "contracts": listing.amount(fill.amount) / (1 if option else 10),
    }
    if option:
        body["iv"] = market.ticker.iv
    if fill.liquidation:
        body["liquidation"] = fill.liquidation
    return body


def ticker_body(desk: Desk, market: Market) -> dict[str, Any]:
    """The state of a contract or option."""
    listing, state = market.listing, market.ticker
    (bid, bid_amount), (ask, ask_amount) = market.book.best(BID), market.book.best(ASK)
    body: dict[str, Any] = {
        "timestamp": state.at_us // 1_000,
        "state": "open",
        "stats": {"volume": 0.0, "price_change": None, "low": None, "high": None},
        "open_interest": listing.amount(state.open_interest),
        "mark_price": listing.price(state.mark),
        "last_price": listing.price(state.last),
        "instrument_name": instrument_name(market),
        "index_price": listing.price(state.index),
        "best_bid_price": listing.price(bid),
        "best_bid_amount": listing.amount(bid_amount),
        "best_ask_price": listing.price(ask),
        "best_ask_amount": listing.amount(ask_amount),
    }
    if market.is_option:
        return {**body, **_option_fields(desk, market)}
    if market.listing.instrument.expiry_us == 0 and kind_of(market) == "future":
        body["funding_8h"] = state.predicted_rate / 10**FUNDING_DECIMALS
        body["current_funding"] = state.funding_rate / 10**FUNDING_DECIMALS
        body["interest_value"] = 0.0
    return body


def _option_fields(desk: Desk, market: Market) -> dict[str, Any]:
    instrument, state = market.listing.instrument, market.ticker
    forward = _underlying(desk, market)
    quote = quote_option(
        forward=forward,
        strike=instrument.strike,
        iv=state.iv,
        call=instrument.option_type == "CALL",
        expiry_us=instrument.expiry_us,
        now_us=state.at_us,
    )
    return {
        "underlying_price": forward,
        "underlying_index": instrument_name(market).rsplit("-", 2)[0],
        "index_price": forward,
        "mark_price": quote.mark,
        "mark_iv": state.iv,
        "bid_iv": round(state.iv - _HALF_SPREAD_IV, 2),
        "ask_iv": round(state.iv + _HALF_SPREAD_IV, 2),
        "interest_rate": 0.0,
        "greeks": {
            "delta": quote.delta,
            "gamma": quote.gamma,
            "vega": quote.vega,
            "theta": quote.theta,
            "rho": quote.rho,
        },
    }


def _underlying(desk: Desk, market: Market) -> float:
    """The index of a contract on the same base, where one is listed."""
    base = market.listing.instrument.base
    for other in desk.markets.values():
        if other.listing.instrument.base == base and kind_of(other) == "future":
            return other.listing.price(other.ticker.index)
    return float(_base_price(market))


def _base_price(market: Market) -> int:
    return start_price_of(market.listing.instrument.base)


def _instrument(market: Market) -> dict[str, Any]:
    listing, instrument = market.listing, market.listing.instrument
    body: dict[str, Any] = {
        "instrument_name": instrument_name(market),
        "kind": kind_of(market),
        "base_currency": instrument.base,
        "quote_currency": instrument.base if market.is_option else instrument.quote,
        "counter_currency": instrument.quote,
        "settlement_currency": instrument.settle or instrument.base,
        "tick_size": listing.price(listing.tick),
        "min_trade_amount": listing.amount(listing.step),
        "contract_size": 1.0 if market.is_option else 10.0,
        "is_active": True,
        "settlement_period": "month" if instrument.expiry_us else "perpetual",
        "expiration_timestamp": instrument.expiry_us // 1_000 if instrument.expiry_us else _NEVER_MS,
        "creation_timestamp": 1_534_167_754_000,
    }
    if market.is_option:
        body["strike"] = instrument.strike
        body["option_type"] = instrument.option_type.lower()
    return body

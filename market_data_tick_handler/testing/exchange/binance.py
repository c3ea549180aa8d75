"""Binance: combined and raw streams of spot, USD-M and COIN-M, subscribed by message or in the URL.

Books are difference feeds: a frame has the first and the last number of its changes, futures also the last number of
the frame before. The snapshot is over REST, taken at any time, and so usually inside the numbers of the next frame.
https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams
https://developers.binance.com/docs/derivatives/usds-margined-futures/websocket-market-streams
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from market_data_tick_handler.core.ticks import SELL
from market_data_tick_handler.testing.exchange.binance_rest import BinanceRest
from market_data_tick_handler.testing.exchange.book import ASK, BID, Delta
from market_data_tick_handler.testing.exchange.dialect import Answer, ConnectionRules, Desk, Event, encode_json
from market_data_tick_handler.testing.exchange.listing import decimal_text
from market_data_tick_handler.testing.exchange.market import FUNDING_DECIMALS, Fill, Market
from market_data_tick_handler.testing.exchange.session import Session

_DAY_S: Final = 86_400.0
_SPOT_DECIMALS: Final = 8
# What each path of the split USD-M sockets carries; the other sockets carry everything.
_PUBLIC: Final = frozenset({"trade", "depth", "bookTicker"})
_MARKET: Final = frozenset({"aggTrade", "markPrice", "ticker", "forceOrder"})
_KINDS: Final = {
    "trade": "trades",
    "aggTrade": "trades",
    "depth": "book",
    "bookTicker": "book",
    "markPrice": "ticker",
    "ticker": "ticker",
    "forceOrder": "liquidations",
}
_FUTURES_ONLY: Final = frozenset({"markPrice", "forceOrder", "indexPrice"})
_SPOT_RULES: Final = ConnectionRules(
    messages_per_s=5, streams=1024, ping_every_s=20.0, pong_within_s=60.0, max_age_s=_DAY_S
)
_FUTURES_RULES: Final = ConnectionRules(
    messages_per_s=10, streams=1024, ping_every_s=180.0, pong_within_s=600.0, max_age_s=_DAY_S
)
_ROOTS: Final = {
    "binance": ("",),
    "binance-futures": ("/public", "/market"),
    "binance-delivery": ("",),
}


class _Command(msgspec.Struct):
    method: str = ""
    params: list[Any] = []
    id: int | str | None = None


@dataclass(frozen=True, slots=True)
class _Stream:
    """A stream name taken apart: `btcusdt@depth@100ms`."""

    symbol: str
    kind: str

    @classmethod
    def read(cls, name: str) -> _Stream:
        symbol, _, rest = name.partition("@")
        return cls(symbol.upper() if symbol == symbol.lower() else "", rest.partition("@")[0])


class BinanceDialect:
    """See `Dialect`. `Session.flavour`: unit of time, then `raw` where frames are not wrapped."""

    liquidations_are_trades = False

    def __init__(self, exchange: str, desk: Desk) -> None:
        self._exchange, self._desk = exchange, desk
        self._spot = exchange == "binance"
        self._delivery = exchange == "binance-delivery"
        self._rest = BinanceRest(exchange, desk, self.price, self.amount)
        self.rules = _SPOT_RULES if self._spot else _FUTURES_RULES
        self.resolution_us = 1 if self._spot else 1_000
        self.dense_book = self._spot
        self.first_number = 5_000_001

    def new_id(self, market: Market, number: int) -> str:
        """Ids are the numbers."""
        return str(number)

    def price(self, market: Market, units: int) -> str:
        """Spot pads everything to eight decimals."""
        text = market.listing.price_text(units)
        return text.ljust(text.index(".") + 1 + _SPOT_DECIMALS, "0") if self._spot else text

    def amount(self, market: Market, units: int) -> str:
        """Spot pads everything to eight decimals."""
        text = market.listing.amount_text(units)
        return text.ljust(text.index(".") + 1 + _SPOT_DECIMALS, "0") if self._spot else text

    def listens(self, path: str) -> bool:
        """`/stream`, `/ws` and `/ws/<streams>`, USD-M below `/public` and `/market`."""
        return any(
            path in (f"{root}/stream", f"{root}/ws") or path.startswith(f"{root}/ws/")
            for root in _ROOTS[self._exchange]
        )

    def greet(self, session: Session, query: Mapping[str, str]) -> None:
        """Streams in the URL are subscribed at once, without an acknowledgement."""
        unit = "us" if self._spot and query.get("timeUnit", "").lower() == "microsecond" else "ms"
        raw = "/stream" not in session.path
        session.flavour = f"{unit} raw" if raw else unit
        names = session.path.partition("/ws/")[2] if raw else query.get("streams", "")
        for name in filter(None, names.split("/")):
            self._subscribe(session, name)

    def receive(self, session: Session, text: str) -> None:
        """SUBSCRIBE, UNSUBSCRIBE, LIST_SUBSCRIPTIONS."""
        try:
            command = msgspec.json.decode(text, type=_Command)
        except msgspec.DecodeError as error:
            session.say(encode_json({"error": {"code": 3, "msg": f"Invalid JSON: {error}"}}))
            return
        if command.method not in ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS"):
            message = f"Invalid request: unknown variant `{command.method}`"
            session.say(encode_json({"error": {"code": 2, "msg": message}, "id": command.id}))
            return
        result = list(session.channels) if command.method == "LIST_SUBSCRIPTIONS" else None
        session.say(encode_json({"result": result, "id": command.id}))
        for name in map(str, command.params):
            if command.method == "SUBSCRIBE":
                self._subscribe(session, name)
            elif command.method == "UNSUBSCRIBE":
                session.unsubscribe(name)

    def beat(self, session: Session, now_us: int) -> None:
        """Nothing but the rules."""

    def keys(self, event: Event) -> list[str]:
        """One per kind and symbol; an index comes before its first contract."""
        keys = [f"{event.kind}:{event.market.symbol}"]
        if event.kind == "ticker" and self._delivery:
            pair = pair_of(event.market)
            first = next(market for market in self._desk.markets.values() if pair_of(market) == pair)
            keys = [f"index:{pair}", *keys] if first is event.market else keys
        return keys

    def encode(self, channel: str, flavour: str, event: Event) -> list[bytes]:
        """Frames of one stream."""
        unit = 1 if flavour.startswith("us") else 1_000
        kind = _Stream.read(channel).kind
        bodies = self._bodies(kind, event, unit)
        if flavour.endswith("raw"):
            return [encode_json(body) for body in bodies]
        return [encode_json({"stream": channel, "data": body}) for body in bodies]

    def answer(self, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> Answer:
        """See `BinanceRest`."""
        return self._rest.answer(path, query, headers)

    def refusal(self, status: int, retry_after_s: int) -> Answer:
        """429 before, 418 after the ban."""
        return self._rest.refusal(status, retry_after_s)

    def maintenance(self) -> bytes | None:
        """Spot announces the end of a server; futures just end."""
        return encode_json({"e": "serverShutdown", "E": self._desk.now_ms}) if self._spot else None

    def _subscribe(self, session: Session, name: str) -> None:
        """What does not exist, or belongs to another path, is accepted and stays silent."""
        stream = _Stream.read(name)
        key = f"none:{name}"
        if self._carries(session.path, stream.kind):
            if stream.kind == "indexPrice":
                key = f"index:{stream.symbol}"
            elif stream.kind in _KINDS and stream.symbol in self._desk.markets:
                key = f"{_KINDS[stream.kind]}:{stream.symbol}"
        session.subscribe(name, key)

    def _carries(self, path: str, kind: str) -> bool:
        if self._exchange == "binance-futures":
            return kind in (_PUBLIC if path.startswith("/public") else _MARKET)
        return not (self._spot and kind in _FUTURES_ONLY)

    def _bodies(self, kind: str, event: Event, unit: int) -> list[dict[str, Any]]:
        market = event.market
        sent = (event.at_us + 1_000) // unit
        if kind == "trade":
            return [self._trade(market, fill, sent, unit) for fill in event.fills]
        if kind == "aggTrade":
            return self._aggregates(event, sent, unit)
        if kind == "depth":
            delta = market.window(None).delta
            return [] if delta is None else [self._depth(event, delta, unit)]
        if kind == "bookTicker":
            return [self._best(event, unit)]
        if kind == "forceOrder":
            return [self._liquidation(market, fill, sent) for fill in event.fills]
        return [self._ticker(kind, market, event.at_us // unit)]

    def _trade(self, market: Market, fill: Fill, sent: int, unit: int) -> dict[str, Any]:
        body = {"e": "trade", "E": sent}
        rest = {
            "s": market.symbol,
            "t": fill.number,
            "p": self.price(market, fill.price),
            "q": self.amount(market, fill.amount),
        }
        if self._spot:
            return {**body, **rest, "T": fill.at_us // unit, "m": fill.side == SELL, "M": True}
        return {**body, "T": fill.at_us // unit, **rest, "X": "MARKET", "m": fill.side == SELL}

    def _aggregates(self, event: Event, sent: int, unit: int) -> list[dict[str, Any]]:
        market, bodies = event.market, []
        first = event.fills[0].number - market.fills[0].number
        for index in range(len(market.aggregates) - 1, -1, -1):
            start, stop = market.aggregates[index]
            if start < first:
                break
            bodies.append({"e": "aggTrade", "E": sent, "s": market.symbol, **self._rest.aggregate(market, index, unit)})
            if stop <= first:
                break
        return bodies[::-1]

    def _depth(self, event: Event, delta: Delta, unit: int) -> dict[str, Any]:
        market = event.market
        body: dict[str, Any] = {"e": "depthUpdate", "E": event.at_us // unit}
        if not self._spot:
            body["T"] = event.at_us // unit
        body["s"] = market.symbol
        if self._delivery:
            body["ps"] = pair_of(market)
        body["U"], body["u"] = delta.previous_id + 1 if self._spot else delta.first_id, delta.last_id
        if not self._spot:
            body["pu"] = delta.previous_id
        body["b"], body["a"] = (
            [[self.price(market, price), self.amount(market, amount)] for price, amount, _ in side]
            for side in (delta.bids, delta.asks)
        )
        return body

    def _best(self, event: Event, unit: int) -> dict[str, Any]:
        market = event.market
        (bid, bid_amount), (ask, ask_amount) = market.book.best(BID), market.book.best(ASK)
        body: dict[str, Any] = {"u": market.book.last_id, "s": market.symbol}
        if not self._spot:
            body = {"e": "bookTicker", **body}
        body["b"], body["B"] = self.price(market, bid), self.amount(market, bid_amount)
        body["a"], body["A"] = self.price(market, ask), self.amount(market, ask_amount)
        if not self._spot:
            body["T"] = body["E"] = event.at_us // unit
        return body

    def _liquidation(self, market: Market, fill: Fill, sent: int) -> dict[str, Any]:
        amount = market.listing.amount_text(fill.amount)
        price = market.listing.price_text(fill.price)
        pair = {"ps": pair_of(market)} if self._delivery else {}
        order = {
            "s": market.symbol, **pair, "S": "SELL" if fill.side == SELL else "BUY", "o": "LIMIT", "f": "IOC",
            "q": amount, "p": price, "ap": price, "X": "FILLED", "l": amount, "z": amount, "T": fill.at_us // 1_000,
        }  # fmt: skip
        return {"e": "forceOrder", "E": sent, "o": order}

    def _ticker(self, kind: str, market: Market, at: int) -> dict[str, Any]:
        state, price = market.ticker, market.listing.price_text
        if kind == "indexPrice":
            return {"e": "indexPriceUpdate", "E": at, "i": pair_of(market), "p": price(state.index)}
        if kind == "ticker":
            pair = {"ps": pair_of(market)} if self._delivery else {}
            last = self.price(market, state.last)
            return {
                "e": "24hrTicker", "E": at, "s": market.symbol, **pair, "p": "0.0", "P": "0.000", "w": last, "c": last,
                "Q": self.amount(market, market.fills[-1].amount if market.fills else 0), "o": last, "h": last,
                "l": last, "v": "0", "q": "0", "O": at, "C": at, "F": 0, "L": 0, "n": len(market.fills),
            }  # fmt: skip
        body: dict[str, Any] = {"e": "markPriceUpdate", "E": at, "s": market.symbol, "p": price(state.mark)}
        body["P"] = price(state.mark)
        perpetual = market.listing.instrument.expiry_us == 0
        if not self._delivery:
            body["i"] = price(state.index)
        if perpetual:
            body["r"], body["T"] = decimal_text(state.funding_rate, FUNDING_DECIMALS), state.funding_us // 1_000
        else:
            body["r"], body["T"] = ("", 0) if self._delivery else ("0.00000000", 0)
        return body


def pair_of(market: Market) -> str:
    """Base and quote without what tells contracts apart: the name of the index."""
    return market.symbol.partition("_")[0]

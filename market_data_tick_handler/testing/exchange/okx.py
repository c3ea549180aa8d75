"""OKX v5: public and business sockets of spot, swaps and futures; see `okx_rest` for its REST market data.

Books come in-band: a snapshot of up to 400 levels, then updates chained by prevSeqId and seqId. The checksum field is
there and always 0 (since 2026-06-23). Liquidations come for a whole instrument type, and the first frame of a
subscription is an old one.
https://www.okx.com/docs-v5/en/#order-book-trading-market-data
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from market_data_tick_handler.core.ticks import BUY
from market_data_tick_handler.testing.exchange.dialect import Answer, ConnectionRules, Desk, Event, encode_json
from market_data_tick_handler.testing.exchange.listing import stripped
from market_data_tick_handler.testing.exchange.market import Fill, Market
from market_data_tick_handler.testing.exchange.okx_rest import OkxRest
from market_data_tick_handler.testing.exchange.session import Session

_PUBLIC: Final = "/ws/v5/public"
_BUSINESS: Final = "/ws/v5/business"
_TYPES: Final = {"okex": "SPOT", "okex-swap": "SWAP", "okex-futures": "FUTURES"}
_DEPTHS: Final = {"books": 400, "books5": 5, "bbo-tbt": 1}
_KINDS: Final = {
    "trades": "trades",
    "trades-all": "trades",
    "books": "book",
    "books5": "book",
    "bbo-tbt": "book",
    "tickers": "ticker",
    "mark-price": "ticker",
    "open-interest": "ticker",
    "funding-rate": "ticker",
    "index-tickers": "ticker",
    "liquidation-orders": "liquidations",
}
# Channels whose frames are whole books without numbers that chain.
_WHOLE: Final = frozenset({"books5", "bbo-tbt"})
_CONTRACTS: Final = frozenset({"mark-price", "open-interest", "funding-rate", "liquidation-orders"})
_STALE_US: Final = 3_600_000_000
_OPERATIONS_PER_HOUR: Final = 480
_HOUR_US: Final = 3_600_000_000
_RULES: Final = ConnectionRules(idle_s=30.0, idle_close=(4004, "No data received in 30s."))


class _Argument(msgspec.Struct, omit_defaults=True):
    channel: str = ""
    instType: str = ""
    instId: str = ""
    instFamily: str = ""


class _Command(msgspec.Struct):
    op: str = ""
    args: list[_Argument] = []
    id: str = ""


class OkxDialect:
    """See `Dialect`. A channel is the JSON text of its argument."""

    rules = _RULES
    liquidations_are_trades = False
    resolution_us = 1_000
    dense_book = False
    first_number = 300_001

    def __init__(self, exchange: str, desk: Desk) -> None:
        self._desk = desk
        self._type = _TYPES[exchange]
        self._rest = OkxRest(self._type, desk)

    def new_id(self, market: Market, number: int) -> str:
        """Ids are the numbers."""
        return str(number)

    def listens(self, path: str) -> bool:
        """`/ws/v5/public` and `/ws/v5/business`."""
        return path in (_PUBLIC, _BUSINESS)

    def greet(self, session: Session, query: Mapping[str, str]) -> None:
        """Nothing is said until the client subscribes."""
        session.notes["connId"] = f"sim{session.number:05x}"
        session.notes["operations"] = []

    def receive(self, session: Session, text: str) -> None:
        """The text `ping`, subscribe and unsubscribe."""
        if text == "ping":
            session.say(b"pong")
            return
        try:
            command = msgspec.json.decode(text, type=_Command)
        except msgspec.DecodeError:
            self._error(session, "60012", f"Invalid request: {text}")
            return
        if command.op not in ("subscribe", "unsubscribe") or not command.args:
            self._error(session, "60012", f"Invalid request: {text}")
        elif self._operations(session) > _OPERATIONS_PER_HOUR:
            self._error(session, "60014", "Requests too frequent")
        else:
            for argument in command.args:
                (self._subscribe if command.op == "subscribe" else self._unsubscribe)(session, argument)

    def beat(self, session: Session, now_us: int) -> None:
        """Nothing but the rules."""

    def keys(self, event: Event) -> list[str]:
        """One per kind and symbol; liquidations also for the type; an index comes before its first contract."""
        keys = [f"{event.kind}:{event.market.symbol}"]
        if event.kind == "liquidations":
            keys.append(f"liquidations:{self._type}")
        if event.kind == "ticker":
            index = index_of(event.market)
            first = next(market for market in self._desk.markets.values() if index_of(market) == index)
            keys = [f"index:{index}", *keys] if first is event.market else keys
        return keys

    def encode(self, channel: str, flavour: str, event: Event) -> list[bytes]:
        """Frames of one channel."""
        argument = msgspec.json.decode(channel)
        name, market = argument["channel"], event.market
        if name == "trades-all":
            return [_frame(argument, [self.trade(market, fill)]) for fill in event.fills]
        if name == "trades":
            return self._summed_trades(argument, event)
        if event.kind == "book":
            return self._book_frames(argument, name, event)
        if event.kind == "liquidations":
            return [_frame(argument, [self._liquidation(market, fill)]) for fill in event.fills]
        return [_frame(argument, [self._rest.ticker_row(name, market)])]

    def answer(self, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> Answer:
        """See `OkxRest`."""
        return self._rest.answer(path, query)

    def refusal(self, status: int, retry_after_s: int) -> Answer:
        """Too many requests."""
        body = {"msg": "Too Many Requests", "code": "50011", "data": []}
        return Answer(encode_json(body), status, {"Retry-After": str(retry_after_s)})

    def maintenance(self) -> bytes | None:
        """Sent a minute before the socket is upgraded."""
        text = "The connection will soon be closed for a service upgrade. Please reconnect."
        return encode_json({"event": "notice", "code": "64008", "msg": text, "connId": "sim00000"})

    def trade(self, market: Market, fill: Fill) -> dict[str, str]:
        """One trade."""
        return self._rest.trade(market, fill)

    def _operations(self, session: Session) -> int:
        now_us = self._desk.now_us()
        recent = [at_us for at_us in session.notes["operations"] if at_us > now_us - _HOUR_US]
        session.notes["operations"] = [*recent, now_us]
        return len(recent) + 1

    def _error(self, session: Session, code: str, message: str) -> None:
        body = {"event": "error", "code": code, "msg": message, "connId": session.notes["connId"]}
        session.say(encode_json(body))

    def _subscribe(self, session: Session, argument: _Argument) -> None:
        key = self._key(session.path, argument)
        if key is None:
            what = "instType:" + argument.instType if argument.instType else "instId:" + argument.instId
            text = (
                f"Wrong URL or channel:{argument.channel},{what} doesn't exist. Please use the correct URL, channel and"
            )
            self._error(session, "60018", f"{text} parameters referring to API document.")
            return
        channel = msgspec.json.encode(argument).decode()
        reply = {"event": "subscribe", "arg": msgspec.to_builtins(argument), "connId": session.notes["connId"]}
        session.say(encode_json(reply))
        if channel in session.channels:
            return
        market = self._desk.markets.get(argument.instId)
        if market is not None and argument.channel in _DEPTHS:
            market.window(_DEPTHS[argument.channel])
            self._desk.flush(market)
        session.subscribe(channel, key)
        self._start(session, argument, channel, market)

    def _start(self, session: Session, argument: _Argument, channel: str, market: Market | None) -> None:
        """What a new subscriber gets at once."""
        plain = msgspec.json.decode(channel)
        if argument.channel == "liquidation-orders":
            old = next(iter(self._desk.markets.values()))
            at_us = self._desk.now_us() - _STALE_US
            fill = Fill(0, "", 0, old.listing.start_price, old.listing.typical, BUY, at_us)
            session.deliver("liquidations", old.symbol, _frame(plain, [self._liquidation(old, fill)]), first=True)
        elif market is not None and argument.channel in _DEPTHS:
            session.deliver(
                "book", market.symbol, self._whole(plain, argument.channel, market, self._desk.now_ms), first=True
            )
        elif _KINDS[argument.channel] == "ticker":
            shown = market or next(each for each in self._desk.markets.values() if index_of(each) == argument.instId)
            row = self._rest.ticker_row(argument.channel, shown)
            session.deliver("ticker", shown.symbol, _frame(plain, [row]), first=True)

    def _unsubscribe(self, session: Session, argument: _Argument) -> None:
        session.unsubscribe(msgspec.json.encode(argument).decode())
        reply = {"event": "unsubscribe", "arg": msgspec.to_builtins(argument), "connId": session.notes["connId"]}
        session.say(encode_json(reply))

    def _key(self, path: str, argument: _Argument) -> str | None:
        """None: there is no such channel at this path."""
        name = argument.channel
        if name not in _KINDS or (path == _BUSINESS) != (name == "trades-all"):
            return None
        if name in _CONTRACTS and self._type == "SPOT":
            return None
        if name == "liquidation-orders":
            return f"liquidations:{self._type}" if argument.instType == self._type else None
        if name == "index-tickers":
            known = argument.instId in {index_of(market) for market in self._desk.markets.values()}
            return f"index:{argument.instId}" if known else None
        if name == "funding-rate" and self._type != "SWAP":
            return None
        return f"{_KINDS[name]}:{argument.instId}" if argument.instId in self._desk.markets else None

    def _summed_trades(self, argument: dict[str, str], event: Event) -> list[bytes]:
        """Fills of one order at one price are one row, named after the last of them."""
        market, groups = event.market, dict[int, list[Fill]]()
        for fill in event.fills:
            groups.setdefault(fill.price, []).append(fill)
        rows = [
            {
                **self.trade(market, fills[-1]),
                "sz": stripped(market.listing.amount_text(sum(fill.amount for fill in fills))),
                "count": str(len(fills)),
            }
            for fills in groups.values()
        ]
        return [_frame(argument, [row]) for row in rows]

    def _book_frames(self, argument: dict[str, str], name: str, event: Event) -> list[bytes]:
        market, at_ms = event.market, event.at_us // 1_000
        delta = market.window(_DEPTHS[name]).delta
        if delta is None:
            return []
        if name in _WHOLE:
            return [self._whole(argument, name, market, at_ms)]
        asks, bids = ([(price, amount) for price, amount, _ in side] for side in (delta.asks, delta.bids))
        body = {
            "asks": self._rest.levels(market, asks),
            "bids": self._rest.levels(market, bids),
            "ts": str(at_ms),
            "checksum": 0,
            "prevSeqId": delta.previous_id,
            "seqId": delta.last_id,
        }
        return [encode_json({"arg": argument, "action": "update", "data": [body]})]

    def _whole(self, argument: dict[str, str], name: str, market: Market, at_ms: int) -> bytes:
        """What the last update left behind."""
        window = market.window(_DEPTHS[name])
        body: dict[str, Any] = {
            "asks": self._rest.levels(market, list(window.asks.items())),
            "bids": self._rest.levels(market, list(window.bids.items())),
            "ts": str(at_ms),
            "seqId": window.last_id,
        }
        if name in _WHOLE:
            return encode_json({"arg": argument, "data": [body]})
        return encode_json({"arg": argument, "action": "snapshot", "data": [{**body, "checksum": 0, "prevSeqId": -1}]})

    def _liquidation(self, market: Market, fill: Fill) -> dict[str, Any]:
        bought = fill.side == BUY
        detail = {
            "bkLoss": "0",
            "bkPx": stripped(market.listing.price_text(fill.price)),
            "ccy": "",
            "posSide": "short" if bought else "long",
            "side": "buy" if bought else "sell",
            "sz": stripped(market.listing.amount_text(fill.amount)),
            "ts": str(fill.at_us // 1_000),
        }
        family = "-".join(market.symbol.split("-")[:2])
        return {
            "details": [detail],
            "instFamily": family,
            "instId": market.symbol,
            "instType": self._type,
            "uly": family,
        }


def index_of(market: Market) -> str:
    """Name of the index under a market."""
    return "-".join(market.symbol.split("-")[:2])


def _frame(argument: dict[str, str], rows: list[dict[str, Any]]) -> bytes:
    return encode_json({"arg": argument, "data": rows})

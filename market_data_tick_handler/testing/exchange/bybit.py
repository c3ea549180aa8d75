"""Bybit v5: linear, inverse and spot sockets, topics with snapshot and deltas in-band; REST is in `bybit_rest`.

A book topic of depth n is the best n levels: a level that falls out of them is deleted, one that moves up appears.
`u` counts the messages of a topic by one. Trades of contracts have UUIDs, those of spot numbers of 19 digits; neither
counts. REST knows the last trades only.
https://bybit-exchange.github.io/docs/v5/ws/connect
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any, Final
from uuid import UUID

import msgspec

from market_data_tick_handler.core.ticks import BUY
from market_data_tick_handler.testing.exchange.bybit_rest import BybitRest
from market_data_tick_handler.testing.exchange.dialect import Answer, ConnectionRules, Desk, Event, encode_json
from market_data_tick_handler.testing.exchange.market import Fill, Market
from market_data_tick_handler.testing.exchange.session import Session

_DEPTHS: Final = {"1", "50", "200", "500", "1000"}
_KINDS: Final = {
    "publicTrade": "trades",
    "orderbook": "book",
    "tickers": "ticker",
    "allLiquidation": "liquidations",
}
_SPOT_ARGS: Final = 10
_ARGS_CHARACTERS: Final = 21_000
_SPOT_ID: Final = 2_290_000_000_050_000_000
# Without a ping the venue ends a connection after ten minutes.
_RULES: Final = ConnectionRules(idle_s=600.0, idle_close=(1000, "no heartbeat"))


class _Command(msgspec.Struct):
    op: str = ""
    args: list[str] = []
    req_id: str = ""


class BybitDialect:
    """See `Dialect`. Categories: by the path of the socket, and by the parameter of a REST call."""

    rules = _RULES
    liquidations_are_trades = False
    resolution_us = 1_000
    dense_book = False
    first_number = 1

    def __init__(self, exchange: str, desk: Desk) -> None:
        self._desk = desk
        self._rest = BybitRest(exchange, desk)
        self._spot = exchange == "bybit-spot"
        self._categories = ("spot",) if self._spot else ("linear", "inverse")

    def new_id(self, market: Market, number: int) -> str:
        """A number of 19 digits, or a UUID made from the symbol and the number."""
        if self._spot:
            return str(_SPOT_ID + number)
        return str(UUID(int=Random(f"{market.symbol}/{number}").getrandbits(128), version=5))

    def listens(self, path: str) -> bool:
        """`/v5/public/<category>`."""
        return path in {f"/v5/public/{category}" for category in self._categories}

    def greet(self, session: Session, query: Mapping[str, str]) -> None:
        """Nothing is said until the client subscribes."""
        session.flavour = session.path.rpartition("/")[2]
        session.notes["conn_id"] = f"sim-{session.number}"

    def receive(self, session: Session, text: str) -> None:
        """ping, subscribe, unsubscribe."""
        try:
            command = msgspec.json.decode(text, type=_Command)
        except msgspec.DecodeError:
            self._reply(session, "", "", success=False, message="error:invalid request")
            return
        if command.op == "ping":
            self._reply(session, "ping", command.req_id, success=True, message="pong")
        elif command.op == "subscribe":
            self._subscribe(session, command)
        elif command.op == "unsubscribe":
            for topic in command.args:
                session.unsubscribe(topic)
            self._reply(session, "unsubscribe", command.req_id, success=True)
        else:
            self._reply(session, command.op, command.req_id, success=False, message=f"error:unknown op {command.op}")

    def beat(self, session: Session, now_us: int) -> None:
        """Only what the client says keeps a connection alive; data does not."""
        session.spoke_us = session.opened_us

    def keys(self, event: Event) -> list[str]:
        """One per kind and symbol."""
        return [f"{event.kind}:{event.market.symbol}"]

    def encode(self, channel: str, flavour: str, event: Event) -> list[bytes]:
        """Frames of one topic."""
        market, at_ms = event.market, event.at_us // 1_000
        if event.kind == "trades":
            rows = [self._trade(market, fill) for fill in event.fills]
            return [encode_json({"topic": channel, "type": "snapshot", "ts": at_ms + 1, "data": rows})]
        if event.kind == "book":
            return self._delta(channel, market, at_ms)
        if event.kind == "liquidations":
            rows = [self._liquidation(market, fill) for fill in event.fills]
            return [encode_json({"topic": channel, "type": "snapshot", "ts": at_ms + 1, "data": rows})]
        return self._ticker_delta(channel, market)

    def answer(self, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> Answer:
        """See `BybitRest`."""
        return self._rest.answer(path, query)

    def refusal(self, status: int, retry_after_s: int) -> Answer:
        """Too many visits."""
        return self._rest.refusal(status, retry_after_s)

    def maintenance(self) -> bytes | None:
        """Bybit says nothing over its market data sockets."""
        return None

    def _reply(self, session: Session, op: str, request: str, *, success: bool, message: str = "") -> None:
        body = {"success": success, "ret_msg": message, "conn_id": session.notes["conn_id"]}
        if self._spot and success and not message:
            body["ret_msg"] = op
        if not self._spot or request:
            body["req_id"] = request
        session.say(encode_json({**body, "op": op}))

    def _subscribe(self, session: Session, command: _Command) -> None:
        """All topics of a message, or none of them."""
        error = self._objection(session, command.args)
        if error:
            self._reply(session, "subscribe", command.req_id, success=False, message=error)
            return
        self._reply(session, "subscribe", command.req_id, success=True)
        for topic in command.args:
            kind, market = self._topic(topic, session.flavour)
            self._start(session, topic, kind, market)

    def _start(self, session: Session, topic: str, kind: str, market: Market | None) -> None:
        if market is None:
            return
        # The others get what is outstanding first, so that the snapshot continues for all of them.
        if kind == "book":
            market.window(int(topic.split(".")[1]))
            self._desk.flush(market)
        session.subscribe(topic, f"{kind}:{market.symbol}")
        if kind == "book":
            session.deliver("book", market.symbol, self._snapshot(topic, market), first=True)
        elif kind == "ticker":
            session.deliver("ticker", market.symbol, self._ticker_snapshot(topic, market), first=True)

    def _objection(self, session: Session, topics: list[str]) -> str:
        if self._spot and len(topics) > _SPOT_ARGS:
            return f"args size >{_SPOT_ARGS}"
        if sum(map(len, topics)) > _ARGS_CHARACTERS:
            return "args length >21000"
        for topic in topics:
            if topic in session.channels:
                return f"error:already subscribed,topic:{topic}"
            if self._topic(topic, session.flavour)[1] is None:
                return f"error:handler not found,topic:{topic}"
        return ""

    def _topic(self, topic: str, category: str) -> tuple[str, Market | None]:
        name, _, rest = topic.partition(".")
        *middle, symbol = rest.split(".")
        market = self._desk.markets.get(symbol)
        right = middle[0] in _DEPTHS if name == "orderbook" and len(middle) == 1 else not middle
        known = name in _KINDS and right and not (self._spot and name == "allLiquidation")
        if market is None or not known or self._rest.category(market) != category:
            return "", None
        return _KINDS[name], market

    def _trade(self, market: Market, fill: Fill) -> dict[str, Any]:
        return {
            "T": fill.at_us // 1_000,
            "s": market.symbol,
            "S": "Buy" if fill.side == BUY else "Sell",
            "v": self._rest.amount(market, fill.amount),
            "p": self._rest.price(market, fill.price),
            **({} if self._spot else {"L": "ZeroPlusTick"}),
            "i": fill.id,
            "BT": False,
            "RPI": False,
            "seq": self._rest.sequence(fill),
        }

    def _liquidation(self, market: Market, fill: Fill) -> dict[str, Any]:
        return {
            "T": fill.at_us // 1_000,
            "s": market.symbol,
            # The side of the position: a long that is sold is `Buy`.
            "S": "Sell" if fill.side == BUY else "Buy",
            "v": self._rest.amount(market, fill.amount),
            "p": self._rest.price(market, fill.price),
        }

    def _snapshot(self, topic: str, market: Market) -> bytes:
        window = market.window(int(topic.split(".")[1]))
        return self._book(topic, "snapshot", market, list(window.bids.items()), list(window.asks.items()))

    def _delta(self, topic: str, market: Market, at_ms: int) -> list[bytes]:
        delta = market.window(int(topic.split(".")[1])).delta
        if delta is None:
            return []
        bids, asks = ([(price, amount) for price, amount, _ in side] for side in (delta.bids, delta.asks))
        return [self._book(topic, "delta", market, bids, asks, at_ms)]

    def _book(
        self, topic: str, kind: str, market: Market, bids: list[tuple[int, int]], asks: list[tuple[int, int]],
        at_ms: int | None = None,
    ) -> bytes:  # fmt: skip
        window = market.window(int(topic.split(".")[1]))
        at_ms = self._desk.now_ms if at_ms is None else at_ms
        data = {
            "s": market.symbol,
            "b": self._rest.levels(market, bids),
            "a": self._rest.levels(market, asks),
            "u": window.count,
            "seq": window.last_id,
        }
        return encode_json({"topic": topic, "type": kind, "ts": at_ms, "data": data, "cts": at_ms})

    def _ticker_snapshot(self, topic: str, market: Market) -> bytes:
        return self._ticker(topic, "snapshot", market, self._rest.ticker_fields(market, market.view))

    def _ticker_delta(self, topic: str, market: Market) -> list[bytes]:
        """Contracts send what changed, spot sends everything."""
        fields = self._rest.ticker_fields(market, market.view)
        if self._spot:
            return [self._ticker(topic, "snapshot", market, fields)]
        old = self._rest.ticker_fields(market, market.previous_view)
        changed = {name: value for name, value in fields.items() if name == "symbol" or old.get(name) != value}
        return [self._ticker(topic, "delta", market, changed)] if len(changed) > 1 else []

    def _ticker(self, topic: str, kind: str, market: Market, fields: dict[str, str]) -> bytes:
        at_ms = market.ticker.at_us // 1_000
        return encode_json({"topic": topic, "type": kind, "data": fields, "cs": at_ms, "ts": at_ms})

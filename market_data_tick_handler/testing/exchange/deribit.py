"""Deribit: JSON-RPC over WebSocket with heartbeats, books in-band chained by change ids; see `deribit_rpc` for REST.

Channels end in their interval. `raw` needs a log-in, as at the venue; any credentials will do here. Trades are
published at once in every interval. Liquidations are trades with a flag.
https://docs.deribit.com/articles/notifications
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from market_data_tick_handler.testing.exchange.deribit_rpc import (
    DeribitError,
    DeribitMethods,
    instrument_name,
    kind_of,
    ticker_body,
    trade_body,
)
from market_data_tick_handler.testing.exchange.dialect import Answer, ConnectionRules, Desk, Event, encode_json
from market_data_tick_handler.testing.exchange.market import Market
from market_data_tick_handler.testing.exchange.session import Session

_SECOND_US: Final = 1_000_000
_INTERVALS: Final = frozenset({"raw", "100ms", "agg2"})
_LEAST_HEARTBEAT_S: Final = 10
_KINDS: Final = frozenset({"future", "option", "spot", "any"})
_VERSION: Final = "1.2.26"
_REST: Final = "/api/v2/"


class _Request(msgspec.Struct):
    method: str = ""
    params: dict[str, Any] = {}
    id: int | str | None = None


class DeribitDialect:
    """See `Dialect`."""

    rules = ConnectionRules()
    liquidations_are_trades = True
    resolution_us = 1_000
    dense_book = False
    first_number = 80_001

    def __init__(self, exchange: str, desk: Desk) -> None:
        self._desk = desk
        self._methods = DeribitMethods(desk)
        self._next_id = 250_000_000

    def new_id(self, market: Market, number: int) -> str:
        """Ids count over all instruments of the venue; those of USDC markets say so."""
        self._next_id += 1
        quote = market.listing.instrument.quote
        return f"{market.listing.instrument.base}_{quote}-{number}" if quote != "USD" else str(self._next_id)

    def listens(self, path: str) -> bool:
        """`/ws/api/v2`."""
        return path == "/ws/api/v2"

    def greet(self, session: Session, query: Mapping[str, str]) -> None:
        """Nothing is said until the client asks for heartbeats or subscribes."""
        session.notes.update(heartbeat_s=0, tested_us=None, authenticated=False, beat_us=session.opened_us)

    def receive(self, session: Session, text: str) -> None:
        """One request."""
        try:
            request = msgspec.json.decode(text, type=_Request)
        except msgspec.DecodeError:
            session.say(encode_json({"jsonrpc": "2.0", "error": {"code": -32700, "message": "Parse error"}}))
            return
        session.notes["tested_us"] = None
        try:
            result = self._perform(session, request)
        except DeribitError as error:
            self._reply(session, request, {"error": error.body()})
            return
        if result is not None:
            self._reply(session, request, {"result": result})

    def beat(self, session: Session, now_us: int) -> None:
        """Heartbeats; a client that does not answer a test within the interval is thrown out."""
        interval_s = session.notes["heartbeat_s"]
        if not interval_s or now_us - session.notes["beat_us"] < interval_s * _SECOND_US:
            return
        if session.notes["tested_us"] is not None:
            session.end(1000, "", "heartbeat")
            return
        session.notes["beat_us"] = session.notes["tested_us"] = now_us
        for kind in ("heartbeat", "test_request"):
            session.say(encode_json({"jsonrpc": "2.0", "method": "heartbeat", "params": {"type": kind}}))

    def keys(self, event: Event) -> list[str]:
        """One per kind and symbol; trades also by kind of instrument and currency."""
        market = event.market
        keys = [f"{event.kind}:{market.symbol}"]
        if event.kind == "trades":
            kind, base = kind_of(market), market.listing.instrument.base
            keys += [f"trades:{k}.{c}" for k in (kind, "any") for c in (base, "any")]
        return keys

    def encode(self, channel: str, flavour: str, event: Event) -> list[bytes]:
        """Frames of one channel."""
        market = event.market
        if event.kind == "trades":
            return [_notification(channel, [trade_body(market, fill) for fill in event.fills])]
        if event.kind == "ticker":
            return [_notification(channel, ticker_body(self._desk, market))]
        delta = market.window(None).delta
        if delta is None:
            return []
        sides = (
            [
                ["delete" if not amount else "change" if known else "new", listing_price, listing_amount]
                for price, amount, known in side
                for listing_price, listing_amount in [(market.listing.price(price), market.listing.amount(amount))]
            ]
            for side in (delta.bids, delta.asks)
        )
        bids, asks = sides
        body = {
            "type": "change",
            "timestamp": event.at_us // 1_000,
            "prev_change_id": delta.previous_id,
            "instrument_name": instrument_name(market),
            "change_id": delta.last_id,
            "bids": bids,
            "asks": asks,
        }
        return [_notification(channel, body)]

    def answer(self, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> Answer:
        """Public methods below `/api/v2`."""
        now_us = self._desk.now_us()
        tail = {"usIn": now_us, "usOut": now_us, "usDiff": 0, "testnet": False}
        if not path.startswith(_REST):
            return Answer(b"", 404)
        try:
            result = self._methods.call(path.removeprefix(_REST), query)
        except DeribitError as error:
            return Answer(encode_json({"jsonrpc": "2.0", "error": error.body(), **tail}), 400)
        return Answer(encode_json({"jsonrpc": "2.0", "result": result, **tail}))

    def refusal(self, status: int, retry_after_s: int) -> Answer:
        """Too many requests."""
        body = {"jsonrpc": "2.0", "error": {"code": 10028, "message": "too_many_requests"}}
        return Answer(encode_json(body), status, {"Retry-After": str(retry_after_s)})

    def maintenance(self) -> bytes | None:
        """The channel `platform_state`, which the venue sends when it locks its platform."""
        return _notification("platform_state", {"maintenance": True})

    def _reply(self, session: Session, request: _Request, outcome: dict[str, Any]) -> None:
        now_us = self._desk.now_us()
        head = {"jsonrpc": "2.0", "id": request.id}
        session.say(encode_json({**head, **outcome, "usIn": now_us, "usOut": now_us, "usDiff": 0, "testnet": False}))

    def _perform(self, session: Session, request: _Request) -> Any:
        """The result; None where the reply was sent already."""
        method, params = request.method.removeprefix("public/").removeprefix("private/"), request.params
        if method == "test":
            return {"version": _VERSION}
        if method == "set_heartbeat":
            interval = params.get("interval", 0)
            if not isinstance(interval, int) or interval < _LEAST_HEARTBEAT_S:
                raise DeribitError(-32602, "Invalid params")
            session.notes.update(heartbeat_s=interval, beat_us=session.heard_us)
            return "ok"
        if method == "disable_heartbeat":
            session.notes["heartbeat_s"] = 0
            return "ok"
        if method == "auth":
            session.notes["authenticated"] = True
            return {
                "access_token": "simulated",
                "expires_in": 900,
                "refresh_token": "simulated",
                "token_type": "bearer",
            }
        if method == "subscribe":
            return self._subscribe(session, request)
        if method == "unsubscribe":
            return [name for name in _channels(params) if session.unsubscribe(name)]
        if method == "unsubscribe_all":
            for name in list(session.channels):
                session.unsubscribe(name)
            return "ok"
        return self._methods.call(request.method, {name: _text(value) for name, value in params.items()})

    def _subscribe(self, session: Session, request: _Request) -> None:
        """Channels that do not exist are left out of the answer."""
        known: list[str] = []
        starts: list[tuple[str, str]] = []
        names = _channels(request.params)
        if any(name.endswith(".raw") for name in names) and not session.notes["authenticated"]:
            raise DeribitError(13778, "raw_subscriptions_not_available_for_unauthorized")
        for name in names:
            key = self._key(name)
            if key is not None:
                known.append(name)
                if name not in session.channels:
                    starts.append((name, key))
        self._reply(session, request, {"result": known})
        for name, key in starts:
            self._start(session, name, key)

    def _start(self, session: Session, channel: str, key: str) -> None:
        kind, _, symbol = key.partition(":")
        market = self._desk.markets.get(symbol)
        if kind == "book" and market is not None:
            self._desk.flush(market)
        session.subscribe(channel, key)
        if kind == "book" and market is not None:
            session.deliver("book", symbol, self._snapshot(channel, market), first=True)
        elif kind == "ticker" and market is not None:
            session.deliver("ticker", symbol, _notification(channel, ticker_body(self._desk, market)), first=True)

    def _key(self, channel: str) -> str | None:
        if channel == "platform_state":
            return "platform:"
        name, _, rest = channel.partition(".")
        *middle, interval = rest.split(".")
        if interval not in _INTERVALS or name not in ("trades", "book", "ticker"):
            return None
        if name == "trades" and len(middle) == 2:
            return f"trades:{middle[0]}.{middle[1]}" if middle[0] in _KINDS else None
        symbol = middle[0].upper() if len(middle) == 1 else ""
        return f"{name}:{symbol}" if symbol in self._desk.markets else None

    def _snapshot(self, channel: str, market: Market) -> bytes:
        window, listing = market.window(None), market.listing
        bids, asks = (
            [["new", listing.price(price), listing.amount(amount)] for price, amount in side.items()]
            for side in (window.bids, window.asks)
        )
        body = {
            "type": "snapshot",
            "timestamp": self._desk.now_ms,
            "instrument_name": instrument_name(market),
            "change_id": window.last_id,
            "bids": bids,
            "asks": asks,
        }
        return _notification(channel, body)


def _channels(params: Mapping[str, Any]) -> list[str]:
    names = params.get("channels", [])
    if not isinstance(names, list):
        raise DeribitError(-32602, "Invalid params")
    return [str(name) for name in names]


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _notification(channel: str, data: Any) -> bytes:
    body = {"jsonrpc": "2.0", "method": "subscription", "params": {"channel": channel, "data": data}}
    return encode_json(body)

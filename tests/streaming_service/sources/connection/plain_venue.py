"""A venue with the plainest protocol that has all parts: trades that count by one, books by snapshot and changes,
a polled open interest, control frames, trade history over REST."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.instruments import InstrumentDefinition, parse_instrument_key
from market_data_tick_handler.core.order_book import ASK, BID, BookChanges, OrderBook
from market_data_tick_handler.core.ticks import BUY, ID_INTEGER, Array, DataType, TickBatch
from market_data_tick_handler.errors import ProtocolViolation
from streaming_service.sources.exchanges.protocol import (
    Control,
    Decoded,
    Decoder,
    Endpoints,
    KeepAlive,
    Meaning,
    Numbers,
    Poll,
    Request,
    Subscription,
    TradePage,
    TradeRange,
)

BTC: Final = parse_instrument_key("BINANCE:SPOT_PAIR:BTC-USDT")
ETH: Final = parse_instrument_key("BINANCE:SPOT_PAIR:ETH-USDT")
PERP: Final = parse_instrument_key("BINANCE-FUTURES:PERPETUAL:BTC-USDT")
EXCHANGE: Final = "plain"

_CONTROL: Final = {
    "ack": Meaning.ACKNOWLEDGED,
    "pong": Meaning.ALIVE,
    "test": Meaning.ANSWER,
    "refused": Meaning.REFUSED,
    "leave": Meaning.RECONNECT,
}


class PlainDecoder:
    """Frames are objects with `s` (symbol): trades have `t`, books `u`, open interest `oi`."""

    def __init__(self, instruments: Sequence[InstrumentDefinition], connection: int) -> None:
        self._by_symbol = {each.venue_symbol: each for each in instruments}
        self._connection = connection
        self._books: dict[str, OrderBook] = {}
        self._next: dict[str, int] = {}
        self._early: dict[str, list[dict[str, Any]]] = {}

    def reset(self) -> None:
        self._books.clear()
        self._early.clear()
        self._next.clear()

    def decode(self, frames: Sequence[bytes], local_us: Array) -> Decoded:
        out = Decoded()
        for at, (frame, time_us) in enumerate(zip(frames, local_us.tolist(), strict=True)):
            try:
                said = json.loads(frame)
            except ValueError:
                out.violations.append(ProtocolViolation("expected JSON", raw=frame))
                continue
            instrument = self._by_symbol.get(said.get("s", ""))
            if instrument is None:
                out.control.append(at)
            elif "t" in said:
                out.rows.append(self._trade(instrument.key, said, time_us))
                out.numbers.append(
                    Numbers(instrument.key, DataType.TRADES, np.array([said["t"]], np.int64), np.array([time_us]))
                )
            elif "oi" in said:
                out.rows.append(self._ticker(instrument.key, said, time_us))
            elif "u" in said:
                self._book(instrument.key, said, time_us, out)
            else:
                out.filtered[instrument.key, DataType.TRADES] = (
                    out.filtered.get((instrument.key, DataType.TRADES), 0) + 1
                )
        return out

    def _trade(self, key: str, said: dict[str, Any], time_us: int) -> Rows:
        batch = trade_batch([said["t"]], [said["T"]], [said["p"]], local_us=[time_us])
        return Rows(key, batch, self._connection)

    def _ticker(self, key: str, said: dict[str, Any], time_us: int) -> Rows:
        columns = {"timestamp": [said["T"]], "local_timestamp": [time_us], "open_interest": [said["oi"]]}
        return Rows(key, TickBatch.build(DataType.DERIVATIVE, columns), self._connection)

    def _book(self, key: str, said: dict[str, Any], time_us: int, out: Decoded) -> None:
        book = self._books.setdefault(key, OrderBook())
        early = self._early.setdefault(key, [])
        if said.get("snapshot", False):
            later = [each for each in early if each["u"] > said["u"]]
            early.clear()
            if later and later[0]["u"] != said["u"] + 1:
                out.resync[key] = f"snapshot at {said['u']} is older than the changes from {later[0]['u']} on"
                return
            for each in (said, *later):
                self._apply(key, book, each, time_us, out)
        elif not book.ready:
            early.append(said)
        elif said["u"] == self._next[key]:
            self._apply(key, book, said, time_us, out)
        elif said["u"] > self._next[key]:
            book.clear()
            early.append(said)
            out.resync[key] = f"expected {self._next[key]}, came {said['u']}"

    def _apply(self, key: str, book: OrderBook, said: dict[str, Any], time_us: int, out: Decoded) -> None:
        self._next[key] = said["u"] + 1
        levels = [(BID, *level) for level in said["b"]] + [(ASK, *level) for level in said["a"]]
        changes = BookChanges(
            timestamp=np.array([said["T"]], np.int64),
            local_timestamp=np.array([time_us], np.int64),
            is_snapshot=np.array([said.get("snapshot", False)]),
            stops=np.array([len(levels)], np.int64),
            side=np.array([level[0] for level in levels], np.int8),
            price=np.array([level[1] for level in levels], np.float64),
            amount=np.array([level[2] for level in levels], np.float64),
        )
        rows = book.apply(changes)
        out.changes.append((key, changes))
        if len(rows):
            out.rows.append(Rows(key, rows, self._connection))


class PlainHistory:
    """`GET /trades?symbol=..&from=..`: at most 100 trades from a number on."""

    page = 100

    def first(self, instrument: InstrumentDefinition, missing: TradeRange) -> Request:
        return self._request(instrument, missing.first or 0)

    def read(self, instrument: InstrumentDefinition, missing: TradeRange, body: bytes) -> TradePage:
        try:
            said = json.loads(body)["trades"]
        except (ValueError, KeyError) as error:
            raise ProtocolViolation("expected trades", raw=body) from error
        kept = [
            each
            for each in said
            if missing.from_us <= each["T"] < missing.to_us and (missing.last is None or each["t"] <= missing.last)
        ]
        batch = trade_batch([each["t"] for each in kept], [each["T"] for each in kept], [each["p"] for each in kept])
        more = len(said) == self.page and len(kept) == len(said)
        return TradePage(batch, self._request(instrument, said[-1]["t"] + 1) if more else None)

    def _request(self, instrument: InstrumentDefinition, first: int) -> Request:
        return Request(f"/trades?symbol={instrument.venue_symbol}&from={first}&limit={self.page}", weight=5)


_NOWHERE: Final = Endpoints("ws://127.0.0.1:9", "http://127.0.0.1:9")
_KEEP_ALIVE: Final = KeepAlive(5.0)
_HISTORY: Final = PlainHistory()


@dataclass(frozen=True)
class PlainVenue:
    """The venue; every limit can be set."""

    endpoints: Endpoints = _NOWHERE
    keep_alive: KeepAlive = _KEEP_ALIVE
    max_age_s: float | None = None
    weight_per_minute: int = 6_000
    per_connection: int = 10
    snapshots: bool = True
    in_band: bool = False
    poll_s: float = 0.0
    tells_last: bool = False
    acknowledges: bool = True
    exchange: str = EXCHANGE
    history: PlainHistory | None = _HISTORY

    def decoder(
        self, instruments: Sequence[InstrumentDefinition], data_types: Collection[DataType], *, connection: int = 0
    ) -> Decoder:
        return PlainDecoder(instruments, connection)

    def subscriptions(
        self, instruments: Sequence[InstrumentDefinition], data_types: Collection[DataType]
    ) -> list[Subscription]:
        size = self.per_connection
        groups = [instruments[at : at + size] for at in range(0, len(instruments), size)]
        return [self._subscription(group, data_types) for group in groups]

    def _subscription(
        self, instruments: Sequence[InstrumentDefinition], data_types: Collection[DataType]
    ) -> Subscription:
        symbols = [each.venue_symbol for each in instruments]
        streams = frozenset((each.key, kind) for each in instruments for kind in data_types if kind in each.data_types)
        messages = (json.dumps({"subscribe": symbols}).encode(),) if self.acknowledges else ()
        return Subscription("/ws?symbols=" + ",".join(symbols), messages, streams)

    def control(self, frame: bytes) -> Control:
        said = json.loads(frame)
        for name, meaning in _CONTROL.items():
            if name in said:
                return Control(meaning, str(said[name]), b'{"answer":1}' if meaning is Meaning.ANSWER else b"")
        return Control(Meaning.UNKNOWN, frame.decode())

    def snapshot(self, instrument: InstrumentDefinition) -> tuple[Request, Any] | None:
        if not self.snapshots:
            return None
        return Request(f"/depth?symbol={instrument.venue_symbol}", weight=10), generated

    def resubscribe(self, instrument: InstrumentDefinition) -> tuple[bytes, ...]:
        return (json.dumps({"book": instrument.venue_symbol}).encode(),) if self.in_band else ()

    def polls(self, instruments: Sequence[InstrumentDefinition], data_types: Collection[DataType]) -> list[Poll]:
        if not self.poll_s or DataType.DERIVATIVE not in data_types:
            return []
        return [Poll(Request(f"/oi?symbol={each.venue_symbol}"), self.poll_s, generated) for each in instruments]

    def last_trade(self, instrument: InstrumentDefinition) -> Request | None:
        return Request(f"/last?symbol={instrument.venue_symbol}") if self.tells_last else None

    def used_weight(self, headers: Mapping[str, str]) -> int | None:
        used = headers.get("x-used-weight")
        return None if used is None else int(used)


def generated(body: bytes) -> bytes:
    """A REST body as a frame."""
    try:
        said = json.loads(body)
    except ValueError as error:
        raise ProtocolViolation("expected JSON", raw=body) from error
    return json.dumps({**said, "generated": True}).encode()


def trade_batch(
    ids: Sequence[int], times_us: Sequence[int], prices: Sequence[float], *, local_us: Sequence[int] | None = None
) -> TickBatch:
    """Trades."""
    return TickBatch.build(
        DataType.TRADES,
        {
            "timestamp": times_us,
            "local_timestamp": times_us if local_us is None else local_us,
            "id": ids,
            "id_kind": [ID_INTEGER] * len(ids),
            "side": [BUY] * len(ids),
            "price": prices,
            "amount": [1.0] * len(ids),
        },
    )

"""Binance trades over REST, to repair what a connection missed.

Spot looks up any trade by its number, and finds the first number of a time with an aggregated trade. The derivative
markets do that with an API key only; without one they give the latest trades, 1000 of futures and 500 of options, so
that an older range stays incomplete. Frames that are no trades (insurance fund, ADL) are not among them: their numbers
stay missing. Times are milliseconds, on spot microseconds where a header asks for them.
https://developers.binance.com/docs/binance-spot-api-docs/rest-api/market-data-endpoints#old-trade-lookup
https://developers.binance.com/docs/derivatives/usds-margined-futures/market-data/rest-api/Recent-Trades-List
https://developers.binance.com/docs/derivatives/options-trading/market-data/Recent-Trades-List
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Annotated, Final

import msgspec
import numpy as np

from market_data_tick_handler.core.instruments import InstrumentDefinition
from market_data_tick_handler.core.ticks import BUY, ID_INTEGER, SELL, Array, DataType, TickBatch
from streaming_service.sources.exchanges.binance.frames import UNREADABLE, violation
from streaming_service.sources.exchanges.binance.times import to_us
from streaming_service.sources.exchanges.protocol import Request, TradePage, TradeRange

_EXPECTED: Final = "a list of Binance trades"
_SPOT_LIMIT: Final = 1_000
# As the socket is asked for: a repaired trade has the stamp that the lost one had.
_MICROSECONDS: Final = (("X-MBX-TIME-UNIT", "MICROSECOND"),)

_Id = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Stamp = Annotated[int, msgspec.Meta(gt=0)]


class _Trade(msgspec.Struct, gc=False, eq=False):
    """A trade of any market: the taker's side is `isBuyerMaker`, or `side` of an option; `tradeId` is the number of an
    option trade in its stream, which has an `id` besides."""

    time: _Stamp
    price: float
    qty: float
    id: _Id = 0
    tradeId: _Id | None = None
    isBuyerMaker: bool | None = None
    side: int = 0


class _Aggregate(msgspec.Struct, gc=False, eq=False):
    """An aggregated trade; `f`: the first number in it."""

    f: _Id


_decode_trades: Final = msgspec.json.Decoder(list[_Trade], strict=False).decode
_decode_aggregates: Final = msgspec.json.Decoder(list[_Aggregate], strict=False).decode


@dataclass(frozen=True, slots=True)
class NumberedHistory:
    """Spot: trades by number, from the beginning of the market."""

    path: str = "/api/v3"
    weight: int = 25
    search_weight: int = 4
    headers: tuple[tuple[str, str], ...] = _MICROSECONDS

    def first(self, instrument: InstrumentDefinition, missing: TradeRange) -> Request:
        """See `protocol.TradeHistory`. Without a number the first request is for the number of the time."""
        if missing.first is not None:
            return self._from(instrument, missing.first)
        query = f"symbol={instrument.venue_symbol}&startTime={missing.from_us // 1_000}&limit=1"
        return Request(f"{self.path}/aggTrades?{query}", self.search_weight)

    def read(self, instrument: InstrumentDefinition, missing: TradeRange, body: bytes) -> TradePage:
        """See `protocol.TradeHistory`."""
        first = _first_aggregate(body)
        if first is not None:
            return TradePage(_rows([]), self._from(instrument, first))
        trades = _read(body)
        rows = _rows(trades)
        if len(trades) < _SPOT_LIMIT or not _goes_on(rows, missing):
            return TradePage(_inside(rows, missing))
        return TradePage(_inside(rows, missing), self._from(instrument, int(rows["id"].max()) + 1))

    def last_trade(self, instrument: InstrumentDefinition) -> Request:
        """The request for the newest trade."""
        return Request(f"{self.path}/trades?symbol={instrument.venue_symbol}&limit=1", self.weight, self.headers)

    def _from(self, instrument: InstrumentDefinition, number: int) -> Request:
        query = f"symbol={instrument.venue_symbol}&fromId={number}&limit={_SPOT_LIMIT}"
        return Request(f"{self.path}/historicalTrades?{query}", self.weight, self.headers)


@dataclass(frozen=True, slots=True)
class RecentHistory:
    """Derivatives: the latest trades."""

    path: str
    limit: int
    weight: int = 5

    def first(self, instrument: InstrumentDefinition, missing: TradeRange) -> Request:
        """See `protocol.TradeHistory`."""
        return Request(f"{self.path}/trades?symbol={instrument.venue_symbol}&limit={self.limit}", self.weight)

    def read(self, instrument: InstrumentDefinition, missing: TradeRange, body: bytes) -> TradePage:
        """See `protocol.TradeHistory`."""
        rows = _rows(_read(body))
        return TradePage(_inside(rows, missing), complete=len(rows) < self.limit or _reaches(rows, missing))

    def last_trade(self, instrument: InstrumentDefinition) -> Request:
        """The request for the newest trade."""
        return Request(f"{self.path}/trades?symbol={instrument.venue_symbol}&limit=1", self.weight)


def _first_aggregate(body: bytes) -> int | None:
    """The first number in an answer of aggregated trades; None where it is another answer, or empty."""
    try:
        found = _decode_aggregates(body)
    except UNREADABLE:
        return None
    return found[0].f if found else None


def _read(body: bytes) -> list[_Trade]:
    try:
        trades = _decode_trades(body)
    except UNREADABLE as error:
        raise violation(body, str(error), expected=_EXPECTED) from error
    if any(trade.isBuyerMaker is None and trade.side not in (-1, 1) for trade in trades):
        raise violation(body, "a trade has no side", expected=_EXPECTED)
    if not all(isfinite(trade.price) and isfinite(trade.qty) for trade in trades):
        raise violation(body, "a price or an amount is none", expected=_EXPECTED)
    return trades


def _rows(trades: Sequence[_Trade]) -> TickBatch:
    stamps = to_us(np.array([trade.time for trade in trades], np.int64))
    return TickBatch.build(
        DataType.TRADES,
        {
            "timestamp": stamps,
            "local_timestamp": stamps,
            "id": [trade.id if trade.tradeId is None else trade.tradeId for trade in trades],
            "id_kind": np.full(len(trades), ID_INTEGER, np.uint8),
            "side": [SELL if trade.isBuyerMaker or trade.side == SELL else BUY for trade in trades],
            "price": [trade.price for trade in trades],
            # Options write sales with a sign.
            "amount": [abs(trade.qty) for trade in trades],
        },
    )


def _inside(rows: TickBatch, missing: TradeRange) -> TickBatch:
    """Rows of the range: by number as far as numbers are given, as clocks differ, and by time where they are not."""
    ids, stamps = rows["id"], rows["timestamp"]
    after: Array = stamps >= missing.from_us if missing.first is None else ids >= missing.first
    before: Array = stamps < missing.to_us if missing.last is None else ids <= missing.last
    return rows.take(after & before)


def _goes_on(rows: TickBatch, missing: TradeRange) -> bool:
    """True where trades after the newest of `rows` may be missing, too."""
    if missing.last is None:
        return bool(rows["timestamp"].max() < missing.to_us)
    return bool(rows["id"].max() < missing.last)


def _reaches(rows: TickBatch, missing: TradeRange) -> bool:
    """True where the oldest of `rows` is not younger than the range."""
    if missing.first is None:
        return bool(rows["timestamp"].min() < missing.from_us)
    return bool(rows["id"].min() <= missing.first)

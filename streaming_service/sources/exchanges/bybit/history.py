"""Missing Bybit trades over REST: the one page of recent trades that there is."""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np

from market_data_tick_handler.core.instruments import InstrumentDefinition
from market_data_tick_handler.errors import ProtocolViolation, SourceUnavailable
from streaming_service.sources.exchanges.bybit.frames import UNREADABLE, Milliseconds
from streaming_service.sources.exchanges.bybit.topics import category
from streaming_service.sources.exchanges.bybit.trades import trade_batch
from streaming_service.sources.exchanges.protocol import Request, TradePage, TradeRange

_PATH: Final = "/v5/market/recent-trade"
_LIMIT: Final = 1_000
_SPOT_LIMIT: Final = 60
# https://bybit-exchange.github.io/docs/v5/error
_BUSY: Final = frozenset({10000, 10006, 10016, 10018})
_SHOWN_BYTES: Final = 200


class _Trade(msgspec.Struct, gc=False):
    execId: str
    symbol: str
    price: float
    size: float
    side: str
    time: Milliseconds


class _Result(msgspec.Struct, gc=False, rename={"trades": "list"}):
    trades: list[_Trade]


class _Answer(msgspec.Struct, gc=False):
    retCode: int
    retMsg: str = ""
    # An error carries an empty object.
    result: msgspec.Raw = msgspec.Raw(b"{}")


_decode: Final = msgspec.json.Decoder(_Answer, strict=False).decode
_decode_result: Final = msgspec.json.Decoder(_Result, strict=False).decode


class RecentTrades:
    """`TradeHistory` of Bybit. It knows no paging: 1,000 trades back from now (spot: 60) and nothing before.

    https://bybit-exchange.github.io/docs/v5/market/recent-trade
    """

    __slots__ = ()

    def first(self, instrument: InstrumentDefinition, missing: TradeRange) -> Request:
        """The request for the only page."""
        return recent_trades(instrument)

    def read(self, instrument: InstrumentDefinition, missing: TradeRange, body: bytes) -> TradePage:
        """Trades of `body` in `missing`, oldest first. `complete` where the page has a trade from before the range:
        the oldest millisecond of a page may be cut.

        Raises:
            ProtocolViolation: the body is not what Bybit documents.
            SourceUnavailable: Bybit says that it is busy, or that this was too often.
        """
        rows = [row for row in reversed(_read(body)) if row.symbol == instrument.venue_symbol]
        stamps_us = np.array([row.time for row in rows], np.int64) * 1_000
        batch = trade_batch(
            [row.time for row in rows],
            stamps_us,
            [row.execId for row in rows],
            [row.side for row in rows],
            [row.price for row in rows],
            [row.size for row in rows],
        )
        wanted = (stamps_us >= missing.from_us) & (stamps_us < missing.to_us)
        return TradePage(batch.take(wanted), None, complete=bool((stamps_us < missing.from_us).any()))


def recent_trades(instrument: InstrumentDefinition, limit: int | None = None) -> Request:
    """The request for the last `limit` trades, None for as many as there are."""
    if limit is None:
        limit = _SPOT_LIMIT if category(instrument) == "spot" else _LIMIT
    return Request(f"{_PATH}?category={category(instrument)}&symbol={instrument.venue_symbol}&limit={limit}")


def _read(body: bytes) -> list[_Trade]:
    """The trades of an answer, newest first."""
    try:
        answer = _decode(body)
        if answer.retCode in _BUSY:
            raise SourceUnavailable(f"Bybit answers {answer.retCode} {answer.retMsg!r} to {_PATH}; ask again later")
        if answer.retCode != 0:
            raise _violation(body, f"retCode {answer.retCode} {answer.retMsg!r}")
        trades = _decode_result(answer.result).trades
    except UNREADABLE as error:
        raise _violation(body, str(error)) from error
    if not np.isfinite([row.price + row.size for row in trades]).all():
        raise _violation(body, "a price or size is not finite")
    return trades


def _violation(body: bytes, why: str) -> ProtocolViolation:
    shown = body[:_SHOWN_BYTES].decode("utf-8", "replace")
    return ProtocolViolation(
        f"expected recent trades from Bybit's {_PATH}, got {shown!r} ({why}); if it repeats, the format has changed",
        raw=body,
    )

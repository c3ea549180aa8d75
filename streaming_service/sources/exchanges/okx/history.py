"""Trades of OKX over REST: back from the end of a gap, page by page.

The first page is asked for by number where one is known, else by time. A page by time ends within a millisecond whose
other trades may be on the next page, so the pages after it go by number in any case. The venue keeps three months.
https://www.okx.com/docs-v5/en/#order-book-trading-market-data-get-trades-history
"""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np

from market_data_tick_handler.core.instruments import InstrumentDefinition
from market_data_tick_handler.core.ticks import ID_INTEGER, Array
from streaming_service.sources.exchanges.okx.frames import UNREADABLE, violation
from streaming_service.sources.exchanges.okx.messages import Trade
from streaming_service.sources.exchanges.okx.trades import MILLISECOND_US, trade_rows
from streaming_service.sources.exchanges.protocol import Request, TradePage, TradeRange

PAGE: Final = 100
_PATH: Final = "/api/v5/market/history-trades"
_LAST_PATH: Final = "/api/v5/market/trades"
_BY_NUMBER: Final = 1
_BY_TIME: Final = 2
_FIRST_NUMBER: Final = 1


class _Body(msgspec.Struct, gc=False):
    data: list[Trade]
    code: str = "0"
    msg: str = ""


_decode: Final = msgspec.json.Decoder(_Body, strict=False).decode


class OkxTradeHistory:
    """Missing trades over REST; see `protocol.TradeHistory`.

    Where a range has numbers they alone decide which trades belong to it: the times of a gap are those of its
    neighbours, which can share a millisecond with what is missing.
    """

    __slots__ = ()

    def first(self, instrument: InstrumentDefinition, missing: TradeRange) -> Request:
        """The request for the first page, the newest."""
        if missing.last is not None:
            return _page(instrument, _BY_NUMBER, missing.last + 1)
        # The venue gives what is older than this millisecond; a range may end within one.
        return _page(instrument, _BY_TIME, -(-missing.to_us // MILLISECOND_US))

    def read(self, instrument: InstrumentDefinition, missing: TradeRange, body: bytes) -> TradePage:
        """Understand an answer, oldest trade first; rows outside `missing` are left out.

        Raises:
            ProtocolViolation: the body is not what the venue documents, or the venue refused.
        """
        trades = _read(body)
        stamps = np.array([trade.ts for trade in trades], np.int64) * MILLISECOND_US
        rows = trade_rows(trades, stamps)
        if not (rows["id_kind"] == ID_INTEGER).all():
            raise violation(body, "a tradeId is no number, which pages go by")
        rows = rows.take(np.argsort(rows["id"], kind="stable"))
        found = rows.take(_inside(rows["id"], rows["timestamp"], missing))
        if not len(rows):
            return TradePage(found, complete=False)
        if _reaches_start(rows["id"], rows["timestamp"], missing):
            return TradePage(found)
        return TradePage(found, _page(instrument, _BY_NUMBER, int(rows["id"][0])))


def last_trade_request(instrument: InstrumentDefinition) -> Request:
    """The newest trade of an instrument."""
    return Request(f"{_LAST_PATH}?instId={instrument.venue_symbol}&limit=1")


def _page(instrument: InstrumentDefinition, kind: int, after: int) -> Request:
    return Request(f"{_PATH}?instId={instrument.venue_symbol}&type={kind}&after={after}&limit={PAGE}")


def _read(body: bytes) -> list[Trade]:
    try:
        answer = _decode(body)
    except UNREADABLE as error:
        raise violation(body, str(error)) from None
    if answer.code != "0":
        raise violation(body, f"code {answer.code}: {answer.msg}")
    return answer.data


def _inside(numbers: Array, stamps: Array, missing: TradeRange) -> Array:
    after = stamps >= missing.from_us if missing.first is None else numbers >= missing.first
    before = stamps < missing.to_us if missing.last is None else numbers <= missing.last
    return np.asarray(after & before)


def _reaches_start(numbers: Array, stamps: Array, missing: TradeRange) -> bool:
    """Whether the oldest trade of a page lies at the start of the range or before it."""
    if missing.first is not None:
        return bool(numbers[0] <= missing.first)
    return bool(stamps[0] < missing.from_us or numbers[0] <= _FIRST_NUMBER)

"""Trades of Deribit over REST, newest page first: by number where numbers are known, by time for the first page if not.

Deribit takes numbers or times, never both. A page by time ends at a millisecond whose other trades may be on the next
page, so that the pages after it go by number in any case. Going back in time, the last page is the one that shows
whether the venue reaches back to the start of the range.
https://docs.deribit.com/#public-get_last_trades_by_instrument
"""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np

from market_data_tick_handler.core.instruments import InstrumentDefinition
from market_data_tick_handler.core.ticks import Array
from streaming_service.sources.exchanges.deribit.channels import wire_name
from streaming_service.sources.exchanges.deribit.frames import Trade, violation
from streaming_service.sources.exchanges.deribit.trades import INCOMPLETE, complete_trades, trade_rows
from streaming_service.sources.exchanges.protocol import Request, TradePage, TradeRange

MAX_COUNT: Final = 1_000

_BY_NUMBER: Final = "/api/v2/public/get_last_trades_by_instrument"
_BY_TIME: Final = "/api/v2/public/get_last_trades_by_instrument_and_time"
# What the venue promises to have at hand; it may be more.
_KEPT_US: Final = 24 * 3_600 * 1_000_000
_FIRST_NUMBER: Final = 1


class _Page(msgspec.Struct, gc=False):
    trades: list[Trade]
    has_more: bool = False


class _Body(msgspec.Struct, gc=False):
    """usIn: when the server received the request, microseconds."""

    result: _Page
    usIn: int = 0


_decode: Final = msgspec.json.Decoder(_Body, strict=False).decode


class DeribitTradeHistory:
    """Missing trades over REST; see `protocol.TradeHistory`.

    Where a range has numbers they alone decide which trades it takes: the times of a gap are those of its neighbours,
    which can share a millisecond with what is missing.
    """

    __slots__ = ()

    def first(self, instrument: InstrumentDefinition, missing: TradeRange) -> Request:
        """The request for the first page, the newest."""
        if missing.last is not None:
            return _by_number(instrument, missing.first, missing.last)
        # The venue's end is inclusive.
        start, end = missing.from_us // 1_000, (missing.to_us - 1) // 1_000
        return Request(
            f"{_BY_TIME}?instrument_name={wire_name(instrument.venue_symbol)}"
            f"&start_timestamp={start}&end_timestamp={end}&count={MAX_COUNT}&sorting=desc"
        )

    def read(self, instrument: InstrumentDefinition, missing: TradeRange, body: bytes) -> TradePage:
        """Understand an answer; rows outside `missing` are left out.

        Raises:
            ProtocolViolation: the body is not what the venue documents, or a trade in it lacks a part.
        """
        try:
            answer = _decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise violation(body, str(error)) from None
        trades = sorted(answer.result.trades, key=lambda trade: trade.trade_seq)
        if len(complete_trades(trades)) < len(trades):
            raise violation(body, INCOMPLETE)
        numbers = np.array([trade.trade_seq for trade in trades], np.int64)
        stamps = np.array([trade.timestamp for trade in trades], np.int64) * 1_000
        inside = np.flatnonzero(_inside(numbers, stamps, missing))
        rows = trade_rows([trades[index] for index in inside.tolist()], stamps[inside])
        if not _reaches_start(numbers, stamps, missing) and answer.result.has_more and len(numbers):
            return TradePage(rows, _by_number(instrument, missing.first, int(numbers[0]) - 1))
        return TradePage(rows, complete=_has_start(numbers, stamps, missing, answer.usIn))


def last_trade_request(instrument: InstrumentDefinition) -> Request:
    """The newest trade of an instrument."""
    return Request(f"{_BY_NUMBER}?instrument_name={wire_name(instrument.venue_symbol)}&count=1&sorting=desc")


def _by_number(instrument: InstrumentDefinition, first: int | None, last: int) -> Request:
    start = "" if first is None else f"&start_seq={first}"
    return Request(
        f"{_BY_NUMBER}?instrument_name={wire_name(instrument.venue_symbol)}"
        f"{start}&end_seq={last}&count={MAX_COUNT}&sorting=desc"
    )


def _inside(numbers: Array, stamps: Array, missing: TradeRange) -> Array:
    after = stamps >= missing.from_us if missing.first is None else numbers >= missing.first
    before = stamps < missing.to_us if missing.last is None else numbers <= missing.last
    return np.asarray(after & before)


def _reaches_start(numbers: Array, stamps: Array, missing: TradeRange) -> bool:
    """Whether the oldest trade of a page lies at the start of the range or before it."""
    if not len(numbers):
        return False
    if missing.first is not None:
        return bool(numbers[0] <= missing.first)
    return bool(stamps[0] < missing.from_us or numbers[0] <= _FIRST_NUMBER)


def _has_start(numbers: Array, stamps: Array, missing: TradeRange, server_us: int) -> bool:
    """Whether nothing can be missing before the oldest trade of the last page."""
    if missing.first is not None:
        return _reaches_start(numbers, stamps, missing)
    return _reaches_start(numbers, stamps, missing) or missing.from_us >= server_us - _KEPT_US

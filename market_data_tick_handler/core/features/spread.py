"""What takers pay against the mid of the book they met: effective spread (features.md 9.2).

A trade meets the book that had arrived before it, whatever the exchange's clock says, and adds to the bin of its own
timestamp. Snapshots come before trades of the same arrival time.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit

from market_data_tick_handler.core.continuity import ACCEPTED, Judged
from market_data_tick_handler.core.features.bins import US_15S, US_60S, ratio, slot
from market_data_tick_handler.core.features.book_state import valid_mid
from market_data_tick_handler.core.features.contract import Segment, TickGroup, TickState, record
from market_data_tick_handler.core.ticks import Array, DataType, TickBatch

BIN: Final = record("i8", "t0 n", "f8", "cost volume")
CARRY: Final = record("i8", "snapshots", "f8", "mid")
MEMORY: Final = record("i8", "unused")
OUT: Final = record("f8", "effective_spread_bps", "i8", "trades_matched_to_book")


@njit(cache=True, nogil=True)
def _fold(
    book_lt: Array, bid_price: Array, bid_amount: Array, ask_price: Array, ask_amount: Array, book_code: Array,
    ts: Array, lt: Array, price: Array, amount: Array, sign: Array, code: Array, carry: Array,
    bins15: Array, bins60: Array, empty: Array,
) -> None:  # fmt: skip
    c = carry[0]
    mid = c.mid if c.snapshots > 0 else np.nan
    snapshots = book_lt.shape[0]
    at = 0
    open15 = np.int64(-US_15S)
    k15 = 0
    k60 = 0
    for j in range(ts.shape[0]):
        while at < snapshots and book_lt[at] <= lt[j]:
            if book_code[at] == ACCEPTED:
                mid = valid_mid(bid_price[at], bid_amount[at], ask_price[at], ask_amount[at])
            at += 1
        s = sign[j]
        if code[j] != ACCEPTED or s == 0 or np.isnan(mid):
            continue
        t = ts[j]
        if t < open15 or t >= open15 + US_15S:
            open15 = t - t % US_15S
            k15 = slot(bins15, empty, US_15S, open15)
            k60 = slot(bins60, empty, US_60S, t - t % US_60S)
        q = amount[j]
        cost = q * 2.0 * s * (price[j] - mid) / mid * 1e4
        _add(bins15[k15], q, cost)
        _add(bins60[k60], q, cost)
    last = snapshots - 1
    while last >= at and book_code[last] != ACCEPTED:
        last -= 1
    if last >= at:
        mid = valid_mid(bid_price[last], bid_amount[last], ask_price[last], ask_amount[last])
    c.mid = mid
    c.snapshots += snapshots


@njit(cache=True, nogil=True)
def _add(b: Any, q: float, cost: float) -> None:
    b.n += 1
    b.volume += q
    b.cost += cost


@njit(cache=True, nogil=True)
def _merge(acc: Array, children: Array) -> None:
    """Left fold of `children` (oldest first) into `acc[0]`."""
    a = acc[0]
    for k in range(children.shape[0]):
        c = children[k]
        a.n += c.n
        a.volume += c.volume
        a.cost += c.cost


@njit(cache=True, nogil=True)
def _finish(memory: Array, bins: Array, step_us: int, out: Array) -> None:
    for i in range(bins.shape[0]):
        b = bins[i]
        out[i].trades_matched_to_book = b.n
        out[i].effective_spread_bps = ratio(b.cost, b.volume)


def _nothing(data_type: DataType) -> Judged:
    rows = TickBatch.build(data_type, {"timestamp": [], "local_timestamp": []})
    return Judged(rows, np.zeros(0, np.uint8), np.zeros(0, np.int8))


_NO_BOOKS: Final = _nothing(DataType.BOOK)
_NO_TRADES: Final = _nothing(DataType.TRADES)


class SpreadState(TickState):
    """Bins of one pipeline and the mid of the newest snapshot."""

    BIN, CARRY, MEMORY, OUT = BIN, CARRY, MEMORY, OUT
    merge_kernel = staticmethod(_merge)
    finish_kernel = staticmethod(_finish)

    def fold(self, segment: Segment) -> None:
        """Let the segment's trades meet the books that arrived before them."""
        books, trades = segment.get(DataType.BOOK, _NO_BOOKS), segment.get(DataType.TRADES, _NO_TRADES)
        book, trade = books.rows, trades.rows
        if len(book) + len(trade) == 0:
            return
        _fold(
            book["local_timestamp"], book["bid_price_1"], book["bid_volume_1"], book["ask_price_1"],
            book["ask_volume_1"], books.code, trade["timestamp"], trade["local_timestamp"], trade["price"],
            trade["amount"], trades.sign, trades.code, self.carry, self.bins15, self.bins60, self.empty,
        )  # fmt: skip


GROUP: Final = TickGroup("spread", (DataType.TRADES, DataType.BOOK), SpreadState)

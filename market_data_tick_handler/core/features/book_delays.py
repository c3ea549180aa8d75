"""How late book snapshots reach us: statistics of local_timestamp - timestamp in exact integers (features.md 9.3).

A snapshot is never late: it counts in the candle in which it takes effect, at max(timestamp, local_timestamp - grace)
and never before its predecessor.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit

from market_data_tick_handler.core.continuity import ACCEPTED
from market_data_tick_handler.core.features.arena import Quantile, Series
from market_data_tick_handler.core.features.bins import US_15S, US_60S, slot, slot_with_chain
from market_data_tick_handler.core.features.chains import CHAIN_FIELDS, CHUNK, add_chunk
from market_data_tick_handler.core.features.contract import Segment, TickGroup, TickState, record
from market_data_tick_handler.core.ticks import Array, DataType

BIN: Final = record("i8", f"t0 n {CHAIN_FIELDS} most")
CARRY: Final = record("i8", "e_us")
MEMORY: Final = record("i8", "unused")
OUT: Final = record("f8", "book_delay_median book_delay_p99 book_delay_max")


@njit(cache=True, nogil=True)
def _fold(
    ts: Array, lt: Array, code: Array, carry: Array, bins15: Array, bins60: Array, empty: Array,
    pool: Array, links: Array, free: Array, grace_us: int, floor_us: int,
) -> None:  # fmt: skip
    e = carry[0].e_us
    stop15 = np.int64(0)
    k15 = 0
    k60 = 0
    for j in range(ts.shape[0]):
        if code[j] != ACCEPTED:
            continue
        e = max(e, ts[j], lt[j] - grace_us)
        if e < floor_us:
            continue
        if e >= stop15:
            open15 = e - e % US_15S
            stop15 = open15 + US_15S
            k15 = slot_with_chain(bins15, empty, open15, links, free)
            k60 = slot(bins60, empty, US_60S, e - e % US_60S)
        delay = lt[j] - ts[j]
        _add(bins15[k15], delay)
        _add(bins60[k60], delay)
        b = bins15[k15]
        at = b.chain_count & (CHUNK - 1)
        if at == 0:
            add_chunk(b, links, free)
        pool[0, b.chain_tail * CHUNK + at] = delay
        b.chain_count += 1
    carry[0].e_us = e


@njit(cache=True, nogil=True)
def _add(b: Any, delay: int) -> None:
    b.most = delay if b.n == 0 else max(b.most, delay)
    b.n += 1


@njit(cache=True, nogil=True)
def _merge(acc: Array, children: Array) -> None:
    """Left fold of `children` (oldest first) into `acc[0]`."""
    a = acc[0]
    for k in range(children.shape[0]):
        c = children[k]
        if c.n > 0:
            a.most = c.most if a.n == 0 else max(a.most, c.most)
            a.n += c.n


@njit(cache=True, nogil=True)
def _finish(memory: Array, bins: Array, step_us: int, out: Array) -> None:
    for i in range(bins.shape[0]):
        out[i].book_delay_max = bins[i].most / 1000.0 if bins[i].n > 0 else np.nan


class BookDelaysState(TickState):
    """Bins, chains and e-clock of one pipeline."""

    BIN, CARRY, MEMORY, OUT = BIN, CARRY, MEMORY, OUT
    SERIES = (Series("book_delay", False, 1000.0, (Quantile("book_delay_median"), Quantile("book_delay_p99", 99))),)
    merge_kernel = staticmethod(_merge)
    finish_kernel = staticmethod(_finish)

    def fold(self, segment: Segment) -> None:
        """Add the segment's snapshots."""
        books = segment.get(DataType.BOOK)
        if books is None:
            return
        rows, shape, arena = books.rows, self.shape, self.arena
        assert arena is not None
        arena.reserve(len(rows), shape.slots15)
        _fold(
            rows["timestamp"], rows["local_timestamp"], books.code, self.carry, self.bins15, self.bins60, self.empty,
            arena.pool, arena.links, arena.free, shape.grace_us, shape.floor_us,
        )  # fmt: skip


GROUP: Final = TickGroup("book_delays", (DataType.BOOK,), BookDelaysState)

"""How late trades reach us: statistics of local_timestamp - timestamp in exact integers (features.md 9.3)."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit

from market_data_tick_handler.core.continuity import ACCEPTED
from market_data_tick_handler.core.features import wide
from market_data_tick_handler.core.features.arena import Quantile, Series
from market_data_tick_handler.core.features.bins import US_15S, US_60S, slot, slot_with_chain
from market_data_tick_handler.core.features.chains import CHAIN_FIELDS, CHUNK, add_chunk
from market_data_tick_handler.core.features.contract import Segment, TickGroup, TickState, record
from market_data_tick_handler.core.ticks import Array, DataType

BIN: Final = record("i8", f"t0 n {CHAIN_FIELDS} total low high least most negative")
CARRY: Final = record("i8", "unused")
MEMORY: Final = record("i8", "unused")
OUT: Final = record(
    "f8", "delay_median delay_mean delay_min delay_max delay_p95 delay_p99 delay_std", "i8", "delay_negative_count"
)
NAN: Final = np.nan


@njit(cache=True, nogil=True)
def _fold(
    ts: Array,
    lt: Array,
    code: Array,
    bins15: Array,
    bins60: Array,
    empty: Array,
    pool: Array,
    links: Array,
    free: Array,
) -> None:
    open15 = np.int64(-US_15S)
    k15 = 0
    k60 = 0
    for j in range(ts.shape[0]):
        if code[j] != ACCEPTED:
            continue
        t = ts[j]
        if t < open15 or t >= open15 + US_15S:
            open15 = t - t % US_15S
            k15 = slot_with_chain(bins15, empty, open15, links, free)
            k60 = slot(bins60, empty, US_60S, t - t % US_60S)
        delay = lt[j] - t
        _add(bins15[k15], delay)
        _add(bins60[k60], delay)
        b = bins15[k15]
        at = b.chain_count & (CHUNK - 1)
        if at == 0:
            add_chunk(b, links, free)
        pool[0, b.chain_tail * CHUNK + at] = delay
        b.chain_count += 1


@njit(cache=True, nogil=True)
def _add(b: Any, delay: int) -> None:
    if b.n == 0:
        b.least = delay
        b.most = delay
    else:
        b.least = min(b.least, delay)
        b.most = max(b.most, delay)
    b.n += 1
    b.total += delay
    b.low, b.high = wide.add_square(b.low, b.high, delay)
    b.negative += 1 if delay < 0 else 0


@njit(cache=True, nogil=True)
def _merge(acc: Array, children: Array) -> None:
    """Left fold of `children` (oldest first) into `acc[0]`."""
    a = acc[0]
    for k in range(children.shape[0]):
        c = children[k]
        if c.n == 0:
            continue
        if a.n == 0:
            a.least = c.least
            a.most = c.most
        else:
            a.least = min(a.least, c.least)
            a.most = max(a.most, c.most)
        a.n += c.n
        a.total += c.total
        a.low, a.high = wide.add(a.low, a.high, c.low, c.high)
        a.negative += c.negative


@njit(cache=True, nogil=True)
def _finish(memory: Array, bins: Array, step_us: int, out: Array) -> None:
    for i in range(bins.shape[0]):
        b = bins[i]
        o = out[i]
        n = b.n
        o.delay_negative_count = b.negative
        o.delay_mean = b.total / n / 1000.0 if n > 0 else NAN
        o.delay_min = b.least / 1000.0 if n > 0 else NAN
        o.delay_max = b.most / 1000.0 if n > 0 else NAN
        o.delay_std = wide.sample_std(n, b.total, b.low, b.high) / 1000.0 if n > 1 else NAN


class DelaysState(TickState):
    """Bins and chains of one pipeline."""

    BIN, CARRY, MEMORY, OUT = BIN, CARRY, MEMORY, OUT
    SERIES = (
        Series(
            "delay", False, 1000.0, (Quantile("delay_median"), Quantile("delay_p95", 95), Quantile("delay_p99", 99))
        ),
    )
    merge_kernel = staticmethod(_merge)
    finish_kernel = staticmethod(_finish)

    def fold(self, segment: Segment) -> None:
        """Add the segment's trades."""
        ticks = segment.get(DataType.TRADES)
        if ticks is None:
            return
        rows, arena = ticks.rows, self.arena
        assert arena is not None
        arena.reserve(len(rows), self.shape.slots15)
        _fold(
            rows["timestamp"], rows["local_timestamp"], ticks.code, self.bins15, self.bins60, self.empty,
            arena.pool, arena.links, arena.free,
        )  # fmt: skip


GROUP: Final = TickGroup("delays", (DataType.TRADES,), DelaysState)

"""Where the values of an open candle lie: chains of fixed-size chunks from one pool per group.

A live ring and the 5,760 bins of a day use memory by the value that way, not by the bin. The record of a 15 s bin holds
head, tail and length of its chain; a 1m statistic reads the four chains of its children.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit

from market_data_tick_handler.core.ticks import Array

CHUNK: Final = 64
CHAIN_FIELDS: Final = "chain_head chain_tail chain_count"
CHILDREN_15S: Final = 4
MISSING: Final = np.iinfo(np.int64).min


@njit(cache=True, nogil=True)
def add_chunk(b: Any, links: Array, free: Array) -> None:
    """Append an empty chunk to the chain of bin `b`; the pool has room (see `Arena.reserve`).

    A kernel writes a row's values itself, at `chain_tail * CHUNK + (chain_count & (CHUNK - 1))` of each series, and
    calls this only when that is the first place of a chunk: a call with arrays as arguments counts references to
    them, which costs more than all the rest of a row.
    """
    chunk = free[0]
    free[0] = links[chunk]
    free[1] -= 1
    links[chunk] = -1
    if b.chain_count == 0:
        b.chain_head = chunk
    else:
        links[b.chain_tail] = chunk
    b.chain_tail = chunk


@njit(cache=True, nogil=True)
def release(b: Any, links: Array, free: Array) -> None:
    """Give the chain of bin `b` back to the pool."""
    if b.chain_count > 0:
        links[b.chain_tail] = free[0]
        free[0] = b.chain_head
        free[1] += (b.chain_count + CHUNK - 1) // CHUNK
        b.chain_count = 0


@njit(cache=True, nogil=True)
def gather(heads: Array, counts: Array, links: Array, values: Array, out: Array) -> int:
    """Copy the values of the chains, end to end, into `out`; return how many."""
    n = 0
    for k in range(heads.shape[0]):
        left = counts[k]
        chunk = heads[k]
        while left > 0:
            m = min(left, CHUNK)
            base = chunk * CHUNK
            for i in range(m):
                out[n] = values[base + i]
                n += 1
            left -= m
            chunk = links[chunk]
    return n


@njit(cache=True, nogil=True)
def refill(bins: Array, pool: Array, links: Array, free: Array, values: Array) -> None:
    """Put saved values back into the chains of `bins`, whose counts are right and whose chunks are not theirs yet."""
    n = 0
    for k in range(bins.shape[0]):
        count = bins[k].chain_count
        bins[k].chain_count = 0
        for _ in range(count):
            b = bins[k]
            at = b.chain_count & (CHUNK - 1)
            if at == 0:
                add_chunk(b, links, free)
            for row in range(values.shape[0]):
                pool[row, b.chain_tail * CHUNK + at] = values[row, n]
            b.chain_count += 1
            n += 1

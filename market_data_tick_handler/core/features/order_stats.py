"""Exact medians and percentiles, and the mergeable sketch that replaces them above 1m: the kernels.

Theory of operation (features.md section 6). Values are int64: microseconds, or the bits of a positive float, whose
order is the order of the floats. The sketch counts values by the top bits of their float64: bucket = bits(|x|) >> 45
with the sign of x, 0 for 0; 128 buckets per octave, relative error at most 1/256, integer counts, so that merging is
exact and associative. An exact statistic is found through the same histogram: it names the bucket that holds the rank,
and only that bucket's members are ordered.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit

from market_data_tick_handler.core.features.chains import CHUNK, MISSING
from market_data_tick_handler.core.ticks import Array

_SHIFT: Final = 45
_HALF: Final = 1 << 44
_OFFSET: Final = 1 << 18
BUCKETS: Final = 1 << 19
_BELOW_ONE: Final = (1023 << 7) - 1  # the bucket before that of 1.0


@njit(cache=True, nogil=True)
def select(x: Array, low: int, high: int, k: int) -> int:
    """Element of rank `k` (0-based) of x[low..high], which is reordered around it (Hoare's quickselect)."""
    while low < high:
        middle = (low + high) >> 1
        a = x[low]
        b = x[middle]
        c = x[high]
        pivot = max(min(a, b), min(max(a, b), c))
        i = low
        j = high
        while i <= j:
            while x[i] < pivot:
                i += 1
            while x[j] > pivot:
                j -= 1
            if i <= j:
                t = x[i]
                x[i] = x[j]
                x[j] = t
                i += 1
                j -= 1
        if k <= j:
            high = j
        elif k >= i:
            low = i
        else:
            return x[k]
    return x[low]


@njit(cache=True, nogil=True)
def _number(bits: int, is_float: bool) -> float:
    return np.int64(bits).view(np.float64) if is_float else float(bits)


@njit(cache=True, nogil=True)
def _bucket(bits: int, is_float: bool) -> Any:
    """Index of the value's bucket in order of value. A float's int64 is its own bits and positive. Between an integer
    0 and 1 lie no values, so that their buckets are neighbours here: histograms are walked from end to end."""
    if is_float:
        return (bits >> _SHIFT) + _OFFSET
    if bits > 0:
        return (np.float64(bits).view(np.int64) >> _SHIFT) - _BELOW_ONE + _OFFSET
    if bits < 0:
        return _OFFSET + _BELOW_ONE - (np.float64(-bits).view(np.int64) >> _SHIFT)
    return _OFFSET


@njit(cache=True, nogil=True)
def _collect(
    heads: Array, counts: Array, links: Array, values: Array, is_float: bool, x: Array, buckets: Array
) -> tuple[int, int, int]:
    """Copy the values of the chains and their buckets; return (how many, lowest bucket, highest bucket)."""
    n = 0
    low = BUCKETS
    high = -1
    for k in range(heads.shape[0]):
        left = counts[k]
        chunk = heads[k]
        while left > 0:
            m = min(left, CHUNK)
            base = chunk * CHUNK
            for i in range(m):
                v = values[base + i]
                if v != MISSING:
                    b = _bucket(v, is_float)
                    x[n] = v
                    buckets[n] = b
                    low = min(low, b)
                    high = max(high, b)
                    n += 1
            left -= m
            chunk = links[chunk]
    return n, low, high


@njit(cache=True, nogil=True)
def _ranked(x: Array, buckets: Array, n: int, low: int, dense: Array, rank: int, members: Array) -> int:
    """Value of rank `rank` (0-based): find its bucket in the histogram, then its place among the bucket's members."""
    b = low
    before = 0
    while before + dense[b] <= rank:
        before += dense[b]
        b += 1
    m = 0
    for j in range(n):
        members[m] = x[j]
        m += 1 if buckets[j] == b else 0
    return select(members, 0, m - 1, rank - before)


@njit(cache=True, nogil=True)
def _statistic(
    x: Array, buckets: Array, n: int, low: int, dense: Array, percent: int, is_float: bool, members: Array
) -> float:
    if n == 0:
        return np.nan
    if percent >= 0:
        return _number(_ranked(x, buckets, n, low, dense, (percent * n + 99) // 100 - 1, members), is_float)
    upper = _ranked(x, buckets, n, low, dense, n // 2, members)
    if n % 2 == 1:
        return _number(upper, is_float)
    lower = _ranked(x, buckets, n, low, dense, n // 2 - 1, members)
    return (_number(lower, is_float) + _number(upper, is_float)) / 2.0


@njit(cache=True, nogil=True)
def exact(
    heads: Array, counts: Array, links: Array, values: Array, is_float: bool, divisor: float, percents: Array,
    dense: Array, out: Array, keys: Array, totals: Array, ends: Array,
) -> None:  # fmt: skip
    """out[i, c] = statistic c of candle i; percents[c] < 0 means the median.

    keys, totals, ends: where there is room, the sketches of the candles end to end, that of candle i up to ends[i].
    """
    largest = 1
    for i in range(heads.shape[0]):
        largest = max(largest, counts[i].sum())
    x = np.empty(largest, np.int64)
    buckets = np.empty(largest, np.int64)
    members = np.empty(largest + 1, np.int64)
    kept = 0
    for i in range(heads.shape[0]):
        n, low, high = _collect(heads[i], counts[i], links, values, is_float, x, buckets)
        for j in range(n):
            dense[buckets[j]] += 1
        for c in range(percents.shape[0]):
            out[i, c] = _statistic(x, buckets, n, low, dense, percents[c], is_float, members) / divisor
        if ends.shape[0] > 0:
            for b in range(low, high + 1):
                if dense[b] > 0:
                    keys[kept] = b
                    totals[kept] = dense[b]
                    kept += 1
            ends[i] = kept
        if n > 0:
            dense[low : high + 1] = 0


@njit(cache=True, nogil=True)
def count_values(
    heads: Array, counts: Array, links: Array, values: Array, is_float: bool, dense: Array, touched: Array, n: int
) -> int:
    for k in range(heads.shape[0]):
        left = counts[k]
        chunk = heads[k]
        while left > 0:
            m = min(left, CHUNK)
            base = chunk * CHUNK
            for i in range(m):
                v = values[base + i]
                if v == MISSING:
                    continue
                b = _bucket(v, is_float)
                if dense[b] == 0:
                    touched[n] = b
                    n += 1
                dense[b] += 1
            left -= m
            chunk = links[chunk]
    return n


@njit(cache=True, nogil=True)
def count_sketch(keys: Array, counts: Array, dense: Array, touched: Array, n: int) -> int:
    for j in range(keys.shape[0]):
        b = keys[j]
        if dense[b] == 0:
            touched[n] = b
            n += 1
        dense[b] += counts[j]
    return n


@njit(cache=True, nogil=True)
def drain(dense: Array, touched: Array, n: int) -> tuple[Array, Array]:
    """Sketch of what was counted; leaves the histogram empty. Walking it is cheaper than sorting what was touched."""
    keys = np.empty(n, np.int64)
    counts = np.empty(n, np.int64)
    low = BUCKETS
    high = -1
    for j in range(n):
        low = min(low, touched[j])
        high = max(high, touched[j])
    m = 0
    for b in range(low, high + 1):
        if dense[b] > 0:
            keys[m] = b
            counts[m] = dense[b]
            dense[b] = 0
            m += 1
    return keys, counts


@njit(cache=True, nogil=True)
def sketch_rank(keys: Array, counts: Array, percent: int, is_float: bool) -> float:
    """Representative of the bucket that holds the nearest-rank quantile; percent < 0 is the median, k = ceil(n/2)."""
    n = 0
    for j in range(keys.shape[0]):
        n += counts[j]
    if n == 0:
        return np.nan
    rank = (n + 1) // 2 if percent < 0 else (percent * n + 99) // 100
    seen = 0
    for j in range(keys.shape[0]):
        seen += counts[j]
        if seen >= rank:
            b = keys[j] - _OFFSET
            if b == 0:
                return 0.0
            bucket = abs(b) if is_float else abs(b) + _BELOW_ONE
            magnitude = np.int64((bucket << _SHIFT) | _HALF).view(np.float64)
            return magnitude if b > 0 else -magnitude
    return np.nan

"""Exact medians and percentiles of a candle's values, and the mergeable sketch that replaces them above 1m.

Theory of operation (features.md section 6). The values of an open 15s bin lie in a chain of fixed-size chunks taken
from one pool per group, so that a live ring and the 5,760 bins of a day use memory by the value, not by the bin. The
bin's record holds head, tail and length of its chain. A 1m statistic reads the four chains of its children: an order
statistic does not care how the values were grouped. Values are int64: microseconds, or the bits of a positive float,
whose order is the order of the floats. An exact statistic is found through the same histogram that makes the sketch:
it names the bucket that holds the rank, and only that bucket's members are ordered.

The sketch counts values by the top bits of their float64: bucket = bits(|x|) >> 45 with the sign of x, 0 for 0; 128
buckets per octave, relative error at most 1/256, integer counts, so that merging is exact and associative.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numba import njit

from market_data_tick_handler.core.ticks import Array

CHUNK: Final = 64
CHAIN_FIELDS: Final = "chain_head chain_tail chain_count"
CHILDREN_15S: Final = 4
_SHIFT: Final = 45
_HALF: Final = 1 << 44
_OFFSET: Final = 1 << 18
BUCKETS: Final = 1 << 19
_BELOW_ONE: Final = (1023 << 7) - 1  # the bucket before that of 1.0
MISSING: Final = np.iinfo(np.int64).min


@dataclass(frozen=True, slots=True)
class Quantile:
    """One order statistic of a series: the median, or the nearest-rank quantile `percent`."""

    column: str
    percent: int | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """Values a group keeps per bin. `is_float`: the int64 are the bits of positive floats, else integers.
    Statistics are divided by `divisor`."""

    name: str
    is_float: bool
    divisor: float
    quantiles: tuple[Quantile, ...]


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
def _gather(heads: Array, counts: Array, links: Array, values: Array, out: Array) -> int:
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
def _refill(bins: Array, pool: Array, links: Array, free: Array, values: Array) -> None:
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
def _exact(
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
def _count_values(
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
def _count_sketch(keys: Array, counts: Array, dense: Array, touched: Array, n: int) -> int:
    for j in range(keys.shape[0]):
        b = keys[j]
        if dense[b] == 0:
            touched[n] = b
            n += 1
        dense[b] += counts[j]
    return n


@njit(cache=True, nogil=True)
def _drain(dense: Array, touched: Array, n: int) -> tuple[Array, Array]:
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
def _sketch_rank(keys: Array, counts: Array, percent: int, is_float: bool) -> float:
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


Sketch = tuple[Array, Array]


def empty_sketch() -> Sketch:
    """A sketch of nothing."""
    return np.zeros(0, np.int64), np.zeros(0, np.int64)


class Arena:
    """The value chains of one group in one pipeline."""

    __slots__ = ("_dense", "_percents", "_touched", "free", "links", "pool", "series")

    def __init__(self, series: tuple[Series, ...]) -> None:
        self.series = series
        self._percents = [
            np.array([-1 if quantile.percent is None else quantile.percent for quantile in one.quantiles], np.int64)
            for one in series
        ]
        self.pool = np.empty((len(series), 0), np.int64)
        self.links = np.empty(0, np.int64)
        self.free = np.array([-1, 0], np.int64)
        # calloc maps these lazily: a few pages are ever touched.
        self._dense = np.zeros(BUCKETS, np.int64)
        self._touched = np.empty(BUCKETS, np.int64)
        self._grow(64)

    def _grow(self, chunks: int) -> None:
        old = len(self.links)
        pool = np.empty((len(self.series), chunks * CHUNK), np.int64)
        pool[:, : old * CHUNK] = self.pool
        links = np.empty(chunks, np.int64)
        links[:old] = self.links
        links[old:] = np.arange(old + 1, chunks + 1)
        links[-1] = self.free[0]
        self.free[0] = old
        self.free[1] += chunks - old
        self.pool, self.links = pool, links

    def reserve(self, rows: int, bins: int) -> None:
        """Make room for `rows` more values spread over at most `bins` bins."""
        need = rows // CHUNK + min(rows, bins) + 2
        if self.free[1] < need:
            # Memory that no chunk was taken from stays unmapped, so that doubling costs address space only.
            self._grow(max(2 * len(self.links), len(self.links) + need))

    def exact(self, heads: Array, counts: Array, out: Array, *, sketched: bool = False) -> list[list[Sketch]]:
        """Fill the quantile columns of `out` (n records) from the chains heads/counts, both (n, chains).

        sketched: also return the sketches of each candle, one per series, which the histograms give for nothing.
        """
        room = int(counts.sum()) if sketched else 0
        sketches: list[list[Sketch]] = [[] for _ in range(len(heads) if sketched else 0)]
        for row, series in enumerate(self.series):
            percents = self._percents[row]
            values = np.empty((len(heads), len(percents)))
            keys, totals, ends = np.empty(room, np.int64), np.empty(room, np.int64), np.zeros(len(sketches), np.int64)
            _exact(
                heads, counts, self.links, self.pool[row], series.is_float, series.divisor, percents, self._dense,
                values, keys, totals, ends,
            )  # fmt: skip
            for column, quantile in enumerate(series.quantiles):
                out[quantile.column] = values[:, column]
            start = 0
            for own, end in zip(sketches, ends.tolist(), strict=True):
                own.append((keys[start:end].copy(), totals[start:end].copy()))
                start = end
        return sketches

    def sketches(self, heads: Array, counts: Array) -> list[Sketch]:
        """Sketch of each series over the values in the chains heads/counts, both (chains,)."""
        heads, counts = np.ascontiguousarray(heads), np.ascontiguousarray(counts)
        out = []
        for row, series in enumerate(self.series):
            n = _count_values(heads, counts, self.links, self.pool[row], series.is_float, self._dense, self._touched, 0)
            out.append(_drain(self._dense, self._touched, n))
        return out

    def join(self, parts: Sequence[Sketch]) -> Sketch:
        """One sketch of everything in `parts`."""
        filled = [part for part in parts if len(part[0])]
        if len(filled) < 2:
            return filled[0] if filled else parts[0]
        keys, counts = np.concatenate([part[0] for part in filled]), np.concatenate([part[1] for part in filled])
        joined: Sketch = _drain(self._dense, self._touched, _count_sketch(keys, counts, self._dense, self._touched, 0))
        return joined

    def estimate(self, sketches: list[Sketch], out: Array, index: int) -> None:
        """Fill the quantile columns of `out[index]` from the sketches, one per series."""
        for (keys, counts), series in zip(sketches, self.series, strict=True):
            for quantile in series.quantiles:
                percent = -1 if quantile.percent is None else quantile.percent
                out[quantile.column][index] = _sketch_rank(keys, counts, percent, series.is_float) / series.divisor

    def state(self, bins: Array) -> dict[str, Array]:
        """The values of the chains of `bins`, laid end to end in their order."""
        total = int(bins["chain_count"].sum())
        values = np.empty((len(self.series), total), np.int64)
        for row in range(len(self.series)):
            _gather(bins["chain_head"].copy(), bins["chain_count"].copy(), self.links, self.pool[row], values[row])
        return {"values": values}

    def load(self, state: dict[str, Array], bins: Array) -> None:
        """Rebuild the chains of `bins`, in the order they were saved in."""
        values = state["values"]
        self.reserve(values.shape[1], len(bins))
        _refill(bins, self.pool, self.links, self.free, values)

"""The values that one group keeps per open candle, and the order statistics and sketches made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from market_data_tick_handler.core.features.chains import CHUNK, gather, refill
from market_data_tick_handler.core.features.order_stats import (
    BUCKETS,
    count_sketch,
    count_values,
    drain,
    exact,
    sketch_rank,
)
from market_data_tick_handler.core.ticks import Array


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
            exact(
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
            n = count_values(heads, counts, self.links, self.pool[row], series.is_float, self._dense, self._touched, 0)
            out.append(drain(self._dense, self._touched, n))
        return out

    def join(self, parts: Sequence[Sketch]) -> Sketch:
        """One sketch of everything in `parts`."""
        filled = [part for part in parts if len(part[0])]
        if len(filled) < 2:
            return filled[0] if filled else parts[0]
        keys, counts = np.concatenate([part[0] for part in filled]), np.concatenate([part[1] for part in filled])
        joined: Sketch = drain(self._dense, self._touched, count_sketch(keys, counts, self._dense, self._touched, 0))
        return joined

    def estimate(self, sketches: list[Sketch], out: Array, index: int) -> None:
        """Fill the quantile columns of `out[index]` from the sketches, one per series."""
        for (keys, counts), series in zip(sketches, self.series, strict=True):
            for quantile in series.quantiles:
                percent = -1 if quantile.percent is None else quantile.percent
                out[quantile.column][index] = sketch_rank(keys, counts, percent, series.is_float) / series.divisor

    def state(self, bins: Array) -> dict[str, Array]:
        """The values of the chains of `bins`, laid end to end in their order."""
        total = int(bins["chain_count"].sum())
        values = np.empty((len(self.series), total), np.int64)
        for row in range(len(self.series)):
            gather(bins["chain_head"].copy(), bins["chain_count"].copy(), self.links, self.pool[row], values[row])
        return {"values": values}

    def load(self, state: dict[str, Array], bins: Array) -> None:
        """Rebuild the chains of `bins`, in the order they were saved in."""
        values = state["values"]
        self.reserve(values.shape[1], len(bins))
        refill(bins, self.pool, self.links, self.free, values)

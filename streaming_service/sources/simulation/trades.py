"""Orders that excite one another, and the trades they make against the book."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from market_data_tick_handler.core.ticks import BOOK_LEVELS, ID_INTEGER, DataType, TickBatch
from streaming_service.sources.simulation.book import BookSlice
from streaming_service.sources.simulation.settings import SECOND_US, STEP_US, Listing, MarketSettings

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Signs = npt.NDArray[np.int8]

# Two memories make the sign's autocorrelation fall slower than one exponential, as it does in real order flow.
_FAST_FLIP: Final = 0.3
_SLOW_FLIP: Final = 0.02
_FOLLOWS_SLOW: Final = 0.5
_FILL_VALUE: Final = 300.0
_FILL_SIGMA: Final = 1.4
_FILLS_PER_LEVEL: Final = 2


@dataclass(frozen=True, slots=True)
class OrderSlice:
    """Aggressive orders of a slice in time order. `step` is the book step each one meets."""

    timestamp: Ints
    step: Ints
    side: Signs
    fills: Ints

    def flow(self, steps: int) -> Floats:
        """Signed order count per step, scaled so that busy and quiet markets move alike."""
        signed = np.bincount(self.step, weights=self.side.astype(np.float64), minlength=steps)
        scaled: Floats = signed / np.sqrt(1.0 + len(self.step) / steps)
        return scaled


class OrderFlow:
    """A Hawkes process in its cluster form: spontaneous orders, each with Poisson offspring after exponential times."""

    __slots__ = ("_fast", "_key", "_later", "_settings", "_slow")

    def __init__(self, key: str, settings: MarketSettings) -> None:
        self._key, self._settings = key, settings
        self._later: Floats = np.empty(0)
        self._fast = self._slow = 1

    def next_slice(self, slice_number: int) -> OrderSlice:
        """The orders of a slice."""
        settings = self._settings
        rng = settings.random(self._key, "orders", slice_number)
        grain = settings.timestamp_grain_us
        offset = (self._arrivals(rng) / grain).astype(np.int64) * grain
        offset.sort()
        return OrderSlice(
            timestamp=settings.start_us + slice_number * settings.slice_us + offset,
            step=offset // STEP_US,
            side=self._signs(rng, len(offset)),
            fills=rng.geometric(settings.last_fill, len(offset)),
        )

    def _arrivals(self, rng: np.random.Generator) -> Floats:
        settings = self._settings
        length = float(settings.slice_us)
        orders_per_us = settings.trades_per_second * settings.last_fill / SECOND_US
        spontaneous = rng.poisson(orders_per_us * (1.0 - settings.offspring) * length)
        generation = np.concatenate((self._later, rng.random(spontaneous) * length))
        arrived, later = [], []
        while generation.size:
            inside = generation < length
            later.append(generation[~inside] - length)
            parents = generation[inside]
            arrived.append(parents)
            generation = np.repeat(parents, rng.poisson(settings.offspring, len(parents)))
            generation = generation + rng.exponential(settings.excitement_s * SECOND_US, len(generation))
        self._later = np.concatenate(later) if later else np.empty(0)
        return np.concatenate(arrived) if arrived else np.empty(0)

    def _signs(self, rng: np.random.Generator, count: int) -> Signs:
        fast = _flipping(rng, count, _FAST_FLIP, self._fast)
        slow = _flipping(rng, count, _SLOW_FLIP, self._slow)
        follows = rng.random(count) < _FOLLOWS_SLOW
        if count:
            self._fast, self._slow = int(fast[-1]), int(slow[-1])
        return np.where(follows, slow, fast)


def _flipping(rng: np.random.Generator, count: int, chance: float, last: int) -> Signs:
    flips = np.where(rng.random(count) < chance, -1, 1).astype(np.int8)
    signs: Signs = last * np.cumprod(flips, dtype=np.int8)
    return signs


class TradeMaker:
    """Fills orders level by level and numbers the trades without holes."""

    __slots__ = ("_key", "_listing", "_next_id", "_settings")

    def __init__(self, key: str, listing: Listing, settings: MarketSettings) -> None:
        self._key, self._listing, self._settings = key, listing, settings
        # A simulation that starts later must not repeat the ids of an earlier one.
        self._next_id = settings.start_us // 1_000

    def next_slice(self, slice_number: int, orders: OrderSlice, book: BookSlice) -> tuple[TickBatch, Ints]:
        """Trades in exchange order, local_timestamp still 0, and the book step of each."""
        rng = self._settings.random(self._key, "trades", slice_number)
        count = int(orders.fills.sum())
        order = np.repeat(np.arange(len(orders.fills)), orders.fills)
        first = np.cumsum(orders.fills) - orders.fills
        level = np.minimum((np.arange(count) - first[order]) // _FILLS_PER_LEVEL, BOOK_LEVELS - 1)
        step, side = orders.step[order], orders.side[order]
        cell = step * BOOK_LEVELS + level
        ticks = np.where(side > 0, book.ask_ticks.ravel()[cell], book.bid_ticks.ravel()[cell])
        listing = self._listing
        typical = np.log(_FILL_VALUE / (listing.unit_value * listing.lot))
        lots = np.maximum(np.rint(np.exp(typical + _FILL_SIGMA * rng.standard_normal(count))), 1.0).astype(np.int64)
        ids = self._next_id + np.arange(count, dtype=np.int64)
        self._next_id += count
        columns = {
            "timestamp": orders.timestamp[order],
            "local_timestamp": np.zeros(count, dtype=np.int64),
            "id": ids,
            "id_kind": np.full(count, ID_INTEGER, dtype=np.uint8),
            "side": side,
            "price": listing.prices(ticks),
            "amount": listing.amounts(lots),
        }
        return TickBatch.build(DataType.TRADES, columns), step

"""The price of a base asset and, around it, the 5-level book of one instrument."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from market_data_tick_handler.core.ticks import BOOK_LEVELS, DataType, TickBatch
from streaming_service.sources.simulation.settings import STEP_US, YEAR_S, Listing, MarketSettings

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_MEMORY_STEPS: Final = 64
_DECAY_STEPS: Final = 20.0
_NOISE: Final = 2e-6
_IMPACT: Final = 6e-6
_LEVEL_DISTANCE: Final = 3e-6
_LEVEL_VALUE: Final = 20_000.0


class Smoother:
    """Exponentially fading sum of the inputs of the last steps, carried from slice to slice."""

    __slots__ = ("_history", "_kernel")

    def __init__(self, decay_steps: float = _DECAY_STEPS) -> None:
        self._kernel = np.exp(-np.arange(_MEMORY_STEPS) / decay_steps)
        self._history = np.zeros(_MEMORY_STEPS)

    def smooth(self, inputs: Floats) -> Floats:
        """For every step the faded sum of the inputs before it (not its own)."""
        series = np.concatenate((self._history, inputs))
        self._history = series[-_MEMORY_STEPS:]
        return np.convolve(series[:-1], self._kernel, mode="valid")


class IndexPath:
    """Log price of a base asset on the step grid, relative to its reference. Instruments of one base share it."""

    __slots__ = ("_base", "_last", "_settings")

    def __init__(self, base: str, settings: MarketSettings) -> None:
        self._base, self._settings, self._last = base, settings, 0.0

    def next_slice(self, slice_number: int) -> Floats:
        """One value per step of the slice."""
        settings = self._settings
        years = STEP_US / 1e6 / YEAR_S
        noise = settings.random(self._base, "index", slice_number).standard_normal(settings.slice_steps)
        drift = (settings.annual_drift - 0.5 * settings.annual_volatility**2) * years
        steps = drift + settings.annual_volatility * np.sqrt(years) * noise
        path = self._last + np.cumsum(steps)
        self._last = float(path[-1])
        return path


@dataclass(frozen=True, slots=True)
class BookSlice:
    """The book at every step of a slice: ticks and lots, [step, level], level 0 is best."""

    ask_ticks: Ints
    bid_ticks: Ints
    ask_lots: Ints
    bid_lots: Ints


class BookMaker:
    """Quotes around the index: order flow moves the mid, the move fades, depth leans with it."""

    __slots__ = ("_key", "_listing", "_settings", "_transient")

    def __init__(self, key: str, listing: Listing, settings: MarketSettings) -> None:
        self._key, self._listing, self._settings = key, listing, settings
        self._transient = Smoother()

    def next_slice(self, slice_number: int, index: Floats, flow: Floats) -> BookSlice:
        """The book of a slice, from the index and the signed order flow of each step."""
        rng = self._settings.random(self._key, "book", slice_number)
        steps = len(index)
        listing = self._listing
        transient = self._transient.smooth(_IMPACT * flow + _NOISE * rng.standard_normal(steps))
        best_bid = np.floor(listing.price * np.exp(index + transient) / listing.tick).astype(np.int64)
        best_ask = best_bid + rng.geometric(0.8, steps)
        distance = _LEVEL_DISTANCE * listing.price / listing.tick
        lean = np.clip(transient / (5 * _IMPACT), -1.0, 1.0)
        return BookSlice(
            ask_ticks=best_ask[:, None] + _offsets(rng, steps, distance),
            bid_ticks=best_bid[:, None] - _offsets(rng, steps, distance),
            ask_lots=self._lots(rng, -lean),
            bid_lots=self._lots(rng, lean),
        )

    def _lots(self, rng: np.random.Generator, lean: Floats) -> Ints:
        typical = np.log(_LEVEL_VALUE / (self._listing.unit_value * self._listing.lot))
        noise = rng.standard_normal((len(lean), BOOK_LEVELS))
        exponent = typical + 0.15 * np.arange(BOOK_LEVELS) + 0.8 * noise + 0.5 * lean[:, None]
        lots: Ints = np.maximum(np.rint(np.exp(exponent)), 1.0).astype(np.int64)
        return lots


def book_batch(book: BookSlice, listing: Listing, timestamp: Ints, local_timestamp: Ints) -> TickBatch:
    """The snapshots of a slice as rows."""
    columns: dict[str, npt.NDArray[np.generic]] = {"timestamp": timestamp, "local_timestamp": local_timestamp}
    for level in range(BOOK_LEVELS):
        for side, ticks, lots in (("ask", book.ask_ticks, book.ask_lots), ("bid", book.bid_ticks, book.bid_lots)):
            columns[f"{side}_price_{level + 1}"] = listing.prices(ticks[:, level])
            columns[f"{side}_volume_{level + 1}"] = listing.amounts(lots[:, level])
    return TickBatch.build(DataType.BOOK, columns)


def _offsets(rng: np.random.Generator, steps: int, distance: float) -> Ints:
    gaps = 1 + np.floor(rng.exponential(distance, (steps, BOOK_LEVELS))).astype(np.int64)
    gaps[:, 0] = 0
    offsets: Ints = np.cumsum(gaps, axis=1)
    return offsets

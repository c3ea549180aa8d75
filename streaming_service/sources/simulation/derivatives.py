"""What only a derivative has: funding, open interest, mark and index price, and liquidations."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from market_data_tick_handler.core.instruments import InstrumentDefinition, InstrumentType
from market_data_tick_handler.core.ticks import BUY, SELL, DataType, TickBatch
from streaming_service.sources.simulation.book import BookSlice, Smoother
from streaming_service.sources.simulation.settings import SECOND_US, STEP_US, Listing, MarketSettings

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FUNDING_INTERVAL_US: Final = 8 * 3_600 * SECOND_US
_BASE_FUNDING: Final = 1e-4
_OPEN_INTEREST_VALUE: Final = 2e9
_LIQUIDATION_VALUE: Final = 5_000.0


class DerivativeMaker:
    """Ticker rows on a fixed interval and liquidations that follow the price."""

    __slots__ = ("_basis", "_instrument", "_listing", "_log_interest", "_settings")

    def __init__(self, instrument: InstrumentDefinition, listing: Listing, settings: MarketSettings) -> None:
        self._instrument, self._listing, self._settings = instrument, listing, settings
        self._basis = Smoother(decay_steps=60.0)
        self._log_interest = float(np.log(_OPEN_INTEREST_VALUE / listing.unit_value))

    def tickers(self, slice_number: int, index: Floats, book: BookSlice) -> tuple[TickBatch, Ints]:
        """Ticker rows, local_timestamp still 0, and the step of each."""
        settings = self._settings
        rng = settings.random(self._instrument.key, "ticker", slice_number)
        first_step = slice_number * settings.slice_steps
        every = settings.derivative_interval_us // STEP_US
        step = np.arange(-first_step % every, settings.slice_steps, every, dtype=np.int64)
        timestamp = settings.start_us + (first_step + step) * STEP_US
        interest = self._log_interest + np.cumsum(1e-5 * rng.standard_normal(len(step)))
        basis = self._basis.smooth(1e-5 * rng.standard_normal(len(step)))
        if len(step):
            self._log_interest = float(interest[-1])
        index_price = self._listing.price * np.exp(index[step])
        columns = {
            "timestamp": timestamp,
            "local_timestamp": np.zeros(len(step), dtype=np.int64),
            **self._funding(timestamp, basis),
            "open_interest": self._listing.amounts(np.rint(np.exp(interest) / self._listing.lot).astype(np.int64)),
            "last_price": self._listing.prices(book.bid_ticks[step, 0]),
            "index_price": np.round(index_price, 8),
            "mark_price": np.round(index_price * (1.0 + basis), 8),
        }
        return TickBatch.build(DataType.DERIVATIVE, columns), step

    def _funding(self, timestamp: Ints, basis: Floats) -> dict[str, npt.NDArray[np.generic]]:
        if self._instrument.instrument_type is not InstrumentType.PERPETUAL:
            return {}
        return {
            "funding_timestamp": (timestamp // FUNDING_INTERVAL_US + 1) * FUNDING_INTERVAL_US,
            "funding_rate": np.round(np.clip(_BASE_FUNDING + 0.2 * basis, -0.003, 0.003), 8),
            "predicted_funding_rate": np.round(np.clip(_BASE_FUNDING + 0.3 * basis, -0.003, 0.003), 8),
        }

    def liquidations(self, slice_number: int, index: Floats, book: BookSlice) -> tuple[TickBatch, Ints]:
        """Liquidations, local_timestamp still 0, and the step of each: shorts (buy) when the price rose, longs (sell)
        when it fell, more where it moved more."""
        settings = self._settings
        rng = settings.random(self._instrument.key, "liquidations", slice_number)
        move = np.diff(index, prepend=index[0])
        weight = np.abs(move) + 1e-12
        count = rng.poisson(settings.liquidations_per_minute * settings.slice_us / (60.0 * SECOND_US))
        step = np.searchsorted(np.cumsum(weight / weight.sum()), np.sort(rng.random(count)))
        step = np.minimum(step, len(index) - 1).astype(np.int64)
        within = rng.integers(0, STEP_US // settings.timestamp_grain_us, count) * settings.timestamp_grain_us
        timestamp = settings.start_us + slice_number * settings.slice_us + step * STEP_US + within
        timestamp.sort()
        side = np.where(move[step] >= 0, BUY, SELL).astype(np.int8)
        listing = self._listing
        typical = np.log(_LIQUIDATION_VALUE / (listing.unit_value * listing.lot))
        lots = np.maximum(np.rint(np.exp(typical + rng.standard_normal(count))), 1.0).astype(np.int64)
        columns = {
            "timestamp": timestamp,
            "local_timestamp": np.zeros(count, dtype=np.int64),
            "side": side,
            "price": listing.prices(np.where(side > 0, book.ask_ticks[step, 0], book.bid_ticks[step, 0])),
            "amount": listing.amounts(lots),
        }
        return TickBatch.build(DataType.LIQUIDATIONS, columns), step

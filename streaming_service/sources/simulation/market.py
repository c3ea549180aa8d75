"""A seeded market of one instrument: the same settings give the same rows, however they are asked for. Pure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from market_data_tick_handler.core.instruments import InstrumentDefinition, data_types_for
from market_data_tick_handler.core.ticks import DataType, TickBatch, concat
from streaming_service.sources.simulation.book import BookMaker, IndexPath, Smoother, book_batch
from streaming_service.sources.simulation.derivatives import DerivativeMaker
from streaming_service.sources.simulation.options import ChainMaker
from streaming_service.sources.simulation.settings import STEP_US, MarketSettings, listing_for
from streaming_service.sources.simulation.trades import OrderFlow, TradeMaker

Ints = npt.NDArray[np.int64]

_JITTER_US = 300.0


class Wire:
    """The network from the exchange: log-normal delay that changes slowly, and no row overtakes another of its type."""

    __slots__ = ("_key", "_last", "_settings", "_slow")

    def __init__(self, key: str, settings: MarketSettings) -> None:
        self._key, self._settings = key, settings
        self._slow = Smoother(decay_steps=10.0)
        self._last: dict[DataType, int] = {}

    def delays(self, slice_number: int) -> npt.NDArray[np.float64]:
        """Delay of each step of the slice, microseconds; all data types share it."""
        settings = self._settings
        noise = settings.random(self._key, "delay", slice_number).standard_normal(settings.slice_steps)
        # The sum of squares of the kernel exp(-i/10) is 1 / (1 - exp(-0.2)).
        standard = self._slow.smooth(noise) * np.sqrt(1.0 - np.exp(-0.2))
        delays: npt.NDArray[np.float64] = settings.delay_median_ms * 1e3 * np.exp(settings.delay_sigma * standard)
        return delays

    def stamp(
        self, batch: TickBatch, step: Ints, delays: npt.NDArray[np.float64], rng: np.random.Generator
    ) -> TickBatch:
        """The rows with their time of receipt."""
        delay = delays[step] + rng.exponential(_JITTER_US, len(step))
        arrival = batch["timestamp"] + np.maximum(delay, 1.0).astype(np.int64)
        if len(arrival):
            arrival[0] = max(int(arrival[0]), self._last.get(batch.data_type, 0))
            arrival = np.maximum.accumulate(arrival)
            self._last[batch.data_type] = int(arrival[-1])
        return batch.with_column("local_timestamp", arrival)


class Buffer:
    """Rows made but not yet asked for."""

    __slots__ = ("_batches",)

    def __init__(self) -> None:
        self._batches: list[TickBatch] = []

    def add(self, batch: TickBatch) -> None:
        if len(batch):
            self._batches.append(batch)

    def take(self, until_us: int) -> TickBatch | None:
        """Rows with local_timestamp < `until_us`, None if there is none."""
        taken: list[TickBatch] = []
        while self._batches:
            head = self._batches[0]
            stop = int(np.searchsorted(head["local_timestamp"], until_us, side="left"))
            if stop:
                taken.append(head.slice(0, stop))
            if stop < len(head):
                self._batches[0] = head.slice(stop, len(head))
                break
            self._batches.pop(0)
        return concat(taken) if taken else None


class SimulatedMarket:
    """All data types of one instrument, in arrival order, from `settings.start_us` on.

    Rows are made in slices of fixed length from random streams of their own, so that neither the step of `poll` nor
    which data types are read changes a row.
    """

    def __init__(self, instrument: InstrumentDefinition, settings: MarketSettings) -> None:
        self.instrument = instrument
        self.settings = settings
        self.data_types = data_types_for(instrument.instrument_type)
        self._buffers = {data_type: Buffer() for data_type in self.data_types}
        self._slice = 0
        listing = listing_for(instrument, settings)
        self._index = IndexPath(instrument.base, settings)
        self._wire = Wire(instrument.key, settings)
        self._orders = OrderFlow(instrument.key, settings)
        self._book = BookMaker(instrument.key, listing, settings)
        self._trades = TradeMaker(instrument.key, listing, settings)
        self._derivatives = DerivativeMaker(instrument, listing, settings)
        self._chain = ChainMaker(instrument, settings)
        self._listing = listing

    def poll(self, until_us: int) -> dict[DataType, TickBatch]:
        """Rows not given yet with local_timestamp < `until_us`, by data type; types without rows are absent."""
        # Delays are above 0, so rows of later slices arrive after this.
        while self.settings.start_us + self._slice * self.settings.slice_us < until_us:
            self._make_slice()
        polled = {data_type: buffer.take(until_us) for data_type, buffer in self._buffers.items()}
        return {data_type: batch for data_type, batch in polled.items() if batch is not None}

    def clean_rows(self, until_us: int) -> dict[DataType, TickBatch]:
        """Every row from the start with local_timestamp < `until_us`, whatever was polled before."""
        return SimulatedMarket(self.instrument, self.settings).poll(until_us)

    def _make_slice(self) -> None:
        number = self._slice
        self._slice += 1
        index = self._index.next_slice(number)
        delays = self._wire.delays(number)
        made: list[tuple[TickBatch, Ints]] = []
        if DataType.TRADES in self._buffers:
            made += self._exchange_slice(number, index)
        if DataType.OPTIONS in self._buffers:
            made.append(self._chain.next_slice(number, index))
        for batch, step in made:
            rng = self.settings.random(self.instrument.key, f"jitter {batch.data_type}", number)
            self._buffers[batch.data_type].add(self._wire.stamp(batch, step, delays, rng))

    def _exchange_slice(self, number: int, index: npt.NDArray[np.float64]) -> list[tuple[TickBatch, Ints]]:
        settings = self.settings
        orders = self._orders.next_slice(number)
        book = self._book.next_slice(number, index, orders.flow(settings.slice_steps))
        step = np.arange(settings.slice_steps, dtype=np.int64)
        timestamp = settings.start_us + number * settings.slice_us + step * STEP_US
        made = [
            self._trades.next_slice(number, orders, book),
            (book_batch(book, self._listing, timestamp, np.zeros_like(timestamp)), step),
        ]
        if DataType.DERIVATIVE in self._buffers:
            made.append(self._derivatives.tickers(number, index, book))
        if DataType.LIQUIDATIONS in self._buffers:
            made.append(self._derivatives.liquidations(number, index, book))
        return made

"""The state of a derivative, gathered from five OKX channels: a row whenever a value of it changed.

`tickers`, `open-interest`, `mark-price` and `funding-rate` each bring one part of it; the index price comes by the
name of the index and is taken up by the next message about the instrument, as the vendor does it. Values stay until
others come. The time of a row is the latest that any message carried.

Messages are decoded in one go and then walked through one by one: what a row holds depends on all before it, and a
turn of the loop brings one or two per instrument. That costs 1.2 us a message; a dozen array operations per instrument
would cost as much as the walk through thirty of its messages.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import isnan, nan
from typing import Final

import numpy as np

from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.instruments import InstrumentDefinition, InstrumentType
from market_data_tick_handler.core.ticks import Array, DataType, TickBatch
from streaming_service.sources.exchanges.okx.frames import Read
from streaming_service.sources.exchanges.okx.messages import Ticker, number
from streaming_service.sources.exchanges.okx.trades import MILLISECOND_US

INDEX_CHANNEL: Final = "index-tickers"
FUNDING_CHANNEL: Final = "funding-rate"
# Of one instrument; INDEX_CHANNEL and FUNDING_CHANNEL come on top.
CHANNELS: Final = ("mark-price", "open-interest", "tickers")
_LASTING: Final = "XPERP"
# Contracts on USDC followed the index in dollars until the spring of 2023. The venue announced the change for April 6
# and made it later: recordings have the old index on April 9 and the new one on April 20.
_OWN_INDEX_FROM_US: Final = 1_681_948_800_000_000
_COLUMNS: Final = (
    "timestamp", "local_timestamp", "funding_rate", "funding_timestamp", "predicted_funding_rate", "open_interest",
    "last_price", "index_price", "mark_price",
)  # fmt: skip
_Row = tuple[int, int, float, int, float, float, float, float, float]


def index_of(instrument: InstrumentDefinition, *, local_us: int | None = None) -> str:
    """The venue symbol of the index that an instrument follows, at `local_us` (None: today)."""
    # BTC-USD_UM_XPERP-310404 follows BTC-USD.
    quote = instrument.quote.partition("_")[0]
    if quote == "USDC" and local_us is not None and local_us < _OWN_INDEX_FROM_US:
        quote = "USD"
    return f"{instrument.base}-{quote}"


def has_funding(instrument: InstrumentDefinition) -> bool:
    """Whether the venue has a funding rate for an instrument: swaps, and futures that are dated by name only."""
    return instrument.instrument_type is InstrumentType.PERPETUAL or _LASTING in instrument.quote


@dataclass(slots=True)
class _State:
    """What is known of one instrument; NaN and 0 for what is not."""

    timestamp: int = 0
    funding_rate: float = nan
    funding_timestamp: int = 0
    predicted_funding_rate: float = nan
    open_interest: float = nan
    last_price: float = nan
    index_price: float = nan
    mark_price: float = nan
    rows: list[_Row] = field(default_factory=list)

    def update(self, message: Ticker, index_price: float | None, local_us: int) -> bool:
        """Take in a message; whether that gave a row."""
        before = self._values()
        if index_price is not None:
            self.index_price = index_price
        if self._take_price(message) or self._take_funding(message):
            self.timestamp = max(self.timestamp, message.ts * MILLISECOND_US)
        after = self._values()
        # A NaN is unequal to itself, but within tuples the same object is equal, which an absent value stays.
        if after == before:
            return False
        self.timestamp = self.timestamp or local_us
        self.rows.append((self.timestamp, local_us, *after))
        return True

    def _values(self) -> tuple[float, int, float, float, float, float, float]:
        return (
            self.funding_rate, self.funding_timestamp, self.predicted_funding_rate, self.open_interest,
            self.last_price, self.index_price, self.mark_price,
        )  # fmt: skip

    def _take_price(self, message: Ticker) -> bool:
        """One of the prices, or the open interest; 0 means that there is none."""
        if (value := number(message.markPx)) > 0:
            self.mark_price = value
        elif (value := number(message.last)) > 0:
            self.last_price = value
        elif (value := number(message.oi)) > 0:
            self.open_interest = value
        else:
            return False
        return True

    def _take_funding(self, message: Ticker) -> bool:
        """The rate of the running period and the next; whether there was any."""
        rate, time, predicted = (
            number(value) for value in (message.fundingRate, message.fundingTime, message.nextFundingRate)
        )
        if not isnan(rate):
            self.funding_rate = rate
        if time > 0:
            self.funding_timestamp = int(time) * MILLISECOND_US
        if not isnan(predicted):
            self.predicted_funding_rate = predicted
        return not isnan(rate) or time > 0 or not isnan(predicted)


class Tickers:
    """The states of the derivatives of one connection.

    `keys`: by venue symbol, the instrument under which a message is counted that gives no row. One of an index counts
    for the first instrument that follows it.
    """

    __slots__ = ("_index", "_indices", "_states", "keys")

    def __init__(self, instruments: Iterable[InstrumentDefinition]) -> None:
        self.keys: dict[str, str] = {}
        self._indices: dict[str, tuple[str, str]] = {}
        for each in instruments:
            self._indices[each.venue_symbol] = (index_of(each, local_us=0), index_of(each))
            for name in (each.venue_symbol, *self._indices[each.venue_symbol]):
                self.keys.setdefault(name, each.key)
        self._index: dict[str, float] = {}
        self._states: dict[str, _State] = {}

    def follow(self, read: Read[Ticker], local_us: Array, connection: int) -> tuple[list[Rows], dict[str, int]]:
        """Rows by instrument, and by key of `keys` how many messages gave none; `local_us` is that of all frames."""
        silent: dict[str, int] = {}
        times = local_us[read.at].tolist()
        for frame, local in zip(read.frames, times, strict=True):
            for message in frame.data:
                if not self._take(message, local) and (key := self.keys.get(message.instId)):
                    silent[key] = silent.get(key, 0) + 1
        return self._flush(connection), silent

    def _take(self, message: Ticker, local_us: int) -> bool:
        if message.idxPx != "":
            price = number(message.idxPx)
            if price > 0:
                self._index[message.instId] = price
            return False
        names = self._indices.get(message.instId)
        if names is None:
            return False
        state = self._states.setdefault(message.instId, _State())
        return state.update(message, self._index.get(names[local_us >= _OWN_INDEX_FROM_US]), local_us)

    def _flush(self, connection: int) -> list[Rows]:
        out = []
        for symbol, state in self._states.items():
            if state.rows:
                out.append(Rows(self.keys[symbol], _batch(state.rows), connection))
                state.rows = []
        return out


def _batch(rows: Sequence[_Row]) -> TickBatch:
    columns = dict(zip(_COLUMNS, zip(*rows, strict=True), strict=True))
    return TickBatch.build(DataType.DERIVATIVE, {name: np.array(column) for name, column in columns.items()})

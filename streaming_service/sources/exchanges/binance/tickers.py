"""Binance mark prices, 24-hour tickers, open interest and index prices as `derivative_ticker` rows.

A row is the whole state of an instrument, written when a value changed, under the latest time that the venue gave with
any of them; open interest comes from REST and has none of its own. An index price of a pair, which COIN-M sends apart
from its contracts, shows in the next row of each of them. These are the rules of the vendor's normaliser.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, nan
from typing import Annotated, Final

import msgspec
import numpy as np

from market_data_tick_handler.core.ticks import Array, DataType, TickBatch
from streaming_service.sources.exchanges.binance.times import to_us

_Stamp = Annotated[int, msgspec.Meta(gt=0)]
# Columns of the state. Funding times are far below where floats stop to count exactly.
_COLUMNS: Final = ("funding_timestamp", "funding_rate", "open_interest", "last_price", "index_price", "mark_price")
_INDEX_COLUMN: Final = _COLUMNS.index("index_price")
_MISSING: Final = (nan,) * len(_COLUMNS)


class MarkPrice(msgspec.Struct, gc=False, eq=False):
    """`r` and `T`, rate and time of the next funding: empty and 0 where a contract has no funding."""

    E: _Stamp
    p: float
    i: float = nan
    r: str = ""
    T: int = 0

    def is_sound(self) -> bool:
        return isfinite(self.p) and _is_number(self.r)


class Ticker(msgspec.Struct, gc=False, eq=False):
    """`c`: the last price."""

    E: _Stamp
    c: float

    def is_sound(self) -> bool:
        return isfinite(self.c)


class OpenInterest(msgspec.Struct, gc=False, eq=False):
    """The body of the REST call."""

    openInterest: float

    def is_sound(self) -> bool:
        return isfinite(self.openInterest)


class IndexPrice(msgspec.Struct, gc=False, eq=False):
    """`p`: the index price of a pair."""

    p: float

    def is_sound(self) -> bool:
        return isfinite(self.p)


@dataclass(frozen=True, slots=True)
class Updates:
    """Values in the order of the frames. places: which frame, (n,). stamps: int64 us, 0 where a frame has no time.
    values: (n, 6), a column each of `_COLUMNS`, NaN where a frame does not say."""

    places: Array
    stamps: Array
    values: Array

    @classmethod
    def of_marks(cls, places: Array, messages: Sequence[MarkPrice]) -> Updates:
        funding = [(message.T, float(message.r)) if message.r and message.T else (nan, nan) for message in messages]
        rows = [
            (at, rate, nan, nan, message.i, message.p) for (at, rate), message in zip(funding, messages, strict=True)
        ]
        values = _table(rows)
        # NaN fails the comparison.
        values[:, 0] = np.where(values[:, 0] > 0.0, values[:, 0] * 1_000.0, nan)
        return cls(places, to_us(np.array([message.E for message in messages], np.int64)), values)

    @classmethod
    def of_tickers(cls, places: Array, messages: Sequence[Ticker]) -> Updates:
        values = _table([(nan, nan, nan, message.c, nan, nan) for message in messages])
        return cls(places, to_us(np.array([message.E for message in messages], np.int64)), values)

    @classmethod
    def of_open_interest(cls, places: Array, messages: Sequence[OpenInterest]) -> Updates:
        values = _table([(nan, nan, message.openInterest, nan, nan, nan) for message in messages])
        return cls(places, np.zeros(len(messages), np.int64), values)


class PairIndex:
    """Index prices of one pair: those of the current batch, and the last one before it."""

    __slots__ = ("_last", "_places", "_prices")

    def __init__(self) -> None:
        self._last = nan
        self._places: Array = np.empty(0, np.int64)
        self._prices: Array = np.empty(0)

    def take(self, places: Array, messages: Sequence[IndexPrice]) -> None:
        """The prices of a batch; `close` ends it."""
        self._places = places
        self._prices = np.array([message.p for message in messages], np.float64)

    def at(self, places: Array) -> Array:
        """The latest price before each of the frames `places` of the batch."""
        prices = np.concatenate([[self._last], self._prices])
        return prices[np.searchsorted(self._places, places)]

    def close(self) -> None:
        """The batch is over."""
        if len(self._prices):
            self._last = float(self._prices[-1])
            self._places, self._prices = self._places[:0], self._prices[:0]


class TickerFeed:
    """The state of one instrument."""

    __slots__ = ("_stamp", "_values")

    def __init__(self) -> None:
        self._values: Array = np.array(_MISSING)
        self._stamp = 0

    def take(self, updates: Sequence[Updates], local_us: Array, index: PairIndex | None = None) -> TickBatch:
        """Rows of the updates that changed something. local_us: arrivals of the frames of the whole batch."""
        places = np.concatenate([part.places for part in updates])
        order = np.argsort(places, kind="stable")
        places = places[order]
        values = np.concatenate([part.values for part in updates])[order]
        if index is not None:
            own = values[:, _INDEX_COLUMN]
            values[:, _INDEX_COLUMN] = np.where(np.isnan(own), index.at(places), own)
        states = _carried_forward(np.concatenate([self._values[None, :], values]))
        changed = ((states[1:] != states[:-1]) & ~np.isnan(states[1:])).any(axis=1)
        arrived = local_us[places]
        stamps = self._stamps(np.concatenate([part.stamps for part in updates])[order], arrived, changed)
        self._values, self._stamp = states[-1], int(stamps[-1])
        columns = dict(zip(_COLUMNS, states[1:][changed].T, strict=True))
        columns["funding_timestamp"] = np.nan_to_num(columns["funding_timestamp"]).astype(np.int64)
        return TickBatch.build(
            DataType.DERIVATIVE, {"timestamp": stamps[changed], "local_timestamp": arrived[changed], **columns}
        )

    def _stamps(self, given: Array, arrived: Array, changed: Array) -> Array:
        """The latest time given so far; the arrival of the first row where none has been."""
        stamps = np.maximum.accumulate(np.maximum(given, self._stamp))
        timeless = np.flatnonzero(changed & (stamps == 0))
        if len(timeless):
            stamps[timeless[0]] = arrived[timeless[0]]
            stamps = np.maximum.accumulate(stamps)
        return stamps


def _is_number(text: str) -> bool:
    try:
        return not text or isfinite(float(text))
    except ValueError:
        return False


def _table(rows: Sequence[Sequence[float]]) -> Array:
    return np.array(rows, np.float64).reshape(len(rows), len(_COLUMNS))


def _carried_forward(states: Array) -> Array:
    """Each NaN replaced by the last number above it."""
    rows = np.where(np.isnan(states), 0, np.arange(len(states))[:, None])
    return states[np.maximum.accumulate(rows, axis=0), np.arange(states.shape[1])]

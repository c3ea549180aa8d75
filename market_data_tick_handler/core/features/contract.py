"""The shape every feature group has, so that a new one drops in without touching pipeline.py.

A group is a module that exports `GROUP`, an object of one of two kinds:

* A *tick group* folds ticks into bins. `BIN` is the accumulator record of one candle, `CARRY` the sequence state that
  outlives candles (previous trade, clocks). `fold` adds rows, `settle` stamps what a candle border fixes (as-of values,
  the rest of a time integral), `merge` folds a bin into a coarser one, `finish` turns bins into columns.
* A *candle group* reads closed candles. `MEMORY` is the record carried from candle to candle; zeros are its cold state.
  `finish` turns candles into columns and moves the memory on.

Both write `OUT` records: float64 (NaN is null) and int64 fields named like the columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol

import numpy as np

from market_data_tick_handler.core.continuity import Judged
from market_data_tick_handler.core.features.arena import Arena, Series, Sketch, empty_sketch
from market_data_tick_handler.core.features.chains import CHILDREN_15S
from market_data_tick_handler.core.options import FeatureParameters
from market_data_tick_handler.core.ticks import Array, DataType
from market_data_tick_handler.core.timeframes import ALL_TIMEFRAMES, BORDER_US, Timeframe

MINUTE_US: Final = 60_000_000

# One stretch of arrival time: the judged rows of each data type that has any.
Segment = Mapping[DataType, Judged]

# What a candle group may read of a closed candle: each field comes from the tick group that publishes it. Volumes are
# in venue units; an empty candle has trade_count 0, the previous close in all four prices, price_vwap NaN. A field that
# nobody publishes, or that a caller does not have, is NaN.
CANDLE = np.dtype(
    [
        ("timestamp", "i8"),
        ("trade_count", "i8"),
        ("open", "f8"),
        ("high", "f8"),
        ("low", "f8"),
        ("close", "f8"),
        ("volume", "f8"),
        ("quote_volume", "f8"),
        ("price_vwap", "f8"),
        ("buy_volume_sum", "f8"),
        ("sell_volume_sum", "f8"),
        ("volume_delta", "f8"),
        ("signed_sqrt_notional", "f8"),
        ("vwap_base_volume", "f8"),
        ("index_price", "f8"),
        ("mark_price", "f8"),
        ("oi_change", "f8"),
        ("liquidation_volume", "f8"),
        ("rv_1s", "f8"),
        ("jump_1s", "f8"),
        ("funding_rate", "f8"),
        ("basis_bps_tw", "f8"),
    ]
)


class CandleGroup(Protocol):
    """Columns computed from closed candles (roll-up code SELF)."""

    name: str
    timeframes: tuple[Timeframe, ...]
    columns: tuple[str, ...]
    MEMORY: np.dtype[np.void]
    OUT: np.dtype[np.void]

    def finish(self, memory: Array, candles: Array, step_us: int, out: Array) -> None:
        """Fill `out` (shape (n,), OUT) from `candles` (shape (n,), CANDLE), oldest first.

        `memory` (shape (1,), MEMORY) is moved on in place; calling once with n candles or n times with one gives the
        same bits. Candles are consecutive: timestamp[i+1] == timestamp[i] + step_us; the caller checks.
        """


def record(*parts: str) -> np.dtype[np.void]:
    """Record layout from alternating dtype and space-separated names: `record("i8", "t0 n", "f8", "open close")`."""
    fields = [(name, kind) for kind, names in zip(parts[::2], parts[1::2], strict=True) for name in names.split()]
    return np.dtype(fields)


def as_bytes(records: Array) -> Array:
    """The same contiguous records as rows of bytes, which NumPy copies in one go instead of field by field."""
    return records.view(np.uint8).reshape(len(records), -1)


@dataclass(frozen=True, slots=True)
class RunShape:
    """What a tick group must know of its run.

    slots15, slots60: lengths of the rings of 15 s and 1 m bins. floor_us: bins that open before it are not kept.
    expiry_us: 0 = the contract has none.
    """

    slots15: int
    slots60: int
    grace_us: int
    floor_us: int
    inverse: bool
    multiplier: float
    parameters: FeatureParameters
    expiry_us: int = 0


@dataclass(slots=True)
class Parent:
    """Accumulator of one candle above 1m: the left fold of its 1m bins so far, and their sketches."""

    bin: Array
    sketches: list[Sketch]

    def copy(self) -> Parent:
        """An independent copy; sketches are never changed in place."""
        return Parent(self.bin.copy(), list(self.sketches))


class TickState:
    """Rings, carry and arena of one tick group in one pipeline; groups subclass it and say how to fold."""

    BIN: ClassVar[np.dtype[np.void]]
    CARRY: ClassVar[np.dtype[np.void]]
    MEMORY: ClassVar[np.dtype[np.void]]
    OUT: ClassVar[np.dtype[np.void]]
    SERIES: ClassVar[tuple[Series, ...]] = ()
    # Columns of text: their field of OUT holds an index into these.
    CODES: ClassVar[Mapping[str, Array]] = {}
    merge_kernel: ClassVar[Callable[..., None]]
    finish_kernel: ClassVar[Callable[..., None]]

    def __init__(self, shape: RunShape) -> None:
        self.shape = shape
        self.carry = np.zeros(1, self.CARRY)
        self.empty = np.zeros(1, self.BIN)
        self.bins15 = np.zeros(shape.slots15, self.BIN)
        self.bins60 = np.zeros(shape.slots60, self.BIN)
        self.bins15["t0"] = self.bins60["t0"] = -1
        self._raw15, self._raw60 = as_bytes(self.bins15), as_bytes(self.bins60)
        self.arena = Arena(self.SERIES) if self.SERIES else None
        self._sketched: dict[int, tuple[int, list[Sketch]]] = {}

    def expect(self, rows: int) -> None:
        """Make room for `rows` rows at once, where their number is known beforehand."""
        if self.arena is not None:
            self.arena.reserve(rows, self.shape.slots15)

    def fold(self, segment: Segment) -> None:
        """Add the rows of one stretch of arrival time to their bins and to the sequence state.

        Each data type's rows are in arrival order; a group that reads several types merges them by
        (local_timestamp, RANK) itself.
        """
        raise NotImplementedError

    def traded(self, out: Array) -> Array:
        """Which of the finished candles hold anything; asked of the pipeline's first group only."""
        raise NotImplementedError

    def settle(self, border_us: int) -> None:
        """Fix what the border (a multiple of 15 s) fixes. Called when every row with local_timestamp < border + grace
        was folded; a group without as-of values has nothing to do."""

    def bins(self, step_us: int, t0: int, count: int) -> Array:
        """The `count` consecutive 15 s or 1 m bins from `t0`, copied; one that never saw anything is empty."""
        ring = self._raw15 if step_us == BORDER_US else self._raw60
        first = (t0 // step_us) % len(ring)
        last = first + count
        out = ring[first:last].copy() if last <= len(ring) else ring[(first + np.arange(count)) % len(ring)]
        bins = out.view(self.BIN).reshape(count)
        opens = t0 if count == 1 else t0 + step_us * np.arange(count)
        absent = bins["t0"] != opens
        if absent.any():
            bins[absent] = self.empty[0]
            bins["t0"] = opens
        return bins

    def parent(self) -> Parent:
        """An accumulator before its first child."""
        return Parent(self.empty.copy(), [empty_sketch() for _ in self.SERIES])

    def roll(self, parents: Sequence[Parent], t0: int, count: int) -> None:
        """Fold `count` consecutive 1m bins from `t0` into each of `parents`."""
        bins = self.bins(MINUTE_US, t0, count)
        minutes = self._minute_sketches(self.arena, t0, count) if self.arena is not None else []
        for parent in parents:
            type(self).merge_kernel(parent.bin, bins)
            if self.arena is not None:
                parent.sketches = [
                    self.arena.join([held, *(minute[row] for minute in minutes)])
                    for row, held in enumerate(parent.sketches)
                ]

    def _minute_sketches(self, arena: Arena, t0: int, count: int) -> list[list[Sketch]]:
        """Sketches of `count` minutes from `t0`, per minute and series. Every parent of a minute asks for it, so it is
        kept as long as no value was added."""
        children = self.bins(BORDER_US, t0, count * CHILDREN_15S)
        heads = children["chain_head"].reshape(count, CHILDREN_15S)
        counts = children["chain_count"].reshape(count, CHILDREN_15S)
        out = []
        for minute in range(count):
            key, values = t0 + minute * MINUTE_US, int(counts[minute].sum())
            held = self._sketched.get(key)
            if held is None or held[0] != values:
                held = (values, arena.sketches(heads[minute], counts[minute]))
                self._keep_sketches(key, *held)
            out.append(held[1])
        return out

    def _keep_sketches(self, minute_us: int, values: int, sketches: list[Sketch]) -> None:
        self._sketched[minute_us] = (values, sketches)
        if len(self._sketched) > self.shape.slots60:
            del self._sketched[min(self._sketched)]

    def finish(self, memory: Array, step_us: int, t0: int, bins: Array, out: Array) -> None:
        """Columns of consecutive 15 s or 1 m candles from their bins."""
        type(self).finish_kernel(memory, bins, step_us, out)
        if self.arena is not None:
            chains = step_us // BORDER_US
            children = self.bins(BORDER_US, t0, len(bins) * chains)
            shape = (len(bins), chains)
            heads, counts = children["chain_head"].copy().reshape(shape), children["chain_count"].copy().reshape(shape)
            sketches = self.arena.exact(heads, counts, out, sketched=step_us == MINUTE_US)
            for minute, own in enumerate(sketches):
                self._keep_sketches(t0 + minute * MINUTE_US, int(counts[minute].sum()), own)

    def finish_parents(self, memory: Array, step_us: int, parents: Sequence[Parent], out: Array) -> None:
        """Columns of consecutive candles above 1m from their accumulators."""
        bins = np.concatenate([parent.bin for parent in parents])
        type(self).finish_kernel(memory, bins, step_us, out)
        if self.arena is not None:
            for index, parent in enumerate(parents):
                self.arena.estimate(parent.sketches, out, index)

    def state(self, keep_from_us: int = 0) -> dict[str, Any]:
        """Everything a snapshot needs, without the bins that open before `keep_from_us`."""
        bins15 = self.bins15[self.bins15["t0"] >= keep_from_us]
        out = {"carry": self.carry, "bins15": bins15, "bins60": self.bins60[self.bins60["t0"] >= keep_from_us]}
        return {**out, "arena": self.arena.state(bins15)} if self.arena is not None else out

    def load(self, state: dict[str, Any]) -> None:
        """Put back what `state` gave; bins find their place in rings of another length by their open time."""
        self.carry = state["carry"].copy()
        self._sketched.clear()
        for ring, held, step in ((self.bins15, state["bins15"], BORDER_US), (self.bins60, state["bins60"], MINUTE_US)):
            ring[:] = self.empty[0]
            ring["t0"] = -1
            newest = held[np.argsort(held["t0"], kind="stable")][-len(ring) :]
            if self.arena is not None and step == BORDER_US:
                # Chains are rebuilt in the order they were saved in, then follow their bins into the ring.
                self.arena = Arena(self.SERIES)
                held = held.copy()
                self.arena.load(state["arena"], held)
                newest = held[np.argsort(held["t0"], kind="stable")][-len(ring) :]
            ring[(newest["t0"] // step) % len(ring)] = newest


@dataclass(frozen=True, slots=True)
class TickGroup:
    """Columns computed from ticks: what a module exports as `GROUP`.

    inputs: the data types without which it has nothing to say. open: makes a fresh state for one pipeline.
    """

    name: str
    inputs: tuple[DataType, ...]
    open: Callable[[RunShape], TickState]
    timeframes: tuple[Timeframe, ...] = ALL_TIMEFRAMES

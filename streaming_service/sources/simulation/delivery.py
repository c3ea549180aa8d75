"""Applies a fault script to the clean rows of one stream, exactly and whatever the step it is called in.

Which rows a fault hits is decided by the number of the row in its stream, never by the call that brought it. Rows that
vanish stay in the queue as marked entries until their time, so that at every instant

    delivered = clean - dropped - lost + duplicate + invalid
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Final

import numpy as np
import numpy.typing as npt

from market_data_tick_handler.core.ticks import DataType, TickBatch, concat
from streaming_service.sources.simulation.faults import (
    Delay,
    Disconnected,
    Drop,
    Duplicate,
    Fault,
    Invalid,
    Late,
    Reorder,
    SkewClock,
)
from streaming_service.sources.simulation.settings import SECOND_US

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_DROPPED: Final = 1
_LOST: Final = 2
_DUPLICATE: Final = 4
_INVALID: Final = 8
_LATE: Final = 16
_DELAYED: Final = 32
_REORDERED: Final = 64
_SKEWED: Final = 128
_GONE: Final = _DROPPED | _LOST
_COPY: Final = _DUPLICATE | _INVALID


@dataclass(slots=True)
class FaultCounts:
    """What the faults did to one stream, up to the last row released. Copies count as duplicate or invalid only."""

    clean: int = 0
    delivered: int = 0
    dropped: int = 0
    lost: int = 0
    duplicate: int = 0
    invalid: int = 0
    late: int = 0
    delayed: int = 0
    reordered: int = 0
    skewed: int = 0

    def add(self, tags: npt.NDArray[np.uint8]) -> None:
        """Count released entries."""
        original = (tags & _COPY) == 0
        arrived = (tags & _GONE) == 0
        self.clean += int(original.sum())
        self.delivered += int(arrived.sum())
        self.dropped += int(((tags & _DROPPED) != 0).sum())
        self.lost += int(((tags & _GONE) == _LOST).sum())
        self.duplicate += int(((tags & _DUPLICATE) != 0).sum())
        self.invalid += int(((tags & _INVALID) != 0).sum())
        kept = tags[original & arrived]
        for name, bit in (("late", _LATE), ("delayed", _DELAYED), ("reordered", _REORDERED), ("skewed", _SKEWED)):
            setattr(self, name, getattr(self, name) + int(((kept & bit) != 0).sum()))

    def __add__(self, other: FaultCounts) -> FaultCounts:
        return FaultCounts(*(getattr(self, item.name) + getattr(other, item.name) for item in fields(self)))


@dataclass(slots=True)
class _Entries:
    """Rows on their way: when each is due, its number in the clean stream, and what happened to it."""

    batch: TickBatch
    due: Ints
    number: Ints
    tags: npt.NDArray[np.uint8]

    def take(self, rows: npt.NDArray[np.generic]) -> _Entries:
        return _Entries(self.batch.take(rows), self.due[rows], self.number[rows], self.tags[rows])


@dataclass(slots=True)
class Delivery:
    """The way of one stream from the exchange to us. Give it clean rows with `offer`, take what arrives with `release`.

    faults: those that apply to this stream. salt: makes equal faults hit different rows on different streams.
    """

    data_type: DataType
    faults: Sequence[Fault]
    start_us: int
    salt: str
    counts: FaultCounts = field(default_factory=FaultCounts)
    _waiting: list[_Entries] = field(default_factory=list)
    _offered: int = 0
    _moments: dict[int, list[int]] = field(default_factory=dict)

    @property
    def pending(self) -> int:
        """Entries offered and not yet due, copies included."""
        return sum(len(entries.due) for entries in self._waiting)

    def offer(self, batch: TickBatch) -> None:
        """Clean rows in arrival order."""
        number = self._offered + np.arange(len(batch), dtype=np.int64)
        self._offered += len(batch)
        local = batch["local_timestamp"]
        entries = _Entries(batch, local.copy(), number, np.zeros(len(batch), dtype=np.uint8))
        picks = [self._pick(index, local, number) for index in range(len(self.faults))]
        scripted = list(enumerate(zip(self.faults, picks, strict=True)))
        for index, (fault, hit) in scripted:
            match fault:
                case Drop():
                    entries.tags[hit] |= _DROPPED
                case SkewClock():
                    _skew(entries, hit, fault)
                case Delay() | Late() | Reorder():
                    self._hold_up(index, entries, hit, fault)
        if self.faults:
            _set_arrival(entries, local)
        entries.tags[self._in_outage(entries.due)] |= _LOST
        self._waiting.append(entries)
        for _, (fault, hit) in scripted:
            if isinstance(fault, Duplicate | Invalid):
                self._copy(entries, hit, fault)

    def release(self, until_us: int) -> TickBatch | None:
        """Rows due before `until_us`, in arrival order, None if there is none. Clean rows that old must be offered."""
        if not self._waiting:
            return None
        entries = self._waiting[0]
        if len(self._waiting) > 1:
            entries = _Entries(
                concat([each.batch for each in self._waiting]),
                np.concatenate([each.due for each in self._waiting]),
                np.concatenate([each.number for each in self._waiting]),
                np.concatenate([each.tags for each in self._waiting]),
            )
        if not self.faults and entries.due[-1] < until_us:
            self._waiting = []
            self.counts.add(entries.tags)
            return entries.batch
        ready = entries.due < until_us
        rest = entries.take(~ready)
        self._waiting = [rest] if len(rest.due) else []
        out = entries.take(ready)
        self.counts.add(out.tags)
        arrived = np.flatnonzero((out.tags & _GONE) == 0)
        order = arrived[np.lexsort((out.tags[arrived] & _COPY, out.number[arrived], out.due[arrived]))]
        return out.batch.take(order) if len(order) else None

    def _pick(self, index: int, local: Ints, number: Ints) -> Bools:
        fault = self.faults[index]
        if isinstance(fault, Disconnected):
            return np.zeros(len(local), dtype=np.bool_)
        if isinstance(fault, Duplicate | Invalid) and fault.at_s:
            return self._first_from(index, fault.at_s, local)
        seconds = (local - self.start_us) / SECOND_US
        hit: Bools = (seconds >= fault.from_s) & (seconds < fault.to_s)
        if not isinstance(fault, SkewClock | Delay) and fault.rate < 1.0:
            hit &= self._chance(f"pick {index}", number) < fault.rate
        return hit

    def _first_from(self, index: int, at_s: Sequence[float], local: Ints) -> Bools:
        moments = self._moments.setdefault(index, sorted(self.start_us + round(at * SECOND_US) for at in at_s))
        rows = np.searchsorted(local, np.array(moments, dtype=np.int64), side="left")
        self._moments[index] = [moment for moment, row in zip(moments, rows, strict=True) if row == len(local)]
        hit = np.zeros(len(local), dtype=np.bool_)
        hit[rows[rows < len(local)]] = True
        return hit

    def _hold_up(self, index: int, entries: _Entries, hit: Bools, fault: Delay | Late | Reorder) -> None:
        rows = np.flatnonzero(hit)
        match fault:
            case Delay():
                seconds, tag = np.full(len(rows), fault.delay_s), _DELAYED
            case Late():
                seconds, tag = fault.up_to_s * self._chance(f"late {index}", entries.number[rows]), _LATE
            case Reorder():
                seconds, tag = fault.within_s * self._chance(f"order {index}", entries.number[rows]), _REORDERED
        entries.due[rows] += np.ceil(seconds * SECOND_US).astype(np.int64)
        entries.tags[rows] |= tag

    def _in_outage(self, due: Ints) -> Bools:
        lost = np.zeros(len(due), dtype=np.bool_)
        for fault in self.faults:
            if isinstance(fault, Disconnected):
                at_us = self.start_us + round(fault.at_s * SECOND_US)
                lost |= (due >= at_us) & (due < at_us + round(fault.for_s * SECOND_US))
        return lost

    def _copy(self, entries: _Entries, hit: Bools, fault: Duplicate | Invalid) -> None:
        after_us = round(fault.after_s * SECOND_US) if isinstance(fault, Duplicate) else 0
        # A copy comes only behind a row that came, so that every copy of a good row is a duplicate for who receives it.
        wanted = hit & ((entries.tags & _GONE) == 0) & ~self._in_outage(entries.due + after_us)
        copies = entries.take(np.flatnonzero(wanted))
        copies.due = copies.due + after_us
        copies.batch = copies.batch.with_column("local_timestamp", copies.batch["local_timestamp"] + after_us)
        if isinstance(fault, Duplicate):
            copies.tags = np.full(len(copies.due), _DUPLICATE, dtype=np.uint8)
        else:
            copies.tags = np.full(len(copies.due), _INVALID, dtype=np.uint8)
            copies.batch = _broken(copies.batch, copies.number, fault.defects)
        if len(copies.due):
            self._waiting.append(copies)

    def _chance(self, purpose: str, number: Ints) -> npt.NDArray[np.float64]:
        """A number in (0, 1) for each row number: splitmix64 (Steele, Lea, Flood 2014), the same in every run."""
        state = number.astype(np.uint64) + np.uint64(zlib.crc32(f"{self.salt} {purpose}".encode()) << 32)
        state = (state + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = state ^ (state >> np.uint64(31))
        chance: npt.NDArray[np.float64] = ((state >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53
        return chance


def _skew(entries: _Entries, hit: Bools, fault: SkewClock) -> None:
    offset = round(fault.offset_s * SECOND_US)
    shifted = entries.batch[fault.which] + np.where(hit, offset, 0)
    entries.batch = entries.batch.with_column(fault.which, shifted)
    entries.tags[hit] |= _SKEWED


def _set_arrival(entries: _Entries, clean_local: Ints) -> None:
    stamped = entries.batch["local_timestamp"] + (entries.due - clean_local)
    entries.batch = entries.batch.with_column("local_timestamp", stamped)


def _broken(batch: TickBatch, number: Ints, defects: Sequence[str]) -> TickBatch:
    turn = number % len(defects)
    price, amount = batch["price"].copy(), batch["amount"].copy()
    timestamp = batch["timestamp"].copy()
    for index, defect in enumerate(defects):
        rows = turn == index
        match defect:
            case "negative_price":
                price[rows] *= -1.0
            case "nan_price":
                price[rows] = np.nan
            case "zero_amount":
                amount[rows] = 0.0
            case "nan_amount":
                amount[rows] = np.nan
            case "ancient_timestamp":
                timestamp[rows] = 0
    return TickBatch(batch.data_type, {**batch.columns, "price": price, "amount": amount, "timestamp": timestamp})

"""The latest row of every option of a chain, as it takes effect: a hash table that grows between kernel calls.

Theory of operation. Each option has an e-clock of its own, e = max(e, timestamp, local_timestamp - grace). The table
holds the rows with e before the next 15 s border; a row that takes effect later waits in `pending` in order of arrival.
The kernel stops at the first row that arrived at border + grace or later: by then the table is the state at the border,
whatever the chunks were. It also stops where it has no room, and its caller makes some.

An option that was silent for longer than a row may be used, or is about to expire, is removed: nothing that may still
arrive depends on it.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit

from market_data_tick_handler.core.continuity import ACCEPTED
from market_data_tick_handler.core.features.contract import record
from market_data_tick_handler.core.ticks import Array, TickBatch
from market_data_tick_handler.core.timeframes import BORDER_US

# clock_us: e of the last row, which may still be pending; e_us: e of the row held, NEVER_US before the first.
ROW: Final = record(
    "i8",
    "symbol_hash clock_us e_us arrival option_type expiration",
    "f8",
    "strike underlying mark_iv bid_iv ask_iv delta gamma vega open_interest",
)
# border_us: the next border, 0 before the first row. stamped_us: the last border whose state was stamped into a bin.
CARRY: Final = record("i8", "border_us stamped_us options pending arrivals")
NOT_YET_US: Final = np.iinfo(np.int64).min
_FIRST_ROOM: Final = 256
_FREE: Final = -1


@njit(cache=True, nogil=True)
def _find(slots: Array, table: Array, key: int) -> int:
    """The slot of the option `key`, or the free slot where it belongs."""
    mask = slots.shape[0] - 1
    at = key & mask
    while slots[at] != _FREE and table[slots[at]].symbol_hash != key:
        at = (at + 1) & mask
    return at


@njit(cache=True, nogil=True)
def _index(slots: Array, table: Array, options: int) -> None:
    """Enter the first `options` rows of `table` into the empty `slots`."""
    for row in range(options):
        slots[_find(slots, table, table[row].symbol_hash)] = row


@njit(cache=True, nogil=True)
def _fold(
    ts: Array, lt: Array, code: Array, symbol: Array, kind: Array, expiration: Array, strike: Array, underlying: Array,
    mark_iv: Array, bid_iv: Array, ask_iv: Array, delta: Array, gamma: Array, vega: Array, open_interest: Array,
    start: int, carry: Array, slots: Array, table: Array, pending: Array, grace_us: int,
) -> int:  # fmt: skip
    """Take rows from `start` on; the index of the first row that needs the border passed or more room."""
    c = carry[0]
    mask = slots.shape[0] - 1
    for j in range(start, ts.shape[0]):
        if code[j] != ACCEPTED:
            continue
        if c.border_us == 0:
            first = lt[j] - grace_us
            c.border_us = first - first % BORDER_US + BORDER_US
        if lt[j] >= c.border_us + grace_us or c.pending == pending.shape[0]:
            return j
        key = symbol[j]
        at = key & mask
        while slots[at] != _FREE and table[slots[at]].symbol_hash != key:
            at = (at + 1) & mask
        if slots[at] == _FREE:
            if c.options == table.shape[0]:
                return j
            slots[at] = c.options
            fresh = table[c.options]
            fresh.symbol_hash = key
            fresh.clock_us = NOT_YET_US
            fresh.e_us = NOT_YET_US
            c.options += 1
        held = table[slots[at]]
        e = max(held.clock_us, ts[j], lt[j] - grace_us)
        held.clock_us = e
        if e < c.border_us:
            target = held
        else:
            target = pending[c.pending]
            target.symbol_hash = key
            target.clock_us = e
            c.pending += 1
        target.e_us = e
        target.arrival = c.arrivals
        target.option_type = kind[j]
        target.expiration = expiration[j]
        target.strike = strike[j]
        target.underlying = underlying[j]
        target.mark_iv = mark_iv[j]
        target.bid_iv = bid_iv[j]
        target.ask_iv = ask_iv[j]
        target.delta = delta[j]
        target.gamma = gamma[j]
        target.vega = vega[j]
        target.open_interest = open_interest[j]
        c.arrivals += 1
    return ts.shape[0]


@njit(cache=True, nogil=True)
def _turn(carry: Array, slots: Array, table: Array, pending: Array) -> None:
    """Pass to the next border: what takes effect before it enters the table."""
    c = carry[0]
    c.border_us += BORDER_US
    kept = 0
    for k in range(c.pending):
        if pending[k].e_us < c.border_us:
            row = slots[_find(slots, table, pending[k].symbol_hash)]
            clock = table[row].clock_us
            table[row] = pending[k]
            table[row].clock_us = clock
        else:
            if kept < k:
                pending[kept] = pending[k]
            kept += 1
    c.pending = kept


class OptionTable:
    """Rows of one chain. `carry` (shape (1,), CARRY) is the caller's, so that it is saved with the rest."""

    __slots__ = ("_pending", "_slots", "_table")

    def __init__(self) -> None:
        self._table = np.zeros(_FIRST_ROOM, ROW)
        self._pending = np.zeros(_FIRST_ROOM, ROW)
        self._slots = np.full(4 * _FIRST_ROOM, _FREE, np.int64)

    def fold(self, rows: TickBatch, code: Array, start: int, carry: Array, grace_us: int) -> int:
        """Take rows from `start` on; the index of the first row that arrived after the border's grace, or the end."""
        while True:
            start = _fold(
                rows["timestamp"], rows["local_timestamp"], code, rows["symbol_hash"], rows["option_type"],
                rows["expiration"], rows["strike_price"], rows["underlying_price"], rows["mark_iv"], rows["bid_iv"],
                rows["ask_iv"], rows["delta"], rows["gamma"], rows["vega"], rows["open_interest"], start, carry,
                self._slots, self._table, self._pending, grace_us,
            )  # fmt: skip
            if start == len(rows) or rows["local_timestamp"][start] >= carry["border_us"][0] + grace_us:
                return start
            self._grow(carry[0])

    def turn(self, carry: Array) -> None:
        """Pass to the next border."""
        _turn(carry, self._slots, self._table, self._pending)

    def rows(self, carry: Array) -> Array:
        """The options known, as views, in no particular order."""
        return self._table[: int(carry["options"][0])]

    def forget(self, carry: Array, *, silent_since_us: int, expiring_by_us: int) -> None:
        """Remove the options whose last row is older than `silent_since_us` or that expire before `expiring_by_us`,
        unless a row of theirs is pending."""
        held = self.rows(carry)
        over = (held["clock_us"] < silent_since_us) | (held["expiration"] < expiring_by_us)
        over &= held["clock_us"] < carry["border_us"][0]
        if over.any():
            self._replace(carry, held[~over])

    def state(self, carry: Array) -> dict[str, Any]:
        """Everything a snapshot needs beside the carry."""
        return {"options": self.rows(carry), "pending": self._pending[: int(carry["pending"][0])]}

    def load(self, state: dict[str, Any], carry: Array) -> None:
        """Put back what `state` gave."""
        self._pending = np.zeros(max(_FIRST_ROOM, len(state["pending"])), ROW)
        self._pending[: len(state["pending"])] = state["pending"]
        self._replace(carry, state["options"])

    def _grow(self, carry: Any) -> None:
        if carry["pending"] == len(self._pending):
            self._pending = np.concatenate([self._pending, np.zeros_like(self._pending)])
        if carry["options"] == len(self._table):
            self._table = np.concatenate([self._table, np.zeros_like(self._table)])
            self._rebuild(int(carry["options"]))

    def _replace(self, carry: Array, rows: Array) -> None:
        while len(self._table) < len(rows):
            self._table = np.concatenate([self._table, np.zeros_like(self._table)])
        self._table[: len(rows)] = rows
        carry["options"] = len(rows)
        self._rebuild(len(rows))

    def _rebuild(self, options: int) -> None:
        self._slots = np.full(4 * len(self._table), _FREE, np.int64)
        _index(self._slots, self._table, options)

"""The accumulator of group `book`: its layout, how two bins are merged, and how columns are read off."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit

from market_data_tick_handler.core.features.bins import ratio
from market_data_tick_handler.core.features.book_levels import LEVELS, MEASURES, SNAPSHOT_COLUMNS, describe
from market_data_tick_handler.core.features.contract import record
from market_data_tick_handler.core.ticks import BOOK_LEVELS, Array

# Every field is 8 bytes wide, so that a bin is also a row of a float matrix and blocks of it can be walked by index.
_COUNTS: Final = (
    "updates", "invalid", "crossed", "locked", "bid_changes", "ask_changes", "mid_changes", "usable", "valid_us",
    "covered_us",
)  # fmt: skip
# held: 1 if the levels are those of a valid snapshot held at the bin's end. age_us: of the last snapshot at that time.
BIN: Final = record(
    "i8", f"t0 {' '.join(_COUNTS)} held age_us",
    "f8", "depth_sum spread_least spread_most mid_open mid_high mid_low",
    "f8", " ".join(f"{name}_dt" for name in MEASURES),
    "f8", " ".join(f"flow_{level}" for level in range(1, BOOK_LEVELS + 1)),
    "f8", " ".join(LEVELS),
)  # fmt: skip
OUT: Final = record(
    "f8", " ".join(SNAPSHOT_COLUMNS),
    "f8", " ".join(f"{name}_tw" for name in MEASURES),
    "f8", " ".join(f"ofi_{level}" for level in range(1, BOOK_LEVELS + 1)),
    "f8", " ".join(f"ofi_norm_{level}" for level in range(1, BOOK_LEVELS + 1)),
    "f8", "spread_bps_min spread_bps_max mid_open mid_high mid_low mid_return ofi_total ofi_integrated "
    "book_valid_ratio book_age_ms",
    "i8", "book_update_count book_invalid_count crossed_count locked_count bid_price_change_count "
    "ask_price_change_count mid_change_count",
)  # fmt: skip
NAN: Final = np.nan
_FIELDS: Final = list(BIN.names or ())
_OUT_FIELDS: Final = list(OUT.names or ())
_FLOATS: Final = _OUT_FIELDS.index("book_update_count")
_WIDTH: Final = len(LEVELS)
_MEASURED: Final = len(MEASURES)
# Where the blocks begin in a bin and in an output row.
COUNTS_AT: Final = _FIELDS.index(_COUNTS[0])
INTEGRALS_AT: Final = _FIELDS.index(f"{MEASURES[0]}_dt")
FLOWS_AT: Final = _FIELDS.index("flow_1")
LEVELS_AT: Final = _FIELDS.index(LEVELS[0])
_AVERAGES_AT: Final = _OUT_FIELDS.index(f"{MEASURES[0]}_tw")
_OFI_AT: Final = _OUT_FIELDS.index("ofi_1")
_OFI_NORM_AT: Final = _OUT_FIELDS.index("ofi_norm_1")
_OFI_WEIGHT: Final = 1.0 / BOOK_LEVELS


def empty_bin() -> Array:
    """A bin that nothing has entered."""
    out = np.zeros(1, BIN)
    out["age_us"] = -1
    out["spread_least"] = out["mid_low"] = np.inf
    out["spread_most"] = out["mid_high"] = -np.inf
    out["mid_open"] = NAN
    return out


def floats(records: Array) -> Array:
    """The same contiguous records as rows of a float matrix; integer fields are not to be read from it."""
    return records.view(np.float64).reshape(len(records), records.dtype.itemsize // 8)


def integers(records: Array) -> Array:
    """The same contiguous records as rows of an integer matrix; float fields are not to be read from it."""
    return records.view(np.int64).reshape(len(records), records.dtype.itemsize // 8)


@njit(cache=True, nogil=True)
def see(b: Any, mid: float, spread_bps: float) -> None:
    """Take a state held or received into the extremes."""
    if np.isnan(b.mid_open):
        b.mid_open = mid
    b.mid_high = max(b.mid_high, mid)
    b.mid_low = min(b.mid_low, mid)
    b.spread_least = min(b.spread_least, spread_bps)
    b.spread_most = max(b.spread_most, spread_bps)


@njit(cache=True, nogil=True)
def _merge(acc: Array, acc_f: Array, acc_i: Array, children: Array, values: Array, counts: Array) -> None:
    a = acc[0]
    for k in range(children.shape[0]):
        c = children[k]
        for i in range(COUNTS_AT, COUNTS_AT + len(_COUNTS)):
            acc_i[0, i] += counts[k, i]
        a.held = c.held
        a.age_us = c.age_us
        a.depth_sum += c.depth_sum
        a.spread_least = min(a.spread_least, c.spread_least)
        a.spread_most = max(a.spread_most, c.spread_most)
        if np.isnan(a.mid_open):
            a.mid_open = c.mid_open
        a.mid_high = max(a.mid_high, c.mid_high)
        a.mid_low = min(a.mid_low, c.mid_low)
        for i in range(INTEGRALS_AT, LEVELS_AT):
            acc_f[0, i] += values[k, i]
        for i in range(LEVELS_AT, LEVELS_AT + _WIDTH):
            acc_f[0, i] = values[k, i]


def merge(acc: Array, children: Array) -> None:
    """Left fold of `children` (oldest first) into `acc[0]`."""
    _merge(acc, floats(acc), integers(acc), children, floats(children), integers(children))


@njit(cache=True, nogil=True)
def _finish_flow(b: Any, bins_f: Array, i: int, o: Any, values: Array) -> None:
    total = 0.0
    integrated = 0.0
    # Mean amount per level of the bin's usable snapshots.
    scale = b.depth_sum / b.usable / (2.0 * BOOK_LEVELS) if b.usable > 0 else NAN
    for k in range(BOOK_LEVELS):
        flow = bins_f[i, FLOWS_AT + k]
        values[i, _OFI_AT + k] = flow
        values[i, _OFI_NORM_AT + k] = flow / scale
        total += flow
        integrated += _OFI_WEIGHT * (flow / scale)
    o.ofi_total = total
    o.ofi_integrated = integrated


@njit(cache=True, nogil=True)
def _finish_extremes(b: Any, o: Any) -> None:
    if b.mid_high < b.mid_low:
        return
    o.spread_bps_min = b.spread_least
    o.spread_bps_max = b.spread_most
    o.mid_open = b.mid_open
    o.mid_high = b.mid_high
    o.mid_low = b.mid_low
    if b.held == 1:
        o.mid_return = (o.mid_price - b.mid_open) / b.mid_open


@njit(cache=True, nogil=True)
def _finish(bins: Array, bins_f: Array, parameters: Array, table: Array, out: Array, values: Array) -> None:
    for i in range(bins.shape[0]):
        b = bins[i]
        o = out[i]
        for k in range(_FLOATS):
            values[i, k] = NAN
        if b.held == 1:
            describe(bins_f, i, LEVELS_AT, parameters[0], table, o, values, i)
        if b.valid_us > 0:
            for k in range(_MEASURED):
                values[i, _AVERAGES_AT + k] = bins_f[i, INTEGRALS_AT + k] / b.valid_us
        _finish_extremes(b, o)
        _finish_flow(b, bins_f, i, o, values)
        o.book_valid_ratio = ratio(float(b.valid_us), float(b.covered_us))
        o.book_age_ms = b.age_us / 1000.0 if b.age_us >= 0 else NAN
        o.book_update_count = b.updates
        o.book_invalid_count = b.invalid
        o.crossed_count = b.crossed
        o.locked_count = b.locked
        o.bid_price_change_count = b.bid_changes
        o.ask_price_change_count = b.ask_changes
        o.mid_change_count = b.mid_changes
        # Amounts near the largest float overflow; a column is a number or null.
        for k in range(_FLOATS):
            if np.isinf(values[i, k]):
                values[i, k] = NAN


def finish(bins: Array, parameters: Array, table: Array, out: Array) -> None:
    """Columns of consecutive candles from their bins."""
    _finish(bins, floats(bins), parameters, table, out, floats(out))

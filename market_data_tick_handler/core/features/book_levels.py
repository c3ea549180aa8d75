"""What one five-level snapshot says: the formulas of every column that needs no other snapshot (features.md 9.6).

A snapshot is a row of a matrix, `LEVELS` columns wide, best level first. `read_levels` copies it with each side cut at
its first bad level; what is missing becomes price -inf (bid) or +inf (ask) with amount 0, so that sums, distances and
order-flow terms need no case distinction. `measure` gives what folds need of every snapshot, `describe` all columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numba import njit

from market_data_tick_handler.core.features.book_microprice import MicropriceTable, adjustment, table_array
from market_data_tick_handler.core.features.book_state import is_level, valid_mid
from market_data_tick_handler.core.features.contract import record
from market_data_tick_handler.core.ticks import BOOK_LEVELS, Array, TickBatch

LEVELS: Final = tuple(
    f"{side}_{what}_{level}"
    for level in range(1, BOOK_LEVELS + 1)
    for side in ("bid", "ask")
    for what in ("price", "volume")
)
# Results of `measure`, in its order; also the columns that are averaged over time.
MEASURES: Final = (
    "mid_price", "spread", "spread_bps", "microprice", "queue_imbalance", "depth_imbalance_5", "bid_depth_5",
    "ask_depth_5", "book_pressure_5",
)  # fmt: skip
# Float columns that follow from one snapshot; the levels come first, so that they can be copied as a block.
SNAPSHOT_COLUMNS: Final = (
    *LEVELS,
    *(f"level_imbalance_{level}" for level in range(1, BOOK_LEVELS + 1)),
    *MEASURES,
    *(f"depth_imbalance_{level}" for level in range(2, BOOK_LEVELS)),
    "microprice_dev_bps", "total_depth_5", "bid_notional_5", "ask_notional_5", "depth_ratio_log_5", "bid_vwap_5",
    "ask_vwap_5", "vwap_spread_bps_5", "weighted_depth_price_5", "vamp_5", "vamp_dev_bps_5", "bid_slope_5",
    "ask_slope_5", "slope_imbalance_5", "bid_gap_mean_bps", "bid_gap_max_bps", "bid_depth_share_1",
    "bid_depth_entropy_5", "ask_gap_mean_bps", "ask_gap_max_bps", "ask_depth_share_1", "ask_depth_entropy_5",
    "impact_buy_bps", "impact_sell_bps", "bid_levels", "ask_levels", "microprice_stoikov",
)  # fmt: skip
SNAPSHOT: Final = record("f8", " ".join(SNAPSHOT_COLUMNS))
PARAMETERS: Final = record("f8", "impact_notional multiplier tick_size", "i8", "inverse")

_NAN: Final = np.nan
_N: Final = BOOK_LEVELS
_WIDTH: Final = 4 * BOOK_LEVELS
_IMBALANCES: Final = _WIDTH
# Offsets of a side inside a level's four numbers.
BID: Final = 0
ASK: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class BookParameters:
    """What the formulas need besides the snapshot. impact_notional: quote amount to walk the book for, None gives null.
    inverse, multiplier: contract units. microprice_table: calibrated adjustments, None gives null."""

    impact_notional: float | None = None
    inverse: bool = False
    multiplier: float = 1.0
    microprice_table: MicropriceTable | None = None

    def arrays(self) -> tuple[Array, Array]:
        """The parameters as kernels take them: one record, and the table of adjustments."""
        out = np.zeros(1, PARAMETERS)
        out["impact_notional"] = self.impact_notional if self.impact_notional is not None else _NAN
        out["multiplier"], out["inverse"] = self.multiplier, self.inverse
        out["tick_size"] = self.microprice_table.tick_size if self.microprice_table is not None else _NAN
        return out, table_array(self.microprice_table)


def book_matrix(rows: TickBatch, start: int, stop: int) -> Array:
    """Rows [start, stop) of a batch of snapshots as a matrix, one snapshot per row, columns in the order of LEVELS."""
    out = np.empty((stop - start, _WIDTH))
    for index, name in enumerate(LEVELS):
        out[:, index] = rows[name][start:stop]
    return out


@njit(cache=True, nogil=True)
def read_levels(book: Array, j: int, out: Array, i: int) -> tuple[int, int]:
    """Copy snapshot `j` of `book` to row `i` of `out`, each side cut at its first bad level; return the levels left."""
    bids = 0
    while bids < _N and is_level(book[j, 4 * bids], book[j, 4 * bids + 1]):
        bids += 1
    asks = 0
    while asks < _N and is_level(book[j, 4 * asks + 2], book[j, 4 * asks + 3]):
        asks += 1
    for k in range(_N):
        out[i, 4 * k] = book[j, 4 * k] if k < bids else -np.inf
        out[i, 4 * k + 1] = book[j, 4 * k + 1] if k < bids else 0.0
        out[i, 4 * k + 2] = book[j, 4 * k + 2] if k < asks else np.inf
        out[i, 4 * k + 3] = book[j, 4 * k + 3] if k < asks else 0.0
    return bids, asks


@njit(cache=True, nogil=True, error_model="numpy")
def distance_bps(price: float, reference: float, mid: float) -> float:
    """Distance of two prices in basis points of the mid."""
    return abs(reference - price) / mid * 1e4


@njit(cache=True, nogil=True, error_model="numpy")
def imbalance(bid: float, ask: float) -> float:
    """Share of the bid above that of the ask, in [-1, 1]."""
    return (bid - ask) / (bid + ask)


@njit(cache=True, nogil=True, error_model="numpy")
def measure(
    m: Array, i: int, at: int, mid: float
) -> tuple[float, float, float, float, float, float, float, float, float]:
    """MEASURES of the valid snapshot whose levels begin at m[i, at]."""
    bid, bid_amount, ask, ask_amount = m[i, at], m[i, at + 1], m[i, at + 2], m[i, at + 3]
    spread = ask - bid
    microprice = (bid * ask_amount + ask * bid_amount) / (bid_amount + ask_amount)
    bid_depth = 0.0
    ask_depth = 0.0
    bid_weight = 0.0
    ask_weight = 0.0
    for k in range(at, at + _WIDTH, 4):
        bid_depth += m[i, k + 1]
        ask_depth += m[i, k + 3]
        bid_weight += m[i, k + 1] / distance_bps(m[i, k], mid, mid)
        ask_weight += m[i, k + 3] / distance_bps(m[i, k + 2], mid, mid)
    return (
        mid,
        spread,
        1e4 * spread / mid,
        microprice,
        imbalance(bid_amount, ask_amount),
        imbalance(bid_depth, ask_depth),
        bid_depth,
        ask_depth,
        imbalance(bid_weight, ask_weight),
    )


@njit(cache=True, nogil=True, error_model="numpy")
def _side(m: Array, i: int, at: int, mid: float, unit: Any) -> tuple[int, float, float, float, float]:
    """Of the side whose levels begin at m[i, at]: levels, notional, base amount, Σ price·amount, slope."""
    levels = 0
    notional = 0.0
    base = 0.0
    weighted = 0.0
    cumulative = 0.0
    xy = 0.0
    xx = 0.0
    for k in range(at, at + _WIDTH, 4):
        price, amount = m[i, k], m[i, k + 1]
        if amount == 0.0:
            break
        levels += 1
        units = amount * unit.multiplier
        notional += units if unit.inverse else price * units
        base += units / price if unit.inverse else units
        weighted += price * amount
        cumulative += amount
        x = distance_bps(price, mid, mid)
        xy += x * cumulative
        xx += x * x
    return levels, notional, base, weighted, xy / xx


@njit(cache=True, nogil=True, error_model="numpy")
def _gaps(m: Array, i: int, at: int, levels: int, mid: float) -> tuple[float, float]:
    """Mean and largest distance of adjacent levels in basis points."""
    total = 0.0
    largest = 0.0
    for k in range(at + 4, at + 4 * levels, 4):
        gap = distance_bps(m[i, k], m[i, k - 4], mid)
        total += gap
        largest = max(largest, gap)
    return (total / (levels - 1), largest) if levels > 1 else (_NAN, _NAN)


@njit(cache=True, nogil=True, error_model="numpy")
def _entropy(m: Array, i: int, at: int, levels: int, depth: float) -> float:
    """Shannon entropy of the amounts, 1 = spread evenly over the levels there are."""
    if levels < 2:
        return _NAN
    total = 0.0
    for k in range(at + 1, at + 1 + 4 * levels, 4):
        w = m[i, k] / depth
        total += w * math.log(w) if w > 0.0 else 0.0
    return -total / math.log(float(levels))


@njit(cache=True, nogil=True, error_model="numpy")
def _walk(m: Array, i: int, at: int, levels: int, unit: Any) -> float:
    """Average price of a market order for unit.impact_notional, NaN where the levels hold less than that."""
    left = unit.impact_notional
    base = 0.0
    for k in range(at, at + 4 * levels, 4):
        price, units = m[i, k], m[i, k + 1] * unit.multiplier
        held = units if unit.inverse else price * units
        if held >= left:
            return float(unit.impact_notional / (base + left / price))
        left -= held
        base += units / price if unit.inverse else units
    return _NAN


@njit(cache=True, nogil=True, error_model="numpy")
def _vamp(m: Array, i: int, at: int, levels: int) -> float:
    """Mid of the first `levels` levels of both sides, each price weighted by the amount opposite."""
    value = 0.0
    amount = 0.0
    for k in range(at, at + 4 * levels, 4):
        value += m[i, k] * m[i, k + 3] + m[i, k + 2] * m[i, k + 1]
        amount += m[i, k + 1] + m[i, k + 3]
    return value / amount


@njit(cache=True, nogil=True, error_model="numpy")
def _describe_levels(m: Array, i: int, at: int, values: Array, row: int) -> tuple[float, float, float]:
    """The levels and their imbalances, to the front of values[row]; depth imbalances over 2, 3 and 4 levels."""
    for k in range(0, _WIDTH, 2):
        if m[i, at + k + 1] > 0.0:
            values[row, k] = m[i, at + k]
            values[row, k + 1] = m[i, at + k + 1]
    for k in range(_N):
        bid, ask = m[i, at + 4 * k + 1], m[i, at + 4 * k + 3]
        if bid > 0.0 and ask > 0.0:
            values[row, _IMBALANCES + k] = imbalance(bid, ask)
    bid = m[i, at + 1] + m[i, at + 5]
    ask = m[i, at + 3] + m[i, at + 7]
    two = imbalance(bid, ask)
    bid += m[i, at + 9]
    ask += m[i, at + 11]
    three = imbalance(bid, ask)
    return two, three, imbalance(bid + m[i, at + 13], ask + m[i, at + 15])


@njit(cache=True, nogil=True, error_model="numpy")
def describe(m: Array, i: int, at: int, unit: Any, table: Array, o: Any, values: Array, row: int) -> None:
    """Fill the record `o` (a row that begins with SNAPSHOT_COLUMNS, all NaN so far; values[row] are its floats) from
    the snapshot whose levels begin at m[i, at]. An invalid snapshot leaves it as it is."""
    mid = valid_mid(m[i, at], m[i, at + 1], m[i, at + 2], m[i, at + 3])
    if np.isnan(mid):
        return
    (
        o.mid_price, o.spread, o.spread_bps, o.microprice, o.queue_imbalance, o.depth_imbalance_5, o.bid_depth_5,
        o.ask_depth_5, o.book_pressure_5,
    ) = measure(m, i, at, mid)  # fmt: skip
    o.depth_imbalance_2, o.depth_imbalance_3, o.depth_imbalance_4 = _describe_levels(m, i, at, values, row)
    bids, o.bid_notional_5, bid_base, bid_weighted, o.bid_slope_5 = _side(m, i, at + BID, mid, unit)
    asks, o.ask_notional_5, ask_base, ask_weighted, o.ask_slope_5 = _side(m, i, at + ASK, mid, unit)
    o.bid_levels = bids
    o.ask_levels = asks
    o.microprice_dev_bps = 1e4 * (o.microprice - mid) / mid
    o.total_depth_5 = o.bid_depth_5 + o.ask_depth_5
    o.depth_ratio_log_5 = math.log(o.bid_depth_5 / o.ask_depth_5)
    o.bid_vwap_5 = o.bid_notional_5 / bid_base
    o.ask_vwap_5 = o.ask_notional_5 / ask_base
    o.vwap_spread_bps_5 = 1e4 * (o.ask_vwap_5 - o.bid_vwap_5) / mid
    o.weighted_depth_price_5 = (bid_weighted + ask_weighted) / o.total_depth_5
    o.vamp_5 = _vamp(m, i, at, min(bids, asks))
    o.vamp_dev_bps_5 = 1e4 * (o.vamp_5 - mid) / mid
    o.slope_imbalance_5 = imbalance(o.bid_slope_5, o.ask_slope_5)
    o.bid_gap_mean_bps, o.bid_gap_max_bps = _gaps(m, i, at + BID, bids, mid)
    o.ask_gap_mean_bps, o.ask_gap_max_bps = _gaps(m, i, at + ASK, asks, mid)
    o.bid_depth_share_1 = m[i, at + 1] / o.bid_depth_5
    o.ask_depth_share_1 = m[i, at + 3] / o.ask_depth_5
    o.bid_depth_entropy_5 = _entropy(m, i, at + BID, bids, o.bid_depth_5)
    o.ask_depth_entropy_5 = _entropy(m, i, at + ASK, asks, o.ask_depth_5)
    o.impact_buy_bps = 1e4 * (_walk(m, i, at + ASK, asks, unit) - mid) / mid
    o.impact_sell_bps = -1e4 * (_walk(m, i, at + BID, bids, unit) - mid) / mid
    o.microprice_stoikov = mid + adjustment(table, unit.tick_size, m[i, at + 1], m[i, at + 3], o.spread)


@njit(cache=True, nogil=True)
def _describe_rows(book: Array, parameters: Array, table: Array, out: Array, values: Array) -> None:
    held = np.empty((1, _WIDTH))
    for j in range(book.shape[0]):
        read_levels(book, j, held, 0)
        describe(held, 0, 0, parameters[0], table, out[j], values, j)


def snapshot_features(rows: TickBatch, parameters: BookParameters) -> dict[str, Array]:
    """One value per snapshot and column: its times, and SNAPSHOT_COLUMNS as float64, NaN where null.

    rows: a batch of book snapshots; each is described as it stands, whatever came before it.
    """
    out = np.full(len(rows) * len(SNAPSHOT_COLUMNS), _NAN)
    _describe_rows(
        book_matrix(rows, 0, len(rows)), *parameters.arrays(), out.view(SNAPSHOT), out.reshape(len(rows), -1)
    )
    columns = out.view(SNAPSHOT)
    times = {name: rows[name] for name in ("timestamp", "local_timestamp")}
    return {**times, **{name: columns[name] for name in SNAPSHOT_COLUMNS}}

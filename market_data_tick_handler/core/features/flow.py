"""What trades do to each other: sizes, arrivals, signs, impact, realised variance, VPIN (features.md 9.1, 9.2).

Theory of operation. Sequence statistics pair a trade with the previous accepted trade in arrival order, wherever that
one was stamped, and add the increment to the bin of the trade's own timestamp. State-like quantities (twap, the 1 s
grid) live on the e-clock, e = max(e, timestamp, local_timestamp - grace); VPIN lives on arrival. `_advance` moves the
e-clock and splits every interval at 15 s borders, in every run, so that the pieces added are always the same ones.
`settle` fixes a border once all rows with local_timestamp < border + grace are folded: the kernel does it itself when
a row passes the border, and the pipeline does it when time passes without rows.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numba import njit

from market_data_tick_handler.core.continuity import FOREIGN
from market_data_tick_handler.core.features.arena import Quantile, Series
from market_data_tick_handler.core.features.bins import US_15S, US_60S, slot, slot_with_chain
from market_data_tick_handler.core.features.chains import CHUNK, MISSING, add_chunk
from market_data_tick_handler.core.features.contract import RunShape, Segment, TickGroup, TickState, record
from market_data_tick_handler.core.features.flow_bins import BIN, OUT, add_trade, finish, merge
from market_data_tick_handler.core.ticks import Array, DataType

CARRY: Final = record(
    "i8",
    "trades newest_us e_us border_us grid_us e_open15 e_open60 e_slot15 e_slot60 last_sign has_change bucket_count "
    "bucket_next",
    "f8",
    "price change grid_price grid_return bucket_fill bucket_buy bucket_sell",
)
MEMORY: Final = record("i8", "unused")

_1S: Final = 1_000_000
_FULL: Final = 1.0 - 1e-9


@njit(cache=True, nogil=True)
def _add_return(b: Any, r: float, bipower: float) -> None:
    square = r * r
    b.rv_1s += square
    b.quarticity += square * square
    b.bipower += bipower
    if r > 0.0:
        b.rv_up += square
    elif r < 0.0:
        b.rv_down += square


@njit(cache=True, nogil=True)
def _pass_grid(
    c: Any, until_us: int, bins15: Array, bins60: Array, empty: Array, links: Array, free: Array, floor_us: int
) -> None:
    """Fix the grid points up to `until_us` with the last price; c.grid_us is the next one to fix."""
    g = c.grid_us
    if g > until_us:
        return
    if c.price != c.grid_price:
        r = math.log(c.price / c.grid_price)
        if g - 1 >= floor_us:
            bipower = abs(r) * abs(c.grid_return)
            t0 = g - 1 - (g - 1) % US_15S
            _add_return(bins15[slot_with_chain(bins15, empty, t0, links, free)], r, bipower)
            _add_return(bins60[slot(bins60, empty, US_60S, t0 - t0 % US_60S)], r, bipower)
        c.grid_return = r
    else:
        c.grid_return = 0.0
    c.grid_price = c.price
    points = (until_us - g) // _1S + 1
    if points > 1:
        # No trade in between: every further return is 0 and adds nothing.
        c.grid_return = 0.0
    c.grid_us = g + points * _1S


@njit(cache=True, nogil=True)
def _advance(
    c: Any, until_us: int, bins15: Array, bins60: Array, empty: Array, links: Array, free: Array, floor_us: int
) -> None:
    """Move the e-clock to `until_us` under the last price."""
    _pass_grid(c, until_us, bins15, bins60, empty, links, free, floor_us)
    start = c.e_us
    while start < until_us:
        t0 = start - start % US_15S
        stop = min(until_us, t0 + US_15S)
        if start >= floor_us:
            dt = stop - start
            k = slot_with_chain(bins15, empty, t0, links, free)
            bins15[k].price_time += c.price * dt
            bins15[k].time += dt
            k = slot(bins60, empty, US_60S, t0 - t0 % US_60S)
            bins60[k].price_time += c.price * dt
            bins60[k].time += dt
        start = stop
    c.e_us = max(c.e_us, until_us)
    c.e_open15 = c.e_us - c.e_us % US_15S
    c.e_open60 = c.e_us - c.e_us % US_60S
    c.e_slot15 = (c.e_open15 // US_15S) % bins15.shape[0]
    c.e_slot60 = (c.e_open60 // US_60S) % bins60.shape[0]


@njit(cache=True, nogil=True)
def _vpin(c: Any, buckets: Array, volume: float) -> float:
    n = buckets.shape[0]
    if volume <= 0.0 or c.bucket_count < n:
        return np.nan
    total = 0.0
    at = c.bucket_next
    for _ in range(n):
        total += buckets[at]
        at += 1
        if at == n:
            at = 0
    return total / (n * volume)


@njit(cache=True, nogil=True)
def _close_bucket(c: Any, buckets: Array) -> None:
    buckets[c.bucket_next] = abs(c.bucket_buy - c.bucket_sell)
    c.bucket_next += 1
    if c.bucket_next == buckets.shape[0]:
        c.bucket_next = 0
    c.bucket_count += 1
    c.bucket_fill = 0.0
    c.bucket_buy = 0.0
    c.bucket_sell = 0.0


@njit(cache=True, nogil=True)
def _fill_buckets(c: Any, buckets: Array, volume: float, q: float, sign: int) -> None:
    # A trade that fills the whole ring several times over leaves nothing but itself in it.
    if q > (buckets.shape[0] + 2) * volume:
        q = q % volume + (buckets.shape[0] + 1) * volume
    while q > 0.0:
        part = min(q, volume - c.bucket_fill)
        if sign > 0:
            c.bucket_buy += part
        else:
            c.bucket_sell += part
        c.bucket_fill += part
        q -= part
        if c.bucket_fill >= volume * _FULL:
            _close_bucket(c, buckets)


@njit(cache=True, nogil=True)
def _settle(
    carry: Array, border_us: int, bins15: Array, bins60: Array, empty: Array, links: Array, free: Array,
    buckets: Array, bucket_volume: float, floor_us: int,
) -> None:  # fmt: skip
    c = carry[0]
    if c.trades == 0:
        return
    while c.border_us <= border_us:
        border = c.border_us
        _advance(c, border, bins15, bins60, empty, links, free, floor_us)
        if border - US_15S >= floor_us:
            vpin = _vpin(c, buckets, bucket_volume)
            bins15[slot_with_chain(bins15, empty, border - US_15S, links, free)].vpin = vpin
            if border % US_60S == 0:
                bins60[slot(bins60, empty, US_60S, border - US_60S)].vpin = vpin
        c.border_us = border + US_15S


@njit(cache=True, nogil=True)
def _fold(
    ts: Array, lt: Array, price: Array, amount: Array, amount_bits: Array, sign: Array, code: Array, carry: Array,
    bins15: Array, bins60: Array, empty: Array, pool: Array, links: Array, free: Array, buckets: Array,
    bucket_volume: float, large_notional: float, grace_us: int, floor_us: int, inverse: bool, multiplier: float,
) -> None:  # fmt: skip
    c = carry[0]
    open15 = np.int64(-US_15S)
    k15 = 0
    k60 = 0
    for j in range(ts.shape[0]):
        kind = code[j]
        if kind > FOREIGN:
            continue
        t = ts[j]
        now = lt[j]
        p = price[j]
        q = amount[j]
        s = sign[j]
        notional = q * multiplier if inverse else p * (q * multiplier)
        first = c.trades == 0
        if first:
            c.border_us = (now - grace_us) - (now - grace_us) % US_15S + US_15S
            c.newest_us = t
            c.e_us = max(t, now - grace_us)
            # The grid knows no price before the first trade: its first return starts from that trade's own price.
            c.grid_us = c.e_us - c.e_us % _1S + _1S
            c.grid_price = p
            c.e_open15 = -2
            d = 0.0
            r = 0.0
            dt = -1
        else:
            if now >= c.border_us + grace_us:
                _settle(carry, now - grace_us, bins15, bins60, empty, links, free, buckets, bucket_volume, floor_us)
                open15 = np.int64(-US_15S)
            e = max(t, now - grace_us)
            if e > c.e_us:
                k15e = c.e_slot15
                k60e = c.e_slot60
                if e < c.grid_us and bins15[k15e].t0 == c.e_open15 and bins60[k60e].t0 == c.e_open60:
                    # Before the next grid point, hence in the same bins: the common case of a busy market.
                    part = e - c.e_us
                    bins15[k15e].price_time += c.price * part
                    bins15[k15e].time += part
                    bins60[k60e].price_time += c.price * part
                    bins60[k60e].time += part
                    c.e_us = e
                else:
                    _advance(c, e, bins15, bins60, empty, links, free, floor_us)
            d = p - c.price
            r = math.log(p / c.price) if d != 0.0 else 0.0
            dt = max(t - c.newest_us, 0)
        disorder = 1 if t < c.newest_us else 0
        c.newest_us = max(c.newest_us, t)
        if kind == 0:
            if t < open15 or t >= open15 + US_15S:
                open15 = t - t % US_15S
                k15 = slot_with_chain(bins15, empty, open15, links, free)
                k60 = slot(bins60, empty, US_60S, t - t % US_60S)
            root = math.sqrt(notional)
            large = 1 if notional >= large_notional else 0
            product = s * c.last_sign
            pair = product * product
            follows = 0 if first else 1
            step = max(dt, 0)
            up = 1 if d > 0.0 else 0
            down = 1 if d < 0.0 else 0
            x = s * q if follows else 0.0
            y = s * root if follows else 0.0
            paired = c.has_change * follows
            change = d * c.change if paired else 0.0
            add_trade(
                bins15[k15], p, q, s, root, large, disorder, pair, product, follows, step, up, down, abs(d), r * r,
                d * x, x * x, r * y, y * y, paired, change,
            )  # fmt: skip
            add_trade(
                bins60[k60], p, q, s, root, large, disorder, pair, product, follows, step, up, down, abs(d), r * r,
                d * x, x * x, r * y, y * y, paired, change,
            )  # fmt: skip
            b = bins15[k15]
            at = b.chain_count & (CHUNK - 1)
            if at == 0:
                add_chunk(b, links, free)
            at += b.chain_tail * CHUNK
            pool[0, at] = amount_bits[j]
            pool[1, at] = MISSING if first else dt
            b.chain_count += 1
        if s != 0:
            c.last_sign = s
            if bucket_volume > 0.0:
                if c.bucket_fill + q < bucket_volume * 0.999:
                    c.bucket_buy += q if s > 0 else 0.0
                    c.bucket_sell += q if s < 0 else 0.0
                    c.bucket_fill += q
                else:
                    _fill_buckets(c, buckets, bucket_volume, q, s)
        if not first:
            c.change = d
            c.has_change = 1
        c.price = p
        c.trades += 1


class FlowState(TickState):
    """Bins, chains and sequence state of one pipeline."""

    BIN, CARRY, MEMORY, OUT = BIN, CARRY, MEMORY, OUT
    SERIES = (
        Series("size", True, 1.0, (Quantile("size_median"),)),
        Series("interarrival", False, 1000.0, (Quantile("interarrival_median_ms"),)),
    )
    merge_kernel = staticmethod(merge)
    finish_kernel = staticmethod(finish)

    def __init__(self, shape: RunShape) -> None:
        super().__init__(shape)
        parameters = shape.parameters
        self.empty["vpin"] = np.nan
        self.bucket_volume = float(parameters.vpin_bucket_volume or 0.0)
        self.buckets = np.zeros(parameters.vpin_buckets)

    def fold(self, segment: Segment) -> None:
        """Add the segment's trades."""
        ticks = segment.get(DataType.TRADES)
        if ticks is None:
            return
        rows, shape, arena = ticks.rows, self.shape, self.arena
        assert arena is not None
        arena.reserve(len(rows), shape.slots15)
        _fold(
            rows["timestamp"], rows["local_timestamp"], rows["price"], rows["amount"],
            rows["amount"].view(np.int64), ticks.sign, ticks.code, self.carry, self.bins15, self.bins60, self.empty,
            arena.pool, arena.links, arena.free, self.buckets, self.bucket_volume,
            shape.parameters.large_trade_notional, shape.grace_us, shape.floor_us, shape.inverse, shape.multiplier,
        )  # fmt: skip

    def settle(self, border_us: int) -> None:
        """Integrate to the border and stamp VPIN."""
        arena = self.arena
        assert arena is not None
        _settle(
            self.carry, border_us, self.bins15, self.bins60, self.empty, arena.links, arena.free,
            self.buckets, self.bucket_volume, self.shape.floor_us,
        )  # fmt: skip

    def state(self, keep_from_us: int = 0) -> dict[str, Any]:
        """Everything a snapshot needs, without the bins that open before `keep_from_us`."""
        return {**super().state(keep_from_us), "buckets": self.buckets}

    def load(self, state: dict[str, Any]) -> None:
        """Put back what `state` gave."""
        super().load(state)
        self.buckets = state["buckets"].copy()
        carry = self.carry[0]
        carry["e_slot15"] = carry["e_open15"] // US_15S % len(self.bins15)
        carry["e_slot60"] = carry["e_open60"] // US_60S % len(self.bins60)


GROUP: Final = TickGroup("flow", (DataType.TRADES,), FlowState)

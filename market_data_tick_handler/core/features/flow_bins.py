"""The accumulator of group `flow`: how one trade is added, two bins are merged, and columns are read off."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numba import njit

from market_data_tick_handler.core.features import wide
from market_data_tick_handler.core.features.bins import ratio
from market_data_tick_handler.core.features.chains import CHAIN_FIELDS
from market_data_tick_handler.core.features.contract import record
from market_data_tick_handler.core.ticks import Array

BIN: Final = record(
    "i8",
    f"t0 n {CHAIN_FIELDS} large_count arrivals dt_sum dt_low dt_high dt_max up down flat run run_sign run_max "
    "switches sign_pairs sign_sum change_pairs out_of_order time",
    "f8",
    "size_shift size_s1 size_s2 size_max size_min size_squares large_volume path price_shift weight price_s1 price_s2 "
    "rv_tick rv_1s bipower rv_up rv_down quarticity kyle_xy kyle_xx hasbrouck_xy hasbrouck_xx signed_root "
    "change_products price_time vpin",
)
OUT: Final = record(
    "f8",
    "twap size_median size_std size_max size_min size_hhi large_trade_volume interarrival_mean_ms "
    "interarrival_median_ms interarrival_std_ms interarrival_max_ms burstiness tick_imbalance sign_autocorr_1 "
    "price_path_length price_vw_std rv_tick rv_1s bpv_1s jump_1s rv_up_1s rv_down_1s rq_1s realized_vol kyle_lambda "
    "hasbrouck_lambda signed_sqrt_notional roll_spread vpin",
    "i8",
    "large_trade_count tick_up_count tick_down_count tick_zero_count side_run_max side_switch_count out_of_order_count",
)
NAN: Final = np.nan
HALF_PI: Final = math.pi / 2.0


@njit(cache=True, nogil=True)
def add_trade(
    b: Any, p: float, q: float, s: int, root: float, large: int, disorder: int, pair: int, product: int,
    follows: int, dt: int, up: int, down: int, length: float, square: float, kyle_xy: float, kyle_xx: float,
    hasbrouck_xy: float, hasbrouck_xx: float, change_pair: int, change_product: float,
) -> None:  # fmt: skip
    """Add one trade; every term is computed once by the caller, for the 15 s and the 1 m bin.

    pair, product: 1 and s*s' if there is an earlier signed trade, else 0. follows: 0 for the very first trade ever,
    whose pair terms are all 0. Selects instead of branches: which way a market goes cannot be predicted.
    """
    if b.n == 0:
        b.size_shift = q
        b.price_shift = p
        b.size_max = q
        b.size_min = q
    b.size_max = max(b.size_max, q)
    b.size_min = min(b.size_min, q)
    b.n += 1
    x = q - b.size_shift
    b.size_s1 += x
    b.size_s2 += x * x
    b.size_squares += q * q
    x = p - b.price_shift
    b.weight += q
    b.price_s1 += q * x
    b.price_s2 += q * x * x
    b.large_count += large
    b.large_volume += q if large == 1 else 0.0
    b.out_of_order += disorder
    b.signed_root += s * root
    if s != 0:
        run = b.run + 1 if s == b.run_sign else 1
        b.run = run
        b.run_sign = s
        b.run_max = max(b.run_max, run)
        b.sign_pairs += pair
        b.sign_sum += product
        b.switches += 1 if product < 0 else 0
    b.arrivals += follows
    b.dt_sum += dt
    b.dt_low, b.dt_high = wide.add_square(b.dt_low, b.dt_high, dt)
    b.dt_max = max(b.dt_max, dt)
    b.up += up
    b.down += down
    b.flat += follows - up - down
    b.path += length
    b.rv_tick += square
    b.kyle_xy += kyle_xy
    b.kyle_xx += kyle_xx
    b.hasbrouck_xy += hasbrouck_xy
    b.hasbrouck_xx += hasbrouck_xx
    b.change_products += change_product
    b.change_pairs += change_pair


@njit(cache=True, nogil=True)
def _merge_shifted(a: Any, c: Any) -> None:
    """Re-centre the child's shifted sums onto the accumulator's shifts (features.md section 8)."""
    if a.n == 0:
        a.size_shift = c.size_shift
        a.price_shift = c.price_shift
        a.size_max = c.size_max
        a.size_min = c.size_min
    else:
        a.size_max = max(a.size_max, c.size_max)
        a.size_min = min(a.size_min, c.size_min)
    delta = c.size_shift - a.size_shift
    a.size_s2 += c.size_s2 + 2.0 * delta * c.size_s1 + c.n * delta * delta
    a.size_s1 += c.size_s1 + c.n * delta
    delta = c.price_shift - a.price_shift
    a.price_s2 += c.price_s2 + 2.0 * delta * c.price_s1 + c.weight * delta * delta
    a.price_s1 += c.price_s1 + c.weight * delta
    a.weight += c.weight
    a.n += c.n


@njit(cache=True, nogil=True)
def merge(acc: Array, children: Array) -> None:
    """Left fold of `children` (oldest first) into `acc[0]`."""
    a = acc[0]
    for k in range(children.shape[0]):
        c = children[k]
        if c.n > 0:
            _merge_shifted(a, c)
        a.size_squares += c.size_squares
        a.large_count += c.large_count
        a.large_volume += c.large_volume
        a.arrivals += c.arrivals
        a.dt_sum += c.dt_sum
        a.dt_low, a.dt_high = wide.add(a.dt_low, a.dt_high, c.dt_low, c.dt_high)
        a.dt_max = max(a.dt_max, c.dt_max)
        a.up += c.up
        a.down += c.down
        a.flat += c.flat
        a.run_max = max(a.run_max, c.run_max)
        a.switches += c.switches
        a.sign_pairs += c.sign_pairs
        a.sign_sum += c.sign_sum
        a.change_pairs += c.change_pairs
        a.change_products += c.change_products
        a.out_of_order += c.out_of_order
        a.path += c.path
        a.rv_tick += c.rv_tick
        a.rv_1s += c.rv_1s
        a.bipower += c.bipower
        a.rv_up += c.rv_up
        a.rv_down += c.rv_down
        a.quarticity += c.quarticity
        a.kyle_xy += c.kyle_xy
        a.kyle_xx += c.kyle_xx
        a.hasbrouck_xy += c.hasbrouck_xy
        a.hasbrouck_xx += c.hasbrouck_xx
        a.signed_root += c.signed_root
        a.price_time += c.price_time
        a.time += c.time
        a.vpin = c.vpin


@njit(cache=True, nogil=True)
def _finish_sizes(b: Any, o: Any) -> None:
    n = b.n
    o.size_max = b.size_max if n > 0 else NAN
    o.size_min = b.size_min if n > 0 else NAN
    o.size_std = math.sqrt(max(b.size_s2 - b.size_s1 * b.size_s1 / n, 0.0) / (n - 1)) if n > 1 else NAN
    o.size_hhi = ratio(b.size_squares, b.weight * b.weight)
    o.large_trade_count = b.large_count
    o.large_trade_volume = b.large_volume
    if n > 0:
        o.price_vw_std = math.sqrt(max(b.price_s2 - b.price_s1 * b.price_s1 / b.weight, 0.0) / b.weight)
    else:
        o.price_vw_std = NAN


@njit(cache=True, nogil=True)
def _finish_arrivals(b: Any, o: Any) -> None:
    n = b.arrivals
    o.interarrival_mean_ms = b.dt_sum / n / 1000.0 if n > 0 else NAN
    o.interarrival_max_ms = b.dt_max / 1000.0 if n > 0 else NAN
    o.interarrival_std_ms = NAN
    o.burstiness = NAN
    if n > 1:
        sigma = wide.sample_std(n, b.dt_sum, b.dt_low, b.dt_high)
        mean = b.dt_sum / n
        o.interarrival_std_ms = sigma / 1000.0
        o.burstiness = ratio(sigma - mean, sigma + mean)


@njit(cache=True, nogil=True)
def _finish_sequence(b: Any, o: Any) -> None:
    o.tick_up_count = b.up
    o.tick_down_count = b.down
    o.tick_zero_count = b.flat
    o.tick_imbalance = ratio(float(b.up - b.down), float(b.up + b.down))
    o.side_run_max = b.run_max
    o.side_switch_count = b.switches
    o.sign_autocorr_1 = ratio(float(b.sign_sum), float(b.sign_pairs))
    o.out_of_order_count = b.out_of_order
    o.price_path_length = b.path
    o.rv_tick = b.rv_tick
    o.kyle_lambda = ratio(b.kyle_xy, b.kyle_xx)
    o.hasbrouck_lambda = ratio(b.hasbrouck_xy, b.hasbrouck_xx)
    o.signed_sqrt_notional = b.signed_root
    if b.change_pairs > 0:
        covariance = b.change_products / b.change_pairs
        o.roll_spread = 2.0 * math.sqrt(-covariance) if covariance < 0.0 else 0.0
    else:
        o.roll_spread = NAN


@njit(cache=True, nogil=True)
def finish(memory: Array, bins: Array, step_us: int, out: Array) -> None:
    """Columns of consecutive candles; the quantile columns are filled from the chains or sketches afterwards."""
    for i in range(bins.shape[0]):
        b = bins[i]
        o = out[i]
        _finish_sizes(b, o)
        _finish_arrivals(b, o)
        _finish_sequence(b, o)
        o.twap = b.price_time / b.time if b.time > 0 else NAN
        o.rv_1s = b.rv_1s
        o.bpv_1s = HALF_PI * b.bipower
        o.jump_1s = max(o.rv_1s - o.bpv_1s, 0.0)
        o.rv_up_1s = b.rv_up
        o.rv_down_1s = b.rv_down
        o.rq_1s = step_us / 3e6 * b.quarticity
        o.realized_vol = math.sqrt(b.rv_1s)
        o.vpin = b.vpin

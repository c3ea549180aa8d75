"""What a chain of options says at one moment: forwards, volatilities by delta and maturity, open interest (features.md
7.7, 9.7).

Once a minute over at most a few thousand rows, so plain Python; the order of the rows does not change a bit of it.
A volatility is NaN where it is unknown, and NaN passes through every formula up to the column, where it is null.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from market_data_tick_handler.core.features.options_table import NOT_YET_US
from market_data_tick_handler.core.options import FeatureParameters
from market_data_tick_handler.core.ticks import Array

_NAN: Final = math.nan
_DAY_US: Final = 86_400e6
_YEAR_US: Final = 365.0 * _DAY_US
# Outside this a venue's number is no volatility, or not in the unit that was declared.
_IV_LOW: Final = 0.01
_IV_HIGH: Final = 5.0
MATURITIES: Final = (7, 30, 60, 90, 180)


@dataclass(frozen=True, slots=True)
class _Expiry:
    """The usable options of one expiry, as columns sorted by strike, calls first; iv in decimals."""

    expiry_us: int
    years: float
    forward: float
    strike: list[float]
    call: list[bool]
    delta: list[float]
    iv: list[float]
    open_interest: list[float]

    @property
    def atm_iv(self) -> float:
        """Mean of call and put per strike, linear in strike at the forward; beyond the strikes the nearest one's."""
        by_strike: dict[float, list[float]] = {}
        for strike, iv in zip(self.strike, self.iv, strict=True):
            by_strike.setdefault(strike, []).append(iv)
        means = [exact_sum(ivs) / len(ivs) for ivs in by_strike.values()]
        strikes = list(by_strike)
        return interpolate(strikes, means, min(max(self.forward, strikes[0]), strikes[-1]))

    def iv_at_delta(self, delta: float) -> float:
        """Linear in delta among calls (delta > 0) or puts; null where it is not bracketed."""
        wing = sorted(
            (d, k, iv)
            for d, k, iv, call in zip(self.delta, self.strike, self.iv, self.call, strict=True)
            if call == (delta > 0)
        )
        return interpolate([d for d, _, _ in wing], [iv for _, _, iv in wing], delta)

    def at_the_money(self) -> int:
        """The option whose |delta| is nearest to 0.5; ties: call first, then lower strike."""
        # Deltas of 0.55 and -0.45 tie, which the last bits of a difference of floats would hide.
        distance = [round(abs(abs(delta) - 0.5), 9) for delta in self.delta]
        return min(range(len(distance)), key=lambda i: (distance[i], not self.call[i], self.strike[i]))

    def max_pain(self) -> float:
        """The strike at which the options would pay least; ties: the lower one."""
        held = list(zip(self.strike, self.call, self.open_interest, strict=True))

        def paid(at: float) -> float:
            return exact_sum(oi * max(at - k if call else k - at, 0.0) for k, call, oi in held)

        return min(dict.fromkeys(self.strike), key=lambda at: (paid(at), at))


def exact_sum(terms: Iterable[float]) -> float:
    """The correctly rounded sum, whatever the order; null where a term is null or it does not fit a float."""
    try:
        return math.fsum(terms)
    except (OverflowError, ValueError):
        return _NAN


def interpolate(xs: Sequence[float], ys: Sequence[float], x: float) -> float:
    """Linear between the neighbours of `x` in the ascending `xs`; null where it is not bracketed."""
    right = next((i for i, known in enumerate(xs) if known >= x), None)
    if right is None:
        return _NAN
    if xs[right] == x:
        return ys[right]
    if right == 0:
        return _NAN
    left = right - 1
    return ys[left] + (ys[right] - ys[left]) * ((x - xs[left]) / (xs[right] - xs[left]))


def usable_rows(table: Array, at_us: int, parameters: FeatureParameters) -> Array:
    """The rows of `table` (ROW) that count at `at_us`, by expiry, strike, calls first; volatilities in decimals."""
    scale = parameters.options_iv_scale
    rows = table[table["e_us"] != NOT_YET_US]
    fresh = (rows["e_us"] < at_us) & (at_us - rows["e_us"] <= int(parameters.options_max_age_s * 1e6))
    rows = rows[fresh & (rows["expiration"] - at_us >= int(parameters.options_min_tte_s * 1e6))]
    for name in ("mark_iv", "bid_iv", "ask_iv"):
        iv = rows[name] / scale if scale else rows[name]
        known = (iv >= _IV_LOW) & (iv <= _IV_HIGH) if scale else iv > 0.0
        rows[name] = np.where(known, iv, _NAN)
    # What is missing here adds nothing; it does not cost the option its place in the surface.
    for name, lowest in (("open_interest", 0.0), ("gamma", -np.inf), ("vega", -np.inf)):
        rows[name] = np.where(np.isfinite(rows[name]) & (rows[name] >= lowest), rows[name], 0.0)
    whole = np.isfinite(rows["mark_iv"]) & np.isfinite(rows["delta"]) & (np.abs(rows["option_type"]) == 1)
    for name in ("underlying", "strike"):
        whole &= np.isfinite(rows[name]) & (rows[name] > 0.0)
    rows = rows[whole]
    if not scale:
        for name in ("mark_iv", "bid_iv", "ask_iv"):
            rows[name] = _NAN
    order = np.lexsort((rows["symbol_hash"], -rows["option_type"], rows["strike"], rows["expiration"]))
    return rows[order]


def surface(table: Array, at_us: int, parameters: FeatureParameters) -> dict[str, float]:
    """Every column of the group at `at_us` by name; NaN is null. table: ROW, in any order."""
    rows = usable_rows(table, at_us, parameters)
    if not len(rows):
        return {"options_used_count": 0, "expiries_used_count": 0}
    starts = np.flatnonzero(np.diff(rows["expiration"], prepend=-1))
    expiries = [_expiry(part, at_us) for part in np.split(rows, starts[1:])]
    front = rows[: len(expiries[0].strike)]
    found = {
        **_front(expiries[0], front, at_us),
        **_maturities(expiries),
        **_holdings(rows),
        "put_call_oi_ratio_front": _put_call_ratio(front),
        "options_used_count": len(rows),
        "expiries_used_count": len(expiries),
        "chain_age_max_ms": int(at_us - rows["e_us"].min()) / 1000.0,
    }
    return {name: value if math.isfinite(value) else _NAN for name, value in found.items()}


def _expiry(rows: Array, at_us: int) -> _Expiry:
    freshest = np.lexsort((rows["arrival"], rows["e_us"]))[-1]
    expiry_us = int(rows["expiration"][0])
    return _Expiry(
        expiry_us=expiry_us,
        years=(expiry_us - at_us) / _YEAR_US,
        forward=float(rows["underlying"][freshest]),
        strike=rows["strike"].tolist(),
        call=(rows["option_type"] > 0).tolist(),
        delta=rows["delta"].tolist(),
        iv=rows["mark_iv"].tolist(),
        open_interest=rows["open_interest"].tolist(),
    )


def _front(expiry: _Expiry, rows: Array, at_us: int) -> dict[str, float]:
    atm = rows[expiry.at_the_money()]
    call, put, middle = expiry.iv_at_delta(0.25), expiry.iv_at_delta(-0.25), expiry.atm_iv
    return {
        "front_expiry": expiry.expiry_us,
        "front_tte_days": (expiry.expiry_us - at_us) / _DAY_US,
        "front_forward": expiry.forward,
        "atm_mark_iv": float(atm["mark_iv"]),
        "atm_bid_ask_iv_spread": float(atm["ask_iv"] - atm["bid_iv"]),
        "atm_iv_front": middle,
        "iv_25d_call_front": call,
        "iv_25d_put_front": put,
        "skew_25d_put_call_ratio": put / call,
        "risk_reversal_25d_front": call - put,
        "butterfly_25d_front": (call + put) / 2.0 - middle,
        "max_pain_front": expiry.max_pain(),
    }


def _maturities(expiries: Sequence[_Expiry]) -> dict[str, float]:
    years, middles = [expiry.years for expiry in expiries], [expiry.atm_iv for expiry in expiries]
    atm = {days: _iv_at(years, middles, days) for days in MATURITIES}
    call = _iv_at(years, [expiry.iv_at_delta(0.25) for expiry in expiries], 30)
    put = _iv_at(years, [expiry.iv_at_delta(-0.25) for expiry in expiries], 30)
    forward_variance = (60.0 * atm[60] * atm[60] - 30.0 * atm[30] * atm[30]) / 30.0
    return {
        **{f"atm_iv_{days}d": iv for days, iv in atm.items()},
        "risk_reversal_25d_30d": call - put,
        "butterfly_25d_30d": (call + put) / 2.0 - atm[30],
        "iv_term_slope_7_30": atm[30] - atm[7],
        "iv_term_slope_30_90": atm[90] - atm[30],
        "forward_iv_30_60": math.sqrt(forward_variance) if forward_variance >= 0.0 else _NAN,
    }


def _iv_at(years: Sequence[float], ivs: Sequence[float], days: int) -> float:
    """Volatility at a maturity: total variance is linear between the expiries that have one."""
    known = [(tte, iv * iv * tte) for tte, iv in zip(years, ivs, strict=True) if not math.isnan(iv)]
    target = days / 365.0
    return math.sqrt(interpolate([tte for tte, _ in known], [variance for _, variance in known], target) / target)


def _put_call_ratio(rows: Array) -> float:
    call = exact_sum(rows["open_interest"][rows["option_type"] > 0].tolist())
    put = exact_sum(rows["open_interest"][rows["option_type"] < 0].tolist())
    return put / call if call != 0.0 else _NAN


def _holdings(rows: Array) -> dict[str, float]:
    held, sign = rows["open_interest"], rows["option_type"]
    total = exact_sum(held.tolist())
    with np.errstate(over="ignore", invalid="ignore"):
        gamma = sign * held * rows["gamma"] * rows["underlying"] * rows["underlying"] * 0.01
        by_iv, by_delta, by_vega = held * rows["mark_iv"], held * rows["delta"], held * rows["vega"]
    return {
        "call_oi_total": exact_sum(held[sign > 0].tolist()),
        "put_oi_total": exact_sum(held[sign < 0].tolist()),
        "put_call_oi_ratio": _put_call_ratio(rows),
        "oi_weighted_iv": exact_sum(by_iv.tolist()) / total if total != 0.0 else _NAN,
        "net_delta_oi": exact_sum(by_delta.tolist()),
        "gamma_exposure_1pct": exact_sum(gamma.tolist()),
        "vega_oi_total": exact_sum(by_vega.tolist()),
    }

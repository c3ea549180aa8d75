"""The surface of a chain in plain Python and NumPy's interpolation, sharing no code with the feature group."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from market_data_tick_handler.core.ticks import TickBatch
from tests.core.features.chains import HOUR, NAMES, S
from tests.core.features.slow import GRACE_US, Row, every, timely


class Slow:
    """The rows in force at any time, found by going through all of them."""

    def __init__(self, rows: TickBatch) -> None:
        clocks: dict[int, int] = {}
        self.rows: list[Row] = []
        for row in filter(timely, every(rows)):
            symbol = row["symbol_hash"]
            e = max(clocks.get(symbol, 0), row["timestamp"], row["local_timestamp"] - GRACE_US)
            clocks[symbol] = e
            self.rows.append({**row, "e": e})

    def at(self, time_us: int) -> list[Row]:
        """Usable rows at a time, freshest last."""
        latest = {row["symbol_hash"]: (row["e"], index) for index, row in enumerate(self.rows) if row["e"] < time_us}
        rows = [self.rows[index] for _, index in sorted(latest.values())]
        return [row for row in rows if time_us - row["e"] <= 600 * S and self.usable(row, time_us)]

    @staticmethod
    def usable(row: Row, time_us: int) -> bool:
        return (
            row["expiration"] - time_us >= HOUR
            and 1.0 <= row["mark_iv"] <= 500.0
            and math.isfinite(row["delta"])
            and all(0.0 < row[name] < math.inf for name in ("underlying_price", "strike_price"))
            and row["option_type"] in (1, -1)
        )


def finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0


def held_open(row: Row) -> float:
    return max(finite(row["open_interest"]), 0.0)


def known(terms: Iterable[float]) -> float | None:
    """Their sum, if it is a number."""
    values = list(terms)
    return math.fsum(values) if all(map(math.isfinite, values)) else None


def atm_iv(rows: list[Row]) -> float:
    ivs: dict[float, list[float]] = {}
    for row in rows:
        ivs.setdefault(row["strike_price"], []).append(row["mark_iv"] / 100.0)
    strikes = sorted(ivs)
    return float(np.interp(rows[-1]["underlying_price"], strikes, [sum(ivs[k]) / len(ivs[k]) for k in strikes]))


def wing_iv(rows: list[Row], sign: int) -> float | None:
    wing = sorted((row["delta"], row["strike_price"], row["mark_iv"]) for row in rows if row["option_type"] == sign)
    below = [point for point in wing if point[0] < sign * 0.25]
    above = [point for point in wing if point[0] >= sign * 0.25]
    if not above or (not below and above[0][0] != sign * 0.25):
        return None
    low, high = below[-1] if below else above[0], above[0]
    return float(np.interp(sign * 0.25, [low[0], high[0]], [low[2], high[2]])) / 100.0 if below else high[2] / 100.0


def at_maturity(curve: Sequence[tuple[float, float | None]], days: int) -> float | None:
    points = [(tte, iv * iv * tte) for tte, iv in curve if iv is not None]
    target = days / 365
    if not points or not points[0][0] <= target <= points[-1][0]:
        return None
    return math.sqrt(np.interp(target, [tte for tte, _ in points], [w for _, w in points]) / target)


def minus(left: float | None, right: float | None) -> float | None:
    return None if left is None or right is None else left - right


def expected(slow: Slow, t1: int) -> dict[str, Any]:
    rows = slow.at(t1)
    chains = {when: [r for r in rows if r["expiration"] == when] for when in sorted({r["expiration"] for r in rows})}
    out: dict[str, Any] = {"options_used_count": len(rows), "expiries_used_count": len(chains)}
    if not rows:
        return {**dict.fromkeys(NAMES), **out}
    when, front = next(iter(chains.items()))
    atm = min(front, key=lambda r: (round(abs(abs(r["delta"]) - 0.5), 9), -r["option_type"], r["strike_price"]))
    quoted = [atm[name] / 100.0 if 1.0 <= atm[name] <= 500.0 else None for name in ("ask_iv", "bid_iv")]
    years = {when: (when - t1) / (365 * 86_400 * S) for when in chains}
    middle = [(years[when], atm_iv(chain)) for when, chain in chains.items()]
    term = {days: at_maturity(middle, days) for days in (7, 30, 60, 90, 180)}
    call, put = wing_iv(front, 1), wing_iv(front, -1)
    call30, put30 = (at_maturity([(years[w], wing_iv(c, sign)) for w, c in chains.items()], 30) for sign in (1, -1))
    oi = {sign: math.fsum(held_open(r) for r in rows if r["option_type"] == sign) for sign in (1, -1)}
    strikes = sorted({r["strike_price"] for r in front})
    pain = {
        k: math.fsum(held_open(r) * max(0.0, r["option_type"] * (k - r["strike_price"])) for r in front)
        for k in strikes
    }
    held = [(held_open(r), r) for r in rows]
    gamma = [r["option_type"] * n * finite(r["gamma"]) * r["underlying_price"] * r["underlying_price"] for n, r in held]
    near = {sign: math.fsum(held_open(r) for r in front if r["option_type"] == sign) for sign in (1, -1)}
    variance = None if term[30] is None or term[60] is None else (60 * term[60] ** 2 - 30 * term[30] ** 2) / 30
    out |= {
        "front_expiry": when,
        "front_tte_days": (when - t1) / 86_400e6,
        "front_forward": front[-1]["underlying_price"],
        "atm_mark_iv": atm["mark_iv"] / 100.0,
        "atm_bid_ask_iv_spread": minus(quoted[0], quoted[1]),
        "atm_iv_front": middle[0][1],
        "iv_25d_call_front": call,
        "iv_25d_put_front": put,
        "skew_25d_put_call_ratio": None if call is None or put is None else put / call,
        "risk_reversal_25d_front": minus(call, put),
        "butterfly_25d_front": None if call is None or put is None else (call + put) / 2 - middle[0][1],
        **{f"atm_iv_{days}d": iv for days, iv in term.items()},
        "risk_reversal_25d_30d": minus(call30, put30),
        "iv_term_slope_7_30": minus(term[30], term[7]),
        "iv_term_slope_30_90": minus(term[90], term[30]),
        "call_oi_total": oi[1],
        "put_oi_total": oi[-1],
        "put_call_oi_ratio": oi[-1] / oi[1] if oi[1] else None,
        "put_call_oi_ratio_front": near[-1] / near[1] if near[1] else None,
        "oi_weighted_iv": math.fsum(n * r["mark_iv"] for n, r in held) / 100.0 / (oi[1] + oi[-1])
        if oi[1] + oi[-1]
        else None,
        "net_delta_oi": known(n * r["delta"] for n, r in held),
        "gamma_exposure_1pct": known(term * 0.01 for term in gamma),
        "forward_iv_30_60": None if variance is None or variance < 0 else math.sqrt(variance),
        "butterfly_25d_30d": None
        if call30 is None or put30 is None or term[30] is None
        else (call30 + put30) / 2 - term[30],
        "max_pain_front": min(strikes, key=lambda k: (pain[k], k)),
        "vega_oi_total": known(n * finite(r["vega"]) for n, r in held),
        "chain_age_max_ms": (t1 - min(r["e"] for r in rows)) / 1000.0,
    }
    return out

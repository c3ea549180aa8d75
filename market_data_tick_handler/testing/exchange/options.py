"""Mark price and greeks of a simulated option: Black 1976 on the forward, settled in the base coin."""

from __future__ import annotations

from dataclasses import dataclass
from math import erf, exp, log, pi, sqrt
from typing import Final

_YEAR_US: Final = 365 * 86_400 * 1_000_000
# An expired option is priced as one that has a minute left.
_SHORTEST_US: Final = 60 * 1_000_000


@dataclass(frozen=True, slots=True)
class OptionQuote:
    """mark: in units of the base coin. delta; gamma per unit of quote; vega per point of volatility; theta per day;
    rho per point of interest: the units of Deribit."""

    mark: float
    delta: float
    gamma: float
    vega: float
    theta: float
    rho: float


def quote_option(*, forward: float, strike: float, iv: float, call: bool, expiry_us: int, now_us: int) -> OptionQuote:
    """Quote at volatility `iv` (in percent a year), zero interest."""
    years = max(expiry_us - now_us, _SHORTEST_US) / _YEAR_US
    sigma = iv / 100.0
    spread = sigma * sqrt(years)
    d1 = log(forward / strike) / spread + spread / 2.0
    d2 = d1 - spread
    sign = 1.0 if call else -1.0
    price = sign * (forward * _normal(sign * d1) - strike * _normal(sign * d2))
    density = exp(-d1 * d1 / 2.0) / sqrt(2.0 * pi)
    return OptionQuote(
        mark=_rounded(max(price / forward, 0.0), 6),
        delta=_rounded(sign * _normal(sign * d1), 5),
        gamma=_rounded(density / (forward * spread), 8),
        vega=_rounded(forward * density * sqrt(years) / 100.0, 5),
        theta=_rounded(-forward * density * sigma / (2.0 * sqrt(years)) / 365.0, 5),
        rho=_rounded(sign * strike * years * _normal(sign * d2) / 100.0, 5),
    )


def _rounded(value: float, digits: int) -> float:
    # A sum with zero is never a negative zero.
    return round(value, digits) + 0.0


def _normal(x: float) -> float:
    return 0.5 * (1.0 + erf(x / sqrt(2.0)))

"""The columns of the group mft that have a window, written down from the specification in plain Python."""

from __future__ import annotations

import itertools
import math
import statistics

import numpy as np


def ratio(above: float, below: float, otherwise: float = math.nan) -> float:
    return above / below if below else otherwise


def score(values: list[float]) -> float:
    if any(value != value for value in values) or len(set(values)) == 1:
        return math.nan
    return (values[-1] - statistics.fmean(values)) / statistics.stdev(values)


def windowed(rows: np.ndarray) -> dict[str, float]:
    """Every column with a window at the last of `rows` (at least 200), written down from the specification."""
    o, h, lo, c, v = (rows[name].tolist() for name in ("open", "high", "low", "close", "volume"))
    tp = [(a + b + d) / 3 for a, b, d in zip(h, lo, c, strict=True)]
    r = [math.nan, *(math.log(b / a) for a, b in itertools.pairwise(c))]
    out = {"sma_50": statistics.fmean(c[-50:]), "sma_200": statistics.fmean(c[-200:])}
    out["true_range"] = max(h[-1] - lo[-1], abs(h[-1] - c[-2]), abs(lo[-1] - c[-2]))
    top, low = max(h[-20:]), min(lo[-20:])
    out |= {"donchian_high_20": top, "donchian_low_20": low, "donchian_mid_20": (top + low) / 2}
    out["donchian_position_20"] = ratio(c[-1] - low, top - low, 0.5)

    def stochastic(stop: int) -> float:
        top, low = max(h[stop - 14 : stop]), min(lo[stop - 14 : stop])
        return 100 * ratio(c[stop - 1] - low, top - low, 0.5)

    out["stoch_k_14"], size = stochastic(len(c)), len(c)
    out["stoch_d_3"] = statistics.fmean(stochastic(size - lag) for lag in range(3))
    out["williams_r_14"] = out["stoch_k_14"] - 100
    mean = statistics.fmean(tp[-20:])
    flat = len(set(tp[-20:])) == 1
    distance = math.fsum(abs(x - mean) for x in tp[-20:]) / 20
    out["cci_20"] = 0.0 if flat else (tp[-1] - mean) / (0.015 * distance)
    into = math.fsum(tp[i] * v[i] for i in range(size - 14, size) if tp[i] > tp[i - 1])
    away = math.fsum(tp[i] * v[i] for i in range(size - 14, size) if tp[i] < tp[i - 1])
    out["mfi_14"] = 100 * ratio(into, into + away, 0.5)
    clv = [ratio((z - y) - (x - z), x - y, 0.0) for x, y, z in zip(h, lo, c, strict=True)]
    out["cmf_20"] = ratio(math.fsum(a * b for a, b in zip(clv[-20:], v[-20:], strict=True)), math.fsum(v[-20:]))
    high, lowest = h[-26:][::-1], lo[-26:][::-1]
    out["aroon_up_25"] = 100 * (25 - high.index(max(high))) / 25
    out["aroon_down_25"] = 100 * (25 - lowest.index(min(lowest))) / 25
    path = math.fsum(abs(c[i] - c[i - 1]) for i in range(size - 10, size))
    out["efficiency_ratio_10"] = ratio(abs(c[-1] - c[-11]), path, 0.0)
    out["price_zscore_20"], out["volume_zscore_20"] = score(c[-20:]), score(v[-20:])
    out["linreg_slope_20"] = statistics.linear_regression(range(20), c[-20:]).slope
    out["linreg_r2_20"] = math.nan if len(set(c[-20:])) == 1 else statistics.correlation(range(20), c[-20:]) ** 2
    return out | ranges(o, h, lo, c) | moments(r[-60:], c) | from_feeds(rows[-60:])


def ranges(o: list[float], h: list[float], lo: list[float], c: list[float]) -> dict[str, float]:
    last, log = range(len(c) - 20, len(c)), math.log
    klass = statistics.fmean(log(h[i] / lo[i]) ** 2 / 2 - (2 * log(2) - 1) * log(c[i] / o[i]) ** 2 for i in last)
    satchell = statistics.fmean(
        log(h[i] / c[i]) * log(h[i] / o[i]) + log(lo[i] / c[i]) * log(lo[i] / o[i]) for i in last
    )
    night = statistics.variance(log(o[i] / c[i - 1]) for i in last)
    body = statistics.variance(log(c[i] / o[i]) for i in last)
    k = 0.34 / (1.34 + 21 / 19)
    return {
        "parkinson_vol_20": math.sqrt(math.fsum(log(h[i] / lo[i]) ** 2 for i in last) / (80 * log(2))),
        "garman_klass_vol_20": math.sqrt(klass) if klass >= 0 else math.nan,
        "rogers_satchell_vol_20": math.sqrt(satchell) if satchell >= 0 else math.nan,
        "yang_zhang_vol_20": math.sqrt(night + k * body + (1 - k) * satchell),
    }


def moments(r: list[float], c: list[float]) -> dict[str, float]:
    mean, x = statistics.fmean(r), [math.log(value) for value in c]
    d = [0.0] * 60 if len(set(r)) == 1 else [value - mean for value in r]
    m2, m3, m4 = (math.fsum(value**power for value in d) / 60 for power in (2, 3, 4))
    wide = math.fsum((x[-1 - i] - x[-6 - i] - 5 * mean) ** 2 for i in range(56)) / (5 * 56 * (1 - 5 / 60))
    own = x[-129:]
    moves = [statistics.fmean(abs(own[i + lag] - own[i]) for i in range(129 - lag)) for lag in (1, 2, 4, 8, 16)]
    known = len(own) == 129 and all(moves)
    lags = [math.log(lag) for lag in (1, 2, 4, 8, 16)]
    slope = statistics.linear_regression(lags, [math.log(move) for move in moves]).slope if known else math.nan
    peak, deepest = 0.0, 0.0
    for value in c[-60:]:
        peak = max(peak, value)
        deepest = min(deepest, (value - peak) / peak)
    return {
        "return_skew_60": ratio(m3, m2**1.5), "return_kurt_60": ratio(m4, m2**2) - 3,
        "return_autocorr_1_60": ratio(math.fsum(d[i] * d[i - 1] for i in range(1, 60)), 60 * m2),
        "return_autocorr_5_60": ratio(math.fsum(d[i] * d[i - 5] for i in range(5, 60)), 60 * m2),
        "variance_ratio_5_60": ratio(wide, 60 * m2 / 59), "hurst_128": slope, "max_drawdown_60": deepest,
    }  # fmt: skip


def from_feeds(rows: np.ndarray) -> dict[str, float]:
    variance, jump = math.fsum(rows["rv_1s"]), math.fsum(rows["jump_1s"])
    return {
        "realized_vol_60": math.sqrt(variance), "jump_ratio_60": ratio(jump, variance),
        "funding_zscore_60": score(rows["funding_rate"].tolist()),
        "basis_zscore_60": score(rows["basis_bps_tw"].tolist()),
    }  # fmt: skip

"""Candle columns written down from the specification, one event after another in plain Python: slow and independent."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from market_data_tick_handler.core.ticks import TickBatch

GRACE_US = 500_000
SKEW_US = 60_000_000
SECOND_US = 1_000_000
YEAR_2010_US = 1_262_304_000_000_000


@dataclass(frozen=True)
class Terms:
    """What the formulas need to know besides the rows."""

    window_us: float = 120e6
    bucket_volume: float = 3.0
    buckets: int = 5
    large: float = 40_000.0
    inverse: bool = False
    multiplier: float = 1.0


@dataclass
class Trade:
    """A trade that advances sequence state, with its increments; `counts` if it enters its candle."""

    ts: int
    lt: int
    p: float
    q: float
    s: int
    ruled: bool
    counts: bool
    e: int = 0
    d: float = 0.0
    r: float = 0.0
    dt: int = 0
    before: Trade | None = None
    signed_before: Trade | None = None
    disorder: bool = False
    notional: float = 0.0
    base: float = 0.0


@dataclass
class Stream:
    """Rows after judgement: trades in arrival order, and when each counted nuisance was counted."""

    terms: Terms
    trades: list[Trade] = field(default_factory=list)
    invalid: list[int] = field(default_factory=list)
    duplicate: list[int] = field(default_factory=list)
    refused: int = 0
    vpin: list[tuple[int, float | None]] = field(default_factory=list)


def judge(rows: TickBatch, terms: Terms) -> Stream:
    """Sections 2.3 to 2.8 for rows in arrival order."""
    out = Stream(terms)
    seen: set[tuple[int, int]] = set()
    direction = 0
    newest = 0
    signed: Trade | None = None
    names = ("timestamp", "local_timestamp", "id", "id_kind", "side", "price", "amount")
    for ts, lt, key, kind, side, p, q in zip(*(rows[name].tolist() for name in names), strict=True):
        if not YEAR_2010_US <= ts <= lt + SKEW_US:
            out.invalid.append(lt)
            continue
        if not (math.isfinite(p) and math.isfinite(q) and p > 0 and q > 0):
            if lt - ts <= terms.window_us:
                out.invalid.append(ts)
            continue
        if kind:
            if (kind, key) in seen:
                out.duplicate.append(lt)
                continue
            seen.add((kind, key))
        before = out.trades[-1] if out.trades else None
        if before is not None and p != before.p:
            direction = 1 if p > before.p else -1
        trade = Trade(ts, lt, p, q, side or direction, side == 0 and direction != 0, lt - ts <= terms.window_us)
        out.refused += not trade.counts
        trade.base = q * terms.multiplier / p if terms.inverse else q * terms.multiplier
        trade.notional = q * terms.multiplier if terms.inverse else p * q * terms.multiplier
        trade.e = max(before.e if before else 0, ts, lt - GRACE_US)
        trade.disorder = ts < newest
        trade.before, trade.signed_before = before, signed
        if before is not None:
            trade.d, trade.r, trade.dt = p - before.p, math.log(p / before.p), max(newest, ts) - newest
        newest = max(newest, ts)
        if trade.s:
            signed = trade
        out.trades.append(trade)
    _fill_buckets(out)
    return out


def _fill_buckets(out: Stream) -> None:
    size, count = out.terms.bucket_volume, out.terms.buckets
    full: list[float] = []
    fill = buy = sell = 0.0
    for trade in out.trades:
        left = trade.q if trade.s else 0.0
        while left > 0:
            part = min(left, size - fill)
            buy, sell = buy + part * (trade.s > 0), sell + part * (trade.s < 0)
            fill, left = fill + part, left - part
            if fill >= size * (1 - 1e-9):
                full.append(abs(buy - sell))
                fill = buy = sell = 0.0
        out.vpin.append((trade.lt, sum(full[-count:]) / (count * size) if len(full) >= count else None))


def _std(values: list[int]) -> float | None:
    n = len(values)
    return math.sqrt((n * sum(v * v for v in values) - sum(values) ** 2) / (n * (n - 1))) if n > 1 else None


def _deviation(values: list[float]) -> float | None:
    if len(values) < 2:
        return None
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))


def median(values: Iterable[float]) -> float | None:
    x = sorted(values)
    n = len(x)
    return None if n == 0 else x[n // 2] if n % 2 else (x[n // 2 - 1] + x[n // 2]) / 2


def nearest_rank(values: Iterable[float], percent: int) -> float | None:
    x = sorted(values)
    return x[-(-percent * len(x) // 100) - 1] if x else None


def _ratio(a: float, b: float) -> float | None:
    return a / b if b else None


def candles(stream: Stream, step_us: int, stop_us: int) -> list[dict[str, Any]]:
    """Every candle from the first traded one to the last that ends at or before `stop_us`."""
    counted = [trade for trade in stream.trades if trade.counts]
    if not counted:
        return []
    t0 = min(trade.ts for trade in counted) // step_us * step_us
    carried = math.nan
    out = []
    while t0 + step_us <= stop_us:
        mine = [trade for trade in counted if t0 <= trade.ts < t0 + step_us]
        row: dict[str, Any] = {"timestamp": t0, **_prices(mine, carried), **_sums(mine, step_us)}
        row |= _sizes(mine, stream.terms) | _sequence(mine) | _delays(mine) | _clocked(stream, t0, t0 + step_us)
        row["late_trade_count"] = sum(trade.lt >= t0 + step_us + GRACE_US for trade in mine)
        row["duplicate_trade_count"] = sum(t0 <= at < t0 + step_us for at in stream.duplicate)
        row["invalid_trade_count"] = sum(t0 <= at < t0 + step_us for at in stream.invalid)
        carried = row["close"]
        out.append(row)
        t0 += step_us
    return out


def _prices(mine: list[Trade], carried: float) -> dict[str, Any]:
    if not mine:
        return {"open": carried, "high": carried, "low": carried, "close": carried, "is_empty": True}
    by_time = sorted(mine, key=lambda trade: trade.ts)  # stable: arrival order within a timestamp
    prices = [trade.p for trade in mine]
    return {"open": by_time[0].p, "high": max(prices), "low": min(prices), "close": by_time[-1].p, "is_empty": False}


def _sums(mine: list[Trade], step_us: int) -> dict[str, Any]:
    buys = [trade for trade in mine if trade.s > 0]
    sells = [trade for trade in mine if trade.s < 0]
    volume, bought, sold = (math.fsum(trade.q for trade in part) for part in (mine, buys, sells))
    quote, quote_buy, quote_sell = (math.fsum(trade.notional for trade in part) for part in (mine, buys, sells))
    base, base_buy, base_sell = (math.fsum(trade.base for trade in part) for part in (mine, buys, sells))
    spread = quote_buy / base_buy - quote_sell / base_sell if buys and sells else None
    return {
        "volume": volume, "quote_volume": quote, "trade_count": len(mine), "price_vwap": _ratio(quote, base),
        "buy_volume_sum": bought, "sell_volume_sum": sold,
        "unknown_volume_sum": math.fsum(trade.q for trade in mine if trade.s == 0),
        "buy_quote_volume": quote_buy, "sell_quote_volume": quote_sell, "buy_count": len(buys),
        "sell_count": len(sells), "unknown_count": len(mine) - len(buys) - len(sells),
        "tick_rule_count": sum(trade.ruled for trade in mine), "buy_vwap": _ratio(quote_buy, base_buy),
        "sell_vwap": _ratio(quote_sell, base_sell), "bid_ask_spread_proxy": spread, "volume_delta": bought - sold,
        "order_flow_imbalance": _ratio(bought - sold, bought + sold),
        "trade_count_imbalance": _ratio(len(buys) - len(sells), len(buys) + len(sells)),
        "aggressive_buy_ratio": _ratio(bought, bought + sold), "aggressive_sell_ratio": _ratio(sold, bought + sold),
        "size_avg": _ratio(volume, len(mine)), "buy_size_avg": _ratio(bought, len(buys)),
        "sell_size_avg": _ratio(sold, len(sells)), "trade_intensity": len(mine) / (step_us / 1e6),
    }  # fmt: skip


def _sizes(mine: list[Trade], terms: Terms) -> dict[str, Any]:
    sizes = [trade.q for trade in mine]
    volume = math.fsum(sizes)
    large = [trade.q for trade in mine if trade.notional >= terms.large]
    spread = None
    if mine:
        mean = math.fsum(trade.p * trade.q for trade in mine) / volume
        spread = math.sqrt(math.fsum(trade.q * (trade.p - mean) ** 2 for trade in mine) / volume)
    return {
        "size_median": median(sizes), "size_std": _deviation(sizes), "size_max": max(sizes, default=None),
        "size_min": min(sizes, default=None), "size_hhi": _ratio(math.fsum(q * q for q in sizes), volume**2),
        "large_trade_count": len(large), "large_trade_volume": math.fsum(large), "price_vw_std": spread,
    }  # fmt: skip


def _sequence(mine: list[Trade]) -> dict[str, Any]:
    paired = [trade for trade in mine if trade.before is not None]
    gaps = [trade.dt for trade in paired]
    mean, deviation = (sum(gaps) / len(gaps) if gaps else None), _std(gaps)
    up, down = sum(trade.d > 0 for trade in paired), sum(trade.d < 0 for trade in paired)
    signs = [trade.s * trade.signed_before.s for trade in mine if trade.s and trade.signed_before is not None]
    changes = [trade.d * trade.before.d for trade in paired if trade.before and trade.before.before is not None]
    covariance = math.fsum(changes) / len(changes) if changes else 0.0
    root = [trade.s * math.sqrt(trade.notional) for trade in mine]
    root_paired = [trade.s * math.sqrt(trade.notional) for trade in paired]
    burst = None if mean is None or deviation is None else _ratio(deviation - mean, deviation + mean)
    return {
        "interarrival_mean_ms": None if mean is None else mean / 1e3,
        "interarrival_median_ms": None if not gaps else (median(gaps) or 0.0) / 1e3,
        "interarrival_std_ms": None if deviation is None else deviation / 1e3,
        "interarrival_max_ms": max(gaps) / 1e3 if gaps else None, "burstiness": burst,
        "tick_up_count": up, "tick_down_count": down, "tick_zero_count": len(paired) - up - down,
        "tick_imbalance": _ratio(up - down, up + down), "side_run_max": _longest_run(mine),
        "side_switch_count": sum(product < 0 for product in signs),
        "sign_autocorr_1": _ratio(sum(signs), len(signs)),
        "price_path_length": math.fsum(abs(trade.d) for trade in paired),
        "rv_tick": math.fsum(trade.r**2 for trade in paired),
        "kyle_lambda": _ratio(
            math.fsum(trade.d * trade.s * trade.q for trade in paired),
            math.fsum((trade.s * trade.q) ** 2 for trade in paired),
        ),
        "hasbrouck_lambda": _ratio(
            math.fsum(trade.r * y for trade, y in zip(paired, root_paired, strict=True)),
            math.fsum(y * y for y in root_paired),
        ),
        "signed_sqrt_notional": math.fsum(root),
        "roll_spread": (2 * math.sqrt(-covariance) if covariance < 0 else 0.0) if changes else None,
        "out_of_order_count": sum(trade.disorder for trade in mine),
    }  # fmt: skip


def _longest_run(mine: list[Trade]) -> int:
    best = run = last = 0
    for trade in mine:
        if trade.s:
            run = run + 1 if trade.s == last else 1
            last = trade.s
            best = max(best, run)
    return best


def _delays(mine: list[Trade]) -> dict[str, Any]:
    delays = [trade.lt - trade.ts for trade in mine]
    values: dict[str, float | None] = {
        "delay_median": median(delays), "delay_p95": nearest_rank(delays, 95), "delay_p99": nearest_rank(delays, 99),
        "delay_mean": _ratio(sum(delays), len(delays)), "delay_min": min(delays, default=None),
        "delay_max": max(delays, default=None), "delay_std": _std(delays),
    }  # fmt: skip
    out: dict[str, Any] = {name: None if value is None else value / 1e3 for name, value in values.items()}
    return {**out, "delay_negative_count": sum(delay < 0 for delay in delays)}


def _clocked(stream: Stream, t0: int, t1: int) -> dict[str, Any]:
    """Columns of the e-clock and of arrival: twap, the 1 s grid, VPIN."""
    clocks, prices = [trade.e for trade in stream.trades], [trade.p for trade in stream.trades]
    cuts = [t0, *(e for e in clocks if t0 < e < t1), t1]
    area, length = [], 0
    for start, stop in pairwise(cuts):
        at = bisect_left(clocks, start + 1) - 1  # in force at `start`: the last trade with e <= start
        if at >= 0:
            area.append(prices[at] * (stop - start))
            length += stop - start

    def price_at(g: int) -> float | None:
        at = bisect_left(clocks, g) - 1
        return prices[at] if at >= 0 else None

    def move(g: int) -> float:
        now, then = price_at(g), price_at(g - SECOND_US)
        if now is None:
            return 0.0
        return math.log(now / (prices[0] if then is None else then))

    grid = range(t0 + SECOND_US, t1 + 1, SECOND_US)
    moves = [(move(g), move(g - SECOND_US)) for g in grid]
    rv = math.fsum(r * r for r, _ in moves)
    bpv = math.pi / 2 * math.fsum(abs(r) * abs(before) for r, before in moves)
    known = [value for lt, value in stream.vpin if lt < t1 + GRACE_US]
    return {
        "twap": math.fsum(area) / length if length else None, "rv_1s": rv, "bpv_1s": bpv, "jump_1s": max(rv - bpv, 0),
        "rv_up_1s": math.fsum(r * r for r, _ in moves if r > 0),
        "rv_down_1s": math.fsum(r * r for r, _ in moves if r < 0),
        "rq_1s": len(moves) / 3 * math.fsum(r**4 for r, _ in moves), "realized_vol": math.sqrt(rv),
        "vpin": known[-1] if known else None,
    }  # fmt: skip


ARRIVAL_COLUMNS = frozenset(
    ("twap", "rv_1s", "bpv_1s", "jump_1s", "rv_up_1s", "rv_down_1s", "rq_1s", "realized_vol", "vpin")
)

"""The book columns of one snapshot and of one candle in plain Python, sharing no code with the kernels."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

from market_data_tick_handler.core.ticks import TickBatch
from tests.core.features.slow import Row, effective

NOTIONAL = 250_000.0
Level = tuple[float, float]
AVERAGED = (
    *("spread", "spread_bps", "mid_price", "microprice", "queue_imbalance", "depth_imbalance_5", "bid_depth_5"),
    *("ask_depth_5", "book_pressure_5"),
)


def side(row: Row, name: str) -> list[Level]:
    """The levels of a side up to the first bad one, best first."""
    out: list[Level] = []
    for level in range(1, 6):
        price, amount = row[f"{name}_price_{level}"], row[f"{name}_volume_{level}"]
        if not (math.isfinite(price) and math.isfinite(amount) and price > 0 and amount > 0):
            break
        out.append((price, amount))
    return out


def snapshot(row: Row, *, inverse: bool = False, multiplier: float = 1.0, notional: float = NOTIONAL) -> Row:
    """Every column of one snapshot that is not null."""
    bids, asks = side(row, "bid"), side(row, "ask")
    if not bids or not asks or bids[0][0] >= asks[0][0]:
        return {}
    mid = (asks[0][0] + bids[0][0]) / 2
    out: Row = {"mid_price": mid, "spread": asks[0][0] - bids[0][0]}
    out["spread_bps"] = 1e4 * out["spread"] / mid
    bid_amount, ask_amount = bids[0][1], asks[0][1]
    out["microprice"] = (bids[0][0] * ask_amount + asks[0][0] * bid_amount) / (bid_amount + ask_amount)
    out["microprice_dev_bps"] = 1e4 * (out["microprice"] - mid) / mid
    for level, (bid, ask) in enumerate(zip(bids, asks, strict=False), 1):
        out[f"level_imbalance_{level}"] = (bid[1] - ask[1]) / (bid[1] + ask[1])
    out["queue_imbalance"] = out["level_imbalance_1"]
    for levels in range(2, 6):
        deep, high = (sum(amount for _, amount in held[:levels]) for held in (bids, asks))
        out[f"depth_imbalance_{levels}"] = (deep - high) / (deep + high)
    for name, held in (("bid", bids), ("ask", asks)):
        out |= {f"{name}_{key}": value for key, value in _side(held, mid, inverse, multiplier).items()}
        for level, (price, amount) in enumerate(held, 1):
            out[f"{name}_price_{level}"], out[f"{name}_volume_{level}"] = price, amount
    out |= _both(bids, asks, out, mid)
    for name, held, sign in (("buy", asks, 1.0), ("sell", bids, -1.0)):
        average = _walk(held, inverse, multiplier, notional)
        if average is not None:
            out[f"impact_{name}_bps"] = sign * 1e4 * (average - mid) / mid
    return out


def _side(held: list[Level], mid: float, inverse: bool, multiplier: float) -> Row:
    amounts = [amount for _, amount in held]
    depth = sum(amounts)
    notional = sum(amount * multiplier * (1.0 if inverse else price) for price, amount in held)
    base = sum(amount * multiplier / (price if inverse else 1.0) for price, amount in held)
    x = [abs(mid - price) / mid * 1e4 for price, _ in held]
    cumulative = [sum(amounts[: index + 1]) for index in range(len(amounts))]
    out: Row = {
        "depth_5": depth,
        "notional_5": notional,
        "vwap_5": notional / base,
        "slope_5": sum(a * b for a, b in zip(x, cumulative, strict=True)) / sum(a * a for a in x),
        "depth_share_1": amounts[0] / depth,
        "levels": len(held),
    }
    if len(held) > 1:
        gaps = [abs(a[0] - b[0]) / mid * 1e4 for a, b in pairwise(held)]
        out["gap_mean_bps"], out["gap_max_bps"] = sum(gaps) / len(gaps), max(gaps)
        shares = [amount / depth for amount in amounts]
        out["depth_entropy_5"] = -sum(w * math.log(w) for w in shares) / math.log(len(shares))
    return out


def _both(bids: list[Level], asks: list[Level], known: Row, mid: float) -> Row:
    out: Row = {"total_depth_5": known["bid_depth_5"] + known["ask_depth_5"]}
    out["depth_ratio_log_5"] = math.log(known["bid_depth_5"] / known["ask_depth_5"])
    out["vwap_spread_bps_5"] = 1e4 * (known["ask_vwap_5"] - known["bid_vwap_5"]) / mid
    out["weighted_depth_price_5"] = sum(price * amount for price, amount in bids + asks) / out["total_depth_5"]
    pairs = list(zip(bids, asks, strict=False))
    crossed = sum(bid[0] * ask[1] + ask[0] * bid[1] for bid, ask in pairs)
    out["vamp_5"] = crossed / sum(bid[1] + ask[1] for bid, ask in pairs)
    out["vamp_dev_bps_5"] = 1e4 * (out["vamp_5"] - mid) / mid
    slopes = known["bid_slope_5"], known["ask_slope_5"]
    out["slope_imbalance_5"] = (slopes[0] - slopes[1]) / (slopes[0] + slopes[1])
    weights = [sum(amount / (abs(mid - price) / mid * 1e4) for price, amount in held) for held in (bids, asks)]
    out["book_pressure_5"] = (weights[0] - weights[1]) / (weights[0] + weights[1])
    return out


def _walk(held: list[Level], inverse: bool, multiplier: float, notional: float) -> float | None:
    left, base = notional, 0.0
    for price, amount in held:
        quote = amount * multiplier * (1.0 if inverse else price)
        base += min(quote, left) / price
        if quote >= left:
            return notional / base
        left -= quote
    return None


def flow(before: Row, after: Row, level: int) -> float:
    """Order flow of one level between two valid snapshots."""

    def at(row: Row, name: str, missing: float) -> Level:
        held = side(row, name)
        return held[level - 1] if len(held) >= level else (missing, 0.0)

    (bid, bid_amount), (bid_was, bid_amount_was) = at(after, "bid", -math.inf), at(before, "bid", -math.inf)
    (ask, ask_amount), (ask_was, ask_amount_was) = at(after, "ask", math.inf), at(before, "ask", math.inf)
    out = (bid_amount if bid >= bid_was else 0.0) - (bid_amount_was if bid <= bid_was else 0.0)
    return out - (ask_amount if ask <= ask_was else 0.0) + (ask_amount_was if ask >= ask_was else 0.0)


class SlowBook:
    """All snapshots of a run, each with what it says and when it takes effect."""

    def __init__(self, rows: TickBatch, **units: Any) -> None:
        self.rows = effective(rows)
        self.said = [snapshot(row, **units) for row in self.rows]

    def candle(self, t0: int, t1: int) -> Row:
        """The columns of a candle that are not null, in one go over everything from the beginning."""
        inside = [index for index, row in enumerate(self.rows) if t0 <= row["e"] < t1]
        out = self._counts(inside) | self._flow(inside)
        before = [index for index, row in enumerate(self.rows) if row["e"] < t1]
        if before:
            out |= self.said[before[-1]]
            out["book_age_ms"] = (t1 - self.rows[before[-1]]["e"]) / 1000
        return out | self._over_time(t0, t1, inside, out.get("mid_price"))

    def _counts(self, inside: list[int]) -> Row:
        best = [(side(self.rows[i], "bid")[:1], side(self.rows[i], "ask")[:1]) for i in inside]
        pairs = [(bid[0][0], ask[0][0]) for bid, ask in best if bid and ask]
        out: Row = {
            "book_update_count": len(inside),
            "book_invalid_count": len(best) - len(pairs),
            "crossed_count": sum(bid > ask for bid, ask in pairs),
            "locked_count": sum(bid == ask for bid, ask in pairs),
        }
        for column, name in (
            ("bid_price_change_count", "bid_price_1"),
            ("ask_price_change_count", "ask_price_1"),
            ("mid_change_count", "mid_price"),
        ):
            out[column] = sum(self.said[i][name] != self.said[i - 1][name] for i in self._pairs(inside))
        return out

    def _pairs(self, inside: list[int]) -> list[int]:
        return [i for i in inside if i > 0 and self.said[i] and self.said[i - 1]]

    def _flow(self, inside: list[int]) -> Row:
        flows = [sum(flow(self.rows[i - 1], self.rows[i], m) for i in self._pairs(inside)) for m in range(1, 6)]
        out: Row = {f"ofi_{m}": value for m, value in enumerate(flows, 1)}
        out["ofi_total"] = sum(flows)
        depths = [self.said[i]["total_depth_5"] / 10 for i in inside if self.said[i]]
        if depths:
            scale = sum(depths) / len(depths)
            out |= {f"ofi_norm_{m}": value / scale for m, value in enumerate(flows, 1)}
            out["ofi_integrated"] = sum(flows) / 5 / scale
        return out

    def _over_time(self, t0: int, t1: int, inside: list[int], closing: float | None) -> Row:
        earlier = [index for index, row in enumerate(self.rows) if row["e"] < t0]
        held = [*earlier[-1:], *inside]
        ends = [*(self.rows[index]["e"] for index in held[1:]), t1]
        pieces = [
            (self.said[index], max(end, t0) - max(self.rows[index]["e"], t0))
            for index, end in zip(held, ends, strict=True)
        ]
        out: Row = {}
        covered, valid = sum(dt for _, dt in pieces), sum(dt for said, dt in pieces if said)
        if covered:
            out["book_valid_ratio"] = valid / covered
        if valid:
            for name in AVERAGED:
                out[f"{name}_tw"] = math.fsum(said[name] * dt for said, dt in pieces if said) / valid
        seen = [said for said, _ in pieces if said]
        if seen:
            mids, spreads = [said["mid_price"] for said in seen], [said["spread_bps"] for said in seen]
            out |= {"mid_open": mids[0], "mid_high": max(mids), "mid_low": min(mids)}
            out |= {"spread_bps_min": min(spreads), "spread_bps_max": max(spreads)}
            if closing is not None:
                out["mid_return"] = (closing - mids[0]) / mids[0]
        return out

"""Columns of the five levels of the book."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from market_data_tick_handler.core.features.column import Column

_CANDLES: Final = ("book_10m_expected_15s.csv", "book_10m_expected_60s.csv")
_SNAPSHOTS: Final = (*_CANDLES, "book_10m_expected_per_snapshot.csv")
_LEVELS: Final = range(1, 6)
_PRICE: Final = {"unit": "quote/base", "atol": 1e-08}
_BASE: Final = {"unit": "base", "atol": 1e-09}
_QUOTE: Final = {"unit": "quote", "atol": 1e-05}
_BPS: Final = {"unit": "bps", "atol": 1e-07}
_SIGNED: Final = {"unit": "[-1,1]", "atol": 1e-12}
_SHARE: Final = {"unit": "[0,1]", "atol": 1e-12}


def _column(name: str, formula: str, **declared: Any) -> Column:
    return Column(
        name=name, group="book", formula=formula, input="book", depends_on_arrival=True,
        **{"golden_files": _CANDLES, **declared},
    )  # fmt: skip


def _held(name: str, formula: str, source: str, **declared: Any) -> Column:
    """Follows from the one snapshot that is held at the candle's end."""
    rule = {"null_when": "state invalid at t1", "scope": "A", "rollup": "ASOF", "numerics": "N7", "edge": "BS"}
    return _column(name, formula, source=source, **{**rule, "golden_files": _SNAPSHOTS, **declared})


def _in_candle(name: str, formula: str, source: str, **declared: Any) -> Column:
    """Follows from what happened in the candle."""
    return _column(name, formula, source=source, scope="C", **declared)


def _raw_levels() -> Iterator[Column]:
    for level in _LEVELS:
        for side in ("bid", "ask"):
            yield _held(
                f"{side}_price_{level}", f"{side} level {level} price of the state held at t1",
                "brief (5 levels); Tardis book_snapshot_5", null_when="level missing or state invalid",
                numerics="N6", golden_files=_CANDLES, **_PRICE,
            )  # fmt: skip
            yield _held(
                f"{side}_volume_{level}", f"{side} level {level} amount of the state held at t1", "brief",
                null_when="as price", numerics="N6", golden_files=_CANDLES, **_BASE,
            )  # fmt: skip


def _imbalances() -> Iterator[Column]:
    yield _held(
        "queue_imbalance", "(qb1−qa1)/(qb1+qa1); alias of level_imbalance_1", "Gould-Bonart 2016", **_SIGNED
    )  # fmt: skip
    for level in _LEVELS:
        yield _held(
            f"level_imbalance_{level}", f"(qb{level}−qa{level})/(qb{level}+qa{level})", "per-level imbalance",
            null_when="state invalid or level missing on either side", **_SIGNED,
        )  # fmt: skip
    for level in _LEVELS[1:]:
        yield _held(
            f"depth_imbalance_{level}",
            f"(CB−CA)/(CB+CA), CB,CA = Σ amounts of levels 1..{level} (missing level = 0)",
            "hftbacktest static OBI; Cao-Hansch-Wang 2009", **_SIGNED,
        )  # fmt: skip


def _prices_and_depths() -> Iterator[Column]:
    yield _held("mid_price", "(a1+b1)/2", "standard", **_PRICE)
    yield _held("spread", "a1 − b1", "standard; Kaiko, Nautilus SpreadAnalyzer", **_PRICE)
    yield _held("spread_bps", "1e4·spread/mid", "standard; CoinMetrics spread percent", **_BPS)
    yield _held(
        "microprice", "(b1·qa1 + a1·qb1)/(qb1+qa1) - imbalance-weighted mid (hftbacktest VAMP_bbo)",
        "Gatheral-Oomen 2010; Stoikov 2018 calls this the weighted mid", **_PRICE,
    )  # fmt: skip
    yield _held("microprice_dev_bps", "1e4·(microprice−mid)/mid", "standard", **_BPS)
    yield from _imbalances()
    yield _held("bid_depth_5", "Σ qb_i", "Kaiko/CoinMetrics depth (by level here)", **_BASE)
    yield _held("ask_depth_5", "Σ qa_i", "as above", **_BASE)
    yield _held("total_depth_5", "bid_depth_5+ask_depth_5", "as above", **_BASE)
    yield _held("bid_notional_5", "Σ b_i·qb_i", "as above", **_QUOTE)
    yield _held("ask_notional_5", "Σ a_i·qa_i", "as above", **_QUOTE)
    yield _held(
        "depth_ratio_log_5", "ln(bid_depth_5/ask_depth_5)", "standard", unit="log ratio", numerics="N7 log", atol=1e-12
    )
    yield _held("bid_vwap_5", "bid_notional_5/bid_depth_5", "side VWAP", **_PRICE)
    yield _held("ask_vwap_5", "ask_notional_5/ask_depth_5", "side VWAP", **_PRICE)
    yield _held("vwap_spread_bps_5", "1e4·(ask_vwap_5−bid_vwap_5)/mid", "depth-weighted spread", **_BPS)
    yield _held(
        "weighted_depth_price_5", "(Σb_i qb_i + Σa_i qa_i)/(Σqb+Σqa) (same-side weights)",
        "hftbacktest weighted-depth order book price, N=5 levels", **_PRICE,
    )  # fmt: skip
    yield _held(
        "vamp_5", "Σ_{i≤m}(b_i qa_i + a_i qb_i)/Σ_{i≤m}(qb_i+qa_i), m=min(#bid,#ask levels) (cross weights)",
        "hftbacktest VAMP_N, N=5 levels", **_PRICE,
    )  # fmt: skip
    yield _held("vamp_dev_bps_5", "1e4·(vamp_5−mid)/mid", "as above", **_BPS)


def _shape() -> Iterator[Column]:
    for side in ("bid", "ask"):
        yield _held(
            f"{side}_slope_5",
            f"Σ x_i C_i / Σ x_i², x_i = |mid−p_i|/mid·1e4 bps, C_i = cumulative {side} amount "
            "(least squares through the origin)",
            "order-book slope, after Næs-Skjeltorp 2006", unit="base per bps", atol=1e-09,
        )  # fmt: skip
    yield _held("slope_imbalance_5", "(bid_slope−ask_slope)/(bid_slope+ask_slope)", "as above", **_SIGNED)
    yield _held(
        "book_pressure_5", "(Wb−Wa)/(Wb+Wa), W = Σ q_i/x_i, x_i as in slope",
        "distance-weighted pressure (price-pressure literature)", **_SIGNED,
    )  # fmt: skip
    for side, letter in (("bid", "b"), ("ask", "a")):
        yield _held(
            f"{side}_gap_mean_bps", f"mean of |p_i−p_{{i-1}}|/mid·1e4 over adjacent {side} levels",
            "book resilience literature", null_when="invalid or <2 levels", **_BPS,
        )  # fmt: skip
        yield _held(
            f"{side}_gap_max_bps", "max of the same", "as above", null_when="invalid or <2 levels", tier="ext", **_BPS
        )
        yield _held(f"{side}_depth_share_1", f"q{letter}1 / {side}_depth_5", "concentration", **_SHARE)
        yield _held(
            f"{side}_depth_entropy_5", "−Σ w ln w / ln L, w=q_i/Σq, L=levels present", "Shannon",
            null_when="invalid or <2 levels", numerics="N7 log", tier="ext", **_SHARE,
        )  # fmt: skip
    for side, walked in (("buy", "ask"), ("sell", "bid")):
        yield _held(
            f"impact_{side}_bps",
            f"walk the {walked} side for impact_notional quote (config, default 250 000; last level taken partially): "
            "±1e4·(avg price−mid)/mid",
            "Kaiko price slippage; CoinMetrics slippage",
            null_when="invalid or 5 levels hold less than the notional", **_BPS,
        )  # fmt: skip
    for side, formula in (("bid", "valid bid levels (0..5)"), ("ask", "valid ask levels")):
        yield _held(f"{side}_levels", formula, "quality", unit="levels", dtype="int64", numerics="N0")


def _over_time() -> Iterator[Column]:
    averaged = (
        ("spread", _PRICE), ("spread_bps", _BPS), ("mid_price", _PRICE), ("microprice", _PRICE),
        ("queue_imbalance", _SIGNED), ("depth_imbalance_5", _SIGNED), ("bid_depth_5", _BASE), ("ask_depth_5", _BASE),
        ("book_pressure_5", _SIGNED),
    )  # fmt: skip
    for name, kind in averaged:
        yield _in_candle(
            f"{name}_tw", f"∫ {name} dt / ∫ dt over the valid part of [t0,t1), carry-in state included",
            "time-weighted; Kaiko averages snapshots instead", null_when="no valid time in the candle",
            rollup="DER (Σx·dt,Σdt)", numerics="N8", edge="BT", **kind,
        )  # fmt: skip
    extremes = (
        ("spread_bps_min", "min over states held or received", "standard", "MIN", _BPS),
        ("spread_bps_max", "max likewise", "standard", "MAX", _BPS),
        (
            "mid_open", "mid held at t0, else first valid mid in the candle",
            "quote bars (Databento bbo-1m, Nautilus)", "FIRST", _PRICE,
        ),
        ("mid_high", "max mid held or received", "as above", "MAX", _PRICE),
        ("mid_low", "min mid", "as above", "MIN", _PRICE),
    )  # fmt: skip
    for name, formula, source, rollup, kind in extremes:
        yield _in_candle(
            name, formula, source, null_when="never valid", rollup=rollup, numerics="N6", edge="BT", **kind
        )
    yield _in_candle(
        "mid_return", "(mid_price − mid_open)/mid_open", "standard", null_when="mid_price or mid_open null",
        unit="fraction", rollup="DER", numerics="N7", edge="BT", atol=1e-12,
    )  # fmt: skip


def _flow() -> Iterator[Column]:
    for level in _LEVELS:
        source = "Cont-Kukanov-Stoikov 2014" + (" (level 1)" if level == 1 else "; multi-level Xu-Gould-Howison 2018")
        yield _in_candle(
            f"ofi_{level}",
            f"Σ_n e_n^{level}; e = 1[Pb≥Pb⁻]qb − 1[Pb≤Pb⁻]qb⁻ − 1[Pa≤Pa⁻]qa + 1[Pa≥Pa⁻]qa⁻ at level {level}; "
            "⁻ = previous snapshot; missing bid level = (−∞,0), missing ask = (+∞,0); pairs with an invalid member "
            "are skipped",
            source, null_when="never (0)", rollup="SUM", numerics="N1", edge="BF", **_BASE,
        )  # fmt: skip
    yield _in_candle(
        "ofi_total", "ofi_1+…+ofi_5", "MLOFI sum", null_when="never (0)", rollup="DER", numerics="N7", edge="BF",
        **_BASE,
    )  # fmt: skip
    ratio = {"null_when": "no valid snapshot", "unit": "ratio", "edge": "BF", "atol": 1e-11}
    for level in _LEVELS:
        yield _in_candle(
            f"ofi_norm_{level}", f"ofi_{level} / Q, Q = mean over valid snapshots of (Σqb+Σqa)/10",
            "Cont-Cucuringu-Zhang 2023 (average-depth scaling)", rollup="DER (Σofi, ΣQ, n)", numerics="N1", **ratio,
        )  # fmt: skip
    yield _in_candle(
        "ofi_integrated",
        "Σ_m w_m·ofi_norm_m, Σw=1; default w=1/5 each, config may load PCA weights",
        "Cont-Cucuringu-Zhang 2023 (PC1 weights)", rollup="DER", numerics="N7", **ratio,
    )  # fmt: skip


def _counts() -> Iterator[Column]:
    counted = (
        ("book_update_count", "snapshots received"),
        ("book_invalid_count", "one-sided or unusable snapshots"),
        ("crossed_count", "b1>a1"),
        ("locked_count", "b1=a1"),
        ("bid_price_change_count", "consecutive valid snapshots with b1 changed"),
        ("ask_price_change_count", "a1 changed"),
        ("mid_change_count", "mid changed"),
    )
    for name, formula in counted:
        yield _in_candle(
            name, formula, "quality/activity", null_when="never (0)", unit="events", dtype="int64", rollup="SUM",
            numerics="N0", edge="BC",
        )  # fmt: skip
    yield _in_candle(
        "book_valid_ratio", "valid time / covered time in [t0,t1)", "quality", null_when="no coverage", rollup="DER",
        numerics="N0", edge="BT", **_SHARE,
    )  # fmt: skip
    yield _held(
        "book_age_ms", "(t1 − e of last snapshot)/1000", "staleness", null_when="never seen", unit="ms",
        numerics="N0", golden_files=_CANDLES, atol=1e-09,
    )  # fmt: skip
    yield _held(
        "microprice_stoikov",
        "mid + G*(I,S): table lookup, I=imbalance decile, S=spread in ticks; G* calibrated offline (section 7.6)",
        "Stoikov 2018; PyPI microprice; github sstoikov/microprice",
        null_when="invalid, table missing, or S outside the table", numerics="N6", tier="opt", golden_files=(),
        **_PRICE,
    )  # fmt: skip


COLUMNS: Final = (*_raw_levels(), *_prices_and_depths(), *_shape(), *_over_time(), *_flow(), *_counts())

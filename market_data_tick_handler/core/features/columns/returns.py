"""Columns computed from closed candles: returns, shapes, session and rolling order flow."""

from __future__ import annotations

from typing import Final

from market_data_tick_handler.core.features.column import Column

_TRADES: Final = tuple(f"trades_10m_expected_{step}.csv" for step in ("15s", "60s", "300s"))
_BARS: Final = ("bars_200_expected.csv",)

COLUMNS: Final = (
    Column(
        name="close_to_close_return", group="returns", unit="fraction",
        formula="(c_i − c_{i-1}) / c_{i-1}",
        null_when="i=0",
        input="candles", scope="R2", rollup="SELF", numerics="N7", edge="CW",
        source="brief; TA-Lib ROCP(1) bit-equal",
        atol=1e-12, golden_files=_BARS,
    ),
    Column(
        name="log_return", group="returns", unit="fraction",
        formula="ln(c_i / c_{i-1})",
        null_when="i=0",
        input="candles", scope="R2", rollup="SELF", numerics="N7 log", edge="CW",
        source="standard",
        atol=1e-12, golden_files=_BARS,
    ),
    Column(
        name="open_to_close_return", group="returns", unit="fraction",
        formula="(c − o)/o",
        null_when="never",
        input="candles", scope="C", rollup="SELF", numerics="N7", edge="CW",
        source="standard",
        atol=1e-12, golden_files=_BARS,
    ),
    Column(
        name="gap_return", group="returns", unit="fraction",
        formula="(o_i − c_{i-1})/c_{i-1}",
        null_when="i=0",
        input="candles", scope="R2", rollup="SELF", numerics="N7", edge="CW",
        source="Yang-Zhang overnight term",
        atol=1e-12, golden_files=_BARS,
    ),
    Column(
        name="high_low_ratio", group="returns", unit="ratio ≥ 1",
        formula="high / low",
        null_when="never",
        input="candles", scope="C", rollup="SELF", numerics="N7", edge="CW",
        source="brief",
        atol=1e-12, golden_files=_BARS,
    ),
    Column(
        name="close_location", group="returns", unit="[-1,1]",
        formula="((c−l)−(h−c))/(h−l); h=l → 0",
        null_when="never",
        input="candles", scope="C", rollup="SELF", numerics="N7", edge="CW",
        source="Chaikin CLV (TTR CLV)",
        atol=1e-12, golden_files=_BARS,
    ),
    Column(
        name="body_ratio", group="returns", unit="[-1,1]", tier="ext",
        formula="(c−o)/(h−l); h=l → 0",
        null_when="never",
        input="candles", scope="C", rollup="SELF", numerics="N7", edge="CW",
        source="candlestick geometry",
        atol=1e-12, golden_files=_BARS,
    ),
    Column(
        name="upper_wick_ratio", group="returns", unit="[0,1]", tier="ext",
        formula="(h−max(o,c))/(h−l); h=l → 0",
        null_when="never",
        input="candles", scope="C", rollup="SELF", numerics="N7", edge="CW",
        source="candlestick geometry",
        atol=1e-12, golden_files=_BARS,
    ),
    Column(
        name="lower_wick_ratio", group="returns", unit="[0,1]", tier="ext",
        formula="(min(o,c)−l)/(h−l); h=l → 0",
        null_when="never",
        input="candles", scope="C", rollup="SELF", numerics="N7", edge="CW",
        source="candlestick geometry",
        atol=1e-12, golden_files=_BARS,
    ),
    Column(
        name="cvd_session", group="returns", unit="base",
        formula="Σ volume_delta since 00:00 UTC of the candle's day, this candle included",
        null_when="never",
        input="trades", scope="S", rollup="ASOF", numerics="N1", edge="TC",
        source="CVD practice; day anchor makes restarts reproducible",
        atol=1e-09, golden_files=_TRADES,
    ),
    Column(
        name="amihud_illiq", group="returns", unit="fraction per 1M quote",
        formula="1e6·|log_return| / quote_volume",
        null_when="i=0 or quote_volume=0",
        input="trades", scope="C", rollup="SELF", numerics="N7", edge="CW",
        source="Amihud 2002",
        atol=1e-12, golden_files=_BARS,
    ),
    Column(
        name="price_impact", group="returns", unit="fraction per 1M quote",
        formula="1e6·|c−o|/o / quote_volume",
        null_when="quote_volume=0",
        input="trades", scope="C", rollup="SELF", numerics="N7", edge="CW",
        source="brief \"price impact estimates\"; intrabar Amihud",
        atol=1e-12, golden_files=_TRADES,
    ),
    Column(
        name="order_flow_toxicity_20", group="returns", unit="[0,1]",
        formula="Σ|B_i−S_i| / Σ volume_i over the last 20 candles (time-bar VPIN)",
        null_when="warm-up 20; Σvolume=0",
        input="candles", scope="R20", rollup="SELF", numerics="N2", edge="CW",
        source="ELO 2012 adapted to time bars",
        atol=1e-12, golden_files=_BARS,
    ),
    Column(
        name="order_flow_imbalance_5", group="returns", unit="[-1,1]",
        formula="Σ(B−S) / Σ(B+S) over the last 5 candles",
        null_when="warm-up 5; Σ(B+S)=0",
        input="candles", scope="R5", rollup="SELF", numerics="N2", edge="CW",
        source="brief",
        atol=1e-12, golden_files=_BARS,
    ),
    Column(
        name="order_flow_imbalance_10", group="returns", unit="[-1,1]",
        formula="Σ(B−S) / Σ(B+S) over the last 10 candles",
        null_when="warm-up 10; Σ(B+S)=0",
        input="candles", scope="R10", rollup="SELF", numerics="N2", edge="CW",
        source="brief",
        atol=1e-12, golden_files=_BARS,
    ),
    Column(
        name="order_flow_imbalance_20", group="returns", unit="[-1,1]",
        formula="Σ(B−S) / Σ(B+S) over the last 20 candles",
        null_when="warm-up 20; Σ(B+S)=0",
        input="candles", scope="R20", rollup="SELF", numerics="N2", edge="CW",
        source="brief",
        atol=1e-12, golden_files=_BARS,
    ),
)  # fmt: skip

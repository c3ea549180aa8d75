"""Columns that set the ticker and liquidations against the candle's own trades."""

from __future__ import annotations

from typing import Final

from market_data_tick_handler.core.features.column import Column

_FILES: Final = tuple(f"liquidations_10m_expected_{step}.csv" for step in ("15s", "60s"))

COLUMNS: Final = (
    Column(
        name="premium_close_bps", group="derivative_ratios", unit="bps", tier="ext",
        formula="1e4·(close − index_price)/index_price",
        null_when="index null",
        input="candles+derivative_ticker", scope="A", rollup="ASOF", numerics="N7", edge="DA",
        source="perp premium",
        depends_on_arrival=True, atol=1e-07,
    ),
    Column(
        name="mark_deviation_bps", group="derivative_ratios", unit="bps", tier="ext",
        formula="1e4·(close − mark_price)/mark_price",
        null_when="mark null",
        input="candles+derivative_ticker", scope="A", rollup="ASOF", numerics="N7", edge="DA",
        source="standard",
        depends_on_arrival=True, atol=1e-07,
    ),
    Column(
        name="oi_volume_ratio", group="derivative_ratios", unit="ratio", tier="ext",
        formula="oi_change / volume",
        null_when="oi_change null or volume=0",
        input="derivative_ticker+trades", scope="C", rollup="SELF", numerics="N7", edge="DA",
        source="standard",
        depends_on_arrival=True, atol=1e-12,
    ),
    Column(
        name="liquidation_volume_ratio", group="derivative_ratios", unit="ratio",
        formula="liquidation_volume / volume",
        null_when="volume=0",
        input="liquidations", scope="C", rollup="DER", numerics="N7", edge="LQ",
        source="standard",
        atol=1e-12, golden_files=_FILES,
    ),
)  # fmt: skip

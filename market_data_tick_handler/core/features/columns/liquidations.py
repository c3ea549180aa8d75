"""Columns on forced closings."""

from __future__ import annotations

from typing import Final

from market_data_tick_handler.core.features.column import Column

_FILES: Final = tuple(f"liquidations_10m_expected_{step}.csv" for step in ("15s", "60s"))

COLUMNS: Final = (
    Column(
        name="liquidation_count", group="liquidations", unit="events", dtype="int64",
        formula="accepted liquidation events (same duplicate/invalid rules as trades; late ones included)",
        null_when="instrument has no liquidations feed",
        input="liquidations", scope="C", rollup="SUM", numerics="N0", edge="LQ",
        source="brief",
        golden_files=_FILES,
    ),
    Column(
        name="liquidation_buy_count", group="liquidations", unit="events", dtype="int64",
        formula="side=buy: a SHORT was liquidated (bought back)",
        null_when="as above",
        input="liquidations", scope="C", rollup="SUM", numerics="N0", edge="LQ",
        source="Tardis type docs",
        golden_files=_FILES,
    ),
    Column(
        name="liquidation_sell_count", group="liquidations", unit="events", dtype="int64",
        formula="side=sell: a LONG was liquidated (sold)",
        null_when="as above",
        input="liquidations", scope="C", rollup="SUM", numerics="N0", edge="LQ",
        source="Tardis type docs",
        golden_files=_FILES,
    ),
    Column(
        name="liquidation_buy_volume", group="liquidations", unit="base",
        formula="Σ amount, side=buy (shorts liquidated)",
        null_when="as above",
        input="liquidations", scope="C", rollup="SUM", numerics="N1", edge="LQ",
        source="brief",
        atol=1e-09, golden_files=_FILES,
    ),
    Column(
        name="liquidation_sell_volume", group="liquidations", unit="base",
        formula="Σ amount, side=sell (longs liquidated)",
        null_when="as above",
        input="liquidations", scope="C", rollup="SUM", numerics="N1", edge="LQ",
        source="brief",
        atol=1e-09, golden_files=_FILES,
    ),
    Column(
        name="liquidation_volume", group="liquidations", unit="base",
        formula="buy + sell + unknown",
        null_when="as above",
        input="liquidations", scope="C", rollup="SUM", numerics="N1", edge="LQ",
        source="brief",
        atol=1e-09, golden_files=_FILES,
    ),
    Column(
        name="liquidation_notional", group="liquidations", unit="quote",
        formula="Σ price·amount",
        null_when="as above",
        input="liquidations", scope="C", rollup="SUM", numerics="N1", edge="LQ",
        source="Gate contract stats long_liq_usd+short_liq_usd",
        atol=1e-05, golden_files=_FILES,
    ),
    Column(
        name="liquidation_imbalance", group="liquidations", unit="[-1,1]",
        formula="(buy−sell)/(buy+sell) volume",
        null_when="no sided liquidation",
        input="liquidations", scope="C", rollup="DER", numerics="N7", edge="LQ",
        source="standard",
        atol=1e-12, golden_files=_FILES,
    ),
    Column(
        name="liquidation_vwap", group="liquidations", unit="quote/base",
        formula="liquidation_notional / liquidation_volume",
        null_when="none",
        input="liquidations", scope="C", rollup="DER", numerics="N7", edge="LQ",
        source="standard",
        atol=1e-08, golden_files=_FILES,
    ),
    Column(
        name="liquidation_max_size", group="liquidations", unit="base",
        formula="max amount",
        null_when="none",
        input="liquidations", scope="C", rollup="MAX", numerics="N6", edge="LQ",
        source="standard",
        atol=1e-09, golden_files=_FILES,
    ),
    Column(
        name="liquidation_price_max", group="liquidations", unit="quote/base", tier="ext",
        formula="max price",
        null_when="none",
        input="liquidations", scope="C", rollup="MAX", numerics="N6", edge="LQ",
        source="standard",
        atol=1e-08, golden_files=_FILES,
    ),
    Column(
        name="liquidation_price_min", group="liquidations", unit="quote/base", tier="ext",
        formula="min price",
        null_when="none",
        input="liquidations", scope="C", rollup="MIN", numerics="N6", edge="LQ",
        source="standard",
        atol=1e-08, golden_files=_FILES,
    ),
    Column(
        name="liquidation_with_rising_oi", group="liquidations", unit="base",
        formula="liquidation_volume if oi_change>0 else 0",
        null_when="oi_change null",
        input="liquidations", scope="C", rollup="SUM of 1m", numerics="N7", edge="LQ",
        source="brief",
        depends_on_arrival=True, atol=1e-09, golden_files=_FILES,
    ),
    Column(
        name="liquidation_with_falling_oi", group="liquidations", unit="base",
        formula="liquidation_volume if oi_change<0 else 0",
        null_when="oi_change null",
        input="liquidations", scope="C", rollup="SUM of 1m", numerics="N7", edge="LQ",
        source="brief",
        depends_on_arrival=True, atol=1e-09, golden_files=_FILES,
    ),
    Column(
        name="late_liquidation_count", group="liquidations", unit="events", dtype="int64",
        formula=(
            "accepted events with local_timestamp ≥ t1+grace, counted in the candle of their own timestamp. 5m "
            "and above: sum of the 1m counts"
        ),
        null_when="as above",
        input="liquidations", scope="C", rollup="SUM", numerics="N0", edge="LQ",
        source="data-quality",
        depends_on_arrival=True, golden_files=_FILES,
    ),
    Column(
        name="liquidation_source", group="liquidations", unit="-", dtype="string",
        formula="'native' or 'derived' (fallback from large trades, section 7.4)",
        null_when="no feed",
        input="config", scope="C", rollup="LAST", numerics="-", edge="LQ",
        source="brief fallback strategy",
    ),
)  # fmt: skip

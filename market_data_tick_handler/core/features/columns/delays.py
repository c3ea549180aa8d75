"""Columns on the delay between exchange time and receipt."""

from __future__ import annotations

from typing import Final

from market_data_tick_handler.core.features.column import Column

_TRADES: Final = tuple(f"trades_10m_expected_{step}.csv" for step in ("15s", "60s", "300s"))

COLUMNS: Final = (
    Column(
        name="delay_median", group="delays", unit="ms",
        formula=(
            "median of delay_j = local_timestamp − timestamp (int64 µs), midpoint of the two middle values for "
            "even n; /1000"
        ),
        null_when="empty",
        input="trades", scope="C", rollup="SKETCH", numerics="N5", edge="TS",
        source="brief",
        depends_on_arrival=True, atol=1e-09, golden_files=_TRADES,
    ),
    Column(
        name="delay_mean", group="delays", unit="ms",
        formula="Σ delay (exact int) / n / 1000",
        null_when="empty",
        input="trades", scope="C", rollup="DER (Σ,n)", numerics="N0", edge="TS",
        source="brief",
        depends_on_arrival=True, atol=1e-09, golden_files=_TRADES,
    ),
    Column(
        name="delay_min", group="delays", unit="ms",
        formula="min / 1000",
        null_when="empty",
        input="trades", scope="C", rollup="MIN", numerics="N0", edge="TS",
        source="brief",
        depends_on_arrival=True, atol=1e-09, golden_files=_TRADES,
    ),
    Column(
        name="delay_max", group="delays", unit="ms",
        formula="max / 1000",
        null_when="empty",
        input="trades", scope="C", rollup="MAX", numerics="N0", edge="TS",
        source="brief",
        depends_on_arrival=True, atol=1e-09, golden_files=_TRADES,
    ),
    Column(
        name="delay_p95", group="delays", unit="ms",
        formula="nearest rank, k = (95n+99)//100, /1000",
        null_when="empty",
        input="trades", scope="C", rollup="SKETCH", numerics="N5", edge="TS",
        source="brief",
        depends_on_arrival=True, atol=1e-09, golden_files=_TRADES,
    ),
    Column(
        name="delay_p99", group="delays", unit="ms",
        formula="nearest rank, k = (99n+99)//100, /1000",
        null_when="empty",
        input="trades", scope="C", rollup="SKETCH", numerics="N5", edge="TS",
        source="brief",
        depends_on_arrival=True, atol=1e-09, golden_files=_TRADES,
    ),
    Column(
        name="delay_std", group="delays", unit="ms",
        formula="sample std, exact integers",
        null_when="n<2",
        input="trades", scope="C", rollup="DER (n,K,Σd,Σd²)", numerics="N0,N4", edge="TS",
        source="brief",
        depends_on_arrival=True, atol=1e-09, golden_files=_TRADES,
    ),
    Column(
        name="delay_negative_count", group="delays", unit="trades", dtype="int64",
        formula="trades with delay<0 (clock skew); negative delays are kept in all delay statistics",
        null_when="never (0)",
        input="trades", scope="C", rollup="SUM", numerics="N0", edge="TC",
        source="brief",
        depends_on_arrival=True, golden_files=_TRADES,
    ),
)  # fmt: skip

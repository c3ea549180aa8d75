"""Columns that say which candle a row is and how whole the feed behind it was."""

from __future__ import annotations

from typing import Final

from market_data_tick_handler.core.features.column import Column

_TRADES: Final = tuple(f"trades_10m_expected_{step}.csv" for step in ("15s", "60s", "300s"))

COLUMNS: Final = (
    Column(
        name="instrument_id", group="identity", unit="-", dtype="string",
        formula="canonical key, e.g. BINANCE:SPOT_PAIR:BTC-USDT",
        null_when="never",
        input="registry", scope="-", rollup="const", numerics="-", edge="ID",
        source="brief",
    ),
    Column(
        name="exchange", group="identity", unit="-", dtype="string",
        formula="venue id",
        null_when="never",
        input="registry", scope="-", rollup="const", numerics="-", edge="ID",
        source="brief",
    ),
    Column(
        name="symbol", group="identity", unit="-", dtype="string",
        formula="symbol",
        null_when="never",
        input="registry", scope="-", rollup="const", numerics="-", edge="ID",
        source="brief",
    ),
    Column(
        name="timeframe", group="identity", unit="-", dtype="string",
        formula="15s,1m,5m,15m,1h,4h,24h",
        null_when="never",
        input="config", scope="-", rollup="const", numerics="-", edge="ID",
        source="brief",
    ),
    Column(
        name="timestamp", group="identity", unit="µs UTC", dtype="timestamp[us,UTC]",
        formula="candle OPEN boundary t0 = floor(ts/Δ)·Δ (left label; UTC midnight aligned). Alias timestamp_in",
        null_when="never",
        input="clock", scope="C", rollup="FIRST", numerics="N0", edge="ID",
        source=(
            "brief; Kaiko, CoinMetrics, Databento label the start; Tardis trade_bar labels the END (off by one "
            "bar when comparing)"
        ),
    ),
    Column(
        name="timestamp_out", group="identity", unit="µs UTC", dtype="timestamp[us,UTC]",
        formula=(
            "live: wall clock when this revision was published. batch: t1+grace (t1=t0+Δ). Excluded from the "
            "live==batch comparison"
        ),
        null_when="never",
        input="clock", scope="C", rollup="RECOMP", numerics="N0", edge="ID",
        source="brief",
        depends_on_arrival=True,
    ),
    Column(
        name="is_empty", group="identity", unit="-", dtype="bool",
        formula="trade_count == 0",
        null_when="never",
        input="trades", scope="C", rollup="DER", numerics="N0", edge="ID",
        source="-",
        golden_files=_TRADES,
    ),
    Column(
        name="revision", group="identity", unit="-", dtype="int32",
        formula=(
            "live: 0 at the first publication, +1 at each further one (late row, repair, section 2.4). batch: 0, "
            "or the replaced revision + 1 when a rebuild overwrites a published row. Excluded from the "
            "live==batch comparison"
        ),
        null_when="never",
        input="publisher", scope="C", rollup="RECOMP", numerics="N0", edge="ID",
        source="section 2.4",
        depends_on_arrival=True,
    ),
    Column(
        name="quality", group="identity", unit="enum", dtype="string",
        formula="COMPLETE, QUIET, GAPPED, PARTIAL or REPAIRED (section 2.9)",
        null_when="never",
        input="gap ledger+trades", scope="C", numerics="-", edge="ID",
        rollup="WORST child: GAPPED > PARTIAL > REPAIRED > COMPLETE; QUIET if all children are QUIET",
        source="section 2.9",
        depends_on_arrival=True,
    ),
    Column(
        name="coverage", group="identity", unit="[0,1]",
        formula=(
            "share of [t0,t1) in which the trade feed was provably alive = (1000Δ − gap_ms)/(1000Δ), Δ in s. "
            "batch: 1 unless a gap ledger says otherwise"
        ),
        null_when="never",
        input="gap ledger", scope="C", numerics="N7", edge="ID",
        rollup="DER (gap_ms) = time-weighted mean of the children",
        source="section 2.9",
        depends_on_arrival=True, atol=1e-12,
    ),
    Column(
        name="gap_ms", group="identity", unit="ms", dtype="int64",
        formula="length of the union of the gaps inside [t0,t1), rounded up to whole ms; not reset by a repair",
        null_when="never (0)",
        input="gap ledger", scope="C", rollup="SUM", numerics="N0", edge="ID",
        source="section 2.9",
        depends_on_arrival=True,
    ),
    Column(
        name="warmup_bars", group="identity", unit="candles", dtype="int64",
        formula=(
            "closed candles this calculator has seen since cold start, before and including this one (saturates "
            "at 2^31-1)"
        ),
        null_when="never",
        input="candles", scope="R", rollup="SELF", numerics="N0", edge="ID",
        source="needed: recursive features forget their seed slowly (section 5.3)",
    ),
    Column(
        name="feature_version", group="identity", unit="-", dtype="string",
        formula="semantic version of this spec, e.g. 1.0.0",
        null_when="never",
        input="config", scope="-", rollup="const", numerics="-", edge="ID",
        source="-",
    ),
)  # fmt: skip

"""Columns on what takers pay against the book they met."""

from __future__ import annotations

from typing import Final

from market_data_tick_handler.core.features.column import Column

_FILES: Final = tuple(f"trades_book_10m_expected_{step}.csv" for step in ("15s", "60s"))

COLUMNS: Final = (
    Column(
        name="effective_spread_bps", group="spread", unit="bps", tier="ext",
        formula=(
            "Σ q_j·2·s_j(p_j−m_j)/m_j·1e4 / Σ q_j; m_j = mid of the book state when the trade arrived (last "
            "snapshot with local_timestamp ≤ the trade's; book before trade on ties), trade skipped while that "
            "state is INVALID"
        ),
        null_when="no trade with a side and a valid mid",
        input="trades+book", scope="C", rollup="DER (Σ,Σq)", numerics="N1", edge="TB",
        source="SEC Rule 605; Lee-Ready",
        depends_on_arrival=True, atol=1e-07, golden_files=_FILES,
    ),
    Column(
        name="trades_matched_to_book", group="spread", unit="trades", dtype="int64", tier="ext",
        formula="trades entering effective_spread_bps",
        null_when="never (0)",
        input="trades+book", scope="C", rollup="SUM", numerics="N0", edge="TB",
        source="-",
        depends_on_arrival=True, golden_files=_FILES,
    ),
)  # fmt: skip

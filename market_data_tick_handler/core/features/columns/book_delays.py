"""Columns on the delay between exchange time and receipt of book snapshots."""

from __future__ import annotations

from typing import Final

from market_data_tick_handler.core.features.column import Column

_FILES: Final = tuple(f"book_10m_expected_{step}.csv" for step in ("15s", "60s"))

COLUMNS: Final = (
    Column(
        name="book_delay_median", group="book_delays", unit="ms", tier="ext",
        formula="as delay_median over book_snapshot_5 rows",
        null_when="no snapshot",
        input="book", scope="C", rollup="SKETCH", numerics="N5", edge="BC",
        source="brief",
        depends_on_arrival=True, atol=1e-09, golden_files=_FILES,
    ),
    Column(
        name="book_delay_p99", group="book_delays", unit="ms", tier="ext",
        formula="as delay_p99 over book rows",
        null_when="no snapshot",
        input="book", scope="C", rollup="SKETCH", numerics="N5", edge="BC",
        source="brief",
        depends_on_arrival=True, atol=1e-09, golden_files=_FILES,
    ),
    Column(
        name="book_delay_max", group="book_delays", unit="ms", tier="ext",
        formula="max over book rows / 1000",
        null_when="no snapshot",
        input="book", scope="C", rollup="MAX", numerics="N0", edge="BC",
        source="brief",
        depends_on_arrival=True, atol=1e-09, golden_files=_FILES,
    ),
)  # fmt: skip

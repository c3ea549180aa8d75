"""What a run may choose: every number that changes a candle's values, in one frozen record."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from market_data_tick_handler.core.features.book_microprice import MicropriceTable

from market_data_tick_handler.core.timeframes import ALL_TIMEFRAMES, Timeframe

DEFAULT_GROUPS = (
    "ohlcv",
    "flow",
    "delays",
    "returns",
    "indicators",
    "book",
    "book_delays",
    "spread",
    "derivatives",
    "liquidations",
    "derivative_ratios",
    "options",
    "mft",
)


@dataclass(frozen=True, slots=True)
class FeatureParameters:
    """Per-instrument parameters of the feature formulas (features.md 13.9). None gives null columns, never a guess."""

    vpin_bucket_volume: float | None = None
    vpin_buckets: int = 50
    large_trade_notional: float = 50_000.0
    impact_notional: float | None = 250_000.0
    funding_interval_s: float | None = 28_800.0
    options_max_age_s: float = 600.0
    options_min_tte_s: float = 3_600.0
    options_iv_scale: float | None = None
    liquidation_fallback_notional: float | None = None
    microprice_table: MicropriceTable | None = None


@dataclass(frozen=True, slots=True)
class PipelineOptions:
    """Options of one pipeline.

    grace_us: a candle is first published when the arrival clock reaches its close plus this.
    revision_window_us: a trade later than this is refused live.
    max_clock_skew_us: a timestamp further ahead of local_timestamp than this is implausible.
    groups: feature groups to compute; an unselected group costs nothing. Identity is always there.
    config_hash: names the settings that these options came from; it changes no value and is stored with the output.
    """

    timeframes: tuple[Timeframe, ...] = ALL_TIMEFRAMES
    grace_us: int = 500_000
    revision_window_us: int = 120_000_000
    max_clock_skew_us: int = 60_000_000
    groups: tuple[str, ...] = DEFAULT_GROUPS
    parameters: FeatureParameters = field(default_factory=FeatureParameters)
    config_hash: str = ""

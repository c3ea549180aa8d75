"""Settings that decide what a candle holds: lengths, lateness, feature groups and their parameters."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from market_data_tick_handler.config.choices import FeatureGroup
from market_data_tick_handler.config.names import canonical_key
from market_data_tick_handler.config.section import Section
from market_data_tick_handler.config.values import Duration, Milliseconds, OneLineList, Seconds
from market_data_tick_handler.core.options import DEFAULT_GROUPS
from market_data_tick_handler.core.timeframes import ALL_TIMEFRAMES, Timeframe, parse_timeframe
from market_data_tick_handler.errors import ConfigError


def _timeframe(value: object) -> object:
    try:
        return parse_timeframe(value) if isinstance(value, str) else value
    except ConfigError:
        return value


class CandleSettings(Section):
    """Which candles, and when they close."""

    timeframes: Annotated[tuple[Annotated[Timeframe, BeforeValidator(_timeframe)], ...], OneLineList] = Field(
        default=ALL_TIMEFRAMES, min_length=1, description="candle lengths to publish"
    )
    grace: Milliseconds = Field(
        default=Duration(500_000),
        description="a candle is published this long after its close (ms); one value for live and batch",
    )
    revision_window: Seconds = Field(
        default=Duration(120_000_000),
        description="a trade later than this is refused live and left to the batch run (s)",
    )
    max_clock_skew: Seconds = Field(
        default=Duration(60_000_000), description="a timestamp further ahead of its receipt than this is invalid (s)"
    )

    @field_validator("timeframes")
    @classmethod
    def _ordered(cls, value: tuple[Timeframe, ...]) -> tuple[Timeframe, ...]:
        return tuple(timeframe for timeframe in ALL_TIMEFRAMES if timeframe in value)

    @field_validator("revision_window")
    @classmethod
    def _covers_grace(cls, value: Duration, info: ValidationInfo) -> Duration:
        grace = info.data.get("grace")
        if grace is not None and value < grace:
            raise ValueError(f"expected at least the grace, {grace}: an on-time trade would be refused")
        return value

    @property
    def grace_us(self) -> int:
        """`grace` in microseconds."""
        return self.grace.us

    @property
    def revision_window_us(self) -> int:
        """`revision_window` in microseconds."""
        return self.revision_window.us

    @property
    def max_clock_skew_us(self) -> int:
        """`max_clock_skew` in microseconds."""
        return self.max_clock_skew.us


class ParameterSettings(Section):
    """Parameters of the feature formulas. They change values."""

    vpin_bucket_volume: float | None = Field(
        default=None,
        gt=0,
        description="volume of a VPIN bucket, venue units; a good value: yesterday's volume / 50. Unset: vpin is null",
    )
    vpin_buckets: int = Field(default=50, ge=1, description="VPIN window, buckets")
    large_trade_notional: float = Field(
        default=50_000.0, gt=0, description="a trade of this notional or more is large (quote)"
    )
    impact_notional: float = Field(
        default=250_000.0, gt=0, description="size that impact_buy_bps and impact_sell_bps walk (quote); for group book"
    )
    funding_interval: Seconds = Field(
        default=Duration(28_800_000_000), description="time between funding events (s); for group derivatives"
    )
    options_max_age: Seconds = Field(
        default=Duration(600_000_000), description="option rows older than this are left out (s); for group options"
    )
    options_min_tte: Seconds = Field(
        default=Duration(3_600_000_000),
        description="options nearer to expiry than this are left out (s); for group options",
    )
    options_iv_scale: float | None = Field(
        default=None,
        gt=0,
        description="venue IV is divided by this; unset: 100 on Deribit (it quotes percent), else 1; for group options",
    )
    liquidation_fallback_notional: float = Field(
        default=250_000.0,
        gt=0,
        description="source trade_transformation: a trade of this notional or more counts as a liquidation (quote)",
    )


class InstrumentParameters(Section):
    """The parameters of one instrument that differ from those above it."""

    vpin_bucket_volume: float | None = Field(
        default=None, gt=0, description="as features.vpin_bucket_volume, for this instrument"
    )
    vpin_buckets: int | None = Field(default=None, ge=1, description="as features.vpin_buckets, for this instrument")
    large_trade_notional: float | None = Field(
        default=None, gt=0, description="as features.large_trade_notional, for this instrument"
    )
    impact_notional: float | None = Field(
        default=None, gt=0, description="as features.impact_notional, for this instrument"
    )
    funding_interval: Seconds | None = Field(
        default=None, description="as features.funding_interval, for this instrument (s)"
    )
    options_max_age: Seconds | None = Field(
        default=None, description="as features.options_max_age, for this instrument (s)"
    )
    options_min_tte: Seconds | None = Field(
        default=None, description="as features.options_min_tte, for this instrument (s)"
    )
    options_iv_scale: float | None = Field(
        default=None, gt=0, description="as features.options_iv_scale, for this instrument"
    )
    liquidation_fallback_notional: float | None = Field(
        default=None, gt=0, description="as features.liquidation_fallback_notional, for this instrument"
    )
    contract_multiplier: float | None = Field(
        default=None,
        gt=0,
        description="base units (inverse: quote units) per contract; unset: what the instrument says",
    )


class FeatureSettings(ParameterSettings):
    """Which feature groups, and their parameters."""

    groups: Annotated[tuple[FeatureGroup, ...], OneLineList] = Field(
        default=tuple(FeatureGroup(name) for name in DEFAULT_GROUPS),
        description="feature groups to compute; identity is always there",
    )
    instruments: dict[str, InstrumentParameters] = Field(
        default_factory=dict, description="parameters per instrument, by canonical key; JSON in the environment"
    )

    @field_validator("instruments")
    @classmethod
    def _canonical(cls, value: dict[str, InstrumentParameters]) -> dict[str, InstrumentParameters]:
        return {canonical_key(name, "binance"): parameters for name, parameters in value.items()}

    @field_validator("groups")
    @classmethod
    def _published_order(cls, value: tuple[FeatureGroup, ...]) -> tuple[FeatureGroup, ...]:
        return tuple(group for group in FeatureGroup if group in value)

    def of(self, instrument_key: str) -> ParameterSettings:
        """The parameters in force for one instrument: its own over the common ones."""
        common = {name: getattr(self, name) for name in ParameterSettings.model_fields}
        own = self.instruments.get(instrument_key, InstrumentParameters())
        special = {name: value for name in common if (value := getattr(own, name)) is not None}
        return ParameterSettings.model_construct(**{**common, **special})

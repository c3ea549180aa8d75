"""From settings to what one pipeline runs with, and the hash that tells whether two runs can be compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from market_data_tick_handler.config.candles import ParameterSettings
from market_data_tick_handler.config.settings import Settings, SourceName
from market_data_tick_handler.core.options import FeatureParameters, PipelineOptions

if TYPE_CHECKING:
    from market_data_tick_handler.core.instruments import InstrumentDefinition


def pipeline_options(settings: Settings, instrument: InstrumentDefinition) -> PipelineOptions:
    """Options of the pipeline of one instrument: its own parameters over the common ones."""
    candles, parameters = settings.candles, settings.features.of(instrument.key)
    return PipelineOptions(
        timeframes=candles.timeframes,
        grace_us=candles.grace_us,
        revision_window_us=candles.revision_window_us,
        max_clock_skew_us=candles.max_clock_skew_us,
        groups=tuple(str(group) for group in settings.features.groups),
        parameters=FeatureParameters(
            vpin_bucket_volume=parameters.vpin_bucket_volume,
            vpin_buckets=parameters.vpin_buckets,
            large_trade_notional=parameters.large_trade_notional,
            impact_notional=parameters.impact_notional,
            funding_interval_s=parameters.funding_interval.us / 1e6,
            options_max_age_s=parameters.options_max_age.us / 1e6,
            options_min_tte_s=parameters.options_min_tte.us / 1e6,
            options_iv_scale=_iv_scale(parameters, instrument),
            liquidation_fallback_notional=_derived_from(settings, parameters),
        ),
        config_hash=config_hash(settings, instrument),
    )


def _iv_scale(parameters: ParameterSettings, instrument: InstrumentDefinition) -> float:
    if parameters.options_iv_scale is not None:
        return parameters.options_iv_scale
    return 100.0 if instrument.venue == "DERIBIT" else 1.0


def _derived_from(settings: Settings, parameters: ParameterSettings) -> float | None:
    """Notional from which a trade counts as a liquidation; None where liquidations are the venue's own."""
    derived = settings.data_types.liquidations.source is SourceName.TRADE_TRANSFORMATION
    return parameters.liquidation_fallback_notional if derived else None


def config_hash(settings: Settings, instrument: InstrumentDefinition) -> str:
    """16 hex digits that change exactly when a setting that changes candle values does (features.md 13.9).

    Timeframes and groups are left out: they choose which values are written, not what they are.
    """
    parameters = settings.features.of(instrument.key)
    content = {
        "grace_us": settings.candles.grace_us,
        "revision_window_us": settings.candles.revision_window_us,
        "max_clock_skew_us": settings.candles.max_clock_skew_us,
        "contract_size": contract_size(settings, instrument),
        "inverse": instrument.inverse,
        **{name: _plain(getattr(parameters, name)) for name in ParameterSettings.model_fields},
        "options_iv_scale": _iv_scale(parameters, instrument),
        "liquidation_fallback_notional": _derived_from(settings, parameters),
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def contract_size(settings: Settings, instrument: InstrumentDefinition) -> float:
    """Units per contract: `contract_multiplier` where the settings give one for the instrument, else its own."""
    own = settings.features.instruments.get(instrument.key)
    given = None if own is None else own.contract_multiplier
    return float(instrument.contract_size if given is None else given)


def configured_instruments(settings: Settings) -> tuple[InstrumentDefinition, ...]:
    """The instruments of the settings, with the contract sizes of the settings."""
    return define_instruments(settings, settings.instruments)


def define_instruments(settings: Settings, names: Sequence[str]) -> tuple[InstrumentDefinition, ...]:
    """Instruments by canonical key or symbol, with the contract sizes of the settings.

    Raises:
        InstrumentError: a name cannot be resolved.
    """
    from market_data_tick_handler.core.instruments import resolve_instrument  # costs start-up time only when used

    parsed = [resolve_instrument(name, default_exchange=settings.default_exchange) for name in names]
    return tuple(replace(instrument, contract_size=contract_size(settings, instrument)) for instrument in parsed)


def _plain(value: object) -> object:
    return getattr(value, "us", value)

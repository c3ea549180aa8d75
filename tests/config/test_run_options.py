"""What a pipeline runs with follows from the settings, and the hash changes exactly with what changes values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from market_data_tick_handler.config import (
    Settings,
    config_hash,
    configured_instruments,
    contract_size,
    load_settings,
    pipeline_options,
)
from market_data_tick_handler.core.instruments import parse_instrument_key
from market_data_tick_handler.core.options import FeatureParameters, PipelineOptions

SPOT = parse_instrument_key("BINANCE:SPOT_PAIR:BTC-USDT")
OTHER = parse_instrument_key("BINANCE:SPOT_PAIR:ETH-USDT")
OWN = f"features.instruments.{SPOT.key}"


def _settings(**overrides: Any) -> Settings:
    return load_settings(overrides=overrides, environment={}).settings


def test_default_settings_are_the_default_options_of_the_core() -> None:
    chosen = pipeline_options(Settings(), SPOT)
    own = config_hash(Settings(), SPOT)
    assert chosen == PipelineOptions(parameters=FeatureParameters(options_iv_scale=1.0), config_hash=own)


def test_implied_volatility_is_percent_on_deribit_and_a_fraction_elsewhere_unless_said_otherwise() -> None:
    chain, other = (parse_instrument_key(f"{venue}:OPTION_CHAIN:BTC-USD") for venue in ("DERIBIT", "OKX-OPTIONS"))
    scales = [pipeline_options(Settings(), instrument).parameters.options_iv_scale for instrument in (chain, other)]
    assert scales == [100.0, 1.0]
    assert pipeline_options(_settings(**{"features.options_iv_scale": 7}), chain).parameters.options_iv_scale == 7.0


def test_an_instrument_has_its_own_parameters_over_the_common_ones() -> None:
    settings = _settings(**{f"{OWN}.vpin_bucket_volume": 5, "features.vpin_buckets": 10})
    own, other = (pipeline_options(settings, instrument).parameters for instrument in (SPOT, OTHER))
    assert (own.vpin_bucket_volume, own.vpin_buckets) == (5.0, 10)
    assert (other.vpin_bucket_volume, other.vpin_buckets) == (None, 10)


def test_the_parameters_of_the_golden_data_are_settings(golden_dir: Path) -> None:
    file = golden_dir / "config.json"
    if not file.is_file():
        pytest.skip(f"needs the golden data: {file} is absent")
    golden = json.loads(file.read_text(encoding="utf-8"))
    names = ("vpin_bucket_volume", "vpin_buckets", "large_trade_notional", "impact_notional", "options_iv_scale")
    durations = {"funding_interval": "funding_interval_s", "options_max_age": "options_max_age_s"}
    durations["options_min_tte"] = "options_min_tte_s"
    features = {f"features.{name}": golden[name] for name in names}
    features |= {f"features.{name}": golden[source] for name, source in durations.items()}
    lateness = {"candles.grace": golden["grace_ms"], "candles.revision_window": golden["revision_window_s"]}
    own = {f"{OWN}.contract_multiplier": golden["contract_multiplier"]}
    options = pipeline_options(_settings(**features, **lateness, **own), SPOT)
    assert options.grace_us == golden["grace_ms"] * 1_000
    assert options.revision_window_us == golden["revision_window_s"] * 1_000_000
    assert options.parameters.vpin_bucket_volume == golden["vpin_bucket_volume"]
    assert options.parameters.vpin_buckets == golden["vpin_buckets"]
    assert options.parameters.large_trade_notional == golden["large_trade_notional"]


@pytest.mark.parametrize(
    "change",
    [
        {"candles.grace": "1s"},
        {"candles.revision_window": "1h"},
        {"candles.max_clock_skew": "1s"},
        {"features.large_trade_notional": 1},
        {"features.funding_interval": "1h"},
        {f"{OWN}.vpin_bucket_volume": 5},
        {f"{OWN}.contract_multiplier": 10},
        {"data_types.liquidations.source": "trade_transformation"},
    ],
)
def test_the_hash_changes_with_what_changes_values(change: dict[str, Any]) -> None:
    assert config_hash(_settings(**change), SPOT) != config_hash(Settings(), SPOT)


@pytest.mark.parametrize(
    "change",
    [
        {"candles.timeframes": "1m"},
        {"features.groups": "ohlcv"},
        {"monitoring.port": 1},
        {"candles.grace": "0.5s"},
        {f"features.instruments.{OTHER.key}.vpin_bucket_volume": 5},
        {f"{OWN}.large_trade_notional": 50_000},
        # Read only where liquidations are derived.
        {"features.liquidation_fallback_notional": 1_000},
    ],
)
def test_the_hash_stays_with_what_does_not(change: dict[str, Any]) -> None:
    assert config_hash(_settings(**change), SPOT) == config_hash(Settings(), SPOT)


def test_the_hash_is_the_same_in_every_process_and_release() -> None:
    assert config_hash(Settings(), SPOT) == "21330d314c503039"


def test_large_trades_stand_for_liquidations_only_where_the_settings_say_so() -> None:
    perpetual = parse_instrument_key("BINANCE-FUTURES:PERPETUAL:BTC-USDT")
    derived = {"data_types.liquidations.source": "trade_transformation"}
    own = {f"features.instruments.{perpetual.key}.liquidation_fallback_notional": 7_000}
    chosen = [pipeline_options(_settings(**extra), perpetual) for extra in ({}, own, derived, derived | own)]
    assert [each.parameters.liquidation_fallback_notional for each in chosen] == [None, None, 250_000.0, 7_000.0]
    assert len({each.config_hash for each in chosen}) == 3


def test_contract_sizes_of_the_settings_win_over_the_instruments_own() -> None:
    key = "BINANCE-DELIVERY:PERPETUAL:BTC-USD"
    settings = _settings(instruments=key)
    assert contract_size(settings, parse_instrument_key(key)) == 100.0
    changed = _settings(**{"instruments": key, f"features.instruments.{key}.contract_multiplier": 7})
    (instrument,) = configured_instruments(changed)
    assert (instrument.key, instrument.contract_size) == (key, 7.0)

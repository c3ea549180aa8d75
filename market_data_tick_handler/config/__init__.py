"""Typed settings, and where each value came from."""

from market_data_tick_handler.config.choices import FeatureGroup, Mode, SourceName, Target, Transport
from market_data_tick_handler.config.explain import Explained, explain, json_schema, settings_table
from market_data_tick_handler.config.installed import check_installed, is_installed
from market_data_tick_handler.config.layer import Kind, Origin, variable_name
from market_data_tick_handler.config.load import LoadedSettings, get_config, load_settings
from market_data_tick_handler.config.run_options import (
    config_hash,
    configured_instruments,
    contract_size,
    define_instruments,
    pipeline_options,
)
from market_data_tick_handler.config.settings import Settings
from market_data_tick_handler.config.values import Duration, SecretUrl

__all__ = [
    "Duration",
    "Explained",
    "FeatureGroup",
    "Kind",
    "LoadedSettings",
    "Mode",
    "Origin",
    "SecretUrl",
    "Settings",
    "SourceName",
    "Target",
    "Transport",
    "check_installed",
    "config_hash",
    "configured_instruments",
    "contract_size",
    "define_instruments",
    "explain",
    "get_config",
    "is_installed",
    "json_schema",
    "load_settings",
    "pipeline_options",
    "settings_table",
    "variable_name",
]

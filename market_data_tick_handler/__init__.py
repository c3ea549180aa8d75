"""Crypto ticks in, UTC-aligned candles with microstructure features out.

The public names are imported on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from market_data_tick_handler.calculator import HFTFeatureCalculator
    from market_data_tick_handler.client import Candle, CandleGap, LiveFeatureStream
    from market_data_tick_handler.config import LoadedSettings, Settings, get_config, load_settings
    from market_data_tick_handler.core.candle_batch import CandleBatch
    from market_data_tick_handler.core.events import Disconnect, Event, Gap, GapKind, Heartbeat, Rows
    from market_data_tick_handler.core.instruments import (
        InstrumentDefinition,
        InstrumentType,
        parse_instrument_key,
        resolve_instrument,
    )
    from market_data_tick_handler.core.options import FeatureParameters, PipelineOptions
    from market_data_tick_handler.core.pipeline import Pipeline
    from market_data_tick_handler.core.ticks import DataType, TickBatch
    from market_data_tick_handler.core.timeframes import Timeframe, parse_timeframe
    from market_data_tick_handler.errors import (
        ConfigError,
        CorruptObject,
        DataError,
        InstrumentError,
        MarketDataError,
        NotFound,
        NotInstalled,
        OutOfRange,
        ProtocolViolation,
        SchemaMismatch,
        SinkBusy,
        SinkError,
        SinkRejected,
        SourceError,
        SourceUnavailable,
    )

_MODULES: Final = {
    "calculator": ("HFTFeatureCalculator",),
    "client": ("Candle", "CandleGap", "LiveFeatureStream"),
    "config": ("LoadedSettings", "Settings", "get_config", "load_settings"),
    "core.candle_batch": ("CandleBatch",),
    "core.events": ("Disconnect", "Event", "Gap", "GapKind", "Heartbeat", "Rows"),
    "core.instruments": ("InstrumentDefinition", "InstrumentType", "parse_instrument_key", "resolve_instrument"),
    "core.options": ("FeatureParameters", "PipelineOptions"),
    "core.pipeline": ("Pipeline",),
    "core.ticks": ("DataType", "TickBatch"),
    "core.timeframes": ("Timeframe", "parse_timeframe"),
    "errors": (
        "ConfigError",
        "CorruptObject",
        "DataError",
        "InstrumentError",
        "MarketDataError",
        "NotFound",
        "NotInstalled",
        "OutOfRange",
        "ProtocolViolation",
        "SchemaMismatch",
        "SinkBusy",
        "SinkError",
        "SinkRejected",
        "SourceError",
        "SourceUnavailable",
    ),
}
_HOME: Final = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Candle",
    "CandleBatch",
    "CandleGap",
    "ConfigError",
    "CorruptObject",
    "DataError",
    "DataType",
    "Disconnect",
    "Event",
    "FeatureParameters",
    "Gap",
    "GapKind",
    "HFTFeatureCalculator",
    "Heartbeat",
    "InstrumentDefinition",
    "InstrumentError",
    "InstrumentType",
    "LiveFeatureStream",
    "LoadedSettings",
    "MarketDataError",
    "NotFound",
    "NotInstalled",
    "OutOfRange",
    "Pipeline",
    "PipelineOptions",
    "ProtocolViolation",
    "Rows",
    "SchemaMismatch",
    "Settings",
    "SinkBusy",
    "SinkError",
    "SinkRejected",
    "SourceError",
    "SourceUnavailable",
    "TickBatch",
    "Timeframe",
    "get_config",
    "load_settings",
    "parse_instrument_key",
    "parse_timeframe",
    "resolve_instrument",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("market-data-tick-handler")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""Crypto ticks in, UTC-aligned candles with microstructure features out.

The public names are imported on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from market_data_tick_handler.calculator import HFTFeatureCalculator
    from market_data_tick_handler.client import BigQueryClient, Candle, CandleGap, LiveFeatureStream
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
        AccessDenied,
        ConfigError,
        CorruptObject,
        DataError,
        InstrumentError,
        MarketDataError,
        NotFound,
        NotInstalled,
        OutOfRange,
        ProtocolViolation,
        QueryError,
        QueryTooLarge,
        SchemaMismatch,
        ServiceEnded,
        SinkBusy,
        SinkError,
        SinkRejected,
        SourceError,
        SourceUnavailable,
        UnprunedQuery,
    )
    from market_data_tick_handler.streaming_service.integrated_streaming_service import (
        IntegratedStreamingService,
        create_integrated_streaming_service,
    )
    from market_data_tick_handler.streaming_service.live_tick_streamer import LiveTickStreamer
    from market_data_tick_handler.streaming_service.multi_timeframe_processor import MultiTimeframeProcessor

_MODULES: Final = {
    "calculator": ("HFTFeatureCalculator",),
    "client": ("BigQueryClient", "Candle", "CandleGap", "LiveFeatureStream"),
    "config": ("LoadedSettings", "Settings", "get_config", "load_settings"),
    "core.candle_batch": ("CandleBatch",),
    "core.events": ("Disconnect", "Event", "Gap", "GapKind", "Heartbeat", "Rows"),
    "core.instruments": ("InstrumentDefinition", "InstrumentType", "parse_instrument_key", "resolve_instrument"),
    "core.options": ("FeatureParameters", "PipelineOptions"),
    "core.pipeline": ("Pipeline",),
    "core.ticks": ("DataType", "TickBatch"),
    "core.timeframes": ("Timeframe", "parse_timeframe"),
    "errors": (
        "AccessDenied",
        "ConfigError",
        "CorruptObject",
        "DataError",
        "InstrumentError",
        "MarketDataError",
        "NotFound",
        "NotInstalled",
        "OutOfRange",
        "ProtocolViolation",
        "QueryError",
        "QueryTooLarge",
        "SchemaMismatch",
        "ServiceEnded",
        "SinkBusy",
        "SinkError",
        "SinkRejected",
        "SourceError",
        "SourceUnavailable",
        "UnprunedQuery",
    ),
    "streaming_service.integrated_streaming_service": (
        "IntegratedStreamingService",
        "create_integrated_streaming_service",
    ),
    "streaming_service.live_tick_streamer": ("LiveTickStreamer",),
    "streaming_service.multi_timeframe_processor": ("MultiTimeframeProcessor",),
}
_HOME: Final = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "AccessDenied",
    "BigQueryClient",
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
    "IntegratedStreamingService",
    "LiveFeatureStream",
    "LiveTickStreamer",
    "LoadedSettings",
    "MarketDataError",
    "MultiTimeframeProcessor",
    "NotFound",
    "NotInstalled",
    "OutOfRange",
    "Pipeline",
    "PipelineOptions",
    "ProtocolViolation",
    "QueryError",
    "QueryTooLarge",
    "Rows",
    "SchemaMismatch",
    "ServiceEnded",
    "Settings",
    "SinkBusy",
    "SinkError",
    "SinkRejected",
    "SourceError",
    "SourceUnavailable",
    "TickBatch",
    "Timeframe",
    "UnprunedQuery",
    "create_integrated_streaming_service",
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

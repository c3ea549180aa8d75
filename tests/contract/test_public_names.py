"""The public names are a promise: adding one is a decision, removing one breaks somebody."""

from __future__ import annotations

import subprocess
import sys

import market_data_tick_handler
import market_data_tick_handler.streaming_service as live

NAMES = [
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
LIVE_NAMES = [
    "HFTFeatureCalculator",
    "IntegratedStreamingService",
    "LiveFeatureStream",
    "LiveTickStreamer",
    "MultiTimeframeProcessor",
    "create_integrated_streaming_service",
]


def test_the_public_names_are_these_and_each_can_be_imported() -> None:
    assert sorted(market_data_tick_handler.__all__) == sorted(NAMES)
    for name in NAMES:
        assert getattr(market_data_tick_handler, name) is not None
    assert set(NAMES) <= set(dir(market_data_tick_handler))


def test_the_documented_live_import_path_gives_the_same_objects() -> None:
    assert live.__all__ == LIVE_NAMES
    for name in LIVE_NAMES:
        assert getattr(live, name) is getattr(market_data_tick_handler, name)


def test_live_names_can_be_imported_without_what_only_a_running_service_needs() -> None:
    code = (
        "import sys\n"
        "from market_data_tick_handler.streaming_service import LiveTickStreamer, MultiTimeframeProcessor\n"
        "from market_data_tick_handler.streaming_service.integrated_streaming_service import "
        "create_integrated_streaming_service\n"
        "assert 'aiohttp' not in sys.modules and 'prometheus_client' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(market_data_tick_handler, "NoSuchName")
    assert not hasattr(live, "NoSuchName")


def test_importing_the_package_imports_nothing_else() -> None:
    code = (
        "import sys, market_data_tick_handler\n"
        "loaded = {name for name in sys.modules if name.startswith('market_data_tick_handler.')}\n"
        "assert not loaded and 'numpy' not in sys.modules, loaded"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr

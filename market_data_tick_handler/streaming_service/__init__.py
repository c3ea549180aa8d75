"""The live names under the import path that earlier documents taught."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from market_data_tick_handler.calculator import HFTFeatureCalculator
    from market_data_tick_handler.client import LiveFeatureStream
    from market_data_tick_handler.streaming_service.integrated_streaming_service import (
        IntegratedStreamingService,
        create_integrated_streaming_service,
    )
    from market_data_tick_handler.streaming_service.live_tick_streamer import LiveTickStreamer
    from market_data_tick_handler.streaming_service.multi_timeframe_processor import MultiTimeframeProcessor

__all__ = [
    "HFTFeatureCalculator",
    "IntegratedStreamingService",
    "LiveFeatureStream",
    "LiveTickStreamer",
    "MultiTimeframeProcessor",
    "create_integrated_streaming_service",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import market_data_tick_handler

    return getattr(market_data_tick_handler, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""The live names under the import path that earlier documents taught."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from market_data_tick_handler.calculator import HFTFeatureCalculator
    from market_data_tick_handler.client import LiveFeatureStream

__all__ = ["HFTFeatureCalculator", "LiveFeatureStream"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import market_data_tick_handler

    return getattr(market_data_tick_handler, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""Candles of several timeframes, under the import path that earlier documents taught."""

from __future__ import annotations

from streaming_service.multi_timeframe import MultiTimeframeProcessor

__all__ = ["MultiTimeframeProcessor"]

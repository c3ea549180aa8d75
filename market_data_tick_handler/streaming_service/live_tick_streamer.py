"""Ticks as they come in, under the import path that earlier documents taught."""

from __future__ import annotations

from streaming_service.tick_streamer import LiveTickStreamer

__all__ = ["LiveTickStreamer"]

"""The live service inside somebody else's program, under the import path that earlier documents taught."""

from __future__ import annotations

from streaming_service.integrated import (
    IntegratedStreamingService,
    StreamingState,
    StreamingStatus,
    create_integrated_streaming_service,
)

__all__ = [
    "IntegratedStreamingService",
    "StreamingState",
    "StreamingStatus",
    "create_integrated_streaming_service",
]

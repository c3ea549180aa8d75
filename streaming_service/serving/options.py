"""What can be set about serving."""

from __future__ import annotations

from dataclasses import dataclass

from market_data_tick_handler.config.outputs import ServeSettings
from market_data_tick_handler.wire import DEFAULT_COLUMNS


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingOptions:
    """Times in seconds.

    columns: what candles carry (`wire.check_columns`). history_frames: messages kept per channel; history_bytes: of all
    channels together, each has its share.
    client_frames, client_bytes: messages that may wait for one subscriber, its snapshot apart, whose bytes are shared.
    stall_s: a subscriber whose socket takes nothing for so long is disconnected. heartbeat_s: a ping after so much
    silence; half of it later the connection is given up. close_s: for the close handshake, and for the last candles.
    open_interval_s: least time between two messages about a candle in progress.
    """

    columns: tuple[str, ...] = DEFAULT_COLUMNS
    history_frames: int = 500
    history_bytes: int = 256 << 20
    client_frames: int = 512
    client_bytes: int = 8 << 20
    max_subscribers: int = 2_000
    stall_s: float = 30.0
    heartbeat_s: float = 30.0
    close_s: float = 5.0
    open_interval_s: float = 0.25

    @classmethod
    def of(cls, settings: ServeSettings) -> ServingOptions:
        """What the settings say."""
        socket = settings.websocket
        return cls(
            columns=settings.columns,
            history_frames=socket.history,
            history_bytes=socket.history_bytes,
            client_frames=settings.queue_size,
            client_bytes=socket.client_bytes,
            max_subscribers=socket.max_subscribers,
            stall_s=socket.stall.s,
            heartbeat_s=socket.heartbeat.s,
            open_interval_s=settings.open_candles_every.s,
        )

"""How a subscription is doing."""

from __future__ import annotations

from dataclasses import dataclass, field

from market_data_tick_handler.client.items import Candle, CandleGap, Origin


@dataclass(slots=True)
class StreamStats:
    """Counts of candles since the start, and times in seconds.

    received: messages that came by push, before anything is sorted out. repeated: of them, those that were known.
    delivered: handed to the subscriber, of which `revisions` and `open_candles`, and by where they were read
    `from_live`, `from_stream`, `from_store`. dropped: lost to the policy of this subscriber, or of the server for it.
    gaps: `CandleGap` items handed over. missing: candles that they speak of, where the number is known.
    unreadable: broken messages.
    reconnects: connections after the first. renumbered: how often a channel's numbers began anew.
    buffered: items that wait for the subscriber. lag_s, lag_max_s: from publication to hand-over, of the newest candle
    and the largest of candles that came by push. positions: by channel the newest number handed over.
    """

    received: int = 0
    repeated: int = 0
    delivered: int = 0
    revisions: int = 0
    open_candles: int = 0
    from_live: int = 0
    from_stream: int = 0
    from_store: int = 0
    dropped: int = 0
    gaps: int = 0
    missing: int = 0
    unreadable: int = 0
    reconnects: int = 0
    renumbered: int = 0
    connected: bool = False
    last_error: str = ""
    buffered: int = 0
    lag_s: float | None = None
    lag_max_s: float = 0.0
    positions: dict[str, int] = field(default_factory=dict)
    _connections: int = field(default=0, repr=False)

    def connect(self) -> None:
        """A connection works."""
        self.connected = True
        self.reconnects += self._connections > 0
        self._connections += 1

    def disconnect(self, error: BaseException) -> None:
        """It does no more."""
        self.connected = False
        self.last_error = f"{type(error).__name__}: {error}".rstrip(": ")

    def note(self, item: Candle | CandleGap) -> None:
        """It is handed over."""
        if isinstance(item, CandleGap):
            self.gaps += 1
            self.missing += item.missing or 0
            return
        self.delivered += 1
        self.revisions += item.is_final and item.is_revision
        self.open_candles += not item.is_final
        self.from_live += item.origin is Origin.LIVE
        self.from_stream += item.origin is Origin.STREAM
        self.from_store += item.origin is Origin.STORE
        self.lag_s = item.lag_s
        if item.origin is Origin.LIVE:
            self.lag_max_s = max(self.lag_max_s, item.lag_s)
        if item.is_final and item.sequence is not None:
            self.positions[item.channel] = item.sequence

"""Reads the WebSocket for the metrics."""

from __future__ import annotations

from collections.abc import Iterator

from streaming_service.monitoring.metrics import Sample
from streaming_service.serving.sink import ServingSink


def websocket_samples(sink: ServingSink) -> Iterator[Sample]:
    """Who is connected, and what became of what was for them."""
    hub, counters = sink.hub, sink.hub.counters
    yield Sample("websocket_subscribers", (), len(hub))
    yield Sample("websocket_subscriptions", (), counters.subscribed)
    yield Sample("websocket_turned_away", (), counters.turned_away)
    yield Sample("websocket_messages_sent", (), counters.sent_frames)
    yield Sample("websocket_bytes_sent", (), counters.sent_bytes)
    yield Sample("websocket_waiting_bytes", (), hub.waiting_bytes)
    for policy, dropped in hub.dropped.items():
        yield Sample("websocket_messages_dropped", (str(policy),), dropped)
    yield Sample("websocket_slow_disconnects", (), counters.ended_slow)
    yield Sample("websocket_marks", (), counters.marks)

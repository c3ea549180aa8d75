"""The route /ws: from a request to a subscriber, for as long as the connection lives."""

from __future__ import annotations

from aiohttp import web

from streaming_service.serving.endpoints import Endpoint
from streaming_service.serving.parameters import Values, read_values
from streaming_service.serving.problems import Problem
from streaming_service.serving.selection import Selection
from streaming_service.serving.sink import ServingSink
from streaming_service.serving.subscriber import Subscriber
from streaming_service.serving.websocket import TOO_SLOW, Connection
from streaming_service.sinks.bus import SubscriberPolicy

# What clients send is not read, pings and closing apart.
_MAX_MESSAGE_BYTES = 4_096


class SocketRoute:
    """Handler of `/ws`."""

    def __init__(self, sink: ServingSink) -> None:
        self._sink = sink

    async def handle(self, endpoint: Endpoint, request: web.Request) -> web.StreamResponse:
        """Serve one subscriber until it, or the service, goes.

        Raises:
            Problem: the request cannot become a subscription.
        """
        values = read_values(endpoint.parameters, request.query)
        options, hub = self._sink.options, self._sink.hub
        socket = web.WebSocketResponse(
            timeout=options.close_s, heartbeat=options.heartbeat_s, compress=False, max_msg_size=_MAX_MESSAGE_BYTES
        )
        if not socket.can_prepare(request).ok:
            raise Problem(426, "this is no WebSocket handshake", expected="a WebSocket client", hint="ws:// or wss://")
        if not self._sink.is_open:
            raise Problem(503, "the service does not publish now: it starts, or stops", hint="try again")
        if len(hub) >= options.max_subscribers:
            hub.counters.turned_away += 1
            raise Problem(
                503, f"{len(hub)} subscribers are there already", hint="raise serve.websocket.max_subscribers"
            )
        await socket.prepare(request)
        subscriber = Subscriber(
            policy=SubscriberPolicy(values["policy"]),
            max_frames=options.client_frames,
            max_bytes=options.client_bytes,
        )
        connection = Connection(
            request, socket, subscriber, options=options, counters=hub.counters, on_end=self._forget
        )
        hub.attach(connection, _selection(values))
        connection.flush()
        try:
            async for _ in socket:
                pass
        finally:
            connection.gone()
            await connection.ended()
        return socket

    def _forget(self, connection: Connection) -> None:
        if connection.close_code == TOO_SLOW and connection in self._sink.hub.receivers:
            self._sink.hub.counters.ended_slow += 1
        self._sink.hub.detach(connection)


def _selection(values: Values) -> Selection:
    names, patterns, marks = values["channels"]
    since = {name: number for each in values["since"] for name, number in each.items()}
    return Selection(names, patterns, marks, history=values["history"], open_too=values["open"], since=since)

"""The socket of one subscriber: writes its queue, one write a turn, and ends it when it takes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from aiohttp import WSCloseCode, web

from streaming_service.serving.hub import HubCounters
from streaming_service.serving.options import ServingOptions
from streaming_service.serving.subscriber import Subscriber

GOING_AWAY: Final = int(WSCloseCode.GOING_AWAY)
# Private use (RFC 6455, 7.4.2): the subscriber is too slow. It can come back with `since`.
TOO_SLOW: Final = 4008

# A socket that has so much to send gets no more until it has sent most of it.
_HIGH_WATER: Final = 64 << 10
_WRITE_BYTES: Final = 64 << 10


class Connection:
    """Frames go to the transport as they are: they were made once for all subscribers, and aiohttp, which looks after
    handshake, pings and closing, would frame them again for each. Both write whole frames only.

    counters: where what is written is counted. on_end: called once when the subscriber must get nothing more.
    """

    def __init__(
        self,
        request: web.Request,
        socket: web.WebSocketResponse,
        subscriber: Subscriber,
        *,
        options: ServingOptions,
        counters: HubCounters,
        on_end: Callable[[Connection], None],
    ) -> None:
        self.subscriber = subscriber
        self.close_code: int | None = None
        self._request, self._socket = request, socket
        self._options = options
        self._counters = counters
        self._on_end = on_end
        self._draining: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        transport = request.transport
        if transport is not None:
            transport.set_write_buffer_limits(high=_HIGH_WATER, low=_HIGH_WATER // 4)

    def flush(self) -> None:
        """Write what waits, as far as the socket takes it; the rest follows when it does."""
        if self.subscriber.overflowed:
            self.end(TOO_SLOW, "too slow: more waits than may; come back with since=")
        if self._ending is not None or self._draining is not None:
            return
        transport = self._request.transport
        while transport is not None and not transport.is_closing() and (frames := self.subscriber.take(_WRITE_BYTES)):
            written = frames[0] if len(frames) == 1 else b"".join(frames)
            transport.write(written)
            self._counters.sent_frames += len(frames)
            self._counters.sent_bytes += len(written)
            if transport.get_write_buffer_size() > _HIGH_WATER:
                self._draining = asyncio.create_task(self._drain(), name="websocket drain")
                return

    def end(self, code: int, reason: str) -> None:
        """Close the connection; what waits is forgotten."""
        if self._ending is None:
            self.close_code = code
            self._ending = asyncio.create_task(self._close(code, reason), name="websocket close")
            self.gone()

    async def finish(self, code: int, reason: str) -> None:
        """Close the connection when what waits is written, or the time for that is over."""
        self.flush()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._options.close_s):
                while self._draining is not None:
                    await asyncio.wait([self._draining])
        self.end(code, reason)
        await self.ended()

    async def ended(self) -> None:
        """Return when a close that was begun is over. The request must not end before, and with it the socket."""
        if self._ending is not None:
            await asyncio.wait([self._ending])

    def gone(self) -> None:
        """The subscriber is no more."""
        self._on_end(self)
        self.subscriber.clear()
        if self._draining is not None:
            self._draining.cancel()

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(self._options.stall_s):
                await self._request.writer.drain()
        except TimeoutError:
            self._draining = None
            self.end(TOO_SLOW, f"took nothing for {self._options.stall_s:g} s; come back with since=")
        except ConnectionError:
            # The connection is lost, and aiohttp ends its request.
            self._draining = None
        else:
            self._draining = None
            self.flush()

    async def _close(self, code: int, reason: str) -> None:
        transport, close_s = self._request.transport, self._options.close_s
        try:
            async with asyncio.timeout(close_s):
                await self._socket.close(code=code, message=reason.encode())
        except (ConnectionError, TimeoutError):
            left = 0
        else:
            # The close frame, and what was written before, may still be on their way.
            left = 0 if transport is None else transport.get_write_buffer_size()
        if transport is not None and left:
            asyncio.get_running_loop().call_later(close_s, transport.abort)
        elif transport is not None:
            transport.abort()

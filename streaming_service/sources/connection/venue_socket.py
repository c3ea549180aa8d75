"""One open WebSocket to a venue, and everything that is known of it alone."""

from __future__ import annotations

import asyncio
from typing import Final

from picows import WSCloseCode, WSMsgType, WSTransport

from market_data_tick_handler.core.clock_offset import ClockOffset
from market_data_tick_handler.core.liveness import Action, ConnectionLiveness
from market_data_tick_handler.core.ticks import DataType
from streaming_service.clock import SECOND_US, Clock
from streaming_service.sources.connection.inbox import Inbox
from streaming_service.sources.connection.options import ConnectionOptions
from streaming_service.sources.exchanges.protocol import Decoded, Decoder, KeepAlive, Stream, Subscription

# Trades are stamped when they happen; other rows repeat older times.
_TELLS_TIME: Final = DataType.TRADES


class VenueSocket:
    """An open connection.

    number: of this source, never used twice. ended, promoted, flowing: set when it is gone, when it speaks for its
    streams, when the first frame with data came. acknowledged_us: since when its subscription is known to work, 0 until
    then. seen: streams that said something on it. retired: closed on purpose.
    """

    def __init__(
        self,
        number: int,
        subscription: Subscription,
        *,
        decoder: Decoder,
        inbox: Inbox,
        transport: WSTransport,
        keep_alive: KeepAlive,
        clock: Clock,
        options: ConnectionOptions,
        ended: asyncio.Event,
    ) -> None:
        self.number = number
        self.subscription = subscription
        self.decoder = decoder
        self.inbox = inbox
        self.ended = ended
        self.promoted = asyncio.Event()
        self.flowing = asyncio.Event()
        self.opened_us = clock.now_us()
        self.opened_s = clock.monotonic_s()
        self.acknowledged_us = 0
        self.acknowledged = 0
        self.refused = 0
        self.unknown = 0
        self.violations = 0
        self.pings = 0
        self.good = False
        self.retired = False
        self.seen: set[Stream] = set()
        self.offset = ClockOffset()
        self._transport = transport
        self._keep_alive = keep_alive
        self._clock = clock
        self._arrived = 0
        self._reads = 0
        self._looked_us = int(self.opened_s * SECOND_US)
        self.liveness = ConnectionLiveness(
            options.silence,
            ping_every_us=int(keep_alive.interval_s * SECOND_US),
            pong_within_us=int(options.pong_within_s * SECOND_US),
            opened_us=int(self.opened_s * SECOND_US),
        )
        if not subscription.messages:
            # The path names the streams: the handshake was the answer.
            self.acknowledged_us = self.opened_us

    @property
    def proof_us(self) -> int:
        """The last proof of life, by `Clock.now_us`."""
        return max(self.inbox.heard_us, self.opened_us)

    @property
    def subscription_s(self) -> float:
        """How long sending the subscription takes."""
        return self.subscription.pause_s * max(0, len(self.subscription.messages) - 1)

    def works_for(self, stream: Stream) -> bool:
        """Whether the subscription to `stream` is known to work: it spoke, or everything was acknowledged."""
        return stream in self.seen or (self.acknowledged_us > 0 and not self.refused)

    def acknowledge(self) -> bool:
        """One more message was acknowledged; True when it was the last."""
        self.acknowledged += 1
        if self.acknowledged_us or self.acknowledged < len(self.subscription.messages):
            return False
        self.acknowledged_us = self.inbox.received_us
        return True

    async def subscribe(self) -> None:
        """Send what the subscription consists of, as slowly as the venue wants it."""
        for at, message in enumerate(self.subscription.messages):
            if at:
                await self._clock.sleep(self.subscription.pause_s)
            if self.inbox.ended:
                return
            self.send(message)

    def send(self, message: bytes) -> None:
        """Send a text message; nothing happens on a connection that is gone."""
        if not self.inbox.ended:
            self._transport.send(WSMsgType.TEXT, message)

    def hold(self, held: bool) -> None:
        """Stop reading the socket, or go on."""
        if self.inbox.ended:
            return
        if held:
            self._transport.underlying_transport.pause_reading()
        else:
            self._transport.underlying_transport.resume_reading()

    def note(self, decoded: Decoded, frames: int) -> None:
        """What one turn decoded."""
        self.violations += len(decoded.violations)
        if frames > len(decoded.violations):
            self.good = True
        if frames > len(decoded.control):
            self.flowing.set()
        for numbers in decoded.numbers:
            self.seen.add((numbers.instrument, numbers.data_type))
        for rows in decoded.rows:
            self.seen.add((rows.instrument, rows.data_type))
            if rows.data_type is _TELLS_TIME and len(rows.batch):
                self.offset.observe(rows.batch["local_timestamp"], rows.batch["timestamp"])

    def look(self, pong_within_s: float) -> None:
        """Ping when it is time to, and give up when nothing answers."""
        inbox = self.inbox
        now_us = int(self._clock.monotonic_s() * SECOND_US)
        if inbox.reads > self._reads:
            # Told by a clock that may be set: it cannot have been longer ago than the last look.
            ago_us = min(max(self._clock.now_us() - inbox.heard_us, 0), now_us - self._looked_us)
            heard_us, arrived = now_us - ago_us, inbox.arrived
            if arrived > self._arrived:
                self.liveness.saw_frames(heard_us, heard_us)
            else:
                self.liveness.saw_pong(heard_us)
            self._reads, self._arrived = inbox.reads, arrived
        self._looked_us = now_us
        action = self.liveness.look(now_us)
        if action is Action.PING:
            self._ping()
            self.liveness.pinged(now_us)
        elif action is Action.GIVE_UP:
            self.drop(f"silent, and no answer to a ping within {pong_within_s} s")

    def drop(self, reason: str) -> None:
        """End a connection that is of no use, without waiting for the other side."""
        if not self.inbox.ended:
            self.inbox.reason = reason
            self._transport.disconnect(graceful=False)

    def retire(self, reason: str) -> None:
        """End a connection that is no longer needed."""
        self.retired = True
        if not self.inbox.ended:
            self.inbox.reason = reason
            self._transport.send_close(WSCloseCode.OK)
            self._transport.disconnect()

    def _ping(self) -> None:
        self.pings += 1
        if self._keep_alive.message:
            self.send(self._keep_alive.message)
        elif not self.inbox.ended:
            self._transport.send_ping()
